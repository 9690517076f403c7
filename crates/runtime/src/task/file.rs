//! Lines of task logs in streams on disk, one small stream per task.

use super::log::{Line, LineLog};
use bytes::Bytes;
use futures::future::BoxFuture;
use model::Uid;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;
use store::streams::{Limits, Stream};

/// How many streams stay open.
const OPEN: usize = 32;

/// Task logs in a folder.
pub struct FileLines {
    dir: PathBuf,
    open: Mutex<VecDeque<(Uid, Stream)>>,
}

impl FileLines {
    /// Logs in this folder.
    pub fn new(dir: &Path) -> FileLines {
        FileLines {
            dir: dir.to_owned(),
            open: Mutex::default(),
        }
    }

    async fn stream(&self, task: Uid, make: bool) -> Option<Stream> {
        if let Some((_, stream)) = self.open.lock().iter().find(|(t, _)| *t == task) {
            return Some(stream.clone());
        }
        let dir = self.dir.join(task.to_string());
        let limits = Limits {
            segment_bytes: 1 << 20,
            keep_bytes: 8 << 20,
            ..Limits::default()
        };
        let opened = tokio::task::spawn_blocking(move || {
            if !make && !dir.exists() {
                return None;
            }
            Stream::open(&dir, limits)
                .map_err(|error| tracing::error!(%error, "a task log cannot be opened"))
                .ok()
        })
        .await
        .ok()??;
        let mut open = self.open.lock();
        if let Some((_, stream)) = open.iter().find(|(t, _)| *t == task) {
            return Some(stream.clone());
        }
        if open.len() >= OPEN {
            open.pop_front();
        }
        open.push_back((task, opened.clone()));
        Some(opened)
    }

    /// Removes logs whose last line is older than this.
    pub async fn forget(&self, older: Duration) {
        let dir = self.dir.clone();
        let forgotten = tokio::task::spawn_blocking(move || {
            let mut n = 0;
            for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                let age = entry
                    .metadata()
                    .and_then(|m| m.modified())
                    .ok()
                    .and_then(|t| t.elapsed().ok());
                if age.is_some_and(|age| age > older)
                    && std::fs::remove_dir_all(entry.path()).is_ok()
                {
                    n += 1;
                }
            }
            n
        })
        .await;
        if let Ok(n @ 1..) = forgotten {
            tracing::info!(tasks = n, "old task logs removed");
        }
    }
}

impl LineLog for FileLines {
    fn append(&self, line: Line) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let bytes = Bytes::from(serde_json::to_vec(&line).unwrap_or_default());
            if let Some(stream) = self.stream(line.task, true).await
                && let Err(error) = stream.append(vec![bytes]).await
            {
                tracing::error!(%error, "a task line could not be kept");
            }
        })
    }

    fn read(&self, task: Uid) -> BoxFuture<'_, Vec<Line>> {
        Box::pin(async move {
            let Some(stream) = self.stream(task, false).await else {
                return Vec::new();
            };
            let mut out = Vec::new();
            let mut from = 0;
            loop {
                let records = stream.read(from, 1000).await.unwrap_or_default();
                let Some(last) = records.last() else {
                    return out;
                };
                from = last.seq + 1;
                out.extend(
                    records
                        .iter()
                        .filter_map(|r| serde_json::from_slice(&r.payload).ok()),
                );
            }
        })
    }
}

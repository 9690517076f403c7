//! Events in a stream on disk.

use super::{Event, EventLog};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use model::{Error, ObjectRef, Result};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::path::Path;
use store::streams::{Limits, Stream};

/// How many events are remembered per object for `explain`.
const PER_OBJECT: usize = 20;
/// How many events are read at start to remember by object.
const LOOK_BACK: u64 = 10_000;

/// Events kept in a folder: 30 days or 256 MiB.
pub struct FileLog {
    stream: Stream,
    by_object: Mutex<HashMap<ObjectRef, VecDeque<Event>>>,
}

impl FileLog {
    /// Opens the folder.
    pub async fn open(dir: &Path) -> Result<FileLog> {
        let dir = dir.to_owned();
        let stream = tokio::task::spawn_blocking(move || Stream::open(dir, Limits::default()))
            .await
            .map_err(|e| Error::internal("open the event stream").because(e))?
            .map_err(|e| {
                Error::unavailable(format!("the event stream cannot be opened: {e}")).because(e)
            })?;
        let log = FileLog {
            stream,
            by_object: Mutex::default(),
        };
        let (first, next) = log.stream.range();
        let from = next.saturating_sub(LOOK_BACK).max(first);
        let mut at = from;
        while at < next {
            let records = log.stream.read(at, 1000).await.unwrap_or_default();
            let Some(last) = records.last() else { break };
            at = last.seq + 1;
            for event in records.iter().filter_map(decode) {
                log.remember(event);
            }
        }
        Ok(log)
    }

    fn remember(&self, event: Event) {
        let mut all = self.by_object.lock();
        if all.len() > LOOK_BACK as usize && !all.contains_key(&event.about) {
            all.clear();
        }
        let list = all.entry(event.about.clone()).or_default();
        if list.len() >= PER_OBJECT {
            list.pop_front();
        }
        list.push_back(event);
    }
}

fn decode(record: &store::streams::Record) -> Option<Event> {
    let mut event: Event = serde_json::from_slice(&record.payload).ok()?;
    event.seq = record.seq;
    Some(event)
}

impl EventLog for FileLog {
    fn append(&self, mut event: Event) -> BoxFuture<'_, u64> {
        Box::pin(async move {
            let bytes = Bytes::from(serde_json::to_vec(&event).unwrap_or_default());
            match self.stream.append(vec![bytes]).await {
                Ok(seq) => {
                    event.seq = seq;
                    self.remember(event);
                    seq
                }
                Err(error) => {
                    tracing::error!(%error, "an event could not be kept");
                    0
                }
            }
        })
    }

    fn read(&self, after: u64, limit: usize) -> BoxFuture<'_, Vec<Event>> {
        Box::pin(async move {
            // The last ones are what people ask for first.
            let from = if after == 0 {
                self.stream.range().1.saturating_sub(limit as u64).max(1)
            } else {
                after + 1
            };
            let records = self.stream.read(from, limit).await.unwrap_or_default();
            records.iter().filter_map(decode).collect()
        })
    }

    fn about<'a>(&'a self, object: &'a ObjectRef, limit: usize) -> BoxFuture<'a, Vec<Event>> {
        let list = self
            .by_object
            .lock()
            .get(object)
            .cloned()
            .unwrap_or_default();
        let skip = list.len().saturating_sub(limit);
        Box::pin(futures::stream::iter(list.into_iter().skip(skip)).collect())
    }
}

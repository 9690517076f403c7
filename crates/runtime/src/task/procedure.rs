//! What a procedure is written with: steps, undos, the point of no return, progress, log.

use super::journal::{Entry, Journal, UndoCall};
use super::log::TaskLogs;
use super::types::{Task, TaskSpec};
use crate::{Cx, Obj};
use model::{Error, ObjectRef, Result, Uid};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use store::Key;
use tokio_util::sync::CancellationToken;

/// What a step answers once the task is cancelled; `?` passes it on and the procedure unwinds.
fn cancelled() -> Error {
    Error::refused("the task was cancelled")
}

pub(super) struct Shared {
    pub cx: Cx,
    pub key: Key,
    pub uid: Uid,
    pub name: String,
    pub spec: TaskSpec,
    pub journal: tokio::sync::Mutex<Journal>,
    pub token: CancellationToken,
    pub logs: TaskLogs,
    seen: Mutex<HashSet<String>>,
    done: AtomicU64,
    total: AtomicU64,
    shown: Mutex<Option<tokio::time::Instant>>,
}

/// The handle of a running procedure. Cheap to clone.
#[derive(Clone)]
pub struct Proc(pub(super) Arc<Shared>);

impl Proc {
    pub(super) fn new(
        cx: &Cx,
        key: &Key,
        task: &Obj<Task>,
        journal: Journal,
        token: CancellationToken,
    ) -> Proc {
        Proc(Arc::new(Shared {
            cx: cx.clone(),
            key: key.clone(),
            uid: task.metadata.uid,
            name: task.metadata.name.to_string(),
            spec: task.spec.clone(),
            journal: tokio::sync::Mutex::new(journal),
            token,
            logs: TaskLogs::of(cx),
            seen: Mutex::default(),
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
            shown: Mutex::new(None),
        }))
    }

    /// The context of this process.
    pub fn cx(&self) -> &Cx {
        &self.0.cx
    }

    /// The object that it is about.
    pub fn target(&self) -> &ObjectRef {
        &self.0.spec.target
    }

    /// The identity of that object.
    pub fn target_uid(&self) -> Uid {
        self.0.spec.target_uid
    }

    /// The identity of the task, the same after every restart.
    pub fn uid(&self) -> Uid {
        self.0.uid
    }

    /// The name of the task.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Who asked for it.
    pub fn actor(&self) -> &str {
        &self.0.spec.actor
    }

    /// The key of the task.
    pub(super) fn key(&self) -> &Key {
        &self.0.key
    }

    /// The objects of a batch.
    pub(super) fn batch(&self) -> Option<&super::Batch> {
        self.0.spec.batch.as_ref()
    }

    /// The request that it came with.
    pub(super) fn request_id(&self) -> &str {
        &self.0.spec.request_id
    }

    /// Its parameters, unread.
    pub(super) fn raw_params(&self) -> &serde_json::Value {
        &self.0.spec.params
    }

    /// The kind and verb that it carries out.
    pub(super) fn verb(&self) -> &str {
        self.0.spec.action.rsplit('.').next().unwrap_or_default()
    }

    /// The result of a step that has ended.
    pub(super) async fn ended_step<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let journal = self.0.journal.lock().await;
        serde_json::from_value(journal.done(name)?.clone()).ok()
    }

    /// A step that runs although the task is cancelled: it watches the token itself and ends what it has begun.
    pub(super) async fn closing_step<T, F>(
        &self,
        name: impl Into<String>,
        work: impl FnOnce() -> F,
    ) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<T>>,
    {
        self.run(name.into(), None, true, work).await
    }

    /// Its parameters.
    pub fn params<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_value(self.0.spec.params.clone())
            .map_err(|e| Error::field("params", e.to_string()))
    }

    /// Cancelled when the task is cancelled or the process ends; long steps watch it and clean up.
    pub fn token(&self) -> CancellationToken {
        self.0.token.clone()
    }

    /// Runs a step once; after a crash a finished step answers from the journal. The name must be unique.
    pub async fn step<T, F>(&self, name: impl Into<String>, work: impl FnOnce() -> F) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<T>>,
    {
        self.run(name.into(), None, false, work).await
    }

    /// Runs a step that is undone when the task fails or is cancelled later. The undo is journalled first; a step that
    /// fails has cleaned up after itself.
    pub async fn undoable<T, F>(
        &self,
        name: impl Into<String>,
        undo: UndoCall,
        work: impl FnOnce() -> F,
    ) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<T>>,
    {
        self.run(name.into(), Some(undo), false, work).await
    }

    async fn run<T, F>(
        &self,
        name: String,
        undo: Option<UndoCall>,
        though_cancelled: bool,
        work: impl FnOnce() -> F,
    ) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<T>>,
    {
        if !self.0.seen.lock().insert(name.clone()) {
            return Err(Error::internal(format!(
                "procedure {} has two steps `{name}`",
                self.0.spec.action
            )));
        }
        {
            let mut journal = self.0.journal.lock().await;
            if let Some(result) = journal.done(&name) {
                return serde_json::from_value(result.clone()).map_err(|e| {
                    Error::internal(format!(
                        "journal of step `{name}` no longer fits its procedure"
                    ))
                    .because(e)
                });
            }
            let open = journal.open_step(&name);
            // A step that was begun is finished first and undone then: else what it reserved would leak.
            let must_finish = open || though_cancelled || journal.committed();
            if self.0.token.is_cancelled() && !must_finish {
                return Err(cancelled());
            }
            if let (Some(undo), false) = (&undo, open) {
                journal
                    .append(
                        &self.0.cx,
                        Entry::Begun {
                            step: name.clone(),
                            undo: undo.clone(),
                        },
                    )
                    .await?;
            }
        }
        self.show_step(&name).await;
        match work().await {
            Ok(result) => {
                let value = serde_json::to_value(&result)
                    .map_err(|e| Error::internal(format!("result of step `{name}`")).because(e))?;
                let mut journal = self.0.journal.lock().await;
                journal
                    .append(
                        &self.0.cx,
                        Entry::Done {
                            step: name,
                            result: value,
                        },
                    )
                    .await?;
                Ok(result)
            }
            Err(error) => {
                if undo.is_some() && !self.0.cx.shutdown().is_cancelled() {
                    let mut journal = self.0.journal.lock().await;
                    journal
                        .append(&self.0.cx, Entry::Failed { step: name })
                        .await?;
                }
                Err(error)
            }
        }
    }

    /// From here on the procedure only goes forward: failures are tried again, a cancel is ignored.
    pub async fn point_of_no_return(&self) -> Result<()> {
        let mut journal = self.0.journal.lock().await;
        if journal.committed() {
            return Ok(());
        }
        if self.0.token.is_cancelled() {
            return Err(cancelled());
        }
        journal.append(&self.0.cx, Entry::PointOfNoReturn).await
    }

    /// Says how far it is, in bytes or in whatever `total` counts. Shown at most once a second.
    pub async fn progress(&self, done: u64, total: u64) {
        self.0.done.store(done, Ordering::Relaxed);
        self.0.total.store(total, Ordering::Relaxed);
        let due = {
            let mut shown = self.0.shown.lock();
            let now = tokio::time::Instant::now();
            let due = shown.is_none_or(|at| now - at >= Duration::from_secs(1));
            if due {
                *shown = Some(now);
            }
            due
        };
        if due {
            self.0.logs.progress(&self.0.name, done, total);
            let percent = percent(done, total);
            let update = self.0.cx.set_status::<Task>(&self.0.key, |status| {
                status.progress = percent;
                status.bytes_done = Some(done);
                status.bytes_total = Some(total);
            });
            if let Err(error) = update.await {
                tracing::debug!(task = %self.0.name, ?error, "progress not stored");
            }
        }
    }

    /// Adds a line to the task's log.
    pub async fn log(&self, line: impl Into<String>) {
        let line = line.into();
        tracing::info!(task = %self.0.name, request_id = %self.0.spec.request_id, line = %line, "task log");
        self.0
            .logs
            .append(self.0.uid, self.0.cx.clock().now(), line)
            .await;
    }

    async fn show_step(&self, name: &str) {
        self.log(format!("step: {name}")).await;
        let update = self
            .0
            .cx
            .set_status::<Task>(&self.0.key, |status| status.step = name.to_owned());
        if let Err(error) = update.await {
            tracing::debug!(task = %self.0.name, ?error, "step not stored");
        }
    }
}

fn percent(done: u64, total: u64) -> u8 {
    match total {
        0 => 0,
        total => (u128::from(done) * 100 / u128::from(total)).min(100) as u8,
    }
}

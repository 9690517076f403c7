//! Lines that tasks write, and the life of ended tasks.

use super::types::{KIND, Task};
use crate::{Cx, StreamIo, StreamRequest};
use futures::future::BoxFuture;
use model::{Error, Result, Timestamp, Uid};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;

/// One line of a task's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Of which task.
    pub task: Uid,
    /// When.
    pub time: Timestamp,
    /// What.
    pub text: String,
}

/// Where lines are kept.
pub trait LineLog: Send + Sync {
    /// Appends a line.
    fn append(&self, line: Line) -> BoxFuture<'_, ()>;
    /// All lines of a task, oldest first.
    fn read(&self, task: Uid) -> BoxFuture<'_, Vec<Line>>;
}

/// The logs of all tasks. A part of the process; cheap to clone.
#[derive(Clone)]
pub struct TaskLogs {
    log: Arc<dyn LineLog>,
    live: broadcast::Sender<Arc<Line>>,
}

impl TaskLogs {
    /// Over a log.
    pub fn new(log: Arc<dyn LineLog>) -> TaskLogs {
        TaskLogs {
            log,
            live: broadcast::channel(1024).0,
        }
    }

    /// In memory: for tests.
    pub fn in_memory() -> TaskLogs {
        TaskLogs::new(Arc::new(Memory::default()))
    }

    /// The logs of this process.
    pub fn of(cx: &Cx) -> TaskLogs {
        cx.try_part::<TaskLogs>()
            .map_or_else(TaskLogs::in_memory, |l| (*l).clone())
    }

    /// All lines of a task so far.
    pub async fn lines(&self, task: Uid) -> Vec<Line> {
        self.log.read(task).await
    }

    pub(super) async fn append(&self, task: Uid, time: Timestamp, text: String) {
        self.accept(Line { task, time, text }).await;
    }

    /// Takes a line as it is: how an agent's lines arrive.
    pub async fn accept(&self, line: Line) {
        self.log.append(line.clone()).await;
        let _ = self.live.send(Arc::new(line));
    }

    pub(super) fn progress(&self, task: &str, done: u64, total: u64) {
        tracing::debug!(task, done, total, "progress");
    }
}

#[derive(Default)]
struct Memory(parking_lot::Mutex<Vec<Line>>);

impl LineLog for Memory {
    fn append(&self, line: Line) -> BoxFuture<'_, ()> {
        self.0.lock().push(line);
        Box::pin(async {})
    }
    fn read(&self, task: Uid) -> BoxFuture<'_, Vec<Line>> {
        let lines = self
            .0
            .lock()
            .iter()
            .filter(|l| l.task == task)
            .cloned()
            .collect();
        Box::pin(async move { lines })
    }
}

/// The stream `log`: what was written, then what is written, until the task has ended.
pub(super) fn open(cx: Cx, request: StreamRequest, io: StreamIo) -> BoxFuture<'static, Result<()>> {
    Box::pin(async move {
        let target = &request.target;
        let key = cx.key::<Task>(target.project.as_deref(), &target.name);
        let Some(task) = cx.get_key::<Task>(&key) else {
            return Err(Error::not_found(format!("there is no {target}")));
        };
        let uid = task.metadata.uid;
        let logs = TaskLogs::of(&cx);
        let mut live = logs.live.subscribe();
        let mut deltas = cx.cache().subscribe();
        let mut sent = 0;
        loop {
            let ended = cx
                .get_key::<Task>(&key)
                .is_none_or(|t| t.status.as_ref().is_some_and(|s| s.state.ended()));
            let lines = logs.log.read(uid).await;
            for line in lines.iter().skip(sent) {
                io.data(format!("{} {}\n", line.time, line.text)).await?;
            }
            sent = lines.len();
            if ended {
                return Ok(());
            }
            loop {
                tokio::select! {
                    () = io.closed() => return Ok(()),
                    line = live.recv() => match line {
                        Ok(line) if line.task != uid => {}
                        _ => break,
                    },
                    delta = deltas.recv() => match delta {
                        Ok(delta) if delta.key != key => {}
                        _ => break,
                    },
                }
            }
        }
    })
}

/// Ended tasks stay for as long as the setting `task-history` says; the event of their end stays in the event stream.
pub(super) async fn sweep(cx: Cx) {
    let stop = cx.shutdown();
    let mut timer = tokio::time::interval(Duration::from_secs(300));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = timer.tick() => {}
        }
        let now = cx.clock().now();
        let kept = crate::setting::TASK_HISTORY.seconds(&cx);
        for task in cx.list::<Task>(None) {
            let old = task
                .status
                .as_ref()
                .and_then(|s| s.finished)
                .is_some_and(|at| now.since(at) > kept);
            if old {
                let target = model::ObjectRef {
                    kind: KIND.name.into(),
                    project: task.metadata.project.as_ref().map(ToString::to_string),
                    name: task.metadata.name.to_string(),
                };
                let op = crate::Op::Delete {
                    target,
                    keep: Vec::new(),
                };
                if let Err(error) = cx.submit(op, "old tasks").await {
                    tracing::warn!(task = %task.metadata.name, ?error, "old task stays");
                }
            }
        }
        if let Err(error) = cx.desk().forget_old_requests().await {
            tracing::warn!(?error, "old idempotency records stay");
        }
    }
}

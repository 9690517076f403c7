//! Start and end of a process: phases, and the tasks that it owns.
//!
//! `running → draining → stopped`. Draining refuses new requests and lets running ones end; then every owned task is
//! cancelled and awaited. Guests are not touched.

use futures::FutureExt;
use parking_lot::Mutex;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Serving.
    Running,
    /// Not ready any more; requests in flight end.
    Draining,
    /// Ended.
    Stopped,
}

/// The life of this process. Cheap to clone.
#[derive(Clone)]
pub struct Life(Arc<Inner>);

struct Inner {
    phase: watch::Sender<Phase>,
    stop: CancellationToken,
    tasks: TaskTracker,
    running: Mutex<Vec<&'static str>>,
}

impl Life {
    pub(crate) fn new() -> Life {
        Life(Arc::new(Inner {
            phase: watch::channel(Phase::Running).0,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            running: Mutex::default(),
        }))
    }

    /// Runs a task that belongs to this process. A panic in it is logged and ends only it.
    #[allow(
        clippy::disallowed_methods,
        reason = "the tracker is the owner that the ban asks for"
    )]
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.0.running.lock().push(name);
        let inner = self.0.clone();
        let tracked = self.0.tasks.track_future(async move {
            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                tracing::error!(task = name, "a task of this process panicked");
            }
            let mut running = inner.running.lock();
            if let Some(at) = running.iter().position(|n| *n == name) {
                running.swap_remove(at);
            }
        });
        tokio::spawn(tracked);
    }

    /// Cancelled when the process ends.
    pub fn stopped(&self) -> CancellationToken {
        self.0.stop.clone()
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.0.phase.borrow()
    }

    /// Follows the phase.
    pub fn phases(&self) -> watch::Receiver<Phase> {
        self.0.phase.subscribe()
    }

    pub(crate) fn refuses(&self) -> bool {
        self.phase() != Phase::Running
    }

    /// Refuses new requests from now on.
    pub fn drain(&self) {
        self.0.phase.send_replace(Phase::Draining);
    }

    /// Cancels every owned task and waits for them, at most so long. Says which did not end.
    pub async fn stop(&self, within: Duration) -> Vec<&'static str> {
        self.0.phase.send_replace(Phase::Draining);
        self.0.stop.cancel();
        self.0.tasks.close();
        let ended = tokio::time::timeout(within, self.0.tasks.wait())
            .await
            .is_ok();
        self.0.phase.send_replace(Phase::Stopped);
        if ended {
            Vec::new()
        } else {
            self.0.running.lock().clone()
        }
    }
}

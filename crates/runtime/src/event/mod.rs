//! Events: what happened, in past participles (`vm.started`), for people and programs.
//!
//! A stream, not a resource: written at the api, kept in files, followed live. An agent hands its events over its link.

mod file;

pub use file::FileLog;

use crate::trace::{Cause, Trace};
use futures::future::BoxFuture;
use model::{ObjectRef, Timestamp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::broadcast;

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As wanted.
    Info,
    /// Somebody should look.
    Warning,
    /// Somebody must act.
    Error,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number in the stream; 0 until it is in one.
    #[serde(default)]
    pub seq: u64,
    /// When.
    pub time: Timestamp,
    /// What happened: `vm.started`.
    pub event: String,
    /// To which object.
    pub about: ObjectRef,
    /// For people.
    pub message: String,
    /// How much it matters.
    pub severity: Severity,
    /// The request that led to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Where that request stands among others.
    #[serde(default, skip_serializing_if = "Trace::is_empty")]
    pub trace: Trace,
}

/// Where events are kept.
pub trait EventLog: Send + Sync {
    /// Appends and answers the event's number.
    fn append(&self, event: Event) -> BoxFuture<'_, u64>;
    /// Events with a number above `after`, at most `limit`, oldest first.
    fn read(&self, after: u64, limit: usize) -> BoxFuture<'_, Vec<Event>>;
    /// The last `limit` events about one object, newest last.
    fn about<'a>(&'a self, object: &'a ObjectRef, limit: usize) -> BoxFuture<'a, Vec<Event>>;
}

/// Records events and lets people follow them. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    log: Arc<dyn EventLog>,
    live: broadcast::Sender<Arc<Event>>,
}

impl Events {
    /// Over a log.
    pub fn new(log: Arc<dyn EventLog>) -> Events {
        Events {
            log,
            live: broadcast::channel(1024).0,
        }
    }

    /// Keeps the last thousand in memory: for tests.
    pub fn in_memory() -> Events {
        Events::new(Arc::new(MemoryLog::default()))
    }

    pub(crate) async fn record(
        &self,
        time: Timestamp,
        about: &ObjectRef,
        event: &str,
        message: &str,
        severity: Severity,
        cause: Option<Cause>,
    ) {
        let (request_id, trace) = match cause {
            Some(cause) => (Some(cause.request_id), cause.trace),
            None => (None, Trace::default()),
        };
        let event = Event {
            seq: 0,
            time,
            event: event.into(),
            about: about.clone(),
            message: message.into(),
            severity,
            request_id,
            trace,
        };
        self.accept(event).await;
    }

    /// Takes an event as it is: how an agent's events arrive.
    pub async fn accept(&self, mut event: Event) {
        tracing::info!(
            event = %event.event, about = %event.about, detail = %event.message,
            request_id = event.request_id, "event"
        );
        event.seq = self.log.append(event.clone()).await;
        let _ = self.live.send(Arc::new(event));
    }

    /// Events with a number above `after`, oldest first.
    pub async fn read(&self, after: u64, limit: usize) -> Vec<Event> {
        self.log.read(after, limit).await
    }

    /// The last events about one object.
    pub async fn about(&self, object: &ObjectRef, limit: usize) -> Vec<Event> {
        self.log.about(object, limit).await
    }

    /// Every event from now on.
    pub fn follow(&self) -> broadcast::Receiver<Arc<Event>> {
        self.live.subscribe()
    }
}

#[derive(Default)]
struct MemoryLog(Mutex<(u64, VecDeque<Event>)>);

impl EventLog for MemoryLog {
    fn append(&self, mut event: Event) -> BoxFuture<'_, u64> {
        let mut log = self.0.lock();
        log.0 += 1;
        event.seq = log.0;
        log.1.push_back(event);
        if log.1.len() > 1000 {
            log.1.pop_front();
        }
        let seq = log.0;
        Box::pin(async move { seq })
    }

    fn read(&self, after: u64, limit: usize) -> BoxFuture<'_, Vec<Event>> {
        let out = self
            .0
            .lock()
            .1
            .iter()
            .filter(|e| e.seq > after)
            .take(limit)
            .cloned()
            .collect();
        Box::pin(async move { out })
    }

    fn about<'a>(&'a self, object: &'a ObjectRef, limit: usize) -> BoxFuture<'a, Vec<Event>> {
        let mut out: Vec<Event> = self
            .0
            .lock()
            .1
            .iter()
            .rev()
            .filter(|e| e.about == *object)
            .take(limit)
            .cloned()
            .collect();
        out.reverse();
        Box::pin(async move { out })
    }
}

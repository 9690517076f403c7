//! Runs controllers: one queue of keys each, woken by the watch cache, by the world outside and by a timer.
//!
//! A key is reconciled by one worker at a time. An error backs off (1 s doubling to 5 min) and shows as a condition;
//! a panic is caught, shown the same way, and takes nothing else down.

mod cascade;
mod conditions;
mod queue;

pub(crate) use cascade::OWNED;

use crate::trace::Cause;
use crate::{Cx, Delta, Place, Trace, object_key, object_ref};
use futures::FutureExt;
use futures::future::BoxFuture;
use model::{Error, Kind, Result};
use queue::Queue;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use store::Key;
use tokio::sync::broadcast::error::RecvError;
use tracing::Instrument;

/// Brings one kind to what its specs want. Takes no hint: `reconcile` looks at the world.
pub trait Controller: Send + Sync + 'static {
    /// For logs.
    fn name(&self) -> &'static str;
    /// The kind whose status it writes, as its only writer.
    fn owns(&self) -> &'static Kind;
    /// Which changes of other kinds wake which objects of its own.
    fn watches(&self) -> Vec<Watch> {
        Vec::new()
    }
    /// Looks at one object and the world, and does what is needed. Idempotent. The object may be gone.
    fn reconcile<'a>(&'a self, cx: &'a Cx, key: &'a Key) -> BoxFuture<'a, Result<Next>>;
    /// How often every object is looked at without a reason.
    fn resync(&self) -> Duration {
        Duration::from_secs(300)
    }
    /// How many objects it works on at once.
    fn parallel(&self) -> usize {
        4
    }
}

/// What else wakes a controller.
pub enum Watch {
    /// A change of an object of this kind wakes those of mine that name it in a reference field.
    Referrers(&'static str),
    /// A change of an object of this kind wakes the one of mine that it belongs to.
    Owners(&'static str),
    /// A change of an object of this kind wakes the one of mine with the same name, also when mine is not made yet.
    Twin(&'static str),
    /// A change of an object of this kind wakes these, which exist.
    Map(&'static str, fn(&Cx, &Key) -> Vec<Key>),
}

/// How a reconcile ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The world is as wanted.
    Settled,
    /// Look again after this time.
    Again(Duration),
    /// It cannot go on before something happens; people read this as a condition.
    WaitingFor(String),
}

/// Runs the controllers and procedures of this process.
pub struct Engine;

impl Engine {
    /// Starts every controller of the registry that belongs to this process, and the tasks.
    pub fn start(cx: &Cx) {
        for declared in cx.registry().iter() {
            if cx.runs(declared.place) {
                for controller in (declared.controllers)(cx) {
                    Engine::run(cx, controller);
                }
            }
        }
        if cx.runs(Place::Api) {
            cx.life()
                .spawn("what belongs to others", cascade::run(cx.clone()));
        }
        crate::task::start(cx);
    }

    /// Starts one controller.
    pub fn run(cx: &Cx, controller: Arc<dyn Controller>) {
        let queue = Arc::new(Queue::default());
        cx.life().spawn(
            controller.name(),
            feed(cx.clone(), controller.clone(), queue.clone()),
        );
        for _ in 0..controller.parallel().max(1) {
            cx.life().spawn(
                controller.name(),
                work(cx.clone(), controller.clone(), queue.clone()),
            );
        }
    }
}

/// Turns changes into keys.
async fn feed(cx: Cx, controller: Arc<dyn Controller>, queue: Arc<Queue>) {
    let own = controller.owns().name;
    let watches = controller.watches();
    let mut deltas = cx.cache().subscribe();
    let mut wakes = cx.wakes();
    let all = || every(&cx, own, &watches, &queue);
    all();
    let mut timer = tokio::time::interval(controller.resync().max(Duration::from_secs(1)));
    timer.reset();
    let stop = cx.shutdown();
    loop {
        tokio::select! {
            () = stop.cancelled() => {
                queue.close();
                return;
            }
            _ = timer.tick() => all(),
            key = wakes.recv() => match key {
                Ok(key) => {
                    if object_ref(&key).is_some_and(|r| r.kind == own) {
                        queue.push_now(key);
                    }
                }
                Err(RecvError::Lagged(_)) => all(),
                Err(RecvError::Closed) => return,
            },
            delta = deltas.recv() => match delta {
                Ok(delta) => wake(&cx, own, &watches, &delta, &queue),
                Err(RecvError::Lagged(_)) => all(),
                Err(RecvError::Closed) => return,
            },
        }
    }
}

/// Queues all that there is to look at: what was changed while nobody listened has no delta any more.
fn every(cx: &Cx, own: &str, watches: &[Watch], queue: &Queue) {
    for row in cx.cache().rows(own, None) {
        queue.push(row.key.clone());
    }
    for watch in watches {
        if let Watch::Twin(kind) = watch {
            for row in cx.cache().rows(kind, None) {
                if let Some(key) = twin(own, &row.key) {
                    queue.push(key);
                }
            }
        }
    }
}

/// The key of the object of this kind with the same name.
fn twin(own: &str, of: &Key) -> Option<Key> {
    object_ref(of).map(|it| object_key(own, it.project.as_deref(), &it.name))
}

fn wake(cx: &Cx, own: &str, watches: &[Watch], delta: &Delta, queue: &Queue) {
    if delta.kind == own {
        // A status that we wrote ourselves is no reason to look again.
        let only_status = match (&delta.new, &delta.old) {
            (Some(new), Some(old)) => {
                new.generation == old.generation
                    && new.deleting == old.deleting
                    && new.owner == old.owner
            }
            _ => false,
        };
        if !only_status {
            queue.push_now(delta.key.clone());
        }
    }
    for watch in watches {
        match watch {
            Watch::Referrers(kind) if *kind == delta.kind => {
                for key in cx.cache().referrers(&delta.key) {
                    if object_ref(&key).is_some_and(|r| r.kind == own) {
                        queue.push_now(key);
                    }
                }
            }
            Watch::Owners(kind) if *kind == delta.kind => {
                let owner = delta
                    .new
                    .as_ref()
                    .or(delta.old.as_ref())
                    .and_then(|row| row.owner.clone());
                if let Some(owner) = owner.filter(|o| object_ref(o).is_some_and(|r| r.kind == own))
                {
                    queue.push_now(owner);
                }
            }
            Watch::Twin(kind) if *kind == delta.kind => {
                if let Some(key) = twin(own, &delta.key) {
                    queue.push_now(key);
                }
            }
            Watch::Map(kind, map) if *kind == delta.kind => {
                for key in map(cx, &delta.key) {
                    queue.push_now(key);
                }
            }
            _ => {}
        }
    }
}

/// Reconciles keys one after the other.
async fn work(cx: Cx, controller: Arc<dyn Controller>, queue: Arc<Queue>) {
    while let Some(key) = queue.next().await {
        // What it can have seen at least; read before it looks, so that a later change is not called observed.
        let row = cx.cache().row(controller.owns().name, &key);
        if !cx.tends(controller.owns(), &key) {
            queue.settled(&key);
            continue;
        }
        let seen = row.as_ref().map_or(0, |row| row.generation);
        let request_id = row.as_ref().map_or("", |row| &*row.request_id);
        let span =
            tracing::info_span!("reconcile", controller = controller.name(), %key, request_id);
        let cause = Cause {
            request_id: request_id.to_owned(),
            trace: Trace::default(),
        };
        let reconciled = cause.leads_to(controller.reconcile(&cx, &key).instrument(span));
        let result = AssertUnwindSafe(reconciled)
            .catch_unwind()
            .await
            .unwrap_or_else(|panic| {
                let text = panic
                    .downcast_ref::<&str>()
                    .map(|s| (*s).to_owned())
                    .or_else(|| panic.downcast_ref::<String>().cloned())
                    .unwrap_or_default();
                Err(Error::internal(format!(
                    "controller {} panicked: {text}",
                    controller.name()
                )))
            });
        if let Err(error) = &result {
            tracing::warn!(controller = controller.name(), %key, ?error, "reconcile failed");
        }
        if let Err(error) = conditions::write(&cx, controller.owns(), &key, seen, &result).await {
            tracing::warn!(controller = controller.name(), %key, ?error, "conditions cannot be written");
        }
        match result {
            Ok(Next::Settled) => queue.settled(&key),
            Ok(Next::Again(after)) => queue.again(&key, after),
            Ok(Next::WaitingFor(_)) => queue.again(&key, Duration::from_secs(30)),
            Err(_) => queue.failed(&key),
        }
    }
}

//! Changes as surfaces see them: snapshot or resume, then every change without a gap.

use super::Desk;
use crate::gate::{Admitted, Op, Request};
use crate::{Delta, Row, View};
use async_stream::stream;
use bytes::Bytes;
use futures::stream::BoxStream;
use model::{Error, Result, Timestamp};
use std::sync::Arc;
use store::Revision;
use tokio::sync::broadcast::error::RecvError;

/// One thing that a watcher sees.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// An object is there, new or changed.
    Put {
        /// The whole object.
        object: Bytes,
        /// Since when.
        revision: Revision,
    },
    /// An object is gone, or no longer picked.
    Deleted {
        /// As it was.
        object: Bytes,
        /// Since when.
        revision: Revision,
    },
    /// Everything up to this revision has been sent.
    Bookmark(Revision),
}

impl Desk {
    /// Watches a kind. Without `after` it begins with all objects that are there; ends with `Gone` when the watcher
    /// is too slow or asks for what is no longer kept.
    pub fn watch(&self, admitted: &Admitted) -> Result<BoxStream<'static, Result<WatchEvent>>> {
        let Op::Watch {
            kind,
            project,
            name,
            query,
            after,
        } = admitted.request().op.clone()
        else {
            return Err(Error::internal("only watches are watched"));
        };
        let kind = self.cx.registry().need(&kind)?.kind().name;
        let eyes = Eyes::new(self, admitted.request(), kind, project.clone());
        let cache = self.cx.cache().clone();
        let stop = self.cx.shutdown();
        let within = project.clone();
        let search = query.search.map(|s| s.to_lowercase());
        let picks = move |row: &Row| {
            eyes.see(row)
                && project
                    .as_deref()
                    .is_none_or(|p| row.project.as_deref() == Some(p))
                && name.as_deref().is_none_or(|n| &*row.name == n)
                && query.selector.matches(&row.labels)
                && search
                    .as_ref()
                    .is_none_or(|s| row.name.contains(s.as_str()))
        };
        // Taken before the snapshot: what comes between the two is sent, at worst twice, never skipped.
        let mut reached = after.unwrap_or_else(|| cache.revision());
        let (missed, mut live) = match after {
            Some(after) => cache.resume(after)?,
            None => (Vec::new(), cache.subscribe()),
        };
        let first: Vec<Arc<Row>> = match after {
            Some(_) => Vec::new(),
            None => cache.rows(kind, within.as_deref()),
        };
        Ok(Box::pin(stream! {
            for row in first {
                if picks(&row) {
                    reached = reached.max(row.modified);
                    yield Ok(WatchEvent::Put { object: row.json.clone(), revision: row.modified });
                }
            }
            for delta in missed {
                if let Some(event) = event(kind, &delta, &picks) {
                    yield Ok(event);
                }
                reached = reached.max(delta.revision);
            }
            yield Ok(WatchEvent::Bookmark(reached));
            loop {
                let delta = tokio::select! {
                    () = stop.cancelled() => return,
                    delta = live.recv() => delta,
                };
                match delta {
                    // What the snapshot already had is not sent again.
                    Ok(delta) if delta.revision <= reached && after.is_none() && delta.new.as_ref().is_some_and(|n| n.modified <= reached) => {}
                    Ok(delta) => {
                        if let Some(event) = event(kind, &delta, &picks) {
                            yield Ok(event);
                        }
                    }
                    Err(RecvError::Lagged(n)) => {
                        yield Err(Error::gone(format!("this watch fell {n} changes behind"))
                            .hint("list again and watch from the revision of the list"));
                        return;
                    }
                    Err(RecvError::Closed) => return,
                }
            }
        }))
    }
}

/// What the watcher may see, as it is now: rights that come or go while he watches count at once.
struct Eyes {
    gate: crate::Gate,
    actor: crate::Actor,
    from: Option<std::net::IpAddr>,
    kind: &'static str,
    project: Option<String>,
    view: parking_lot::Mutex<(View, Timestamp)>,
    changes: Option<parking_lot::Mutex<tokio::sync::watch::Receiver<u64>>>,
}

/// A condition of a grant may end with the time alone.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

impl Eyes {
    fn new(desk: &Desk, request: &Request, kind: &'static str, project: Option<String>) -> Eyes {
        let gate = desk.cx.gate();
        let (actor, from) = (request.actor.clone(), request.from);
        let changes = gate.changes().filter(|_| !actor.is_trusted());
        let view = gate.view(&actor, from, kind, "read", project.as_deref());
        let now = desk.cx.clock().now();
        Eyes {
            changes: changes.map(parking_lot::Mutex::new),
            view: parking_lot::Mutex::new((view, now)),
            gate,
            actor,
            from,
            kind,
            project,
        }
    }

    fn see(&self, row: &Row) -> bool {
        let mut view = self.view.lock();
        if let Some(changes) = &self.changes {
            let now = self.gate.now();
            let mut changes = changes.lock();
            let moved = changes.has_changed().unwrap_or(true);
            if moved || now < view.1 || now.since(view.1) >= LOOK_AGAIN {
                changes.mark_unchanged();
                let project = self.project.as_deref();
                let (actor, from) = (&self.actor, self.from);
                *view = (self.gate.view(actor, from, self.kind, "read", project), now);
            }
        }
        view.0.shows(row)
    }
}

fn event(kind: &str, delta: &Delta, picks: &impl Fn(&Row) -> bool) -> Option<WatchEvent> {
    if delta.kind != kind {
        return None;
    }
    let revision = delta.revision;
    match (&delta.new, &delta.old) {
        (Some(new), _) if picks(new) => Some(WatchEvent::Put {
            object: new.json.clone(),
            revision,
        }),
        (_, Some(old)) if picks(old) => Some(WatchEvent::Deleted {
            object: old.json.clone(),
            revision,
        }),
        _ => None,
    }
}

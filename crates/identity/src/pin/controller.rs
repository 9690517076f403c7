//! Says how pins stand, and tells people of every connection that was refused because of one.

use super::types::State;
use super::verify::Pins;
use super::{KIND, Pin};
use futures::future::BoxFuture;
use model::{Condition, ConditionStatus, Kind, Result};
use runtime::event::Severity;
use runtime::{Controller, Cx, Key, Next};
use std::time::Duration;

const WARN: Duration = Duration::from_secs(30 * 86_400);
const LOOK: Duration = Duration::from_secs(3600);
/// Refusals that the status holds.
const LAST: usize = 10;

/// Sole writer of the status of pins.
pub(super) struct PinController;

impl Controller for PinController {
    fn name(&self) -> &'static str {
        "pin"
    }

    fn owns(&self) -> &'static Kind {
        &KIND
    }

    fn reconcile<'a>(&'a self, cx: &'a Cx, key: &'a Key) -> BoxFuture<'a, Result<Next>> {
        Box::pin(async move {
            let (Some(pin), Some(target)) = (cx.get_key::<Pin>(key), runtime::object_ref(key))
            else {
                return Ok(Next::Settled);
            };
            let now = cx.clock().now();
            let end = pin.spec.expires.unwrap_or(now);
            let state = match end.since(now) {
                _ if end <= now => State::Expired,
                left if left <= WARN => State::Expiring,
                _ => State::Active,
            };
            let before = pin.status.as_ref().map(|s| s.state).unwrap_or_default();
            let refused = cx.try_part::<Pins>().map(|pins| pins.take(&target.name));
            let (more, refused) = refused.unwrap_or_default();
            for one in refused.iter().rev() {
                let message = format!(
                    "{} showed certificate {}, signed by {}",
                    pin.spec.peer, one.shown, one.issued_by
                );
                cx.event(&target, "pin.violated", &message, Severity::Error)
                    .await;
            }
            if state != before && state != State::Active {
                let (event, severity) = match state {
                    State::Expired => ("pin.expired", Severity::Error),
                    _ => ("pin.expiring", Severity::Warning),
                };
                let message = format!("{} is held to it until {end}", pin.spec.peer);
                cx.event(&target, event, &message, severity).await;
            }
            let generation = pin.metadata.generation;
            cx.set_status::<Pin>(key, |status| {
                let changed = status.observed_generation != generation;
                status.state = state;
                status.violations += more;
                status.observed_generation = generation;
                let old = std::mem::take(&mut status.last);
                status.last = refused.iter().cloned().chain(old).take(LAST).collect();
                if let Some(last) = refused.front() {
                    let message = format!("it showed certificate {} at {}", last.shown, last.time);
                    Condition::set(
                        &mut status.conditions,
                        "Kept",
                        ConditionStatus::False,
                        "Violated",
                        &message,
                        now,
                    );
                } else if changed {
                    // Another hash is expected: what was said of the one before says nothing.
                    Condition::clear(&mut status.conditions, "Kept");
                }
            })
            .await?;
            let wait = match state {
                State::Expired => LOOK,
                _ => end.since(now).min(LOOK),
            };
            Ok(Next::Again(wait.max(Duration::from_secs(1))))
        })
    }
}

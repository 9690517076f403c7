//! What a node's status becomes when its agent is there or not. Pure.

use super::{NodeState, NodeStatus};
use model::{Condition, ConditionStatus, Timestamp};

/// The status after a look at the presence.
pub(super) fn after(old: &NodeStatus, found: Option<&NodeStatus>, now: Timestamp) -> NodeStatus {
    let mut new = match found {
        Some(facts) => NodeStatus {
            state: NodeState::Online,
            since: old
                .since
                .filter(|_| old.boot_id == facts.boot_id)
                .or(Some(now)),
            observed_generation: old.observed_generation,
            conditions: old.conditions.clone(),
            ..facts.clone()
        },
        // What was never there is not missed.
        None if old.state == NodeState::Unknown => return old.clone(),
        // What it has is as it was last seen.
        None => NodeStatus {
            state: NodeState::Offline,
            ..old.clone()
        },
    };
    let mut set = |kind: &str, status, reason: &str, message: &str| {
        Condition::set(&mut new.conditions, kind, status, reason, message, now);
    };
    match found {
        Some(facts) => {
            for c in &facts.conditions {
                set(&c.kind, c.status, &c.reason, &c.message);
            }
            set("Reachable", ConditionStatus::True, "Heartbeat", "");
        }
        None => set(
            "Reachable",
            ConditionStatus::False,
            "NoHeartbeat",
            "its agent does not answer: is the machine up, and debvisord-agent running?",
        ),
    }
    new
}

//! Conditions: adjectives that say how an object is, and why.

use crate::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It cannot be said.
    Unknown,
}

/// One condition of an object, such as `Running` or `Waiting`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// An adjective in CamelCase, such as `Running`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// One CamelCase word for programs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When `status` last changed.
    pub since: Timestamp,
}

impl Condition {
    /// Sets a condition in a list; `since` moves only when the status changes. Says whether anything changed.
    pub fn set(
        list: &mut Vec<Condition>,
        kind: &str,
        status: ConditionStatus,
        reason: &str,
        message: &str,
        now: Timestamp,
    ) -> bool {
        match list.iter_mut().find(|c| c.kind == kind) {
            Some(c) if c.status == status && c.reason == reason && c.message == message => false,
            Some(c) => {
                if c.status != status {
                    c.since = now;
                }
                c.status = status;
                c.reason = reason.into();
                c.message = message.into();
                true
            }
            None => {
                list.push(Condition {
                    kind: kind.into(),
                    status,
                    reason: reason.into(),
                    message: message.into(),
                    since: now,
                });
                true
            }
        }
    }

    /// Removes a condition; says whether it was there.
    pub fn clear(list: &mut Vec<Condition>, kind: &str) -> bool {
        let before = list.len();
        list.retain(|c| c.kind != kind);
        list.len() != before
    }
}

//! One row of the trail.

use super::catalogue::{Level, Tag};
use crate::gate::Surface;
use crate::{ActorKind, Trace};
use model::{Timestamp, Uid};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Before or after the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The change is about to be tried.
    Intent,
    /// How it ended.
    Outcome,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its number in the trail; 0 until it is in one.
    #[serde(default)]
    pub seq: u64,
    /// When.
    pub time: Timestamp,
    /// Before or after. What is no change of an object has only an outcome.
    pub phase: Phase,
    /// How much it matters.
    #[serde(default)]
    pub level: Level,
    /// Who.
    pub actor: String,
    /// What sort of actor.
    pub actor_kind: ActorKind,
    /// The user whose rights counted, when the actor is not a user himself: the owner of a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Through which surface.
    pub surface: Surface,
    /// From which address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// With which program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// Follows the request through every log.
    pub request_id: String,
    /// Where the request stands among others.
    #[serde(default, skip_serializing_if = "Trace::is_empty")]
    pub trace: Trace,
    /// `vm.start`, or the name of a [`Happening`](super::Happening).
    pub action: String,
    /// Kind of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Identity of the object, once it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<Uid>,
    /// Project of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Name of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Names the attempt: its intent and its outcome have the same, and no other rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Uid>,
    /// What was asked, without secrets and without what the declaration does not know; absent when it is too long.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub params: Value,
    /// SHA-256 of that, before it was shortened.
    pub asked: String,
    /// `ok`, or the code of the error; only in outcomes. `INTERRUPTED` when the process ended before anything had
    /// changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// How long it took; only in outcomes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Whether the outcome was found out after a restart.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recovered: bool,
    /// How often the same came again in the minute; 0 in a row that is about one request.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub repeats: u64,
    /// Which bodies of rules ask for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
    /// Where in the params personal values stand, as JSON pointers.
    #[serde(skip)]
    pub(crate) personal: Vec<String>,
    /// Whether the object stands for a person, so that its name is personal too.
    #[serde(skip)]
    pub(crate) is_person: bool,
    /// The person that the params name, when the object is not one.
    #[serde(skip)]
    pub(crate) about: Option<String>,
    /// Whether the params are kept under his key or not at all: who is to be erased does not stay under another's.
    #[serde(skip)]
    pub(crate) only_his: bool,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Default for Row {
    fn default() -> Row {
        Row {
            seq: 0,
            time: Timestamp::from_millis(0),
            phase: Phase::Outcome,
            level: Level::Info,
            actor: String::new(),
            actor_kind: ActorKind::Anonymous,
            user: None,
            surface: Surface::Inside,
            address: None,
            user_agent: None,
            request_id: String::new(),
            trace: Trace::default(),
            action: String::new(),
            kind: None,
            uid: None,
            project: None,
            name: None,
            change: None,
            params: Value::Null,
            asked: String::new(),
            result: None,
            duration_ms: None,
            recovered: false,
            repeats: 0,
            tags: Vec::new(),
            personal: Vec::new(),
            is_person: false,
            about: None,
            only_his: false,
        }
    }
}

//! What a task is made of.

use super::batch::{Batch, TargetStatus};
use crate::trace::Cause;
use crate::{Bearing, Clock, Place, Trace};
use model::{
    Action, Column, Condition, Danger, Kind, ObjectRef, Resource, Scope, StreamKind, Timestamp,
    Uid, Unit, Verb, Way, WorkStyle, schema,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A long verb under way or ended.
pub struct Task;

impl Resource for Task {
    const KIND: &'static Kind = &KIND;
    type Spec = TaskSpec;
    type Status = TaskStatus;
}

/// The declaration.
pub static KIND: Kind = Kind {
    name: "task",
    plural: "tasks",
    title: "Task",
    scope: Scope::Any,
    doc: "A long verb under way or ended: what it does, how far it is, what it has answered. Tasks are made by actions; they survive restarts, and can be watched and cancelled.",
    verbs: &[Verb::Read, Verb::Delete],
    spec: schema::of::<TaskSpec>,
    status: schema::of::<TaskStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("action", "spec.action"),
        Column::new("target", "spec.target.name"),
        Column::new("state", "status.state"),
        Column::new("progress", "status.progress").unit(Unit::Percent),
        Column::new("step", "status.step"),
        Column::new("age", "metadata.created").unit(Unit::Age),
        Column::new("actor", "spec.actor").wide(),
        Column::new("request", "spec.request_id").wide(),
        Column::new("message", "status.message").wide(),
    ],
    actions: &[
        Action {
            verb: "cancel",
            doc: "Stops the task at the next border of a step and undoes what it has done. Refused when it has ended; ignored when it has passed its point of no return.",
            danger: Danger::Disrupts,
            style: WorkStyle::Intent,
            input: schema::empty,
            claims: &[],
            deadline: 300,
            event: "cancelled",
            examples: &["dvctl task cancel import-debian-12-3f9a01c2"],
        },
        Action {
            verb: "retry",
            doc: "Asks again for what a task did that has ended without success; the answer is the new task. Of a batch, only for the objects that have not succeeded.",
            danger: Danger::Disrupts,
            style: WorkStyle::Intent,
            input: schema::empty,
            claims: &[],
            deadline: 300,
            event: "retried",
            examples: &["dvctl task retry import-debian-12-3f9a01c2"],
        },
    ],
    streams: &[StreamKind {
        name: "log",
        doc: "The lines that the task has written, then those that it writes, until it ends.",
        way: Way::Read,
        ticketed: false,
        input: schema::empty,
    }],
    examples: &[
        "dvctl task list",
        "dvctl task log import-debian-12-3f9a01c2",
        "dvctl task wait start-web1-3f9a01c2",
    ],
};

/// What a task is to do.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// Kind and verb: `vm.start`.
    pub action: String,
    /// On which object.
    pub target: ObjectRef,
    /// The object's identity: a later object of the same name is another one.
    pub target_uid: Uid,
    /// Parameters of the action; secret ones are null here.
    #[serde(default)]
    pub params: Value,
    /// Who asked.
    pub actor: String,
    /// The request that made it.
    pub request_id: String,
    /// Where that request stands among others.
    #[serde(default, skip_serializing_if = "Trace::is_empty")]
    pub trace: Trace,
    /// Where it runs.
    pub place: Place,
    /// Whether it is a procedure; else it waits for an intent.
    pub procedure: bool,
    /// The generation of the object that carries the intent.
    #[serde(default)]
    pub generation: u64,
    /// What the intent changed.
    #[serde(default)]
    pub edits: Vec<Edit>,
    /// When it has failed.
    pub deadline: Timestamp,
    /// Where the clock stood when the deadline was set: one that is set forward later cuts nothing short.
    #[serde(default, skip_serializing_if = "Bearing::is_unknown")]
    pub bearing: Bearing,
    /// Set to end it early.
    #[serde(default)]
    pub cancel: bool,
    /// The objects of a batch; the target's name is `*` then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
    /// The batch task that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
}

impl TaskSpec {
    /// The deadline, by the wall clock as it stands now.
    pub(crate) fn due(&self, clock: &dyn Clock) -> Timestamp {
        self.bearing.restate(self.deadline, &clock.bearing())
    }

    /// What the task goes back to.
    pub(crate) fn cause(&self) -> Cause {
        Cause {
            request_id: self.request_id.clone(),
            trace: self.trace.clone(),
        }
    }
}

/// A field of the spec that an intent changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// Top-level field of the spec.
    pub field: String,
    /// What it was set to.
    pub value: Value,
}

/// How a task stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Not begun.
    #[default]
    Pending,
    /// Under way.
    Running,
    /// Done.
    Succeeded,
    /// Ended without success.
    Failed,
    /// Ended on request; what it had done is undone.
    Cancelled,
    /// A later request changed the same field.
    Superseded,
    /// Undoing what it had done.
    RollingBack,
    /// Failed; what it had done is undone.
    RolledBack,
    /// Failed; some of what it had done could not be undone.
    PartiallyRolledBack,
    /// Failed; nothing of what it had done could be undone.
    RollbackFailed,
}

impl TaskState {
    /// Whether it has ended.
    pub fn ended(self) -> bool {
        !matches!(
            self,
            TaskState::Pending | TaskState::Running | TaskState::RollingBack
        )
    }

    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            TaskState::Pending => "pending",
            TaskState::Running => "running",
            TaskState::Succeeded => "succeeded",
            TaskState::Failed => "failed",
            TaskState::Cancelled => "cancelled",
            TaskState::Superseded => "superseded",
            TaskState::RollingBack => "rolling back",
            TaskState::RolledBack => "rolled back",
            TaskState::PartiallyRolledBack => "partially rolled back",
            TaskState::RollbackFailed => "rollback failed",
        }
    }
}

/// How far a task is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskStatus {
    /// How it stands.
    #[serde(default)]
    pub state: TaskState,
    /// The step under way.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub step: String,
    /// 0 to 100.
    #[serde(default)]
    pub progress: u8,
    /// Bytes moved so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-unit" = "bytes"))]
    pub bytes_done: Option<u64>,
    /// Bytes to move in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-unit" = "bytes"))]
    pub bytes_total: Option<u64>,
    /// What it waits for, or why it failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// A stable word for why it failed: `DEADLINE`, or the code of an error.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What it has answered.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub result: Value,
    /// Which node runs it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub holder: String,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Timestamp>,
    /// Of a batch: how each object fares.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<TargetStatus>,
    /// Whether it can no longer be undone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub committed: bool,
    /// Generation of its spec that was seen.
    #[serde(default)]
    pub observed_generation: u64,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

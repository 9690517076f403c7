//! Tasks: every long verb has a name, a log, a progress and an end.
//!
//! ```text
//! pending ─► running ─► succeeded
//!               │  └──► failed                      (nothing to undo, or an intent that did not come true)
//!               └─► rolling_back ─► rolled_back | cancelled | rollback_failed
//! ```
//! An intent's task only waits for its object. A procedure's task runs a journalled function; after a crash the same
//! function runs again and finished steps answer from the journal.

mod batch;
mod file;
mod intent;
mod journal;
mod log;
mod procedure;
mod runner;
mod types;

pub use batch::{Batch, BatchInput, BatchTarget, OnError, TargetState, TargetStatus};
pub(crate) use batch::{DELETION, MOST_PARALLEL, MOST_TARGETS, STAR, origin};
pub use file::FileLines;
pub(crate) use journal::journal_of;
pub use journal::{Undo, UndoCall};
pub use log::{Line, LineLog, TaskLogs};
pub use procedure::Proc;
pub use types::{Edit, KIND, Task, TaskSpec, TaskState, TaskStatus};

use crate::{Cx, Draft, Place, Run, Seat, Subsystem, Until, no_controllers, normal};
use model::{Error, Result};
use serde_json::Value;

/// The verb that asks again for what a task did not bring to a good end. It edits nothing: the desk turns it into the
/// request that the task was made by.
pub(crate) const RETRY: &str = "retry";

/// The kind `task`.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Api,
    seat: Seat::Api,
    normal: normal::<Task>,
    admit,
    runs: &[
        (
            "cancel",
            Run::Intent {
                edit: cancel,
                until: |_| Until::Done,
            },
        ),
        (
            RETRY,
            Run::Intent {
                edit: |_, _| Err(Error::internal("a retry is a new request, not an edit")),
                until: |_| Until::Done,
            },
        ),
    ],
    undos: &[],
    streams: &[("log", log::open)],
    finalizes: false,
    controllers: no_controllers,
};

pub(crate) fn start(cx: &Cx) {
    if cx.runs(Place::Api) {
        cx.life().spawn("intent tasks", intent::run(cx.clone()));
        cx.life().spawn("old tasks", log::sweep(cx.clone()));
    }
    cx.life().spawn("procedures", runner::run(cx.clone()));
}

fn admit(draft: &mut Draft<'_>) -> Result<()> {
    match draft.creating() {
        true => Err(Error::refused("tasks are made by actions")
            .hint("run an action: `dvctl KIND VERB NAME`")),
        false => Ok(()),
    }
}

fn cancel(draft: &mut Draft<'_>, _: &Value) -> Result<()> {
    let status: TaskStatus = draft.status::<Task>();
    if status.state.ended() {
        return Err(Error::refused(format!(
            "the task has ended: {}",
            status.state.word()
        )));
    }
    draft.spec["cancel"] = Value::Bool(true);
    Ok(())
}

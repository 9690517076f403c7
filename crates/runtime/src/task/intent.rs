//! Waits for intents to come true. Woken by changes of tasks and their targets, and by deadlines; never polls.

use super::types::{KIND, Task, TaskSpec, TaskState};
use crate::desk::key_of;
use crate::event::Severity;
use crate::trace::Cause;
use crate::{Bearing, Cx, Obj, Run, Until, object_key};
use model::{ObjectRef, Timestamp};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use store::Key;
use tokio::sync::broadcast::error::RecvError;

/// How long it sleeps at most: a suspended host wakes without a word.
const MOST_SLEEP: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Open {
    by_target: HashMap<Key, Vec<Key>>,
    tasks: BTreeMap<Key, Waits>,
}

/// For which object, and until when.
struct Waits {
    target: Key,
    deadline: Timestamp,
    bearing: Bearing,
}

impl Open {
    fn insert(&mut self, task: &Key, spec: &TaskSpec) {
        let target = key_of(&spec.target);
        let waits = Waits {
            target: target.clone(),
            deadline: spec.deadline,
            bearing: spec.bearing.clone(),
        };
        if self.tasks.insert(task.clone(), waits).is_none() {
            self.by_target.entry(target).or_default().push(task.clone());
        }
    }

    fn remove(&mut self, task: &Key) {
        if let Some(Waits { target, .. }) = self.tasks.remove(task)
            && let Some(list) = self.by_target.get_mut(&target)
        {
            list.retain(|k| k != task);
            if list.is_empty() {
                self.by_target.remove(&target);
            }
        }
    }

    /// Each task with its deadline, by the wall clock as it stands now.
    fn deadlines(&self, now: Bearing) -> impl Iterator<Item = (&Key, Timestamp)> {
        let due = move |waits: &Waits| waits.bearing.restate(waits.deadline, &now);
        self.tasks.iter().map(move |(key, waits)| (key, due(waits)))
    }
}

pub(super) async fn run(cx: Cx) {
    let stop = cx.shutdown();
    let mut deltas = cx.cache().subscribe();
    let mut open = Open::default();
    let mut due = load(&cx, &mut open);
    loop {
        for key in due.drain(..) {
            look(&cx, &mut open, &key).await;
        }
        let now = cx.clock().now();
        let next = open.deadlines(cx.clock().bearing()).map(|(_, at)| at).min();
        let sleep = next.map(|at| at.since(now).min(MOST_SLEEP) + Duration::from_millis(1));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(sleep.unwrap_or(Duration::from_secs(3600))) => {
                let (now, bearing) = (cx.clock().now(), cx.clock().bearing());
                due = open.deadlines(bearing).filter(|(_, at)| *at <= now).map(|(key, _)| key.clone()).collect();
            }
            delta = deltas.recv() => match delta {
                Ok(delta) if delta.kind == KIND.name => due = vec![delta.key.clone()],
                Ok(delta) => due = open.by_target.get(&delta.key).cloned().unwrap_or_default(),
                Err(RecvError::Lagged(_)) => due = load(&cx, &mut open),
                Err(RecvError::Closed) => return,
            },
        }
    }
}

/// All open intent tasks.
fn load(cx: &Cx, open: &mut Open) -> Vec<Key> {
    *open = Open::default();
    cx.list::<Task>(None)
        .iter()
        .filter(|t| !t.spec.procedure && !t.status.as_ref().is_some_and(|s| s.state.ended()))
        .map(|t| object_key(KIND.name, t.metadata.project.as_deref(), &t.metadata.name))
        .collect()
}

/// Looks whether one task has come true.
async fn look(cx: &Cx, open: &mut Open, key: &Key) {
    let Some(task) = cx.get_key::<Task>(key) else {
        open.remove(key);
        return;
    };
    if task.spec.procedure || task.status.as_ref().is_some_and(|s| s.state.ended()) {
        open.remove(key);
        return;
    }
    open.insert(key, &task.spec);
    let verdict = judge(cx, &task);
    if let Err(error) = write(cx, key, &task, &verdict).await {
        tracing::warn!(task = %task.metadata.name, ?error, "task cannot be written");
        return;
    }
    if !matches!(verdict, Verdict::Waiting(_)) {
        open.remove(key);
    }
}

enum Verdict {
    Waiting(String),
    Ended(TaskState, &'static str, String),
}

fn judge(cx: &Cx, task: &Arc<Obj<Task>>) -> Verdict {
    let spec = &task.spec;
    if spec.cancel {
        return Verdict::Ended(
            TaskState::Cancelled,
            "CANCELLED",
            "cancelled; the object keeps what it was asked for".into(),
        );
    }
    let ended = |state, reason, message: &str| Verdict::Ended(state, reason, message.into());
    let Some(row) = cx.cache().row(&spec.target.kind, &key_of(&spec.target)) else {
        return ended(TaskState::Failed, "NOT_FOUND", "the object was deleted");
    };
    if row.uid != spec.target_uid {
        return ended(
            TaskState::Failed,
            "NOT_FOUND",
            "the object was deleted and another one made under its name",
        );
    }
    let Ok(object) = row.value() else {
        return ended(TaskState::Failed, "INTERNAL", "the object cannot be read");
    };
    if row.generation > spec.generation
        && let Some(edit) = spec
            .edits
            .iter()
            .find(|e| object["spec"][&e.field] != e.value && !masked(&e.value))
    {
        return Verdict::Ended(
            TaskState::Superseded,
            "SUPERSEDED",
            format!("`{}` was changed again", edit.field),
        );
    }
    let verb = spec.action.rsplit('.').next().unwrap_or_default();
    let run = cx
        .registry()
        .get(&spec.target.kind)
        .and_then(|d| d.subsystem.run(verb));
    let Some(Run::Intent { until, .. }) = run else {
        return ended(
            TaskState::Failed,
            "NOT_FOUND",
            "this version has no such action",
        );
    };
    let observed = object["status"]["observed_generation"].as_u64();
    // What no controller holds and none has looked at has none: its spec is all there is.
    let unattended = observed.is_none()
        && object["metadata"]["holds"]
            .as_array()
            .is_none_or(Vec::is_empty);
    let verdict = if unattended || observed.unwrap_or(0) >= spec.generation {
        until(&object)
    } else {
        Until::Waiting("the controller to look".into())
    };
    match verdict {
        Until::Done => ended(TaskState::Succeeded, "", ""),
        Until::Failed(why) => Verdict::Ended(TaskState::Failed, "FAILED", why),
        Until::Waiting(_) if cx.clock().now() >= spec.due(cx.clock()) => Verdict::Ended(
            TaskState::Failed,
            "DEADLINE",
            format!("not done in time: {}", waiting_for(&object)),
        ),
        Until::Waiting(what) => {
            let why = waiting_for(&object);
            Verdict::Waiting(if why.is_empty() { what } else { why })
        }
    }
}

/// A secret in an edit cannot be compared; it never supersedes.
fn masked(value: &Value) -> bool {
    value.to_string().contains(crate::secret::MARK)
}

/// What the object's conditions say about why it does not go on.
fn waiting_for(object: &Value) -> String {
    let conditions = object["status"]["conditions"].as_array();
    let message = |kind: &str, status: &str| {
        conditions
            .into_iter()
            .flatten()
            .find(|c| c["type"] == kind && c["status"] == status)
            .and_then(|c| c["message"].as_str())
    };
    message("Reconciled", "false")
        .or_else(|| message("Waiting", "true"))
        .unwrap_or_default()
        .to_owned()
}

async fn write(cx: &Cx, key: &Key, task: &Obj<Task>, verdict: &Verdict) -> model::Result<()> {
    let now = cx.clock().now();
    let changed = cx
        .set_status::<Task>(key, |status| match verdict {
            Verdict::Waiting(what) => {
                status.state = TaskState::Running;
                status.started.get_or_insert(now);
                status.message = what.clone();
            }
            Verdict::Ended(state, reason, message) => {
                if !status.state.ended() {
                    status.state = *state;
                    status.reason = (*reason).into();
                    status.message = message.clone();
                    status.started.get_or_insert(now);
                    status.finished = Some(now);
                    status.progress = if *state == TaskState::Succeeded {
                        100
                    } else {
                        status.progress
                    };
                }
            }
        })
        .await?;
    if let (true, Verdict::Ended(state, _, message)) = (changed, verdict) {
        announce(
            cx,
            &task.spec.target,
            &task.spec.action,
            *state,
            message,
            task.spec.cause(),
        )
        .await;
    }
    Ok(())
}

/// The event at the end of a task: `vm.started`, or `vm.start-failed`.
pub(super) async fn announce(
    cx: &Cx,
    target: &ObjectRef,
    action: &str,
    state: TaskState,
    message: &str,
    cause: Cause,
) {
    let verb = action.rsplit('.').next().unwrap_or_default();
    let declared = cx
        .registry()
        .get(&target.kind)
        .and_then(|d| d.kind().action(verb));
    let (event, severity) = match state {
        TaskState::Succeeded => (
            format!("{}.{}", target.kind, declared.map_or(verb, |a| a.event)),
            Severity::Info,
        ),
        TaskState::Cancelled | TaskState::Superseded => (
            format!("{}.{verb}-{}", target.kind, state.word()),
            Severity::Info,
        ),
        _ => (format!("{}.{verb}-failed", target.kind), Severity::Warning),
    };
    let now = cx.clock().now();
    cx.events()
        .record(now, target, &event, message, severity, Some(cause))
        .await;
}

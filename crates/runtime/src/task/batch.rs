//! A batch: one verb over many objects as one task. It is a procedure whose steps are its children, so it survives a
//! restart like any other: what has ended answers from the journal, what was begun is found again by its idempotency
//! key, what was not begun is begun now.
//!
//! Each child passes the gate with the right of who asked for the batch. A batch has nothing of its own to undo: a child
//! that fails undoes its own steps, a child that has succeeded stays.

use super::procedure::Proc;
use super::types::{KIND, Task, TaskState};
use crate::event::Severity;
use crate::gate::DELETE;
use crate::{Actor, Answer, Cx, Obj, Op, Request, Surface, object_key};
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use model::{Error, ObjectRef, Result, Uid, What};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use store::Key;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

/// The name of a batch's target; no object can have it.
pub(crate) const STAR: &str = "*";
/// Most objects in a batch: names, identities and results of so many fit into one task.
pub(crate) const MOST_TARGETS: usize = 500;
/// Most children at a time.
pub(crate) const MOST_PARALLEL: u32 = 100;
/// How long the deletion of one object may take, as an action has it by default.
pub(crate) const DELETION: u64 = 300;
/// How often results are shown at most.
const SHOW: Duration = Duration::from_secs(1);
/// Longest message that is kept of one object, in characters.
const MESSAGE: usize = 200;

/// What a batch is asked with.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchInput {
    /// Takes the objects whose labels match: `tier=web,!legacy`. Give this or `names`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Takes these objects, at most 500.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Parameters of the action, the same for each object.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub params: Value,
    /// With `delete`: kinds of owned objects that stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<String>,
    /// How many objects at a time.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 100))]
    pub parallel: u32,
    /// What to do when one fails.
    #[serde(default)]
    pub on_error: OnError,
}

fn three() -> u32 {
    3
}

/// What a batch does when one of its objects fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// Begins no other; what has begun goes on.
    #[default]
    Stop,
    /// Goes on with the others.
    Continue,
}

/// The objects of a batch, fixed when it was asked for.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// What picked them; empty when they were named.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// The objects, in the order in which they are begun.
    pub targets: Vec<BatchTarget>,
    /// With `delete`: kinds of owned objects that stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<String>,
    /// How many at a time.
    pub parallel: u32,
    /// What to do when one fails.
    pub on_error: OnError,
    /// Whether a task that holds an object is cancelled first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// In whose right.
    pub by: Actor,
    /// From which address it was asked for, sealed: rights that hold only from somewhere hold for its objects as they did
    /// for it. Absent on the local socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

/// One object of a batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchTarget {
    /// Its name.
    pub name: String,
    /// Its identity: a later object of the same name is another one.
    pub uid: Uid,
}

/// How one object of a batch fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TargetState {
    /// Not begun.
    #[default]
    Pending,
    /// Under way.
    Running,
    /// Done.
    Succeeded,
    /// Refused, or ended without success.
    Failed,
    /// Ended on request.
    Cancelled,
    /// Never begun, because another failed or the batch was cancelled.
    Skipped,
    /// In a dry run: it would be begun.
    WouldRun,
    /// In a dry run: it would be refused.
    Refused,
}

/// One object of a batch and how it fares.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TargetStatus {
    /// Its name.
    pub name: String,
    /// How it stands.
    #[serde(default)]
    pub state: TargetState,
    /// The task that works on it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub task: String,
    /// Why it failed or was refused; at most 200 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// A stable word for that: `DEADLINE`, or the code of an error.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

impl TargetStatus {
    /// One that has failed with an error.
    pub(crate) fn failed(name: &str, state: TargetState, error: &Error) -> TargetStatus {
        TargetStatus {
            name: name.to_owned(),
            state,
            message: shortened(&error.to_string()),
            reason: error.code().to_owned(),
            task: String::new(),
        }
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MESSAGE) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// What the address of a batch is sealed for.
fn sealed_for(task: Uid) -> String {
    format!("task/{task}/origin")
}

/// The address of whoever asks for the batch `task`, as the task keeps it.
pub(crate) fn origin(cx: &Cx, task: Uid, from: Option<IpAddr>) -> Result<Option<String>> {
    let sealed = from.map(|from| cx.seal().seal(&sealed_for(task), &from.to_string()));
    sealed.transpose()
}

impl Batch {
    /// From which address it was asked for. What cannot be opened is as if it were not known: then nothing holds that
    /// depends on it.
    fn from(&self, cx: &Cx, task: Uid) -> Option<IpAddr> {
        let opened = cx.seal().open(&sealed_for(task), self.origin.as_deref()?);
        match opened {
            Ok(text) => text.parse().ok(),
            Err(error) => {
                tracing::warn!(%task, %error, "the address of who asked for a batch cannot be opened");
                None
            }
        }
    }

    /// The request for one of its objects, in the right of who asked for the batch.
    pub(crate) fn child(
        &self,
        target: ObjectRef,
        verb: &str,
        params: &Value,
        from: Option<IpAddr>,
        (request_id, parent): (&str, &str),
    ) -> Request {
        let op = match verb {
            DELETE => Op::Delete {
                target,
                keep: self.keep.clone(),
            },
            verb => Op::Act {
                target,
                verb: verb.to_owned(),
                params: params.clone(),
            },
        };
        let mut request = Request::new(request_id, self.by.clone(), Surface::Inside, op);
        request.from = from;
        request.parent = Some(parent.to_owned());
        request.force = self.force;
        request
    }
}

/// The rows that people see, kept up to date in the task.
struct Board<'a> {
    proc: &'a Proc,
    rows: Mutex<Vec<TargetStatus>>,
    shown: Mutex<Option<Instant>>,
}

impl Board<'_> {
    async fn put(&self, at: usize, row: TargetStatus) {
        self.rows.lock()[at] = row;
        let now = Instant::now();
        let due = {
            let mut shown = self.shown.lock();
            let due = shown.is_none_or(|at| now - at >= SHOW);
            if due {
                *shown = Some(now);
            }
            due
        };
        // Small ones are shown at every change; large ones would be written again and again.
        if due || self.rows.lock().len() <= 20 {
            self.show().await;
        }
    }

    async fn show(&self) {
        let rows = self.rows.lock().clone();
        let ended = rows.iter().filter(|r| ended(r.state)).count();
        let percent = (ended * 100 / rows.len().max(1)) as u8;
        let shown = self
            .proc
            .cx()
            .set_status::<Task>(self.proc.key(), |status| {
                status.targets = rows.clone();
                status.progress = percent;
                status.message = counted(&rows);
            });
        if let Err(error) = shown.await {
            tracing::debug!(task = %self.proc.name(), ?error, "results not stored");
        }
    }
}

fn ended(state: TargetState) -> bool {
    !matches!(state, TargetState::Pending | TargetState::Running)
}

/// `3 of 5 done, 1 failed, 1 skipped`.
fn counted(rows: &[TargetStatus]) -> String {
    let count = |state| rows.iter().filter(|r| r.state == state).count();
    let mut text = format!("{} of {} done", count(TargetState::Succeeded), rows.len());
    for (state, word) in [
        (TargetState::Failed, "failed"),
        (TargetState::Cancelled, "cancelled"),
        (TargetState::Skipped, "skipped"),
    ] {
        match count(state) {
            0 => {}
            n => text.push_str(&format!(", {n} {word}")),
        }
    }
    text
}

/// The procedure of every batch.
pub(super) fn procedure(proc: Proc) -> BoxFuture<'static, Result<Value>> {
    Box::pin(run(proc))
}

async fn run(proc: Proc) -> Result<Value> {
    let batch = proc
        .batch()
        .ok_or_else(|| Error::internal("a batch without objects"))?;
    let begun = children(&proc);
    let mut rows = Vec::with_capacity(batch.targets.len());
    let halted = AtomicBool::new(false);
    for target in &batch.targets {
        // After a restart a failure of the run before counts at once, or more would be begun than may be.
        let known: Option<TargetStatus> = proc.ended_step(&target.name).await;
        if known
            .as_ref()
            .is_some_and(|r| r.state == TargetState::Failed)
        {
            halted.store(batch.on_error == OnError::Stop, Ordering::Relaxed);
        }
        rows.push(known.unwrap_or_else(|| TargetStatus {
            name: target.name.clone(),
            ..TargetStatus::default()
        }));
    }
    let board = Board {
        proc: &proc,
        rows: Mutex::new(rows),
        shown: Mutex::default(),
    };
    let one = |at: usize| {
        let (board, halted, begun, proc) = (&board, &halted, &begun, &proc);
        async move {
            let target = &batch.targets[at];
            let before = board.rows.lock()[at].state;
            if ended(before) {
                return Ok(());
            }
            let was_begun = begun.get(&target.name);
            let stopped = halted.load(Ordering::Relaxed) || proc.token().is_cancelled();
            if stopped && was_begun.is_none() {
                return Ok(());
            }
            let work = || child(proc, batch, target, was_begun.cloned(), board, at);
            let row: TargetStatus = proc.closing_step(target.name.clone(), work).await?;
            if row.state == TargetState::Failed && batch.on_error == OnError::Stop {
                halted.store(true, Ordering::Relaxed);
            }
            let word = match row.message.as_str() {
                "" => format!("{}: {:?}", row.name, row.state),
                why => format!("{}: {:?}: {why}", row.name, row.state),
            };
            proc.log(word.to_lowercase()).await;
            board.put(at, row).await;
            Ok(())
        }
    };
    let at_once = batch.parallel.clamp(1, MOST_PARALLEL) as usize;
    let done: Vec<Result<()>> = stream::iter(0..batch.targets.len())
        .map(one)
        .buffer_unordered(at_once)
        .collect()
        .await;
    done.into_iter().collect::<Result<()>>()?;
    if proc.cx().shutdown().is_cancelled() {
        return Err(Error::unavailable("this process is shutting down"));
    }
    for row in board.rows.lock().iter_mut() {
        if row.state == TargetState::Pending {
            row.state = TargetState::Skipped;
        }
    }
    board.show().await;
    let rows = board.rows.into_inner();
    if rows.iter().all(|r| r.state == TargetState::Succeeded) {
        return Ok(json!({ "succeeded": rows.len() }));
    }
    Err(Error::refused(counted(&rows)))
}

/// The children that an earlier run has begun, by the name of their object.
fn children(proc: &Proc) -> HashMap<String, String> {
    let project = proc.target().project.as_deref();
    proc.cx()
        .list::<Task>(project)
        .iter()
        .filter(|t| t.spec.parent.as_deref() == Some(proc.name()))
        .map(|t| (t.spec.target.name.clone(), t.metadata.name.to_string()))
        .collect()
}

/// Carries out the verb on one object and waits for its end. An error here means "not now": the step is tried again.
async fn child(
    proc: &Proc,
    batch: &Batch,
    target: &BatchTarget,
    begun: Option<String>,
    board: &Board<'_>,
    at: usize,
) -> Result<TargetStatus> {
    let cx = proc.cx();
    let object = ObjectRef {
        kind: proc.target().kind.clone(),
        project: proc.target().project.clone(),
        name: target.name.clone(),
    };
    let key = object_key(&object.kind, object.project.as_deref(), &object.name);
    let there = || {
        let row = cx.cache().row(&object.kind, &key);
        row.is_some_and(|row| row.uid == target.uid)
    };
    let deleting = proc.verb() == DELETE;
    let mut row = TargetStatus {
        name: target.name.clone(),
        state: TargetState::Running,
        task: begun.clone().unwrap_or_default(),
        ..TargetStatus::default()
    };
    if !there() && begun.is_none() {
        if deleting {
            row.state = TargetState::Succeeded;
            return Ok(row);
        }
        let error = Error::not_found(format!("{object} was deleted"));
        return Ok(TargetStatus::failed(
            &target.name,
            TargetState::Failed,
            &error,
        ));
    }
    board.put(at, row.clone()).await;
    if begun.is_none() {
        let (verb, params) = (proc.verb(), proc.raw_params());
        let from = batch.from(cx, proc.uid());
        let asked = (proc.request_id(), proc.name());
        let mut request = batch.child(object.clone(), verb, params, from, asked);
        // A deletion needs none: it is asked for once, however often.
        request.idempotency = (!deleting).then(|| format!("batch/{}/{}", proc.uid(), target.name));
        match ask(cx, request).await {
            Ok(Answer::Accepted { task }) => {
                let task: Value = serde_json::from_slice(&task)
                    .map_err(|e| Error::internal("the task of a child").because(e))?;
                row.task = text(&task, "/metadata/name");
            }
            Ok(_) => {}
            Err(error) if matches!(error.what, What::Unavailable(_)) && cx.life().refuses() => {
                // Nothing new is let in any more: the next run of this process begins it.
                cx.shutdown().cancelled_owned().await;
                return Err(error);
            }
            Err(error) => {
                return Ok(TargetStatus::failed(
                    &target.name,
                    TargetState::Failed,
                    &error,
                ));
            }
        }
        board.put(at, row.clone()).await;
    }
    if deleting {
        let limit = Duration::from_secs(DELETION);
        return gone(proc, limit, row, there).await;
    }
    // An action on a task is an edit of it, which has happened by now.
    if object.kind == KIND.name {
        row.state = TargetState::Succeeded;
        return Ok(row);
    }
    outcome(proc, batch, row).await
}

fn text(value: &Value, pointer: &str) -> String {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_default().to_owned()
}

/// Waits for the end of a child's task; asks it to end when the batch is cancelled.
async fn outcome(proc: &Proc, batch: &Batch, mut row: TargetStatus) -> Result<TargetStatus> {
    let cx = proc.cx();
    let key = cx.key::<Task>(proc.target().project.as_deref(), &row.task);
    let mut deltas = cx.cache().subscribe();
    let mut asked = false;
    loop {
        let Some(task) = cx.get_key::<Task>(&key) else {
            row.state = TargetState::Failed;
            row.reason = "GONE".into();
            row.message = "its task was removed before its end was seen".into();
            return Ok(row);
        };
        let status = task.status.clone().unwrap_or_default();
        if status.state.ended() {
            row.state = match status.state {
                TaskState::Succeeded => TargetState::Succeeded,
                TaskState::Cancelled => TargetState::Cancelled,
                _ => TargetState::Failed,
            };
            row.message = match status.message.as_str() {
                "" if row.state == TargetState::Failed => status.state.word().to_owned(),
                message => shortened(message),
            };
            row.reason = status.reason;
            return Ok(row);
        }
        if cx.shutdown().is_cancelled() {
            return Err(Error::unavailable("this process is shutting down"));
        }
        if proc.token().is_cancelled() && !asked {
            asked = true;
            let target = ObjectRef {
                kind: KIND.name.into(),
                project: proc.target().project.clone(),
                name: row.task.clone(),
            };
            let op = Op::Act {
                target,
                verb: "cancel".into(),
                params: json!({}),
            };
            let request = Request::new(proc.request_id(), batch.by.clone(), Surface::Inside, op);
            if let Err(error) = ask(cx, request).await {
                proc.log(format!("{} cannot be cancelled: {error}", row.task))
                    .await;
            }
            continue;
        }
        let token = proc.token();
        tokio::select! {
            () = token.cancelled(), if !asked => {}
            () = changed(&mut deltas, &key) => {}
            () = closing(cx) => {}
        }
    }
}

async fn closing(cx: &Cx) {
    cx.shutdown().cancelled_owned().await;
}

/// Waits until an object may have changed.
async fn changed(
    deltas: &mut tokio::sync::broadcast::Receiver<std::sync::Arc<crate::Delta>>,
    key: &Key,
) {
    loop {
        match deltas.recv().await {
            Ok(delta) if delta.key != *key => {}
            Ok(_) | Err(RecvError::Lagged(_)) => return,
            // The process ends; the token of the shutdown says so.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Waits until an object is gone.
async fn gone(
    proc: &Proc,
    limit: Duration,
    mut row: TargetStatus,
    there: impl Fn() -> bool,
) -> Result<TargetStatus> {
    let cx = proc.cx();
    let target = proc.target();
    let key = object_key(&target.kind, target.project.as_deref(), &row.name);
    let mut deltas = cx.cache().subscribe();
    let late = tokio::time::sleep(limit);
    tokio::pin!(late);
    loop {
        if !there() {
            row.state = TargetState::Succeeded;
            return Ok(row);
        }
        if cx.shutdown().is_cancelled() {
            return Err(Error::unavailable("this process is shutting down"));
        }
        let token = proc.token();
        if token.is_cancelled() {
            row.state = TargetState::Cancelled;
            row.message = "its deletion has begun and goes on".into();
            return Ok(row);
        }
        tokio::select! {
            () = token.cancelled() => {}
            () = changed(&mut deltas, &key) => {}
            () = &mut late => {
                row.state = TargetState::Failed;
                row.reason = "DEADLINE".into();
                row.message = format!("not gone within {} s; it goes on being deleted", limit.as_secs());
                return Ok(row);
            }
        }
    }
}

async fn ask(cx: &Cx, request: Request) -> Result<Answer> {
    let admitted = cx.gate().admit(request)?;
    cx.desk().carry_out(admitted).await
}

/// The event at the end of a batch is about the batch: each child has its own about its object.
pub(super) async fn announce(cx: &Cx, task: &Obj<Task>, state: TaskState, message: &str) {
    let about = ObjectRef {
        kind: KIND.name.into(),
        project: task.metadata.project.as_ref().map(ToString::to_string),
        name: task.metadata.name.to_string(),
    };
    let word = state.word().replace(' ', "-");
    let severity = match state {
        TaskState::Succeeded | TaskState::Cancelled => Severity::Info,
        _ => Severity::Warning,
    };
    let request = Some(task.spec.cause());
    let (now, event) = (cx.clock().now(), format!("task.{word}"));
    cx.events()
        .record(now, &about, &event, message, severity, request)
        .await;
}

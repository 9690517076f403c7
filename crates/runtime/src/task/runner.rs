//! Runs procedures of this place: begins pending ones, resumes those that a crash interrupted, unwinds those that fail.

use super::batch;
use super::intent::announce;
use super::journal::{Entry, Journal};
use super::procedure::Proc;
use super::types::{KIND, Task, TaskState};
use crate::cx::{store_error, to_bytes};
use crate::desk::key_of;
use crate::{Cx, Obj, Run, object_key};
use futures::FutureExt;
use model::{Error, Result};
use serde_json::Value;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use store::{Key, StoreError, Txn};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// How often a step behind the point of no return, or an undo, is tried before a person is asked.
const TRIES: u32 = 5;

pub(super) async fn run(cx: Cx) {
    let stop = cx.shutdown();
    let mut deltas = cx.cache().subscribe();
    let mut running: HashMap<Key, CancellationToken> = HashMap::new();
    let mut work: JoinSet<Key> = JoinSet::new();
    let mut due = open_tasks(&cx);
    forget_journals(&cx).await;
    loop {
        for key in due.drain(..) {
            let Some(task) = cx.get_key::<Task>(&key) else {
                continue;
            };
            if !mine(&cx, &task) {
                continue;
            }
            match running.get(&key) {
                Some(token) if task.spec.cancel => token.cancel(),
                Some(_) => {}
                None => {
                    let token = stop.child_token();
                    if task.spec.cancel {
                        token.cancel();
                    }
                    running.insert(key.clone(), token.clone());
                    let cx = cx.clone();
                    work.spawn(async move {
                        run_one(&cx, &key, token).await;
                        key
                    });
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = work.join_next() => {
                if let Ok(key) = ended {
                    running.remove(&key);
                    // It may have ended only for now (the store did not answer): look again.
                    if cx.get_key::<Task>(&key).is_some_and(|t| mine(&cx, &t)) {
                        tokio::select! {
                            () = stop.cancelled() => break,
                            () = tokio::time::sleep(Duration::from_millis(200)) => {}
                        }
                        due = vec![key];
                    }
                }
            }
            delta = deltas.recv() => match delta {
                Ok(delta) if delta.kind == KIND.name => due = vec![delta.key.clone()],
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => due = open_tasks(&cx),
                Err(RecvError::Closed) => break,
            },
        }
    }
    // Steps see their token and end; what they have journalled goes on after the restart.
    while work.join_next().await.is_some() {}
}

fn open_tasks(cx: &Cx) -> Vec<Key> {
    cx.list::<Task>(None)
        .iter()
        .filter(|t| mine(cx, t))
        .map(|t| object_key(KIND.name, t.metadata.project.as_deref(), &t.metadata.name))
        .collect()
}

/// Deletes the journals of tasks that have ended: a crash came between the end and this.
async fn forget_journals(cx: &Cx) {
    for task in cx.list::<Task>(None) {
        let ended = task.status.as_ref().is_some_and(|s| s.state.ended());
        if task.spec.procedure && ended && cx.runs(task.spec.place) {
            let forgotten = match Journal::read(cx, task.metadata.uid).await {
                Ok(journal) => journal.forget(cx).await,
                Err(error) => Err(error),
            };
            if let Err(error) = forgotten {
                tracing::warn!(task = %task.metadata.name, ?error, "journal of an ended task stays");
            }
        }
    }
}

/// Whether a task is an open procedure of this place.
fn mine(cx: &Cx, task: &Obj<Task>) -> bool {
    task.spec.procedure
        && cx.runs(task.spec.place)
        && cx.tends_object(&task.spec.target)
        && !task.status.as_ref().is_some_and(|s| s.state.ended())
}

/// Runs or resumes one procedure until it ends or this process does.
pub(crate) async fn run_one(cx: &Cx, key: &Key, token: CancellationToken) {
    let Some(task) = cx.get_key::<Task>(key) else {
        return;
    };
    let span = tracing::info_span!(
        "task", task = %task.metadata.name, request_id = %task.spec.request_id,
        correlation_id = task.spec.trace.correlation_id, trace_id = task.spec.trace.trace_id(),
    );
    let driven = task
        .spec
        .cause()
        .leads_to(drive(cx, key, &task, token).instrument(span));
    if let Err(error) = driven.await {
        // The journal is as it was: the same step is tried again.
        tracing::warn!(task = %task.metadata.name, ?error, "procedure cannot go on now");
    }
}

async fn drive(cx: &Cx, key: &Key, task: &Arc<Obj<Task>>, token: CancellationToken) -> Result<()> {
    let uid = task.metadata.uid;
    let name = task.metadata.name.to_string();
    let verb = task.spec.action.rsplit('.').next().unwrap_or_default();
    let run = cx
        .registry()
        .get(&task.spec.target.kind)
        .and_then(|d| d.subsystem.run(verb));
    let function = match run {
        _ if task.spec.batch.is_some() => Some(batch::procedure as fn(Proc) -> _),
        Some(Run::Procedure(function)) => Some(*function),
        _ => None,
    };
    let Some(function) = function else {
        let error = Error::not_found(format!(
            "this version has no procedure {}",
            task.spec.action
        ));
        return finish(cx, key, task, TaskState::Failed, Err(error)).await;
    };
    let now = cx.clock().now();
    let node = cx.node().to_owned();
    cx.set_status::<Task>(key, |s| {
        if s.state == TaskState::Pending {
            s.state = TaskState::Running;
        }
        s.started.get_or_insert(now);
        s.holder = node.clone();
    })
    .await?;
    let journal = Journal::read(cx, uid).await?;
    let begun = !journal.entries.is_empty();
    let unwinding = journal.unwinding();
    if let Some((cancelled, code, message)) = unwinding {
        let proc = Proc::new(cx, key, task, journal, token);
        return unwind(cx, key, task, &proc, cancelled, code, message).await;
    }
    if begun {
        tracing::info!(task = %name, "procedure resumed");
    }
    let mut tries = 0;
    let mut journal = Some(journal);
    loop {
        let before = match journal.take() {
            Some(journal) => journal,
            None => Journal::read(cx, uid).await?,
        };
        let proc = Proc::new(cx, key, task, before, token.clone());
        let left = task.spec.due(cx.clock()).since(cx.clock().now());
        let ended = tokio::time::timeout(
            left,
            AssertUnwindSafe(function(proc.clone())).catch_unwind(),
        )
        .await;
        let (result, timed_out) = match ended {
            Ok(Ok(result)) => (result, false),
            Ok(Err(_)) => (
                Err(Error::internal(format!(
                    "procedure {} panicked",
                    task.spec.action
                ))),
                false,
            ),
            Err(_) => (Err(Error::refused("not done in time")), true),
        };
        if cx.shutdown().is_cancelled() {
            return Ok(());
        }
        let error = match result {
            Ok(result) => return finish(cx, key, task, TaskState::Succeeded, Ok(result)).await,
            Err(error) => error,
        };
        let committed = proc.0.journal.lock().await.committed();
        if committed {
            tries += 1;
            proc.log(format!(
                "failed behind the point of no return, try {tries}: {error}"
            ))
            .await;
            let wait = Duration::from_millis(200) * 2u32.pow(tries.min(8));
            let stop = cx.shutdown();
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
            if tries >= TRIES && timed_out {
                return finish(cx, key, task, TaskState::Failed, Err(error)).await;
            }
            continue;
        }
        let cancelled = token.is_cancelled();
        let open = proc.0.journal.lock().await.any_open();
        if open && tries < TRIES {
            // A begun step must be finished before it can be undone: run forward once more.
            tries += 1;
            continue;
        }
        let code = if timed_out {
            "DEADLINE"
        } else if cancelled {
            "CANCELLED"
        } else {
            error.code()
        };
        proc.log(format!(
            "{}: {error}",
            if cancelled { "cancelled" } else { "failed" }
        ))
        .await;
        let entry = Entry::Unwinding {
            cancelled,
            code: code.into(),
            message: error.to_string(),
        };
        proc.0.journal.lock().await.append(cx, entry).await?;
        return unwind(
            cx,
            key,
            task,
            &proc,
            cancelled,
            code.into(),
            error.to_string(),
        )
        .await;
    }
}

/// Runs the undos backwards, then ends the task.
async fn unwind(
    cx: &Cx,
    key: &Key,
    task: &Arc<Obj<Task>>,
    proc: &Proc,
    cancelled: bool,
    code: String,
    message: String,
) -> Result<()> {
    let to_undo = proc.0.journal.lock().await.to_undo();
    if !to_undo.is_empty() {
        cx.set_status::<Task>(key, |s| {
            s.state = TaskState::RollingBack;
            s.message = message.clone();
        })
        .await?;
    }
    for (step, call) in to_undo {
        let undo = cx
            .registry()
            .iter()
            .flat_map(|d| d.subsystem.undos)
            .find(|u| u.name == call.name);
        let mut outcome = Err(Error::internal(format!(
            "this version has no undo `{}`",
            call.name
        )));
        if let Some(undo) = undo {
            for attempt in 1..=TRIES {
                proc.log(format!("undo: {step}")).await;
                outcome = (undo.run)(cx.clone(), call.args.clone()).await;
                if outcome.is_ok() || attempt == TRIES {
                    break;
                }
                if cx.shutdown().is_cancelled() {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(100) * 2u32.pow(attempt)).await;
            }
        }
        let error = outcome.err().map(|e| e.to_string());
        if let Some(error) = &error {
            proc.log(format!("undo of {step} failed: {error}")).await;
        }
        proc.0
            .journal
            .lock()
            .await
            .append(cx, Entry::Undone { step, error })
            .await?;
    }
    let (all, failed) = proc.0.journal.lock().await.undone();
    let state = match (all, failed) {
        (0, 0) | (_, 0) if cancelled => TaskState::Cancelled,
        (0, _) => TaskState::Failed,
        (_, 0) => TaskState::RolledBack,
        (all, failed) if failed < all => TaskState::PartiallyRolledBack,
        _ => TaskState::RollbackFailed,
    };
    let error = Error::refused(message);
    finish_with(cx, key, task, state, Err(error), &code).await
}

async fn finish(
    cx: &Cx,
    key: &Key,
    task: &Arc<Obj<Task>>,
    state: TaskState,
    result: Result<Value>,
) -> Result<()> {
    let code = result.as_ref().err().map(|e| e.code()).unwrap_or_default();
    finish_with(cx, key, task, state, result, code).await
}

/// Ends a task: its state, and the claims on its target, in one transaction.
async fn finish_with(
    cx: &Cx,
    key: &Key,
    task: &Arc<Obj<Task>>,
    state: TaskState,
    result: Result<Value>,
    code: &str,
) -> Result<()> {
    let message = result
        .as_ref()
        .err()
        .map(ToString::to_string)
        .unwrap_or_default();
    let target_key = key_of(&task.spec.target);
    loop {
        let Some(entry) = cx.store().get(key).await.map_err(store_error)? else {
            return Ok(());
        };
        let mut object: Value = serde_json::from_slice(&entry.value)
            .map_err(|e| Error::internal("stored task").because(e))?;
        let mut status: super::TaskStatus =
            serde_json::from_value(object["status"].clone()).unwrap_or_default();
        if status.state.ended() {
            return Ok(());
        }
        status.state = state;
        status.finished = Some(cx.clock().now());
        status.message = message.clone();
        status.reason = code.to_owned();
        status.step = String::new();
        if let Ok(result) = &result {
            status.result = result.clone();
            status.progress = 100;
        }
        object["status"] =
            serde_json::to_value(status).map_err(|e| Error::internal("task status").because(e))?;
        let mut txn = Txn::new().replace(key.clone(), entry.modified, to_bytes(&object)?);
        if let Some(target) = cx.store().get(&target_key).await.map_err(store_error)? {
            let mut object: Value = serde_json::from_slice(&target.value)
                .map_err(|e| Error::internal("stored target").because(e))?;
            let claims = object["metadata"]["claims"].as_array_mut();
            let before = claims.as_ref().map_or(0, |c| c.len());
            if let Some(claims) = claims {
                claims.retain(|c| c["task"] != task.metadata.name.as_str());
                if claims.len() != before {
                    txn = txn.replace(target_key.clone(), target.modified, to_bytes(&object)?);
                }
            }
        }
        match cx.store().commit(txn).await {
            Ok(revision) => {
                cx.cache().reach(revision).await?;
                break;
            }
            Err(StoreError::Conflict { .. }) => continue,
            Err(e) => return Err(store_error(e)),
        }
    }
    if task.spec.batch.is_some() {
        batch::announce(cx, task, state, &message).await;
    } else {
        announce(
            cx,
            &task.spec.target,
            &task.spec.action,
            state,
            &message,
            task.spec.cause(),
        )
        .await;
    }
    Journal::read(cx, task.metadata.uid).await?.forget(cx).await
}

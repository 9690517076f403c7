//! Laws that hold for every declared thing, checked by walking a registry or by crashing everywhere.
//!
//! The procedure law: wherever the process dies, and whether or not a step fails or somebody cancels, after a restart
//! the task ends, its claims are gone, its journal is gone, and the world is as the end state says.

use crate::task::{Task, TaskState};
use crate::{Actor, Answer, Cx, Op, Request, Surface};
use futures::future::BoxFuture;
use model::{Error, ObjectRef, Result};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use store::memory::{Fault, Faults, Memory};
use store::{Key, Page, Prefix, Store};

/// A procedure and the world that it works in.
pub struct Scene<'a> {
    /// Starts a process over a store, with its engine. The world outside the store is the same for every process of
    /// one run; `fresh` makes a new one.
    pub start: &'a (dyn Fn(Arc<dyn Store>) -> BoxFuture<'a, Cx> + Sync),
    /// Makes a new world and says which step fails in it.
    pub fresh: &'a (dyn Fn(Option<&'static str>) + Sync),
    /// Creates what the procedure needs.
    pub setup: &'a (dyn Fn(Cx) -> BoxFuture<'a, Result<()>> + Sync),
    /// The object.
    pub target: ObjectRef,
    /// The action.
    pub verb: &'static str,
    /// Its parameters; with `batch` the body of the batch.
    pub params: Value,
    /// Whether the action is asked for as a batch over objects of the target's kind and project.
    pub batch: bool,
    /// Steps that may fail.
    pub failing: &'a [&'static str],
    /// Whether the world fits the end state.
    pub holds: &'a (dyn Fn(&Cx, TaskState) -> Result<(), String> + Sync),
}

/// Crashes before and after every commit of a procedure, in a world where all is well and in one for each failing
/// step, and once more with a cancel after the restart. Answers how many crashes it survived.
pub async fn procedure_survives(scene: &Scene<'_>) -> Result<usize, String> {
    let mut survived = 0;
    let worlds = std::iter::once(None).chain(scene.failing.iter().map(|s| Some(*s)));
    for fails in worlds {
        for cancel in [false, true] {
            for fault in [Fault::CrashBefore, Fault::CrashAfter] {
                for nth in 1.. {
                    let what = format!(
                        "failing step {fails:?}, cancel {cancel}, {fault:?} at commit {nth}"
                    );
                    match run(scene, fails, cancel, fault, nth).await {
                        Ok(true) => survived += 1,
                        // The procedure ended before the crash came: all its commits were tried.
                        Ok(false) => break,
                        Err(why) => return Err(format!("{what}: {why}")),
                    }
                }
            }
        }
    }
    Ok(survived)
}

async fn run(
    scene: &Scene<'_>,
    fails: Option<&'static str>,
    cancel: bool,
    fault: Fault,
    nth: u64,
) -> Result<bool, String> {
    (scene.fresh)(fails);
    let faults = Faults::new();
    let store = Memory::with_faults(faults.clone());
    let cx = (scene.start)(store.clone()).await;
    (scene.setup)(cx.clone())
        .await
        .map_err(|e| format!("setup: {e}"))?;
    faults.order(faults.commits() + nth, fault);
    let accepted = act(&cx, scene).await;
    let crashed = match &accepted {
        Ok(task) => {
            tokio::select! {
                () = faults.crashed() => true,
                () = ended(&cx, task) => false,
            }
        }
        Err(_) => faults.has_crashed(),
    };
    if !crashed {
        cx.life().stop(Duration::from_secs(5)).await;
        return match accepted {
            Ok(_) => Ok(false),
            Err(e) => Err(format!("not accepted: {e}")),
        };
    }
    cx.life().stop(Duration::from_secs(5)).await;
    let store = store.restart(Faults::new());
    let cx = (scene.start)(store.clone()).await;
    if cancel {
        for task in cx.list::<Task>(None) {
            let target = ObjectRef {
                kind: "task".into(),
                project: task.metadata.project.as_ref().map(ToString::to_string),
                name: task.metadata.name.to_string(),
            };
            // It may have ended already: then there is nothing to cancel.
            let _ = request(
                &cx,
                Op::Act {
                    target,
                    verb: "cancel".into(),
                    params: Value::Null,
                },
            )
            .await;
        }
    }
    let mut state = None;
    for task in cx.list::<Task>(None) {
        let key = cx.key::<Task>(task.metadata.project.as_deref(), &task.metadata.name);
        let wait = ended(&cx, &key);
        tokio::time::timeout(Duration::from_secs(30), wait)
            .await
            .map_err(|_| {
                format!(
                    "the task does not end: {:?}",
                    cx.get_key::<Task>(&key).and_then(|t| t.status.clone())
                )
            })?;
        let ended = cx.get_key::<Task>(&key);
        if let Some(ended) = ended.filter(|t| t.spec.batch.is_some() == scene.batch) {
            state = ended.status.as_ref().map(|s| s.state);
        }
    }
    let state = state.unwrap_or(TaskState::Failed);
    // What a procedure has begun, a controller may still be ending.
    let end = tokio::time::Instant::now() + Duration::from_secs(30);
    while let Err(why) = (scene.holds)(&cx, state) {
        if tokio::time::Instant::now() > end {
            return Err(format!("task {}: {why}", state.word()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let row = cx.cache().row(
        &scene.target.kind,
        &crate::object_key(
            &scene.target.kind,
            scene.target.project.as_deref(),
            &scene.target.name,
        ),
    );
    if let Some(object) = row.and_then(|r| r.value().ok())
        && object["metadata"]["claims"]
            .as_array()
            .is_some_and(|c| !c.is_empty())
    {
        return Err("a claim was left behind".into());
    }
    // The journal goes right after the end is stored, or with the next start.
    let gone = async {
        loop {
            match store.list(&Prefix::new("j/"), Page::ALL).await {
                Ok(journal) if journal.entries.is_empty() => return,
                _ => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone)
        .await
        .map_err(|_| "the journal of an ended task is left behind")?;
    cx.life().stop(Duration::from_secs(5)).await;
    Ok(true)
}

async fn act(cx: &Cx, scene: &Scene<'_>) -> Result<Key> {
    let op = match scene.batch {
        true => Op::Batch {
            kind: scene.target.kind.clone(),
            project: scene.target.project.clone(),
            verb: scene.verb.into(),
            body: scene.params.clone(),
        },
        false => Op::Act {
            target: scene.target.clone(),
            verb: scene.verb.into(),
            params: scene.params.clone(),
        },
    };
    match request(cx, op).await? {
        Answer::Accepted { task } => {
            let task: Value =
                serde_json::from_slice(&task).map_err(|e| Error::internal("task").because(e))?;
            let name = task["metadata"]["name"].as_str().unwrap_or_default();
            Ok(cx.key::<Task>(task["metadata"]["project"].as_str(), name))
        }
        _ => Err(Error::internal("an action did not answer a task")),
    }
}

async fn request(cx: &Cx, op: Op) -> Result<Answer> {
    let request = Request::new("law", Actor::administrator("law"), Surface::Rest, op);
    let admitted = cx.gate().admit(request)?;
    cx.desk().carry_out(admitted).await
}

async fn ended(cx: &Cx, key: &Key) {
    let mut deltas = cx.cache().subscribe();
    loop {
        if cx
            .get_key::<Task>(key)
            .is_none_or(|t| t.status.as_ref().is_some_and(|s| s.state.ended()))
        {
            return;
        }
        if deltas.recv().await.is_err() {
            return;
        }
    }
}

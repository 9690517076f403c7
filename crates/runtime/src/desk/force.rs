//! What stands in the way of a request: the task that claims its object, and how `force` makes it let go. And `retry`,
//! which asks again for what a task did not bring to a good end.

use super::write::Attempt;
use super::{Answer, Desk, key_of};
use crate::gate::{Op, Request};
use crate::registry::mentions;
use crate::task::{self, TargetState, Task, TaskState};
use model::schema::SECRET;
use model::{Error, ObjectRef, Result, What};
use serde_json::json;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

/// How long a cancelled task has to let go.
const LET_GO: Duration = Duration::from_secs(30);

/// The refusal that names the task in the way.
pub(super) fn busy(task: &str, why: String) -> Error {
    Error::busy(task, why).hint(format!(
        "wait for it, cancel it (`dvctl task cancel {task}`), or say --force, which cancels it first"
    ))
}

impl Desk {
    /// Cancels the task that claims an object and waits until it has let go, undone or ended.
    pub(super) async fn make_way(
        &self,
        request: &Request,
        target: &ObjectRef,
        claiming: &str,
    ) -> Result<()> {
        let op = Op::Act {
            target: ObjectRef {
                kind: task::KIND.name.into(),
                project: target.project.clone(),
                name: claiming.to_owned(),
            },
            verb: "cancel".into(),
            params: json!({}),
        };
        let mut cancel = Request {
            op,
            ..request.clone()
        };
        cancel.idempotency = None;
        cancel.if_match = None;
        cancel.force = false;
        let mut deltas = self.cx.cache().subscribe();
        let admitted = self.cx.gate().admit(cancel)?;
        // Boxed, because a request is carried out by what it carries out.
        match Box::pin(self.carry_out(admitted)).await {
            Ok(_) => {}
            // It has ended just now.
            Err(error) if matches!(error.what, What::Refused | What::NotFound) => {}
            Err(error) => return Err(error),
        }
        let key = key_of(target);
        let free = || {
            let row = self.cx.cache().row(&target.kind, &key);
            let object = row.and_then(|row| row.value().ok());
            object.is_none_or(|object| {
                let claims = object["metadata"]["claims"].as_array();
                claims.is_none_or(|claims| claims.iter().all(|c| c["task"] != claiming))
            })
        };
        let wait = async {
            while !free() {
                if let Err(RecvError::Closed) = deltas.recv().await {
                    return;
                }
            }
        };
        if tokio::time::timeout(LET_GO, wait).await.is_err() {
            let why = format!(
                "task {claiming} was cancelled and has not let go of {target} within {} s: it may be past the point \
                 where it can be undone",
                LET_GO.as_secs()
            );
            return Err(Error::busy(claiming, why).hint("wait until it has ended"));
        }
        Ok(())
    }

    /// Asks again for what a task that has ended did not bring to a good end. Of a batch, only for the objects that
    /// have not succeeded. The answer is the new task.
    pub(super) async fn retry(
        &self,
        request: &Request,
        target: &ObjectRef,
    ) -> Result<Answer, Attempt> {
        let Some(task) = self.cx.get_key::<Task>(&key_of(target)) else {
            return Err(self.no_such(request, target).into());
        };
        let status = task.status.clone().unwrap_or_default();
        let state = status.state;
        if !state.ended() || state == TaskState::Succeeded {
            let word = match state.ended() {
                true => "has succeeded",
                false => "has not ended",
            };
            return Err(
                Error::refused(format!("{target} {word}: there is nothing to retry")).into(),
            );
        }
        let spec = &task.spec;
        let verb = spec
            .action
            .rsplit('.')
            .next()
            .unwrap_or_default()
            .to_owned();
        let declared = self.cx.registry().need(&spec.target.kind)?;
        let given = spec.params.as_object().is_some_and(|p| !p.is_empty());
        if given
            && declared
                .input(&verb)
                .is_some_and(|schema| mentions(schema, SECRET))
        {
            let why = format!("`{verb}` may have had a secret parameter, and a task keeps none");
            return Err(Error::refused(why).hint("ask for it again yourself").into());
        }
        let op = match &spec.batch {
            Some(batch) => {
                let done = |name: &str| {
                    let row = status.targets.iter().find(|row| row.name == name);
                    row.is_some_and(|row| row.state == TargetState::Succeeded)
                };
                let names = batch.targets.iter().map(|t| &t.name);
                let names: Vec<&String> = names.filter(|name| !done(name)).collect();
                let mut body = json!({
                    "names": names, "keep": batch.keep, "parallel": batch.parallel, "on_error": batch.on_error,
                });
                if spec.params.as_object().is_some_and(|p| !p.is_empty()) {
                    body["params"] = spec.params.clone();
                }
                Op::Batch {
                    kind: spec.target.kind.clone(),
                    project: spec.target.project.clone(),
                    verb,
                    body,
                }
            }
            None => {
                let row = self
                    .cx
                    .cache()
                    .row(&spec.target.kind, &key_of(&spec.target));
                if row.is_none_or(|row| row.uid != spec.target_uid) {
                    return Err(Error::refused(format!("{} was deleted since", spec.target)).into());
                }
                Op::Act {
                    target: spec.target.clone(),
                    verb,
                    params: spec.params.clone(),
                }
            }
        };
        let again = Request {
            op,
            if_match: None,
            idempotency: request
                .idempotency
                .as_ref()
                .map(|key| format!("retry/{key}")),
            ..request.clone()
        };
        let admitted = self.cx.gate().admit(again)?;
        Ok(Box::pin(self.carry_out(admitted)).await?)
    }
}

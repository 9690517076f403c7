//! Asks for a batch: picks its objects, fixes them in a task, and says in a dry run what would become of each.

use super::act::{task_name, task_object};
use super::write::Attempt;
use super::{Answer, Desk, by};
use crate::cx::to_bytes;
use crate::gate::{DELETE, Request};
use crate::registry::Declared;
use crate::task::{
    self, Batch, BatchInput, BatchTarget, MOST_TARGETS, STAR, TargetState, TargetStatus, TaskSpec,
};
use crate::{Place, Row, object_key};
use model::{Error, ObjectRef, Result, Selector};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use store::Txn;

/// The default time for one object, where its verb names none.
const SLACK: u64 = 60;

impl Desk {
    pub(super) async fn batch(
        &self,
        request: &Request,
        kind: &str,
        project: Option<&str>,
        verb: &str,
        body: &Value,
    ) -> Result<Answer> {
        if let Some(answer) = self.replay(request).await? {
            return Ok(answer);
        }
        let declared = self.cx.registry().need(kind)?;
        let input = read(declared, verb, body)?;
        let targets = self.picked(request, declared, project, &input)?;
        let target = ObjectRef {
            kind: kind.to_owned(),
            project: project.map(str::to_owned),
            name: STAR.into(),
        };
        let uid = self.cx.clock().uid();
        let batch = Batch {
            selector: input.selector.clone().unwrap_or_default(),
            targets,
            keep: input.keep.clone(),
            parallel: input.parallel,
            on_error: input.on_error,
            force: request.force,
            by: request.actor.clone(),
            origin: task::origin(&self.cx, uid, request.from)?,
        };
        let each = match declared.kind().action(verb) {
            Some(action) => action.deadline,
            None => task::DELETION,
        };
        let rounds = batch.targets.len().div_ceil(input.parallel as usize) as u64;
        let now = self.cx.clock().now();
        let spec = TaskSpec {
            action: format!("{kind}.{verb}"),
            target: target.clone(),
            target_uid: uid,
            params: match input.params {
                Value::Null => json!({}),
                params => params,
            },
            actor: by(&request.actor),
            request_id: request.id.clone(),
            trace: request.trace.clone(),
            // It asks the gate for its children, and that stands here.
            place: Place::Api,
            procedure: true,
            generation: 0,
            edits: Vec::new(),
            deadline: now.plus(Duration::from_secs(each.saturating_mul(rounds) + SLACK)),
            bearing: self.cx.clock().bearing(),
            cancel: false,
            batch: Some(batch.clone()),
            parent: request.parent.clone(),
        };
        let shown = ObjectRef {
            name: "batch".into(),
            ..target.clone()
        };
        let name = task_name(&shown, verb, uid);
        let mut object = task_object(&name, &target, uid, request, &spec, now)?;
        let rows = match request.dry_run {
            true => {
                self.would(request, &batch, &target, verb, &spec.params)
                    .await
            }
            false => batch.targets.iter().map(waiting).collect(),
        };
        object["status"]["targets"] =
            serde_json::to_value(rows).map_err(|e| Error::internal("batch status").because(e))?;
        if request.dry_run {
            return Ok(Answer::Accepted {
                task: object.to_string().into(),
            });
        }
        self.check_queue(project)?;
        let key = object_key(task::KIND.name, project, &name);
        let txn = Txn::new().create(key.clone(), to_bytes(&object)?);
        let revision = match self.commit(request, txn, &key).await {
            Ok(revision) => revision,
            Err(Attempt::Error(error)) => return Err(error),
            // Only the same idempotency key can have been faster, with the same request.
            Err(Attempt::Race) => {
                return self.replay(request).await?.ok_or_else(|| {
                    Error::unavailable("the same request came twice at once; try again")
                });
            }
        };
        self.cx.cache().reach(revision).await?;
        tracing::info!(
            request_id = %request.id, actor = %by(&request.actor), %kind, verb, task = %name,
            targets = batch.targets.len(), "batch created"
        );
        match self.cx.cache().row(task::KIND.name, &key) {
            Some(row) => Ok(Answer::Accepted {
                task: row.json.clone(),
            }),
            None => Err(Error::gone(format!("task {name} has already been removed"))),
        }
    }

    /// The objects that a batch is about, in the order of their names or as named.
    fn picked(
        &self,
        request: &Request,
        declared: &Declared,
        project: Option<&str>,
        input: &BatchInput,
    ) -> Result<Vec<BatchTarget>> {
        let kind = declared.kind();
        let place = project.map_or(String::new(), |p| format!(" in project {p}"));
        let view = self.view(request, kind.name, project);
        let rows: Vec<Arc<Row>> = match &input.selector {
            Some(text) => {
                let selector = Selector::parse(text)?;
                let mut rows = self.cx.cache().rows(kind.name, project);
                rows.retain(|row| {
                    !row.deleting
                        && row.project.as_deref() == project
                        && view.shows(row)
                        && selector.matches(&row.labels)
                });
                if rows.is_empty() {
                    let why = format!("no {} matches `{text}`{place}", kind.name);
                    return Err(Error::not_found(why).hint(format!(
                        "`dvctl {} list --selector` shows what a selector picks",
                        kind.name
                    )));
                }
                rows
            }
            None => {
                let mut rows: Vec<Arc<Row>> = Vec::with_capacity(input.names.len());
                for name in &input.names {
                    let key = object_key(kind.name, project, name);
                    let row = self.cx.cache().row(kind.name, &key);
                    let Some(row) = row.filter(|row| view.shows(row)) else {
                        return Err(self.no_such(
                            request,
                            &ObjectRef {
                                kind: kind.name.into(),
                                project: project.map(str::to_owned),
                                name: name.clone(),
                            },
                        ));
                    };
                    if !rows.iter().any(|r| r.key == row.key) {
                        rows.push(row);
                    }
                }
                rows
            }
        };
        if rows.len() > MOST_TARGETS {
            return Err(Error::refused(format!(
                "{} {} are more than the {MOST_TARGETS} that one batch takes",
                rows.len(),
                kind.plural
            ))
            .hint("pick fewer by a narrower selector, and ask again for the others"));
        }
        let target = |row: &Arc<Row>| BatchTarget {
            name: row.name.to_string(),
            uid: row.uid,
        };
        Ok(rows.iter().map(target).collect())
    }

    /// What would become of each object: its own request, as a dry run.
    async fn would(
        &self,
        request: &Request,
        batch: &Batch,
        target: &ObjectRef,
        verb: &str,
        params: &Value,
    ) -> Vec<TargetStatus> {
        let mut rows = Vec::with_capacity(batch.targets.len());
        for one in &batch.targets {
            let object = ObjectRef {
                name: one.name.clone(),
                ..target.clone()
            };
            let mut child = batch.child(object, verb, params, request.from, (&request.id, ""));
            child.dry_run = true;
            child.surface = request.surface;
            let asked = match self.cx.gate().admit(child) {
                // Boxed, because a batch is carried out by what it carries out.
                Ok(admitted) => self.carry_out(admitted).await,
                Err(error) => Err(error),
            };
            rows.push(match asked {
                Ok(_) => TargetStatus {
                    name: one.name.clone(),
                    state: TargetState::WouldRun,
                    ..TargetStatus::default()
                },
                Err(error) => TargetStatus::failed(&one.name, TargetState::Refused, &error),
            });
        }
        rows
    }
}

fn waiting(target: &BatchTarget) -> TargetStatus {
    TargetStatus {
        name: target.name.clone(),
        ..TargetStatus::default()
    }
}

/// Reads and checks what is asked.
fn read(declared: &Declared, verb: &str, body: &Value) -> Result<BatchInput> {
    if body["on_error"] == "roll_back" {
        return Err(Error::field("on_error", "`roll_back` is not possible here").hint(
            "an object whose action has succeeded cannot be taken back, and one that fails undoes its own steps; \
             choose stop or continue",
        ));
    }
    let input: BatchInput = serde_json::from_value(body.clone()).map_err(|e| {
        Error::field("body", e.to_string())
            .hint("a batch takes selector or names, and params, keep, parallel, on_error")
    })?;
    let selector = input.selector.as_deref().map(str::trim);
    match (selector, input.names.is_empty()) {
        (Some(_), false) => {
            return Err(Error::field("names", "cannot stand beside a selector")
                .hint("give the one or the other"));
        }
        (None | Some(""), true) => {
            return Err(Error::field("selector", "is required, or names")
                .hint("say which objects are meant, for example `tier=web`"));
        }
        _ => {}
    }
    if !(1..=task::MOST_PARALLEL).contains(&input.parallel) {
        return Err(Error::field(
            "parallel",
            format!("{} is not in 1 to {}", input.parallel, task::MOST_PARALLEL),
        ));
    }
    let wrong = match (verb, &input.params) {
        (DELETE, Value::Null) => Vec::new(),
        (DELETE, _) => return Err(Error::field("params", "mean nothing to `delete`")),
        _ if !input.keep.is_empty() => {
            return Err(Error::field("keep", format!("means nothing to `{verb}`")));
        }
        (_, Value::Null) => declared.check_input(verb, &json!({})),
        (_, params) => declared.check_input(verb, params),
    };
    if declared.masked_input(verb, &input.params) != input.params {
        let why =
            format!("`{verb}` with a secret parameter is not for many: a task keeps no secret");
        return Err(Error::refused(why).hint("ask for one object at a time"));
    }
    match wrong.is_empty() {
        true => Ok(input),
        false => Err(Error::invalid(wrong)),
    }
}

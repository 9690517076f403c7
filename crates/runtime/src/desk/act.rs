//! Actions: intent actions edit the spec and make a task that waits; procedures make a task that works.

use super::write::{Attempt, RACES, give_back, with_keys};
use super::{Answer, Desk, by, key_of};
use crate::cx::to_bytes;
use crate::event::Severity;
use crate::gate::Request;
use crate::subsystem::Run;
use crate::task::{self, Edit, Task, TaskSpec};
use crate::{Draft, object_key, secret};
use model::{Error, Hold, Meta, Name, ObjectRef, Result, Uid, VERSION};
use serde_json::{Value, json};
use std::time::Duration;
use store::{Expect, Txn};

/// Most tasks of a project that have not ended.
pub(super) const MOST_OPEN: usize = 1000;

impl Desk {
    pub(super) async fn act(
        &self,
        request: &Request,
        target: &ObjectRef,
        verb: &str,
        params: &Value,
    ) -> Result<Answer> {
        for _ in 0..RACES {
            if let Some(answer) = self.replay(request).await? {
                return Ok(answer);
            }
            match self.act_once(request, target, verb, params).await {
                Err(Attempt::Race) => continue,
                Err(Attempt::Error(error)) => return Err(error),
                Ok(answer) => return Ok(answer),
            }
        }
        Err(Error::unavailable(
            "others changed it again and again; try again",
        ))
    }

    async fn act_once(
        &self,
        request: &Request,
        target: &ObjectRef,
        verb: &str,
        params: &Value,
    ) -> Result<Answer, Attempt> {
        let declared = self.cx.registry().need(&target.kind)?;
        let (Some(action), Some(run)) = (declared.kind().action(verb), declared.run(verb)) else {
            return Err(Error::not_found(format!("{} has no action `{verb}`", target.kind)).into());
        };
        let params = if params.is_null() {
            json!({})
        } else {
            params.clone()
        };
        let wrong = declared.check_input(verb, &params);
        if !wrong.is_empty() {
            return Err(Error::invalid(wrong).into());
        }
        let key = key_of(target);
        let Some(old) = self.stored(&key).await? else {
            return Err(self.no_such(request, target).into());
        };
        if old.meta.deletion_requested.is_some() {
            return Err(Error::refused(format!("{target} is being deleted")).into());
        }
        if let Some(expected) = request.if_match.as_ref().filter(|e| *e != "*")
            && *expected != old.revision.to_string()
        {
            return Err(Error::new(
                model::What::PreconditionFailed(Some(old.revision.to_string())),
                format!(
                    "{target} is at revision {}, not at {expected}",
                    old.revision
                ),
            )
            .into());
        }
        // A task is its own task: cancelling one must not be stopped by what it claims.
        if let Some(hold) = old
            .meta
            .claims
            .iter()
            .find(|h| h.scopes.iter().any(|s| action.claims.contains(&s.as_str())))
        {
            if request.force && !request.dry_run {
                self.make_way(request, target, &hold.task).await?;
                return Err(Attempt::Race);
            }
            if !request.force {
                let scopes = hold.scopes.join(", ");
                let why = format!("task {} works on {scopes} of {target}", hold.task);
                return Err(super::force::busy(&hold.task, why).into());
            }
        }
        if target.kind == task::KIND.name && verb == task::RETRY {
            return self.retry(request, target).await;
        }
        let now = self.cx.clock().now();
        let uid = self.cx.clock().uid();
        let mut task = TaskSpec {
            action: format!("{}.{verb}", target.kind),
            target: target.clone(),
            target_uid: old.meta.uid,
            // Tasks are read by whoever may read tasks, and what is read from them is not masked.
            params: declared.masked_input(verb, &params),
            actor: by(&request.actor),
            request_id: request.id.clone(),
            trace: request.trace.clone(),
            place: declared.place,
            procedure: matches!(run, Run::Procedure(_)),
            generation: old.meta.generation,
            edits: Vec::new(),
            deadline: now.plus(Duration::from_secs(action.deadline)),
            bearing: self.cx.clock().bearing(),
            cancel: false,
            batch: None,
            parent: request.parent.clone(),
        };
        let name = task_name(target, verb, uid);
        let mut txn = Txn::new();
        let mut held = None;
        match run {
            Run::Intent { edit, .. } => {
                let plain = self.plain(target, &old)?;
                let mut draft = Draft::new(
                    &self.cx,
                    &request.actor,
                    old.meta.clone(),
                    plain.clone(),
                    Some(plain),
                    old.status.clone(),
                );
                edit(&mut draft, &params)?;
                let (meta, spec) = (draft.meta, draft.spec);
                let ready = self.admit(
                    request,
                    declared,
                    meta,
                    spec,
                    Some(&old.spec),
                    old.status.clone(),
                )?;
                held = self.reserve(declared, &ready, Some(old.revision)).await?;
                if request.dry_run {
                    give_back(held);
                    return Ok(Answer::Accepted {
                        task: ready.object.to_string().into(),
                    });
                }
                if target.kind == "task" {
                    return self
                        .changed_task(request, target, old.revision, ready)
                        .await;
                }
                task.edits = edits(&old.spec, &ready.object["spec"]);
                if ready.spec_changed {
                    task.generation += 1;
                    txn = txn.replace(key.clone(), old.revision, to_bytes(&ready.object)?);
                    txn = with_keys(txn, &key, &ready);
                } else {
                    txn = txn.expect(Expect::At(key.clone(), old.revision));
                }
            }
            Run::Procedure(_) => {
                let mut meta = old.meta.clone();
                meta.claims.push(Hold {
                    task: name.clone(),
                    scopes: action.claims.iter().map(|s| (*s).to_owned()).collect(),
                });
                let object = json!({
                    "version": VERSION, "kind": target.kind, "metadata": meta, "spec": old.spec, "status": old.status,
                });
                if request.dry_run {
                    return Ok(Answer::Accepted {
                        task: object.to_string().into(),
                    });
                }
                if action.claims.is_empty() {
                    txn = txn.expect(Expect::At(key.clone(), old.revision));
                } else {
                    txn = txn.replace(key.clone(), old.revision, to_bytes(&object)?);
                }
            }
        }
        self.check_queue(target.project.as_deref())?;
        let task_key = object_key(task::KIND.name, target.project.as_deref(), &name);
        let object = task_object(&name, target, uid, request, &task, now)?;
        let txn = txn.create(task_key.clone(), to_bytes(&object)?);
        let revision = self.commit_held(request, txn, &task_key, held).await?;
        self.cx.cache().reach(revision).await?;
        tracing::info!(
            request_id = %request.id, actor = %by(&request.actor), object = %target, action = verb, task = %name,
            "task created"
        );
        match self.cx.cache().row(task::KIND.name, &task_key) {
            Some(row) => Ok(Answer::Accepted {
                task: row.json.clone(),
            }),
            None => Err(Error::gone(format!("task {name} has already been removed")).into()),
        }
    }

    /// Refuses a task when too many of the project have not ended.
    pub(super) fn check_queue(&self, project: Option<&str>) -> Result<()> {
        let cache = self.cx.cache();
        // Most of the time there are few tasks at all, and nobody counts.
        if cache.count(task::KIND.name, project) < MOST_OPEN {
            return Ok(());
        }
        let open = cache
            .rows(task::KIND.name, project)
            .iter()
            .filter(|row| row.project.as_deref() == project)
            .filter_map(|row| self.cx.get_key::<Task>(&row.key))
            .filter(|t| !t.status.as_ref().is_some_and(|s| s.state.ended()))
            .count();
        if open < MOST_OPEN {
            return Ok(());
        }
        let place = project.map_or("outside projects".into(), |p| format!("in project {p}"));
        Err(Error::new(
            model::What::Quota(None),
            format!("{open} tasks have not ended {place}, and {MOST_OPEN} is the most"),
        )
        .hint("wait until some have ended, or cancel some: `dvctl task list`"))
    }

    /// An action on a task is an edit of its spec; the task to wait for is the task itself.
    async fn changed_task(
        &self,
        request: &Request,
        target: &ObjectRef,
        revision: store::Revision,
        ready: super::write::Ready,
    ) -> Result<Answer, Attempt> {
        if ready.spec_changed {
            let txn = Txn::new().replace(ready.key.clone(), revision, to_bytes(&ready.object)?);
            let revision = self.commit(request, txn, &ready.key).await?;
            self.cx.cache().reach(revision).await?;
            self.event(request, target, "task.changed", "changed", Severity::Info)
                .await;
        }
        match self.cx.cache().row(&target.kind, &ready.key) {
            Some(row) => Ok(Answer::Accepted {
                task: row.json.clone(),
            }),
            None => Err(self.no_such(request, target).into()),
        }
    }
}

/// `start-web1-3f9a01c2`: what, of which, and something that makes it unique.
pub(super) fn task_name(target: &ObjectRef, verb: &str, uid: Uid) -> String {
    let room = 63 - verb.len().min(20) - 10;
    let name: String = target.name.chars().take(room).collect();
    format!(
        "{}-{}-{}",
        &verb[..verb.len().min(20)],
        name.trim_end_matches('-'),
        uid.short()
    )
}

pub(super) fn task_object(
    name: &str,
    target: &ObjectRef,
    uid: Uid,
    request: &Request,
    spec: &TaskSpec,
    now: model::Timestamp,
) -> Result<Value> {
    let meta = Meta {
        name: Name::parse("task name", name)?,
        project: target
            .project
            .as_deref()
            .map(|p| Name::parse("project", p))
            .transpose()?,
        display_name: String::new(),
        uid,
        revision: String::new(),
        generation: 1,
        labels: Default::default(),
        owner: None,
        created: now,
        created_by: by(&request.actor),
        request_id: request.id.clone(),
        protection: false,
        deletion_requested: None,
        holds: Vec::new(),
        claims: Vec::new(),
        keys: Vec::new(),
    };
    Ok(json!({
        "version": VERSION, "kind": task::KIND.name, "metadata": meta, "spec": spec,
        "status": task::TaskStatus::default(),
    }))
}

/// The top-level fields that an action changed: when a later change moves one of them, the task is superseded.
fn edits(old: &Value, new: &Value) -> Vec<Edit> {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else {
        return Vec::new();
    };
    new.iter()
        .filter(|(name, value)| old.get(*name) != Some(value))
        .map(|(name, value)| Edit {
            field: name.clone(),
            value: secret::blunt(value),
        })
        .collect()
}

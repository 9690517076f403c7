//! Deletion in two phases: asked for, then gone when nothing holds it. What belongs to an object goes with it.

use super::write::{Attempt, RACES};
use super::{Answer, Desk, by, key_of};
use crate::cx::{store_error, to_bytes};
use crate::engine::OWNED;
use crate::event::Severity;
use crate::gate::Request;
use crate::key::PROJECT;
use crate::task::{self, Task};
use crate::{Row, object_ref};
use model::{Error, ObjectRef, Result, Uid};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Expect, Key, Revision, Txn};

impl Desk {
    pub(super) async fn delete(
        &self,
        request: &Request,
        target: &ObjectRef,
        keep: &[String],
    ) -> Result<Answer> {
        for _ in 0..RACES {
            match self.delete_once(request, target, keep).await {
                Err(Attempt::Race) => continue,
                Err(Attempt::Error(error)) => return Err(error),
                Ok(answer) => return Ok(answer),
            }
        }
        Err(Error::unavailable(
            "others changed it again and again; try again",
        ))
    }

    async fn delete_once(
        &self,
        request: &Request,
        target: &ObjectRef,
        keep: &[String],
    ) -> Result<Answer, Attempt> {
        let key = key_of(target);
        let Some(old) = self.stored(&key).await? else {
            return Err(self.no_such(request, target).into());
        };
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
        self.cx.gate().lets_go(&request.actor, target)?;
        if old.meta.protection {
            return Err(Error::refused(format!("{target} is protected"))
                .hint("take the protection off first: set metadata.protection to false")
                .into());
        }
        if let Some(claim) = old.meta.claims.first() {
            if request.force && !request.dry_run {
                self.make_way(request, target, &claim.task).await?;
                return Err(Attempt::Race);
            }
            if !request.force {
                let why = format!("task {} works on {target}", claim.task);
                return Err(super::force::busy(&claim.task, why).into());
            }
        }
        if target.kind == task::KIND.name && !has_ended(&old.status) {
            return Err(Error::refused(format!("{target} has not ended"))
                .hint(format!(
                    "cancel it first: dvctl task cancel {}",
                    target.name
                ))
                .into());
        }
        self.check_owned(request, &key, keep)?;
        if target.kind == PROJECT && target.project.is_none() {
            self.check_empty(request, target)?;
        }
        let users: Vec<ObjectRef> = self
            .cx
            .cache()
            .referrers(&key)
            .iter()
            .filter(|k| **k != key && !self.leaves_with(k, &key))
            .filter_map(object_ref)
            .collect();
        if !users.is_empty() {
            // Whose he may not read are not counted either.
            let seen: Vec<String> = users
                .iter()
                .filter(|user| self.sees(request, user))
                .map(ToString::to_string)
                .collect();
            let mut names = seen.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
            if seen.len() > 5 {
                names += &format!(" and {} more", seen.len() - 5);
            }
            if seen.is_empty() {
                names = HIDDEN.into();
            }
            return Err(Error::refused(format!("{target} is used by {names}"))
                .hint("delete or change these first")
                .into());
        }
        if request.dry_run {
            let row = self
                .cx
                .cache()
                .row(&target.kind, &key)
                .ok_or_else(|| self.no_such(request, target))?;
            return Ok(Answer::Deleting {
                json: row.json.clone(),
            });
        }
        let mut stays = Vec::new();
        for row in self.owned(&key, old.meta.uid) {
            if let Some(it) = object_ref(&row.key).filter(|it| keep.contains(&it.kind)) {
                stays.push(self.cut_loose(request, &it, &row.key).await?);
            }
        }
        let owns = self.owned(&key, old.meta.uid).len() > stays.len();
        let gone_at_once = old.meta.holds.is_empty() && !owns;
        let txn = if gone_at_once {
            old.meta.keys.iter().fold(
                Txn::new()
                    .expect(Expect::At(key.clone(), old.revision))
                    .delete(key.clone()),
                |txn, k| txn.delete(Key::new(k.as_str())),
            )
        } else if old.meta.deletion_requested.is_some() {
            let row = self
                .cx
                .cache()
                .row(&target.kind, &key)
                .ok_or_else(|| self.no_such(request, target))?;
            return Ok(Answer::Deleting {
                json: row.json.clone(),
            });
        } else {
            let mut meta = old.meta.clone();
            meta.deletion_requested = Some(self.cx.clock().now());
            meta.request_id = request.id.clone();
            if owns {
                meta.holds.push(OWNED.into());
            }
            let object = json!({
                "version": model::VERSION, "kind": target.kind, "metadata": meta, "spec": old.spec, "status": old.status,
            });
            Txn::new().replace(key.clone(), old.revision, to_bytes(&object)?)
        };
        // What stays is cut loose in the same moment, or not at all.
        let txn = stays.into_iter().fold(txn, |txn, (key, revision, bytes)| {
            txn.replace(key, revision, bytes)
        });
        let revision = self.commit(request, txn, &key).await?;
        self.cx.cache().reach(revision).await?;
        tracing::info!(request_id = %request.id, actor = %by(&request.actor), object = %target, "deletion requested");
        if gone_at_once {
            self.event(
                request,
                target,
                &format!("{}.deleted", target.kind),
                "deleted",
                Severity::Info,
            )
            .await;
            return Ok(Answer::Deleted);
        }
        match self.cx.cache().row(&target.kind, &key) {
            Some(row) => Ok(Answer::Deleting {
                json: row.json.clone(),
            }),
            None => Ok(Answer::Deleted),
        }
    }

    /// A project goes only when nothing lies in it. Ended tasks do not count: they go by themselves.
    fn check_empty(&self, request: &Request, project: &ObjectRef) -> Result<()> {
        let within = Some(project.name.as_str());
        for declared in self.cx.registry().iter() {
            let kind = declared.kind();
            let rows = self.cx.cache().rows(kind.name, within);
            let ended = |key: &Key| {
                let task = self.cx.get_key::<Task>(key);
                task.is_some_and(|t| t.status.as_ref().is_some_and(|s| s.state.ended()))
            };
            let left = rows
                .iter()
                .find(|row| kind.name != task::KIND.name || !ended(&row.key));
            if let Some(left) = left {
                let left = object_ref(&left.key).filter(|left| self.sees(request, left));
                let left = left.map_or_else(|| HIDDEN.to_owned(), |left| left.to_string());
                return Err(
                    Error::refused(format!("{project} holds {left}")).hint(format!(
                        "delete what lies in it first: dvctl {} list -p {}",
                        kind.name, project.name
                    )),
                );
            }
        }
        Ok(())
    }

    /// Whether a referrer goes together with the object: it belongs to it, or it is already leaving.
    fn leaves_with(&self, referrer: &Key, key: &Key) -> bool {
        let Some(target) = object_ref(referrer) else {
            return true;
        };
        match self.cx.cache().row(&target.kind, referrer) {
            Some(row) => row.owner.as_ref() == Some(key),
            None => true,
        }
    }

    /// What belongs to an object and would go with it.
    fn owned(&self, key: &Key, uid: Uid) -> Vec<Arc<Row>> {
        let cache = self.cx.cache();
        cache
            .owned(key)
            .iter()
            .filter_map(|owned| cache.row(&object_ref(owned)?.kind, owned))
            .filter(|row| row.owner_uid == Some(uid))
            .collect()
    }

    /// Refuses when something that would go with it may not go: then nothing goes.
    fn check_owned(&self, request: &Request, key: &Key, keep: &[String]) -> Result<()> {
        let Some(target) = object_ref(key) else {
            return Ok(());
        };
        let Some(owner) = self.cx.cache().row(&target.kind, key) else {
            return Ok(());
        };
        for row in self.owned(key, owner.uid) {
            let Some(it) = object_ref(&row.key).filter(|it| !keep.contains(&it.kind)) else {
                continue;
            };
            let shown = |it: &ObjectRef| match self.sees(request, it) {
                true => it.to_string(),
                false => HIDDEN.to_owned(),
            };
            let stays = || format!("{target} cannot be deleted: {} belongs to it", shown(&it));
            if row.value()?["metadata"]["protection"] == true {
                return Err(
                    Error::refused(format!("{} and is protected", stays())).hint(format!(
                        "take its protection off, or keep it: --keep {}",
                        it.kind
                    )),
                );
            }
            let user = self.cx.cache().referrers(&row.key);
            let user = user
                .iter()
                .filter(|k| {
                    *k != key && !self.leaves_with(k, &row.key) && !self.leaves_with(k, key)
                })
                .find_map(object_ref);
            if let Some(user) = user {
                let user = shown(&user);
                return Err(
                    Error::refused(format!("{} and is used by {user}", stays())).hint(format!(
                        "change {user} first, or keep it: --keep {}",
                        it.kind
                    )),
                );
            }
            // What it owns itself goes as well.
            self.check_owned(request, &row.key, keep)?;
        }
        Ok(())
    }

    /// An owned object without its owner, as it is to be written, for who may change it.
    async fn cut_loose(
        &self,
        request: &Request,
        it: &ObjectRef,
        key: &Key,
    ) -> Result<(Key, Revision, Vec<u8>), Attempt> {
        let (actor, project) = (&request.actor, it.project.as_deref());
        let gate = self.cx.gate();
        if !gate.may(
            actor,
            request.from,
            &it.kind,
            "update",
            project,
            Some(&it.name),
        ) {
            let shown = match self.sees(request, it) {
                true => it.to_string(),
                false => HIDDEN.to_owned(),
            };
            return Err(Error::denied(format!(
                "to keep {shown} needs the privilege `{}.update` on it",
                it.kind
            ))
            .into());
        }
        let entry = self.cx.store().get(key).await.map_err(store_error)?;
        let entry = entry.ok_or(Attempt::Race)?;
        let mut object: Value = serde_json::from_slice(&entry.value)
            .map_err(|e| Error::internal(format!("stored object {key}")).because(e))?;
        if let Some(meta) = object["metadata"].as_object_mut() {
            meta.insert("owner".into(), Value::Null);
        }
        Ok((key.clone(), entry.modified, to_bytes(&object)?))
    }

    /// Whether a caller may know that an object is there.
    fn sees(&self, request: &Request, it: &ObjectRef) -> bool {
        let (actor, project) = (&request.actor, it.project.as_deref());
        let gate = self.cx.gate();
        gate.may(
            actor,
            request.from,
            &it.kind,
            "read",
            project,
            Some(&it.name),
        )
    }
}

/// Stands for an object that a caller may not read.
const HIDDEN: &str = "something that you may not read";

/// Whether a task's status says that it has ended.
fn has_ended(status: &Value) -> bool {
    serde_json::from_value::<task::TaskStatus>(status.clone()).is_ok_and(|s| s.state.ended())
}

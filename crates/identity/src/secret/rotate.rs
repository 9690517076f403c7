//! Making another version the valid one: a new one (`rotate`) or an older one (`rollback`).
//!
//! The order is what makes it safe: the new value is stored, brought to each user, and proved there, and only then it
//! becomes the valid one, in one write. Until then every undo leads back to the old value, which stays in the store. No
//! step answers a value: results stand in the journal.

use super::controller::{ROTATED, users};
use super::types::SecretSpec;
use super::{Secret, read, rules};
use model::{Condition, ConditionStatus, Error, ObjectRef, Resource, Result};
use runtime::{Change, Cx, Obj, Op, Proc, SecretUsers, Undo};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

/// What `rollback` takes.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RollbackInput {
    /// Which version; the newest before the valid one when absent.
    pub version: Option<u32>,
}

/// What an undo needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Move {
    secret: ObjectRef,
    /// Who is told; nobody for the version itself.
    user: Option<ObjectRef>,
    from: u32,
    to: u32,
    /// The task that made `to`.
    task: String,
}

/// Takes a version away that did not become valid, and says that the rotation failed.
pub(super) static FORGET: Undo = Undo {
    name: "secret.forget-version",
    run: |cx, args| {
        Box::pin(async move {
            let it = moved(args)?;
            let Some(secret) = get(&cx, &it.secret) else {
                return Ok(());
            };
            let made = |version: &super::Version| version.made_by.as_deref() == Some(&it.task);
            let gone: Value = secret
                .spec
                .versions
                .iter()
                .filter(|(number, version)| {
                    made(version) && **number != secret.spec.version.to_string()
                })
                .map(|(number, _)| (number.clone(), Value::Null))
                .collect::<serde_json::Map<_, _>>()
                .into();
            if gone.as_object().is_some_and(|gone| !gone.is_empty()) {
                patch(&cx, &it.secret, json!({ "versions": gone })).await?;
            }
            tell(
                &cx,
                &it.secret,
                Some("the version before it is still valid"),
            )
            .await
        })
    },
};

/// Gives a user the old value back.
pub(super) static GO_BACK: Undo = Undo {
    name: "secret.go-back",
    run: |cx, args| {
        Box::pin(async move {
            let it = moved(args)?;
            let (Some(secret), Some(user)) = (get(&cx, &it.secret), &it.user) else {
                return Ok(());
            };
            // The version that was to come may not be there: then nobody was told of it.
            let Ok(to) = read::stored(&secret, it.to) else {
                return Ok(());
            };
            let from = read::stored_for(&cx, &secret, it.from, user).await?;
            let change = Change {
                from: &to,
                to: &from,
            };
            write(&cx, user, change).await
        })
    },
};

fn moved(args: Value) -> Result<Move> {
    serde_json::from_value(args).map_err(|e| Error::internal("an undo's arguments").because(e))
}

fn get(cx: &Cx, secret: &ObjectRef) -> Option<Arc<Obj<Secret>>> {
    cx.get::<Secret>(secret.project.as_deref(), &secret.name)
}

/// The secret of a procedure, as it was when the procedure began to be: not another one of the same name.
fn mine(proc: &Proc) -> Result<Arc<Obj<Secret>>> {
    get(proc.cx(), proc.target())
        .filter(|secret| secret.metadata.uid == proc.target_uid())
        .ok_or_else(|| Error::gone(format!("{} was deleted", proc.target())))
}

async fn patch(cx: &Cx, secret: &ObjectRef, spec: Value) -> Result<()> {
    let op = Op::Patch {
        target: secret.clone(),
        body: json!({ "spec": spec }),
    };
    cx.submit(op, "secret rotation").await.map(drop)
}

/// Says in the conditions how it ended.
async fn tell(cx: &Cx, secret: &ObjectRef, failed: Option<&str>) -> Result<()> {
    let key = cx.key::<Secret>(secret.project.as_deref(), &secret.name);
    let now = cx.clock().now();
    let (holds, reason) = match failed {
        None => (ConditionStatus::True, "Verified"),
        Some(_) => (ConditionStatus::False, "RolledBack"),
    };
    cx.set_status::<Secret>(&key, |status| {
        let message = failed.unwrap_or_default();
        // The next try waits from this failure on, not from the first.
        if failed.is_some() {
            Condition::clear(&mut status.conditions, ROTATED);
        }
        Condition::set(&mut status.conditions, ROTATED, holds, reason, message, now);
    })
    .await
    .map(drop)
}

async fn write(cx: &Cx, user: &ObjectRef, change: Change<'_>) -> Result<()> {
    let told = cx.try_part::<SecretUsers>();
    match told.as_ref().and_then(|users| users.of(&user.kind)) {
        Some(speaker) => speaker.write(cx, user, change).await,
        None => Ok(()),
    }
}

async fn verify(cx: &Cx, user: &ObjectRef, value: &str) -> Result<()> {
    let told = cx.try_part::<SecretUsers>();
    match told.as_ref().and_then(|users| users.of(&user.kind)) {
        Some(speaker) => speaker.verify(cx, user, value).await,
        None => Ok(()),
    }
}

fn kept_here(secret: &Obj<Secret>, verb: &str) -> Result<()> {
    match &secret.spec.backend {
        None => Ok(()),
        Some(backend) => Err(Error::refused(format!(
            "cannot {verb} secret `{}`: backend `{backend}` keeps its value",
            secret.metadata.name
        ))
        .hint("rotate it there; within 300 s the new value is read here")),
    }
}

/// The procedure `rotate`.
pub(super) async fn rotate(proc: Proc) -> Result<Value> {
    let from = proc
        .step("look", || async {
            let secret = mine(&proc)?;
            kept_here(&secret, "rotate")?;
            Ok(secret.spec.version)
        })
        .await?;
    let task = proc.uid().to_string();
    let forget = Move {
        secret: proc.target().clone(),
        user: None,
        from,
        to: 0,
        task: task.clone(),
    };
    let made = || async {
        let secret = mine(&proc)?;
        // A crash after the write and before its record: the version is there.
        let there = |(_, v): &(&String, &super::Version)| v.made_by.as_ref() == Some(&task);
        if let Some((number, _)) = secret.spec.versions.iter().find(there) {
            return Ok(number.parse().unwrap_or(0));
        }
        let mut random = [0; 32];
        proc.cx().clock().fill(&mut random);
        let value = rules::draw(secret.spec.sort, &random)?;
        let mut spec = SecretSpec {
            versions: secret.spec.versions.clone(),
            ..SecretSpec::default()
        };
        let number = rules::add(
            &mut spec,
            value,
            proc.cx().clock().now(),
            Some(task.clone()),
        );
        let version = spec.versions.get(&number.to_string());
        patch(
            proc.cx(),
            proc.target(),
            json!({ "versions": { number.to_string(): version } }),
        )
        .await?;
        Ok(number)
    };
    let to: u32 = proc
        .undoable("make a new version", FORGET.with(&forget), made)
        .await?;
    change_over(&proc, from, to, &task).await
}

/// The procedure `rollback`.
pub(super) async fn rollback(proc: Proc) -> Result<Value> {
    let wanted = proc.params::<RollbackInput>()?.version;
    let (from, to): (u32, u32) = proc
        .step("look", || async {
            let secret = mine(&proc)?;
            kept_here(&secret, "roll back")?;
            let from = secret.spec.version;
            let older = || {
                let mut numbers = rules::numbers(&secret.spec).into_iter();
                numbers.find(|number| *number < from)
            };
            let to = wanted.or_else(older).ok_or_else(|| {
                Error::refused(format!("{} has no version before {from}", proc.target()))
            })?;
            // Before anybody is told of it.
            read::stored(&secret, to)?;
            Ok((from, to))
        })
        .await?;
    change_over(&proc, from, to, &proc.uid().to_string()).await
}

/// Tells every user, has each prove it, and makes the version the valid one.
async fn change_over(proc: &Proc, from: u32, to: u32, task: &str) -> Result<Value> {
    let (cx, target) = (proc.cx(), proc.target());
    let told: Vec<ObjectRef> = proc
        .step("find the users", || async { Ok(users(cx, &*mine(proc)?)) })
        .await?;
    for user in &told {
        let back = Move {
            secret: target.clone(),
            user: Some(user.clone()),
            from,
            to,
            task: task.to_owned(),
        };
        proc.undoable(format!("write {user}"), GO_BACK.with(&back), || async {
            let secret = mine(proc)?;
            let from = read::stored(&secret, from)?;
            let to = read::stored_for(cx, &secret, to, user).await?;
            let change = Change {
                from: &from,
                to: &to,
            };
            let written = write(cx, user, change).await;
            // A step that fails cleans up after itself: how far it came, nobody knows.
            if written.is_err() {
                let back = Change {
                    from: &to,
                    to: &from,
                };
                write(cx, user, back).await.ok();
            }
            written
        })
        .await?;
    }
    for user in &told {
        proc.step(format!("verify {user}"), || async {
            let value = read::stored_for(cx, &*mine(proc)?, to, user).await?;
            verify(cx, user, &value).await
        })
        .await?;
    }
    proc.point_of_no_return().await?;
    proc.step("make it the valid one", || async {
        patch(cx, target, json!({ "version": to })).await?;
        tell(cx, target, None).await
    })
    .await?;
    Ok(json!({ "version": to, "users": told.len() }))
}

/// The procedure `check`.
pub(super) async fn check(proc: Proc) -> Result<Value> {
    let users: Vec<ObjectRef> = proc
        .step("find the users", || async {
            Ok(users(proc.cx(), &*mine(&proc)?))
        })
        .await?;
    let wrong: Vec<String> = proc
        .step("verify", || async {
            let secret = mine(&proc)?;
            let by = ObjectRef {
                kind: Secret::KIND.name.into(),
                ..proc.target().clone()
            };
            let value = read(proc.cx(), &by, &by).await;
            let mut wrong = Vec::new();
            if let Err(error) = &value {
                wrong.push(format!("secret/{}: {error}", secret.metadata.name));
            }
            for user in users.iter().filter(|_| value.is_ok()) {
                let value = value.as_deref().unwrap_or_default();
                if let Err(error) = verify(proc.cx(), user, value).await {
                    wrong.push(format!("{}/{}: {error}", user.kind, user.name));
                }
            }
            Ok(wrong)
        })
        .await?;
    match wrong.is_empty() {
        true => Ok(json!({ "users": users.len() })),
        false => Err(Error::refused(format!(
            "the valid version does not work everywhere: {}",
            wrong.join("; ")
        ))
        .hint("rotate it, or go back with `dvctl secret rollback`")),
    }
}

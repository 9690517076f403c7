//! Keeps what a secret's status says true, and rotates it when its time has come.

use super::{Secret, SecretState, SecretStatus, VersionStatus, rules};
use futures::future::BoxFuture;
use model::{Condition, ConditionStatus, Kind, ObjectRef, Resource, Result, What};
use runtime::task::Task;
use runtime::{Controller, Cx, Key, Next, Obj, Op, SecretUsers, object_ref};
use serde_json::Value;
use std::time::Duration;

/// How long a rotation that failed is left alone before its time comes again.
const AGAIN: Duration = Duration::from_secs(24 * 3600);
/// How long something under way is left alone when nothing is heard of it.
const LOOK: Duration = Duration::from_secs(30);
/// The condition that says how the last rotation ended.
pub(super) const ROTATED: &str = "Rotated";

/// The only writer of a secret's status besides its own procedures.
pub(super) struct SecretController;

/// The objects that name a secret, whom to tell first before others.
pub(super) fn users(cx: &Cx, secret: &Obj<Secret>) -> Vec<ObjectRef> {
    let project = secret.metadata.project.as_deref();
    let key = cx.key::<Secret>(project, &secret.metadata.name);
    let mut users: Vec<_> = cx
        .cache()
        .referrers(&key)
        .iter()
        .filter_map(object_ref)
        .collect();
    let told = cx.try_part::<SecretUsers>();
    let order = |user: &ObjectRef| {
        let told = told.as_ref().and_then(|users| users.of(&user.kind));
        told.map_or(u8::MAX, |user| user.order())
    };
    users.sort_by_cached_key(|user| (order(user), user.to_string()));
    users
}

impl Controller for SecretController {
    fn name(&self) -> &'static str {
        "secrets"
    }

    fn owns(&self) -> &'static Kind {
        Secret::KIND
    }

    fn watches(&self) -> Vec<runtime::Watch> {
        vec![
            runtime::Watch::Map(crate::secret_backend::KIND.name, |cx, key| {
                crate::secret_backend::secret_of(cx, key)
                    .into_iter()
                    .collect()
            }),
            // A rotation begins and ends with its task, which claims the secret.
            runtime::Watch::Map(Task::KIND.name, |cx, key| {
                let target = cx.get_key::<Task>(key).map(|t| t.spec.target.clone());
                target
                    .filter(|target| target.kind == Secret::KIND.name)
                    .map(|target| cx.key::<Secret>(target.project.as_deref(), &target.name))
                    .into_iter()
                    .collect()
            }),
        ]
    }

    fn reconcile<'a>(&'a self, cx: &'a Cx, key: &'a Key) -> BoxFuture<'a, Result<Next>> {
        Box::pin(async move {
            let Some(secret) = cx.get_key::<Secret>(key) else {
                return Ok(Next::Settled);
            };
            let now = cx.clock().now();
            let (spec, meta) = (&secret.spec, &secret.metadata);
            let valid = spec.versions.get(&spec.version.to_string());
            let since = valid.and_then(|version| version.created);
            let due = match (&spec.rotation, since) {
                (Some(rotation), Some(since)) => Some((rotation, rules::due(rotation, since))),
                _ => None,
            };
            let rotating = !meta.claims.is_empty();
            let used_by = u32::try_from(users(cx, &secret).len()).unwrap_or(u32::MAX);
            cx.set_status::<Secret>(key, |status: &mut SecretStatus| {
                status.version = spec.version;
                status.since = since;
                status.versions = rules::numbers(spec)
                    .into_iter()
                    .map(|number| VersionStatus {
                        number,
                        created: spec
                            .versions
                            .get(&number.to_string())
                            .and_then(|v| v.created),
                        valid: number == spec.version,
                    })
                    .collect();
                status.used_by = used_by;
                status.due = due.map(|(_, due)| due);
                status.observed_generation = meta.generation;
                status.state = match (rotating, failed(status)) {
                    (true, _) => SecretState::Rotating,
                    (false, Some(_)) => SecretState::Failed,
                    (false, None) => SecretState::Current,
                };
                let conditions = &mut status.conditions;
                match due {
                    None => {
                        Condition::clear(conditions, "Fresh");
                    }
                    Some((rotation, due)) if now >= rules::notice(rotation, due) => {
                        let message = match rotation.approval {
                            true => {
                                format!("is too old on {due}: `dvctl secret rotate {}`", meta.name)
                            }
                            false => format!("will be rotated from {due} on"),
                        };
                        let no = ConditionStatus::False;
                        Condition::set(conditions, "Fresh", no, "RotationDue", &message, now);
                    }
                    Some(_) => {
                        let yes = ConditionStatus::True;
                        Condition::set(conditions, "Fresh", yes, "NotDue", "", now);
                    }
                }
            })
            .await?;
            let Some((rotation, due)) = due else {
                return Ok(match rotating {
                    true => Next::Again(LOOK),
                    false => Next::Settled,
                });
            };
            let notice = rules::notice(rotation, due);
            if now < due {
                let next = if now < notice { notice } else { due };
                return Ok(Next::Again(next.since(now) + Duration::from_secs(1)));
            }
            if rotation.approval {
                return Ok(Next::WaitingFor("somebody to ask for its rotation".into()));
            }
            let since_failure = secret
                .status
                .as_ref()
                .and_then(failed)
                .map(|at| now.since(at));
            let wait = rules::opens_in(rotation, now)
                .max(since_failure.map_or(Duration::ZERO, |gone| AGAIN.saturating_sub(gone)));
            if rotating || !wait.is_zero() {
                return Ok(Next::Again(wait.max(LOOK)));
            }
            let Some(target) = object_ref(key) else {
                return Ok(Next::Settled);
            };
            let op = Op::Act {
                target,
                verb: "rotate".into(),
                params: Value::Null,
            };
            match cx.submit(op, "secret rotation").await {
                Err(error) if !matches!(error.what, What::Busy(_) | What::Conflict(_)) => {
                    Err(error)
                }
                _ => Ok(Next::Again(Duration::from_secs(60))),
            }
        })
    }
}

/// When the last rotation failed, if it did.
fn failed(status: &SecretStatus) -> Option<model::Timestamp> {
    let found = status.conditions.iter().find(|c| c.kind == ROTATED);
    found
        .filter(|c| c.status == ConditionStatus::False)
        .map(|c| c.since)
}

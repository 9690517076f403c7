//! Looks after each realm: whether its provider or directory answers, and that what has come in by it goes when it is
//! switched off.

use super::{Realm, RealmStatus, RealmType, ask, ldap};
use crate::session::{self, Session};
use futures::future::BoxFuture;
use model::{Condition, ConditionStatus, Kind, Resource, Result};
use runtime::{Controller, Cx, Key, Next};
use std::time::Duration;

/// How often a realm that answers is asked, and one that does not: nothing tells us when it goes away.
const LOOK: Duration = Duration::from_secs(600);
const AGAIN: Duration = Duration::from_secs(30);

/// The only writer of a realm's status.
pub(super) struct RealmController;

impl Controller for RealmController {
    fn name(&self) -> &'static str {
        "realms"
    }

    fn owns(&self) -> &'static Kind {
        Realm::KIND
    }

    fn reconcile<'a>(&'a self, cx: &'a Cx, key: &'a Key) -> BoxFuture<'a, Result<Next>> {
        Box::pin(async move {
            let Some(realm) = cx.get_key::<Realm>(key) else {
                if let Some(gone) = runtime::object_ref(key) {
                    end_sessions(cx, &gone.name).await?;
                }
                return Ok(Next::Settled);
            };
            if !realm.spec.enabled {
                end_sessions(cx, &realm.metadata.name).await?;
            }
            let generation = realm.metadata.generation;
            if realm.spec.sort == RealmType::Local || !realm.spec.enabled {
                cx.set_status::<Realm>(key, |status: &mut RealmStatus| {
                    status.observed_generation = generation;
                    status.conditions.clear();
                })
                .await?;
                return Ok(Next::Settled);
            }
            // One that does not answer must not keep this process from ending.
            let shutdown = cx.shutdown();
            let asked = tokio::select! {
                () = shutdown.cancelled() => return Ok(Next::Settled),
                asked = ask(cx, &realm, None) => asked,
            };
            let now = cx.clock().now();
            cx.set_status::<Realm>(key, |status: &mut RealmStatus| {
                status.observed_generation = generation;
                let (holds, reason, message) = match &asked {
                    Ok(said) => {
                        status.last_reached = Some(now);
                        status.keys = said["keys"].as_u64().and_then(|n| u32::try_from(n).ok());
                        (ConditionStatus::True, "Answers", String::new())
                    }
                    Err(e) => (ConditionStatus::False, "DoesNotAnswer", e.message.clone()),
                };
                Condition::set(
                    &mut status.conditions,
                    "Reachable",
                    holds,
                    reason,
                    &message,
                    now,
                );
            })
            .await?;
            if asked.is_err() {
                return Ok(Next::Again(AGAIN));
            }
            Ok(Next::Again(match ldap::sync_when_due(cx, &realm).await? {
                Some(next) => next.min(LOOK),
                None => LOOK,
            }))
        })
    }
}

/// Ends what was begun by a realm.
async fn end_sessions(cx: &Cx, realm: &str) -> Result<()> {
    for session in cx.list::<Session>(None) {
        if session.spec.realm.as_deref() == Some(realm) {
            session::end(cx, &session.metadata.name).await?;
        }
    }
    Ok(())
}

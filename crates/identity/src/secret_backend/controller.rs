//! Looks after each key server: whether it answers, and that our token is renewed before half of its life is over.

use super::kept::Held;
use super::{Backend, BackendStatus, Backends};
use futures::future::BoxFuture;
use model::{Condition, ConditionStatus, Error, Kind, Resource, Result};
use runtime::{Controller, Cx, Key, Next, Obj, Watch};
use std::time::Duration;

/// How often it is looked at, at least: nothing tells us when it goes away.
const LOOK: Duration = Duration::from_secs(30);

/// The only writer of a key server's status.
pub(super) struct BackendController;

impl Controller for BackendController {
    fn name(&self) -> &'static str {
        "key servers"
    }

    fn owns(&self) -> &'static Kind {
        Backend::KIND
    }

    fn watches(&self) -> Vec<Watch> {
        // The secret that proves us was changed.
        vec![Watch::Map("secret", |cx, key| {
            let named = cx.cache().referrers(key);
            let ours =
                |key: &Key| runtime::object_ref(key).is_some_and(|o| o.kind == Backend::KIND.name);
            named.into_iter().filter(ours).collect()
        })]
    }

    fn reconcile<'a>(&'a self, cx: &'a Cx, key: &'a Key) -> BoxFuture<'a, Result<Next>> {
        Box::pin(async move {
            let Ok(kept) = Backends::of(cx) else {
                return Ok(Next::Settled);
            };
            let Some(backend) = cx.get_key::<Backend>(key) else {
                let there = cx.list::<Backend>(None);
                let uids: Vec<_> = there.iter().map(|b| b.metadata.uid).collect();
                kept.keep_only(&uids);
                return Ok(Next::Settled);
            };
            let look = async {
                let reached = match kept.client(cx, &backend) {
                    Ok(client) => client.health().await,
                    Err(error) => Err(error),
                };
                let let_in = match &reached {
                    Ok(_) => Some(stay_in(cx, &kept, &backend).await),
                    Err(_) => None,
                };
                (reached, let_in)
            };
            // One that does not answer must not keep this process from ending.
            let shutdown = cx.shutdown();
            let (reached, let_in) = tokio::select! {
                () = shutdown.cancelled() => return Ok(Next::Settled),
                seen = look => seen,
            };
            let now = cx.clock().now();
            cx.set_status::<Backend>(key, |status: &mut BackendStatus| {
                status.observed_generation = backend.metadata.generation;
                if let Ok(health) = &reached {
                    status.version.clone_from(&health.version);
                }
                if let Some(Ok(held)) = &let_in {
                    status.token_expires = held.end();
                }
                let mut say = |kind: &str, found: Option<std::result::Result<(), &Error>>| {
                    let (holds, reason, message) = match found {
                        Some(Ok(())) => (ConditionStatus::True, "Answers", String::new()),
                        Some(Err(e)) => (ConditionStatus::False, "Refuses", e.message.clone()),
                        None => (ConditionStatus::Unknown, "NotReached", String::new()),
                    };
                    Condition::set(&mut status.conditions, kind, holds, reason, &message, now);
                };
                say("Reachable", Some(reached.as_ref().map(drop)));
                say(
                    "Authenticated",
                    let_in.as_ref().map(|r| r.as_ref().map(drop)),
                );
            })
            .await?;
            let half = kept.held(backend.metadata.uid).and_then(|held| held.half());
            let wait = half.map_or(LOOK, |half| half.since(now).min(LOOK));
            Ok(Next::Again(wait.max(Duration::from_secs(1))))
        })
    }
}

/// Keeps us logged in: renews a token whose half is near, and gets a new one when that does not work.
async fn stay_in(cx: &Cx, kept: &Backends, backend: &Obj<Backend>) -> Result<Held> {
    let uid = backend.metadata.uid;
    let now = cx.clock().now();
    // The next look may come after half of its life: then it is renewed now.
    let soon = now.plus(LOOK);
    if let Some(held) = kept.held(uid) {
        let short = held.token.life.is_some_and(|life| life / 2 <= LOOK);
        let near = match short {
            true => held
                .half()
                .is_some_and(|half| half <= now.plus(Duration::from_secs(1))),
            false => held.half().is_some_and(|half| half <= soon),
        };
        if !near {
            return Ok(held);
        }
        if held.token.renewable
            && let Ok(token) = kept.client(cx, backend)?.renew(&held.token.text).await
        {
            let renewed = Held { token, since: now };
            // At the end of what the server allows, a renewal adds nothing: then a new login.
            if renewed.token.life > held.token.life.map(|life| life / 2) {
                kept.hold(backend, renewed.clone());
                return Ok(renewed);
            }
        }
    }
    let token = kept.log_in(cx, backend).await?;
    Ok(Held { token, since: now })
}

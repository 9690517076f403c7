//! Says where keys are in their lives, warns before they end, rotates those that want it, fills their sinks, and takes away
//! keys that ended long ago.

use super::types::{ApiKeyStatus, State};
use super::{ApiKey, KIND, fresh, hook, policy, rules, target};
use crate::mail;
use crate::user::User;
use futures::future::BoxFuture;
use model::{Kind, ObjectRef, Result};
use runtime::audit::{Note, TOKEN_ISSUED, note};
use runtime::event::Severity;
use runtime::{Controller, Cx, Key, Next, Op};
use serde_json::json;

pub(super) struct ApiKeyController;

impl Controller for ApiKeyController {
    fn name(&self) -> &'static str {
        "api keys"
    }

    fn owns(&self) -> &'static Kind {
        &KIND
    }

    fn reconcile<'a>(&'a self, cx: &'a Cx, key: &'a Key) -> BoxFuture<'a, Result<Next>> {
        Box::pin(async move {
            let Some(object) = cx.get_key::<ApiKey>(key) else {
                return Ok(Next::Settled);
            };
            let now = cx.clock().now();
            let state = rules::state(&object.spec, now);
            let was = object.status.as_ref().map(|status| status.state);
            let target = target(&object.metadata.name);
            if was != Some(state) {
                let message = |event: &str| {
                    json!({
                        "event": event, "time": now, "key": object.metadata.name,
                        "owner": object.spec.owner, "expires": object.spec.expires,
                        "auto_rotate": object.spec.auto_rotate,
                    })
                };
                match state {
                    State::Expiring => {
                        let text = "ends within 14 days: dvctl api-key rotate";
                        cx.event(&target, "api-key.expiring", text, Severity::Warning)
                            .await;
                        if let Some(owner) = cx.get::<User>(None, &object.spec.owner) {
                            let letter =
                                format!("Your API key `{0}` {text} {0}\n", object.metadata.name);
                            mail::warn(cx, &owner, "An API key ends soon", letter);
                        }
                        hook::warn(cx, message("api-key.expiring"));
                    }
                    State::Expired => {
                        cx.event(&target, "api-key.expired", "has ended", Severity::Warning)
                            .await;
                        hook::warn(cx, message("api-key.expired"));
                    }
                    _ => {}
                }
                if state == State::Expired {
                    // Its rules give back what only a key holds that lets in. First: once the status says that it has
                    // ended, nobody looks again.
                    let (target, body) = (target.clone(), json!({ "spec": {} }));
                    cx.submit(Op::Patch { target, body }, "ended api keys")
                        .await?;
                }
                cx.set_status::<ApiKey>(key, |status: &mut ApiKeyStatus| status.state = state)
                    .await?;
            }
            match state {
                State::Expired | State::Revoked if rules::is_old(&object.spec, now) => {
                    let keep = Vec::new();
                    cx.submit(Op::Delete { target, keep }, "old api keys")
                        .await?;
                    return Ok(Next::Settled);
                }
                State::Waiting => {
                    if let Some(sink) = &object.spec.sink {
                        fill(cx, &target, sink).await?;
                    }
                }
                State::Expiring if object.spec.auto_rotate => {
                    if policy::in_force(cx).approval {
                        return Ok(Next::WaitingFor("somebody to ask for its rotation".into()));
                    }
                    let op = rules::rotation_due(&target.name);
                    cx.submit(op, "keys that rotate").await?;
                }
                _ => {}
            }
            Ok(Next::Again(rules::next_look(&object.spec, now)))
        })
    }
}

/// Makes the next secret of a key and writes it to its sink. The sink comes first: a crash between the two leaves a value
/// there that lets nobody in yet, and the next look makes another; the other way round nobody would know the new one.
async fn fill(cx: &Cx, target: &ObjectRef, sink: &str) -> Result<()> {
    let (made, stored) = fresh(cx);
    let given = Note::new(&TOKEN_ISSUED, "api keys").about(target);
    note(cx, given.with("sink", sink)).await?;
    let value = json!({ "spec": { "value": made } });
    let op = Op::Patch {
        target: rules::sink_of(sink)?,
        body: value,
    };
    cx.submit(op, "keys that rotate").await?;
    // As it is now: its use may have been noted meanwhile.
    let object = cx.get::<ApiKey>(None, &target.name);
    let Some(object) = object.filter(|object| rules::awaits(&object.spec)) else {
        return Ok(());
    };
    let secrets = rules::with(&object.spec, stored, cx.clock().now());
    let op = Op::Patch {
        target: target.clone(),
        body: json!({
            "metadata": { "revision": object.metadata.revision }, "spec": { "secrets": secrets },
        }),
    };
    cx.submit(op, "keys that rotate").await?;
    let text = format!("its next secret is in `{sink}`");
    cx.event(target, "api-key.delivered", &text, Severity::Info)
        .await;
    Ok(())
}

//! Says where keys are in their lives, warns before they end, and takes away those that ended long ago.

use super::types::{ApiKeyStatus, State};
use super::{ApiKey, KIND, rules, target};
use crate::mail;
use crate::user::User;
use futures::future::BoxFuture;
use model::{Kind, Result};
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
                    }
                    State::Expired => {
                        cx.event(&target, "api-key.expired", "has ended", Severity::Warning)
                            .await;
                    }
                    _ => {}
                }
                cx.set_status::<ApiKey>(key, |status: &mut ApiKeyStatus| status.state = state)
                    .await?;
            }
            match state {
                State::Expired | State::Revoked => {
                    let end = object.spec.expires.unwrap_or(now);
                    if now.since(end) >= rules::KEPT {
                        let keep = Vec::new();
                        cx.submit(Op::Delete { target, keep }, "old api keys")
                            .await?;
                        return Ok(Next::Settled);
                    }
                    if was != Some(state) && state == State::Expired {
                        // Its rules give back what only a key holds that lets in.
                        let body = json!({ "spec": {} });
                        cx.submit(Op::Patch { target, body }, "ended api keys")
                            .await?;
                    }
                }
                _ => {}
            }
            Ok(Next::Again(rules::next_look(&object.spec, now)))
        })
    }
}

//! The webhook of API keys: warnings are posted to a program of somebody else's, signed, so that it can tell ours from any
//! other ([`runtime::signing`]).
//!
//! **Invariants.** Nothing is posted in the clear but to this machine itself. A message names a key and its owner and holds
//! no part of a secret. Each try has a nonce of its own, so that a receiver may refuse what it has taken.

use super::policy::{DEFAULT, KIND, Webhook, in_force};
use crate::pin::{self, Trust};
use crate::secret::{self, Secret};
use crate::secret_backend::is_here;
use model::{Error, ObjectRef, Result, Violation};
use runtime::event::Severity;
use runtime::signing::{Algorithm, Keys, Message};
use runtime::{Cx, Draft};
use serde_json::Value;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::sync::Semaphore;

/// How long a connection and a whole call may take.
const CONNECT: Duration = Duration::from_secs(5);
const CALL: Duration = Duration::from_secs(15);
/// How many messages are under way at once.
const AT_ONCE: usize = 8;
/// What a message is.
const TYPE: &str = "application/json";

static ROOM: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(AT_ONCE)));

/// What is wrong with a webhook, and whether whoever names it may.
pub(super) fn check(draft: &Draft<'_>, hook: &Webhook, old: Option<&Webhook>) -> Result<()> {
    let mut wrong = Vec::new();
    if !hook.url.starts_with("https://") && !is_here(&hook.url) {
        wrong.push(
            Violation::new("spec.webhook.url", "would be asked in the clear")
                .hint("use `https`; name its certificate authority with `ca`"),
        );
    } else if reqwest::Url::parse(&hook.url).is_err() {
        wrong.push(Violation::new("spec.webhook.url", "is not an address"));
    }
    let secret = hook.secret.split_once('/');
    if secret.is_none() {
        wrong.push(Violation::new(
            "spec.webhook.secret",
            "names a secret with its project: `project/name`",
        ));
    }
    if !wrong.is_empty() {
        return Err(Error::invalid(wrong));
    }
    let Some((project, name)) = secret.filter(|_| old != Some(hook)) else {
        return Ok(());
    };
    // Who gets messages that it signs can try out what it might be.
    let (cx, actor) = (draft.cx(), draft.actor());
    match cx
        .gate()
        .may(actor, None, "secret", "reveal", Some(project), Some(name))
    {
        true => Ok(()),
        false => Err(Error::denied(format!(
            "`{}` may not have messages signed with the secret `{}`: he lacks secret.reveal on it",
            actor.name, hook.secret
        ))
        .hint("ask somebody who may see its value")),
    }
}

/// Posts a message, and tries again for a while when it is not taken.
///
/// # Errors
/// `Refused` when there is no webhook, or it does not want the message; `Unavailable` when nobody answers there.
pub(super) async fn send(cx: &Cx, message: &Value) -> Result<()> {
    let Some(hook) = in_force(cx).webhook else {
        return Err(Error::refused("no webhook is named for API keys").hint(
            "dvctl api-key-policy set default --webhook url=https://HOST/PATH,secret=PROJECT/NAME",
        ));
    };
    let keys = keys(cx, &hook).await?;
    let unfit = |e: reqwest::Error| {
        Error::internal("an HTTP client for the webhook cannot be set up").because(e)
    };
    let url: reqwest::Url = hook
        .url
        .parse()
        .map_err(|_| Error::refused("the address of the webhook is none"))?;
    let client = pin::http(cx, &Trust::System(hook.ca.clone()))?
        .connect_timeout(CONNECT)
        .timeout(CALL)
        .build()
        .map_err(unfit)?;
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let body = message.to_string();
    let authority = match (url.host_str().unwrap_or_default(), url.port()) {
        (host, Some(port)) => format!("{host}:{port}"),
        (host, None) => host.to_owned(),
    };
    let once = || {
        let mut random = [0; 16];
        cx.clock().fill(&mut random);
        let headers = [("content-type", TYPE), ("host", authority.as_str())];
        let message = Message {
            method: "POST",
            target: &target,
            headers: &headers,
            body: body.as_bytes(),
        };
        let signed = keys.sign(
            &message,
            &["content-type", "host"],
            Algorithm::Sha256,
            cx.clock().now(),
            random,
        );
        let mut request = client.post(url.clone()).header("content-type", TYPE);
        for (name, value) in signed.iter().flatten() {
            request = request.header(*name, value);
        }
        let request = request.body(body.clone());
        async move {
            signed.map_err(|_| Error::refused("the address of the webhook cannot be signed"))?;
            let answer = request.send().await.map_err(|e| {
                Error::unavailable("the webhook of API keys does not answer")
                    .because(e.without_url())
            })?;
            let status = answer.status();
            match status.as_u16() {
                200..=299 => Ok(()),
                429 | 500.. => Err(Error::unavailable(format!(
                    "the webhook of API keys answers with {status}"
                ))),
                _ => Err(Error::refused(format!(
                    "the webhook of API keys does not take the message: it answers with {status}"
                ))),
            }
        }
    };
    cx.dependencies()
        .named("webhook of API keys")
        .call(once)
        .await
}

/// What messages are signed with. Its id is the name of the secret with its version, so that a receiver who knows two knows
/// which.
async fn keys(cx: &Cx, hook: &Webhook) -> Result<Keys> {
    let (project, name) = hook.secret.split_once('/').unwrap_or(("", &hook.secret));
    let target = ObjectRef {
        kind: "secret".into(),
        project: Some(project.into()),
        name: name.into(),
    };
    let by = policy();
    let version = cx.get::<Secret>(Some(project), name);
    let version = version.map_or(0, |secret| secret.spec.version);
    let value = secret::read(cx, &target, &by).await?;
    // A file that it came from ends with a line.
    let value = value.trim_end_matches(['\r', '\n']);
    Keys::new(&format!("{name}-{version}"), value.as_bytes()).map_err(|e| {
        Error::refused(format!(
            "the secret `{}` cannot sign messages: {e}",
            hook.secret
        ))
    })
}

fn policy() -> ObjectRef {
    ObjectRef {
        kind: KIND.name.into(),
        project: None,
        name: DEFAULT.into(),
    }
}

/// Posts a warning aside, when there is a webhook. That it was not taken is an event.
pub(super) fn warn(cx: &Cx, message: Value) {
    if in_force(cx).webhook.is_none() {
        return;
    }
    let cx = cx.clone();
    let turn = ROOM.clone().try_acquire_owned();
    cx.clone().life().spawn("webhook of API keys", async move {
        let sent = match &turn {
            Ok(_) => send(&cx, &message).await,
            Err(_) => Err(Error::unavailable("too many messages are under way")),
        };
        if let Err(error) = sent {
            tracing::warn!(?error, "a warning was not posted");
            let text = format!("{error}: {message}");
            cx.event(
                &policy(),
                "api-key-policy.unposted",
                &text,
                Severity::Warning,
            )
            .await;
        }
    });
}

//! What is shown of a secret over a stream: its value to who may see it, its versions to who may read it, its users to
//! who may read them.

use super::{Secret, read};
use futures::future::BoxFuture;
use model::{Error, Result};
use runtime::audit::{Note, SECRET_REVEALED, note};
use runtime::{Cx, Obj, StreamIo, StreamRequest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What `reveal` takes.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RevealInput {
    /// An older version instead of the valid one.
    pub version: Option<u32>,
}

fn object(cx: &Cx, request: &StreamRequest) -> Result<Arc<Obj<Secret>>> {
    read::object(cx, &request.target)
}

/// The stream `reveal`.
pub(super) fn reveal(
    cx: Cx,
    request: StreamRequest,
    io: StreamIo,
) -> BoxFuture<'static, Result<()>> {
    Box::pin(async move {
        let object = object(&cx, &request)?;
        let input: RevealInput = match request.params.is_null() {
            true => RevealInput::default(),
            false => serde_json::from_value(request.params.clone())
                .map_err(|e| Error::field("params", e.to_string()))?,
        };
        let version = input.version.unwrap_or(object.spec.version);
        let revealed = Note::by(&SECRET_REVEALED, &request.actor)
            .about(&request.target)
            .with("version", version)
            .with("request", request.request_id.clone());
        // On disk before anything is shown: who cannot be put on record sees nothing.
        note(&cx, revealed).await?;
        let value = read::value(&cx, &object, input.version).await?;
        io.data(value + "\n").await
    })
}

/// The stream `versions`.
pub(super) fn versions(
    cx: Cx,
    request: StreamRequest,
    io: StreamIo,
) -> BoxFuture<'static, Result<()>> {
    Box::pin(async move {
        let object = object(&cx, &request)?;
        for number in super::rules::numbers(&object.spec) {
            let version = object.spec.versions.get(&number.to_string());
            let created = version.and_then(|v| v.created).map(|c| c.to_string());
            let valid = if number == object.spec.version {
                " valid"
            } else {
                ""
            };
            io.data(format!("{number} {}{valid}\n", created.unwrap_or_default()))
                .await?;
        }
        Ok(())
    })
}

/// The stream `users`.
pub(super) fn users(
    cx: Cx,
    request: StreamRequest,
    io: StreamIo,
) -> BoxFuture<'static, Result<()>> {
    Box::pin(async move {
        let object = object(&cx, &request)?;
        for user in super::controller::users(&cx, &object) {
            let (project, name) = (user.project.as_deref(), Some(user.name.as_str()));
            let (gate, actor) = (cx.gate(), &request.actor);
            // From where he asks is not known here: what counts only from some addresses does not count.
            if gate.may(actor, None, &user.kind, "read", project, name) {
                io.data(format!("{}/{}\n", user.kind, user.name)).await?;
            }
        }
        Ok(())
    })
}

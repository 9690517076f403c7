//! What was changed: written into the status in the transaction of the change, and shown as a stream of lines.

use crate::{Cx, Draft, StreamIo, StreamRequest};
use futures::future::BoxFuture;
use model::{Error, Result, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How many changes are kept.
const KEPT: usize = 50;

/// One change of a setting or flag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Changed {
    /// When.
    pub time: Timestamp,
    /// Who.
    pub actor: String,
    /// What it was.
    pub from: Value,
    /// What it became.
    pub to: Value,
}

/// Adds a change, if it is one. What is made for the first time has changed nothing.
pub(super) fn note(
    draft: &Draft<'_>,
    history: &mut Vec<Changed>,
    before: Option<Value>,
    after: &Value,
) {
    let Some(before) = before.filter(|before| before != after) else {
        return;
    };
    history.push(Changed {
        time: draft.now(),
        actor: draft.actor().name.clone(),
        from: before,
        to: after.clone(),
    });
    let surplus = history.len().saturating_sub(KEPT);
    history.drain(..surplus);
}

/// The stream `history`.
pub(super) fn open(cx: Cx, request: StreamRequest, io: StreamIo) -> BoxFuture<'static, Result<()>> {
    Box::pin(async move {
        let target = &request.target;
        let row = cx
            .cache()
            .row(&target.kind, &crate::desk::key_of(target))
            .ok_or_else(|| Error::not_found(format!("there is no {target}")))?;
        let changes: Vec<Changed> =
            serde_json::from_value(row.value()?["status"]["history"].clone()).unwrap_or_default();
        for change in changes {
            let line = format!(
                "{} {} {} -> {}\n",
                change.time, change.actor, change.from, change.to
            );
            io.data(line).await?;
        }
        Ok(())
    })
}

//! What a crash kept from the trail.

use super::row::{Phase, Row};
use super::{Durable, PREFIX};
use crate::Cx;
use crate::cx::store_error;
use model::Result;
use serde_json::Value;
use store::{Page, Prefix};

/// How many rows are looked through after a restart for intents without outcome.
const LOOKED_AT: usize = 10_000;

/// Writes the outcomes that the last run of this process did not come to: what a commit has left its name in was done,
/// anything else was not.
pub(super) async fn recover(cx: &Cx) -> Result<usize> {
    let Some(trail) = cx.trail() else {
        return Ok(0);
    };
    let mut open: Vec<Row> = Vec::new();
    for row in trail.last(LOOKED_AT).await {
        match row.phase {
            Phase::Intent if row.change.is_some() => open.push(row),
            Phase::Intent => {}
            Phase::Outcome => open.retain(|intent| intent.change != row.change),
        }
    }
    if open.is_empty() {
        return Ok(0);
    }
    let listing = cx.store().list(&Prefix::new(PREFIX), Page::ALL).await;
    let done = listing.map_err(store_error)?.entries;
    let missing = open.len();
    for intent in open {
        let name = intent.change.map(|c| c.to_string()).unwrap_or_default();
        let was_done = done.iter().any(|entry| entry.value == name.as_bytes());
        let word = if was_done { "ok" } else { "INTERRUPTED" };
        let row = Row {
            time: cx.clock().now(),
            phase: Phase::Outcome,
            // As in any outcome: what was asked stands in the intent, sealed with the right key.
            params: Value::Null,
            personal: Vec::new(),
            about: None,
            result: Some(word.into()),
            recovered: true,
            ..intent
        };
        trail.keep(row, Durable::Now).await?;
    }
    tracing::info!(
        missing,
        "outcomes that a crash had kept from the audit trail were added"
    );
    Ok(missing)
}

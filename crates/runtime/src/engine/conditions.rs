//! How a reconcile ended, on the object: `observed_generation` and the conditions `Reconciled` and `Waiting`.

use super::Next;
use crate::Cx;
use model::{Condition, ConditionStatus, Kind, Result, Timestamp};
use serde_json::{Value, json};
use store::Key;

pub(super) async fn write(
    cx: &Cx,
    kind: &'static Kind,
    key: &Key,
    seen: u64,
    result: &Result<Next>,
) -> Result<()> {
    let Some(row) = cx.cache().row(kind.name, key) else {
        return Ok(());
    };
    let now = cx.clock().now();
    // Nearly always nothing changes: the cache can tell without asking the store.
    let mut cached = row.value()?;
    if !edit(&mut cached, seen, result, now) {
        return Ok(());
    }
    cx.edit_stored(key, |object| {
        edit(object, seen, result, now);
        Ok(())
    })
    .await?;
    Ok(())
}

/// Writes the outcome into an object; says whether that changed anything.
fn edit(object: &mut Value, seen: u64, result: &Result<Next>, now: Timestamp) -> bool {
    let status = &mut object["status"];
    if status.is_null() {
        *status = json!({});
    }
    let mut changed = false;
    let mut list: Vec<Condition> =
        serde_json::from_value(status["conditions"].clone()).unwrap_or_default();
    match result {
        Ok(next) => {
            changed |= Condition::set(&mut list, "Reconciled", ConditionStatus::True, "", "", now);
            changed |= match next {
                Next::WaitingFor(what) => Condition::set(
                    &mut list,
                    "Waiting",
                    ConditionStatus::True,
                    "WaitingFor",
                    what,
                    now,
                ),
                _ => Condition::clear(&mut list, "Waiting"),
            };
            if seen > status["observed_generation"].as_u64().unwrap_or(0) {
                status["observed_generation"] = json!(seen);
                changed = true;
            }
        }
        Err(error) => {
            let message = error.to_string();
            changed |= Condition::set(
                &mut list,
                "Reconciled",
                ConditionStatus::False,
                error.code(),
                &message,
                now,
            );
        }
    }
    status["conditions"] = json!(list);
    changed
}

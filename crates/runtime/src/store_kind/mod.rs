//! The kind `store`: the one place where everything is kept, as people look after it while it is in use. What needs it
//! closed (restore, downgrade) is `debvisord store`.
//!
//! **Invariant.** Nothing here changes an object: a check reads, a backup copies, compaction gives space back.

use crate::{
    Controller, Cx, Next, Op, Place, Proc, Run, Seat, Subsystem, normal, nothing_to_admit,
};
use futures::future::BoxFuture;
use model::{
    Action, Bytes, Column, Condition, ConditionStatus, Danger, Error, Kind, Resource, Result,
    Scope, Unit, Verb, What, WorkStyle, schema,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use store::{Key, Sqlite};

/// The name of the only object.
const MAIN: &str = "default";

/// The store of this cluster.
pub struct StoreKind;

impl Resource for StoreKind {
    const KIND: &'static Kind = &KIND;
    type Spec = StoreSpec;
    type Status = StoreStatus;
}

/// The declaration.
pub static KIND: Kind = Kind {
    name: "store",
    plural: "stores",
    title: "Store",
    scope: Scope::Cluster,
    doc: "Where DebVisor keeps all objects. It is copied once a day, and seven copies are kept. To go back to a copy, stop the daemons and run `debvisord store restore`.",
    verbs: Verb::READ,
    spec: schema::of::<StoreSpec>,
    status: schema::of::<StoreStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("backend", "status.backend"),
        Column::new("format", "status.format"),
        Column::new("size", "status.size").unit(Unit::Bytes),
        Column::new("copies", "status.copies").unit(Unit::Count),
        Column::new("file", "status.file").wide(),
    ],
    actions: &[
        action(
            "check",
            "Looks through the whole store and compares its indexes with its tables. Reading and writing go on.",
            "checked",
        ),
        action(
            "backup",
            "Makes a copy beside the store, as is done once a day. The newest seven are kept.",
            "backed-up",
        ),
        action(
            "compact",
            "Gives space that deleted objects have left back to the disk. Writes wait while it runs, at most a few seconds.",
            "compacted",
        ),
    ],
    streams: &[],
    examples: &[
        "dvctl store show default -o yaml",
        "dvctl store check default",
        "dvctl store backup default",
        "dvctl store compact default",
    ],
};

const fn action(verb: &'static str, doc: &'static str, event: &'static str) -> Action {
    Action {
        verb,
        doc,
        danger: Danger::None,
        style: WorkStyle::Procedure,
        input: schema::empty,
        claims: &["file"],
        deadline: 3600,
        event,
        examples: &[],
    }
}

/// Nothing is chosen about the store while it is in use.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreSpec {}

/// What the store is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StoreStatus {
    /// What keeps it: `sqlite`.
    pub backend: String,
    /// Its file.
    pub file: String,
    /// The format of the file.
    pub format: u32,
    /// Size of the file with its log, in whole MiB.
    pub size: Bytes,
    /// Its copies, newest first.
    pub copies: Vec<String>,
    /// Generation of its spec that was seen.
    pub observed_generation: u64,
    /// `Sound`: what the last check found.
    pub conditions: Vec<Condition>,
}

/// The kind `store`.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Api,
    seat: Seat::Api,
    normal: normal::<StoreKind>,
    admit: nothing_to_admit,
    runs: &[
        (
            "check",
            Run::Procedure(|proc| {
                Box::pin(async move { proc.step("check", || check(&proc)).await })
            }),
        ),
        (
            "backup",
            Run::Procedure(|proc| {
                Box::pin(async move { proc.step("copy", || backup(&proc)).await })
            }),
        ),
        (
            "compact",
            Run::Procedure(|proc| {
                Box::pin(async move { proc.step("compact", || compact(&proc)).await })
            }),
        ),
    ],
    undos: &[],
    streams: &[],
    finalizes: false,
    controllers: |_| vec![Arc::new(Look)],
};

/// Makes the object of the store. For the api, at its start.
///
/// # Errors
/// When the store refuses.
pub async fn make(cx: &Cx) -> Result<()> {
    if cx.get::<StoreKind>(None, MAIN).is_some() {
        return Ok(());
    }
    let op = Op::Create {
        kind: KIND.name.into(),
        project: None,
        body: json!({ "metadata": { "name": MAIN }, "spec": {} }),
    };
    match cx.submit(op, "store").await {
        Err(error) if error.what != What::Exists => Err(error),
        _ => Ok(()),
    }
}

fn file(cx: &Cx) -> Result<Arc<Sqlite>> {
    cx.try_part::<Sqlite>()
        .ok_or_else(|| Error::refused("this store has no file to look after"))
}

async fn check(proc: &Proc) -> Result<Value> {
    let found = file(proc.cx())?.check().await;
    let key = proc.cx().key::<StoreKind>(None, MAIN);
    let now = proc.cx().clock().now();
    let (holds, reason, message) = match &found {
        Ok(()) => (ConditionStatus::True, "Checked", String::new()),
        Err(error) => (ConditionStatus::False, "Damaged", error.to_string()),
    };
    proc.cx()
        .set_status::<StoreKind>(&key, |status| {
            Condition::set(
                &mut status.conditions,
                "Sound",
                holds,
                reason,
                &message,
                now,
            );
        })
        .await?;
    found.map_err(crate::cx::store_error)?;
    Ok(json!({ "sound": true }))
}

async fn backup(proc: &Proc) -> Result<Value> {
    let copy = file(proc.cx())?.copy().await;
    let copy = copy.map_err(crate::cx::store_error)?;
    proc.cx().wake(&proc.cx().key::<StoreKind>(None, MAIN));
    Ok(json!({ "copy": copy }))
}

async fn compact(proc: &Proc) -> Result<Value> {
    let (before, after) = file(proc.cx())?
        .compact()
        .await
        .map_err(crate::cx::store_error)?;
    proc.cx().wake(&proc.cx().key::<StoreKind>(None, MAIN));
    Ok(json!({ "bytes_before": before, "bytes_after": after }))
}

/// Says how large the store is and which copies there are.
struct Look;

impl Controller for Look {
    fn name(&self) -> &'static str {
        "store"
    }
    fn owns(&self) -> &'static Kind {
        &KIND
    }
    fn reconcile<'a>(&'a self, cx: &'a Cx, key: &'a Key) -> BoxFuture<'a, Result<Next>> {
        Box::pin(async move {
            let Ok(file) = file(cx) else {
                return Ok(Next::Settled);
            };
            let found = file.status().await.map_err(crate::cx::store_error)?;
            cx.set_status::<StoreKind>(key, |status| {
                "sqlite".clone_into(&mut status.backend);
                status.file = found.file.display().to_string();
                status.format = found.format;
                status.size = Bytes(found.bytes.div_ceil(1 << 20) << 20);
                status.copies = found
                    .copies
                    .iter()
                    .map(|c| c.display().to_string())
                    .collect();
            })
            .await?;
            Ok(Next::Again(Duration::from_secs(300)))
        })
    }
}

#[cfg(test)]
mod tests;

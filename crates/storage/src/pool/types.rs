//! What a pool is made of.

use model::{Bytes, Column, Condition, Kind, Resource, Scope, Timestamp, Unit, Verb, schema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A place where disks are kept.
pub struct Pool;

impl Resource for Pool {
    const KIND: &'static Kind = &KIND;
    type Spec = PoolSpec;
    type Status = PoolStatus;
}

/// The declaration.
pub static KIND: Kind = Kind {
    name: "pool",
    plural: "pools",
    title: "Storage pool",
    scope: Scope::Cluster,
    doc: "A place on a node where images and volumes are kept. Its driver decides how: `dir` keeps them as files in a folder. A pool that volumes or images use cannot be deleted.",
    verbs: Verb::ALL,
    spec: schema::of::<PoolSpec>,
    status: schema::of::<PoolStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("driver", "spec.driver"),
        Column::new("state", "status.state"),
        Column::new("used", "status.used").unit(Unit::Bytes),
        Column::new("free", "status.free").unit(Unit::Bytes),
        Column::new("total", "status.total").unit(Unit::Bytes),
        Column::new("age", "metadata.created").unit(Unit::Age),
        Column::new("path", "status.path").wide(),
        Column::new("message", "status.message").wide(),
    ],
    actions: &[],
    streams: &[],
    examples: &[
        "dvctl pool list",
        "dvctl pool create fast --path /srv/fast",
        "dvctl pool show default -o yaml",
    ],
};

/// How a pool keeps its disks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DriverKind {
    /// As files in a folder.
    #[default]
    Dir,
}

/// What a pool may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// Images.
    Images,
    /// Volumes.
    Volumes,
}

/// What people want of a pool.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolSpec {
    /// How it keeps its disks.
    #[serde(default)]
    #[schemars(extend("x-immutable" = true))]
    pub driver: DriverKind,
    /// The folder, absolute, for the driver `dir`. It must be empty or not exist; no other pool may use it. When
    /// absent, a folder of that name among DebVisor's own state is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 1024), extend("x-immutable" = true))]
    pub path: Option<String>,
    /// What it may hold.
    #[serde(default = "everything")]
    #[schemars(length(min = 1, max = 2))]
    pub content: Vec<Content>,
    /// From this share of used space on, in percent, the pool says that it is filling up.
    #[serde(default = "eighty")]
    #[schemars(range(min = 1, max = 100))]
    pub warn_percent: u8,
    /// From this share of used space on, in percent, nothing new is put into the pool.
    #[serde(default = "ninety")]
    #[schemars(range(min = 1, max = 100))]
    pub full_percent: u8,
}

fn everything() -> Vec<Content> {
    vec![Content::Images, Content::Volumes]
}

fn eighty() -> u8 {
    80
}

fn ninety() -> u8 {
    90
}

/// How a pool stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PoolState {
    /// Not looked at yet.
    #[default]
    Unknown,
    /// It can be used.
    Online,
    /// It can be used, but something is wrong: see `message`.
    Degraded,
    /// It cannot be used: see `message`.
    Offline,
}

/// What a pool is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PoolStatus {
    /// How it stands.
    #[serde(default)]
    pub state: PoolState,
    /// The node that has it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// Where it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Space below it, used by whomever. Read at most once a minute.
    #[serde(default)]
    pub used: Bytes,
    /// Space that can still be used.
    #[serde(default)]
    pub free: Bytes,
    /// Used and free together.
    #[serde(default)]
    pub total: Bytes,
    /// Why it is not online.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When it was prepared for the first time; from then on a missing folder means that a disk is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared: Option<Timestamp>,
    /// Generation of its spec that was seen.
    #[serde(default)]
    pub observed_generation: u64,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

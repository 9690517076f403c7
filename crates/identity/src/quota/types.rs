//! What a quota wants and is.

use model::{Bytes, Condition};
use runtime::Cx;
use runtime::setting::{
    Known, PROJECT_DISK, PROJECT_MEMORY, PROJECT_NETWORKS, PROJECT_SNAPSHOTS, PROJECT_VCPUS,
    PROJECT_VMS,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How much a project may use. What is absent is not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuotaSpec {
    /// Virtual machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vms: Option<u64>,
    /// Virtual CPUs of all virtual machines, running or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u64>,
    /// Memory of all virtual machines, running or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// Sizes of all volumes, however much of them is filled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Bytes>,
    /// Networks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<u64>,
    /// Snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<u64>,
    /// What else kinds count, by its word.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(length(max = 100))]
    pub more: BTreeMap<String, u64>,
}

const GIB: u64 = 1 << 30;

impl QuotaSpec {
    /// What a project has before somebody says otherwise: what the settings say of new ones, and more for the first one,
    /// which is made before anybody can set anything.
    pub fn of_new(cx: &Cx, project: &str) -> QuotaSpec {
        // 0 stands for no limit.
        let set = |known: &Known| Some(known.number(cx)).filter(|limit| *limit > 0);
        let gib = |known: &Known| set(known).map(|gib| Bytes(gib.saturating_mul(GIB)));
        match project {
            crate::project::DEFAULT => QuotaSpec {
                vms: Some(100),
                vcpus: Some(200),
                memory: Some(Bytes(512 * GIB)),
                disk: Some(Bytes(5000 * GIB)),
                ..QuotaSpec::default()
            },
            _ => QuotaSpec {
                vms: set(&PROJECT_VMS),
                vcpus: set(&PROJECT_VCPUS),
                memory: gib(&PROJECT_MEMORY),
                disk: gib(&PROJECT_DISK),
                networks: set(&PROJECT_NETWORKS),
                snapshots: set(&PROJECT_SNAPSHOTS),
                more: BTreeMap::new(),
            },
        }
    }

    /// The words that have a field of their own.
    pub const WORDS: [&str; 6] = ["vms", "vcpus", "memory", "disk", "networks", "snapshots"];

    /// The limit of something.
    pub fn limit(&self, word: &str) -> Option<u64> {
        match word {
            "vms" => self.vms,
            "vcpus" => self.vcpus,
            "memory" => self.memory.map(|bytes| bytes.0),
            "disk" => self.disk.map(|bytes| bytes.0),
            "networks" => self.networks,
            "snapshots" => self.snapshots,
            word => self.more.get(word).copied(),
        }
    }
}

/// What a project uses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct QuotaStatus {
    /// How much of what is used, by its word; sizes in bytes. It follows changes within seconds; what is decided by it is
    /// exact at once.
    pub used: BTreeMap<String, u64>,
    /// Of what more is used than the limit allows, because the limit was lowered: it stays, and no more is given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub over: Vec<String>,
    /// Generation of its spec that was seen.
    pub observed_generation: u64,
    /// Conditions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

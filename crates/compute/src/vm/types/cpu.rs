//! CPUs and memory of a VM.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Model and topology of the virtual CPUs.
///
/// The topology says how `max` CPUs are arranged: sockets x cores x threads = max. What is absent is filled in at
/// creation as one socket per 8 cores at most, one thread per core.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    /// CPU model. `host` (the default) passes the host's CPU through under KVM, and is a plain one that QEMU translates
    /// fast where the host can only emulate; any model QEMU knows, such as `Skylake-Server-v4`, gives the same CPU on
    /// every host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64), extend("x-allocated" = true))]
    pub model: String,
    /// Sockets, 1 to 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16), extend("x-allocated" = true))]
    pub sockets: Option<u32>,
    /// Cores per socket, 1 to 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256), extend("x-allocated" = true))]
    pub cores: Option<u32>,
    /// Threads per core, 1 or 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2), extend("x-allocated" = true))]
    pub threads: Option<u32>,
    /// Ceiling for raising `vcpus` while the guest runs, 1 to 256. Absent: `vcpus`, so that it cannot be raised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub max: Option<u32>,
}

/// Size of the host's pages that back guest memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Hugepages {
    /// Ordinary pages.
    #[default]
    None,
    /// Pages of 2 MiB.
    #[serde(rename = "2m")]
    TwoMiB,
    /// Pages of 1 GiB.
    #[serde(rename = "1g")]
    OneGiB,
}

impl Hugepages {
    /// Size of one page in bytes, when it is a huge one.
    pub fn bytes(self) -> Option<u64> {
        match self {
            Hugepages::None => None,
            Hugepages::TwoMiB => Some(2 << 20),
            Hugepages::OneGiB => Some(1 << 30),
        }
    }
}

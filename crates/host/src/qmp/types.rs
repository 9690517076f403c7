//! Answers of QEMU, as far as we read them. Unknown fields are ignored: newer versions add some.

use serde::Deserialize;
use serde_json::Value;

/// Answer of `query-status`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Status {
    /// Whether the guest's processors run.
    pub running: bool,
    /// The state's name: `running`, `paused`, `prelaunch`, `shutdown`, `guest-panicked`, `internal-error`, `io-error`,
    /// `inmigrate`, `postmigrate`, `suspended`, `watchdog`, ...
    pub status: String,
}

/// QEMU's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Micro number.
    pub micro: u32,
}

/// One machine type of `query-machines`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Machine {
    /// Its versioned name, such as `pc-q35-10.0`.
    pub name: String,
    /// Its short name, such as `q35`, when it is the newest of its family.
    pub alias: Option<String>,
    /// Most processors it takes.
    pub cpu_max: u32,
    /// Whether it will be removed soon.
    #[serde(default)]
    pub deprecated: bool,
}

/// One type of `qom-list-types`: devices, objects, backends.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct QomType {
    /// Its name, such as `virtio-blk-pci`.
    pub name: String,
    /// The type it derives from.
    pub parent: Option<String>,
}

/// One property of `device-list-properties` or `qom-list-properties`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Property {
    /// Its name.
    pub name: String,
    /// Its type's name.
    #[serde(rename = "type")]
    pub kind: String,
}

/// One processor of `query-cpus-fast`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CpuFast {
    /// Its index.
    pub cpu_index: u32,
    /// The host thread that runs it.
    pub thread_id: u32,
    /// Its place in the object tree.
    pub qom_path: String,
    /// Socket, core and thread.
    #[serde(default)]
    pub props: Value,
}

/// One place of `query-hotpluggable-cpus`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HotpluggableCpu {
    /// The device type to add there.
    #[serde(rename = "type")]
    pub kind: String,
    /// The properties that name the place: socket, core, thread.
    pub props: Value,
    /// Where the processor is, when there is one; the last part is the device id when it was hot-added.
    pub qom_path: Option<String>,
}

/// One memory module of `query-memory-devices`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct MemoryDevice {
    /// `dimm`, `virtio-mem`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// Its id, size and slot.
    pub data: Value,
}

/// One node of `query-named-block-nodes`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BlockNode {
    /// Its name.
    pub node_name: String,
    /// Its driver, such as `qcow2`.
    pub drv: String,
    /// Whether it cannot be written.
    pub ro: bool,
}

/// Answer of `query-migrate`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Migration {
    /// `setup`, `active`, `completed`, `failed`, `cancelled`, ...; absent before the first one.
    pub status: Option<String>,
    /// Bytes of memory copied and in all.
    #[serde(default)]
    pub ram: Value,
    /// Why it failed.
    pub error_desc: Option<String>,
}

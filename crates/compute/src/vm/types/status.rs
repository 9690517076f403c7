//! What is: written by the agent of the node the VM is assigned to, and by nobody else.

use model::{Condition, Timestamp};
use runtime::Bearing;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a VM is. Changes at most every few seconds; faster readings are metrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VmStatus {
    /// Generation of the spec that was last acted on.
    #[serde(default)]
    pub observed_generation: u64,
    /// What can be said about it, and why.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// State.
    #[serde(default)]
    #[schemars(extend("x-index" = true))]
    pub state: State,
    /// Node it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-index" = true))]
    pub node: Option<String>,
    /// When it came into this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// When the running guest was last powered on or reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// Counts the boots of the guest: starts, resets and reboots. A late request for one boot cannot hit the next.
    #[serde(default)]
    pub incarnation: u64,
    /// What the request counter of the spec was when it was last started.
    #[serde(default)]
    pub starts: u64,
    /// Boot of the host in which it was last started.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot: String,
    /// How the guest last ended; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<Exit>,
    /// How often it has crashed without ten quiet minutes between.
    #[serde(default)]
    pub crashes: u32,
    /// Since when it is being powered off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopping_since: Option<Timestamp>,
    /// When the guest was last asked to shut down. It is asked again every 10 s: one that boots does not listen yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shutdown_asked: Option<Timestamp>,
    /// Where the clock stood then: one that is set forward meanwhile leaves the guest its time.
    #[serde(default, skip_serializing_if = "Bearing::is_unknown")]
    pub stopping_bearing: Bearing,
    /// Virtual CPUs that the running guest has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    /// Memory that the running guest has, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-unit" = "bytes"))]
    pub memory: Option<u64>,
    /// `kvm`, or `tcg` where the host can only emulate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acceleration: Option<String>,
    /// Version of the QEMU it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qemu: Option<String>,
    /// Host name as the guest agent tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Operating system as the guest agent tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// Its addresses: what the guest agent tells, else what was allocated.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Disks of the running guest.
    #[serde(default)]
    pub disks: Vec<DiskStatus>,
    /// Network interfaces of the running guest.
    #[serde(default)]
    pub nics: Vec<NicStatus>,
}

/// State of a VM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Not running.
    #[default]
    Stopped,
    /// QEMU is being started.
    Starting,
    /// The guest's CPUs run.
    Running,
    /// The guest's CPUs stand still.
    Paused,
    /// It was asked to end and has not ended yet.
    Stopping,
    /// The guest or its QEMU failed.
    Crashed,
    /// Its node cannot say.
    Unknown,
}

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Exit {
    /// Why.
    pub reason: ExitReason,
    /// When it was noticed.
    pub at: Timestamp,
    /// In which boot of the host.
    pub boot: String,
    /// What is known about it, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Why a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ExitReason {
    /// We powered it off, as asked.
    Asked,
    /// The guest shut itself down.
    GuestShutdown,
    /// The guest shut down to be started again, as asked.
    Reboot,
    /// The guest panicked, or its QEMU died.
    Crash,
    /// The host went down with it.
    HostReboot,
    /// It could not be started.
    StartFailed,
}

/// A disk of a running guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiskStatus {
    /// Name of the disk in the VM.
    pub name: String,
    /// Volume behind it.
    pub volume: String,
}

/// A network interface of a running guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NicStatus {
    /// Name of the interface in the VM.
    pub name: String,
    /// MAC address.
    pub mac: String,
    /// Addresses as the guest agent tells them.
    #[serde(default)]
    pub addresses: Vec<String>,
}

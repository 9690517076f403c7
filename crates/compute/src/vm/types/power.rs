//! Intent about power: richer than a switch, because a guest may stop, crash or shut itself down.

use model::Seconds;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether a VM shall run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Power {
    /// It runs, and comes back after a reboot of the host.
    On,
    /// It does not run.
    #[default]
    Off,
    /// Its memory is kept but its CPUs stand still. One that is off is started and stands still from its first instruction.
    Paused,
}

/// How a VM is powered off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PowerOff {
    /// `graceful` asks the guest to shut down; `hard` cuts the power at once.
    #[serde(default)]
    pub mode: PowerOffMode,
    /// How long a graceful shutdown may take before the power is cut, 1 s to 1 h.
    #[serde(default = "default_timeout")]
    pub timeout: Seconds,
    /// Whether the power is cut when a graceful shutdown takes longer.
    #[serde(default = "yes")]
    pub force: bool,
}

/// The way a VM is powered off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PowerOffMode {
    /// Ask the guest, by its agent or else its power button; cut the power when it does not follow in time.
    #[default]
    Graceful,
    /// Cut the power.
    Hard,
}

/// What happens when a guest shuts itself down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnGuestShutdown {
    /// It stays off until started again, or until the host boots.
    #[default]
    StayOff,
    /// It is started again.
    Restart,
}

/// What happens when a guest or its QEMU crashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnCrash {
    /// It is started again, later each time.
    #[default]
    Restart,
    /// It stays off until started again.
    StayOff,
    /// A crashed guest is kept, standing still; a dead QEMU stays off.
    Pause,
}

/// What happens when the node of a VM is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnHostFailure {
    /// It is started on another node, once the lost one is known to be dead.
    #[default]
    Restart,
    /// It waits for its node.
    Leave,
}

/// Order and delay of starting after a boot of the host. Whether a VM starts is said by `power` alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AutoStart {
    /// VMs with a lower order start first, 0 to 1000. The next order begins when all before it have been started and
    /// their delays are over.
    #[serde(default = "default_order")]
    #[schemars(range(min = 0, max = 1000))]
    pub order: u32,
    /// How long VMs of a later order wait after this one started, at most 1 h.
    #[serde(default)]
    pub delay: Seconds,
}

fn yes() -> bool {
    true
}

fn default_timeout() -> Seconds {
    Seconds(180)
}

fn default_order() -> u32 {
    100
}

impl Default for PowerOff {
    fn default() -> Self {
        PowerOff {
            mode: PowerOffMode::default(),
            timeout: default_timeout(),
            force: true,
        }
    }
}

impl Default for AutoStart {
    fn default() -> Self {
        AutoStart {
            order: default_order(),
            delay: Seconds(0),
        }
    }
}

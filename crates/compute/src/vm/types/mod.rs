//! What a VM is, as data: the single source of truth for every surface. Doc comments here are the manual.
//!
//! Nothing here decides or does anything; rules live in [`super::rules`].

mod cloud_init;
mod cpu;
mod device;
mod power;
mod status;

pub use cloud_init::CloudInit;
pub use cpu::{Cpu, Hugepages};
pub use device::{Bus, Cache, Disk, DiskFormat, Lane, Nic, NicModel, has_pcie};
pub use power::{
    AutoStart, OnCrash, OnGuestShutdown, OnHostFailure, Power, PowerOff, PowerOffMode,
};
pub use status::{DiskStatus, Exit, ExitReason, NicStatus, State, VmStatus};

use model::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a virtual machine shall be.
///
/// Fields that a running guest can take over at once carry `x-hotplug`. A change of another field of a running VM is
/// kept, takes effect at the next cold start, and is listed until then by the condition `NeedsRestart`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-counts" = "vms"))]
pub struct VmSpec {
    /// Free text about what this VM is for, at most 4096 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096), extend("x-hotplug" = true))]
    pub description: String,
    /// Number of virtual CPUs, 1 to 256. While the guest runs it can be raised up to `cpu.max`, and lowered again.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 256), extend("x-hotplug" = true, "x-counts" = "vcpus"))]
    pub vcpus: u32,
    /// Model and topology of the virtual CPUs.
    #[serde(default)]
    pub cpu: Cpu,
    /// Guest memory, 128 MiB to 1 TiB. While the guest runs it can be raised up to `max_memory`.
    #[serde(default = "default_memory")]
    #[schemars(extend("x-hotplug" = true, "x-counts" = "memory"))]
    pub memory: Bytes,
    /// Ceiling for raising `memory` while the guest runs, at most 1 TiB. Absent: memory cannot be raised while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_memory: Option<Bytes>,
    /// Whether the guest has a balloon, through which memory it does not use is reported and given back.
    #[serde(default = "yes")]
    pub ballooning: bool,
    /// Back guest memory with huge pages of the host: `none`, `2m` or `1g`. The host must have reserved them.
    #[serde(default)]
    pub hugepages: Hugepages,
    /// Machine type: `q35` (PCI Express, the default) or `i440fx` (old guests). Pinned to a version such as
    /// `pc-q35-10.0` when the VM is created, so that a newer QEMU never changes the guest's hardware.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 40), extend("x-allocated" = true))]
    pub machine: String,
    /// What starts the guest's loader: `bios`, `uefi`, or `uefi-secure` (UEFI with Secure Boot and Microsoft's keys).
    #[serde(default)]
    pub firmware: Firmware,
    /// Whether the guest has a TPM 2.0, whose state is kept beside its disks.
    #[serde(default)]
    pub tpm: bool,
    /// Shorthand for `disks[0].image` when creating: moved there, and empty afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 127), extend("x-ref" = "image"))]
    pub image: Option<String>,
    /// Disks, at most 24. The first one is the boot disk unless `boot_order` says otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 24), extend("x-hotplug" = true, "x-cli" = {"flag": "disk", "key": "size"}))]
    pub disks: Vec<Disk>,
    /// Network interfaces, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-hotplug" = true, "x-cli" = {"flag": "network", "key": "network"}))]
    pub nics: Vec<Nic>,
    /// What cloud-init in the guest does at its first boot. Absent: the guest gets no seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_init: Option<CloudInit>,
    /// Whether the guest has the channel of the QEMU guest agent, by which commands, files and addresses are read.
    #[serde(default = "yes")]
    pub guest_agent: bool,
    /// Graphics: `vnc` (an adapter whose screen is reached by the stream `vnc`) or `none`.
    #[serde(default)]
    pub display: Display,
    /// Whether the guest has a serial port, reached by the stream `console`.
    #[serde(default = "yes")]
    pub serial: bool,
    /// Whether the guest gets randomness from the host.
    #[serde(default = "yes")]
    pub rng: bool,
    /// Which operating system runs in the guest; picks devices it has drivers for and its clock (Windows: local time).
    #[serde(default)]
    pub os: Os,
    /// Whether the VM shall run: `on`, `off` or `paused`. `on` comes back after a reboot of the host.
    #[serde(default)]
    #[schemars(extend("x-hotplug" = true, "x-index" = true))]
    pub power: Power,
    /// How it is powered off.
    #[serde(default)]
    #[schemars(extend("x-hotplug" = true))]
    pub power_off: PowerOff,
    /// What happens when the guest shuts itself down: `stay-off` or `restart`.
    #[serde(default)]
    #[schemars(extend("x-hotplug" = true))]
    pub on_guest_shutdown: OnGuestShutdown,
    /// What happens when the guest or its QEMU crashes: `restart` (after 5 s, doubled each time up to 5 min),
    /// `stay-off` or `pause` (a crashed guest is kept as it is, for a look at it; a dead QEMU stays off).
    #[serde(default)]
    #[schemars(extend("x-hotplug" = true))]
    pub on_crash: OnCrash,
    /// What happens when the node is lost: `restart` it on another one, or `leave` it until the node is back.
    #[serde(default)]
    #[schemars(extend("x-hotplug" = true))]
    pub on_host_failure: OnHostFailure,
    /// Order and delay of starting after a boot of the host.
    #[serde(default)]
    #[schemars(extend("x-hotplug" = true))]
    pub auto_start: AutoStart,
    /// A number from 100 to 999,999,999, unique in the cluster, for programs that want numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        range(min = 100, max = 999_999_999),
        extend("x-allocated" = true, "x-immutable" = true, "x-hotplug" = true)
    )]
    pub number: Option<u32>,
    /// Counts the requests to start. A VM whose guest shut itself down starts again when this grows; `start` raises it.
    #[serde(default)]
    #[schemars(extend("x-allocated" = true, "x-hotplug" = true))]
    pub starts: u64,
}

/// What starts the guest's loader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// SeaBIOS.
    #[default]
    Bios,
    /// UEFI (OVMF), with variables kept per VM.
    Uefi,
    /// UEFI with Secure Boot on and Microsoft's keys enrolled; needs `q35`.
    UefiSecure,
}

/// Graphics of a VM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Display {
    /// A display adapter whose screen is reached by the stream `vnc`.
    #[default]
    Vnc,
    /// No graphics.
    None,
}

/// Which operating system runs in the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Os {
    /// A Linux.
    #[default]
    Linux,
    /// A Windows: its clock runs in local time and it sees Hyper-V's interfaces.
    Windows,
    /// A BSD.
    Bsd,
    /// Anything else.
    Other,
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

fn default_memory() -> Bytes {
    Bytes::gib(1)
}

impl Default for VmSpec {
    /// The spec of an empty document: every field at its default.
    fn default() -> Self {
        VmSpec {
            description: String::new(),
            vcpus: one(),
            cpu: Cpu::default(),
            memory: default_memory(),
            max_memory: None,
            ballooning: true,
            hugepages: Hugepages::default(),
            machine: String::new(),
            firmware: Firmware::default(),
            tpm: false,
            image: None,
            disks: Vec::new(),
            nics: Vec::new(),
            cloud_init: None,
            guest_agent: true,
            display: Display::default(),
            serial: true,
            rng: true,
            os: Os::default(),
            power: Power::default(),
            power_off: PowerOff::default(),
            on_guest_shutdown: OnGuestShutdown::default(),
            on_crash: OnCrash::default(),
            on_host_failure: OnHostFailure::default(),
            auto_start: AutoStart::default(),
            number: None,
            starts: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_document_is_the_default_spec() {
        assert_eq!(
            serde_json::from_str::<VmSpec>("{}").unwrap(),
            VmSpec::default()
        );
    }
}

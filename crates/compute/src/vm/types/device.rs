//! Disks and network interfaces.

use model::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One disk: either made for this VM (`size`, `image`), or a volume that exists (`volume`).
///
/// A disk made for the VM is a volume named `VM-DISK` that belongs to it and is deleted with it unless disks are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Name of the disk in this VM: 1 to 16 of `a-z`, `0-9`, `-`. Filled in as `disk0`, `disk1`, ...
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 16), extend("x-allocated" = true))]
    pub name: String,
    /// Size of a disk made for this VM, at most 10,000 GiB; grows only. Absent with an image: the image's size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-counts" = "disk"))]
    pub size: Option<Bytes>,
    /// Image that a disk made for this VM begins as. Absent: it begins empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 127), extend("x-ref" = "image"))]
    pub image: Option<String>,
    /// Pool of a disk made for this VM. Absent: the pool `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63), extend("x-ref" = "pool"))]
    pub pool: Option<String>,
    /// Format of a disk made for this VM: `qcow2` (thin, snapshots) or `raw`. Absent: what suits the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<DiskFormat>,
    /// An existing volume, used instead of making one. It stays when the VM is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 127), extend("x-ref" = "volume"))]
    pub volume: Option<String>,
    /// How the guest sees it: `virtio` (fastest), `scsi` (virtio-scsi, many disks), `sata` or `nvme` (guests without
    /// virtio drivers).
    #[serde(default)]
    pub bus: Bus,
    /// Host cache: `none` (the default; the guest's page cache is the only one) or `writeback` (also in the host's). The
    /// guest's flushes are honoured by both.
    #[serde(default)]
    pub cache: Cache,
    /// Whether a thread of its own serves it (virtio only), so that its I/O does not wait for other devices.
    #[serde(default = "yes")]
    pub io_thread: bool,
    /// Whether space that the guest frees is given back to the pool.
    #[serde(default = "yes")]
    pub discard: bool,
    /// Whether the guest can only read it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Place in the boot order, 1 to 99; the lowest boots first. Absent everywhere: the first disk boots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 99))]
    pub boot_order: Option<u32>,
    /// Its place on the bus, pinned when the disk is added, so that its name in the guest never changes: 1 to 30 for
    /// `virtio` and `nvme` (shared with network interfaces), 1 to 6 for `sata`, 1 to 250 for `scsi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 250), extend("x-allocated" = true))]
    pub slot: Option<u32>,
}

/// How the guest sees a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Bus {
    /// virtio-blk.
    #[default]
    Virtio,
    /// virtio-scsi.
    Scsi,
    /// AHCI.
    Sata,
    /// NVMe.
    Nvme,
}

/// How the host caches a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Cache {
    /// Past the host's page cache (`O_DIRECT`), flushes honoured.
    #[default]
    None,
    /// In the host's page cache, flushes honoured.
    Writeback,
}

/// Format of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DiskFormat {
    /// QEMU copy-on-write.
    Qcow2,
    /// Plain bytes.
    Raw,
}

/// One network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nic {
    /// Name of the interface in this VM: 1 to 16 of `a-z`, `0-9`, `-`. Filled in as `nic0`, `nic1`, ...
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 16), extend("x-allocated" = true))]
    pub name: String,
    /// Network it is plugged into. Absent: the network `default`.
    #[serde(default = "default_network")]
    #[schemars(length(max = 127), extend("x-ref" = "network"))]
    pub network: String,
    /// Its MAC address, unique in the network; chosen when absent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 17), extend("x-allocated" = true))]
    pub mac: String,
    /// How the guest sees it: `virtio` (fastest) or `e1000e` (guests without virtio drivers).
    #[serde(default)]
    pub model: NicModel,
    /// Its IPv4 address in the network; chosen when absent and the network has IPv4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 15), extend("x-allocated" = true))]
    pub ipv4: Option<String>,
    /// Its IPv6 address in the network; chosen when absent and the network has IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 39), extend("x-allocated" = true))]
    pub ipv6: Option<String>,
    /// Whether the cable is plugged in.
    #[serde(default = "yes")]
    pub link: bool,
    /// Place in the boot order for booting from the network, 1 to 99. Absent: it does not boot from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 99))]
    pub boot_order: Option<u32>,
    /// PCI slot, 1 to 30, pinned when the interface is added, so that its name in the guest never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 30), extend("x-allocated" = true))]
    pub slot: Option<u32>,
}

/// How the guest sees a network interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NicModel {
    /// virtio-net.
    #[default]
    Virtio,
    /// Intel 82574L.
    E1000e,
}

fn yes() -> bool {
    true
}

fn default_network() -> String {
    "default".into()
}

/// Where devices have their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// PCI Express ports.
    Pcie,
    /// Targets of the SCSI controller.
    Scsi,
    /// Ports of the SATA controller.
    Sata,
}

/// Whether a machine type has PCI Express; i440fx has fewer places for devices.
pub fn has_pcie(machine: &str) -> bool {
    !machine.starts_with("pc-i440fx")
}

impl Lane {
    /// The last place in this machine; the first is 1.
    pub fn last_in(self, machine: &str) -> u32 {
        match self {
            Lane::Pcie if !has_pcie(machine) => 21,
            lane => lane.last(),
        }
    }

    /// The last place; the first is 1.
    pub fn last(self) -> u32 {
        match self {
            Lane::Pcie => 30,
            Lane::Scsi => 250,
            Lane::Sata => 6,
        }
    }
}

impl Disk {
    /// Where it has its place.
    pub fn lane(&self) -> Lane {
        match self.bus {
            Bus::Virtio | Bus::Nvme => Lane::Pcie,
            Bus::Scsi => Lane::Scsi,
            Bus::Sata => Lane::Sata,
        }
    }

    /// The volume behind it: the one it names, or the one made for it in this VM.
    pub fn volume_name(&self, vm: &str) -> String {
        match &self.volume {
            Some(volume) => volume.clone(),
            None => format!("{vm}-{}", self.name),
        }
    }

    /// Whether its volume is made for this VM and belongs to it.
    pub fn inline(&self) -> bool {
        self.volume.is_none()
    }
}

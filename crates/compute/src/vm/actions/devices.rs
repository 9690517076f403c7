//! `attach-disk`, `detach-disk`, `attach-nic`, `detach-nic`: devices, also while the guest runs.

use super::super::types::{Bus, Disk, Nic, NicModel, State};
use super::{edit, params, parts};
use model::{Action, Bytes, Danger, Error, Result, WorkStyle, schema};
use runtime::{Draft, Until};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub(super) const ATTACH_DISK: Action = Action {
    verb: "attach-disk",
    doc: "Adds a disk: a new one (`size`, `image`) or a volume that exists (`volume`). A running guest sees it at once, but \
          for bus `sata`.",
    danger: Danger::None,
    style: WorkStyle::Intent,
    input: schema::of::<AttachDisk>,
    claims: &["disks"],
    deadline: 600,
    event: "disk-attached",
    examples: &[
        "dvctl vm attach-disk web1 --size 10GiB",
        "dvctl vm attach-disk web1 --volume data1",
    ],
};

pub(super) const DETACH_DISK: Action = Action {
    verb: "detach-disk",
    doc: "Removes a disk. A running guest is asked to let go of it. Its volume stays; one that was made with the VM still \
          belongs to it, can be attached again by its name, and goes with the VM.",
    danger: Danger::Disrupts,
    style: WorkStyle::Intent,
    input: schema::of::<Which>,
    claims: &["disks"],
    deadline: 300,
    event: "disk-detached",
    examples: &["dvctl vm detach-disk web1 --device disk1"],
};

pub(super) const ATTACH_NIC: Action = Action {
    verb: "attach-nic",
    doc: "Adds a network interface. A running guest sees it at once.",
    danger: Danger::None,
    style: WorkStyle::Intent,
    input: schema::of::<AttachNic>,
    claims: &[],
    deadline: 300,
    event: "nic-attached",
    examples: &["dvctl vm attach-nic web1 --network backend"],
};

pub(super) const DETACH_NIC: Action = Action {
    verb: "detach-nic",
    doc: "Removes a network interface and gives its addresses back.",
    danger: Danger::Disrupts,
    style: WorkStyle::Intent,
    input: schema::of::<Which>,
    claims: &[],
    deadline: 300,
    event: "nic-detached",
    examples: &["dvctl vm detach-nic web1 --device nic1"],
};

/// A disk to add.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AttachDisk {
    /// Name of the disk in the VM. Absent: `disk1`, `disk2`, ...
    #[serde(default)]
    #[schemars(length(max = 16))]
    device: Option<String>,
    /// Size of a new disk.
    #[serde(default)]
    size: Option<Bytes>,
    /// Image that a new disk begins as.
    #[serde(default)]
    #[schemars(length(max = 127), extend("x-ref" = "image"))]
    image: Option<String>,
    /// Pool of a new disk.
    #[serde(default)]
    #[schemars(length(max = 63), extend("x-ref" = "pool"))]
    pool: Option<String>,
    /// An existing volume.
    #[serde(default)]
    #[schemars(length(max = 127), extend("x-ref" = "volume"))]
    volume: Option<String>,
    /// How the guest sees it: `virtio`, `scsi`, `sata` or `nvme`.
    #[serde(default)]
    bus: Bus,
    /// Whether the guest can only read it.
    #[serde(default)]
    read_only: bool,
}

/// A network interface to add.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AttachNic {
    /// Name of the interface in the VM. Absent: `nic1`, `nic2`, ...
    #[serde(default)]
    #[schemars(length(max = 16))]
    device: Option<String>,
    /// Network it is plugged into.
    #[schemars(length(max = 127), extend("x-ref" = "network"))]
    network: String,
    /// Its MAC address; chosen when absent.
    #[serde(default)]
    #[schemars(length(max = 17))]
    mac: Option<String>,
    /// Its IPv4 address; chosen when absent.
    #[serde(default)]
    #[schemars(length(max = 15))]
    ipv4: Option<String>,
    /// Its IPv6 address; chosen when absent.
    #[serde(default)]
    #[schemars(length(max = 39))]
    ipv6: Option<String>,
    /// How the guest sees it: `virtio` or `e1000e`.
    #[serde(default)]
    model: NicModel,
}

/// Which device.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// Name of the device in the VM, such as `disk1` or `nic1`.
    #[schemars(length(min = 1, max = 16))]
    device: String,
}

pub(super) fn attach_disk(draft: &mut Draft<'_>, given: &Value) -> Result<()> {
    let given: AttachDisk = params(given)?;
    edit(draft, |spec| {
        // Defaults of the fields that are not given come from the type.
        let mut disk: Disk = params(&json!({}))?;
        disk.name = given.device.unwrap_or_default();
        disk.size = given.size;
        disk.image = given.image;
        disk.pool = given.pool;
        disk.volume = given.volume;
        disk.bus = given.bus;
        disk.read_only = given.read_only;
        spec.disks.push(disk);
        Ok(())
    })
}

pub(super) fn detach_disk(draft: &mut Draft<'_>, given: &Value) -> Result<()> {
    let given: Which = params(given)?;
    edit(draft, |spec| {
        let names: Vec<String> = spec.disks.iter().map(|d| d.name.clone()).collect();
        spec.disks.retain(|d| d.name != given.device);
        found("disk", &given.device, &names)
    })
}

pub(super) fn attach_nic(draft: &mut Draft<'_>, given: &Value) -> Result<()> {
    let given: AttachNic = params(given)?;
    edit(draft, |spec| {
        let mut nic: Nic = params(&json!({}))?;
        nic.name = given.device.unwrap_or_default();
        nic.network = given.network;
        nic.mac = given.mac.unwrap_or_default();
        nic.ipv4 = given.ipv4;
        nic.ipv6 = given.ipv6;
        nic.model = given.model;
        spec.nics.push(nic);
        Ok(())
    })
}

pub(super) fn detach_nic(draft: &mut Draft<'_>, given: &Value) -> Result<()> {
    let given: Which = params(given)?;
    edit(draft, |spec| {
        let names: Vec<String> = spec.nics.iter().map(|n| n.name.clone()).collect();
        spec.nics.retain(|n| n.name != given.device);
        found("network interface", &given.device, &names)
    })
}

fn found(what: &str, name: &str, names: &[String]) -> Result<()> {
    if names.iter().any(|n| n == name) {
        return Ok(());
    }
    let hint = match names.is_empty() {
        true => "there is none".into(),
        false => format!("there are: {}", names.join(", ")),
    };
    Err(Error::field("params.device", format!("there is no {what} `{name}`")).hint(hint))
}

pub(super) fn follows(object: &Value) -> Until {
    let Some((spec, status)) = parts(object) else {
        return Until::Waiting("the node to look at it".into());
    };
    if matches!(status.state, State::Stopped | State::Crashed) {
        return Until::Done;
    }
    let same = |a: Vec<&String>, b: Vec<&String>| {
        a.len() == b.len() && a.iter().all(|name| b.contains(name))
    };
    let disks = same(
        spec.disks.iter().map(|d| &d.name).collect(),
        status.disks.iter().map(|d| &d.name).collect(),
    );
    let nics = same(
        spec.nics.iter().map(|n| &n.name).collect(),
        status.nics.iter().map(|n| &n.name).collect(),
    );
    let waits = status.conditions.iter().any(|c| c.kind == "NeedsRestart");
    if (disks && nics) || waits {
        Until::Done
    } else {
        Until::Waiting("the guest to take it over".into())
    }
}

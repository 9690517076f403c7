//! What differs between the guest that runs and the one that is wanted, and which of it the guest can take over at once.

use super::super::types::{Bus, Disk, Nic, VmSpec};
use model::Bytes;
use serde_json::Value;

/// A change that a running guest can take over.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Have this many CPUs.
    Vcpus(u32),
    /// Have this much memory.
    Memory(Bytes),
    /// Add this disk.
    Attach(Disk),
    /// Remove the disk with this name.
    Detach(String),
    /// Tell the guest the disk's new size.
    Grow(String, Bytes),
    /// Add this network interface.
    Plug(Nic),
    /// Remove the network interface with this name.
    Unplug(String),
    /// Plug its cable in, or out.
    Link(String, bool),
}

/// What differs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Difference {
    /// What the guest can take over, in order.
    pub hot: Vec<Change>,
    /// Fields that wait for the next cold start.
    pub cold: Vec<String>,
}

/// Fields that take effect without the guest.
const SOFT: &[&str] = &[
    "description",
    "power",
    "power_off",
    "on_guest_shutdown",
    "on_crash",
    "on_host_failure",
    "auto_start",
    "number",
    "starts",
    "image",
];

/// Compares what runs with what is wanted.
pub fn difference(runs: &VmSpec, wanted: &VmSpec) -> Difference {
    let mut out = Difference::default();
    plain(runs, wanted, &mut out);
    vcpus(runs, wanted, &mut out);
    memory(runs, wanted, &mut out);
    disks(runs, wanted, &mut out);
    nics(runs, wanted, &mut out);
    out
}

fn plain(runs: &VmSpec, wanted: &VmSpec, out: &mut Difference) {
    let fields = |spec: &VmSpec| match serde_json::to_value(spec) {
        Ok(Value::Object(map)) => map,
        _ => serde_json::Map::new(),
    };
    let (was, is) = (fields(runs), fields(wanted));
    let apart = ["vcpus", "memory", "disks", "nics"];
    for name in was
        .keys()
        .chain(is.keys().filter(|k| !was.contains_key(*k)))
    {
        if !SOFT.contains(&name.as_str())
            && !apart.contains(&name.as_str())
            && was.get(name) != is.get(name)
        {
            out.cold.push(name.clone());
        }
    }
}

fn vcpus(runs: &VmSpec, wanted: &VmSpec, out: &mut Difference) {
    if runs.vcpus == wanted.vcpus {
        return;
    }
    // The ceiling is what the guest was started with.
    if wanted.vcpus <= runs.cpu.max.unwrap_or(runs.vcpus) && runs.cpu.max.is_some() {
        out.hot.push(Change::Vcpus(wanted.vcpus));
    } else {
        out.cold.push("vcpus".into());
    }
}

fn memory(runs: &VmSpec, wanted: &VmSpec, out: &mut Difference) {
    if runs.memory == wanted.memory {
        return;
    }
    match runs.max_memory {
        Some(max) if wanted.memory <= max && wanted.memory > runs.memory => {
            out.hot.push(Change::Memory(wanted.memory));
        }
        _ => out.cold.push("memory".into()),
    }
}

fn disks(runs: &VmSpec, wanted: &VmSpec, out: &mut Difference) {
    for was in &runs.disks {
        match wanted.disks.iter().find(|d| d.name == was.name) {
            None if was.bus == Bus::Sata => out.cold.push(format!("disks.{}", was.name)),
            None => out.hot.push(Change::Detach(was.name.clone())),
            Some(is) => {
                let mut same_but_size = is.clone();
                same_but_size.size = was.size;
                if same_but_size != *was {
                    out.cold.push(format!("disks.{}", was.name));
                } else if let Some(size) = is.size
                    && is.size > was.size
                {
                    out.hot.push(Change::Grow(was.name.clone(), size));
                }
            }
        }
    }
    for is in &wanted.disks {
        if runs.disks.iter().any(|d| d.name == is.name) {
            continue;
        }
        match is.bus {
            Bus::Sata => out.cold.push(format!("disks.{}", is.name)),
            _ => out.hot.push(Change::Attach(is.clone())),
        }
    }
}

fn nics(runs: &VmSpec, wanted: &VmSpec, out: &mut Difference) {
    for was in &runs.nics {
        match wanted.nics.iter().find(|n| n.name == was.name) {
            None => out.hot.push(Change::Unplug(was.name.clone())),
            Some(is) => {
                let mut same_but_link = is.clone();
                same_but_link.link = was.link;
                if same_but_link != *was {
                    out.cold.push(format!("nics.{}", was.name));
                } else if is.link != was.link {
                    out.hot.push(Change::Link(was.name.clone(), is.link));
                }
            }
        }
    }
    for is in &wanted.nics {
        if !runs.nics.iter().any(|n| n.name == is.name) {
            out.hot.push(Change::Plug(is.clone()));
        }
    }
}

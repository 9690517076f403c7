//! Pins what must never change by itself: machine version, CPU model and topology, names and PCI slots of devices.

use super::super::types::{Cpu, Disk, Lane, Nic, VmSpec};

/// Machine types that can be pinned; the first of each family is what a new VM gets. QEMU 8.2 is the oldest we run on.
pub const MACHINES: &[&str] = &[
    "pc-q35-10.0",
    "pc-q35-9.2",
    "pc-q35-9.1",
    "pc-q35-9.0",
    "pc-q35-8.2",
    "pc-i440fx-10.0",
    "pc-i440fx-9.2",
    "pc-i440fx-9.1",
    "pc-i440fx-9.0",
    "pc-i440fx-8.2",
];

/// Fills in what the user left out. What was pinned before stays, matched by name for devices.
pub fn pin(spec: &mut VmSpec, old: Option<&VmSpec>) {
    machine(spec, old);
    topology(spec, old);
    boot_image(spec);
    names(spec);
    keep(spec, old);
    slots(spec);
}

fn machine(spec: &mut VmSpec, old: Option<&VmSpec>) {
    let family = match spec.machine.as_str() {
        "" => match old {
            Some(old) => {
                spec.machine = old.machine.clone();
                return;
            }
            None => "pc-q35-",
        },
        "q35" => "pc-q35-",
        "i440fx" | "pc" => "pc-i440fx-",
        _ => return,
    };
    let kept = old
        .map(|o| o.machine.as_str())
        .filter(|m| m.starts_with(family));
    let newest = MACHINES.iter().copied().find(|m| m.starts_with(family));
    spec.machine = kept.or(newest).unwrap_or(MACHINES[0]).to_owned();
}

fn topology(spec: &mut VmSpec, old: Option<&VmSpec>) {
    if spec.cpu.model.is_empty() {
        spec.cpu.model = old.map_or("host", |o| o.cpu.model.as_str()).to_owned();
    }
    let max = spec.cpu.max.unwrap_or(spec.vcpus);
    let parts = |c: &Cpu| (c.sockets, c.cores, c.threads);
    let product = |c: &Cpu| {
        u64::from(c.sockets.unwrap_or(1))
            * u64::from(c.cores.unwrap_or(1))
            * u64::from(c.threads.unwrap_or(1))
    };
    // Values that we filled in earlier do not bind a user who now changes the number of CPUs.
    if let Some(old) = old
        && parts(&old.cpu) == parts(&spec.cpu)
        && product(&spec.cpu) != u64::from(max)
    {
        (spec.cpu.sockets, spec.cpu.cores, spec.cpu.threads) = (None, None, None);
    }
    let threads = *spec.cpu.threads.get_or_insert(1);
    let rest = |by: u32| (by > 0 && max.is_multiple_of(by)).then_some(max / by.max(1));
    match (spec.cpu.sockets, spec.cpu.cores) {
        (None, None) => {
            spec.cpu.sockets = Some(1);
            spec.cpu.cores = Some(rest(threads).unwrap_or(max));
        }
        (Some(sockets), None) => {
            spec.cpu.cores = Some(rest(sockets.saturating_mul(threads)).unwrap_or(max));
        }
        (None, Some(cores)) => {
            spec.cpu.sockets = Some(rest(cores.saturating_mul(threads)).unwrap_or(max));
        }
        (Some(_), Some(_)) => {}
    }
}

/// `image` at the top is a shorthand for the image of the first disk that is made for the VM.
fn boot_image(spec: &mut VmSpec) {
    let Some(image) = spec.image.take() else {
        return;
    };
    match spec.disks.first_mut() {
        Some(disk) if disk.inline() && disk.image.is_none() => disk.image = Some(image),
        Some(disk) if disk.image.as_deref() == Some(&image) => {}
        _ => spec.disks.insert(
            0,
            Disk {
                image: Some(image),
                io_thread: true,
                discard: true,
                ..Disk::default()
            },
        ),
    }
}

fn names(spec: &mut VmSpec) {
    fn fill(prefix: &str, names: Vec<&mut String>) {
        let mut taken: Vec<String> = names.iter().map(|n| n.to_string()).collect();
        let mut next = 0;
        for name in names.into_iter().filter(|n| n.is_empty()) {
            while taken.contains(&format!("{prefix}{next}")) {
                next += 1;
            }
            *name = format!("{prefix}{next}");
            taken.push(name.clone());
        }
    }
    fill("disk", spec.disks.iter_mut().map(|d| &mut d.name).collect());
    fill("nic", spec.nics.iter_mut().map(|n| &mut n.name).collect());
}

/// Devices keep what was allocated to them under the same name.
fn keep(spec: &mut VmSpec, old: Option<&VmSpec>) {
    let Some(old) = old else { return };
    if spec.number.is_none() {
        spec.number = old.number;
    }
    for disk in &mut spec.disks {
        if let Some(was) = old.disks.iter().find(|d| d.name == disk.name) {
            disk.slot = disk.slot.or(was.slot);
        }
    }
    for nic in &mut spec.nics {
        if let Some(was) = old.nics.iter().find(|n| n.name == nic.name) {
            keep_nic(nic, was);
        }
    }
}

fn keep_nic(nic: &mut Nic, was: &Nic) {
    nic.slot = nic.slot.or(was.slot);
    if nic.mac.is_empty() {
        nic.mac.clone_from(&was.mac);
    }
    if nic.network == was.network {
        nic.ipv4 = nic.ipv4.take().or_else(|| was.ipv4.clone());
        nic.ipv6 = nic.ipv6.take().or_else(|| was.ipv6.clone());
    }
}

fn slots(spec: &mut VmSpec) {
    let mut taken: Vec<(Lane, u32)> = spec
        .disks
        .iter()
        .filter_map(|d| Some((d.lane(), d.slot?)))
        .chain(spec.nics.iter().filter_map(|n| Some((Lane::Pcie, n.slot?))))
        .collect();
    let wanting = spec
        .disks
        .iter_mut()
        .map(|d| (d.lane(), &mut d.slot))
        .chain(spec.nics.iter_mut().map(|n| (Lane::Pcie, &mut n.slot)));
    for (lane, slot) in wanting.filter(|(_, s)| s.is_none()) {
        let free = (1..).find(|n| !taken.contains(&(lane, *n)));
        taken.extend(free.map(|n| (lane, n)));
        *slot = free;
    }
}

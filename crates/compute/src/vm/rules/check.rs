//! Which specs are accepted: all violations at once, each with its field and what to write instead.

use super::super::seed;
use super::super::types::{Bus, Disk, Firmware, Hugepages, Lane, Nic, VmSpec, has_pcie};
use super::pin::MACHINES;
use model::{Bytes, Seconds, Violation, nearest};
use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Least and most memory of a guest.
const MEMORY: (Bytes, Bytes) = (Bytes::mib(128), Bytes::gib(1024));
/// Largest disk.
const DISK: Bytes = Bytes::gib(10_000);

/// Everything that is wrong with a spec in which names, slots and machine are already pinned.
pub fn check(spec: &VmSpec) -> Vec<Violation> {
    let mut out = Vec::new();
    cpu(spec, &mut out);
    memory(spec, &mut out);
    machine(spec, &mut out);
    disks(&spec.disks, &mut out);
    nics(&spec.nics, &mut out);
    slots(spec, &mut out);
    power(spec, &mut out);
    if spec.description.chars().count() > 4096 {
        out.push(Violation::new(
            "spec.description",
            "is longer than 4096 characters",
        ));
    }
    if spec
        .number
        .is_some_and(|n| !(100..=999_999_999).contains(&n))
    {
        out.push(Violation::new(
            "spec.number",
            format!(
                "{} is not from 100 to 999999999",
                spec.number.unwrap_or_default()
            ),
        ));
    }
    if let Some(cloud_init) = &spec.cloud_init {
        seed::check(cloud_init, &mut out);
    }
    out
}

fn cpu(spec: &VmSpec, out: &mut Vec<Violation>) {
    if !(1..=256).contains(&spec.vcpus) {
        out.push(Violation::new(
            "spec.vcpus",
            format!("{} is not from 1 to 256", spec.vcpus),
        ));
        return;
    }
    let max = spec.cpu.max.unwrap_or(spec.vcpus);
    if max > 256 || max < spec.vcpus {
        out.push(
            Violation::new(
                "spec.cpu.max",
                format!("{max} is not from vcpus ({}) to 256", spec.vcpus),
            )
            .hint("it is the ceiling that vcpus can be raised to while the guest runs"),
        );
        return;
    }
    if let (Some(s), Some(c), Some(t)) = (spec.cpu.sockets, spec.cpu.cores, spec.cpu.threads)
        && u64::from(s) * u64::from(c) * u64::from(t) != u64::from(max)
    {
        out.push(
            Violation::new(
                "spec.cpu",
                format!("{s} sockets x {c} cores x {t} threads are not the {max} CPUs of the VM"),
            )
            .hint("leave one of them out to have it computed"),
        );
    }
    let good = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if !spec.cpu.model.chars().all(good) {
        out.push(
            Violation::new(
                "spec.cpu.model",
                format!("`{}` is not a CPU model", spec.cpu.model),
            )
            .hint("`host`, or one of QEMU's, such as `Nehalem-v1`"),
        );
    }
    if max > 8 && spec.machine.starts_with("pc-i440fx") && max > 255 {
        out.push(Violation::new(
            "spec.vcpus",
            "machine i440fx has at most 255 CPUs",
        ));
    }
}

fn memory(spec: &VmSpec, out: &mut Vec<Violation>) {
    if spec.memory < MEMORY.0 || spec.memory > MEMORY.1 {
        out.push(
            Violation::new(
                "spec.memory",
                format!("{} is not from {} to {}", spec.memory, MEMORY.0, MEMORY.1),
            )
            .hint("a bare number is bytes; write for example `1GiB`"),
        );
        return;
    }
    let page = spec.hugepages.bytes().unwrap_or(2 << 20);
    if !spec.memory.0.is_multiple_of(page) {
        out.push(Violation::new(
            "spec.memory",
            format!("{} is not a multiple of {}", spec.memory, Bytes(page)),
        ));
    }
    if let Some(max) = spec.max_memory {
        if max < spec.memory || max > MEMORY.1 {
            out.push(Violation::new(
                "spec.max_memory",
                format!("{max} is not from memory ({}) to {}", spec.memory, MEMORY.1),
            ));
        } else if !max.0.is_multiple_of(page.max(128 << 20)) {
            out.push(Violation::new(
                "spec.max_memory",
                format!("{max} is not a multiple of {}", Bytes(page.max(128 << 20))),
            ));
        }
    }
    if spec.hugepages != Hugepages::None && spec.ballooning {
        out.push(
            Violation::new(
                "spec.ballooning",
                "cannot give back memory that is backed by huge pages",
            )
            .hint("set ballooning to false"),
        );
    }
}

fn machine(spec: &VmSpec, out: &mut Vec<Violation>) {
    if !MACHINES.contains(&spec.machine.as_str()) {
        let near = nearest(&spec.machine, MACHINES.iter().copied())
            .map_or("`q35` or `i440fx`".to_owned(), |m| {
                format!("did you mean `{m}`?")
            });
        out.push(
            Violation::new(
                "spec.machine",
                format!("`{}` is not a machine type", spec.machine),
            )
            .hint(near),
        );
    }
    for (i, disk) in spec.disks.iter().enumerate() {
        if disk.bus == Bus::Sata && !has_pcie(&spec.machine) {
            out.push(
                Violation::new(
                    format!("spec.disks[{i}].bus"),
                    format!("machine `{}` has no SATA controller", spec.machine),
                )
                .hint("use bus `virtio`, `scsi` or `nvme`, or machine `q35`"),
            );
        }
    }
    if spec.firmware == Firmware::UefiSecure && !spec.machine.starts_with("pc-q35") {
        out.push(
            Violation::new(
                "spec.firmware",
                format!("Secure Boot needs machine q35, not `{}`", spec.machine),
            )
            .hint("set machine to `q35`, or firmware to `uefi`"),
        );
    }
}

fn device_name(field: String, name: &str, out: &mut Vec<Violation>) {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty()
        || name.len() > 16
        || !name.chars().all(good)
        || name.starts_with('-')
        || name.ends_with('-')
    {
        out.push(
            Violation::new(field, format!("`{name}` is not a device name"))
                .hint("1 to 16 of a-z, 0-9 and -, such as `data`"),
        );
    }
}

fn disks(disks: &[Disk], out: &mut Vec<Violation>) {
    if disks.len() > 24 {
        out.push(Violation::new(
            "spec.disks",
            format!("{} disks are more than 24", disks.len()),
        ));
    }
    let mut names = HashMap::new();
    let mut volumes = HashMap::new();
    for (i, disk) in disks.iter().enumerate() {
        let at = |field: &str| format!("spec.disks[{i}].{field}");
        device_name(at("name"), &disk.name, out);
        if let Some(first) = names.insert(&disk.name, i) {
            out.push(Violation::new(
                at("name"),
                format!("`{}` is also the name of disks[{first}]", disk.name),
            ));
        }
        match &disk.volume {
            Some(volume) => {
                for (field, set) in [
                    ("size", disk.size.is_some()),
                    ("image", disk.image.is_some()),
                    ("pool", disk.pool.is_some()),
                    ("format", disk.format.is_some()),
                ] {
                    if set {
                        out.push(
                            Violation::new(
                                at(field),
                                format!(
                                    "cannot be set beside `volume`: volume `{volume}` has its own"
                                ),
                            )
                            .hint(format!("leave out `volume` or `{field}`")),
                        );
                    }
                }
                if let Some(first) = volumes.insert(volume, i) {
                    out.push(Violation::new(
                        at("volume"),
                        format!("volume `{volume}` is already disks[{first}]"),
                    ));
                }
            }
            None => {
                if disk.size.is_none() && disk.image.is_none() {
                    out.push(
                        Violation::new(
                            format!("spec.disks[{i}]"),
                            "has neither `size`, `image` nor `volume`",
                        )
                        .hint("a disk is made from a size or an image, or is a volume"),
                    );
                }
            }
        }
        if let Some(size) = disk.size
            && (size.0 < 1 << 20 || size > DISK)
        {
            out.push(
                Violation::new(at("size"), format!("{size} is not from 1MiB to {DISK}"))
                    .hint("a bare number is bytes; write for example `8GiB`"),
            );
        }
        if disk.boot_order.is_some_and(|n| !(1..=99).contains(&n)) {
            out.push(Violation::new(at("boot_order"), "is not from 1 to 99"));
        }
        if disk.read_only && matches!(disk.bus, Bus::Sata) {
            out.push(
                Violation::new(at("read_only"), "a SATA disk cannot be read-only")
                    .hint("use bus `virtio` or `scsi`"),
            );
        }
    }
}

fn nics(nics: &[Nic], out: &mut Vec<Violation>) {
    if nics.len() > 16 {
        out.push(Violation::new(
            "spec.nics",
            format!("{} network interfaces are more than 16", nics.len()),
        ));
    }
    let (mut names, mut macs) = (HashMap::new(), HashMap::new());
    for (i, nic) in nics.iter().enumerate() {
        let at = |field: &str| format!("spec.nics[{i}].{field}");
        device_name(at("name"), &nic.name, out);
        if let Some(first) = names.insert(&nic.name, i) {
            out.push(Violation::new(
                at("name"),
                format!("`{}` is also the name of nics[{first}]", nic.name),
            ));
        }
        if !nic.mac.is_empty() {
            match mac(&nic.mac) {
                None => out.push(
                    Violation::new(at("mac"), format!("`{}` is not a MAC address", nic.mac))
                        .hint("six pairs of hex digits, such as `52:54:00:12:34:56`"),
                ),
                Some(bytes) if bytes[0] & 1 == 1 => out.push(
                    Violation::new(at("mac"), format!("`{}` is a multicast address", nic.mac))
                        .hint("the first pair must be even, such as `52`"),
                ),
                Some(_) => {}
            }
            if let Some(first) = macs.insert(nic.mac.to_lowercase(), i) {
                out.push(Violation::new(
                    at("mac"),
                    format!("`{}` is also the address of nics[{first}]", nic.mac),
                ));
            }
        }
        if let Some(ip) = &nic.ipv4
            && ip.parse::<Ipv4Addr>().is_err()
        {
            out.push(Violation::new(
                at("ipv4"),
                format!("`{ip}` is not an IPv4 address"),
            ));
        }
        if let Some(ip) = &nic.ipv6
            && ip.parse::<Ipv6Addr>().is_err()
        {
            out.push(Violation::new(
                at("ipv6"),
                format!("`{ip}` is not an IPv6 address"),
            ));
        }
        if nic.boot_order.is_some_and(|n| !(1..=99).contains(&n)) {
            out.push(Violation::new(at("boot_order"), "is not from 1 to 99"));
        }
    }
}

fn slots(spec: &VmSpec, out: &mut Vec<Violation>) {
    let mut taken = HashMap::new();
    let disks = spec
        .disks
        .iter()
        .enumerate()
        .map(|(i, d)| (format!("disks[{i}]"), d.lane(), d.slot));
    let nics = spec
        .nics
        .iter()
        .enumerate()
        .map(|(i, n)| (format!("nics[{i}]"), Lane::Pcie, n.slot));
    for (device, lane, slot) in disks.chain(nics) {
        let Some(slot) = slot else { continue };
        let last = lane.last_in(&spec.machine);
        if !(1..=last).contains(&slot) {
            out.push(
                Violation::new(
                    format!("spec.{device}.slot"),
                    format!("{slot} is not from 1 to {last}"),
                )
                .hint("a VM has so many places on this bus; a disk may use bus `scsi`"),
            );
        }
        if let Some(first) = taken.insert((lane, slot), device.clone()) {
            out.push(
                Violation::new(
                    format!("spec.{device}.slot"),
                    format!("{slot} is already the slot of {first}"),
                )
                .hint("leave it out to have one chosen"),
            );
        }
    }
    let mut orders = HashMap::new();
    let disks = spec
        .disks
        .iter()
        .enumerate()
        .map(|(i, d)| (format!("disks[{i}]"), d.boot_order));
    let nics = spec
        .nics
        .iter()
        .enumerate()
        .map(|(i, n)| (format!("nics[{i}]"), n.boot_order));
    for (device, order) in disks.chain(nics) {
        let Some(order) = order else { continue };
        if let Some(first) = orders.insert(order, device.clone()) {
            out.push(Violation::new(
                format!("spec.{device}.boot_order"),
                format!("{order} is already the place of {first}"),
            ));
        }
    }
}

fn power(spec: &VmSpec, out: &mut Vec<Violation>) {
    let timeout = spec.power_off.timeout;
    if timeout < Seconds(1) || timeout > Seconds(3600) {
        out.push(Violation::new(
            "spec.power_off.timeout",
            format!("{timeout} is not from 1s to 1h"),
        ));
    }
    if spec.auto_start.order > 1000 {
        out.push(Violation::new(
            "spec.auto_start.order",
            format!("{} is not from 0 to 1000", spec.auto_start.order),
        ));
    }
    if spec.auto_start.delay > Seconds(3600) {
        out.push(Violation::new(
            "spec.auto_start.delay",
            format!("{} is more than 1h", spec.auto_start.delay),
        ));
    }
}

/// The six bytes of a MAC address.
pub(crate) fn mac(text: &str) -> Option<[u8; 6]> {
    let mut out = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut out {
        let part = parts.next().filter(|p| p.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(out)
}

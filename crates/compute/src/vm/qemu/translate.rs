//! From what a VM shall be to what QEMU is started with. Pure, but for opening `/dev/vhost-net`.

use super::super::hypervisor::{DiskSource, Launch, NicSource};
use super::super::types::{self, Bus, Cache, Display, Firmware, NicModel, Os, VmSpec};
use super::files::Files;
use host::qemu::{Accel, Aio, Disk, Format, Layer, Memory, Nic, Topology, Video};
use model::{Error, Result};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Ports kept free for devices that are plugged later.
const SPARE: u32 = 4;
/// Places for memory modules.
const MODULES: u8 = 32;

/// What does not come from the VM.
pub(super) struct Around<'a> {
    pub instance: Option<&'a str>,
    pub dir: &'a Path,
    pub user: Option<(u32, u32)>,
    pub accel: Accel,
    pub cpu: &'a str,
    pub io_uring: bool,
}

/// The descriptors of a launch, by their names.
pub(super) type Fds = BTreeMap<String, OwnedFd>;

/// What QEMU is started with, always standing still, and the descriptors that it names.
pub(super) fn launch(
    it: Launch,
    files: Files,
    around: &Around<'_>,
) -> Result<(host::qemu::Launch, Fds)> {
    let Launch {
        vm,
        spec,
        disks,
        nics,
        ..
    } = it;
    let mut fds = Fds::new();
    let name = process_name(
        around.instance,
        vm.object.project.as_deref(),
        &vm.object.name,
    );
    let mut out = host::qemu::Launch::new(&name, &vm.uid.to_string(), around.dir, &spec.machine);
    out.user = around.user;
    out.accel = around.accel;
    out.cpu = match (spec.cpu.model.as_str(), around.accel) {
        ("" | "host", _) => around.cpu.to_owned(),
        (model, _) => model.to_owned(),
    };
    out.topology = topology(&spec)?;
    out.memory = memory(&spec);
    out.tpm_state = files.tpm;
    out.iothreads = 1;
    out.video = match spec.display {
        Display::Vnc => Video::Vga,
        Display::None => Video::None,
    };
    out.tablet = spec.display == Display::Vnc && spec.os != Os::Linux;
    out.serial = spec.serial;
    out.agent = spec.guest_agent;
    out.random = spec.rng;
    out.local_time = spec.os == Os::Windows;
    out.balloon = spec.ballooning;
    out.paused = true;
    let order = boot_order(&spec);
    for source in disks {
        let disk = disk(source, &order, around.io_uring, &mut fds)?;
        out.disks.push(disk);
    }
    for source in nics {
        out.nics.push(nic(source, &order, &mut fds)?);
    }
    out.ports = ports(&spec);
    if let Some(fd) = files.seed {
        let mut seed = Disk::virtio("seed", "seed", Format::Raw, out.ports - 1);
        seed.read_only = true;
        seed.discard = false;
        seed.cache = host::qemu::Cache::Writeback;
        fds.insert("seed".into(), fd);
        out.disks.push(seed);
    }
    if let Some(uefi) = files.uefi {
        out.firmware = host::qemu::Firmware::Uefi {
            code: uefi.code,
            vars_fd: "uefi-vars".into(),
            secure: uefi.secure,
        };
        fds.insert("uefi-vars".into(), uefi.vars);
    }
    debug_assert!(spec.firmware == Firmware::Bios || fds.contains_key("uefi-vars"));
    Ok((out, fds))
}

/// The name that process lists show; unique on the host, because no name has a dot.
pub(super) fn process_name(instance: Option<&str>, project: Option<&str>, vm: &str) -> String {
    let project = match project {
        None | Some("default") => String::new(),
        Some(project) => format!("{project}."),
    };
    match instance {
        Some(instance) => format!("dv-{instance}-{project}{vm}"),
        None => format!("dv-{project}{vm}"),
    }
}

fn number<T: TryFrom<u32>>(field: &str, n: u32) -> Result<T> {
    T::try_from(n).map_err(|_| Error::field(format!("spec.{field}"), format!("{n} is too large")))
}

fn topology(spec: &VmSpec) -> Result<Topology> {
    Ok(Topology {
        boot: number("vcpus", spec.vcpus)?,
        sockets: number("cpu.sockets", spec.cpu.sockets.unwrap_or(1))?,
        cores: number("cpu.cores", spec.cpu.cores.unwrap_or(spec.vcpus))?,
        threads: number("cpu.threads", spec.cpu.threads.unwrap_or(1))?,
    })
}

fn memory(spec: &VmSpec) -> Memory {
    let mut out = Memory::fixed(spec.memory.0 >> 20);
    if let Some(max) = spec.max_memory.filter(|max| *max > spec.memory) {
        out.max_mib = max.0 >> 20;
        out.slots = MODULES;
    }
    out.huge_page = spec.hugepages.bytes();
    out
}

/// Enough ports for what is there, some to spare, and the last one for the seed; by eights, which share a slot.
fn ports(spec: &VmSpec) -> u8 {
    let disks = spec
        .disks
        .iter()
        .filter(|d| d.lane() == types::Lane::Pcie)
        .filter_map(|d| d.slot);
    let last = disks
        .chain(spec.nics.iter().filter_map(|n| n.slot))
        .max()
        .unwrap_or(0);
    let most = if types::has_pcie(&spec.machine) {
        32
    } else {
        23
    };
    let wanted = (last + SPARE + 1).next_multiple_of(8).min(most);
    u8::try_from(wanted).unwrap_or(32)
}

/// Places in the boot order, by kind and name of the device.
fn boot_order(spec: &VmSpec) -> BTreeMap<(&'static str, String), u8> {
    let mut asked: Vec<(u32, &'static str, String)> = spec
        .disks
        .iter()
        .filter_map(|d| Some((d.boot_order?, "disk", d.name.clone())))
        .chain(
            spec.nics
                .iter()
                .filter_map(|n| Some((n.boot_order?, "nic", n.name.clone()))),
        )
        .collect();
    if asked.is_empty() {
        asked.extend(spec.disks.first().map(|d| (1, "disk", d.name.clone())));
    }
    asked.sort();
    (0..)
        .zip(asked)
        .map(|(place, (_, kind, name))| ((kind, name), place))
        .collect()
}

/// A place on a bus, counted from 0.
fn place(name: &str, slot: Option<u32>) -> Result<u8> {
    slot.and_then(|s| u8::try_from(s.checked_sub(1)?).ok())
        .ok_or_else(|| Error::internal(format!("device `{name}` has no slot")))
}

/// One disk; its files are added to `fds`.
pub(super) fn disk(
    source: DiskSource,
    order: &BTreeMap<(&'static str, String), u8>,
    io_uring: bool,
    fds: &mut Fds,
) -> Result<Disk> {
    let it = source.disk;
    let mut layers = Vec::new();
    let mut direct = it.cache == Cache::None;
    for layer in &source.layers {
        // What cannot bypass the page cache, such as a tmpfs, is used through it.
        direct = direct
            && host::qemu::bypass_page_cache(&layer.fd).map_err(|e| {
                Error::unavailable(format!("disk `{}` cannot be opened directly: {e}", it.name))
                    .because(e)
            })?;
    }
    for (n, layer) in source.layers.into_iter().enumerate() {
        let fd = format!("disk-{}-{n}", it.name);
        layers.push(Layer {
            fd: fd.clone(),
            format: if layer.qcow2 {
                Format::Qcow2
            } else {
                Format::Raw
            },
            block_device: false,
        });
        fds.insert(fd, layer.fd);
    }
    let slot = place(&it.name, it.slot)?;
    let mut out = Disk::virtio(&it.name, "", Format::Raw, slot);
    out.layers = layers;
    out.bus = match it.bus {
        Bus::Virtio => host::qemu::Bus::Virtio,
        Bus::Scsi => host::qemu::Bus::Scsi,
        Bus::Sata => host::qemu::Bus::Sata,
        Bus::Nvme => host::qemu::Bus::Nvme,
    };
    out.read_only = it.read_only;
    out.cache = match direct {
        true => host::qemu::Cache::None,
        false => host::qemu::Cache::Writeback,
    };
    out.aio = match (io_uring, direct) {
        (true, _) => Aio::IoUring,
        (false, true) => Aio::Native,
        (false, false) => Aio::Threads,
    };
    out.discard = it.discard;
    out.detect_zeroes = match it.discard {
        true => host::qemu::DetectZeroes::Unmap,
        false => host::qemu::DetectZeroes::Off,
    };
    out.iothread = (it.io_thread && it.bus == Bus::Virtio).then_some(0);
    out.boot_index = order.get(&("disk", it.name.clone())).copied();
    out.serial = Some(it.name);
    Ok(out)
}

/// One network interface; its tap is added to `fds`.
pub(super) fn nic(
    source: NicSource,
    order: &BTreeMap<(&'static str, String), u8>,
    fds: &mut Fds,
) -> Result<Nic> {
    let it = source.nic;
    let vhost = |_: &OwnedFd| {
        let mut open = std::fs::File::options();
        open.read(true).write(true).open("/dev/vhost-net").ok()
    };
    // All queues have it or none: it is one device.
    let vhosts: Option<Vec<_>> = match it.model {
        NicModel::Virtio => source.taps.iter().map(vhost).collect(),
        NicModel::E1000e => None,
    };
    let mut named = |sort: &str, held: Vec<OwnedFd>| -> Vec<String> {
        let named = held.into_iter().enumerate().map(|(queue, fd)| {
            let name = format!("{sort}-{}-{queue}", it.name);
            fds.insert(name.clone(), fd);
            name
        });
        named.collect()
    };
    let tap_fds = named("nic", source.taps);
    let vhosts = vhosts.unwrap_or_default();
    let vhost_fds = named("vhost", vhosts.into_iter().map(OwnedFd::from).collect());
    Ok(Nic {
        tap_fds,
        vhost_fds,
        mac: it.mac,
        model: match it.model {
            NicModel::Virtio => host::qemu::NicModel::Virtio,
            NicModel::E1000e => host::qemu::NicModel::E1000e,
        },
        slot: place(&it.name, it.slot)?,
        mtu: u16::try_from(source.mtu).ok().filter(|m| *m != 1500),
        boot_index: order.get(&("nic", it.name.clone())).copied(),
        id: it.name,
    })
}

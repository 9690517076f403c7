//! What one guest is, as data.

use super::disk::{Aio, Bus, Cache, Disk};
use super::nic::{Nic, NicModel};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Longest path of a unix socket, in bytes.
const SOCKET_PATH: usize = 107;
/// Most PCIe ports: four slots with eight functions.
const PORTS: u8 = 32;
/// Most places on the bus of i440fx: slots 9 to 31.
const PLACES: u8 = 23;

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// The processor itself.
    Kvm,
    /// QEMU's translator: an order of magnitude slower, runs everywhere.
    Tcg,
}

/// Processors and their arrangement. `max` = sockets * cores * threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// Processors present at start.
    pub boot: u16,
    /// Sockets, up to what can be plugged.
    pub sockets: u16,
    /// Cores per socket.
    pub cores: u16,
    /// Threads per core.
    pub threads: u16,
}

impl Topology {
    /// One socket with this many cores, none to be plugged.
    pub fn flat(vcpus: u16) -> Self {
        Self {
            boot: vcpus,
            sockets: 1,
            cores: vcpus,
            threads: 1,
        }
    }

    /// Most processors it can come to.
    pub fn max(&self) -> u32 {
        u32::from(self.sockets) * u32::from(self.cores) * u32::from(self.threads)
    }
}

/// Memory of the guest, in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// At start.
    pub mib: u64,
    /// Most it can come to by plugging modules; equal to `mib` for none.
    pub max_mib: u64,
    /// Places for modules; 0 for no memory hot-plug.
    pub slots: u8,
    /// Whether other processes can map it, which vhost-user devices need.
    pub shared: bool,
    /// Size of the huge pages that back it, in bytes; `None` for ordinary ones. The host must have reserved them.
    pub huge_page: Option<u64>,
}

impl Memory {
    /// This much, and nothing to be plugged.
    pub fn fixed(mib: u64) -> Self {
        Self {
            mib,
            max_mib: mib,
            slots: 0,
            shared: false,
            huge_page: None,
        }
    }
}

/// What the machine starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// SeaBIOS, which QEMU brings.
    Bios,
    /// UEFI.
    Uefi {
        /// Its program: a path that everybody can read, such as `/usr/share/OVMF/OVMF_CODE_4M.fd`.
        code: PathBuf,
        /// Name of the descriptor of this guest's own variable store, a raw file opened read-write.
        vars_fd: String,
        /// Whether Secure Boot's protection of the variable store is on (needs the `secboot` program).
        secure: bool,
    },
}

/// A kernel to start without a boot loader. QEMU opens the paths as its own user: they must be readable by everybody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectKernel {
    /// The kernel.
    pub kernel: PathBuf,
    /// Its initramfs.
    pub initrd: Option<PathBuf>,
    /// Its command line.
    pub cmdline: String,
}

/// The guest's screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Video {
    /// None: no VNC socket either.
    None,
    /// Standard VGA: every guest can use it.
    Vga,
    /// virtio-gpu with VGA compatibility.
    Virtio,
}

/// What a reboot by the guest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnReboot {
    /// The machine starts again as it is.
    Reset,
    /// The machine powers off, so that it can be started anew with changed hardware.
    Shutdown,
}

/// The unix sockets of one guest. Whoever may enter their directory may use them. Each but VNC serves one client at a time;
/// what the guest writes to the serial console while nobody is connected is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sockets {
    /// QEMU Machine Protocol.
    pub qmp: PathBuf,
    /// Guest agent.
    pub qga: PathBuf,
    /// Serial console.
    pub serial: PathBuf,
    /// VNC.
    pub vnc: PathBuf,
    /// Control of the TPM.
    pub tpm: PathBuf,
}

impl Sockets {
    /// Those of the guest whose runtime directory is `dir`.
    pub fn under(dir: &Path) -> Self {
        let run = dir.join("run");
        Self {
            qmp: run.join("qmp"),
            qga: run.join("qga"),
            serial: run.join("serial"),
            vnc: run.join("vnc"),
            tpm: run.join("tpm"),
        }
    }
}

/// One guest to start.
///
/// Descriptors are named here (`Layer::fd`, `Nic::tap_fds`, ...) and given to [`super::Driver::launch`] by the same names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Name shown in process lists: `[A-Za-z0-9._-]`, at most 100 characters.
    pub name: String,
    /// SMBIOS UUID, in the usual form of 36 characters.
    pub uuid: String,
    /// Directory for its sockets, log and launch record: on a file system that does not survive a reboot.
    pub dir: PathBuf,
    /// Numeric user and group it runs as; `None` runs it as ours.
    pub user: Option<(u32, u32)>,
    /// Machine type, in full: `pc-q35-10.0`.
    pub machine: String,
    /// What executes it.
    pub accel: Accel,
    /// Processor model with its features, as for `-cpu`: `host`, `qemu64`, `Nehalem,+aes`.
    pub cpu: String,
    /// Processors.
    pub topology: Topology,
    /// Memory.
    pub memory: Memory,
    /// Firmware.
    pub firmware: Firmware,
    /// Whether it has a TPM 2.0 (a swtpm process beside it) and, if so, where that keeps its state: a directory that
    /// belongs to `user`.
    pub tpm_state: Option<PathBuf>,
    /// A kernel to start directly.
    pub kernel: Option<DirectKernel>,
    /// Threads that serve disks.
    pub iothreads: u8,
    /// Disks.
    pub disks: Vec<Disk>,
    /// Network cards.
    pub nics: Vec<Nic>,
    /// PCIe ports for disks and cards, those for later plugging included: at most 32; 23 on i440fx, whose places are slots.
    pub ports: u8,
    /// Screen.
    pub video: Video,
    /// Whether it has a USB tablet, which makes the mouse pointer right in a VNC viewer.
    pub tablet: bool,
    /// Whether there is a serial port.
    pub serial: bool,
    /// Whether there is a port for the guest agent.
    pub agent: bool,
    /// Whether the guest gets randomness from the host.
    pub random: bool,
    /// Whether its clock runs in the host's local time, as Windows wants, instead of UTC.
    pub local_time: bool,
    /// Whether there is a balloon, through which the guest's memory is measured and free pages are given back.
    pub balloon: bool,
    /// SMBIOS serial number, where cloud-init looks for its data source.
    pub smbios_serial: Option<String>,
    /// What a reboot by the guest does.
    pub on_reboot: OnReboot,
    /// Whether it starts paused.
    pub paused: bool,
    /// Whether it waits for a saved state or a migration instead of booting.
    pub incoming: bool,
}

/// A launch that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("guest `{guest}`: {field} `{value}` {why}")]
pub struct InvalidLaunch {
    /// The launch's name.
    pub guest: String,
    /// Where the mistake is, as in `disks[1].slot`.
    pub field: String,
    /// What stands there.
    pub value: String,
    /// What is wrong with it, and what is right.
    pub why: String,
}

impl Launch {
    /// A small guest with the defaults of the module's table and nothing to boot from, for the caller to fill.
    pub fn new(name: &str, uuid: &str, dir: &Path, machine: &str) -> Self {
        Self {
            name: name.to_owned(),
            uuid: uuid.to_owned(),
            dir: dir.to_owned(),
            user: None,
            machine: machine.to_owned(),
            accel: Accel::Tcg,
            cpu: "qemu64".to_owned(),
            topology: Topology::flat(1),
            memory: Memory::fixed(512),
            firmware: Firmware::Bios,
            tpm_state: None,
            kernel: None,
            iothreads: 1,
            disks: Vec::new(),
            nics: Vec::new(),
            ports: 8,
            video: Video::Vga,
            tablet: false,
            serial: true,
            agent: true,
            random: true,
            local_time: false,
            balloon: true,
            smbios_serial: None,
            on_reboot: OnReboot::Reset,
            paused: false,
            incoming: false,
        }
    }

    /// Its sockets.
    pub fn sockets(&self) -> Sockets {
        Sockets::under(&self.dir)
    }

    /// Names of the descriptors it needs as files (opened by `/dev/fdset`), in a fixed order.
    pub(super) fn file_fds(&self) -> Vec<&str> {
        let vars = match &self.firmware {
            Firmware::Uefi { vars_fd, .. } => Some(vars_fd.as_str()),
            Firmware::Bios => None,
        };
        let layers = self.disks.iter().flat_map(|disk| &disk.layers);
        vars.into_iter()
            .chain(layers.map(|layer| layer.fd.as_str()))
            .collect()
    }

    /// Names of all descriptors it needs, in a fixed order.
    pub fn fd_names(&self) -> Vec<&str> {
        let nets = self
            .nics
            .iter()
            .flat_map(|nic| nic.tap_fds.iter().chain(&nic.vhost_fds));
        let mut names = self.file_fds();
        names.extend(nets.map(String::as_str));
        names
    }

    /// Checks what QEMU would refuse with words that name no field, and what could break out of its place on the
    /// command line.
    ///
    /// # Errors
    /// The first mistake found.
    pub fn check(&self) -> Result<(), InvalidLaunch> {
        let bad = |field: &str, value: &dyn std::fmt::Display, why: &str| InvalidLaunch {
            guest: self.name.clone(),
            field: field.to_owned(),
            value: value.to_string(),
            why: why.to_owned(),
        };
        let plain = |text: &str, most: usize, also: &str| {
            !text.is_empty()
                && text.len() <= most
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || also.contains(c))
        };
        if !plain(&self.name, 100, "._-") {
            let why = "is not 1 to 100 letters, digits, dots, underscores and dashes";
            return Err(bad("name", &self.name, why));
        }
        if self.uuid.len() != 36 || !plain(&self.uuid, 36, "-") {
            return Err(bad("uuid", &self.uuid, "is not a UUID of 36 characters"));
        }
        if !plain(&self.machine, 60, "._-") {
            return Err(bad(
                "machine",
                &self.machine,
                "is not a machine type such as pc-q35-10.0",
            ));
        }
        if !plain(&self.cpu, 2000, "._-+,=:") {
            return Err(bad(
                "cpu",
                &self.cpu,
                "is not a processor model such as host or Nehalem,+aes",
            ));
        }
        let longest = self.sockets().serial;
        let length = longest.as_os_str().len();
        if length > SOCKET_PATH || !self.dir.is_absolute() {
            let why = "is too long or not absolute: a socket below it must have at most 107 bytes";
            return Err(bad("dir", &self.dir.display(), why));
        }
        let cpus = &self.topology;
        if cpus.boot == 0 || u32::from(cpus.boot) > cpus.max() || cpus.max() > 4096 {
            let why = "is not between 1 and sockets * cores * threads (at most 4096)";
            return Err(bad("topology.boot", &cpus.boot, why));
        }
        let memory = &self.memory;
        if memory.mib == 0 || memory.max_mib < memory.mib {
            return Err(bad(
                "memory.max_mib",
                &memory.max_mib,
                "is less than memory.mib, or that is 0",
            ));
        }
        if memory.slots == 0 && memory.max_mib > memory.mib {
            return Err(bad(
                "memory.slots",
                &memory.slots,
                "leaves no place for the memory up to memory.max_mib",
            ));
        }
        let most = if self.express() { PORTS } else { PLACES };
        if self.ports > most {
            return Err(bad("ports", &self.ports, &format!("is more than {most}")));
        }
        if let Some(serial) = &self.smbios_serial
            && (serial.chars().any(char::is_control) || serial.len() > 1000)
        {
            return Err(bad(
                "smbios_serial",
                serial,
                "has control characters or more than 1000 bytes",
            ));
        }
        let mut taken = BTreeSet::new();
        let mut ids = BTreeSet::new();
        let mut place = |field: &str, bus: &'static str, slot: u8, most: u8| {
            if slot >= most {
                return Err(bad(
                    field,
                    &slot,
                    &format!("is not below {most}, the number of places on {bus}"),
                ));
            }
            if !taken.insert((bus, slot)) {
                return Err(bad(field, &slot, "is taken by another device"));
            }
            Ok(())
        };
        let mut id_of = |field: String, kind: &'static str, id: &str| {
            if !plain(id, 16, "-") || id.chars().any(|c| c.is_ascii_uppercase()) {
                return Err(bad(&field, &id, "is not 1 to 16 of a-z, 0-9 and dash"));
            }
            if !ids.insert((kind, id.to_owned())) {
                return Err(bad(&field, &id, "is used twice"));
            }
            Ok(())
        };
        for (at, disk) in self.disks.iter().enumerate() {
            let field = |name: &str| format!("disks[{at}].{name}");
            id_of(field("id"), "disk", &disk.id)?;
            match disk.bus {
                Bus::Virtio | Bus::Nvme => place(&field("slot"), "PCIe", disk.slot, self.ports)?,
                Bus::Scsi => place(&field("slot"), "SCSI", disk.slot, u8::MAX)?,
                Bus::Sata => place(&field("slot"), "SATA", disk.slot, 6)?,
            }
            if disk.layers.is_empty() {
                return Err(bad(&field("layers"), &0, "has no file"));
            }
            if disk.cdrom && matches!(disk.bus, Bus::Virtio | Bus::Nvme) {
                return Err(bad(&field("cdrom"), &true, "needs the bus scsi or sata"));
            }
            if disk.aio == Aio::Native && disk.cache != Cache::None {
                return Err(bad(&field("aio"), &"native", "needs cache none"));
            }
            if let Some(thread) = disk.iothread
                && (thread >= self.iothreads || disk.bus != Bus::Virtio)
            {
                return Err(bad(
                    &field("iothread"),
                    &thread,
                    "does not exist, or the bus is not virtio",
                ));
            }
            if let Some(serial) = &disk.serial
                && (serial.is_empty()
                    || serial.len() > 20
                    || !serial.chars().all(|c| c.is_ascii_graphic()))
            {
                return Err(bad(
                    &field("serial"),
                    serial,
                    "is not 1 to 20 printable characters",
                ));
            }
        }
        for (at, nic) in self.nics.iter().enumerate() {
            let field = |name: &str| format!("nics[{at}].{name}");
            id_of(field("id"), "nic", &nic.id)?;
            place(&field("slot"), "PCIe", nic.slot, self.ports)?;
            if !plain(&nic.mac, 17, ":") || nic.mac.len() != 17 {
                return Err(bad(
                    &field("mac"),
                    &nic.mac,
                    "is not six pairs of hex digits with colons",
                ));
            }
            let queues = nic.tap_fds.len();
            let most = if nic.model == NicModel::Virtio { 8 } else { 1 };
            if queues == 0 || queues > most {
                return Err(bad(
                    &field("tap_fds"),
                    &queues,
                    "is not 1 to 8 (1 for e1000e) descriptors",
                ));
            }
            if !nic.vhost_fds.is_empty() && nic.vhost_fds.len() != queues {
                return Err(bad(
                    &field("vhost_fds"),
                    &nic.vhost_fds.len(),
                    "differs from the number of tap_fds",
                ));
            }
        }
        let mut order = BTreeSet::new();
        let disks = self.disks.iter().filter_map(|disk| disk.boot_index);
        for index in disks.chain(self.nics.iter().filter_map(|nic| nic.boot_index)) {
            if !order.insert(index) {
                return Err(bad("boot_index", &index, "is used twice"));
            }
        }
        let mut names = BTreeSet::new();
        for name in self.fd_names() {
            if !plain(name, 100, "._-/:") {
                return Err(bad(
                    "fd",
                    &name,
                    "is not 1 to 100 letters, digits and ._-/:",
                ));
            }
            if !names.insert(name) {
                return Err(bad(
                    "fd",
                    &name,
                    "is used twice: each use needs a descriptor of its own",
                ));
            }
        }
        Ok(())
    }
}

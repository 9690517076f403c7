//! One disk of a guest: its block nodes and its device, as QEMU's JSON, for the command line and for hot-plug alike.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::io;
use std::os::fd::OwnedFd;

/// How the bytes of an image are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Byte for byte.
    Raw,
    /// QEMU's thin format.
    Qcow2,
}

/// What the guest sees the disk as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bus {
    /// `virtio-blk` on its own PCIe port. Can be hot-plugged.
    Virtio,
    /// A disk or CD drive on the machine's `virtio-scsi` controller. Can be hot-plugged.
    Scsi,
    /// A disk or CD drive on the chipset's AHCI controller, for guests without virtio.
    Sata,
    /// An NVMe controller of its own on a PCIe port. Can be hot-plugged.
    Nvme,
}

/// How the host caches what the guest writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// Not at all (`O_DIRECT`); flushes of the guest reach the disk. The file system must support `O_DIRECT`.
    None,
    /// In the page cache; flushes of the guest reach the disk.
    Writeback,
}

/// How QEMU waits for the host's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aio {
    /// The kernel's ring.
    IoUring,
    /// Linux AIO; only with [`Cache::None`].
    Native,
    /// A pool of threads; works everywhere.
    Threads,
}

/// What happens when the guest writes zeroes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DetectZeroes {
    /// They are written as data.
    Off,
    /// They are stored as "zero" without using space where the format can.
    On,
    /// Their space is given back to the pool.
    Unmap,
}

/// One file of a disk. A disk has one, or a chain whose later members are read through the earlier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Name of the descriptor given to the launch, opened read-write when the layer is to be written, else read-only.
    pub fd: String,
    /// Its format.
    pub format: Format,
    /// Whether it is a block device, not a file.
    pub block_device: bool,
}

/// One disk or CD drive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Its name: `[a-z0-9-]`, at most 16 characters, unique among the guest's disks. The device is `disk-ID`.
    pub id: String,
    /// The top layer first; only that one is written.
    pub layers: Vec<Layer>,
    /// What the guest sees it as.
    pub bus: Bus,
    /// Its place on the bus: the PCIe port (virtio, nvme), the SCSI target (0-255) or the SATA port (0-5).
    pub slot: u8,
    /// Whether the guest can only read it.
    pub read_only: bool,
    /// Whether it is a CD drive; only on SCSI and SATA.
    pub cdrom: bool,
    /// How the host caches it.
    pub cache: Cache,
    /// How QEMU waits for it.
    pub aio: Aio,
    /// Whether discards of the guest give space back.
    pub discard: bool,
    /// What happens to zeroes.
    pub detect_zeroes: DetectZeroes,
    /// Which of the launch's iothreads serves it (virtio only; the SCSI controller has the first).
    pub iothread: Option<u8>,
    /// Its place in the boot order, 0 first; `None` is never booted from.
    pub boot_index: Option<u8>,
    /// The serial number the guest reads: at most 20 printable ASCII characters.
    pub serial: Option<String>,
}

/// Makes an opened file bypass the page cache, as QEMU expects of each layer of a disk with [`Cache::None`]: it takes no
/// descriptor whose `O_DIRECT` differs from what it wants. Says whether the file system can; a tmpfs cannot.
///
/// # Errors
/// When the kernel refuses for another reason.
pub fn bypass_page_cache(file: &OwnedFd) -> io::Result<bool> {
    let flags = fcntl(file, FcntlArg::F_GETFL)?;
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_DIRECT;
    match fcntl(file, FcntlArg::F_SETFL(flags)) {
        Ok(_) => Ok(true),
        Err(Errno::EINVAL) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Disk {
    /// A writable virtio disk of one file, with the defaults of the module's table.
    pub fn virtio(id: &str, fd: &str, format: Format, slot: u8) -> Self {
        Self {
            id: id.to_owned(),
            layers: vec![Layer {
                fd: fd.to_owned(),
                format,
                block_device: false,
            }],
            bus: Bus::Virtio,
            slot,
            read_only: false,
            cdrom: false,
            cache: Cache::None,
            aio: Aio::Threads,
            discard: true,
            detect_zeroes: DetectZeroes::Unmap,
            iothread: None,
            boot_index: None,
            serial: None,
        }
    }

    /// A read-only raw medium, such as a cloud-init seed or an installer: a SCSI CD drive.
    pub fn cdrom(id: &str, fd: &str, slot: u8) -> Self {
        Self {
            bus: Bus::Scsi,
            read_only: true,
            cdrom: true,
            cache: Cache::Writeback,
            discard: false,
            detect_zeroes: DetectZeroes::Off,
            ..Self::virtio(id, fd, Format::Raw, slot)
        }
    }

    /// The id of its device, as in `device_del`.
    pub fn device_id(&self) -> String {
        format!("disk-{}", self.id)
    }

    /// The name of its top block node, as in `block_resize`.
    pub fn node_name(&self) -> String {
        self.node(0)
    }

    /// Names of all its block nodes, in the order in which they can be removed.
    pub fn node_names(&self) -> Vec<String> {
        (0..self.layers.len())
            .flat_map(|level| [self.node(level), self.file_node(level)])
            .collect()
    }

    fn node(&self, level: usize) -> String {
        match level {
            0 => self.device_id(),
            _ => format!("disk-{}.{level}", self.id),
        }
    }

    fn file_node(&self, level: usize) -> String {
        format!("{}.file", self.node(level))
    }

    /// The nodes to open, in order, for `-blockdev` and `blockdev-add`. `set_of` gives the descriptor set that holds a
    /// layer's file.
    pub(super) fn blockdevs(&self, set_of: &dyn Fn(&str) -> u64) -> Vec<Value> {
        let aio = match self.aio {
            Aio::IoUring => "io_uring",
            Aio::Native => "native",
            Aio::Threads => "threads",
        };
        let cache = json!({ "direct": self.cache == Cache::None, "no-flush": false });
        let discard = if self.discard { "unmap" } else { "ignore" };
        let mut nodes = Vec::new();
        for (level, layer) in self.layers.iter().enumerate().rev() {
            let read_only = self.read_only || level > 0;
            nodes.push(json!({
                "driver": if layer.block_device { "host_device" } else { "file" },
                "node-name": self.file_node(level),
                "filename": format!("/dev/fdset/{}", set_of(&layer.fd)),
                "aio": aio,
                "cache": cache,
                "discard": discard,
                "read-only": read_only,
                // Left on, it would open the file again with other flags than the descriptor has.
                "auto-read-only": false,
            }));
            let mut node = Map::new();
            let mut set = |key: &str, value: Value| {
                node.insert(key.to_owned(), value);
            };
            let format = match layer.format {
                Format::Raw => "raw",
                Format::Qcow2 => "qcow2",
            };
            set("driver", json!(format));
            set("node-name", json!(self.node(level)));
            set("file", json!(self.file_node(level)));
            if layer.format == Format::Qcow2 {
                // Said in full, so that a name within the image file is never followed.
                let below = level + 1;
                let backing = (below < self.layers.len()).then(|| self.node(below));
                set("backing", json!(backing));
            }
            set("cache", cache.clone());
            set("discard", json!(discard));
            set("read-only", json!(read_only));
            if level == 0 && !read_only {
                let zeroes = match self.detect_zeroes {
                    DetectZeroes::Off => "off",
                    DetectZeroes::On => "on",
                    DetectZeroes::Unmap => "unmap",
                };
                set("detect-zeroes", json!(zeroes));
            }
            nodes.push(Value::Object(node));
        }
        nodes
    }

    /// The device to add, for `-device` and `device_add`; `express`: whether the machine has PCI Express.
    pub(super) fn device(&self, express: bool) -> Value {
        let mut device = Map::new();
        let mut set = |key: &str, value: Value| {
            device.insert(key.to_owned(), value);
        };
        match self.bus {
            Bus::Virtio => {
                set("driver", json!("virtio-blk-pci"));
                for (key, value) in super::args::place(express, self.slot) {
                    set(key, value);
                }
                if let Some(thread) = self.iothread {
                    set("iothread", json!(super::args::iothread_id(thread)));
                }
            }
            Bus::Nvme => {
                set("driver", json!("nvme"));
                for (key, value) in super::args::place(express, self.slot) {
                    set(key, value);
                }
            }
            Bus::Scsi => {
                set(
                    "driver",
                    json!(if self.cdrom { "scsi-cd" } else { "scsi-hd" }),
                );
                set("bus", json!("scsi0.0"));
                set("scsi-id", json!(self.slot));
            }
            Bus::Sata => {
                set(
                    "driver",
                    json!(if self.cdrom { "ide-cd" } else { "ide-hd" }),
                );
                set("bus", json!(format!("ide.{}", self.slot)));
            }
        }
        set("id", json!(self.device_id()));
        set("drive", json!(self.node_name()));
        if let Some(index) = self.boot_index {
            set("bootindex", json!(index));
        }
        match (&self.serial, self.bus) {
            (Some(serial), _) => set("serial", json!(serial)),
            // An NVMe controller has to have one.
            (None, Bus::Nvme) => set("serial", json!(self.id)),
            (None, _) => {}
        }
        if !self.cdrom && self.bus != Bus::Nvme {
            // The guest may always ask for a flush, whatever the host caches.
            set("write-cache", json!("on"));
        }
        Value::Object(device)
    }
}

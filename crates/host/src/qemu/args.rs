//! From a [`Launch`] to the command line. Pure.
//!
//! Devices with a fixed place sit on the root bus (`VIDEO`, `SERIAL`, ... below); disks and cards sit behind PCIe ports,
//! port `n` at slot 0x10 + n / 8, function n % 8; on i440fx, which has no PCIe, on the root
//! bus itself at slot 9 + n, where each slot can be plugged. These numbers are part of every guest's hardware: they never change.

use super::disk::Bus;
use super::launch::{Accel, Firmware, Launch, OnReboot, Video};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::path::Path;

const VIDEO: &str = "0x1";
/// Where i440fx has its own bridge, IDE and power management at [`VIDEO`].
const VIDEO_I440FX: &str = "0x8";
const SERIAL: &str = "0x2";
const BALLOON: &str = "0x3";
const RANDOM: &str = "0x4";
const PANIC: &str = "0x5";
const SCSI: &str = "0x6";
const USB: &str = "0x7";

/// First slot of disks and cards on the one bus of i440fx.
const FIRST: u8 = 9;

/// Where a disk or card has its place: the keys of its device.
pub(super) fn place(express: bool, slot: u8) -> Vec<(&'static str, Value)> {
    match express {
        true => vec![("bus", json!(port_id(slot)))],
        false => vec![
            ("bus", json!("pci.0")),
            ("addr", json!(format!("{:#x}", FIRST.saturating_add(slot)))),
        ],
    }
}

fn port_id(slot: u8) -> String {
    format!("port{slot}")
}

pub(super) fn iothread_id(thread: u8) -> String {
    format!("io{thread}")
}

/// A comma within a value of QEMU's option syntax is written twice.
fn escaped(text: impl std::fmt::Display) -> String {
    text.to_string().replace(',', ",,")
}

fn path(path: &Path) -> String {
    escaped(path.display())
}

struct Args(Vec<String>);

impl Args {
    fn flag(&mut self, flag: &str) {
        self.0.push(flag.to_owned());
    }

    fn add(&mut self, flag: &str, value: impl Into<String>) {
        self.flag(flag);
        self.0.push(value.into());
    }

    fn json(&mut self, flag: &str, value: &Value) {
        self.add(flag, value.to_string());
    }

    fn device(&mut self, value: Value) {
        self.json("-device", &value);
    }

    fn socket(&mut self, id: &str, socket: &Path) {
        let path = path(socket);
        let value = format!("socket,id={id},path={path},server=on,wait=off");
        self.add("-chardev", value);
    }
}

impl Launch {
    /// The command line, without the program. `numbers` gives each of [`Launch::fd_names`] the descriptor it has.
    ///
    /// A name that has no number comes out as -1, which QEMU refuses; the driver checks before.
    pub fn args(&self, numbers: &BTreeMap<String, RawFd>) -> Vec<String> {
        let number_of = |name: &str| numbers.get(name).copied().unwrap_or(-1).to_string();
        let files = self.file_fds();
        let set_of = |name: &str| {
            let at = files.iter().position(|file| *file == name);
            at.map_or(0, |at| at as u64 + 1)
        };
        let sockets = self.sockets();
        let mut a = Args(Vec::with_capacity(128));

        a.add("-name", format!("guest={},debug-threads=on", self.name));
        a.add("-uuid", &self.uuid);
        for flag in ["-nodefaults", "-no-user-config"] {
            a.flag(flag);
        }
        a.add("-display", "none");
        a.add(
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        );
        a.add("-msg", "timestamp=on");

        self.machine_args(&mut a);
        for (at, name) in files.iter().enumerate() {
            let number = number_of(name);
            a.add(
                "-add-fd",
                format!("fd={number},set={},opaque={name}", at + 1),
            );
        }
        if let Firmware::Uefi {
            code,
            vars_fd,
            secure,
        } = &self.firmware
        {
            a.json(
                "-blockdev",
                &json!({ "driver": "file", "node-name": "uefi-code", "filename": code, "read-only": true }),
            );
            let vars = format!("/dev/fdset/{}", set_of(vars_fd));
            a.json(
                "-blockdev",
                &json!({ "driver": "file", "node-name": "uefi-vars", "filename": vars, "auto-read-only": false }),
            );
            if *secure {
                // Only code in system management mode may write the variable store.
                a.add("-global", "driver=cfi.pflash01,property=secure,value=on");
            }
        }
        // Sleeping guests would look like hung ones; nothing wakes them.
        a.add("-global", "ICH9-LPC.disable_s3=1");
        a.add("-global", "ICH9-LPC.disable_s4=1");
        a.add("-boot", "strict=on,menu=off");
        let base = if self.local_time { "localtime" } else { "utc" };
        a.add("-rtc", format!("base={base},clock=host"));
        let reboot = match self.on_reboot {
            OnReboot::Reset => "reset",
            OnReboot::Shutdown => "shutdown",
        };
        a.add(
            "-action",
            format!("reboot={reboot},shutdown=pause,panic=pause,watchdog=reset"),
        );
        let serial = self
            .smbios_serial
            .as_deref()
            .map_or(String::new(), |text| format!(",serial={}", escaped(text)));
        a.add(
            "-smbios",
            format!("type=1,manufacturer=DebVisor,product=Guest{serial}"),
        );

        a.socket("qmp", &sockets.qmp);
        a.add("-mon", "chardev=qmp,mode=control");
        for thread in 0..self.iothreads {
            a.json(
                "-object",
                &json!({ "qom-type": "iothread", "id": iothread_id(thread) }),
            );
        }
        self.port_args(&mut a);

        if self.serial {
            a.socket("serial", &sockets.serial);
            a.device(
                json!({ "driver": "isa-serial", "id": "serial", "chardev": "serial", "index": 0 }),
            );
        }
        a.device(json!({ "driver": "virtio-serial-pci", "id": "channels", "bus": self.root_bus(), "addr": SERIAL }));
        if self.agent {
            a.socket("qga", &sockets.qga);
            a.device(json!({ "driver": "virtserialport", "id": "qga", "bus": "channels.0", "nr": 1, "chardev": "qga", "name": "org.qemu.guest_agent.0" }));
        }
        if self.random {
            a.json(
                "-object",
                &json!({ "qom-type": "rng-builtin", "id": "random" }),
            );
            a.device(json!({ "driver": "virtio-rng-pci", "id": "rng", "rng": "random", "bus": self.root_bus(), "addr": RANDOM }));
        }
        if self.balloon {
            a.device(json!({ "driver": "virtio-balloon-pci", "id": "balloon", "bus": self.root_bus(), "addr": BALLOON, "deflate-on-oom": true, "free-page-reporting": true }));
        }
        a.device(
            json!({ "driver": "pvpanic-pci", "id": "pvpanic", "bus": self.root_bus(), "addr": PANIC }),
        );
        a.device(json!({ "driver": "vmcoreinfo", "id": "vmcoreinfo" }));
        if self.tpm_state.is_some() {
            let socket = path(&sockets.tpm);
            a.add("-chardev", format!("socket,id=tpm,path={socket}"));
            a.add("-tpmdev", "emulator,id=tpm,chardev=tpm");
            a.device(json!({ "driver": "tpm-crb", "id": "tpm-crb", "tpmdev": "tpm" }));
        }
        self.video_args(&mut a, &sockets.vnc);

        // Always there, so that a SCSI disk or medium can be plugged.
        let mut scsi = json!({ "driver": "virtio-scsi-pci", "id": "scsi0", "bus": self.root_bus(), "addr": SCSI });
        if self.iothreads > 0
            && self
                .disks
                .iter()
                .any(|disk| disk.bus == Bus::Scsi && !disk.cdrom)
        {
            scsi["iothread"] = json!(iothread_id(0));
        }
        a.device(scsi);
        for disk in &self.disks {
            for node in disk.blockdevs(&set_of) {
                a.json("-blockdev", &node);
            }
            a.device(disk.device(self.express()));
        }
        for nic in &self.nics {
            a.add("-netdev", nic.netdev_arg(&number_of));
            a.device(nic.device(self.express()));
        }
        if let Some(kernel) = &self.kernel {
            a.add("-kernel", kernel.kernel.display().to_string());
            if let Some(initrd) = &kernel.initrd {
                a.add("-initrd", initrd.display().to_string());
            }
            a.add("-append", &kernel.cmdline);
        }
        if self.incoming {
            a.add("-incoming", "defer");
        }
        if self.paused {
            a.flag("-S");
        }
        a.0
    }

    /// Whether the machine has PCI Express.
    pub(super) fn express(&self) -> bool {
        !self.machine.starts_with("pc-i440fx")
    }

    fn root_bus(&self) -> &'static str {
        match self.express() {
            true => "pcie.0",
            false => "pci.0",
        }
    }

    fn video_place(&self) -> &'static str {
        match self.express() {
            true => VIDEO,
            false => VIDEO_I440FX,
        }
    }

    fn machine_args(&self, a: &mut Args) {
        let (smm, flash) = match &self.firmware {
            Firmware::Bios => (false, ""),
            Firmware::Uefi { secure, .. } => (*secure, ",pflash0=uefi-code,pflash1=uefi-vars"),
        };
        let smm = if smm { "on" } else { "off" };
        a.add(
            "-machine",
            format!(
                "{},usb=off,hpet=off,vmport=off,smm={smm},dump-guest-core=off,memory-backend=ram{flash}",
                self.machine
            ),
        );
        a.add(
            "-accel",
            match self.accel {
                Accel::Kvm => "kvm",
                Accel::Tcg => "tcg,thread=multi,tb-size=128",
            },
        );
        a.add("-cpu", &self.cpu);
        let t = &self.topology;
        a.add(
            "-smp",
            format!(
                "cpus={},maxcpus={},sockets={},cores={},threads={}",
                t.boot,
                t.max(),
                t.sockets,
                t.cores,
                t.threads
            ),
        );
        let memory = &self.memory;
        let mut size = format!("size={}M", memory.mib);
        if memory.slots > 0 {
            size.push_str(&format!(
                ",slots={},maxmem={}M",
                memory.slots, memory.max_mib
            ));
        }
        a.add("-m", size);
        let bytes = memory.mib.saturating_mul(1024 * 1024);
        a.json(
            "-object",
            &if let Some(page) = memory.huge_page {
                json!({ "qom-type": "memory-backend-memfd", "id": "ram", "size": bytes, "share": memory.shared, "hugetlb": true, "hugetlbsize": page })
            } else if memory.shared {
                json!({ "qom-type": "memory-backend-memfd", "id": "ram", "size": bytes, "share": true })
            } else {
                json!({ "qom-type": "memory-backend-ram", "id": "ram", "size": bytes })
            },
        );
    }

    fn port_args(&self, a: &mut Args) {
        if !self.express() {
            return;
        }
        for port in 0..self.ports {
            let (slot, function) = (0x10 + port / 8, port % 8);
            let mut device = json!({
                "driver": "pcie-root-port",
                "id": port_id(port),
                "bus": "pcie.0",
                "addr": format!("{slot:#x}.{function:#x}"),
                "chassis": port + 1,
                "port": port,
            });
            if function == 0 {
                device["multifunction"] = json!(true);
            }
            a.device(device);
        }
    }

    fn video_args(&self, a: &mut Args, vnc: &Path) {
        let driver = match self.video {
            Video::None => return,
            Video::Vga => "VGA",
            Video::Virtio => "virtio-vga",
        };
        a.add("-vnc", format!("unix:{},share=force-shared", path(vnc)));
        a.device(json!({ "driver": driver, "id": "video", "bus": self.root_bus(), "addr": self.video_place() }));
        if self.tablet {
            a.device(
                json!({ "driver": "qemu-xhci", "id": "usb", "bus": self.root_bus(), "addr": USB }),
            );
            a.device(json!({ "driver": "usb-tablet", "id": "tablet", "bus": "usb.0" }));
        }
    }
}

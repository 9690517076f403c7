//! The tiny guest: a busybox initramfs on Debian's cloud kernel, with the real guest agent. It boots within seconds
//! under pure emulation, in 192 MiB of memory. Nothing of it is compiled here and no package is installed; it never
//! writes its own disk.
//!
//! What it does can be read in `tiny/init.sh`; it says `TINY-UP` and `TINY-READY` on the serial line.

use super::apt::Apt;
use super::boot::{self, Loader};
use super::command::Progress;
use super::cpio::Cpio;
use super::disk::Disk;
use super::kmod::Modules;
use super::tree::Tree;
use super::{Identity, Release};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

/// The tiny guest is made of this release on every host: its modules are not compressed, and its parts are small.
const RELEASE: Release = Release::Bookworm;

/// Size of the disk and of its EFI system partition, in MiB.
const DISK: u64 = 64;
const ESP: u64 = 12;

/// What the guest has drivers for.
const MODULES: [&str; 19] = [
    "virtio_pci",
    "virtio_net",
    "virtio_blk",
    "virtio_scsi",
    "virtio_console",
    "virtio_balloon",
    "virtio_rng",
    "virtio_mem",
    "virtio_input",
    "sd_mod",
    "sr_mod",
    "isofs",
    "acpiphp",
    "af_packet",
    "button",
    "evdev",
    "pvpanic_pci",
    "nvme",
    "tpm_crb",
];

/// Packages that are wanted with all they depend on.
const WITH_LIBRARIES: [&str; 2] = ["qemu-guest-agent", "grub-common"];

const INIT: &str = include_str!("tiny/init.sh");
const UDHCPC: &str = include_str!("tiny/udhcpc.sh");
const ECHO: &str = include_str!("tiny/echo.sh");
const SHUTDOWN: &str = include_str!("tiny/shutdown.sh");

/// Everything that decides what the image contains.
pub(super) fn inputs() -> Vec<&'static str> {
    vec![include_str!("tiny.rs"), INIT, UDHCPC, ECHO, SHUTDOWN]
}

/// Builds the image at `out`; all else is written below `work`.
pub(super) async fn build(
    id: &Identity,
    work: &Path,
    out: &Path,
    progress: Progress<'_>,
    cancel: &CancellationToken,
) -> Result<()> {
    progress("reading Debian's package lists", 1);
    let apt = Apt::prepare(&work.join("apt"), RELEASE, cancel).await?;
    progress("downloading packages", 20);
    let kernel = apt
        .dependency("linux-image-cloud-amd64", "linux-image-", cancel)
        .await?;
    let count = std::sync::atomic::AtomicU8::new(0);
    let each = |line: &str| {
        if line.starts_with("Get:") {
            let done = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if done < 40 {
                progress("downloading packages", 20 + done);
            }
        }
    };
    apt.download_closure(&WITH_LIBRARIES, cancel, each).await?;
    let mut packages = vec![kernel.as_str(), "busybox-static"];
    packages.extend(boot::PACKAGES);
    apt.download(&packages, cancel, each).await?;
    progress("unpacking packages", 60);
    let tree = Tree(work.join("tree"));
    apt.unpack(&tree.0, cancel).await?;

    progress("packing the initramfs", 75);
    let libraries = tree.libraries("usr/sbin/qemu-ga", cancel).await?;
    let version = kernel.trim_start_matches("linux-image-").to_owned();
    let root = work.join("root");
    let (from, to) = (tree.0.clone(), root.clone());
    let uuid = id.root_uuid.clone();
    tokio::task::spawn_blocking(move || {
        let grub = to.join("boot/grub");
        std::fs::create_dir_all(&grub).with_context(|| format!("making {}", grub.display()))?;
        let kernel = from.join(format!("boot/vmlinuz-{version}"));
        std::fs::copy(&kernel, to.join("vmlinuz"))
            .with_context(|| format!("copying the kernel {}", kernel.display()))?;
        // The fewer lines the kernel writes to an emulated serial port, the sooner the guest is up.
        std::fs::write(grub.join("grub.cfg"), boot::menu("tiny", &uuid, "quiet"))
            .context("writing GRUB's menu")?;
        let archive = initramfs(&from, &version, &libraries)?;
        let packed =
            zstd::encode_all(archive.as_slice(), 12).context("compressing the initramfs")?;
        std::fs::write(to.join("initrd.img"), packed).context("writing the initramfs")
    })
    .await??;

    progress("writing the disk", 90);
    let loader = Loader::make(&tree, &id.root_uuid, work, cancel).await?;
    Disk {
        size: DISK,
        esp: ESP,
        root: &root,
        root_uuid: &id.root_uuid,
        esp_serial: id.esp_serial,
        loader,
    }
    .write(work, out, cancel)
    .await
}

fn initramfs(tree: &Path, kernel: &str, libraries: &[(String, PathBuf)]) -> Result<Vec<u8>> {
    let read = |path: &Path| {
        std::fs::read(path).with_context(|| format!("reading {} for the initramfs", path.display()))
    };
    let mut cpio = Cpio::new(Vec::new());
    for folder in [
        "bin",
        "sbin",
        "etc",
        "etc/acpi",
        "etc/acpi/PWRF",
        "lib",
        "lib/modules",
        "lib64",
        "lib/x86_64-linux-gnu",
        "usr",
        "usr/sbin",
        "www",
        "www/cgi-bin",
        "root",
    ] {
        cpio.folder(folder)?;
    }
    cpio.file("init", 0o755, INIT.as_bytes())?;
    cpio.file("bin/busybox", 0o755, &read(&tree.join("bin/busybox"))?)?;
    cpio.link("bin/sh", "busybox")?;
    cpio.file(
        "sbin/qemu-ga",
        0o755,
        &read(&tree.join("usr/sbin/qemu-ga"))?,
    )?;
    cpio.file("sbin/shutdown", 0o755, SHUTDOWN.as_bytes())?;
    cpio.file("etc/udhcpc.sh", 0o755, UDHCPC.as_bytes())?;
    // busybox's acpid looks for this name when the power button is pressed.
    cpio.file("etc/acpi/PWRF/00000080", 0o755, SHUTDOWN.as_bytes())?;
    cpio.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")?;
    cpio.file("etc/group", 0o644, b"root:x:0:\n")?;
    cpio.file(
        "etc/os-release",
        0o644,
        b"ID=debvisor-tiny\nNAME=\"DebVisor tiny guest\"\nPRETTY_NAME=\"DebVisor tiny guest\"\n",
    )?;
    cpio.file("www/cgi-bin/echo", 0o755, ECHO.as_bytes())?;
    cpio.file("www/index.html", 0o644, b"tiny\n")?;
    let modules = Modules::scan(&tree.join("lib/modules").join(kernel))?.closure(&MODULES)?;
    let mut order = String::new();
    for module in modules {
        let name = module
            .file_name()
            .context("a module has no name")?
            .to_string_lossy()
            .into_owned();
        cpio.file(&format!("lib/modules/{name}"), 0o644, &read(&module)?)?;
        order.push_str(&name);
        order.push('\n');
    }
    cpio.file("lib/modules/order", 0o644, order.as_bytes())?;
    for (name, file) in libraries {
        cpio.file(&format!("lib/x86_64-linux-gnu/{name}"), 0o755, &read(file)?)?;
    }
    cpio.link(
        "lib64/ld-linux-x86-64.so.2",
        "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
    )?;
    Ok(cpio.finish()?)
}

//! Debian cloud images, built from Debian's own packages by mmdebstrap: cloud kernel, cloud-init, guest agent, and
//! boot loaders for BIOS and UEFI with Secure Boot. No address, key or password is put into an image; each guest gets
//! its own from cloud-init.
//!
//! Two stages, each cached: the root file system as a tarball (a minute), and the disk made of it (seconds).

use super::apt::keyring;
use super::boot::{self, Loader};
use super::command::{Progress, run, watch};
use super::disk::Disk;
use super::mirror::Mirror;
use super::tree::Tree;
use super::{Identity, Release, hash_of};
use anyhow::{Context, Result};
use host::process::Run;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

/// Size of the disk and of its EFI system partition, in MiB. cloud-init grows the root into a larger disk.
const DISK: u64 = 2048;
const ESP: u64 = 64;

/// What is installed on top of the essential packages.
const PACKAGES: [&str; 28] = [
    "linux-image-cloud-amd64",
    "systemd-sysv",
    "udev",
    "dbus",
    "cloud-init",
    "cloud-guest-utils",
    "fdisk",
    "qemu-guest-agent",
    "openssh-server",
    "netplan.io",
    "iproute2",
    "iputils-ping",
    "ca-certificates",
    "debian-archive-keyring",
    "grub-common",
    "grub2-common",
    "grub-pc-bin",
    "grub-efi-amd64-bin",
    "grub-efi-amd64-signed",
    "shim-signed",
    "kmod",
    "sudo",
    "e2fsprogs",
    "dosfstools",
    "systemd-resolved",
    "zstd",
    "less",
    "vim-tiny",
];

/// Manual pages and translations stay out; copyright files stay in.
const DPKG_OPTIONS: [&str; 4] = [
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/locale/*",
];

/// cloud-init under emulation costs a second per idle module and minutes per RSA key.
const CLOUD_INIT: &str = include_str!("debian/cloud.cfg");
/// A guest that cloud-init did not reach still gets a host key, of the quick kind.
const SSH: &str = include_str!("debian/ssh.conf");
/// Read by `update-grub` inside the guest, so that an upgraded kernel boots as the first one did.
const GRUB: &str = include_str!("debian/grub");

/// Timers and jobs that would only make a fresh guest busy.
const MASKED: [&str; 6] = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "man-db.timer",
    "dpkg-db-backup.timer",
];

/// What must not be the same in every guest, or is of no use in one.
const REMOVED: [&str; 9] = [
    "etc/ssh/ssh_host_rsa_key",
    "etc/ssh/ssh_host_rsa_key.pub",
    "etc/ssh/ssh_host_ecdsa_key",
    "etc/ssh/ssh_host_ecdsa_key.pub",
    "etc/ssh/ssh_host_ed25519_key",
    "etc/ssh/ssh_host_ed25519_key.pub",
    "vmlinuz.old",
    "initrd.img.old",
    "var/lib/systemd/random-seed",
];

/// Everything that decides what the image contains, apart from the release.
pub(super) fn inputs() -> Vec<&'static str> {
    vec![include_str!("debian.rs"), CLOUD_INIT, SSH, GRUB]
}

/// The hash of what decides the root file system.
fn root_hash(release: Release) -> String {
    let mut inputs = vec![release.suite()];
    inputs.extend(PACKAGES);
    inputs.extend(DPKG_OPTIONS);
    hash_of(&inputs)
}

/// Builds the image at `out`; the root file system's tarball is kept in `cache`, all else is written below `work`.
pub(super) async fn build(
    release: Release,
    id: &Identity,
    cache: &Path,
    work: &Path,
    out: &Path,
    progress: Progress<'_>,
    cancel: &CancellationToken,
) -> Result<()> {
    let tarball = cache.join(format!(
        "rootfs-{}-{}.tar",
        release.suite(),
        &root_hash(release)[..16]
    ));
    if !tarball.exists() {
        let fresh = work.join("rootfs.tar");
        bootstrap(release, work, &fresh, progress, cancel).await?;
        std::fs::rename(&fresh, &tarball)
            .with_context(|| format!("keeping {}", tarball.display()))?;
    }
    progress("unpacking the root file system", 84);
    let root = work.join("root");
    std::fs::create_dir_all(&root).with_context(|| format!("making {}", root.display()))?;
    let unpack = Run::new("tar").args([
        "--extract",
        "--same-permissions",
        "--numeric-owner",
        "--xattrs",
        "--xattrs-include=*",
        "--file",
    ]);
    run(
        "unpacking the root file system",
        unpack.arg(&tarball).arg("--directory").arg(&root),
        cancel,
    )
    .await?;

    progress("configuring the guest", 90);
    let tree = Tree(root.clone());
    let loader = Loader::make(&tree, &id.root_uuid, work, cancel).await?;
    let (folder, uuid, serial) = (root.clone(), id.root_uuid.clone(), id.esp_serial);
    tokio::task::spawn_blocking(move || configure(&folder, release, &uuid, serial)).await??;

    progress("writing the disk", 94);
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

async fn bootstrap(
    release: Release,
    work: &Path,
    out: &Path,
    progress: Progress<'_>,
    cancel: &CancellationToken,
) -> Result<()> {
    let temporary = work.join("tmp");
    std::fs::create_dir_all(&temporary)
        .with_context(|| format!("making {}", temporary.display()))?;
    // In namespaces of its own, so that killing it takes every process and mount of the chroot with it.
    let mut words: Vec<String> = [
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "mmdebstrap",
    ]
    .map(str::to_owned)
    .into();
    words.extend(
        [
            "--verbose",
            "--variant=minbase",
            "--mode=root",
            "--architectures=amd64",
        ]
        .map(str::to_owned),
    );
    words.push(format!("--keyring={}", keyring()?));
    words.push(format!("--include={}", PACKAGES.join(",")));
    words.extend(
        DPKG_OPTIONS
            .iter()
            .map(|option| format!("--dpkgopt={option}")),
    );
    words.extend([release.suite().to_owned(), out.display().to_string()]);
    words.extend(Mirror::of_this_machine()?.lines(release, None));

    let mut steps = Steps::default();
    let each = |line: &str| {
        if let Some((step, percent)) = steps.line(line) {
            progress(step, percent);
        }
    };
    super::command::installed("mmdebstrap")?;
    watch(
        &format!("building the root file system of {}", release.suite()),
        &words,
        |run| run.env("TMPDIR", &temporary),
        cancel,
        each,
    )
    .await
}

/// Turns mmdebstrap's output into steps and percent.
#[derive(Default)]
struct Steps {
    fetched: u32,
    set_up: u32,
    percent: u8,
}

impl Steps {
    /// What is being done after this line, when that has changed.
    fn line(&mut self, line: &str) -> Option<(&'static str, u8)> {
        // About how many packages there are; a few more or less only bend the percentage.
        const PACKAGES: u32 = 240;
        let part = |done: u32, from: u32, to: u32| {
            u8::try_from((from + (to - from) * done / PACKAGES).min(to)).unwrap_or(u8::MAX)
        };
        let (step, percent) = if line.starts_with("Get:") {
            self.fetched += 1;
            ("downloading packages", part(self.fetched, 3, 25))
        } else if line.starts_with("Setting up ") {
            self.set_up += 1;
            ("installing packages", part(self.set_up, 30, 78))
        } else if line.starts_with("I: running apt-get update") {
            ("reading Debian's package lists", 1)
        } else if line.starts_with("I: extracting archives") {
            ("unpacking essential packages", 26)
        } else if line.starts_with("I: creating tarball") {
            ("packing the root file system", 79)
        } else {
            return None;
        };
        if percent <= self.percent {
            return None;
        }
        self.percent = percent;
        Some((step, percent))
    }
}

fn configure(root: &Path, release: Release, uuid: &str, esp_serial: u32) -> Result<()> {
    let serial = format!("{:04X}-{:04X}", esp_serial >> 16, esp_serial & 0xffff);
    let fstab = format!(
        "UUID={uuid} / ext4 defaults 0 1\n\
         UUID={serial} /boot/efi vfat umask=0077,nofail,noauto,x-systemd.automount,x-systemd.idle-timeout=60 0 0\n"
    );
    let menu = boot::menu(release.title(), uuid, &format!("root=UUID={uuid} ro"));
    let files: [(&str, &str); 8] = [
        ("etc/fstab", &fstab),
        ("boot/grub/grub.cfg", &menu),
        ("etc/default/grub", GRUB),
        ("etc/cloud/cloud.cfg.d/90-debvisor.cfg", CLOUD_INIT),
        ("etc/systemd/system/ssh.service.d/debvisor.conf", SSH),
        ("etc/hostname", "debian\n"),
        (
            "etc/hosts",
            "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\nff02::1 ip6-allnodes\nff02::2 ip6-allrouters\n",
        ),
        // Empty means: each guest makes its own at its first boot.
        ("etc/machine-id", ""),
    ];
    let failed = |what: &'static str, path: PathBuf| {
        move || format!("{what} {} in the image", path.display())
    };
    for name in REMOVED {
        match std::fs::remove_file(root.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(failed("removing", name.into()));
            }
            _ => {}
        }
    }
    std::fs::create_dir_all(root.join("boot/efi"))
        .with_context(failed("making", "boot/efi".into()))?;
    for (name, content) in files {
        let path = root.join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .with_context(failed("making the folder of", name.into()))?;
        }
        std::fs::write(&path, content).with_context(failed("writing", name.into()))?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644))
            .with_context(failed("setting the mode of", name.into()))?;
    }
    for unit in MASKED {
        replace_with_link(&root.join("etc/systemd/system").join(unit), "/dev/null")
            .with_context(failed("masking", unit.into()))?;
    }
    replace_with_link(
        &root.join("etc/resolv.conf"),
        "../run/systemd/resolve/stub-resolv.conf",
    )
    .with_context(failed("linking", "etc/resolv.conf".into()))?;
    for (modules, name) in [
        (boot::BIOS_MODULES, "i386-pc"),
        (boot::UEFI_MODULES, "x86_64-efi"),
    ] {
        let to = root.join("boot/grub").join(name);
        std::fs::create_dir_all(&to).with_context(failed("making", to.clone()))?;
        for entry in
            std::fs::read_dir(root.join(modules)).with_context(failed("reading", modules.into()))?
        {
            let from = entry?.path();
            if let Some(file) = from
                .file_name()
                .filter(|_| from.extension().is_some_and(|e| e == "mod" || e == "lst"))
            {
                std::fs::copy(&from, to.join(file))
                    .with_context(failed("copying", from.clone()))?;
            }
        }
    }
    Ok(())
}

fn replace_with_link(path: &Path, target: &str) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(target, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_only_grows_and_stays_within_its_stage() {
        let mut steps = Steps::default();
        let mut seen = Vec::new();
        let mut lines = vec!["I: running apt-get update...".to_owned()];
        lines.extend((0..400).map(|n| format!("Get:{n} archive bookworm/main amd64 x")));
        lines.push("I: extracting archives...".to_owned());
        lines.extend((0..400).map(|n| format!("Setting up p{n} (1.0) ...")));
        lines.push("I: creating tarball...".to_owned());
        for line in lines {
            seen.extend(steps.line(&line));
        }
        assert!(seen.windows(2).all(|w| w[0].1 < w[1].1));
        assert_eq!(seen.first(), Some(&("reading Debian's package lists", 1)));
        assert_eq!(seen.last(), Some(&("packing the root file system", 79)));
        assert!(
            seen.contains(&("downloading packages", 25))
                && seen.contains(&("installing packages", 78))
        );
    }

    #[test]
    fn each_release_has_its_own_root() {
        assert_ne!(root_hash(Release::Bookworm), root_hash(Release::Trixie));
    }
}

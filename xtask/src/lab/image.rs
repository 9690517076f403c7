//! Builds the lab guest's disk once per recipe, in the cache outside the checkout.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{packages, sh, tree};

/// Debian 13: its QEMU is new enough without backports, and it is the other release we promise to run on.
const SUITE: &str = "trixie";

/// What the package depends on or recommends, and what the script in the guest uses.
const PACKAGES: &[&str] = &[
    "linux-image-cloud-amd64",
    "systemd-sysv",
    "systemd-resolved",
    "udev",
    "dbus",
    "kmod",
    "iproute2",
    "nftables",
    "dnsmasq-base",
    "qemu-system-x86",
    "qemu-utils",
    "ovmf",
    "swtpm",
    "swtpm-tools",
    "busybox-static",
    "cpio",
    "zstd",
    "genisoimage",
    "mmdebstrap",
    "gdisk",
    "mtools",
    "e2fsprogs",
    "adduser",
    "iputils-ping",
    "curl",
    "jq",
    "procps",
    "psmisc",
];

const LEFT_OUT: &[&str] = &[
    "/usr/share/man/*",
    "/usr/share/doc/*",
    "/usr/share/locale/*",
];

/// Unpacks the second disk and runs what is in it, with its words on the second serial port.
const UNIT: &str = include_str!("lab.service");

/// Done in the root before it becomes a disk.
const SETTLE: &str = include_str!("settle.sh");

/// A disk and what boots it.
pub struct Image {
    pub disk: PathBuf,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
}

/// The image of this recipe, built now if the cache lacks it.
pub fn ensure() -> Result<Image> {
    let folder = tree::cache().join(format!("lab-{:016x}", recipe()));
    let image = |folder: &Path| Image {
        disk: folder.join("disk.raw"),
        kernel: folder.join("vmlinuz"),
        initrd: folder.join("initrd"),
    };
    if folder.join("whole").exists() {
        return Ok(image(&folder));
    }
    println!(
        "building the lab guest (Debian {SUITE}; some minutes, once) in {}",
        folder.display()
    );
    fs::create_dir_all(tree::cache())
        .with_context(|| format!("cannot make {}", tree::cache().display()))?;
    let work = folder.with_extension(format!("new-{}", std::process::id()));
    let built = build(&work);
    if built.is_err() {
        let _ = sh::run(sh::as_root("rm")?.arg("-rf").arg(&work));
    }
    built?;
    let _ = fs::remove_dir_all(&folder);
    fs::rename(&work, &folder).with_context(|| format!("cannot keep {}", folder.display()))?;
    Ok(image(&folder))
}

fn recipe() -> u64 {
    let mut hash = DefaultHasher::new();
    (
        SUITE,
        PACKAGES,
        LEFT_OUT,
        UNIT,
        SETTLE,
        include_str!("image.rs"),
    )
        .hash(&mut hash);
    hash.finish()
}

fn build(work: &Path) -> Result<()> {
    fs::create_dir_all(work)?;
    let root = work.join("root");
    let mut bootstrap = sh::as_root("mmdebstrap")?;
    bootstrap
        .args([
            "--quiet",
            "--variant=minbase",
            "--mode=root",
            "--architectures=amd64",
        ])
        .args(["--keyring=/usr/share/keyrings/debian-archive-keyring.gpg"])
        .arg(format!("--include={}", PACKAGES.join(",")))
        .args(
            LEFT_OUT
                .iter()
                .map(|path| format!("--dpkgopt=path-exclude={path}")),
        )
        .arg(SUITE)
        .arg(&root)
        .arg(packages::mirror_line(SUITE)?);
    sh::run(&mut bootstrap)?;
    fs::write(work.join("lab.service"), UNIT)?;
    // As root, in one go: the files belong to root.
    let mut settle = sh::as_root("sh")?;
    settle.args(["-euc", SETTLE, "settle"]).arg(work);
    sh::run(&mut settle)?;
    sh::run(Command::new("touch").arg(work.join("whole")))
}

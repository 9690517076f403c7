//! The lab guest: a whole Debian with systemd, cgroup v2 and a `/dev/kvm` that works, under software emulation.
//!
//! What a container or a CI machine lacks is tested in it: the installed package, its units, socket activation, guests under KVM, a reboot. It never uses the network once its
//! image is built, and each run starts from the same disk.

mod guest;
mod image;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{deb, down, instance::Instance, sh, tree, up};

/// Runs inside the guest at every boot of it.
const SCRIPT: &str = include_str!("inside.sh");

/// Longest run of the guest, under emulation beside a busy compiler.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// Builds the package and the guest when needed, runs the script in it, and fails when a check in it failed or none ran.
pub fn command() -> Result<()> {
    let image = image::ensure()?;
    let package = deb::build(deb::Profile::Dev)?;
    let folder = tree::target().join("lab");
    std::fs::create_dir_all(&folder)?;
    let payload = pack(&folder, &package)?;
    let report = guest::run(&image, &payload, &folder, LIMIT)?;
    println!(
        "lab: {} passed, {} failed",
        report.passed,
        report.failed.len()
    );
    if !report.failed.is_empty() {
        bail!(
            "in the lab guest: {}; its console is {}",
            report.failed.join("; "),
            report.console.display()
        );
    }
    if report.passed == 0 {
        bail!(
            "no check ran in the lab guest; its console is {}",
            report.console.display()
        );
    }
    Ok(())
}

/// The tiny image as a file: the guest cannot build one, for it has no network. An instance builds it when no test has yet.
fn tiny() -> Result<PathBuf> {
    let built = || {
        let names = std::fs::read_dir(tree::cache())
            .ok()?
            .flatten()
            .map(|entry| entry.path());
        let named = |path: &PathBuf| {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            name.starts_with("tiny-") && name.ends_with(".qcow2")
        };
        names
            .filter(named)
            .max_by_key(|path| path.metadata().and_then(|meta| meta.modified()).ok())
    };
    if built().is_none() {
        let instance = Instance::named("lab-image")?;
        up::start(&instance, false)?;
        let made = up::ground(&instance);
        down::down(&instance, true)?;
        made?;
    }
    built().context("an instance made the tiny image, but it is not in the cache")
}

/// A tar file that the guest reads as its second disk.
fn pack(folder: &Path, package: &Path) -> Result<PathBuf> {
    let inside = folder.join("payload");
    let _ = std::fs::remove_dir_all(&inside);
    std::fs::create_dir_all(&inside)?;
    std::fs::copy(package, inside.join("debvisor.deb"))
        .with_context(|| format!("cannot copy {}", package.display()))?;
    std::fs::copy(tiny()?, inside.join("tiny.qcow2"))?;
    std::fs::write(inside.join("run"), SCRIPT)?;
    let payload = folder.join("payload.tar");
    // Padded to a whole number of sectors, else the guest's disk ends before the archive does.
    sh::run(
        Command::new("tar")
            .args(["--create", "--record-size=1M", "--file"])
            .arg(&payload)
            .arg("-C")
            .arg(&inside)
            .arg("."),
    )?;
    Ok(payload)
}

//! The lab guest: a whole Debian with systemd, cgroup v2 and a `/dev/kvm` that works, under software emulation.
//!
//! What a container or a CI machine lacks is tested in it: the installed package, its units, socket activation, guests under KVM, a reboot. It never uses the network once its
//! image is built, and each run starts from the same disk.

mod guest;
mod image;

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, bail};

use crate::{deb, sh, tree};

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

/// A tar file that the guest reads as its second disk.
fn pack(folder: &Path, package: &Path) -> Result<std::path::PathBuf> {
    let inside = folder.join("payload");
    let _ = std::fs::remove_dir_all(&inside);
    std::fs::create_dir_all(&inside)?;
    std::fs::copy(package, inside.join("debvisor.deb"))
        .with_context(|| format!("cannot copy {}", package.display()))?;
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

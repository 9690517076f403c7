//! Installs Debian packages: one `apt-get update`, QEMU from a suite that is new enough, no service started.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::{QEMU_FLOOR, QEMU_SET, sources, version_in};
use crate::sh;

/// The only script that runs as root here. `$1` is a target suite or `-`, the rest are packages; no package means "update the lists".
const SCRIPT: &str = include_str!("install.sh");
const OUR_SOURCES: &str = "/etc/apt/sources.list.d/debvisor-backports.sources";

pub fn install(packages: &[&str]) -> Result<()> {
    let codename = debian_codename()?;
    if !sh::is_root() {
        eprintln!("installing needs root: asking sudo");
    }
    root_script("-", &[])?;
    let (qemu, others): (Vec<_>, Vec<_>) = packages
        .iter()
        .copied()
        .partition(|name| QEMU_SET.contains(name));
    if !qemu.is_empty() {
        let suite = qemu_suite(&codename)?;
        root_script(&suite, QEMU_SET)?;
    }
    if !others.is_empty() {
        root_script("-", &others)?;
    }
    Ok(())
}

/// The suite to take QEMU from: `-` when the default one is new enough, else backports, which are added when the machine does not have them.
fn qemu_suite(codename: &str) -> Result<String> {
    let policy = |target: &[&str]| -> Result<Option<(u32, u32)>> {
        let mut command = Command::new("apt-cache");
        command.args(target).args(["policy", "qemu-system-x86"]);
        let text = sh::output(command.env("LC_ALL", "C"))?;
        let candidate = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("Candidate: "));
        Ok(candidate.and_then(version_in))
    };
    if policy(&[])?.is_some_and(|version| version >= QEMU_FLOOR) {
        return Ok("-".into());
    }
    let suite = format!("{codename}-backports");
    let target = format!("APT::Default-Release={suite}");
    let found = sources::read()?;
    if !found.iter().any(|source| source.has_suite(&suite)) {
        let text = sources::for_suite(&found, codename, &suite).with_context(|| {
            format!(
                "QEMU {}.{} or newer is in {suite}, but no apt source for {codename} was found to take its mirror from: add {suite} to /etc/apt/sources.list.d",
                QEMU_FLOOR.0, QEMU_FLOOR.1
            )
        })?;
        eprintln!(
            "adding the suite {suite} in {OUR_SOURCES}, because {codename} has no QEMU {}.{}",
            QEMU_FLOOR.0, QEMU_FLOOR.1
        );
        write_as_root(OUR_SOURCES, &text)?;
        root_script("-", &[])?;
    }
    match policy(&["-o", &target])? {
        Some(version) if version >= QEMU_FLOOR => Ok(suite),
        other => bail!(
            "the machine's apt sources offer QEMU {other:?} in {suite}; {}.{} is the oldest that works",
            QEMU_FLOOR.0,
            QEMU_FLOOR.1
        ),
    }
}

fn root_script(suite: &str, packages: &[&str]) -> Result<()> {
    let mut command = sh::as_root("sh")?;
    command
        .args(["-s", "--", suite])
        .args(packages)
        .stdin(Stdio::piped());
    let mut child = command
        .spawn()
        .context("cannot start a shell for apt-get")?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(SCRIPT.as_bytes())?;
    }
    let status = child.wait()?;
    if !status.success() {
        let what = if packages.is_empty() {
            "apt-get update".to_owned()
        } else {
            format!("apt-get install {}", packages.join(" "))
        };
        bail!("`{what}` failed ({status}); its messages are above");
    }
    Ok(())
}

fn write_as_root(path: &str, text: &str) -> Result<()> {
    let mut command = sh::as_root("tee")?;
    let mut child = command
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot write {path}"))?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(text.as_bytes())?;
    }
    if !child.wait()?.success() {
        bail!("cannot write {path}");
    }
    Ok(())
}

pub fn debian_codename() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    match (field("ID").as_deref(), field("VERSION_CODENAME")) {
        (Some("debian"), Some(codename)) => Ok(codename),
        (id, _) => bail!(
            "packages can be installed on Debian 12 and 13 only; this is {}: install the packages named above by hand",
            id.unwrap_or("unknown")
        ),
    }
}

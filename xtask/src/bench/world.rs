//! The instance that is measured, and what is read of it from outside.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    down,
    instance::Instance,
    packages::{self, Group},
    sh, up,
};

/// An instance that is made for a benchmark and removed after it, however it ends.
pub struct World {
    pub instance: Instance,
}

impl World {
    /// Optimised daemons, the tiny image, and nothing else.
    pub fn new() -> Result<World> {
        packages::ensure(&[Group::Build, Group::Run])?;
        let world = World {
            instance: Instance::named("bench")?,
        };
        down::down(&world.instance, true)?;
        up::start(&world.instance, true)?;
        up::ground(&world.instance)?;
        Ok(world)
    }

    /// The CLI of the instance with these words; an error when it fails.
    pub fn dvctl(&self, words: &[&str]) -> Result<String> {
        sh::output(up::dvctl(&self.instance).args(words))
    }

    /// An object as JSON.
    pub fn show(&self, kind: &str, name: &str) -> Result<Value> {
        Ok(serde_json::from_str(
            &self.dvctl(&[kind, "show", name, "-o", "json"])?,
        )?)
    }

    /// The QEMU of a VM of this instance.
    pub fn qemu(&self, vm: &str) -> Option<u32> {
        let mark = format!("guest={}-{vm},", self.instance.netns());
        processes("qemu-system-x86_64").into_iter().find(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&mark)
        })
    }

    /// Where the QEMU of a VM has its sockets and its console's log.
    pub fn run_dir(&self, vm: &str) -> Result<PathBuf> {
        let uid = self.show("vm", vm)?["metadata"]["uid"]
            .as_str()
            .context("a VM without a uid")?
            .to_owned();
        let short: String = uid.chars().filter(|c| *c != '-').collect();
        let folder = self.instance.run_dir().join("vm");
        for entry in fs::read_dir(&folder)
            .with_context(|| format!("cannot read {}", folder.display()))?
            .flatten()
        {
            let name = entry.file_name().to_string_lossy().replace('-', "");
            if !name.is_empty() && short.contains(&name) {
                return Ok(entry.path());
            }
        }
        bail!("no folder of VM `{vm}` in {}", folder.display())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Err(error) = down::down(&self.instance, true) {
            eprintln!("the instance of the benchmark was not removed: {error:#}");
        }
    }
}

/// Processes of a program, by its file name.
pub fn processes(program: &str) -> Vec<u32> {
    let named = |pid: &u32| {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(program))
        })
    };
    sh::pids().into_iter().filter(named).collect()
}

/// Waits, looking every millisecond, and answers how long it took since `start`.
pub fn when(
    what: &str,
    start: Instant,
    limit: Duration,
    mut seen: impl FnMut() -> bool,
) -> Result<Duration> {
    loop {
        if seen() {
            return Ok(start.elapsed());
        }
        if start.elapsed() > limit {
            bail!("not within {} s: {what}", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Proportional set size in KiB and CPU time in clock ticks of a process.
pub fn cost(pid: u32) -> Option<(u64, u64)> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let pss = pss.split_whitespace().next()?.parse().ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<_> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    // After the name: utime is the 12th field, stime the 13th.
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some((pss, ticks))
}

/// A copy of a disk for a guest by hand, on the same file system.
pub fn copy(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    sh::output(
        Command::new("cp")
            .args(["--reflink=auto", "--sparse=always"])
            .arg(from)
            .arg(to),
    )?;
    Ok(())
}

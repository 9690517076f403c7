//! `kill -9` of a daemon at some moment of a change. The moments are random, from a seed that is printed and can be given
//! (`DEBVISOR_SEED`); after each, the change has happened or has not, and nothing half-made stays.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use system_tests::{Around, Instance, run, until};

use crate::{
    crashes::kill,
    harness::Stage,
    transcript::{BOOT, state, uptime},
};

/// Repeatable moments (xorshift).
struct Moments(u64);

impl Moments {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Begins a command, kills a daemon some moments later, starts it again, and waits until all is ready.
fn interrupted(on: &Instance, moments: &mut Moments, words: &[&str], longest: u64) -> Result<()> {
    let (role, after) = (
        ["api", "agent"][moments.below(2) as usize],
        moments.below(longest),
    );
    let mut client = on
        .command(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    // The moment itself is what is tried out; nothing is waited for.
    thread::sleep(Duration::from_millis(after));
    kill(&on.daemons(role))?;
    on.start(role, &Around::default())?;
    on.ready(Duration::from_secs(60))
        .with_context(|| format!("after the {role} was killed {after} ms into {words:?}"))?;
    client.kill()?;
    client.wait()?;
    Ok(())
}

/// Files below a folder, without what changes by itself.
fn files(below: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![below.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    found.insert(path.display().to_string());
                }
            }
        }
    }
    found
}

fn names(on: &Instance, kind: &str) -> Result<BTreeSet<String>> {
    let out = on.dvctl(&[kind, "list", "-o", "name"])?.ok()?.out;
    Ok(out.lines().map(str::to_owned).collect())
}

/// What there is of guests and disks.
fn world(on: &Instance) -> Result<Vec<BTreeSet<String>>> {
    let mut all = vec![files(&on.dir().join("pools")), files(&on.dir().join("vms"))];
    for kind in ["vm", "volume", "image", "address"] {
        all.push(names(on, kind)?);
    }
    let folders = fs::read_dir(on.run_dir().join("vm")).into_iter().flatten();
    all.push(
        folders
            .flatten()
            .map(|f| f.file_name().to_string_lossy().into_owned())
            .collect(),
    );
    Ok(all)
}

fn gone(on: &Instance, kind: &str, name: &str) -> Result<()> {
    until(&format!("{kind} `{name}` is gone"), BOOT, || {
        match on.dvctl(&[kind, "show", name])?.code {
            4 => Ok(Some(())),
            _ => Ok(None),
        }
    })
}

pub fn at_any_moment(stage: &mut Stage) -> Result<()> {
    let on = stage.tiny()?;
    let given = std::env::var("DEBVISOR_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or(u64::from(std::process::id()) << 20 | 1);
    println!("    DEBVISOR_SEED={seed}");
    let mut moments = Moments(seed);
    let hello = on.qemu("hello").context("`hello` does not run")?;
    let before = world(on)?;
    let disk = on.dir().join("small.qcow2");
    let mut tool = Command::new("qemu-img");
    tool.args(["create", "-q", "-f", "qcow2"])
        .arg(&disk)
        .arg("64M");
    run(&mut tool, Duration::from_secs(30))?.ok()?;

    let source = format!("file={}", disk.display());
    let import = ["image", "create", "torn", "--source", &source];
    interrupted(on, &mut moments, &import, 600)?;
    if on.dvctl(&["image", "show", "torn"])?.code == 4 {
        // What was asked for before the kill may still be carried out: then it is there, which is no error.
        on.dvctl(&import)?;
    }
    until("the image is ready", BOOT, || {
        Ok((on.show("image", "torn")?["status"]["state"] == "ready").then_some(()))
    })?;

    let create = [
        "vm",
        "create",
        "torn",
        "--image",
        "tiny",
        "--vcpus",
        "1",
        "--memory",
        "256MiB",
        "--network",
        "default",
        "--start",
    ];
    interrupted(on, &mut moments, &create, 1500)?;
    if on.dvctl(&["vm", "show", "torn"])?.code == 4 {
        on.dvctl(&create)?;
    }
    state(on, "torn", "running")?;

    let size = 3u64 << 30;
    let resize = ["vm", "resize", "torn", "--size", "3GiB"];
    interrupted(on, &mut moments, &resize, 500)?;
    // Asked for again, it is what was asked for: resizing to a size that is there is no change.
    on.dvctl(&resize)?.ok()?;
    until("the disk has its new size", BOOT, || {
        let volume = on.show("vm", "torn")?["status"]["disks"][0]["volume"].clone();
        let volume = volume.as_str().context("no disk")?.to_owned();
        let shown = on.show("volume", volume.rsplit('/').next().unwrap_or_default())?;
        Ok((shown["spec"]["size"] == size || shown["spec"]["size"] == "3GiB").then_some(()))
    })?;
    uptime(on, "torn")?;

    for (kind, longest) in [("vm", 1500), ("image", 500)] {
        let delete = [kind, "delete", "torn", "--yes"];
        interrupted(on, &mut moments, &delete, longest)?;
        if on.dvctl(&[kind, "show", "torn"])?.code != 4 {
            // It may have been asked for already, which is no error.
            on.dvctl(&delete)?;
        }
        gone(on, kind, "torn")?;
    }
    let mut left = Vec::new();
    until("nothing half-made is left", Duration::from_secs(60), || {
        let now = world(on)?;
        left = now
            .iter()
            .zip(&before)
            .flat_map(|(now, before)| now.symmetric_difference(before).cloned())
            .collect();
        Ok(left.is_empty().then_some(()))
    })
    .with_context(|| format!("what differs from before: {left:?}"))?;
    ensure!(on.qemu("hello") == Some(hello), "another QEMU runs `hello`");
    Ok(())
}

//! `vm-start`: from the request to create a running VM until its guest's first line on the serial port, beside QEMU started by hand.
//!
//! The guest has no network interface: a tap cannot be opened twice. All else of its command line is the same.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    figure::{Figure, Wanted, median},
    hand::{Folder, Line},
    world::{World, copy, when},
};
use crate::instance::http::{self, Body};

/// A boot under software emulation, beside nothing.
const LIMIT: Duration = Duration::from_secs(60);

pub fn run(rounds: usize) -> Result<Vec<Figure>> {
    let world = World::new()?;
    let (line, disks) = model(&world)?;
    let (mut ours, mut by_hand, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        // In turns, so that a busy moment of the machine falls on both.
        let hand = start_by_hand(&line, disks.path(), &format!("hand{round}"))?;
        let own = start_by_us(&world, &format!("round{round}"))?;
        ours.push(own.as_secs_f64());
        by_hand.push(hand.as_secs_f64());
        ratios.push(own.as_secs_f64() / hand.as_secs_f64());
    }
    let overhead = ours
        .iter()
        .zip(&by_hand)
        .map(|(own, hand)| (own - hand) * 1000.0)
        .collect();
    let figure = |name: &str, value, unit, against, wanted| Figure {
        bench: "vm-start",
        name: name.to_owned(),
        value,
        unit,
        against,
        wanted,
    };
    Ok(vec![
        figure(
            "create and start to first serial line",
            median(ours),
            "s",
            "",
            Wanted::Nothing,
        ),
        figure(
            "the same command line by hand",
            median(by_hand),
            "s",
            "",
            Wanted::Nothing,
        ),
        figure(
            "ratio, median",
            median(ratios),
            "ratio",
            "QEMU by hand",
            Wanted::AtMost(1.15),
        ),
        figure(
            "own overhead, median",
            median(overhead),
            "ms",
            "QEMU by hand",
            Wanted::AtMost(150.0),
        ),
    ])
}

/// The manifest of a measured guest.
pub fn manifest(name: &str, power: &str) -> Value {
    json!({"version": "v1", "kind": "vm", "metadata": {"name": name, "project": "default"},
        "spec": {"vcpus": 1, "memory": "256MiB", "disks": [{"image": "tiny"}], "power": power}})
}

const VMS: &str = "/api/v1/projects/default/vms";

/// Starts one guest for its command line, stops it, and keeps copies of its disks.
pub fn model(world: &World) -> Result<(Line, Disks)> {
    http::call(
        &world.instance.api_socket(),
        "POST",
        VMS,
        &Body::Json(&manifest("model", "on")),
    )?;
    when("the model has a QEMU", Instant::now(), LIMIT, || {
        world.qemu("model").is_some()
    })?;
    let console = console(world, "model")?;
    when("the model boots", Instant::now(), LIMIT, || {
        has_line(&console)
    })?;
    let line = Line::of(world.qemu("model").context("the model's QEMU is gone")?)?;
    world.dvctl(&["vm", "stop", "model"])?;
    let disks = Disks(world.instance.dir().join("bench-disks"));
    fs::create_dir_all(&disks.0)?;
    for disk in line.written() {
        copy(
            disk,
            &disks
                .0
                .join(disk.file_name().context("a disk without a name")?),
        )?;
    }
    Ok((line, disks))
}

/// Copies of the model's disks, in the folder of the instance and gone with it.
pub struct Disks(std::path::PathBuf);

impl Disks {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// The log of a VM's serial port.
fn console(world: &World, vm: &str) -> Result<std::path::PathBuf> {
    Ok(world.run_dir(vm)?.join("console.log"))
}

/// Whether the guest has written a whole line.
pub fn has_line(console: &Path) -> bool {
    fs::read(console).is_ok_and(|text| text.contains(&b'\n'))
}

fn start_by_us(world: &World, name: &str) -> Result<Duration> {
    let start = Instant::now();
    let made = http::call(
        &world.instance.api_socket(),
        "POST",
        VMS,
        &Body::Json(&manifest(name, "on")),
    )?;
    let uid = made["metadata"]["uid"]
        .as_str()
        .context("a VM without a uid")?;
    let mut log = None;
    let took = when("the guest writes a line", start, LIMIT, || {
        if log.is_none() {
            log = console_of(world, uid);
        }
        log.as_deref().is_some_and(has_line)
    })?;
    world.dvctl(&["vm", "delete", name, "--yes"])?;
    Ok(took)
}

/// The console's log of the VM with that uid, once its folder is there.
pub fn console_of(world: &World, uid: &str) -> Option<std::path::PathBuf> {
    let whole = uid.replace('-', "");
    let folders = fs::read_dir(world.instance.run_dir().join("vm")).ok()?;
    let found = folders.flatten().find(|entry| {
        let name = entry.file_name().to_string_lossy().replace('-', "");
        !name.is_empty() && whole.contains(&name)
    })?;
    Some(found.path().join("console.log"))
}

/// Starts one by hand with disks of its own, and answers how long it took to its first line.
pub fn start_by_hand(line: &Line, disks: &Path, name: &str) -> Result<Duration> {
    let folder = Folder::new(name)?;
    let own = own_disks(disks, name)?;
    let ready = line.ready(&folder.0, name, false, |disk| own.of(disk))?;
    let start = Instant::now();
    let _guest = ready.go()?;
    when("the guest by hand writes a line", start, LIMIT, || {
        has_line(&folder.0.join("console.log"))
    })
}

/// Fresh copies for one guest.
pub struct Own(std::path::PathBuf);

impl Own {
    pub fn of(&self, disk: &Path) -> std::path::PathBuf {
        self.0.join(disk.file_name().unwrap_or_default())
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn own_disks(disks: &Path, name: &str) -> Result<Own> {
    let folder = disks.join(name);
    fs::create_dir_all(&folder)?;
    for disk in fs::read_dir(disks)?
        .flatten()
        .filter(|entry| entry.path().is_file())
    {
        copy(&disk.path(), &folder.join(disk.file_name()))?;
    }
    Ok(Own(folder))
}

//! `many`: 64 VMs launched with their CPUs standing still, and 8 tiny guests to their first line, each beside a loop over the same command lines.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::{
    figure::{Figure, Wanted, median},
    hand::{Folder, Line},
    vm_start::{Disks, console_of, has_line, manifest, model, own_disks},
    world::{World, when},
};
use crate::instance::http::{self, Body};

const PAUSED: usize = 64;
const BOOTED: usize = 8;
const LIMIT: Duration = Duration::from_secs(300);
const VMS: &str = "/api/v1/projects/default/vms";

pub fn run(rounds: usize) -> Result<Vec<Figure>> {
    let world = World::new()?;
    let (line, disks) = model(&world)?;
    let names: Vec<_> = (0..PAUSED).map(|n| format!("many{n}")).collect();
    for name in &names {
        http::call(
            &world.instance.api_socket(),
            "POST",
            VMS,
            &Body::Json(&manifest(name, "off")),
        )?;
    }
    let mut figures = Vec::new();
    let sorts = [
        ("64 VMs launched paused", PAUSED, "paused"),
        ("8 tiny guests to first line", BOOTED, "on"),
    ];
    for (what, count, power) in sorts {
        let (mut ours, mut by_hand, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let hand = by_hand_loop(&line, &disks, count, power)?.as_secs_f64();
            let own = by_us(&world, &names[..count], power)?.as_secs_f64();
            ours.push(own);
            by_hand.push(hand);
            ratios.push(own / hand);
        }
        let figure = |name: String, value, unit, against, wanted| Figure {
            bench: "many",
            name,
            value,
            unit,
            against,
            wanted,
        };
        figures.push(figure(
            what.to_owned(),
            median(ours),
            "s",
            "",
            Wanted::Nothing,
        ));
        figures.push(figure(
            format!("{what}, by a loop"),
            median(by_hand),
            "s",
            "",
            Wanted::Nothing,
        ));
        figures.push(figure(
            format!("{what}, ratio"),
            median(ratios),
            "ratio",
            "a loop of the same lines",
            Wanted::AtMost(1.2),
        ));
    }
    Ok(figures)
}

fn power(world: &World, name: &str, to: &str) -> Result<()> {
    http::call(
        &world.instance.api_socket(),
        "PATCH",
        &format!("{VMS}/{name}"),
        &Body::MergePatch(&json!({"spec": {"power": to}})),
    )?;
    Ok(())
}

fn by_us(world: &World, names: &[String], to: &str) -> Result<Duration> {
    let uids = vms(world)?
        .iter()
        .filter(|vm| names.iter().any(|name| vm["name"] == **name))
        .filter_map(|vm| vm["metadata.uid"].as_str().map(str::to_owned))
        .collect::<Vec<_>>();
    let start = Instant::now();
    for name in names {
        power(world, name, to)?;
    }
    // Each look costs the machine something, on our account: one answer for all of them, or one small file each.
    let took = when("all guests are there", start, LIMIT, || {
        if to == "paused" {
            thread::sleep(Duration::from_millis(50));
            return in_state(world, "paused").is_ok_and(|count| count == names.len());
        }
        thread::sleep(Duration::from_millis(10));
        let speaks = |uid: &String| console_of(world, uid).is_some_and(|log| has_line(&log));
        uids.len() == names.len() && uids.iter().all(speaks)
    })?;
    for name in names {
        http::call(
            &world.instance.api_socket(),
            "PATCH",
            &format!("{VMS}/{name}"),
            &Body::MergePatch(&json!({"spec": {"power": "off", "power_off": {"mode": "hard"}}})),
        )?;
    }
    when("all guests are off", Instant::now(), LIMIT, || {
        thread::sleep(Duration::from_millis(50));
        in_state(world, "stopped").is_ok_and(|count| count > PAUSED)
    })?;
    Ok(took)
}

fn vms(world: &World) -> Result<Vec<serde_json::Value>> {
    let path = format!("{VMS}?limit=500&fields=name,metadata.uid,state");
    let list = http::call(&world.instance.api_socket(), "GET", &path, &Body::None)?;
    let items = list["items"].as_array().context("a list without items")?;
    Ok(items.clone())
}

/// How many VMs are in a state.
fn in_state(world: &World, state: &str) -> Result<usize> {
    let state_of = |vm: &&serde_json::Value| vm["state"] == state;
    Ok(vms(world)?.iter().filter(state_of).count())
}

fn by_hand_loop(line: &Line, disks: &Disks, count: usize, to: &str) -> Result<Duration> {
    let paused = to == "paused";
    let mut made = Vec::new();
    for n in 0..count {
        let name = format!("many{n}");
        let folder = Folder::new(&name)?;
        let own = own_disks(disks.path(), &name)?;
        let ready = line.ready(&folder.0, &name, paused, |disk| own.of(disk))?;
        made.push((folder, own, ready));
    }
    let start = Instant::now();
    let mut guests = Vec::new();
    for (folder, own, ready) in made {
        guests.push((ready.go()?, folder, own));
    }
    if paused {
        // Each is asked as ours is before we call it paused.
        for (_, folder, _) in &guests {
            answers(&folder.0.join("qmp"), start)?;
        }
        return Ok(start.elapsed());
    }
    let speaks = |folder: &Folder| has_line(&folder.0.join("console.log"));
    when("all guests by hand speak", start, LIMIT, || {
        guests.iter().all(|(_, folder, _)| speaks(folder))
    })
}

/// Waits until a QEMU answers over QMP that it stands before its first instruction.
fn answers(socket: &Path, start: Instant) -> Result<()> {
    let mut stream = None;
    when("QEMU by hand listens", start, LIMIT, || {
        stream = UnixStream::connect(socket).ok();
        stream.is_some()
    })?;
    let mut stream = stream.context("no QMP connection")?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"{\"execute\":\"qmp_capabilities\"}{\"execute\":\"query-status\"}\n")?;
    for line in BufReader::new(stream).lines() {
        if line?.contains("prelaunch") {
            return Ok(());
        }
    }
    bail!("{} was closed", socket.display())
}

//! `many`: 64 VMs launched with their CPUs standing still, and 8 tiny guests to their first line, each beside a loop over the same command lines.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::json;

use super::{
    figure::{Figure, Wanted, median},
    hand::{Folder, Guest, Line},
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
    let mut folders = Vec::new();
    let mut own = Vec::new();
    for n in 0..count {
        folders.push(Folder::new(&format!("many{n}"))?);
        own.push(own_disks(disks.path(), &format!("many{n}"))?);
    }
    let paused = to == "paused";
    let start = Instant::now();
    let mut guests = Vec::new();
    for (n, (folder, own)) in folders.iter().zip(&own).enumerate() {
        guests.push(Guest(line.start_with(
            &folder.0,
            &format!("many{n}"),
            paused,
            |disk| own.of(disk),
        )?));
    }
    when("all guests by hand are there", start, LIMIT, || {
        folders.iter().all(|folder| {
            if paused {
                folder.0.join("qmp").exists()
            } else {
                has_line(&folder.0.join("console.log"))
            }
        })
    })
}

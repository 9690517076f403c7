//! `idle`: what our processes cost while nothing happens, with 100 stopped and 10 running guests. Guests, dnsmasq and swtpm are not ours to count.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    figure::{Figure, Wanted},
    vm_start::manifest,
    world::{World, cost, when},
};
use crate::instance::{
    daemons::{self, Role},
    http::{self, Body},
};

const STOPPED: usize = 100;
const RUNNING: usize = 10;
/// Until boots are over and caches are warm.
const SETTLE: Duration = Duration::from_secs(90);
const MEASURE: Duration = Duration::from_secs(60);
/// Clock ticks a second, which Linux fixes for user space.
const TICKS: f64 = 100.0;

pub fn run() -> Result<Vec<Figure>> {
    let world = World::new()?;
    for n in 0..STOPPED + RUNNING {
        let power = if n < RUNNING { "on" } else { "off" };
        http::call(
            &world.instance.api_socket(),
            "POST",
            "/api/v1/projects/default/vms",
            &Body::Json(&manifest(&format!("idle{n}"), power)),
        )?;
    }
    when(
        "10 guests run",
        Instant::now(),
        Duration::from_secs(300),
        || {
            thread::sleep(Duration::from_millis(200));
            (0..RUNNING).all(|n| world.qemu(&format!("idle{n}")).is_some())
        },
    )?;
    thread::sleep(SETTLE);
    let ours: Vec<_> = Role::BOTH
        .iter()
        .flat_map(|&role| daemons::pids(&world.instance, role))
        .collect();
    let sum = || -> Result<(u64, u64)> {
        let costs: Option<Vec<_>> = ours.iter().map(|&pid| cost(pid)).collect();
        let costs = costs.context("a daemon ended while it was measured")?;
        Ok(costs
            .iter()
            .fold((0, 0), |sum, cost| (sum.0 + cost.0, sum.1 + cost.1)))
    };
    let (start, before) = (Instant::now(), sum()?);
    thread::sleep(MEASURE);
    let (after, took) = (sum()?, start.elapsed());
    let percent = (after.1 - before.1) as f64 / TICKS / took.as_secs_f64() * 100.0;
    let figure = |name: &str, value, unit, wanted| Figure {
        bench: "idle",
        name: name.to_owned(),
        value,
        unit,
        against: "",
        wanted,
    };
    Ok(vec![
        figure(
            "memory of our processes (PSS)",
            after.0 as f64 / 1024.0,
            "MiB",
            Wanted::AtMost(80.0),
        ),
        figure(
            "CPU of our processes",
            percent,
            "% of a core",
            Wanted::AtMost(0.5),
        ),
    ])
}

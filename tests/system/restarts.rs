//! A restart of the api under load: it says that it is not ready before it stops taking requests, ends those in flight, and
//! cuts none. What comes while no process listens finds the door closed; the systemd units close that gap by socket
//! activation, which the lab guest tests.

use std::{
    io::{
        Error,
        ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound},
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use system_tests::{Around, alive, ask, run, until};

use crate::harness::Stage;

/// How many ask at the same time.
const CLIENTS: u32 = 4;

/// How requests ended.
#[derive(Debug, Default)]
struct Tally {
    answered: u32,
    /// Told to come again: 503 with `Retry-After`.
    later: u32,
    /// Nobody listened.
    closed: u32,
    /// Connected in the moment in which the door closed, and taken by nobody.
    waiting: u32,
    /// Taken and not answered, or answered wrongly.
    lost: Vec<String>,
}

pub fn under_load(stage: &mut Stage) -> Result<()> {
    let on = stage.tiny()?;
    let api = on.daemons("api");
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (socket, stop) = (on.socket(), stop.clone());
            thread::spawn(move || {
                let mut tally = Tally::default();
                while !stop.load(Ordering::Relaxed) {
                    match ask(&socket, "/api/v1/projects/default/vms") {
                        Ok((200, _)) => tally.answered += 1,
                        Ok((503, _)) => tally.later += 1,
                        Ok(other) => tally.lost.push(format!("{other:?}")),
                        Err(e) => match e.downcast_ref::<Error>().map(Error::kind) {
                            Some(ConnectionRefused | NotFound) => tally.closed += 1,
                            Some(ConnectionReset | BrokenPipe) => tally.waiting += 1,
                            _ => tally.lost.push(format!("{e:#}")),
                        },
                    }
                    // A steady load, not a flood: the machine has two cores.
                    thread::sleep(Duration::from_millis(10));
                }
                tally
            })
        })
        .collect();
    let outcome = (|| -> Result<()> {
        let begun = Instant::now();
        let mut command = std::process::Command::new("kill");
        command.arg("-TERM").args(api.iter().map(u32::to_string));
        run(&mut command, Duration::from_secs(5))?.ok()?;
        // First not ready, and still answering.
        until("it says that it drains", Duration::from_secs(5), || {
            Ok(on
                .ask("/health/ready")
                .is_ok_and(|(status, _)| status == 503)
                .then_some(()))
        })?;
        ensure!(
            on.ask("/health/live")?.0 == 200,
            "it does not live while it drains"
        );
        ensure!(
            on.ask("/api/v1/projects/default/vms")?.0 == 200,
            "it answers no more while it drains"
        );
        until("the api has ended", Duration::from_secs(35), || {
            Ok(api.iter().all(|pid| !alive(*pid)).then_some(()))
        })?;
        ensure!(
            begun.elapsed() < Duration::from_secs(30),
            "it took {:?}",
            begun.elapsed()
        );
        on.start("api", &Around::default())?;
        on.ready(Duration::from_secs(60))
    })();
    stop.store(true, Ordering::Relaxed);
    let mut all = Tally::default();
    for client in clients {
        let tally = client.join().ok().context("a client panicked")?;
        all.answered += tally.answered;
        all.later += tally.later;
        all.closed += tally.closed;
        all.waiting += tally.waiting;
        all.lost.extend(tally.lost);
    }
    outcome?;
    println!(
        "    {} answered, {} told to come again, {} found nobody",
        all.answered, all.later, all.closed
    );
    ensure!(all.lost.is_empty(), "requests were lost: {:?}", all.lost);
    ensure!(
        all.waiting <= CLIENTS,
        "each client has one connection, and {} were cut: {all:?}",
        all.waiting
    );
    ensure!(all.answered > 0, "nobody was answered: {all:?}");
    Ok(())
}

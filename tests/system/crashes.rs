//! `kill -9` of each process, and of all at once. What ran goes on; what is wanted comes back.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use system_tests::{Instance, alive, pids_of, run, until};

use crate::{
    harness::Stage,
    transcript::{BOOT, state, uptime},
};

pub fn kill(pids: &[u32]) -> Result<()> {
    ensure!(!pids.is_empty(), "there is nothing to kill");
    let mut command = Command::new("kill");
    command.arg("-KILL").args(pids.iter().map(u32::to_string));
    // It says no when one of them has ended by itself meanwhile; they are looked for below.
    run(&mut command, Duration::from_secs(5))?;
    for &pid in pids {
        until(
            "the killed process is gone",
            Duration::from_secs(10),
            || Ok((!alive(pid)).then_some(())),
        )?;
    }
    Ok(())
}

/// The guest `hello` is the same process, and its clock went on.
fn same_guest(on: &Instance, qemu: u32, before: f64) -> Result<()> {
    ensure!(on.qemu("hello") == Some(qemu), "another QEMU runs `hello`");
    let after = uptime(on, "hello")?;
    ensure!(
        after >= before,
        "`hello` was booted again: up {before} s, then {after} s"
    );
    state(on, "hello", "running")?;
    Ok(())
}

fn role(on: &Instance, role: &str) -> Result<()> {
    let qemu = on.qemu("hello").context("`hello` does not run")?;
    let before = uptime(on, "hello")?;
    kill(&on.daemons(role))?;
    ensure!(alive(qemu), "the guest went with the {role}");
    on.again(&["--bare"])?.ok()?;
    same_guest(on, qemu, before)
}

pub fn api(stage: &mut Stage) -> Result<()> {
    role(stage.tiny()?, "api")
}

pub fn agent(stage: &mut Stage) -> Result<()> {
    role(stage.tiny()?, "agent")
}

pub fn qemu(stage: &mut Stage) -> Result<()> {
    let on = stage.tiny()?;
    let former = on.qemu("hello").context("`hello` does not run")?;
    kill(&[former])?;
    until("a new QEMU runs `hello`", BOOT, || {
        Ok(on.qemu("hello").filter(|&pid| pid != former))
    })?;
    state(on, "hello", "running")?;
    uptime(on, "hello")?;
    Ok(())
}

pub fn dnsmasqs(on: &Instance) -> Vec<u32> {
    let run_dir = format!("{}/", on.run_dir().display());
    let dir = format!("{}/", on.dir().display());
    let mut found = pids_of(&["dnsmasq", &run_dir]);
    found.extend(pids_of(&["dnsmasq", &dir]));
    found.sort_unstable();
    found.dedup();
    found
}

pub fn dnsmasq(stage: &mut Stage) -> Result<()> {
    let on = stage.tiny()?;
    let former = dnsmasqs(on);
    kill(&former)?;
    until("a new dnsmasq is there", BOOT, || {
        Ok(dnsmasqs(on)
            .iter()
            .any(|pid| !former.contains(pid))
            .then_some(()))
    })?;
    Ok(())
}

pub fn everything(stage: &mut Stage) -> Result<()> {
    let on = stage.tiny()?;
    let mut all = on.daemons("agent");
    all.extend(on.daemons("api"));
    all.extend(on.qemu("hello"));
    all.extend(dnsmasqs(on));
    kill(&all)?;
    on.again(&["--bare"])?.ok()?;
    state(on, "hello", "running")?;
    uptime(on, "hello")?;
    ensure!(
        !dnsmasqs(on).is_empty(),
        "the network has its dnsmasq again"
    );
    Ok(())
}

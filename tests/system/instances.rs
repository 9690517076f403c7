//! Instances: started twice, side by side, against one another, and removed.

use std::{fs, net::TcpListener, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use system_tests::{Instance, netns_exists, pids_of, run, until};

use crate::{
    harness::Stage,
    transcript::{state, uptime},
};

pub fn twice(stage: &mut Stage) -> Result<()> {
    let on = stage.tiny()?;
    let look = || -> Result<_> {
        let vm = on.show("vm", "hello")?;
        Ok((
            on.daemons("api"),
            on.daemons("agent"),
            on.qemu("hello"),
            vm["metadata"]["generation"].clone(),
        ))
    };
    let before = look()?;
    on.again(&["--tiny"])?.ok()?;
    let after = look()?;
    ensure!(
        before == after,
        "`up` changed something: {before:?} became {after:?}"
    );
    ensure!(
        !after.0.is_empty() && !after.1.is_empty() && after.2.is_some(),
        "all run: {after:?}"
    );
    Ok(())
}

pub fn down_keeps_guests(stage: &mut Stage) -> Result<()> {
    let on = stage.tiny()?;
    let qemu = on.qemu("hello").context("`hello` does not run")?;
    let before = uptime(on, "hello")?;
    on.down(&[])?.ok()?;
    ensure!(
        on.daemons("api").is_empty() && on.daemons("agent").is_empty(),
        "daemons are left"
    );
    ensure!(on.qemu("hello") == Some(qemu), "the guest went too");
    on.dvctl(&["vm", "list"])?.exit(6)?;
    on.again(&["--bare"])?.ok()?;
    state(on, "hello", "running")?;
    ensure!(
        uptime(on, "hello")? >= before && on.qemu("hello") == Some(qemu),
        "the guest was booted again"
    );
    Ok(())
}

pub fn two_daemons(stage: &mut Stage) -> Result<()> {
    let on = stage.tiny()?;
    for role in ["api", "agent"] {
        let mut second = Command::new(on.daemon());
        second.args(["--role", role, "--config"]).arg(on.config());
        let said = run(&mut second, Duration::from_secs(30))?;
        ensure!(said.code != 0, "a second {role} started");
        let words = format!("{}{}", said.out, said.err);
        let why = ["in use by", "another"]
            .iter()
            .any(|why| words.contains(why));
        ensure!(why, "a second {role} does not say why: {words}");
    }
    on.dvctl(&["vm", "list"])?.ok()?;
    Ok(())
}

pub fn port_in_use(stage: &mut Stage) -> Result<()> {
    let on = stage.tiny()?;
    on.down(&[])?.ok()?;
    let text = fs::read_to_string(on.config())?;
    let port = |text: &str| -> Option<u16> {
        text.lines()
            .find(|line| line.starts_with("https = "))?
            .trim_matches('"')
            .rsplit(':')
            .next()?
            .parse()
            .ok()
    };
    let taken = port(&text).context("the configuration names no port")?;
    let holder = TcpListener::bind(("127.0.0.1", taken))?;
    let mut daemon = Command::new(on.daemon());
    daemon.args(["--role", "api", "--config"]).arg(on.config());
    let said = run(&mut daemon, Duration::from_secs(30))?;
    ensure!(said.code != 0, "the api started on a port in use");
    said.says(&[&taken.to_string()])?;
    // `up` goes elsewhere, and says so.
    on.again(&["--bare"])?.ok()?.says(&["in use"])?;
    ensure!(
        port(&fs::read_to_string(on.config())?) != Some(taken),
        "the port is another"
    );
    drop(holder);
    on.dvctl(&["vm", "list"])?.ok()?.says(&["hello"])?;
    Ok(())
}

pub fn side_by_side(stage: &mut Stage) -> Result<()> {
    let on = stage.tiny()?;
    let other = Instance::up("systest2", &["--bare"])?;
    ensure!(
        other
            .dvctl(&["vm", "list", "-o", "name"])?
            .ok()?
            .out
            .trim()
            .is_empty(),
        "the other instance has VMs"
    );
    on.dvctl(&["vm", "list"])?.ok()?.says(&["hello"])?;
    // The same names in both, each in a namespace of its own.
    other.dvctl(&["network", "create", "default"])?.ok()?;
    until(
        "the other network is ready",
        Duration::from_secs(60),
        || Ok((other.show("network", "default")?["status"]["state"] == "ready").then_some(())),
    )?;
    ensure!(
        netns_exists(&on.netns()) && netns_exists(&other.netns()),
        "each has a namespace"
    );
    drop(other);
    on.dvctl(&["vm", "exec", "hello", "--", "true"])?.ok()?;
    Ok(())
}

pub fn nothing_left(stage: &mut Stage) -> Result<()> {
    stage.tiny()?;
    let on = stage.take().context("no instance")?;
    let (dir, run_dir, netns) = (on.dir(), on.run_dir(), on.netns());
    on.down(&["--guests"])?.ok()?;
    ensure!(
        !dir.exists() && !run_dir.exists() && !netns_exists(&netns),
        "folders or the namespace are left"
    );
    for mark in [
        format!("{}/", run_dir.display()),
        format!("{}/", dir.display()),
        "guest=dv-systest-".to_owned(),
    ] {
        let left = pids_of(&[&mark]);
        ensure!(left.is_empty(), "processes {left:?} are left with {mark}");
    }
    let tables = run(
        Command::new("nft").args(["list", "tables"]),
        Duration::from_secs(10),
    )?
    .ok()?
    .out;
    ensure!(!tables.contains("dv_systest_"), "a table is left: {tables}");
    Ok(())
}

//! The host boots again, and its wall clock jumps.
//!
//! The boot is simulated by what the kernel tells the daemons: another boot id and a young `CLOCK_BOOTTIME`, in a mount
//! and time namespace of their own. The wall clock is bent by a library that only adds to `CLOCK_REALTIME`, because
//! setting the machine's clock would harm everybody else on it. The daemons are the real ones, and know of neither.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use system_tests::{Around, Instance, alive, netns_exists, run, until};

use crate::{
    crashes::{dnsmasqs, kill},
    harness::Stage,
    transcript::{BOOT, state, uptime},
};

/// Whatever runs of the instance, daemons and guests.
fn all(on: &Instance, vms: &[&str]) -> Vec<u32> {
    let mut all = on.daemons("agent");
    all.extend(on.daemons("api"));
    all.extend(vms.iter().filter_map(|vm| on.qemu(vm)));
    all.extend(dnsmasqs(on));
    all
}

fn apply(on: &Instance, manifest: &str) -> Result<()> {
    let file = on.dir().join("boots.yaml");
    fs::write(&file, manifest)?;
    on.dvctl(&["apply", "-f", &file.display().to_string()])?
        .ok()?;
    Ok(())
}

/// A kernel that has just booted, as far as a process can see.
fn another_boot(on: &Instance, id: &str) -> Result<Around> {
    let file = on.dir().join("boot_id");
    fs::write(&file, format!("{id}\n"))?;
    let up = fs::read_to_string("/proc/uptime")?;
    let up: f64 = up.split(' ').next().unwrap_or_default().parse()?;
    let young = format!("-{}", (up as u64).saturating_sub(60));
    let script = format!(
        "mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$@\"",
        file.display()
    );
    let words = [
        "unshare",
        "--mount",
        "--propagation",
        "unchanged",
        "--time",
        "--boottime",
        &young,
        "sh",
        "-c",
        &script,
        "boot",
    ];
    Ok(Around {
        before: words.map(str::to_owned).to_vec(),
        ..Around::default()
    })
}

/// The run folder of a VM.
fn run_folder(on: &Instance, vm: &str) -> Result<PathBuf> {
    let uid = on.show("vm", vm)?["metadata"]["uid"].clone();
    let folders = fs::read_dir(on.run_dir().join("vm"))?;
    for folder in folders.flatten() {
        let record = fs::read(folder.path().join("vm.json")).unwrap_or_default();
        let record: Value = serde_json::from_slice(&record).unwrap_or_default();
        if record["vm"] == uid {
            return Ok(folder.path());
        }
    }
    anyhow::bail!("`{vm}` has no run folder")
}

/// Makes a launch record name a process that is somebody else's, as when the kernel gave its pid again.
fn recycle(folder: &Path, stranger: u32) -> Result<()> {
    let path = folder.join("launch.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&path)?)?;
    let stat = fs::read_to_string(format!("/proc/{stranger}/stat"))?;
    let started: u64 = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().nth(19)?.parse().ok())
        .context("no start time")?;
    ensure!(record["qemu"]["pid"].is_u64(), "no pid in {record}");
    record["qemu"]["pid"] = json!(stranger);
    record["qemu"]["start_time"] = json!(started);
    fs::write(&path, record.to_string())?;
    Ok(())
}

fn boot_of(on: &Instance, vm: &str) -> Result<Value> {
    Ok(on.show("vm", vm)?["status"]["boot"].clone())
}

/// The events, oldest first.
fn events(on: &Instance) -> Result<Vec<Value>> {
    let out = on
        .dvctl(&["event", "list", "--limit", "500", "-o", "json"])?
        .ok()?
        .out;
    let lines = serde_json::Deserializer::from_str(&out).into_iter();
    lines
        .collect::<Result<_, _>>()
        .context("events are no JSON")
}

/// How often an event of a VM was told.
fn told(on: &Instance, vm: &str, event: &str) -> Result<usize> {
    let ours = |one: &&Value| one["event"] == event && one["about"]["name"] == vm;
    Ok(events(on)?.iter().filter(ours).count())
}

pub fn reboot(stage: &mut Stage) -> Result<()> {
    let on = stage.tiny()?;
    let last = "version: v1\nkind: vm\nmetadata: {name: last}\nspec: {vcpus: 1, memory: 256MiB, disks: [{image: tiny}], nics: [{network: default}], auto_start: {order: 200}, power: \"on\"}\n";
    apply(on, last)?;
    apply(
        on,
        &last
            .replace("name: last", "name: asleep")
            .replace("\"on\"", "\"off\""),
    )?;
    state(on, "last", "running")?;
    let vms = ["hello", "last", "asleep"];
    let before = uptime(on, "hello")?;
    let lost = |vm| told(on, vm, "vm.lost");
    let lost_before = (lost("hello")?, lost("last")?);

    // The host goes down: nothing of the instance runs, its namespace is gone, and so is what /run held; but for the
    // record of `hello`, which now names a process of somebody else.
    let (hello, asleep) = (run_folder(on, "hello")?, run_folder(on, "last")?);
    kill(&all(on, &vms))?;
    fs::remove_dir_all(&asleep)?;
    let mut stranger = Command::new("sleep").arg("600").spawn()?;
    recycle(&hello, stranger.id())?;
    run(
        Command::new("ip").args(["netns", "delete", &on.netns()]),
        Duration::from_secs(10),
    )?
    .ok()?;
    let first = "00000000-0000-4000-8000-000000000001";
    on.start_both(&another_boot(on, first)?)?;
    let came_back = (|| -> Result<()> {
        for vm in ["hello", "last"] {
            until(&format!("`{vm}` runs in the new boot"), BOOT, || {
                Ok((boot_of(on, vm)? == first).then_some(()))
            })?;
            state(on, vm, "running")?;
        }
        ensure!(netns_exists(&on.netns()), "the namespace is there again");
        ensure!(
            alive(stranger.id()),
            "a process of somebody else was killed"
        );
        ensure!(
            on.qemu("hello") != Some(stranger.id()),
            "it was taken for a guest"
        );
        let after = uptime(on, "hello")?;
        ensure!(after < before + 60.0, "`hello` was booted: up {after} s");
        uptime(on, "last")?;
        state(on, "asleep", "stopped")?;
        for (vm, before) in [("hello", lost_before.0), ("last", lost_before.1)] {
            ensure!(lost(vm)? == before + 1, "the loss of `{vm}` is told once");
        }
        // Lower orders first.
        let started = |vm: &str| -> Result<String> {
            let time = on.show("vm", vm)?["status"]["started"].clone();
            Ok(time.as_str().context("no start time")?.to_owned())
        };
        ensure!(
            started("hello")? <= started("last")?,
            "`hello` has the lower order and starts first"
        );
        Ok(())
    })();
    stranger.kill()?;
    stranger.wait()?;

    // And up again in the boot that this machine really is in.
    kill(&all(on, &vms))?;
    on.again(&["--bare"])?.ok()?;
    came_back?;
    for vm in ["hello", "last"] {
        until(&format!("`{vm}` runs in the real boot"), BOOT, || {
            Ok((boot_of(on, vm)? != first).then_some(()))
        })?;
    }
    for vm in ["last", "asleep"] {
        on.dvctl(&["vm", "delete", vm, "--yes"])?.ok()?;
    }
    uptime(on, "hello")?;
    Ok(())
}

/// A wall clock that tests set, for the processes that load the library.
struct Bent {
    shift: File,
    around: Around,
}

impl Bent {
    fn new(on: &Instance) -> Result<Bent> {
        let dir = on.dir();
        let (source, library) = (dir.join("clock.c"), dir.join("clock.so"));
        let path = dir.join("clock.shift");
        fs::write(&source, include_str!("clock.c"))?;
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .args([&library, &source]);
        run(&mut cc, Duration::from_secs(60))?.ok()?;
        let mut shift = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        shift.write_all(&0i64.to_ne_bytes())?;
        Ok(Bent {
            shift,
            around: Around::default()
                .env("LD_PRELOAD", &library.display().to_string())
                .env("CLOCK_SHIFT", &path.display().to_string()),
        })
    }

    /// From now on the wall clock is so many hours off.
    fn hours(&self, hours: i64) -> Result<()> {
        Ok(self.shift.write_all_at(&(hours * 3600).to_ne_bytes(), 0)?)
    }
}

/// Everything a user does works on.
fn works(on: &Instance, hello: u32, before: f64) -> Result<()> {
    ensure!(on.qemu("hello") == Some(hello), "another QEMU runs `hello`");
    let after = uptime(on, "hello")?;
    ensure!(after >= before, "`hello` was booted again");
    // A stream behind a ticket, an intent with its task, and a procedure.
    on.dvctl(&["vm", "exec", "hello", "--", "true"])?.ok()?;
    for verb in ["pause", "resume"] {
        on.dvctl(&["vm", verb, "hello"])?.ok()?;
    }
    state(on, "hello", "running")?;
    let told = events(on)?;
    let numbers: Vec<_> = told.iter().filter_map(|one| one["seq"].as_u64()).collect();
    // Others may have something to say after it: the clock has just jumped.
    let resumed = told
        .iter()
        .rev()
        .find(|one| one["about"]["name"] == "hello")
        .is_some_and(|one| one["event"] == "vm.resumed");
    ensure!(
        resumed && numbers.len() == told.len(),
        "the last event about `hello` is not that it goes on: {told:?}"
    );
    ensure!(
        numbers.is_sorted(),
        "events stay in the order in which they happened: {numbers:?}"
    );
    let (status, said) = on.ask("/health/ready")?;
    ensure!(status == 200, "not ready: {said}");
    Ok(())
}

/// A login that `dvctl` keeps.
struct Saved {
    home: PathBuf,
    cluster: String,
}

/// A client certificate got now is good now.
fn login(on: &Instance) -> Result<Saved> {
    let said = on.again(&["--bare"])?.ok()?.out;
    let word = |mark: &str, at: usize| -> Result<String> {
        let line = said.lines().find(|line| line.contains(mark));
        let words: Vec<_> = line
            .context("`up` names no login")?
            .split_whitespace()
            .collect();
        Ok((*words.get(at).context("a short line")?).to_owned())
    };
    let url = word("dvctl login", 4)?;
    let code = word("dvctl login", 6)?;
    let fingerprint = word("CA fingerprint", 2)?;
    let home = on.dir().join("home");
    let mut command = Command::new(on.command(&[]).get_program());
    command
        .args([
            "login",
            &url,
            "--code",
            &code,
            "--fingerprint",
            &fingerprint,
        ])
        .env("XDG_CONFIG_HOME", &home);
    let said = run(&mut command, Duration::from_secs(60))?.ok()?;
    let told = format!("{}{}", said.out, said.err);
    let cluster = told
        .split("saved as `")
        .nth(1)
        .and_then(|rest| rest.split('`').next())
        .map(str::to_owned);
    let saved = Saved {
        home,
        cluster: cluster.with_context(|| format!("no name was told: {told}"))?,
    };
    over_tls(on, &saved)?;
    Ok(saved)
}

/// Lists VMs over TLS with that certificate.
fn over_tls(on: &Instance, saved: &Saved) -> Result<()> {
    let mut command = Command::new(on.command(&[]).get_program());
    command
        .args(["--cluster", &saved.cluster, "vm", "list"])
        .env("XDG_CONFIG_HOME", &saved.home);
    run(&mut command, Duration::from_secs(60))?
        .ok()?
        .says(&["hello"])?;
    Ok(())
}

pub fn wall_clock(stage: &mut Stage) -> Result<()> {
    let on = stage.tiny()?;
    let bent = Bent::new(on)?;
    let hello = on.qemu("hello").context("`hello` does not run")?;
    let before = uptime(on, "hello")?;
    let daemons = || {
        let mut both = on.daemons("agent");
        both.extend(on.daemons("api"));
        both
    };
    kill(&daemons())?;
    on.start_both(&bent.around)?;
    let outcome = (|| -> Result<()> {
        // Made while the clock is ahead, it begins in the future of everybody else.
        bent.hours(5)?;
        let saved = login(on)?;
        for hours in [5, -7, 0] {
            bent.hours(hours)?;
            works(on, hello, before).with_context(|| format!("the clock is {hours} h off"))?;
            kill(&daemons())?;
            on.start_both(&bent.around)?;
            works(on, hello, before)
                .with_context(|| format!("started anew with the clock {hours} h off"))?;
        }
        over_tls(on, &saved).context("a certificate from before the clock jumped")?;
        bent.hours(-7)?;
        kill(&daemons())?;
        on.start_both(&bent.around)?;
        over_tls(on, &saved)
            .context("the server's certificate, with its clock behind that of everybody")?;
        Ok(())
    })();
    kill(&daemons())?;
    on.again(&["--bare"])?.ok()?;
    outcome?;
    works(on, hello, before).context("the clock is right again")
}

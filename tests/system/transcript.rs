//! What the README tells a user to type, line by line.

use std::{fs, io::Read, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use system_tests::{Instance, until};

use crate::harness::Stage;

/// A guest's boot under software emulation, beside others.
pub const BOOT: Duration = Duration::from_secs(120);

/// A small VM on the tiny image that is gone when the test ends.
pub fn create(on: &Instance, name: &str) -> Result<()> {
    let key = on.dir().join("key.pub");
    fs::write(
        &key,
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA test\n",
    )?;
    let key = key.display().to_string();
    on.dvctl(&[
        "vm",
        "create",
        name,
        "--image",
        "tiny",
        "--vcpus",
        "1",
        "--memory",
        "256MiB",
        "--disk",
        "1GiB",
        "--network",
        "default",
        "--ssh-key",
        &key,
        "--start",
    ])?
    .ok()?;
    Ok(())
}

/// Waits until the VM is in a state.
pub fn state(on: &Instance, vm: &str, wanted: &str) -> Result<Value> {
    until(&format!("VM `{vm}` is {wanted}"), BOOT, || {
        let shown = on.show("vm", vm)?;
        Ok((shown["status"]["state"] == wanted).then_some(shown))
    })
}

/// Waits until the guest's agent carries out commands, and answers its uptime in seconds.
pub fn uptime(on: &Instance, vm: &str) -> Result<f64> {
    until(&format!("the agent of `{vm}` answers"), BOOT, || {
        let asked = on.dvctl(&["vm", "exec", vm, "--", "cat", "/proc/uptime"])?;
        let word = asked
            .out
            .split_whitespace()
            .next()
            .and_then(|word| word.parse().ok());
        Ok(word.filter(|_| asked.code == 0))
    })
}

pub fn hello_answers(stage: &mut Stage) -> Result<()> {
    let on = stage.tiny()?;
    on.dvctl(&["vm", "list"])?
        .ok()?
        .says(&["hello", "running"])?;
    on.dvctl(&["vm", "exec", "hello", "--", "uname", "-a"])?
        .ok()?
        .says(&["Linux"])?;
    on.dvctl(&["vm", "exec", "hello", "--", "sh", "-c", "exit 7"])?
        .exit(7)?;
    Ok(())
}

pub fn life_of_a_vm(stage: &mut Stage) -> Result<()> {
    let on = stage.tiny()?;
    create(on, "web1")?;
    uptime(on, "web1")?;
    console(on)?;
    // Guests resolve one another by name.
    let ping = [
        "vm", "exec", "web1", "--", "ping", "-c", "1", "-W", "5", "hello",
    ];
    // The agent answers before the guest has its address.
    until("web1 reaches hello", Duration::from_secs(60), || {
        Ok((on.dvctl(&ping)?.code == 0).then_some(()))
    })?;

    on.dvctl(&["vm", "shutdown", "web1"])?.ok()?;
    state(on, "web1", "stopped")?;
    on.dvctl(&["vm", "start", "web1"])?.ok()?;
    state(on, "web1", "running")?;
    uptime(on, "web1")?;
    let before = on.show("vm", "web1")?["status"]["incarnation"]
        .as_u64()
        .context("no incarnation")?;
    on.dvctl(&["vm", "reset", "web1"])?.ok()?;
    until("the guest boots again", BOOT, || {
        Ok((on.show("vm", "web1")?["status"]["incarnation"].as_u64() > Some(before)).then_some(()))
    })?;
    on.dvctl(&["vm", "pause", "web1"])?.ok()?;
    state(on, "web1", "paused")?;
    on.dvctl(&["vm", "resume", "web1"])?.ok()?;
    state(on, "web1", "running")?;
    on.dvctl(&["vm", "explain", "web1"])?
        .ok()?
        .says(&["web1"])?;
    on.dvctl(&["vm", "stop", "web1"])?.ok()?;
    state(on, "web1", "stopped")?;
    ensure!(on.qemu("web1").is_none(), "a stopped VM has no QEMU");
    Ok(())
}

/// The serial console shows what the guest writes, and `^]` leaves it.
fn console(on: &Instance) -> Result<()> {
    use std::io::Write;
    let mut child = on
        .command(&["vm", "console", "web1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().context("no input")?;
    let mut output = child.stdout.take().context("no output")?;
    let (send, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count) = output.read(&mut buffer)
            && count > 0
            && send
                .send(String::from_utf8_lossy(&buffer[..count]).into_owned())
                .is_ok()
        {}
    });
    let mut seen = String::new();
    let found = until(
        "the shell on the serial console answers",
        Duration::from_secs(30),
        || {
            input.write_all(b"echo $((6*7))-from-the-console\n")?;
            input.flush()?;
            while let Ok(text) = lines.recv_timeout(Duration::from_millis(500)) {
                seen.push_str(&text);
            }
            Ok(seen.contains("42-from-the-console").then_some(()))
        },
    );
    input.write_all(b"\x1d")?;
    drop(input);
    let left = until("`^]` leaves the console", Duration::from_secs(10), || {
        Ok(child.try_wait()?)
    });
    if left.is_err() {
        child.kill()?;
    }
    found.with_context(|| format!("the console showed: {seen}"))?;
    ensure!(left?.success(), "leaving the console is no error");
    Ok(())
}

pub fn files(stage: &mut Stage) -> Result<()> {
    let on = stage.tiny()?;
    if on.dvctl(&["vm", "show", "web1"])?.code != 0 {
        create(on, "web1")?;
    }
    let yaml = on.dvctl(&["vm", "show", "web1", "-o", "yaml"])?.ok()?.out;
    let file = on.dir().join("web.yaml");
    fs::write(&file, &yaml)?;
    let path = file.display().to_string();
    on.dvctl(&["diff", "-f", &path])?.ok()?;
    let before = on.show("vm", "web1")?["metadata"]["generation"].clone();
    on.dvctl(&["apply", "-f", &path])?.ok()?;
    ensure!(
        on.show("vm", "web1")?["metadata"]["generation"] == before,
        "an unchanged file changes nothing"
    );

    fs::write(&file, yaml.replace("vcpus: 1", "vcpus: 2"))?;
    let shown = on.dvctl(&["diff", "-f", &path])?;
    ensure!(
        shown.code != 0 && shown.out.contains("vcpus"),
        "a changed file differs: {shown:?}"
    );
    // The file carries the revision it was written at, which the first apply kept.
    on.dvctl(&["apply", "-f", &path])?.ok()?;
    ensure!(
        on.show("vm", "web1")?["spec"]["vcpus"] == 2,
        "the changed file was applied"
    );
    on.dvctl(&["apply", "-f", &path])?
        .exit(3)
        .context("a file with an old revision is a conflict")?;

    on.dvctl(&["vm", "delete", "web1", "--yes"])?.ok()?;
    until("the VM is gone", Duration::from_secs(60), || {
        Ok((on.dvctl(&["vm", "show", "web1"])?.code == 4).then_some(()))
    })?;
    let volumes = on.dvctl(&["volume", "list", "-o", "name"])?.ok()?.out;
    ensure!(
        !volumes.contains("web1"),
        "its disk went with it: {volumes}"
    );
    Ok(())
}

pub fn tasks_and_events(stage: &mut Stage) -> Result<()> {
    let on = stage.tiny()?;
    let names = on.dvctl(&["task", "list", "-o", "name"])?.ok()?.out;
    let first = names
        .lines()
        .next()
        .context("no task is listed after so many actions")?;
    let name = first.rsplit('/').next().unwrap_or(first);
    on.dvctl(&["task", "log", name])?.ok()?;
    on.dvctl(&["event", "list"])?.ok()?.says(&["vm.started"])?;
    Ok(())
}

pub fn remote_login(stage: &mut Stage) -> Result<()> {
    let on = stage.tiny()?;
    let said = on.again(&["--tiny"])?.ok()?;
    let line = said
        .out
        .lines()
        .find(|line| line.contains("dvctl login"))
        .context("`up` names no login")?;
    let words: Vec<_> = line.split_whitespace().collect();
    let url = words
        .iter()
        .copied()
        .find(|word| word.starts_with("https://"));
    let code = words
        .iter()
        .position(|word| *word == "--code")
        .and_then(|at| words.get(at + 1))
        .copied();
    let (url, code) = url.zip(code).context("`up` names no URL or code")?;
    let fingerprint = said
        .out
        .lines()
        .find(|line| line.contains("CA fingerprint"))
        .and_then(|line| line.split_whitespace().last());
    let config = on.dir().join("remote");
    let login = |code: &str| {
        let mut command = on.command(&[]);
        let program = command.get_program().to_owned();
        command = std::process::Command::new(program);
        command.args([
            "login",
            url,
            "--code",
            code,
            "--fingerprint",
            fingerprint.unwrap_or_default(),
        ]);
        system_tests::run(
            command.env("XDG_CONFIG_HOME", &config),
            Duration::from_secs(60),
        )
    };
    login(code)?.ok()?;
    ensure!(login(code)?.code != 0, "a code works once");
    Ok(())
}

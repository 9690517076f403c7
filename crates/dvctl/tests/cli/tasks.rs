//! What takes long is waited for with progress, ^C gives it back to the server, and streams carry bytes.

use crate::{Said, Stage};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn waited_for() {
    let stage = Stage::new();
    stage.run("vm create web1").ok();
    let said = stage.run("vm start web1");
    assert_eq!(said.ok(), "vm/web1 started\n");
    // A log gets each step once.
    assert!(said.err.contains("vm start web1: boot\n"), "{said:?}");
    assert_eq!(
        stage.run("vm start web1 --no-wait").ok(),
        "task/start-web1-1\n"
    );
    assert_eq!(
        stage.run("task wait start-web1-1").ok(),
        "task/start-web1-1 succeeded\n"
    );
    assert_eq!(
        stage.run("vm wait web1 --for running --timeout 20s").ok(),
        "vm/web1 running\n"
    );
    assert_eq!(stage.run("vm wait web1 --for stopped --timeout 1s").code, 3);
    assert_eq!(stage.run("task log start-web1-1").ok(), "one\ntwo\n");
    let said = stage.run("vm fail web1");
    assert_eq!(said.code, 3, "{said:?}");
    assert!(
        said.err
            .contains("task fail-web1-1: failed: the disk is full"),
        "{said:?}"
    );
    let said = stage.run("vm hang web1 --timeout 1s");
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.err.contains("task wait hang-web1-1"), "{said:?}");
}

#[test]
fn watched() {
    let stage = Stage::new();
    stage.run("vm create web1").ok();
    let mut child = stage
        .command(&["vm", "watch", "-o", "name"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "vm/web1");
    stage.run("vm create web2").ok();
    assert_eq!(lines.next().unwrap().unwrap(), "vm/web2");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Starts something that never ends, interrupts it so often, and says how that ended.
fn interrupt(times: u32) -> (Stage, Said) {
    let stage = Stage::new();
    stage.run("vm create web1").ok();
    let mut child = stage
        .command(&["vm", "hang", "web1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    // The step is shown: from here on ^C is heard.
    while !said.contains("boot") {
        assert!(err.read_line(&mut said).unwrap() > 0, "{said}");
    }
    let pid = Pid::from_raw(child.id().cast_signed());
    for _ in 0..times {
        kill(pid, Signal::SIGINT).unwrap();
        while !said.contains("still running") {
            assert!(err.read_line(&mut said).unwrap() > 0, "{said}");
        }
    }
    err.read_to_string(&mut said).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = Said {
        err: said,
        ..Said::of(output)
    };
    (stage, said)
}

#[test]
fn one_interrupt_detaches() {
    let begun = Instant::now();
    let (stage, said) = interrupt(1);
    assert_eq!(said.code, 130, "{said:?}");
    assert!(
        said.err.contains("still running as task hang-web1-1"),
        "{said:?}"
    );
    assert!(begun.elapsed() >= Duration::from_secs(3));
    let task = stage.server.object("tasks", "hang-web1-1").unwrap();
    assert_eq!(task["status"]["state"], "running");
}

#[test]
fn two_interrupts_cancel() {
    let (stage, said) = interrupt(2);
    assert_eq!(said.code, 130, "{said:?}");
    let task = stage.server.object("tasks", "hang-web1-1").unwrap();
    assert_eq!(task["status"]["state"], "cancelled", "{said:?}");
}

#[test]
fn programs_and_consoles() {
    let stage = Stage::new();
    stage.run("vm create web1").ok();
    let said = stage.run("vm exec web1 -- uname -a");
    assert_eq!(
        (said.code, said.out.as_str(), said.err.as_str()),
        (7, "Linux\n", "careful\n")
    );
    let asked = "GET /api/v1/projects/default/vms/web1/streams/exec?command=uname&command=-a";
    assert_eq!(stage.server.count(asked), 1);
    assert_eq!(stage.run("vm exec web1").code, 2);
    assert_eq!(stage.run("vm exec web9 -- true").code, 4);

    // A console that is not a terminal: bytes both ways, `^]` leaves.
    let mut child = stage
        .command(&["vm", "console", "web1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    input.write_all(b"hello\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "> HELLO");
    input.write_all(b"\x1d").unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_console_in_a_terminal() {
    let stage = Stage::new();
    stage.run("vm create web1").ok();
    let pty = nix::pty::openpty(None, None).unwrap();
    let before = nix::sys::termios::tcgetattr(&pty.slave).unwrap();
    let mut child = stage
        .command(&["vm", "console", "web1"])
        .stdin(pty.slave.try_clone().unwrap())
        .stdout(pty.slave.try_clone().unwrap())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    err.read_line(&mut said).unwrap();
    assert!(
        said.contains("connected to vm default/web1; ^] leaves"),
        "{said}"
    );
    let mut keys = std::fs::File::from(pty.master.try_clone().unwrap());
    let mut screen = BufReader::new(std::fs::File::from(pty.master));
    // Raw: neither the echo nor the line end is the terminal's. A key sent before raw mode is echoed, so try until one is not.
    let end = Instant::now() + Duration::from_secs(20);
    let mut seen = Vec::new();
    while !seen.ends_with(b"> K") {
        assert!(Instant::now() < end, "{}", String::from_utf8_lossy(&seen));
        keys.write_all(b"k").unwrap();
        while !seen.ends_with(b"K") {
            let mut one = [0];
            screen.read_exact(&mut one).unwrap();
            seen.push(one[0]);
        }
    }
    keys.write_all(b"\x1d").unwrap();
    assert!(child.wait().unwrap().success());
    err.read_to_string(&mut said).unwrap();
    assert!(said.contains("left vm default/web1"), "{said}");
    let after = nix::sys::termios::tcgetattr(&pty.slave).unwrap();
    assert_eq!(
        before.local_flags, after.local_flags,
        "the terminal is as it was"
    );
}

#[test]
fn programs_that_take_their_words_first() {
    let stage = Stage::new();
    stage.run("vm create web1").ok();
    let said = stage.run("vm run web1 -- ls --all");
    let first = r#"{"command":["ls","--all"],"stdin":""}"#;
    assert_eq!(
        (said.code, said.out.as_str(), said.err.as_str()),
        (3, "", first)
    );
    let said = stage.feed("vm run -i web1 -- cat", b"words");
    assert_eq!(said.err, r#"{"command":["cat"],"stdin":"words"}"#);
}

#[test]
fn files_that_go_on_where_they_stopped() {
    let stage = Stage::new();
    stage.run("vm create web1").ok();
    std::fs::write(stage.folder.path().join("file"), "abcdefghij").unwrap();
    assert_eq!(
        stage.run("vm receive web1 file").ok(),
        "vm/web1 receive: complete\n"
    );
    std::fs::write(stage.folder.path().join("file"), "xxxxxxxxxx").unwrap();
    let said = stage.run("vm receive web1 file");
    assert_eq!((said.code, said.err.as_str()), (3, "error: got xxxxxxx\n"));
}

#[test]
fn uploads() {
    let stage = Stage::new();
    stage.run("vm create web1").ok();
    let bytes: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
    std::fs::write(stage.folder.path().join("big"), &bytes).unwrap();
    stage.run("vm upload web1 ./big").ok();
    assert!(stage.server.world.lock().unwrap().uploaded == bytes);
    stage.run("vm upload web1 --offset 999990 ./big").ok();
    assert_eq!(
        stage.server.world.lock().unwrap().uploaded,
        &bytes[999_990..]
    );
    stage.feed("vm upload web1 -", b"piped").ok();
    assert_eq!(stage.server.world.lock().unwrap().uploaded, b"piped");
}

use super::*;
use crate::clock::{BootId, SystemClock};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

fn sh(script: &str) -> Run {
    Run::new("sh").args(["-c", script])
}

fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: needs root");
    }
    root
}

#[tokio::test]
async fn output_and_input_go_through() {
    let out = Run::new("cat").stdin_bytes("hello").output().await.unwrap();
    assert_eq!(out.text(), "hello");
    // More than a pipe holds, both ways at once.
    let big = vec![b'x'; 3 << 20];
    let out = Run::new("cat").stdin_bytes(big.clone()).output().await;
    assert_eq!(out.unwrap().stdout, big);
}

#[tokio::test]
async fn a_failure_carries_code_and_last_words() {
    let error = sh("echo it broke >&2; exit 7").output().await.unwrap_err();
    assert_eq!(error.exit(), Some(Exit::Code(7)));
    assert_eq!(error.to_string(), "`sh` failed with exit code 7: it broke");
    let out = sh("exit 7").accept([0, 7]).output().await.unwrap();
    assert_eq!(out.code, 7);
    let error = sh("kill -9 $$").output().await.unwrap_err();
    assert_eq!(error.exit(), Some(Exit::Signal(9)));
}

#[tokio::test]
async fn a_missing_program_names_its_package() {
    let error = Run::new("/nowhere/swtpm_setup").output().await.unwrap_err();
    let text = "`swtpm_setup` is not installed: install the Debian package `swtpm-tools`";
    assert_eq!(error.to_string(), text);
    // A missing directory is not a missing program.
    let error = sh("true").cwd("/nowhere").output().await.unwrap_err();
    assert!(matches!(error, ProcessError::Start { .. }), "{error}");
}

#[tokio::test]
async fn too_much_output_is_an_error_and_ends_the_program() {
    let error = Run::new("yes").max_output(1000).output().await.unwrap_err();
    assert!(matches!(
        error,
        ProcessError::TooMuchOutput { limit: 1000, .. }
    ));
}

async fn gone(pid: u32) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Identity::of(pid, &SystemClock::new().unwrap()).is_ok() {
        assert!(Instant::now() < deadline, "process {pid} still runs");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_timeout_kills_the_whole_group() {
    let mut pids = Vec::new();
    let started = Instant::now();
    let error = sh("sleep 100 & echo $!; echo why >&2; wait")
        .timeout(Duration::from_secs(2))
        .lines(|line| pids.push(line.parse::<u32>().unwrap()))
        .await
        .unwrap_err();
    assert!(matches!(error, ProcessError::Timeout { .. }), "{error}");
    assert_eq!(error.said().unwrap().trim(), "why");
    assert!(started.elapsed() < Duration::from_secs(50));
    gone(pids[0]).await;
}

#[tokio::test]
async fn dropping_the_future_kills_the_whole_group() {
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let run = sh("sleep 100 & echo $!; wait").lines(move |line| {
        let _ = tell.try_send(line.parse::<u32>().unwrap());
    });
    let pid = tokio::select! {
        _ = run => panic!("it should still run"),
        pid = told.recv() => pid.unwrap(),
    };
    gone(pid).await;
}

#[tokio::test]
async fn something_left_behind_does_not_hold_the_answer() {
    let started = Instant::now();
    let out = sh("(exec setsid sleep 30) & echo $!")
        .output()
        .await
        .unwrap();
    assert!(started.elapsed() < Duration::from_secs(10));
    let pid = out.text().trim().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn progress_lines_end_at_carriage_returns_too() {
    let mut lines = Vec::new();
    sh("printf '10%%\\r20%%\\rdone\\nrest'")
        .lines(|line| lines.push(line.to_owned()))
        .await
        .unwrap();
    assert_eq!(lines, ["10%", "20%", "done", "rest"]);
}

#[tokio::test]
async fn limits_user_and_network_hold() {
    if !root() {
        return;
    }
    let limits = Limits {
        open_files: Some(17),
        file_size: Some(1024),
        ..Limits::default()
    };
    let out = sh("id -u; id -g; id -G; ulimit -n; cat /proc/net/dev | grep -c :; grep NoNewPrivs /proc/self/status")
        .uid_gid(64001, 64002)
        .limits(limits)
        .no_network()
        .output()
        .await
        .unwrap();
    let text = out.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..4], ["64001", "64002", "64002", "17"]);
    assert_eq!(lines[5], "NoNewPrivs:\t1");
    assert!(
        lines[4].parse::<u32>().unwrap() <= 5,
        "only loopback and fallback tunnels"
    );
    let dir = tempfile::tempdir().unwrap();
    let error = sh("head -c 5000 /dev/zero > f")
        .cwd(dir.path())
        .limits(limits)
        .output()
        .await
        .unwrap_err();
    assert!(matches!(error, ProcessError::Failed { .. }), "{error}");
    assert_eq!(std::fs::metadata(dir.path().join("f")).unwrap().len(), 1024);
}

#[tokio::test]
async fn a_secret_is_read_by_descriptor_and_not_seen_in_arguments() {
    let (run, path) = sh("cat \"$1\"; tr '\\0' ' ' </proc/$$/cmdline")
        .secret(b"hunter2!")
        .unwrap();
    let out = run.args(["x", &path]).output().await.unwrap().text();
    assert_eq!(out.matches("hunter2!").count(), 1, "{out}");
}

#[tokio::test]
async fn descriptors_of_ours_do_not_leak() {
    let file = std::fs::File::open("/").unwrap();
    use std::os::fd::AsRawFd as _;
    // Open it without close-on-exec, as a careless library would.
    nix::fcntl::fcntl(
        &file,
        nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()),
    )
    .unwrap();
    let kept = std::fs::File::open("/etc").unwrap();
    let mut run = sh("for f in /proc/$$/fd/*; do echo ${f##*/} $(readlink $f); done");
    let number = run.fd(kept.into());
    let text = run.output().await.unwrap().text();
    assert!(text.contains(&format!("{number} /etc\n")), "{text}");
    assert!(
        !text.lines().any(|l| l == format!("{} /", file.as_raw_fd())),
        "{text}"
    );
}

#[tokio::test]
async fn a_detached_process_is_adopted_by_its_identity_and_by_nothing_less() {
    let clock = SystemClock::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let process = sh("echo started >&2; exec sleep 100")
        .spawn_detached(&Stderr::Append(log.clone()), &clock)
        .unwrap();
    let identity = process.identity().clone();
    drop(process);
    let has_started = async {
        while !std::fs::read_to_string(&log).is_ok_and(|text| text.contains("started")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), has_started)
        .await
        .expect("the shell says that it has started");

    let stored = serde_json::to_string(&identity).unwrap();
    let identity: Identity = serde_json::from_str(&stored).unwrap();
    let other_start = Identity {
        start_time: identity.start_time + 1,
        ..identity.clone()
    };
    assert!(Process::adopt(&other_start, &clock).unwrap().is_none());
    let rebooted = SystemClock::with_boot_id(BootId::new("another"));
    assert!(Process::adopt(&identity, &rebooted).unwrap().is_none());

    let adopted = Process::adopt(&identity, &clock).unwrap().unwrap();
    assert!(adopted.is_running());
    assert!(adopted.signal(Signal::SIGKILL).unwrap());
    assert_eq!(adopted.wait().await.unwrap(), Exit::Unknown);
    assert!(!adopted.is_running());
    assert!(Process::adopt(&identity, &clock).unwrap().is_none());
    assert_eq!(std::fs::read_to_string(log).unwrap(), "started\n");
}

#[tokio::test]
async fn our_own_child_tells_how_it_ended() {
    let clock = SystemClock::new().unwrap();
    let process = sh("trap 'exit 5' TERM; while :; do sleep 0.05; done")
        .spawn_detached(&Stderr::Discard, &clock)
        .unwrap();
    // The trap may not be set yet; then the signal itself ends it.
    let exit = process.end(Duration::from_secs(5)).await.unwrap();
    assert!(matches!(exit, Exit::Code(5) | Exit::Signal(15)), "{exit}");
    assert!(!process.signal(Signal::SIGTERM).unwrap());

    let stubborn = sh("trap '' TERM; echo; while :; do sleep 0.05; done")
        .spawn_detached(&Stderr::Discard, &clock)
        .unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let exit = stubborn.end(Duration::from_millis(200)).await.unwrap();
    assert!(matches!(exit, Exit::Signal(9) | Exit::Signal(15)), "{exit}");
}

use super::*;
use crate::process::{Process, Run, Stderr};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::task::JoinSet;

/// A stand-in for a guest: `answer` gets each command (without the sync) and says the bytes to send, or nothing.
fn guest(
    socket: &std::path::Path,
    mut answer: impl FnMut(&str) -> Option<Vec<u8>> + Send + 'static,
) -> JoinSet<()> {
    let listener = UnixListener::bind(socket).unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut held = Vec::new();
            let mut chunk = [0; 4096];
            while let Ok(n) = stream.read(&mut chunk).await {
                if n == 0 {
                    break;
                }
                held.extend_from_slice(&chunk[..n]);
                while let Some(end) = held.iter().position(|b| *b == b'\n') {
                    let line: Vec<u8> = held.drain(..=end).collect();
                    let start = line.iter().rposition(|b| *b == 0xff).map_or(0, |at| at + 1);
                    let request: Value = serde_json::from_slice(&line[start..]).unwrap();
                    let command = request["execute"].as_str().unwrap();
                    let reply = if command == "guest-sync-delimited" {
                        let mark = json!({ "return": request["arguments"]["id"] });
                        let mut bytes = b"{\"return\": \"left over\"}\n\xff".to_vec();
                        bytes.extend(format!("{mark}\n").into_bytes());
                        Some(bytes)
                    } else {
                        answer(command)
                    };
                    if let Some(reply) = reply {
                        stream.write_all(&reply).await.unwrap();
                    }
                }
            }
        }
    });
    tasks
}

fn dir() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("hostq-qga-")
        .tempdir()
        .unwrap()
}

#[tokio::test]
async fn left_over_and_late_answers_are_not_taken_for_new_ones() {
    let dir = dir();
    let socket = dir.path().join("qga");
    let mut asked = 0;
    let _guest = guest(&socket, move |command| {
        asked += 1;
        match (command, asked) {
            // The first question is never answered in time.
            (_, 1) => None,
            ("guest-get-host-name", _) => {
                Some(b"{\"return\": {\"host-name\": \"web1\"}}\n".to_vec())
            }
            _ => {
                Some(b"{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no\"}}\n".to_vec())
            }
        }
    });
    let agent = Agent::new(&socket);
    let limit = Duration::from_millis(100);
    let error = agent
        .ask_within("guest-slow", Value::Null, limit)
        .await
        .unwrap_err();
    assert!(matches!(error, QgaError::Timeout { .. }), "{error}");
    assert_eq!(agent.host_name().await.unwrap(), "web1");
    assert!(agent.thaw().await.unwrap_err().is_unknown_command());
    assert_eq!(agent.host_name().await.unwrap(), "web1");
}

#[tokio::test]
async fn a_silent_or_mad_guest_gives_an_error_and_no_more() {
    let dir = dir();
    let socket = dir.path().join("mad");
    let _guest = guest(&socket, |_| Some(b"\x00\xfe{{{]\n".to_vec()));
    let error = Agent::new(&socket).ping().await.unwrap_err();
    assert!(matches!(error, QgaError::Unexpected { .. }), "{error}");

    let socket = dir.path().join("deaf");
    let _listener = UnixListener::bind(&socket).unwrap();
    let error = Agent::new(&socket).ping().await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("install qemu-guest-agent in the guest"),
        "{error}"
    );

    let error = Agent::new(&dir.path().join("none"))
        .ping()
        .await
        .unwrap_err();
    assert!(matches!(error, QgaError::NoPort { .. }), "{error}");
}

/// The real agent, which can also listen on a socket of this machine.
async fn real() -> Option<(tempfile::TempDir, Agent, Process)> {
    let dir = dir();
    let socket = dir.path().join("qga");
    let state = dir.path().to_str().unwrap();
    let clock = crate::clock::SystemClock::new().unwrap();
    let args = [
        "-m",
        "unix-listen",
        "-p",
        socket.to_str().unwrap(),
        "-t",
        state,
        "-f",
        &format!("{state}/pid"),
    ];
    let Ok(process) = Run::new("qemu-ga")
        .args(args)
        .spawn_detached(&Stderr::Discard, &clock)
    else {
        eprintln!("SKIPPED: needs the package qemu-guest-agent");
        return None;
    };
    let ready = async {
        while !socket.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ready)
        .await
        .unwrap();
    let agent = Agent::new(&socket);
    Some((dir, agent, process))
}

#[tokio::test]
async fn the_real_agent_answers() {
    let Some((dir, agent, process)) = real().await else {
        return;
    };
    agent.ping().await.unwrap();
    let info = agent.info().await.unwrap();
    assert!(info.commands.iter().any(|c| c == "guest-exec"), "{info:?}");
    assert_eq!(agent.os_info().await.unwrap().id.as_deref(), Some("debian"));
    let loopback = agent
        .interfaces()
        .await
        .unwrap()
        .into_iter()
        .find(|i| i.name == "lo")
        .unwrap();
    assert!(
        loopback.addresses.iter().any(|a| a.ip.is_loopback()),
        "{loopback:?}"
    );

    let exec = Exec {
        path: "/bin/sh".to_owned(),
        args: vec!["-c".to_owned(), "cat; echo $X >&2; exit 3".to_owned()],
        env: vec!["X=out of band".to_owned()],
        input: b"in".to_vec(),
    };
    let outcome = agent.exec(&exec, Duration::from_secs(20)).await.unwrap();
    assert_eq!((outcome.code, outcome.signal), (Some(3), None));
    assert_eq!(outcome.stdout, b"in");
    assert_eq!(outcome.stderr, b"out of band\n");

    let file = dir.path().join("file");
    let path = file.to_str().unwrap();
    let bytes: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
    agent.file_write(path, &bytes).await.unwrap();
    assert_eq!(agent.file_read(path, 1 << 20).await.unwrap(), bytes);
    let error = agent.file_read(path, 1000).await.unwrap_err();
    assert!(matches!(error, QgaError::TooLarge { .. }), "{error}");
    let error = agent.file_read("/nowhere/at/all", 10).await.unwrap_err();
    assert!(error.to_string().contains("No such file"), "{error}");
    assert_eq!(agent.freeze_state().await.unwrap(), FreezeState::Thawed);
    process.end(Duration::from_secs(5)).await.unwrap();
}

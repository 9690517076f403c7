//! A disk that is full while the audit trail is written: the real api on a small file system of its own. What changes
//! something is refused and is not done, reads go on, and with room again it goes on by itself; the chain still verifies.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::disallowed_types,
    reason = "a test starts the daemon as a person would, and ends it"
)]

use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const DAEMON: &str = env!("CARGO_BIN_EXE_debvisord");
const PATIENCE: Duration = Duration::from_secs(120);

/// Puts a small file system under a folder that nobody else sees, and becomes the daemon.
const SMALL: &str = r#"set -e
mount -t tmpfs -o size=8m none "$1"
exec "$2" --role api --config "$3""#;

struct Daemon {
    process: Child,
    socket: PathBuf,
    /// The small file system, as the daemon sees it.
    small: PathBuf,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Daemon {
    fn start(folder: &Path, small: &str) -> Daemon {
        let config = folder.join("debvisord.toml");
        let text = format!(
            "instance = \"full\"\nstate_dir = \"{0}/state\"\nrun_dir = \"{0}/run\"\ncache_dir = \"{0}/cache\"\n\
             [node]\nname = \"here\"\n[listen]\nhttps = \"127.0.0.1:0\"\ngrpc = \"127.0.0.1:0\"\n",
            folder.display(),
        );
        std::fs::write(&config, text).unwrap();
        let at = folder.join("state").join(small);
        std::fs::create_dir_all(&at).unwrap();
        let process = Command::new("unshare")
            .args(["--mount", "sh", "-c", SMALL, "sh"])
            .args([&at, Path::new(DAEMON), &config])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.join("log")).unwrap())
            .spawn()
            .unwrap();
        let seen = PathBuf::from(format!("/proc/{}/root", process.id()));
        let daemon = Daemon {
            small: seen.join(at.strip_prefix("/").unwrap()),
            socket: folder.join("run/api.sock"),
            process,
        };
        until("the daemon is up", || {
            daemon.ask("GET", "whoami", None)?.ok()
        });
        daemon
    }

    /// The answer of the API; nothing while it does not listen.
    fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Option<Said> {
        let mut stream = UnixStream::connect(&self.socket).ok()?;
        let body = body.map_or_else(String::new, |body| body.to_string());
        let head = format!(
            "{method} /api/v1/{path} HTTP/1.1\r\nhost: debvisor\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        let text = &answer[answer.find("\r\n\r\n")?..];
        let body = serde_json::from_str(text.trim()).unwrap_or_default();
        Some(Said { status, body })
    }

    /// Sets a setting to a number.
    fn set(&self, to: u64) -> Said {
        let body = json!({ "metadata": { "name": "task-history" }, "spec": { "value": to } });
        self.ask("PUT", "settings/task-history", Some(body))
            .unwrap()
    }

    fn is_set_to(&self) -> Option<u64> {
        let said = self.ask("GET", "settings/task-history", None)?.ok()?;
        said["spec"]["value"].as_u64()
    }
}

#[derive(Debug)]
struct Said {
    status: u16,
    body: Value,
}

impl Said {
    fn ok(self) -> Option<Value> {
        (self.status < 300).then_some(self.body)
    }
}

fn until<T>(what: &str, mut so: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = so() {
            return found;
        }
        assert!(Instant::now() < end, "it is not so that {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Takes all the room that there is.
fn fill(small: &Path) -> PathBuf {
    let path = small.join("filler");
    let mut file = std::fs::File::create(&path).unwrap();
    for size in [64 * 1024, 4096, 512] {
        while file.write_all(&vec![7; size]).is_ok() {}
    }
    path
}

fn full_and_back(small: &str) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: a full disk needs root, to mount a small file system");
        return;
    }
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let daemon = Daemon::start(folder.path(), small);
    let log = || std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    assert_eq!(daemon.set(110).status, 200, "{}", log());
    let filler = fill(&daemon.small);
    // The last page of a file may have room for a few rows more.
    let mut kept = 110;
    let refused = (111..600).find_map(|n| {
        let said = daemon.set(n);
        match said.status < 300 {
            true => {
                kept = n;
                None
            }
            false => Some(said),
        }
    });
    let refused = refused.unwrap_or_else(|| panic!("nothing was refused\n{}", log()));
    assert_eq!(refused.status, 503, "{refused:?}");
    let text = refused.body.to_string();
    assert!(
        text.contains("audit trail") || text.contains("disk") || text.contains("space"),
        "says why: {text}"
    );
    // Not done, and reading goes on.
    assert_eq!(daemon.is_set_to(), Some(kept), "{}", log());
    let list = daemon.ask("GET", "settings", None).unwrap();
    assert_eq!(list.status, 200, "{list:?}");
    assert_eq!(daemon.set(600).status, 503);

    std::fs::remove_file(filler).unwrap();
    until("a change is taken again", || daemon.set(700).ok());
    assert_eq!(daemon.is_set_to(), Some(700));
    let path = "audit-chains/here/actions/verify";
    let task = daemon
        .ask("POST", path, Some(json!({ "heads": [] })))
        .unwrap();
    assert_eq!(task.status, 202, "{task:?}");
    let name = task.body["metadata"]["name"].as_str().unwrap().to_owned();
    let state = until("the chain was looked through", || {
        let task = daemon.ask("GET", &format!("tasks/{name}"), None)?.ok()?;
        let ended = ["succeeded", "failed"]
            .iter()
            .any(|s| task["status"]["state"] == *s);
        ended.then_some(task)
    });
    assert_eq!(
        state["status"]["state"],
        "succeeded",
        "{state:#}\n{}",
        log()
    );
}

#[test]
fn when_the_streams_are_on_a_full_disk_nothing_is_changed_until_there_is_room() {
    full_and_back("streams");
}

#[test]
fn when_all_of_the_state_is_on_a_full_disk_nothing_is_changed_until_there_is_room() {
    full_and_back("");
}

//! The first start of the real daemon: on a terminal it shows the one-time code, which works; anywhere else it says how to
//! ask for one, and no code. Needs no privilege.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::disallowed_types,
    reason = "a test starts the daemon as a person would"
)]

use serde_json::{Value, json};
use std::io::{BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const DAEMON: &str = env!("CARGO_BIN_EXE_debvisord");
/// Letters and digits of a code, in groups of four.
const GROUPS: usize = 7;

/// A daemon that ends with the test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // `script` hands the signal on to what it runs.
        let pid = nix::unistd::Pid::from_raw(self.0.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// The groups of a one-time code in a text, when there is one.
fn code_in(text: &str) -> Option<String> {
    let is_group = |g: &str| g.len() == 4 && g.bytes().all(|b| b.is_ascii_alphanumeric());
    text.split_whitespace()
        .find(|word| word.split('-').count() == GROUPS && word.split('-').all(is_group))
        .map(str::to_owned)
}

fn configure(folder: &Path) -> String {
    let config = folder.join("debvisord.toml");
    let text = format!(
        "instance = \"first\"\nstate_dir = \"{0}/state\"\nrun_dir = \"{0}/run\"\ncache_dir = \"{0}/cache\"\n\
         [node]\nname = \"here\"\n[listen]\nhttps = \"127.0.0.1:0\"\ngrpc = \"127.0.0.1:0\"\n",
        folder.display(),
    );
    std::fs::write(&config, text).unwrap();
    config.display().to_string()
}

fn ask(socket: &Path, path: &str, body: &Value) -> Value {
    let mut stream = UnixStream::connect(socket).unwrap();
    let body = body.to_string();
    let head = format!(
        "POST /api/v1/{path} HTTP/1.1\r\nhost: debvisor\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let at = answer.find("\r\n\r\n").unwrap();
    serde_json::from_str(answer[at..].trim()).unwrap()
}

/// All that a reader gives until a line has `end` in it.
fn until(reader: &mut impl std::io::BufRead, end: &str) -> String {
    let mut text = String::new();
    while !text.contains(end) {
        let read = reader.read_line(&mut text).unwrap();
        assert!(read > 0, "it ended without `{end}`:\n{text}");
    }
    text
}

fn started(command: &str, args: &[&str]) -> Daemon {
    let mut command = Command::new(command);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Daemon(command.spawn().unwrap())
}

#[test]
fn a_terminal_shows_a_code_that_makes_the_first_administrator_and_then_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let config = configure(folder.path());
    let line = format!("{DAEMON} --role api --config {config}");
    // bsdutils, which is on every Debian: gives what it runs a terminal.
    let script = ["-qefc", &line, "/dev/null"];
    let mut daemon = started("script", &script);
    let mut terminal = BufReader::new(daemon.0.stdout.take().unwrap());
    let text = until(&mut terminal, "Another code");
    assert!(text.contains("15 minutes"), "{text}");
    assert!(text.contains("dvctl login https://127.0.0.1:"), "{text}");
    let code = code_in(&text).unwrap_or_else(|| panic!("no code in:\n{text}"));
    let socket = folder.path().join("run/api.sock");
    let made = json!({ "code": code, "user": "ada", "password": "a long enough sentence" });
    let entered = ask(&socket, "auth/first", &made);
    assert_eq!(entered["user"], "ada", "{entered:#}");
    let again = ask(&socket, "auth/code", &json!({ "code": code }));
    assert_eq!(again["status"], 401, "used up: {again:#}");
    drop(terminal);
    drop(daemon);

    let mut daemon = started("script", &script);
    let mut terminal = BufReader::new(daemon.0.stdout.take().unwrap());
    let mut text = until(&mut terminal, "api is up");
    // It says nothing more by itself; what its end says is after whatever the start would have said.
    let pid = nix::unistd::Pid::from_raw(daemon.0.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let _ = terminal.read_to_string(&mut text);
    assert!(!text.contains("Nobody administers"), "{text}");
    drop(daemon);
}

#[test]
fn a_log_gets_no_code_but_says_how_to_ask_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let config = configure(folder.path());
    let mut daemon = started(DAEMON, &["--role", "api", "--config", &config]);
    let mut log = BufReader::new(daemon.0.stderr.take().unwrap());
    let text = until(&mut log, "nobody administers this cluster yet");
    assert!(text.contains("dvctl api login-code"), "{text}");
    assert_eq!(code_in(&text), None, "{text}");
    assert!(!folder.path().join("state/pki/codes.json").exists());
}

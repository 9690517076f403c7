//! Time stamps of the audit trail: the real api asks a real time stamp authority, `openssl ts`, and what it keeps is what
//! `openssl ts -verify` takes for a stamp of that head.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::disallowed_types,
    reason = "a test starts the daemon and its tools as a person would"
)]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const DAEMON: &str = env!("CARGO_BIN_EXE_debvisord");
const PATIENCE: Duration = Duration::from_secs(120);

/// An authority for stamps, and its configuration as `openssl ts` wants it.
const CONFIG: &str = "
[tsa]
default_tsa = here
[here]
serial = serial
signer_cert = tsa.pem
certs = tsa.pem
signer_key = tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
ess_cert_id_alg = sha256
";

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // Ends in order, which seals the chain.
        let _ = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

fn openssl(folder: &Path, line: &str) -> std::process::Output {
    Command::new("openssl")
        .args(line.split_whitespace())
        .current_dir(folder)
        .output()
        .unwrap()
}

/// The body of an HTTP request.
fn question(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut part = [0; 4096];
    loop {
        let read = stream.read(&mut part).unwrap();
        assert!(read > 0, "it ends too soon");
        all.extend_from_slice(&part[..read]);
        let Some(end) = all.windows(4).position(|w| w == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&all[..end]).to_lowercase();
        assert!(head.contains("application/timestamp-query"), "{head}");
        let length = head
            .lines()
            .find_map(|l| l.strip_prefix("content-length: "));
        let length: usize = length.unwrap().trim().parse().unwrap();
        if all.len() >= end + 4 + length {
            return all[end + 4..].to_vec();
        }
    }
}

/// Answers with `openssl ts -reply` for as long as the test runs. Gives its URL.
fn authority(folder: PathBuf) -> String {
    let made = openssl(
        &folder,
        "req -x509 -newkey rsa:2048 -nodes -keyout tsa.key -out tsa.pem -days 2 -subj /CN=stamps \
         -addext extendedKeyUsage=critical,timeStamping",
    );
    assert!(made.status.success(), "{made:?}");
    std::fs::write(folder.join("tsa.cnf"), CONFIG).unwrap();
    std::fs::write(folder.join("serial"), "01\n").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/tsr", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::fs::write(folder.join("query"), question(&mut stream)).unwrap();
            let said = openssl(
                &folder,
                "ts -reply -config tsa.cnf -queryfile query -out reply",
            );
            assert!(said.status.success(), "{said:?}");
            let reply = std::fs::read(folder.join("reply")).unwrap();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/timestamp-reply\r\nconnection: close\r\n\
                 content-length: {}\r\n\r\n",
                reply.len()
            );
            stream
                .write_all(&[head.as_bytes(), &reply].concat())
                .unwrap();
        }
    });
    url
}

fn ask(socket: &Path, method: &str, path: &str, body: &str) -> Option<(u16, serde_json::Value)> {
    let mut stream = UnixStream::connect(socket).ok()?;
    let head = format!(
        "{method} /api/v1/{path} HTTP/1.1\r\nhost: debvisor\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let at = answer.find("\r\n\r\n")?;
    Some((status, serde_json::from_str(answer[at..].trim()).ok()?))
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

#[test]
fn each_head_is_stamped_and_the_stamp_can_be_checked_by_other_tools() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let dir = folder.path();
    let has = |program: &str| Command::new(program).arg("version").output().is_ok();
    if !has("openssl") {
        eprintln!("SKIPPED: time stamps are tested with openssl, which is not here");
        return;
    }
    let url = authority(dir.to_owned());
    let config = dir.join("debvisord.toml");
    let text = format!(
        "instance = \"stamps\"\nstate_dir = \"{0}/state\"\nrun_dir = \"{0}/run\"\ncache_dir = \"{0}/cache\"\n\
         [node]\nname = \"here\"\n[listen]\nhttps = \"127.0.0.1:0\"\ngrpc = \"127.0.0.1:0\"\n",
        dir.display(),
    );
    std::fs::write(&config, text).unwrap();
    let socket = dir.join("run/api.sock");
    let start = || {
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let mut command = Command::new(DAEMON);
        command.args(["--role", "api", "--config"]).arg(&config);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let daemon = Daemon(command.spawn().unwrap());
        until("it is up", || ask(&socket, "GET", "whoami", ""));
        daemon
    };
    let daemon = start();
    let path = "settings/audit-anchor-tsa";
    let set = |value: &str| {
        let body =
            json!({ "metadata": { "name": "audit-anchor-tsa" }, "spec": { "value": value } });
        ask(&socket, "PUT", path, &body.to_string()).unwrap()
    };
    assert_eq!(set("ftp://nowhere").0, 422);
    let (status, said) = set(&url);
    assert_eq!(status, 200, "{said}");
    // Its end seals the chain, so that there is a head at the next start.
    drop(daemon);
    let daemon = start();
    let chain = until("a head is stamped", || {
        let (_, chain) = ask(&socket, "GET", "audit-chains/here", "")?;
        let anchor = chain["status"]["anchors"].get(0)?.clone();
        (anchor["seq"].as_u64()? > 0).then_some(chain)
    });
    let anchor = &chain["status"]["anchors"][0];
    assert_eq!(anchor["target"], format!("stamps of {url}"), "{chain:#}");
    let seq = anchor["seq"].as_u64().unwrap();
    let kept = dir.join("state/keys/audit/stamps");
    let of = |end: &str| kept.join(format!("{seq:020}.{end}")).display().to_string();
    let line = format!(
        "ts -verify -data {} -in {} -CAfile tsa.pem",
        of("head"),
        of("tsr")
    );
    let checked = openssl(dir, &line);
    assert!(checked.status.success(), "{checked:?}");
    // Of that head and no other.
    std::fs::write(dir.join("other"), "another head\n").unwrap();
    let line = format!("ts -verify -data other -in {} -CAfile tsa.pem", of("tsr"));
    assert!(!openssl(dir, &line).status.success());
    drop(daemon);
}

//! A node without QEMU and without `/dev/net/tun`: the real daemons, the agent in a mount namespace of its own where both
//! are missing. It starts, says what is missing, its VMs wait for it, and what comes is noticed without a restart.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use host::process::Run;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

const DAEMON: &str = env!("CARGO_BIN_EXE_debvisord");
const PATIENCE: Duration = Duration::from_secs(180);

/// Hides QEMU and the device for taps from the agent; how it leaves them is how a fresh Debian has them.
const WITHOUT: &str = r#"set -e
mkdir -p "$1/up" "$1/work" "$1/bin"
mount --bind /usr/bin "$1/bin"
mount -t overlay none -o "lowerdir=$1/bin,upperdir=$1/up,workdir=$1/work" /usr/bin
rm /usr/bin/qemu-system-x86_64
mount -t tmpfs none /dev/net
echo $$ > "$1/pid"
exec "$2" --role agent --config "$3""#;

/// What `apt-get install` and `modprobe` do.
const COMES: &str = r#"set -e
cp "$1/bin/qemu-system-x86_64" /usr/bin/.new
mv /usr/bin/.new /usr/bin/qemu-system-x86_64
mknod /dev/net/tun c 10 200"#;

async fn ask(socket: &Path, method: &str, path: &str, body: &Value) -> Option<Value> {
    let mut stream = UnixStream::connect(socket).await.ok()?;
    let body = body.to_string();
    let request = format!(
        "{method} /api/v1/{path} HTTP/1.1\r\nhost: debvisor\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    let text = String::from_utf8_lossy(&answer);
    let (from, to) = (text.find("\r\n\r\n")?, text.rfind('}')?);
    serde_json::from_str(text.get(from..=to)?.trim_start()).ok()
}

async fn until(socket: &Path, path: &str, what: &str, so: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + PATIENCE;
    loop {
        let found = ask(socket, "GET", path, &Value::Null).await;
        if let Some(object) = found.as_ref().filter(|o| so(o)) {
            return object.clone();
        }
        assert!(Instant::now() < end, "{path} is not {what}: {found:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The status and message of a condition.
fn condition(object: &Value, kind: &str) -> (String, String) {
    let all = object["status"]["conditions"].as_array();
    let found = all.into_iter().flatten().find(|c| c["type"] == kind);
    let text = |field: &str| {
        let text = found.and_then(|c| c[field].as_str());
        text.unwrap_or_default().to_owned()
    };
    (text("status").to_lowercase(), text("message"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_qemu_and_tun_says_so_and_notices_when_they_come() {
    let able = nix::unistd::geteuid().is_root()
        && Path::new("/usr/bin/qemu-system-x86_64").exists()
        && Path::new("/dev/net/tun").exists();
    if !able {
        eprintln!(
            "SKIPPED: a node without its ground needs root, qemu-system-x86 and /dev/net/tun, to hide them"
        );
        return;
    }
    let name = format!("ground-{}", std::process::id());
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let run = tempfile::Builder::new()
        .prefix("dv-")
        .tempdir_in("/run")
        .unwrap();
    let config = folder.path().join("debvisord.toml");
    let text = format!(
        "instance = \"{name}\"\nstate_dir = \"{0}/state\"\nrun_dir = \"{1}\"\ncache_dir = \"{0}/cache\"\n\
         [node]\nname = \"here\"\n[listen]\nhttps = \"127.0.0.1:0\"\ngrpc = \"127.0.0.1:0\"\n[network]\nnamespace = \"dv-{name}\"\n",
        folder.path().display(),
        run.path().display(),
    );
    std::fs::write(&config, text).unwrap();
    let dir = folder.path().join("ns");
    std::fs::create_dir(&dir).unwrap();
    let path = |path: &Path| path.display().to_string();
    let mut daemons = JoinSet::new();
    let api = Run::new(DAEMON).args(["--role", "api", "--config", &path(&config)]);
    let agent = Run::new("unshare").args(["--mount", "sh", "-c", WITHOUT, "sh"]);
    let agent = agent.args([path(&dir), DAEMON.to_owned(), path(&config)]);
    for daemon in [api, agent] {
        daemons.spawn(async move { daemon.timeout(Duration::from_secs(900)).output().await });
    }
    let socket = run.path().join("api.sock");

    let node = until(&socket, "nodes/here", "told of", |o| {
        condition(o, "CanRunGuests").0 == "false"
    })
    .await;
    let (_, message) = condition(&node, "CanRunGuests");
    assert!(
        message.contains("install the Debian package `qemu-system-x86`"),
        "{message}"
    );
    let (status, message) = condition(&node, "CanConnectGuests");
    assert!(
        status == "false" && message.contains("modprobe tun"),
        "{message}"
    );
    assert_eq!(condition(&node, "Accelerated").0, "false");

    let vm = json!({ "metadata": { "name": "late" }, "spec": { "power": "on" } });
    ask(&socket, "POST", "projects/default/vms", &vm)
        .await
        .unwrap();
    let late = "projects/default/vms/late";
    let waits = |o: &Value| condition(o, "Running").1.contains("`qemu-system-x86`");
    until(&socket, late, "waiting for QEMU", waits).await;

    let pid = std::fs::read_to_string(dir.join("pid")).unwrap();
    let comes =
        Run::new("nsenter").args(["--mount", "--target", pid.trim(), "sh", "-c", COMES, "sh"]);
    comes
        .args([path(&dir)])
        .timeout(Duration::from_secs(60))
        .output()
        .await
        .unwrap();
    until(&socket, late, "running", |o| {
        o["status"]["state"] == "running"
    })
    .await;
    for kind in ["CanRunGuests", "CanConnectGuests"] {
        until(&socket, "nodes/here", kind, |o| {
            condition(o, kind).0 == "true"
        })
        .await;
    }
    ask(&socket, "DELETE", late, &Value::Null).await;
    let end = Instant::now() + PATIENCE;
    while ask(&socket, "GET", late, &Value::Null)
        .await
        .is_some_and(|o| o["kind"] == "vm")
    {
        assert!(Instant::now() < end, "the VM is not deleted");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    daemons.shutdown().await;
    let _ = Run::new("ip")
        .args(["netns", "delete", &format!("dv-{name}")])
        .output()
        .await;
}

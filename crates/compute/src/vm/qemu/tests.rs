//! Real guests under real QEMU: the tiny guest, on one process with both roles over the memory store. Needs root, and the
//! programs that build the image; says so loudly when skipped.

mod devices;

use super::{Config, Qemu};
use crate::vm::{ExitReason, State, Vm, VmStatus};
use crate::{Guests, SUBSYSTEMS};
use host::clock::SystemClock;
use host::net::Netns;
use model::{ObjectRef, Result};
use network::Fabric;
use runtime::node::{Facts, NodeStatus};
use runtime::{
    Actor, Answer, Cx, CxBuilder, Engine, Msg, Op, Registry, Request, StreamIo, Surface, node,
};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use storage::image::recipe::{Recipe, default_cache};
use tokio::task::JoinSet;

/// How long a guest under emulation on a busy machine may take for what it does in seconds.
const PATIENCE: Duration = Duration::from_secs(300);

/// A node with a pool, an image and a network; its processes' context can be restarted.
struct Lab {
    cx: Cx,
    store: Arc<store::Memory>,
    folder: tempfile::TempDir,
    pools: tempfile::TempDir,
    netns: Netns,
}

fn target(kind: &str, name: &str) -> ObjectRef {
    ObjectRef {
        kind: kind.into(),
        project: (kind != "pool").then(|| "default".into()),
        name: name.into(),
    }
}

impl Lab {
    async fn start(test: &str) -> Option<Lab> {
        Lab::on(test, true).await
    }

    /// A node, with QEMU or without.
    async fn on(test: &str, qemu: bool) -> Option<Lab> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let able = nix::unistd::geteuid().is_root()
            && ["/usr/bin/qemu-system-x86_64", "/usr/bin/mmdebstrap"]
                .iter()
                .all(|p| Path::new(p).exists());
        if !able {
            eprintln!("SKIPPED: {test} needs root, qemu-system-x86 and mmdebstrap");
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("compute-{}-{number}", std::process::id());
        let netns = Netns::named(&name).unwrap();
        let folder = tempfile::Builder::new()
            .prefix("compute-")
            .tempdir_in("/run")
            .unwrap();
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        if qemu {
            install(folder.path());
        }
        // Real disks: guests want O_DIRECT, which no tmpfs has.
        let pools = tempfile::Builder::new()
            .prefix("compute-")
            .tempdir_in("/var/tmp")
            .unwrap();
        let store = store::Memory::new();
        let cx = process(store.clone(), folder.path(), pools.path(), &netns).await;
        let lab = Lab {
            cx,
            store,
            folder,
            pools,
            netns,
        };
        lab.create("pool", "default", json!({})).await;
        lab.create("network", "default", json!({})).await;
        // Built once per machine; the recipe finds it in the cache.
        Recipe::Tiny
            .image(&default_cache(), &|_, _| {}, &Default::default())
            .await
            .unwrap();
        lab.create("image", "tiny", json!({ "source": { "recipe": "tiny" } }))
            .await;
        Some(lab)
    }

    async fn ask(&self, op: Op) -> Result<Answer> {
        let request = Request::new("r1", Actor::administrator("tester"), Surface::Rest, op);
        self.cx
            .desk()
            .carry_out(self.cx.gate().admit(request)?)
            .await
    }

    async fn create(&self, kind: &str, name: &str, spec: Value) {
        let body = json!({ "metadata": { "name": name }, "spec": spec });
        let op = Op::Create {
            kind: kind.into(),
            project: target(kind, name).project,
            body,
        };
        self.ask(op).await.unwrap();
    }

    /// Where the files of a guest are that end with it.
    fn run_dir(&self, name: &str) -> PathBuf {
        let vm = self.cx.get::<Vm>(Some("default"), name).unwrap();
        self.folder.path().join("vm").join(vm.metadata.uid.short())
    }

    fn vm(&self, name: &str) -> Option<VmStatus> {
        let vm = self.cx.get::<Vm>(Some("default"), name)?;
        Some(vm.status.clone().unwrap_or_default())
    }

    /// Does something and waits for its task to succeed. Answers the task's result.
    async fn act(&self, name: &str, verb: &str, params: Value) -> Value {
        let op = Op::Act {
            target: target("vm", name),
            verb: verb.into(),
            params,
        };
        let Answer::Accepted { task } = self.ask(op).await.unwrap() else {
            panic!("{verb} made no task");
        };
        let task: Value = serde_json::from_slice(&task).unwrap();
        let task = task["metadata"]["name"].as_str().unwrap().to_owned();
        let end = Instant::now() + PATIENCE;
        loop {
            let found = self.cx.get::<runtime::task::Task>(Some("default"), &task);
            let status = found.unwrap().status.clone().unwrap_or_default();
            if status.state.ended() {
                let whole = serde_json::to_value(&status).unwrap();
                assert_eq!(whole["state"], "succeeded", "{verb}: {whole}");
                return whole["result"].clone();
            }
            assert!(
                Instant::now() < end,
                "{verb} does not end: {status:?} {:?}",
                self.vm(name)
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn until(&self, name: &str, what: &str, so: impl Fn(&VmStatus) -> bool) -> VmStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            let status = self.vm(name).unwrap_or_default();
            if so(&status) {
                return status;
            }
            assert!(Instant::now() < end, "{name} is not {what}: {status:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Opens a stream of a VM; the work ends with the set.
    fn open(&self, name: &str, stream: &str, tasks: &mut JoinSet<Result<()>>) -> StreamIo {
        let (ours, theirs) = StreamIo::pair();
        let op = Op::Stream {
            target: target("vm", name),
            stream: stream.into(),
            params: json!({}),
        };
        let request = Request::new("r1", Actor::administrator("tester"), Surface::Rest, op);
        let admitted = self.cx.gate().admit(request).unwrap();
        let desk = self.cx.desk();
        tasks.spawn(async move { desk.open(admitted, theirs).await });
        ours
    }

    /// Runs a command in the guest: its exit code and what it wrote.
    async fn exec(&self, name: &str, command: &[&str]) -> (i64, String) {
        let mut tasks = JoinSet::new();
        let mut io = self.open(name, "exec", &mut tasks);
        io.send(Msg::Control(json!({ "command": command })))
            .await
            .unwrap();
        let mut out = String::new();
        while let Some(msg) = io.recv().await {
            match msg {
                Msg::Data(bytes) => out.push_str(&String::from_utf8_lossy(&bytes)),
                Msg::Control(value) => {
                    if let Some(exit) = value["exit"].as_i64() {
                        return (exit, out);
                    }
                }
            }
        }
        panic!("exec ended early: {out} {:?}", tasks.join_next().await);
    }

    /// Waits until the serial line has said something, over all boots that the line remembers.
    async fn says(&self, name: &str, text: &str) -> String {
        let mut tasks = JoinSet::new();
        let mut io = self.open(name, "console", &mut tasks);
        reads(&mut io, text).await
    }

    /// Ends our processes and starts new ones on the same store.
    async fn restart(mut self) -> Lab {
        self.cx.life().stop(Duration::from_secs(5)).await;
        self.cx = process(
            self.store.clone(),
            self.folder.path(),
            self.pools.path(),
            &self.netns,
        )
        .await;
        self
    }
}

impl Drop for Lab {
    /// Nothing stays behind, also when a test fails: guests, bridges, dnsmasq, the namespace.
    fn drop(&mut self) {
        let (life, fabric) = (self.cx.life().clone(), self.cx.part::<Fabric>());
        let folder = self.folder.path().join("vm");
        let clock = Arc::new(SystemClock::new().unwrap());
        let ending = async move {
            life.stop(Duration::from_secs(5)).await;
            let driver = host::qemu::Driver::new(host::qemu::DriverConfig::new(clock));
            for guest in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let _ = driver.destroy(&guest.path(), Duration::from_secs(2)).await;
            }
            fabric.tear_down().await
        };
        let ended =
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(ending));
        if let Err(error) = ended {
            eprintln!("the lab's network remains: {error}");
        }
    }
}

async fn reads(io: &mut StreamIo, text: &str) -> String {
    let mut said = String::new();
    let read = async {
        while let Some(msg) = io.recv().await {
            if let Msg::Data(bytes) = msg {
                said.push_str(&String::from_utf8_lossy(&bytes));
            }
            if said.contains(text) {
                return true;
            }
        }
        false
    };
    let found = tokio::time::timeout(PATIENCE, read).await;
    assert_eq!(
        found,
        Ok(true),
        "the serial line never said {text:?}: {said}"
    );
    said
}

async fn process(store: Arc<store::Memory>, folder: &Path, pools: &Path, netns: &Netns) -> Cx {
    let clock = Arc::new(SystemClock::new().unwrap());
    let fabric = Fabric::new(netns.clone(), folder.join("net"), None, clock.clone());
    let qemu = Qemu::open(Config {
        instance: Some("compute-test".into()),
        run: folder.join("vm"),
        state: folder.join("vms"),
        cache: folder.join("cache"),
        clock,
        unprivileged: true,
        qemu: folder.join("bin/qemu-system-x86_64"),
    })
    .await
    .unwrap();
    let qemu = Arc::new(qemu);
    let registry = Registry::new(&[
        runtime::SUBSYSTEMS,
        storage::SUBSYSTEMS,
        network::SUBSYSTEMS,
        SUBSYSTEMS,
    ]);
    let cx = CxBuilder::new(registry.unwrap(), store)
        .part(Arc::new(Facts::new(NodeStatus::default())))
        .part(Arc::new(fabric))
        .part(Arc::new(storage::Local {
            pools: pools.to_owned(),
            cache: default_cache(),
            fetch: storage::FetchLimits::default(),
        }))
        .part(Arc::new(Guests::new(qemu.clone())))
        .build()
        .await
        .unwrap();
    qemu.follow(&cx);
    node::attend(&cx).await.unwrap();
    Engine::start(&cx);
    cx
}

/// Has QEMU where the lab's node looks for it.
fn install(folder: &Path) {
    std::fs::create_dir_all(folder.join("bin")).unwrap();
    let there = folder.join("bin/qemu-system-x86_64");
    std::os::unix::fs::symlink("/usr/bin/qemu-system-x86_64", there).unwrap();
}

fn tiny() -> Value {
    json!({
        "image": "tiny", "vcpus": 1, "memory": "256MiB", "disks": [{}], "nics": [{}], "power": "on",
        "cloud_init": { "hostname": "web1" }, "on_crash": "restart",
    })
}

fn pid_of(lab: &Lab, name: &str) -> u32 {
    let record = std::fs::read(lab.run_dir(name).join("launch.json")).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    record["qemu"]["pid"].as_u64().unwrap() as u32
}

/// The whole life of one guest, in one boot where that is possible: booting is what costs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_life_of_a_guest() {
    let Some(lab) = Lab::start("the_life_of_a_guest").await else {
        return;
    };
    let began = Instant::now();
    lab.create("vm", "web1", tiny()).await;
    lab.until("web1", "running", |s| s.state == State::Running)
        .await;
    eprintln!("running after {:?}", began.elapsed());
    let said = lab.says("web1", "TINY-READY").await;
    assert!(
        said.contains("TINY-SEED") && said.contains("web1"),
        "{said}"
    );
    eprintln!("ready after {:?}", began.elapsed());
    let up = lab
        .until("web1", "known by its agent", |s| {
            s.hostname.as_deref() == Some("web1")
        })
        .await;
    let address = lab.cx.get::<Vm>(Some("default"), "web1").unwrap().spec.nics[0]
        .ipv4
        .clone();
    lab.until("web1", "addressed", |s| {
        s.addresses.contains(address.as_ref().unwrap())
    })
    .await;

    let (exit, out) = lab
        .exec("web1", &["/bin/sh", "-c", "hostname; exit 7"])
        .await;
    assert_eq!((exit, out.trim()), (7, "web1"));
    let mut tasks = JoinSet::new();
    let mut line = lab.open("web1", "console", &mut tasks);
    line.data("echo A$((40+2))Z\n").await.unwrap();
    reads(&mut line, "A42Z").await;
    let mut held = Vec::new();
    // As many as the setting allows, all at once; each hears the same line.
    let more: Vec<StreamIo> = (0..9)
        .map(|_| lab.open("web1", "console", &mut tasks))
        .collect();
    for mut other in more {
        reads(&mut other, "A42Z").await;
        held.push(other);
    }
    let mut late = lab.open("web1", "vnc", &mut tasks);
    assert!(late.recv().await.is_none(), "an eleventh console opened");
    let refused = tasks.join_next().await.unwrap().unwrap().unwrap_err();
    assert!(
        refused.to_string().contains("has 10 consoles open already"),
        "{refused}"
    );
    drop((line, held));
    while tasks.join_next().await.is_some() {}
    let mut screen = lab.open("web1", "vnc", &mut tasks);
    assert!(matches!(screen.recv().await, Some(Msg::Data(hello)) if hello.starts_with(b"RFB ")));
    drop(screen);
    let end = Instant::now() + PATIENCE;
    loop {
        let events = lab.cx.events().about(&target("vm", "web1"), 500).await;
        let count = |event: &str, said: &str| {
            let of = |e: &&runtime::event::Event| e.event == event && e.message == said;
            events.iter().filter(of).count()
        };
        let screens = (
            count("vm.console-opened", "the screen by tester was opened"),
            count("vm.console-closed", "the screen by tester was closed"),
        );
        let opened = count("vm.console-opened", "the serial line by tester was opened");
        let closed = count("vm.console-closed", "the serial line by tester was closed");
        if screens == (1, 1) && opened == closed && opened >= 10 {
            break;
        }
        assert!(
            Instant::now() < end,
            "{screens:?} {opened} {closed} {events:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    lab.act(
        "web1",
        "file-write",
        json!({ "path": "/tmp/x", "content": "hello" }),
    )
    .await;
    let read = lab
        .act("web1", "file-read", json!({ "path": "/tmp/x" }))
        .await;
    assert_eq!(read["content"], "hello");

    lab.act("web1", "pause", json!({})).await;
    assert_eq!(lab.vm("web1").unwrap().state, State::Paused);
    lab.act("web1", "resume", json!({})).await;
    assert_eq!(lab.vm("web1").unwrap().state, State::Running);

    // Devices, while it runs.
    lab.act("web1", "attach-disk", json!({ "size": "64MiB" }))
        .await;
    let look = "until grep -q 131072 /sys/block/vd*/size; do sleep 0.1; done";
    let found = lab
        .exec("web1", &["/bin/timeout", "30", "/bin/sh", "-c", look])
        .await;
    assert_eq!(found.0, 0, "the disk never came: {}", found.1);
    lab.act(
        "web1",
        "resize",
        json!({ "disk": "disk1", "size": "128MiB" }),
    )
    .await;
    lab.act("web1", "attach-nic", json!({ "network": "default" }))
        .await;
    let second = lab.cx.get::<Vm>(Some("default"), "web1").unwrap().spec.nics[1]
        .mac
        .clone();
    // QEMU has plugged it; the guest's kernel finds it a moment later.
    let look = format!("until grep -q {second} /sys/class/net/*/address; do sleep 0.1; done");
    let found = lab
        .exec("web1", &["/bin/timeout", "30", "/bin/sh", "-c", &look])
        .await;
    assert_eq!(found.0, 0, "{second} never came: {}", found.1);
    lab.act("web1", "detach-nic", json!({ "device": "nic1" }))
        .await;

    // Our processes end; the guest does not notice, and is taken up as it is.
    let pid = pid_of(&lab, "web1");
    let lab = lab.restart().await;
    lab.exec("web1", &["/bin/true"]).await;
    let again = lab
        .until("web1", "running", |s| s.state == State::Running)
        .await;
    assert_eq!(
        (pid_of(&lab, "web1"), again.incarnation, again.started),
        (pid, up.incarnation, up.started)
    );
    assert!(lab.says("web1", "A42Z").await.contains("TINY-READY"));

    lab.act("web1", "reset", json!({})).await;
    lab.until("web1", "in its next boot", |s| {
        s.incarnation == up.incarnation + 1
    })
    .await;
    assert_eq!(pid_of(&lab, "web1"), pid);
    lab.until("web1", "known by its agent", |s| s.hostname.is_some())
        .await;

    // QEMU is killed: it comes back.
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(pid_of(&lab, "web1")).unwrap()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    lab.until("web1", "counted as crashed", |s| s.crashes == 1)
        .await;
    lab.until("web1", "running again", |s| {
        s.state == State::Running && s.incarnation == up.incarnation + 2
    })
    .await;
    assert_ne!(pid_of(&lab, "web1"), pid);
    lab.until("web1", "known by its agent", |s| s.hostname.is_some())
        .await;

    eprintln!("asked to shut down after {:?}", began.elapsed());
    lab.act("web1", "shutdown", json!({ "timeout": "60s" }))
        .await;
    let off = lab.vm("web1").unwrap();
    assert_eq!(off.last_exit.unwrap().message, "it shut down as asked");
    lab.act("web1", "start", json!({})).await;
    lab.act("web1", "stop", json!({})).await;

    let op = Op::Delete {
        target: target("vm", "web1"),
        keep: Vec::new(),
    };
    lab.ask(op).await.unwrap();
    let end = Instant::now() + PATIENCE;
    while lab.vm("web1").is_some() {
        assert!(Instant::now() < end, "{:?}", lab.vm("web1"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for folder in ["vm", "vms"] {
        let left: Vec<_> = std::fs::read_dir(lab.folder.path().join(folder))
            .unwrap()
            .collect();
        assert!(left.is_empty(), "{folder}: {left:?}");
    }
    assert!(lab.cx.list::<storage::volume::Volume>(None).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uefi_and_a_tpm() {
    let Some(lab) = Lab::start("uefi_and_a_tpm").await else {
        return;
    };
    let mut spec = tiny();
    spec["firmware"] = json!("uefi");
    spec["tpm"] = json!(true);
    lab.create("vm", "efi", spec).await;
    lab.says_when_running("efi", "TINY-READY").await;
    lab.until("efi", "known by its agent", |s| s.hostname.is_some())
        .await;
    let command = "ls -d /sys/firmware/efi; ls /sys/class/tpm";
    let out = lab.exec("efi", &["/bin/sh", "-c", command]).await.1;
    assert!(
        out.contains("/sys/firmware/efi") && out.contains("tpm0"),
        "{out}"
    );
    let mut tasks = JoinSet::new();
    let mut shot = lab.open("efi", "screenshot", &mut tasks);
    match shot.recv().await {
        Some(Msg::Data(png)) => assert!(png.starts_with(b"\x89PNG")),
        other => panic!("{other:?}"),
    }
    lab.act("efi", "stop", json!({})).await;
}

impl Lab {
    async fn says_when_running(&self, name: &str, text: &str) -> String {
        self.until(name, "running", |s| s.state == State::Running)
            .await;
        self.says(name, text).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_still_boots_shuts_down_as_asked() {
    let Some(lab) = Lab::start("a_guest_that_still_boots_shuts_down_as_asked").await else {
        return;
    };
    lab.create("vm", "early", tiny()).await;
    lab.until("early", "running", |s| s.state == State::Running)
        .await;
    let op = Op::Act {
        target: target("vm", "early"),
        verb: "shutdown".into(),
        params: json!({ "timeout": "300s" }),
    };
    lab.ask(op).await.unwrap();
    let first = lab
        .until("early", "asked", |s| s.shutdown_asked.is_some())
        .await;
    let line = lab.run_dir("early").join("console.log");
    let said = std::fs::read_to_string(line).unwrap_or_default();
    assert!(!said.contains("TINY-UP"), "its first process runs: {said}");
    let off = lab
        .until("early", "off", |s| s.state == State::Stopped)
        .await;
    let exit = off.last_exit.unwrap();
    assert_eq!(
        (exit.reason, exit.message.as_str()),
        (ExitReason::Asked, "it shut down as asked")
    );
    eprintln!(
        "off {:?} after the first request",
        exit.at.since(first.stopping_since.unwrap())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_qemu_waits_for_it_and_notices_when_it_comes() {
    let test = "a_node_without_qemu_waits_for_it_and_notices_when_it_comes";
    let Some(lab) = Lab::on(test, false).await else {
        return;
    };
    lab.create("vm", "late", tiny()).await;
    let message = |s: &VmStatus| {
        let found = s.conditions.iter().find(|c| c.kind == "Running");
        found.map(|c| c.message.clone()).unwrap_or_default()
    };
    let waits = |s: &VmStatus| message(s).contains("install the Debian package `qemu-system-x86`");
    let status = lab.until("late", "waiting for QEMU", waits).await;
    assert_eq!((status.state, status.crashes), (State::Stopped, 0));
    install(lab.folder.path());
    lab.until("late", "running", |s| s.state == State::Running)
        .await;
    lab.act("late", "stop", json!({})).await;
}

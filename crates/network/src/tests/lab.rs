//! A node in a namespace, and guests behind real taps.

use super::guest::{self, Guest};
use crate::network::{Network, NetworkStatus, State};
use crate::{Fabric, Plug, SUBSYSTEMS, plug};
use host::clock::SystemClock;
use host::net::{Links, Netns, sysctl, tap};
use host::process::Run;
use model::{ObjectRef, Result};
use runtime::{Actor, Answer, Cx, CxBuilder, Engine, Obj, Op, Registry, Request, Surface};
use serde_json::{Value, json};
use std::future::Future;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;
use tokio::task::JoinSet;

pub fn registry() -> Registry {
    Registry::new(&[runtime::SUBSYSTEMS, SUBSYSTEMS, &[&guest::SUBSYSTEM]]).unwrap()
}

/// A node without a network of its own: only what admission decides.
pub async fn paper() -> Cx {
    CxBuilder::new(registry(), store::Memory::new())
        .build()
        .await
        .unwrap()
}

pub async fn ask(cx: &Cx, op: Op) -> Result<Answer> {
    let request = Request::new("r1", Actor::administrator("tester"), Surface::Rest, op);
    cx.desk().carry_out(cx.gate().admit(request)?).await
}

pub async fn create(cx: &Cx, kind: &str, name: &str, spec: Value) -> Result<Answer> {
    let body = json!({ "metadata": { "name": name }, "spec": spec });
    ask(
        cx,
        Op::Create {
            kind: kind.into(),
            project: Some("default".into()),
            body,
        },
    )
    .await
}

pub async fn update(cx: &Cx, kind: &str, name: &str, spec: Value) -> Result<Answer> {
    let body = json!({ "metadata": { "name": name }, "spec": spec });
    ask(
        cx,
        Op::Update {
            target: target(kind, name),
            body,
            create: false,
        },
    )
    .await
}

pub async fn delete(cx: &Cx, kind: &str, name: &str) -> Result<Answer> {
    ask(
        cx,
        Op::Delete {
            target: target(kind, name),
            keep: Vec::new(),
        },
    )
    .await
}

pub fn target(kind: &str, name: &str) -> ObjectRef {
    ObjectRef {
        kind: kind.into(),
        project: Some("default".into()),
        name: name.into(),
    }
}

pub fn get_guest(cx: &Cx, name: &str) -> Arc<Obj<Guest>> {
    cx.get::<Guest>(Some("default"), name).unwrap()
}

pub fn status(cx: &Cx, network: &str) -> NetworkStatus {
    cx.get::<Network>(Some("default"), network)
        .and_then(|n| n.status.clone())
        .unwrap_or_default()
}

/// Asks until it is so, for at most fifteen seconds.
pub async fn until<F: Future<Output = bool>>(what: &str, mut so: impl FnMut() -> F) {
    let end = Instant::now() + Duration::from_secs(15);
    while !so().await {
        assert!(Instant::now() < end, "{what}: not within fifteen seconds");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Runs a program in the namespace; its output, or nothing when it failed.
pub async fn run(netns: &Netns, program: &str, args: &[&str]) -> Option<String> {
    let run = Run::new(program)
        .args(args)
        .netns(netns.path())
        .timeout(Duration::from_secs(30));
    run.output().await.ok().map(|output| output.text())
}

pub async fn ip(netns: &Netns, command: &str) -> String {
    let args: Vec<&str> = command.split(' ').collect();
    run(netns, "ip", &args)
        .await
        .unwrap_or_else(|| panic!("ip {command}"))
}

pub async fn pings(from: &Netns, to: &str) -> bool {
    run(from, "ping", &["-n", "-c", "1", "-W", "1", to])
        .await
        .is_some()
}

/// A node: its namespace, its folder, and the processes' context, which can be restarted.
pub struct Node {
    pub netns: Netns,
    pub cx: Cx,
    /// The instance's name, when it has a way out.
    pub uplink: Option<String>,
    folder: tempfile::TempDir,
    guests: Vec<Netns>,
}

impl Node {
    /// `None`, said loudly, when this machine cannot do it.
    pub async fn start(test: &str) -> Option<Self> {
        Self::start_with(test, false).await
    }

    /// Likewise, with or without a way out of its namespace.
    pub async fn start_with(test: &str, uplink: bool) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: {test} needs root for network namespaces");
            return None;
        }
        let name = format!(
            "hostn-node-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let netns = Netns::named(&name).unwrap();
        let folder = tempfile::Builder::new()
            .prefix("hostn-")
            .tempdir_in("/run")
            .unwrap();
        std::fs::set_permissions(
            folder.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        let builder = CxBuilder::new(registry(), store::Memory::new());
        let uplink = uplink.then_some(name);
        let cx = Self::begin(builder, &netns, &folder, uplink.clone()).await;
        Some(Node {
            uplink,
            netns,
            cx,
            folder,
            guests: Vec::new(),
        })
    }

    async fn begin(
        builder: CxBuilder,
        netns: &Netns,
        folder: &tempfile::TempDir,
        uplink: Option<String>,
    ) -> Cx {
        let clock = Arc::new(SystemClock::new().unwrap());
        let fabric = Fabric::new(netns.clone(), folder.path().join("net"), uplink, clock);
        let cx = builder.part(Arc::new(fabric)).build().await.unwrap();
        Engine::start(&cx);
        cx
    }

    /// Our process ends and comes back; the store, the guests and the kernel stay.
    pub async fn restart(&mut self) {
        let store = self.cx.store_handle();
        assert_eq!(
            self.cx.life().stop(Duration::from_secs(10)).await,
            Vec::<&str>::new()
        );
        self.cx = Self::begin(
            CxBuilder::new(registry(), store),
            &self.netns,
            &self.folder,
            self.uplink.clone(),
        )
        .await;
    }

    pub fn folder(&self) -> std::path::PathBuf {
        self.folder.path().join("net")
    }

    pub async fn links(&self) -> Links {
        Links::open(&self.netns).await.unwrap()
    }

    /// Makes a network and waits until it is ready.
    pub async fn network(&self, name: &str, spec: Value) -> NetworkStatus {
        create(&self.cx, "network", name, spec).await.unwrap();
        self.ready(name).await
    }

    pub async fn ready(&self, name: &str) -> NetworkStatus {
        until(&format!("network {name} is ready"), || async {
            status(&self.cx, name).state == State::Ready
        })
        .await;
        status(&self.cx, name)
    }

    pub fn plug_of(&self, name: &str) -> Plug {
        let guest = get_guest(&self.cx, name);
        let nic = &guest.spec.nics[0];
        Plug {
            guest: target("guest", name),
            uid: guest.metadata.uid,
            nic: "nic0".into(),
            network: nic.network.clone(),
            mac: nic.mac.clone(),
            ipv4: nic.ipv4.clone(),
            ipv6: nic.ipv6.clone(),
            user: 0,
            queues: 1,
        }
    }

    /// Makes a guest, plugs it in and switches it on.
    pub async fn guest(&mut self, name: &str, network: &str) -> Machine {
        create(
            &self.cx,
            "guest",
            name,
            json!({ "nics": [{ "network": network }] }),
        )
        .await
        .unwrap();
        let what = self.plug_of(name);
        let mut plugged = plug(&self.cx, &what).await.unwrap();
        let netns = Netns::named(&format!("{}-{name}", self.netns.name())).unwrap();
        netns.ensure().await.unwrap();
        self.guests.push(netns.clone());
        let nic = tap::open(&netns, "eth0", 0, 1).await.unwrap().remove(0);
        sysctl::write(
            &netns,
            &[("net/ipv6/conf/eth0/disable_ipv6".into(), "0".into())],
        )
        .await
        .unwrap();
        ip(&netns, &format!("link set eth0 address {}", what.mac)).await;
        ip(&netns, &format!("link set eth0 mtu {}", plugged.mtu)).await;
        ip(&netns, "link set eth0 up").await;
        Machine {
            netns,
            what,
            tap: plugged.tap,
            _cable: cable(plugged.fds.remove(0), nic),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Ended first, or it would repair what is taken down here.
        let life = self.cx.life().clone();
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(life.stop(Duration::from_secs(10)))
        });
        for entry in std::fs::read_dir(self.folder())
            .into_iter()
            .flatten()
            .flatten()
        {
            let pid = std::fs::read_to_string(entry.path().join("pid"))
                .ok()
                .and_then(|text| text.trim().parse().ok());
            if let Some(pid) = pid {
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
        }
        for netns in self.guests.iter().chain([&self.netns]) {
            let _ = netns.remove();
        }
        if let Some(instance) = &self.uplink {
            tokio::task::block_in_place(|| {
                let removed = host::net::uplink::remove(instance);
                let _ = tokio::runtime::Handle::current().block_on(removed);
            });
        }
    }
}

/// A guest that runs: a namespace whose `eth0` is the other end of the tap.
pub struct Machine {
    pub netns: Netns,
    pub what: Plug,
    pub tap: String,
    _cable: JoinSet<()>,
}

impl Machine {
    /// Gives its NIC the address allocated to it, without DHCP.
    pub async fn configure(&self) {
        let net = format!("{}/24", self.what.ipv4.as_ref().unwrap());
        ip(&self.netns, &format!("addr add {net} dev eth0")).await;
    }

    pub fn ipv4(&self) -> &str {
        self.what.ipv4.as_deref().unwrap()
    }

    /// What a DHCP client is told: address, router, domain, MTU.
    pub async fn dhcp(&self) -> Option<String> {
        let script = std::env::temp_dir().join(format!("hostn-net-udhcpc-{}", std::process::id()));
        std::fs::write(
            &script,
            "#!/bin/sh\n[ \"$1\" = bound ] && echo \"$ip $router $domain $mtu\"\nexit 0\n",
        )
        .unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        let args = [
            "udhcpc",
            "-i",
            "eth0",
            "-q",
            "-n",
            "-f",
            "-t",
            "5",
            "-T",
            "1",
            "-O",
            "mtu",
            "-s",
            script.to_str().unwrap(),
        ];
        run(&self.netns, "busybox", &args)
            .await
            .map(|text| text.trim().to_owned())
    }
}

/// What QEMU does with a tap: carries frames both ways, virtio-net header and all.
fn cable(a: OwnedFd, b: OwnedFd) -> JoinSet<()> {
    let end = |fd: OwnedFd| {
        let flags = nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_RDWR;
        nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
        // SAFETY: an OwnedFd keeps its one descriptor for as long as it lives.
        Arc::new(unsafe { AsyncFd::register(fd) }.unwrap())
    };
    let (a, b) = (end(a), end(b));
    let mut both = JoinSet::new();
    for (from, to) in [(a.clone(), b.clone()), (b, a)] {
        both.spawn(async move {
            let mut frame = vec![0; 70_000];
            loop {
                let Ok(mut ready) = from.readable().await else {
                    return;
                };
                match ready
                    .try_io(|fd| nix::unistd::read(fd.get_ref(), &mut frame).map_err(Into::into))
                {
                    Ok(Ok(length)) => {
                        // A full or switched-off interface drops frames, as a wire would.
                        let _ = nix::unistd::write(to.get_ref(), &frame[..length]);
                    }
                    // Switched off for a moment.
                    Ok(Err(error)) if error.raw_os_error() == Some(nix::libc::EIO) => {
                        tokio::time::sleep(Duration::from_millis(10)).await
                    }
                    Ok(Err(error)) => panic!("cable {}: {error}", from.get_ref().as_raw_fd()),
                    Err(_) => {}
                }
            }
        });
    }
    both
}

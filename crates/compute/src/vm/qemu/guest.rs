//! One running guest: the task that follows it, and what can be asked of it.
//!
//! The task wakes the VM's controller whenever something changes, counts the guest's boots, asks the guest agent now and
//! then, and holds the serial line. It decides nothing.

use super::super::hypervisor::{AgentView, Ask, Console, Reply, Screen, View, VmId};
use super::super::rules;
use super::super::types::{Exit, ExitReason, VmSpec};
use super::console::Line;
use super::record::Record;
use super::{GRACE, translate, trouble};
use host::qemu::{CrashReason, DriverError, Handle, PauseReason, RunState, ShutdownReason};
use host::qga::{Agent, QgaError, ShutdownMode};
use host::qmp::Event;
use model::{Bytes, Error, Result, Timestamp};
use parking_lot::Mutex;
use runtime::Cx;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How often the agent is asked while it has not answered, and afterwards.
const AGENT: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(20));
/// How long keys are held.
const HOLD: Duration = Duration::from_millis(50);
/// How long an answer of the agent may take.
const ANSWER: Duration = Duration::from_secs(15);
/// SeaBIOS answers a reset with one of its own; what comes so soon is the same boot.
const SAME_BOOT: Duration = Duration::from_secs(3);
/// How long a reset may take to be seen.
const RESET: Duration = Duration::from_secs(10);

/// One guest.
pub(super) struct Guest {
    shared: Arc<Shared>,
    line: Line,
    /// Ends with the guest's entry; QEMU does not.
    _tasks: Mutex<JoinSet<()>>,
}

struct Shared {
    id: VmId,
    dir: PathBuf,
    handle: Handle,
    agent: Agent,
    kept: Mutex<Record>,
    incarnation: watch::Sender<u64>,
    agent_view: Mutex<AgentView>,
    /// Since when a disk cannot be written.
    stuck: Mutex<Option<Timestamp>>,
    /// When the last reset was seen.
    last_reset: Mutex<Option<Instant>>,
    /// Whether it shuts down to be started again.
    rebooting: AtomicBool,
    cx: Cx,
}

impl Guest {
    /// Begins to follow a guest. Returns once its serial line is held.
    pub(super) async fn follow(
        cx: &Cx,
        id: VmId,
        dir: PathBuf,
        record: Record,
        handle: Handle,
    ) -> Arc<Guest> {
        let sockets = handle.sockets().clone();
        let (line, reading) = Line::new(&sockets.serial, &dir);
        let shared = Arc::new(Shared {
            id,
            dir,
            agent: Agent::new(&sockets.qga),
            incarnation: watch::Sender::new(record.incarnation),
            kept: Mutex::new(record),
            agent_view: Mutex::default(),
            stuck: Mutex::default(),
            last_reset: Mutex::default(),
            rebooting: AtomicBool::new(false),
            handle,
            cx: cx.clone(),
        });
        let serial = shared.kept.lock().spec.serial;
        let mut tasks = JoinSet::new();
        if serial {
            tasks.spawn(reading);
        }
        tasks.spawn(states(shared.clone()));
        tasks.spawn(events(shared.clone()));
        tasks.spawn(agent(shared.clone()));
        if serial {
            line.held().await;
        }
        Arc::new(Guest {
            shared,
            line,
            _tasks: Mutex::new(tasks),
        })
    }

    /// What is seen of it.
    pub(super) fn view(&self) -> View {
        let shared = &self.shared;
        let guest = shared.seen();
        let kept = shared.kept.lock();
        View {
            guest,
            runs: Some(Arc::new(kept.spec.clone())),
            incarnation: kept.incarnation,
            started: Some(kept.started),
            acceleration: kept.acceleration.clone(),
            qemu: kept.qemu.clone(),
            agent: shared.agent_view.lock().clone(),
        }
    }

    /// Ends QEMU if it is still there.
    pub(super) async fn end(&self, grace: Duration) -> Result<()> {
        let ended = self.shared.handle.destroy(grace).await;
        ended.map(drop).map_err(trouble)
    }

    pub(super) fn console(&self) -> Result<Console> {
        if !self.shared.kept.lock().spec.serial {
            return Err(Error::refused(format!(
                "VM `{}` has no serial port",
                self.shared.id.object.name
            ))
            .hint("set serial to true, stop it and start it"));
        }
        Ok(self.line.open())
    }

    pub(super) async fn screen(&self) -> Result<Screen> {
        let name = &self.shared.id.object.name;
        let path = &self.shared.handle.sockets().vnc;
        let stream = UnixStream::connect(path).await.map_err(|e| {
            Error::refused(format!("the screen of VM `{name}` cannot be opened: {e}"))
                .because(e)
                .hint("it has one when display is `vnc`")
        })?;
        Ok(Screen { stream })
    }

    pub(super) async fn ask(&self, ask: Ask) -> Result<Reply> {
        let it = &self.shared;
        let handle = &it.handle;
        match ask {
            Ask::Continue => {
                *it.stuck.lock() = None;
                done(handle.resume().await)
            }
            Ask::Pause => done(handle.pause().await),
            Ask::Shutdown => {
                // The agent is surer than a button that nobody may listen to.
                if it.agent.shutdown(ShutdownMode::PowerOff).await.is_err() {
                    handle.power_button().await.map_err(trouble)?;
                }
                Ok(Reply::Done)
            }
            Ask::Reboot => {
                if it.agent.shutdown(ShutdownMode::Reboot).await.is_err() {
                    it.rebooting.store(true, Ordering::SeqCst);
                    handle.power_button().await.map_err(trouble)?;
                }
                Ok(Reply::Done)
            }
            Ask::PowerOff(reason, message) => {
                // Written first: should we be killed in between, the end is still known for what it was.
                it.keep(|kept| kept.ending = Some((reason, message)))?;
                self.end(GRACE).await?;
                Ok(Reply::Done)
            }
            Ask::Reset(boot) => it.reset(boot).await,
            Ask::Vcpus(n) => {
                handle.set_vcpus(n).await.map_err(trouble)?;
                it.keep(|kept| kept.spec.vcpus = n)?;
                Ok(Reply::Done)
            }
            Ask::Memory(bytes) => {
                let more = bytes.saturating_sub(it.kept.lock().spec.memory.0) >> 20;
                handle.plug_memory(more).await.map_err(trouble)?;
                it.keep(|kept| kept.spec.memory = Bytes(bytes))?;
                Ok(Reply::Done)
            }
            Ask::Attach(source) => {
                let (spec, mut fds) = (source.disk.clone(), BTreeMap::new());
                let disk = translate::disk(source, &BTreeMap::new(), false, &mut fds)?;
                handle.plug_disk(&disk, fds).await.map_err(trouble)?;
                it.keep(|kept| {
                    kept.spec.disks.push(spec);
                    kept.disks.push(disk);
                })?;
                Ok(Reply::Done)
            }
            Ask::Detach(name) => {
                let disk = it.kept.lock().disks.iter().find(|d| d.id == name).cloned();
                if let Some(disk) = disk {
                    handle.unplug_disk(&disk).await.map_err(trouble)?;
                }
                it.keep(|kept| {
                    kept.spec.disks.retain(|d| d.name != name);
                    kept.disks.retain(|d| d.id != name);
                })?;
                Ok(Reply::Done)
            }
            Ask::Grow(name, size) => {
                let disk = it.kept.lock().disks.iter().find(|d| d.id == name).cloned();
                if let Some(disk) = disk {
                    handle.resize_disk(&disk, size).await.map_err(trouble)?;
                }
                it.keep(|kept| {
                    for disk in kept.spec.disks.iter_mut().filter(|d| d.name == name) {
                        disk.size = Some(Bytes(size));
                    }
                })?;
                Ok(Reply::Done)
            }
            Ask::Plug(source) => {
                let (spec, mut fds) = (source.nic.clone(), BTreeMap::new());
                let nic = translate::nic(source, &BTreeMap::new(), &mut fds)?;
                handle.plug_nic(&nic, fds).await.map_err(trouble)?;
                it.keep(|kept| {
                    kept.spec.nics.push(spec);
                    kept.nics.push(nic);
                })?;
                Ok(Reply::Done)
            }
            Ask::Unplug(name) => {
                let nic = it.kept.lock().nics.iter().find(|n| n.id == name).cloned();
                if let Some(nic) = nic {
                    handle.unplug_nic(&nic).await.map_err(trouble)?;
                }
                it.keep(|kept| {
                    kept.spec.nics.retain(|n| n.name != name);
                    kept.nics.retain(|n| n.id != name);
                })?;
                Ok(Reply::Done)
            }
            Ask::Link(name, up) => {
                let nic = it.kept.lock().nics.iter().find(|n| n.id == name).cloned();
                if let Some(nic) = nic {
                    let qmp = handle.qmp().await.map_err(trouble)?;
                    let set = qmp.set_link(&nic.device_id(), up).await;
                    set.map_err(|e| Error::refused(e.to_string()).because(e))?;
                }
                it.keep(|kept| {
                    for nic in kept.spec.nics.iter_mut().filter(|n| n.name == name) {
                        nic.link = up;
                    }
                })?;
                Ok(Reply::Done)
            }
            Ask::Keys(keys) => {
                let qmp = handle.qmp().await.map_err(trouble)?;
                let sent = qmp.send_key(&keys, HOLD).await;
                sent.map_err(|e| {
                    Error::field("params.keys", e.to_string())
                        .hint("QEMU's key names, such as ctrl, alt, delete, ret, spc, a, f1")
                })?;
                Ok(Reply::Done)
            }
            Ask::Screenshot => {
                let png = handle.screenshot().await.map_err(trouble)?;
                Ok(Reply::Bytes(png.into()))
            }
            Ask::Agent { command, arguments } => {
                let answer = it.agent.ask_within(command, arguments, ANSWER).await;
                answer.map(Reply::Json).map_err(agent_trouble)
            }
        }
    }
}

fn done(result: std::result::Result<(), DriverError>) -> Result<Reply> {
    result.map(|()| Reply::Done).map_err(trouble)
}

fn agent_trouble(error: QgaError) -> Error {
    let text = error.to_string();
    match error {
        QgaError::Refused { .. } | QgaError::TooLarge { .. } => Error::refused(text),
        QgaError::Absent { .. } | QgaError::NoPort { .. } => Error::refused(text).because(error),
        _ => Error::unavailable(text).because(error),
    }
}

impl Shared {
    /// Changes the record, in memory and beside the guest.
    fn keep(&self, edit: impl FnOnce(&mut Record)) -> Result<()> {
        let record = {
            let mut kept = self.kept.lock();
            edit(&mut kept);
            kept.clone()
        };
        record.write(&self.dir)
    }

    fn wake(&self) {
        self.cx.wake(&self.id.key());
    }

    async fn reset(&self, boot: u64) -> Result<Reply> {
        let mut seen = self.incarnation.subscribe();
        let now = *seen.borrow_and_update();
        // Another boot already: what was asked for has happened, or is out of date.
        if now == boot {
            self.handle.reset().await.map_err(trouble)?;
            let counted = seen.wait_for(|n| *n > boot);
            if tokio::time::timeout(RESET, counted).await.is_err() {
                return Err(Error::unavailable(
                    "QEMU took the reset and has not told that it happened",
                ));
            }
        }
        Ok(Reply::Json(Value::from(*self.incarnation.borrow())))
    }

    /// What is seen of the guest.
    fn seen(&self) -> rules::Guest {
        let state = self.handle.state().borrow().clone();
        let text = state.to_string();
        let gone = !self.handle.is_running();
        match state {
            RunState::Starting => rules::Guest::Unreachable("its QEMU does not answer yet".into()),
            RunState::Running => rules::Guest::Running,
            RunState::Paused(PauseReason::IoError) => {
                let since = *self
                    .stuck
                    .lock()
                    .get_or_insert_with(|| self.cx.clock().now());
                rules::Guest::Stuck {
                    since,
                    why: "a disk cannot be read or written: its pool may be full".into(),
                }
            }
            RunState::Paused(_) => rules::Guest::Paused,
            RunState::Shutdown(reason) => {
                let again =
                    self.rebooting.load(Ordering::SeqCst) || reason == ShutdownReason::Reboot;
                let reason = match again {
                    true => ExitReason::Reboot,
                    false => ExitReason::GuestShutdown,
                };
                rules::Guest::Ended(self.exit(reason, "the guest shut itself down".into()))
            }
            RunState::Crashed(CrashReason::QemuEnded { .. }) => {
                rules::Guest::Ended(self.exit(ExitReason::Crash, text))
            }
            RunState::Crashed(_) if gone => rules::Guest::Ended(self.exit(ExitReason::Crash, text)),
            RunState::Crashed(_) => rules::Guest::Crashed(rules::Crashed { message: text }),
            RunState::Exited => rules::Guest::Ended(self.exit(
                ExitReason::Asked,
                "its QEMU was ended by somebody on the host".into(),
            )),
        }
    }

    /// How it ended, noticed once.
    fn exit(&self, reason: ExitReason, message: String) -> Exit {
        let mut kept = self.kept.lock();
        if let Some(exit) = &kept.ended {
            return exit.clone();
        }
        let (reason, message) = kept.ending.clone().unwrap_or((reason, message));
        let exit = Exit {
            reason,
            at: self.cx.clock().now(),
            boot: kept.boot.clone(),
            message,
        };
        kept.ended = Some(exit.clone());
        if let Err(error) = kept.write(&self.dir) {
            tracing::warn!(?error, vm = %self.id.object, "the record of an ended guest cannot be written");
        }
        exit
    }
}

/// Wakes the controller at each change of the guest's state.
async fn states(it: Arc<Shared>) {
    let mut state = it.handle.state();
    while state.changed().await.is_ok() {
        let now = state.borrow_and_update().clone();
        if !matches!(now, RunState::Paused(PauseReason::IoError)) {
            *it.stuck.lock() = None;
        }
        tracing::debug!(vm = %it.id.object, state = %now, "guest changed its state");
        it.wake();
    }
}

/// Counts the guest's boots.
async fn events(it: Arc<Shared>) {
    let mut events = it.handle.events();
    loop {
        match events.recv().await {
            Ok(event) => heard(&it, &event),
            Err(RecvError::Lagged(_)) => it.wake(),
            Err(RecvError::Closed) => return,
        }
    }
}

fn heard(it: &Shared, event: &Event) {
    if event.name != "RESET" {
        return;
    }
    let before = it.last_reset.lock().replace(Instant::now());
    let by_guest = event.data["guest"].as_bool().unwrap_or(false);
    if by_guest && before.is_some_and(|at| at.elapsed() < SAME_BOOT) {
        return;
    }
    let now = it.cx.clock().now();
    let mut next = 0;
    let kept = it.keep(|kept| {
        kept.incarnation += 1;
        kept.started = now;
        next = kept.incarnation;
    });
    if let Err(error) = kept {
        tracing::warn!(?error, vm = %it.id.object, "a reset of the guest cannot be written down");
    }
    // The agent of the former boot says nothing about this one.
    *it.agent_view.lock() = AgentView::default();
    it.incarnation.send_replace(next);
    it.wake();
}

/// Asks the guest agent now and then.
async fn agent(it: Arc<Shared>) {
    if !it.kept.lock().spec.guest_agent {
        return;
    }
    loop {
        let runs = *it.handle.state().borrow() == RunState::Running;
        let connected = it.agent_view.lock().connected;
        if runs {
            let view = look(&it, connected).await;
            let changed = {
                let mut now = it.agent_view.lock();
                let changed = *now != view;
                *now = view;
                changed
            };
            if changed {
                it.wake();
            }
        }
        let pause = if it.agent_view.lock().connected {
            AGENT.1
        } else {
            AGENT.0
        };
        tokio::time::sleep(pause).await;
    }
}

async fn look(it: &Shared, known: bool) -> AgentView {
    if it.agent.ping().await.is_err() {
        return AgentView::default();
    }
    let before = it.agent_view.lock().clone();
    let os = match (known, &before.os) {
        // It does not change while the guest runs.
        (true, Some(os)) => Some(os.clone()),
        _ => it.agent.os_info().await.ok().and_then(|os| os.pretty_name),
    };
    let interfaces = it.agent.interfaces().await.unwrap_or_default();
    let nics = interfaces
        .into_iter()
        .filter_map(|i| {
            let addresses = i.addresses.iter().map(|a| a.ip);
            // Every interface has a link-local one, which says nothing.
            let addresses = addresses
                .filter(|ip| match ip {
                    std::net::IpAddr::V4(ip) => !ip.is_link_local(),
                    std::net::IpAddr::V6(ip) => !ip.is_unicast_link_local(),
                })
                .map(|ip| ip.to_string());
            Some((i.mac?, addresses.take(16).collect()))
        })
        .take(64)
        .collect();
    AgentView {
        connected: true,
        hostname: it.agent.host_name().await.ok().map(|h| plain(&h, 253)),
        os: os.map(|os| plain(&os, 100)),
        nics,
    }
}

/// Text of a guest, which may be anything, as it may stand in a status.
fn plain(text: &str, most: usize) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(most)
        .collect()
}

impl VmSpec {
    /// The spec with secrets replaced by what tells whether they changed.
    pub fn masked(&self) -> VmSpec {
        use sha2::{Digest as _, Sha256};
        let mut out = self.clone();
        if let Some(cloud_init) = &mut out.cloud_init {
            let secrets = [&mut cloud_init.password, &mut cloud_init.secret_user_data];
            for text in secrets.into_iter().flatten() {
                *text = format!("sha256:{}", hex::encode(Sha256::digest(text.as_bytes())));
            }
        }
        out
    }
}

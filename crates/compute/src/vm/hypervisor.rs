//! The border to what runs guests: [`Hypervisor`]. The real one is in [`super::qemu`]; tests put a stand-in here.
//!
//! Every call is idempotent by the VM's uid. Nothing here decides what should run.

use super::rules::{Guest, back_off};
use super::types::{Disk, ExitReason, Nic, VmSpec};
use bytes::Bytes;
use futures::future::BoxFuture;
use model::{Error, ObjectRef, Result, Timestamp, Uid};
use parking_lot::Mutex;
use runtime::Cx;
use runtime::Key;
use serde_json::Value;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::net::UnixStream;
use tokio::sync::{broadcast, mpsc};

/// A VM as the hypervisor knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmId {
    /// Its identity, and its SMBIOS uuid.
    pub uid: Uid,
    /// Its object.
    pub object: ObjectRef,
}

impl VmId {
    /// The key of its object.
    pub fn key(&self) -> Key {
        runtime::object_key(
            &self.object.kind,
            self.object.project.as_deref(),
            &self.object.name,
        )
    }
}

/// What a guest is started with.
pub struct Launch {
    /// Which VM.
    pub vm: VmId,
    /// What it shall be.
    pub spec: VmSpec,
    /// Which boot of the guest this is.
    pub incarnation: u64,
    /// Whether its CPUs stand still from the first instruction.
    pub paused: bool,
    /// Its disks, opened.
    pub disks: Vec<DiskSource>,
    /// Its network interfaces, plugged in.
    pub nics: Vec<NicSource>,
    /// The bytes of its cloud-init seed.
    pub seed: Option<Vec<u8>>,
}

/// An opened disk.
#[derive(Debug)]
pub struct DiskSource {
    /// The disk.
    pub disk: Disk,
    /// Its files, the topmost first; only that one is written.
    pub layers: Vec<LayerFile>,
}

/// One file of a disk.
#[derive(Debug)]
pub struct LayerFile {
    /// Opened for what the disk needs.
    pub fd: OwnedFd,
    /// Whether it is qcow2, else raw.
    pub qcow2: bool,
}

/// A network interface that is plugged in.
#[derive(Debug)]
pub struct NicSource {
    /// The interface.
    pub nic: Nic,
    /// Its tap device, one descriptor per queue.
    pub taps: Vec<OwnedFd>,
    /// Name of the tap device.
    pub device: String,
    /// Largest packet.
    pub mtu: u32,
}

/// What a hypervisor sees of one VM.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The guest.
    pub guest: Guest,
    /// What it was started with, and took over since.
    pub runs: Option<Arc<VmSpec>>,
    /// Which boot of the guest this is.
    pub incarnation: u64,
    /// When it was last powered on or reset.
    pub started: Option<Timestamp>,
    /// `kvm` or `tcg`.
    pub acceleration: String,
    /// Version of its QEMU.
    pub qemu: String,
    /// What the guest agent says.
    pub agent: AgentView,
}

impl View {
    /// Nothing is there.
    pub fn absent() -> View {
        View {
            guest: Guest::Absent,
            runs: None,
            incarnation: 0,
            started: None,
            acceleration: String::new(),
            qemu: String::new(),
            agent: AgentView::default(),
        }
    }
}

/// What the guest agent says; changes every few seconds at most.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentView {
    /// Whether it answers.
    pub connected: bool,
    /// Host name.
    pub hostname: Option<String>,
    /// Operating system, for people.
    pub os: Option<String>,
    /// MAC address and addresses of each interface.
    pub nics: Vec<(String, Vec<String>)>,
}

/// What can be asked of a guest.
#[derive(Debug)]
pub enum Ask {
    /// Let its CPUs run.
    Continue,
    /// Make them stand still.
    Pause,
    /// Ask it to shut down: by its agent when that answers, else by its power button.
    Shutdown,
    /// Ask it to reboot.
    Reboot,
    /// Cut the power; its end then has this reason.
    PowerOff(ExitReason, String),
    /// Reset it, when it is still in this boot. Answers the next boot's number.
    Reset(u64),
    /// Have this many CPUs.
    Vcpus(u32),
    /// Have this many bytes of memory.
    Memory(u64),
    /// Add a disk.
    Attach(DiskSource),
    /// Remove a disk.
    Detach(String),
    /// Tell it the new size of a disk.
    Grow(String, u64),
    /// Add a network interface.
    Plug(NicSource),
    /// Remove a network interface.
    Unplug(String),
    /// Plug a cable in or out.
    Link(String, bool),
    /// Press these keys at once, by their QEMU names.
    Keys(Vec<String>),
    /// What its screen shows, as PNG.
    Screenshot,
    /// Ask the guest agent.
    Agent {
        /// The agent's command.
        command: &'static str,
        /// Its arguments.
        arguments: Value,
    },
}

/// What a guest answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// It is done.
    Done,
    /// Bytes.
    Bytes(Bytes),
    /// A document.
    Json(Value),
}

/// The serial line of a guest, shared by all who read it.
pub struct Console {
    /// What it said before.
    pub before: Bytes,
    /// What it says from now on.
    pub output: broadcast::Receiver<Bytes>,
    /// What it is told.
    pub input: mpsc::Sender<Bytes>,
}

/// A connection to the screen of a guest.
pub struct Screen {
    /// Bytes of the RFB protocol.
    pub stream: UnixStream,
}

/// What is the same for all guests of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Host {
    /// This boot of the host.
    pub boot: String,
    /// Version of the installed QEMU.
    pub qemu: String,
    /// `kvm` or `tcg`.
    pub acceleration: String,
    /// Why it is not `kvm`.
    pub why: String,
}

/// Runs guests. Every call is idempotent by the VM's uid.
pub trait Hypervisor: Send + Sync + 'static {
    /// What is the same for all guests.
    fn host(&self) -> Host;
    /// What this machine lacks to start such a guest, with the remedy; `None` when nothing.
    fn lacks(&self, _spec: &VmSpec) -> Option<String> {
        None
    }
    /// The numeric user that a VM's QEMU runs as.
    fn user(&self, vm: &VmId) -> u32;
    /// What there is of a VM; a guest that outlived us is taken up again. `cx` is woken whenever that changes.
    fn look<'a>(&'a self, cx: &'a Cx, vm: &'a VmId) -> BoxFuture<'a, Result<View>>;
    /// Starts a guest. A failure leaves nothing behind.
    fn launch<'a>(&'a self, cx: &'a Cx, launch: Launch) -> BoxFuture<'a, Result<()>>;
    /// Asks a running guest.
    fn ask<'a>(&'a self, vm: &'a VmId, ask: Ask) -> BoxFuture<'a, Result<Reply>>;
    /// Takes away what an ended guest left.
    fn clean<'a>(&'a self, vm: &'a VmId) -> BoxFuture<'a, Result<()>>;
    /// Takes away everything of a VM that is deleted, such as its firmware's variables and its TPM.
    fn forget<'a>(&'a self, vm: &'a VmId) -> BoxFuture<'a, Result<()>>;
    /// Its serial line.
    fn console<'a>(&'a self, vm: &'a VmId) -> BoxFuture<'a, Result<Console>>;
    /// A new connection to its screen.
    fn screen<'a>(&'a self, vm: &'a VmId) -> BoxFuture<'a, Result<Screen>>;
}

/// The hypervisor of this process, as a part of its context.
pub struct Guests {
    hypervisor: Arc<dyn Hypervisor>,
    /// How many consoles of each VM are open.
    pub(super) viewers: Arc<Mutex<HashMap<Uid, u64>>>,
}

impl Guests {
    /// Guests that this runs.
    pub fn new(hypervisor: Arc<dyn Hypervisor>) -> Guests {
        Guests {
            hypervisor,
            viewers: Arc::default(),
        }
    }

    /// The guests of this process.
    ///
    /// # Errors
    /// When it runs none.
    pub(super) fn part(cx: &Cx) -> Result<Arc<Guests>> {
        cx.try_part::<Guests>().ok_or_else(|| {
            Error::unavailable(format!(
                "this process of node `{}` runs no guests",
                cx.node()
            ))
        })
    }

    /// The hypervisor of this process.
    ///
    /// # Errors
    /// When it runs no guests.
    pub fn of(cx: &Cx) -> Result<Arc<dyn Hypervisor>> {
        Guests::part(cx).map(|it| it.hypervisor.clone())
    }
}

/// How long a guest that runs this long after a start is no longer counted as crashing in a row.
pub(super) const QUIET: std::time::Duration = std::time::Duration::from_secs(600);

/// Crashes in a row after another one.
pub(super) fn crashes_after(crashes: u32, started: Option<Timestamp>, now: Timestamp) -> u32 {
    let quiet = started.is_some_and(|s| now.since(s) >= QUIET && back_off(crashes) < QUIET);
    if quiet { 1 } else { crashes.saturating_add(1) }
}

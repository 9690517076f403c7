//! The real hypervisor: one QEMU process per guest, started and followed through `host`.
//!
//! Per VM there are two folders. `<run>/<uid>` holds sockets, logs, the seed and the records by which a guest is found
//! again without the store; it does not survive a reboot of the host. `<state>/<uid>` holds what the guest may not lose:
//! the variables of its firmware and its TPM.
//!
//! **Invariant:** dropping all of this stops no guest.

mod console;
mod files;
mod ground;
mod guest;
mod record;
mod translate;

use super::hypervisor::{Ask, Console, Host, Hypervisor, Launch, Reply, Screen, View, VmId};
use super::rules;
use super::types::{Exit, ExitReason, VmSpec};
use futures::future::BoxFuture;
pub use ground::Ground;
use guest::Guest;
use host::clock::SharedClock;
use host::qemu::{Driver, DriverConfig, DriverError};
use model::{Error, Result, Uid};
use parking_lot::Mutex;
use record::Record;
use runtime::Cx;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// How long QEMU has to close its disks before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// How often the logs of QEMUs are looked at.
const LOG_LOOK: Duration = Duration::from_secs(5);
/// First numeric user of guests; each has its own above it.
const USERS: u32 = 0x6000_0000;

/// How guests are run on this node.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the development instance, for the names of processes.
    pub instance: Option<String>,
    /// Folder for what ends with the host's boot, such as `/run/debvisor/vm`. Short: sockets lie two levels below it.
    pub run: PathBuf,
    /// Folder for what guests may not lose, such as `/var/lib/debvisor/vms`.
    pub state: PathBuf,
    /// Folder for answers that cost time to find out: whether KVM works, what QEMU can do.
    pub cache: PathBuf,
    /// Time, boot and randomness.
    pub clock: SharedClock,
    /// Whether each guest runs as a user of its own, which only root can see to.
    pub unprivileged: bool,
    /// The QEMU program: a path, or a name in the system's directories.
    pub qemu: PathBuf,
}

/// Runs guests by QEMU.
pub struct Qemu {
    config: Config,
    driver: Driver,
    ground: watch::Sender<Arc<Ground>>,
    guests: Arc<Mutex<HashMap<Uid, Arc<Guest>>>>,
    /// Whether the guests are let go of when the process ends.
    tied: AtomicBool,
    /// One guest is taken up by one caller at a time; few share a lock.
    finding: [tokio::sync::Mutex<()>; 16],
}

impl Qemu {
    /// Finds out what this machine can do; what it lacks is said by [`Qemu::ground`]. Touches no guest.
    ///
    /// # Errors
    /// When a folder cannot be made.
    pub async fn open(config: Config) -> Result<Qemu> {
        for folder in [&config.run, &config.state, &config.cache] {
            files::folder(folder, 0o711)?;
        }
        let mut driver = DriverConfig::new(config.clock.clone());
        driver.qemu.clone_from(&config.qemu);
        let ground = Ground::look(&config).await;
        Ok(Qemu {
            driver: Driver::new(driver),
            config,
            ground: watch::Sender::new(Arc::new(ground)),
            guests: Arc::default(),
            tied: AtomicBool::new(false),
            finding: Default::default(),
        })
    }

    /// What guests stand on here: the value now, and each change once [`Qemu::follow`] runs.
    pub fn ground(&self) -> watch::Receiver<Arc<Ground>> {
        self.ground.subscribe()
    }

    fn now(&self) -> Arc<Ground> {
        self.ground.borrow().clone()
    }

    /// Until the process ends: notices when what guests stand on comes or goes, and has every VM looked at again; keeps
    /// the logs of QEMUs bounded.
    pub fn follow(self: &Arc<Self>, cx: &Cx) {
        let (it, cx, stop) = (self.clone(), cx.clone(), cx.shutdown());
        let life = cx.life().clone();
        life.spawn("ground", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                _ = async { tokio::join!(ground::follow(&it, &cx), it.bound_logs()) } => {}
            }
        });
    }

    /// QEMU appends what it complains about to a file, and a guest can make it complain for ever. QEMU writes by
    /// `O_APPEND`, so the file can be cut under it. Looked at now and then: an inotify watch would wake for each line.
    async fn bound_logs(&self) {
        loop {
            tokio::time::sleep(LOG_LOOK).await;
            let running: Vec<Uid> = self.guests.lock().keys().copied().collect();
            for uid in running {
                files::bound(&self.run_dir(uid).join("qemu.log"));
            }
        }
    }

    fn run_dir(&self, uid: Uid) -> PathBuf {
        self.config.run.join(uid.short())
    }

    fn state_dir(&self, uid: Uid) -> PathBuf {
        self.config.state.join(uid.to_string())
    }

    fn known(&self, uid: Uid) -> Option<Arc<Guest>> {
        self.guests.lock().get(&uid).cloned()
    }

    fn live(&self, vm: &VmId) -> Result<Arc<Guest>> {
        self.known(vm.uid).ok_or_else(|| {
            Error::refused(format!("VM `{}` does not run", vm.object.name)).hint("start it first")
        })
    }

    /// Keeps a guest, until it ends or our process does: then its connections are closed, and it runs on.
    fn insert(&self, cx: &Cx, guest: Arc<Guest>, uid: Uid) {
        self.guests.lock().insert(uid, guest);
        if !self.tied.swap(true, Ordering::SeqCst) {
            let (guests, stop) = (self.guests.clone(), cx.shutdown());
            cx.life().spawn("guests", async move {
                stop.cancelled().await;
                let all = std::mem::take(&mut *guests.lock());
                drop(all);
            });
        }
    }

    /// Takes up a guest that outlived us, or what is left of one.
    async fn find(&self, cx: &Cx, vm: &VmId) -> Result<View> {
        let [.., last] = *vm.uid.as_bytes();
        let _alone = self.finding[usize::from(last) % self.finding.len()]
            .lock()
            .await;
        if let Some(guest) = self.known(vm.uid) {
            return Ok(guest.view());
        }
        let dir = self.run_dir(vm.uid);
        let Some(record) = Record::read(&dir)? else {
            return Ok(View::absent());
        };
        match self.driver.adopt(&dir).await.map_err(trouble)? {
            Some(handle) => {
                tracing::info!(vm = %vm.object, pid = handle.pid(), "guest adopted");
                let guest = Guest::follow(cx, vm.clone(), dir, record, handle).await;
                let view = guest.view();
                self.insert(cx, guest, vm.uid);
                Ok(view)
            }
            None => Ok(self.left(cx, &dir, record)),
        }
    }

    /// What a guest that ended while nobody watched left behind.
    fn left(&self, cx: &Cx, dir: &Path, mut record: Record) -> View {
        let boot = self.config.clock.boot_id().as_str().to_owned();
        let exit = match record.ended.clone() {
            Some(exit) => exit,
            None => {
                let (reason, message) = match &record.ending {
                    Some((reason, message)) => (*reason, message.clone()),
                    None if record.boot != boot => {
                        (ExitReason::HostReboot, "the host went down with it".into())
                    }
                    None => (
                        ExitReason::Crash,
                        format!(
                            "its QEMU ended while nobody watched: {}",
                            files::last_words(&dir.join("qemu.log"))
                        ),
                    ),
                };
                let exit = Exit {
                    reason,
                    at: cx.clock().now(),
                    boot: record.boot.clone(),
                    message,
                };
                // Kept, so that the same end is not counted twice.
                record.ended = Some(exit.clone());
                if let Err(error) = record.write(dir) {
                    tracing::warn!(?error, "the record of an ended guest cannot be written");
                }
                exit
            }
        };
        View {
            guest: rules::Guest::Ended(exit),
            runs: Some(Arc::new(record.spec)),
            incarnation: record.incarnation,
            started: Some(record.started),
            acceleration: record.acceleration,
            qemu: record.qemu,
            agent: Default::default(),
        }
    }

    async fn start(&self, cx: &Cx, launch: Launch) -> Result<()> {
        let (id, paused) = (launch.vm.clone(), launch.paused);
        let nics = launch.spec.nics.iter().filter(|n| !n.link);
        let unplugged: Vec<String> = nics.map(|n| n.name.clone()).collect();
        if self.known(id.uid).is_some() {
            return Ok(());
        }
        let ground = self.now();
        let features = ground.features.as_ref();
        let features = features.map_err(|why| Error::unavailable(why.clone()))?;
        let dir = self.run_dir(id.uid);
        let user = self.user(&id);
        let user = self.config.unprivileged.then_some((user, user));
        let kept = self.state_dir(id.uid);
        let files = files::prepare(&kept, &dir, &launch, user)?;
        let mut record = Record {
            version: record::VERSION,
            vm: id.uid,
            object: id.object.clone(),
            spec: launch.spec.masked(),
            incarnation: launch.incarnation,
            started: cx.clock().now(),
            boot: self.config.clock.boot_id().as_str().to_owned(),
            acceleration: ground.accelerated().into(),
            qemu: features.version.clone(),
            disks: Vec::new(),
            nics: Vec::new(),
            ending: None,
            ended: None,
        };
        let around = translate::Around {
            instance: self.config.instance.as_deref(),
            dir: &dir,
            user,
            accel: ground.acceleration.accel,
            cpu: &ground.acceleration.cpu,
            io_uring: features.io_uring,
        };
        let (machine, fds) = translate::launch(launch, files, &around)?;
        record.disks.clone_from(&machine.disks);
        record.nics.clone_from(&machine.nics);
        record.write(&dir)?;
        let handle = match self.driver.launch(&machine, fds).await {
            Ok(handle) => handle,
            Err(error) => {
                Record::remove(&dir);
                return Err(trouble(error));
            }
        };
        let guest = Guest::follow(cx, id.clone(), dir, record, handle).await;
        self.insert(cx, guest.clone(), id.uid);
        for nic in unplugged {
            guest.ask(Ask::Link(nic, false)).await?;
        }
        // It stands still until its serial line is held, so that not a byte of it is lost.
        match paused {
            true => Ok(()),
            false => guest.ask(Ask::Continue).await.map(drop),
        }
    }
}

impl Hypervisor for Qemu {
    fn host(&self) -> Host {
        let ground = self.now();
        Host {
            boot: self.config.clock.boot_id().as_str().to_owned(),
            qemu: ground.version().to_owned(),
            acceleration: ground.accelerated().into(),
            why: ground.acceleration.because.clone(),
        }
    }

    fn lacks(&self, spec: &VmSpec) -> Option<String> {
        self.now().lacks(spec)
    }

    fn user(&self, vm: &VmId) -> u32 {
        if !self.config.unprivileged {
            return 0;
        }
        // The end of a UUIDv7 is random: two VMs with the same user are as likely as two equal 28-bit numbers.
        let bytes = vm.uid.as_bytes();
        let random = u32::from_be_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
        USERS | (random & 0x0fff_ffff)
    }

    fn look<'a>(&'a self, cx: &'a Cx, vm: &'a VmId) -> BoxFuture<'a, Result<View>> {
        Box::pin(async move {
            match self.known(vm.uid) {
                Some(guest) => Ok(guest.view()),
                None => self.find(cx, vm).await,
            }
        })
    }

    fn launch<'a>(&'a self, cx: &'a Cx, launch: Launch) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.start(cx, launch))
    }

    fn ask<'a>(&'a self, vm: &'a VmId, ask: Ask) -> BoxFuture<'a, Result<Reply>> {
        Box::pin(async move { self.live(vm)?.ask(ask).await })
    }

    fn clean<'a>(&'a self, vm: &'a VmId) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let dir = self.run_dir(vm.uid);
            let known = self.guests.lock().remove(&vm.uid);
            if let Some(guest) = known {
                guest.end(GRACE).await?;
            }
            self.driver.destroy(&dir, GRACE).await.map_err(trouble)?;
            Record::remove(&dir);
            files::remove(&dir);
            Ok(())
        })
    }

    fn forget<'a>(&'a self, vm: &'a VmId) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.clean(vm).await?;
            files::remove(&self.state_dir(vm.uid));
            Ok(())
        })
    }

    fn console<'a>(&'a self, vm: &'a VmId) -> BoxFuture<'a, Result<Console>> {
        Box::pin(async move { self.live(vm)?.console() })
    }

    fn screen<'a>(&'a self, vm: &'a VmId) -> BoxFuture<'a, Result<Screen>> {
        Box::pin(async move { self.live(vm)?.screen().await })
    }
}

/// What the driver says, as people read it.
fn trouble(error: DriverError) -> Error {
    let text = error.to_string();
    match error {
        DriverError::Refused { .. } | DriverError::Gone { .. } => Error::refused(text),
        _ => Error::new(model::What::Refused, text).because(error),
    }
}

#[cfg(test)]
mod tests;

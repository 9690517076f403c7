//! One running guest: its QMP connection, its state, and what can be asked of it.

use super::driver::{DriverError, clean, dir_error, tail};
use super::launch::Sockets;
use super::record::LaunchRecord;
use super::state::RunState;
use crate::process::{Exit, Process};
use crate::qmp::{Event, Qmp, QmpError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;

/// Events kept for a slow subscriber.
const EVENTS: usize = 256;

pub(super) struct Shared {
    pub(super) dir: PathBuf,
    pub(super) record: LaunchRecord,
    pub(super) process: Process,
    tpm: Option<Process>,
    qmp: watch::Sender<Option<Qmp>>,
    state: watch::Sender<RunState>,
    events: broadcast::Sender<Arc<Event>>,
    /// Set before we end it ourselves, so that its end is no crash.
    ending: AtomicBool,
}

/// One running guest. Cheap to clone; when the last clone goes we stop watching, and the guest runs on.
#[derive(Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
    /// The task that follows the guest; ends with the last handle.
    _task: Arc<JoinSet<()>>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle")
            .field("vm", &self.shared.record.name)
            .field("pid", &self.shared.process.pid())
            .field("state", &*self.shared.state.borrow())
            .finish_non_exhaustive()
    }
}

impl Handle {
    /// Begins to follow a guest, and returns when its state is known, or at once when there is no connection yet.
    pub(super) async fn start(
        dir: PathBuf,
        record: LaunchRecord,
        process: Process,
        tpm: Option<Process>,
        qmp: Option<Qmp>,
    ) -> Self {
        let shared = Arc::new(Shared {
            dir,
            record,
            process,
            tpm,
            qmp: watch::Sender::new(None),
            state: watch::Sender::new(RunState::Starting),
            events: broadcast::Sender::new(EVENTS),
            ending: AtomicBool::new(false),
        });
        let mut task = JoinSet::new();
        let connected = qmp.is_some();
        task.spawn(follow(shared.clone(), qmp));
        let handle = Self {
            shared,
            _task: Arc::new(task),
        };
        if connected {
            let mut state = handle.state();
            // It never closes: we hold the sender. Past the limit the caller sees `Starting`.
            let known = state.wait_for(|state| *state != RunState::Starting);
            let _ = tokio::time::timeout(Duration::from_secs(5), known).await;
        }
        handle
    }

    /// The guest's name, as given to QEMU.
    pub fn name(&self) -> &str {
        &self.shared.record.name
    }

    /// The launch record: uuid, incarnation, sockets, when it was launched.
    pub fn record(&self) -> &LaunchRecord {
        &self.shared.record
    }

    /// Its sockets.
    pub fn sockets(&self) -> &Sockets {
        &self.shared.record.sockets
    }

    /// QEMU's process id.
    pub fn pid(&self) -> u32 {
        self.shared.process.pid()
    }

    /// What the guest is doing: the value now, and each change. The last value stays when QEMU has ended.
    pub fn state(&self) -> watch::Receiver<RunState> {
        self.shared.state.subscribe()
    }

    /// Events of QEMU from now on, over reconnections.
    pub fn events(&self) -> broadcast::Receiver<Arc<Event>> {
        self.shared.events.subscribe()
    }

    /// Whether the QEMU process is there, whatever the guest does.
    pub fn is_running(&self) -> bool {
        self.shared.process.is_running()
    }

    /// Waits until the QEMU process is gone.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    pub async fn ended(&self) -> Result<Exit, DriverError> {
        let ended = self.shared.process.wait().await;
        ended.map_err(dir_error("waiting for the guest of", &self.shared.dir))
    }

    /// The end of QEMU's log.
    pub fn log_tail(&self) -> String {
        tail(&self.shared.dir.join("qemu.log"))
    }

    /// The QMP connection, for what has no function here. It is replaced after a reconnection: ask anew for each use.
    /// When there is none at the moment, one is waited for, 10 s at most.
    ///
    /// # Errors
    /// [`DriverError::Gone`] when QEMU has ended, [`DriverError::Silent`] when it does not take a connection.
    pub async fn qmp(&self) -> Result<Qmp, DriverError> {
        let guest = || self.name().to_owned();
        let mut qmp = self.shared.qmp.subscribe();
        let limit = Duration::from_secs(10);
        let usable = |qmp: &Option<Qmp>| qmp.as_ref().is_some_and(|qmp| !qmp.is_closed());
        tokio::select! {
            biased;
            found = tokio::time::timeout(limit, qmp.wait_for(usable)) => match found {
                Ok(Ok(found)) => found.clone().ok_or_else(|| DriverError::Gone { guest: guest() }),
                Ok(Err(_)) => Err(DriverError::Gone { guest: guest() }),
                Err(_) => Err(DriverError::Silent {
                    guest: guest(),
                    source: QmpError::NoGreeting { path: self.sockets().qmp.clone(), after: limit },
                    said: self.log_tail(),
                }),
            },
            _ = self.shared.process.wait() => Err(DriverError::Gone { guest: guest() }),
        }
    }

    pub(super) fn qmp_error(&self, source: QmpError) -> DriverError {
        let guest = self.name().to_owned();
        if source.is_closed() && !self.is_running() {
            return DriverError::Gone { guest };
        }
        DriverError::Qmp { guest, source }
    }

    /// Stops the guest's processors, and returns when they stand and [`Handle::state`] says so.
    ///
    /// # Errors
    /// When QEMU is gone or refuses.
    pub async fn pause(&self) -> Result<(), DriverError> {
        let qmp = self.qmp().await?;
        qmp.stop().await.map_err(|error| self.qmp_error(error))?;
        self.told(|state| *state != RunState::Running).await;
        Ok(())
    }

    /// Lets the guest's processors run (on), and returns when [`Handle::state`] says so.
    ///
    /// # Errors
    /// When QEMU is gone or refuses, as after a guest has powered off.
    pub async fn resume(&self) -> Result<(), DriverError> {
        let qmp = self.qmp().await?;
        qmp.cont().await.map_err(|error| self.qmp_error(error))?;
        self.told(|state| !matches!(state, RunState::Paused(_)))
            .await;
        Ok(())
    }

    /// Waits until the state shows what a command did: whoever looks next would else give the same command again. A disk
    /// that fails anew at once may hide it, so the wait is short.
    async fn told(&self, so: impl FnMut(&RunState) -> bool) {
        let mut state = self.state();
        let _ = tokio::time::timeout(Duration::from_secs(1), state.wait_for(so)).await;
    }

    /// The reset button.
    ///
    /// # Errors
    /// When QEMU is gone or refuses.
    pub async fn reset(&self) -> Result<(), DriverError> {
        let qmp = self.qmp().await?;
        qmp.system_reset()
            .await
            .map_err(|error| self.qmp_error(error))
    }

    /// The power button: a guest that obeys comes to [`RunState::Shutdown`] some time later.
    ///
    /// # Errors
    /// When QEMU is gone or refuses.
    pub async fn power_button(&self) -> Result<(), DriverError> {
        let qmp = self.qmp().await?;
        qmp.system_powerdown()
            .await
            .map_err(|error| self.qmp_error(error))
    }

    /// Ends QEMU, which closes its disks first; kills it when it has not ended after `grace`. Then removes its record and
    /// sockets. Ended already is success.
    ///
    /// # Errors
    /// When the kernel forbids the signals.
    pub async fn destroy(&self, grace: Duration) -> Result<Exit, DriverError> {
        let shared = &self.shared;
        shared.ending.store(true, Ordering::SeqCst);
        let ending = dir_error("ending the processes of", &shared.dir);
        let exit = shared.process.end(grace).await.map_err(&ending)?;
        if let Some(tpm) = &shared.tpm {
            tpm.end(Duration::from_secs(2)).await.map_err(&ending)?;
        }
        // A clone may have been here first and the guest started again since: only our own record is removed.
        if let Ok(Some(record)) = LaunchRecord::read(&shared.dir)
            && record.incarnation == shared.record.incarnation
        {
            clean(&shared.dir, &record);
        }
        Ok(exit)
    }
}

/// Connects to a QEMU that may not have opened its socket yet. Ends early when the process ends.
pub(super) async fn connect(
    process: &Process,
    socket: &Path,
    limit: Duration,
) -> Result<Qmp, QmpError> {
    let trying = async {
        let mut pause = Duration::from_millis(1);
        loop {
            match Qmp::connect(socket, limit).await {
                Err(QmpError::Connect { .. }) => {}
                done => return done,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    };
    tokio::select! {
        done = trying => done,
        _ = process.wait() => Err(QmpError::Closed { why: "QEMU ended".to_owned() }),
        () = tokio::time::sleep(limit) => Err(QmpError::NoGreeting { path: socket.to_owned(), after: limit }),
    }
}

/// Follows one guest until its process ends: keeps a connection, and turns what QEMU says into the state.
async fn follow(shared: Arc<Shared>, first: Option<Qmp>) {
    let vm = &shared.record.name;
    let watching = async {
        let mut next = first;
        let mut pause = Duration::from_millis(50);
        loop {
            let connected = match next.take() {
                Some(qmp) => Ok(qmp),
                None => Qmp::connect(&shared.record.sockets.qmp, Duration::from_secs(10)).await,
            };
            match connected {
                Ok(qmp) => {
                    pause = Duration::from_millis(50);
                    let events = qmp.events();
                    shared.qmp.send_replace(Some(qmp.clone()));
                    if let Err(error) = listen(&shared, &qmp, events).await {
                        tracing::debug!(vm, %error, "the connection to QEMU is lost");
                    }
                    shared.qmp.send_replace(None);
                }
                Err(error) => tracing::debug!(vm, %error, "no connection to QEMU"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    };
    let exit = tokio::select! {
        exit = shared.process.wait() => exit.unwrap_or(Exit::Unknown),
        () = watching => Exit::Unknown,
    };
    // What QEMU said at the very end, such as why it shuts down, may still be in the socket.
    if let Some(qmp) = shared.qmp.send_replace(None) {
        let _ = tokio::time::timeout(Duration::from_millis(200), qmp.closed()).await;
    }
    let asked = shared.ending.load(Ordering::SeqCst);
    let said = || tail(&shared.dir.join("qemu.log"));
    shared.state.send_modify(|state| {
        *state = state.clone().after_exit(asked, exit, said);
    });
}

/// Reads the state, then follows the events of one connection, until that breaks.
async fn listen(
    shared: &Shared,
    qmp: &Qmp,
    mut events: broadcast::Receiver<Arc<Event>>,
) -> Result<(), QmpError> {
    let mut shutdown: Option<String> = None;
    loop {
        let status = qmp.status().await?;
        let now = RunState::from_status(&status.status, shutdown.as_deref());
        shared.state.send_if_modified(|state| {
            // A reason that was seen is not replaced by "unseen" after a reconnection.
            let known = matches!(
                (&*state, &now),
                (RunState::Shutdown(_), RunState::Shutdown(_))
            );
            let changed = *state != now && !known;
            if changed {
                state.clone_from(&now);
            }
            changed
        });
        loop {
            // The events first: the last ones come just before the end.
            let event = tokio::select! {
                biased;
                event = events.recv() => event,
                () = qmp.closed() => return Ok(()),
            };
            let event = match event {
                Ok(event) => event,
                // Some were missed: the state is asked for again.
                Err(broadcast::error::RecvError::Lagged(_)) => break,
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            };
            if event.name == "SHUTDOWN" {
                let reason = event.text("reason").unwrap_or("unknown");
                if matches!(reason, "host-qmp-quit" | "host-signal" | "host-ui") {
                    // It ends because somebody on the host asked, by us or by hand.
                    shared.ending.store(true, Ordering::SeqCst);
                } else {
                    shutdown = Some(reason.to_owned());
                }
            }
            let telling = matches!(
                event.name.as_str(),
                "SHUTDOWN"
                    | "STOP"
                    | "RESUME"
                    | "RESET"
                    | "GUEST_PANICKED"
                    | "SUSPEND"
                    | "WAKEUP"
                    | "WATCHDOG"
                    | "BLOCK_IO_ERROR"
                    | "MIGRATION"
            );
            // Nobody listening is no failure.
            let _ = shared.events.send(event);
            if telling {
                break;
            }
        }
    }
}

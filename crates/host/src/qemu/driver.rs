//! Starts guests, finds them again, and ends them.
//!
//! ```text
//! dir/               ours, others may only pass through
//!   launch.json      the launch record
//!   qemu.log         what QEMU said, previous launch in qemu.log.1
//!   run/             belongs to QEMU's user: its sockets
//! ```

use super::handle::Handle;
use super::launch::{Accel, InvalidLaunch, Launch};
use super::placement::Placement;
use super::record::{LaunchRecord, hash};
use super::tpm;
use crate::clock::SharedClock;
use crate::process::{Exit, Process, ProcessError, Run, Stderr};
use crate::qmp::QmpError;
use nix::fcntl::{FcntlArg, fcntl};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How much of a log is quoted in an error, in bytes.
const QUOTED: u64 = 2048;

/// Why a guest was not started, found, asked or ended.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The launch contradicts itself.
    #[error(transparent)]
    Invalid(#[from] InvalidLaunch),
    /// The descriptors given are not those the launch names.
    #[error("guest `{guest}`: descriptor `{name}` {why}")]
    Descriptor {
        /// The guest.
        guest: String,
        /// The descriptor's name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The guest runs already.
    #[error("guest `{guest}` runs already as process {pid}: adopt or destroy that one first")]
    AlreadyRuns {
        /// The guest.
        guest: String,
        /// Its QEMU.
        pid: u32,
    },
    /// Something about its directory or record failed.
    #[error("{doing} {path}: {source}")]
    Dir {
        /// What was being done, such as "creating".
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A program could not be started.
    #[error(transparent)]
    Start(#[from] ProcessError),
    /// QEMU ended before it could be asked anything.
    #[error("guest `{guest}`: QEMU ended at once with {exit}: {said}")]
    Early {
        /// The guest.
        guest: String,
        /// How it ended.
        exit: Exit,
        /// The end of its log.
        said: String,
    },
    /// QEMU runs but does not talk.
    #[error("guest `{guest}`: {source} (its log ends: {said})")]
    Silent {
        /// The guest.
        guest: String,
        /// What was tried.
        source: QmpError,
        /// The end of its log.
        said: String,
    },
    /// The TPM did not come up.
    #[error("guest `{guest}`: its TPM {why}: {said}")]
    Tpm {
        /// The guest.
        guest: String,
        /// What it did.
        why: String,
        /// The end of its log.
        said: String,
    },
    /// The guest is no longer running.
    #[error("guest `{guest}` does not run (any more)")]
    Gone {
        /// The guest.
        guest: String,
    },
    /// QEMU refused, or did not answer.
    #[error("guest `{guest}`: {source}")]
    Qmp {
        /// The guest.
        guest: String,
        /// Its answer.
        source: QmpError,
    },
    /// What was asked cannot be done with this guest. Says why and what can.
    #[error("guest `{guest}`: {why}")]
    Refused {
        /// The guest.
        guest: String,
        /// Why.
        why: String,
    },
}

/// How guests are started on this node.
#[derive(Debug, Clone)]
pub struct DriverConfig {
    /// The QEMU program, a name or a path.
    pub qemu: PathBuf,
    /// The swtpm program, a name or a path.
    pub swtpm: PathBuf,
    /// Where the processes live.
    pub placement: Placement,
    /// Time, boot and randomness.
    pub clock: SharedClock,
    /// How long QEMU may take from start to its first answer.
    pub start_limit: Duration,
}

impl DriverConfig {
    /// The programs of the system, and the placement it offers.
    pub fn new(clock: SharedClock) -> Self {
        Self {
            qemu: "qemu-system-x86_64".into(),
            swtpm: "swtpm".into(),
            placement: Placement::detect("debvisor"),
            clock,
            start_limit: Duration::from_secs(60),
        }
    }
}

/// Starts guests, finds them again, and ends them. Keeps no list of them: each guest's directory says all.
#[derive(Debug, Clone)]
pub struct Driver {
    config: DriverConfig,
}

impl Driver {
    /// A driver; nothing is touched yet.
    pub fn new(config: DriverConfig) -> Self {
        Self { config }
    }

    /// Starts a guest. `fds` are the open files and taps the launch names ([`Launch::fd_names`]), all of them and no others;
    /// they are closed on our side. Returns when QEMU answers; the guest then runs, unless it was to start paused.
    ///
    /// A failure leaves no process behind. Starting is recoverable at every point: should we be killed meanwhile,
    /// [`Driver::adopt`] finds what was started.
    ///
    /// # Errors
    /// See [`DriverError`].
    pub async fn launch(
        &self,
        launch: &Launch,
        fds: BTreeMap<String, OwnedFd>,
    ) -> Result<Handle, DriverError> {
        launch.check()?;
        let guest = launch.name.clone();
        check_names(launch, &fds)?;
        if let Some((process, _)) = self.find(&launch.dir).await? {
            let pid = process.pid();
            return Err(DriverError::AlreadyRuns { guest, pid });
        }
        if let Some(record) = read(&launch.dir).await? {
            self.end_tpm(&record, &launch.dir).await?;
        }
        let new = launch.clone();
        blocking(&launch.dir, move || prepare(&new)).await?;
        let clock = &*self.config.clock;
        let cgroup = match self.config.placement.cgroup(&guest) {
            Ok(cgroup) => cgroup,
            Err(error) => {
                tracing::warn!(vm = %guest, %error, "no cgroup of its own for the guest");
                None
            }
        };

        let mut run = Run::new(&self.config.qemu);
        if nix::unistd::geteuid().is_root() {
            run = run.private_mounts();
        }
        let mut numbers = BTreeMap::new();
        for (name, fd) in fds {
            let fd =
                above_standard(fd).map_err(dir_error("keeping a descriptor for", &launch.dir))?;
            numbers.insert(name, run.fd(fd));
        }
        let args = launch.args(&numbers);
        let mut incarnation = [0; 8];
        clock.random(&mut incarnation);
        let mut record = LaunchRecord::new(launch, &args, hex::encode(incarnation), clock);
        record.cgroup = cgroup.clone();
        run = run.args(&args);
        if let Some(cgroup) = &cgroup {
            run = run.cgroup(cgroup);
        }
        if let Some((uid, gid)) = launch.user {
            run = run.uid_gid(uid, gid);
            if launch.accel == Accel::Kvm
                && let Ok(kvm) = fs::metadata("/dev/kvm")
            {
                run = run.groups([kvm.gid()]);
            }
        }
        let tpm_args = launch
            .tpm_state
            .as_deref()
            .map(|state| tpm::args(launch, state));
        record.tpm_args_hash = tpm_args
            .as_ref()
            .map(|args| hash(args.iter().map(String::as_bytes)));
        let mut started = Started {
            armed: true,
            qemu: None,
            tpm: None,
            dir: launch.dir.clone(),
        };
        write(&record, &launch.dir).await?;
        if let Some(args) = tpm_args {
            let program = &self.config.swtpm;
            let process = tpm::start(program, launch, &args, cgroup.as_deref(), clock)?;
            record.tpm = Some(process.identity().clone());
            let process = started.tpm.insert(process);
            write(&record, &launch.dir).await?;
            tpm::ready(process, launch).await?;
        }
        let log = launch.dir.join("qemu.log");
        let process = run.spawn_detached(&Stderr::Append(log.clone()), clock)?;
        record.qemu = Some(process.identity().clone());
        let process = started.qemu.insert(process);
        write(&record, &launch.dir).await?;
        let mut pids = vec![process.pid()];
        pids.extend(record.tpm.iter().map(|tpm| tpm.pid));
        let placed = self.config.placement.adopt_into_scope(&guest, &pids).await;
        if let Err(error) = placed {
            tracing::warn!(vm = %guest, %error, "no systemd scope of its own for the guest");
        }

        let qmp =
            super::handle::connect(process, &record.sockets.qmp, self.config.start_limit).await;
        let qmp = match qmp {
            Ok(qmp) => qmp,
            Err(source) => {
                // The last words are in the log once it has ended.
                let ended = tokio::time::timeout(Duration::from_millis(500), process.wait()).await;
                let said = tail(&log);
                return Err(match ended {
                    Ok(Ok(exit)) => DriverError::Early { guest, exit, said },
                    _ => DriverError::Silent {
                        guest,
                        source,
                        said,
                    },
                });
            }
        };
        let Some((process, tpm)) = started.disarm() else {
            return Err(DriverError::Gone { guest });
        };
        Ok(Handle::start(launch.dir.clone(), record, process, tpm, Some(qmp)).await)
    }

    /// Takes up the guest in `dir`, started by this or an earlier life of ours. `None` when it does not run: then what is
    /// left of it can be cleaned by [`Driver::destroy`].
    ///
    /// Its state may still be [`super::RunState::Starting`] on return, when QEMU is slow to answer.
    ///
    /// # Errors
    /// When the directory or the record cannot be read.
    pub async fn adopt(&self, dir: &Path) -> Result<Option<Handle>, DriverError> {
        let Some((process, mut record)) = self.find(dir).await? else {
            return Ok(None);
        };
        if record.qemu.is_none() {
            record.qemu = Some(process.identity().clone());
            write(&record, dir).await?;
        }
        let tpm = self.find_tpm(&record, dir).await?;
        let limit = Duration::from_secs(5);
        let qmp = super::handle::connect(&process, &record.sockets.qmp, limit).await;
        let qmp = qmp
            .inspect_err(|error| tracing::warn!(vm = %record.name, %error, "an adopted guest does not answer yet"))
            .ok();
        Ok(Some(
            Handle::start(dir.to_owned(), record, process, tpm, qmp).await,
        ))
    }

    /// Ends the guest in `dir`, whatever state it is in, and removes its record and sockets. QEMU is asked first, so that
    /// it closes its disks, and killed when it has not ended after `grace`. None running is success.
    ///
    /// # Errors
    /// When the directory cannot be read or the kernel forbids the signals.
    pub async fn destroy(&self, dir: &Path, grace: Duration) -> Result<(), DriverError> {
        let record = read(dir).await?;
        let Some(record) = record else {
            return Ok(());
        };
        let ending = dir_error("ending the processes of", dir);
        if let Some((process, _)) = self.find(dir).await? {
            process.end(grace).await.map_err(&ending)?;
        }
        self.end_tpm(&record, dir).await?;
        let place = dir.to_owned();
        let cleaning = move || {
            clean(&place, &record);
            Ok(())
        };
        blocking(dir, cleaning).await
    }

    /// The running QEMU of the guest in `dir`, with its record.
    async fn find(&self, dir: &Path) -> Result<Option<(Process, LaunchRecord)>, DriverError> {
        let clock = self.config.clock.clone();
        let place = dir.to_owned();
        let look = move || -> io::Result<Option<(Process, LaunchRecord)>> {
            let Some(record) = LaunchRecord::read(&place)? else {
                return Ok(None);
            };
            Ok(record.find_qemu(&*clock)?.map(|process| (process, record)))
        };
        let failed = dir_error("looking for the guest of", dir);
        blocking(dir, move || look().map_err(failed)).await
    }

    /// The TPM's process of a guest.
    async fn find_tpm(
        &self,
        record: &LaunchRecord,
        dir: &Path,
    ) -> Result<Option<Process>, DriverError> {
        let (clock, record) = (self.config.clock.clone(), record.clone());
        let failed = dir_error("looking for the TPM of", dir);
        blocking(dir, move || record.find_tpm(&*clock).map_err(failed)).await
    }

    /// Ends a TPM that was left behind: one whose QEMU never came, because we were killed in between, waits for ever and
    /// keeps its state locked.
    async fn end_tpm(&self, record: &LaunchRecord, dir: &Path) -> Result<(), DriverError> {
        if let Some(tpm) = self.find_tpm(record, dir).await? {
            let ended = tpm.end(Duration::from_secs(2)).await;
            ended.map_err(dir_error("ending the TPM of", dir))?;
        }
        Ok(())
    }
}

/// Runs what waits for a disk on a thread that may wait.
async fn blocking<T: Send + 'static>(
    dir: &Path,
    work: impl FnOnce() -> Result<T, DriverError> + Send + 'static,
) -> Result<T, DriverError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // A panic goes on where it would have gone; else the runtime is shutting down.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(dir_error("working in", dir)(io::Error::other(error))),
        },
    }
}

/// Reads the launch record.
async fn read(dir: &Path) -> Result<Option<LaunchRecord>, DriverError> {
    let place = dir.to_owned();
    let failed = dir_error("reading the launch record in", dir);
    blocking(dir, move || LaunchRecord::read(&place).map_err(failed)).await
}

/// Writes the launch record.
async fn write(record: &LaunchRecord, dir: &Path) -> Result<(), DriverError> {
    let (record, place) = (record.clone(), dir.to_owned());
    let failed = dir_error("writing the launch record in", dir);
    blocking(dir, move || record.write(&place).map_err(failed)).await
}

/// Kills what was started when the start as a whole fails, also by a drop of its future.
struct Started {
    armed: bool,
    qemu: Option<Process>,
    tpm: Option<Process>,
    dir: PathBuf,
}

impl Started {
    fn disarm(mut self) -> Option<(Process, Option<Process>)> {
        let both = (self.qemu.take()?, self.tpm.take());
        self.armed = false;
        Some(both)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        for process in self.qemu.iter().chain(&self.tpm) {
            if let Err(error) = process.signal(nix::sys::signal::Signal::SIGKILL) {
                tracing::error!(pid = process.pid(), %error, "a process of a failed start cannot be killed");
            }
        }
        // A record that stays names processes that are gone, which `adopt` sees.
        let _ = LaunchRecord::remove(&self.dir);
    }
}

fn check_names(launch: &Launch, fds: &BTreeMap<String, OwnedFd>) -> Result<(), DriverError> {
    let wrong = |name: &str, why| DriverError::Descriptor {
        guest: launch.name.clone(),
        name: name.to_owned(),
        why,
    };
    let names = launch.fd_names();
    if let Some(name) = names.iter().find(|name| !fds.contains_key(**name)) {
        return Err(wrong(name, "is named by the launch but not given"));
    }
    match fds.keys().find(|name| !names.contains(&name.as_str())) {
        Some(name) => Err(wrong(name, "is given but the launch does not name it")),
        None => Ok(()),
    }
}

/// Descriptors 0 to 2 are replaced in a new process.
fn above_standard(fd: OwnedFd) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd as _;
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    let new = fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(3))?;
    // SAFETY: the kernel just made it and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}

/// Makes the directories, without anything of an earlier run in them.
fn prepare(launch: &Launch) -> Result<(), DriverError> {
    let dir = &launch.dir;
    let make = || -> io::Result<()> {
        fs::create_dir_all(dir)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o711))?;
        let run = dir.join("run");
        match fs::remove_dir_all(&run) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::create_dir(&run)?;
        fs::set_permissions(&run, fs::Permissions::from_mode(0o700))?;
        if let Some((uid, gid)) = launch.user {
            std::os::unix::fs::chown(&run, Some(uid), Some(gid))?;
        }
        let log = dir.join("qemu.log");
        if log.exists() {
            fs::rename(&log, dir.join("qemu.log.1"))?;
        }
        Ok(())
    };
    make().map_err(dir_error("preparing", dir))
}

/// Removes what lies beside a guest that has ended. What cannot be removed is replaced at the next launch.
pub(super) fn clean(dir: &Path, record: &LaunchRecord) {
    let mut failed = Vec::new();
    let mut note = |done: io::Result<()>| {
        if let Err(error) = done
            && error.kind() != io::ErrorKind::NotFound
        {
            failed.push(error.to_string());
        }
    };
    note(LaunchRecord::remove(dir));
    note(fs::remove_dir_all(dir.join("run")));
    if let Some(cgroup) = &record.cgroup {
        note(fs::remove_dir(cgroup));
    }
    if !failed.is_empty() {
        tracing::warn!(vm = %record.name, error = %failed.join("; "), "traces of an ended guest remain");
    }
}

pub(super) fn dir_error(
    doing: &'static str,
    path: &Path,
) -> impl Fn(io::Error) -> DriverError + use<> {
    let path = path.to_owned();
    move |source| DriverError::Dir {
        doing,
        path: path.clone(),
        source,
    }
}

/// The end of a log, for an error.
pub(super) fn tail(log: &Path) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let read = || -> io::Result<String> {
        let mut file = fs::File::open(log)?;
        let from = file.metadata()?.len().saturating_sub(QUOTED);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(QUOTED).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    match read() {
        Ok(text) if text.is_empty() => "it said nothing".to_owned(),
        Ok(text) => text,
        Err(error) => format!("its log {} cannot be read: {error}", log.display()),
    }
}

//! A running process, known for certain: by pid, start time and boot, and held by a pidfd.

use super::error::Exit;
use crate::clock::{BootId, Clock};
use nix::libc;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Child;

/// What tells one process from every other, over our restarts and over reboots.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// Process id, which the kernel uses again.
    pub pid: u32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start_time: u64,
    /// The boot in which that is true.
    pub boot: BootId,
}

impl Identity {
    /// Looks at a running process.
    ///
    /// # Errors
    /// When there is none with this pid, or it has ended and only waits to be reaped.
    pub fn of(pid: u32, clock: &dyn Clock) -> io::Result<Self> {
        let stat = Stat::of(pid)?;
        if stat.ended() {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(Self {
            pid,
            start_time: stat.start_time,
            boot: clock.boot_id(),
        })
    }
}

struct Stat {
    state: char,
    start_time: u64,
}

impl Stat {
    fn of(pid: u32) -> io::Result<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Self::parse(&text).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("/proc/{pid}/stat has not the fields expected: {text}"),
            )
        })
    }

    /// The name, in parentheses, may itself hold blanks and parentheses: the last one ends it.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let start_time = fields.nth(18)?.parse().ok()?;
        Some(Self { state, start_time })
    }

    fn ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// A process that may outlive us. Dropping this lets it run on.
#[derive(Debug)]
pub struct Process {
    identity: Identity,
    pidfd: AsyncFd<OwnedFd>,
    /// Present when we started it ourselves: then the kernel tells us how it ended, and the runtime reaps it after a drop.
    child: Mutex<Option<Child>>,
}

impl Process {
    pub(super) fn of_child(child: Child, clock: &dyn Clock) -> io::Result<Self> {
        let pid = child
            .id()
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
        // It cannot have been reaped, so even after a quick end its start time can be read.
        let identity = Identity {
            pid,
            start_time: Stat::of(pid)?.start_time,
            boot: clock.boot_id(),
        };
        Ok(Self {
            identity,
            pidfd: watched(pidfd_open(pid)?)?,
            child: Mutex::new(Some(child)),
        })
    }

    /// Takes up a process started earlier, perhaps by an earlier life of ours. `None` when it is gone: another boot, no
    /// such pid, or a pid that meanwhile belongs to someone else.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the kernel refuses to look, which is not the same as "gone".
    pub fn adopt(identity: &Identity, clock: &dyn Clock) -> io::Result<Option<Self>> {
        if identity.boot != clock.boot_id() {
            return Ok(None);
        }
        // The handle first, then the look: what is seen after it was opened is what the handle holds, or the start time
        // differs.
        let pidfd = match pidfd_open(identity.pid) {
            Ok(pidfd) => pidfd,
            Err(error) if gone(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        match Stat::of(identity.pid) {
            Ok(stat) if stat.start_time == identity.start_time && !stat.ended() => {}
            Ok(_) => return Ok(None),
            Err(error) if gone(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
        Ok(Some(Self {
            identity: identity.clone(),
            pidfd: watched(pidfd)?,
            child: Mutex::new(None),
        }))
    }

    /// What it is known by; store this to [`Process::adopt`] it later.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.identity.pid
    }

    /// Whether it still runs. A process that ended and was not reaped yet does not.
    pub fn is_running(&self) -> bool {
        let mut poll = libc::pollfd {
            fd: self.pidfd.get_ref().as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid pollfd, and the count says one.
        unsafe { libc::poll(&mut poll, 1, 0) == 0 }
    }

    /// Waits until it has ended. Any number of callers may wait.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    pub async fn wait(&self) -> io::Result<Exit> {
        loop {
            let mut ready = self.pidfd.readable().await?;
            if !self.is_running() {
                break;
            }
            ready.clear_ready();
        }
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(child) = child.as_mut() else {
            return Ok(Exit::Unknown);
        };
        Ok(child.try_wait()?.map_or(Exit::Unknown, Exit::from))
    }

    /// Sends a signal. `false` when the process is gone; a recycled pid is never hit.
    ///
    /// # Errors
    /// When the kernel forbids it.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        // SAFETY: no pointer but a null siginfo, which the call allows.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.get_ref().as_raw_fd(),
                signal as libc::c_int,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        if sent == 0 {
            return Ok(true);
        }
        match io::Error::last_os_error() {
            error if gone(&error) => Ok(false),
            error => Err(error),
        }
    }

    /// Asks it to end (SIGTERM), and kills it when it has not after `grace`. Returns when it is gone.
    ///
    /// # Errors
    /// When the kernel forbids the signals.
    pub async fn end(&self, grace: Duration) -> io::Result<Exit> {
        self.signal(Signal::SIGTERM)?;
        if let Ok(exit) = tokio::time::timeout(grace, self.wait()).await {
            return exit;
        }
        self.signal(Signal::SIGKILL)?;
        self.wait().await
    }
}

fn gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT))
}

fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers in, a new descriptor or -1 out.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match libc::c_int::try_from(fd) {
        // SAFETY: the kernel just made it and nobody else knows it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn watched(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd keeps the one descriptor it has for as long as it lives.
    Ok(unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_confuse_the_fields() {
        let text = "7 (a) (b) c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.state, stat.start_time), ('S', 4711));
        assert!(Stat::parse("7 (x) S 1").is_none());
    }
}

//! What a guest is doing, as QEMU tells it. Pure.
//!
//! ```text
//! Starting -> Running <-> Paused
//!                |  \______________________.
//!                v                         v
//!      Shutdown / Crashed (QEMU may still be there, stopped)
//!                \____________ Exited or unchanged, once the process is gone
//! ```

use crate::process::Exit;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a guest is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "reason")]
pub enum RunState {
    /// QEMU was started and has not said anything yet.
    Starting,
    /// The guest's processors run.
    Running,
    /// The guest's processors stand still, and can go on.
    Paused(PauseReason),
    /// The guest has powered off. QEMU waits to be ended, or has ended.
    Shutdown(ShutdownReason),
    /// The guest, or QEMU itself, failed.
    Crashed(CrashReason),
    /// QEMU ended because it was asked to.
    Exited,
}

/// Why a guest stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseReason {
    /// Somebody asked for it.
    Asked,
    /// It was started paused and has not run yet.
    NotStarted,
    /// It waits for a saved state or a migration.
    Incoming,
    /// Its state was saved, or it has moved away.
    Migrated,
    /// The host could not read or write a disk, most often because it is full.
    IoError,
    /// Its watchdog was not fed.
    Watchdog,
    /// It sleeps.
    Suspended,
    /// Another of QEMU's states, by its name.
    Other(String),
}

/// Why a guest has powered off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShutdownReason {
    /// The guest did it, by itself or after the power button.
    Guest,
    /// The guest rebooted, and was started with [`super::OnReboot::Shutdown`].
    Reboot,
    /// It happened while nobody watched.
    Unseen,
}

/// What failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CrashReason {
    /// The guest's kernel panicked and said so.
    GuestPanicked,
    /// QEMU cannot go on with the guest, as after an instruction KVM cannot run.
    InternalError,
    /// The QEMU process ended without being asked.
    QemuEnded {
        /// How, when the kernel told us.
        exit: Exit,
        /// The end of what it wrote to its log.
        said: String,
    },
}

impl RunState {
    /// Whether only a new launch can bring the guest back.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Shutdown(_) | Self::Crashed(_) | Self::Exited)
    }

    /// The state named by `query-status`. `shutdown` is the reason of the last `SHUTDOWN` event seen.
    pub(super) fn from_status(status: &str, shutdown: Option<&str>) -> Self {
        let reason = match status {
            "running" => return Self::Running,
            "shutdown" => {
                return Self::Shutdown(match shutdown {
                    Some("guest-reset") => ShutdownReason::Reboot,
                    Some(_) => ShutdownReason::Guest,
                    None => ShutdownReason::Unseen,
                });
            }
            "guest-panicked" => return Self::Crashed(CrashReason::GuestPanicked),
            "internal-error" => return Self::Crashed(CrashReason::InternalError),
            "paused" => PauseReason::Asked,
            "prelaunch" => PauseReason::NotStarted,
            "inmigrate" => PauseReason::Incoming,
            "postmigrate" | "finish-migrate" => PauseReason::Migrated,
            "io-error" => PauseReason::IoError,
            "watchdog" => PauseReason::Watchdog,
            "suspended" => PauseReason::Suspended,
            other => PauseReason::Other(other.to_owned()),
        };
        Self::Paused(reason)
    }

    /// The state once the process is gone.
    pub(super) fn after_exit(self, asked: bool, exit: Exit, said: impl FnOnce() -> String) -> Self {
        match self {
            over @ (Self::Shutdown(_) | Self::Crashed(_) | Self::Exited) => over,
            _ if asked => Self::Exited,
            _ => Self::Crashed(CrashReason::QemuEnded { exit, said: said() }),
        }
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused(PauseReason::Asked) => "paused",
            Self::Paused(PauseReason::NotStarted) => "paused: not started yet",
            Self::Paused(PauseReason::Incoming) => "paused: waiting for its state",
            Self::Paused(PauseReason::Migrated) => "paused: its state was saved or moved",
            Self::Paused(PauseReason::IoError) => "paused: a disk cannot be read or written",
            Self::Paused(PauseReason::Watchdog) => "paused: its watchdog was not fed",
            Self::Paused(PauseReason::Suspended) => "paused: it sleeps",
            Self::Paused(PauseReason::Other(name)) => return write!(f, "paused: {name}"),
            Self::Shutdown(ShutdownReason::Guest) => "shut down by the guest",
            Self::Shutdown(ShutdownReason::Reboot) => "shut down for a reboot with new hardware",
            Self::Shutdown(ShutdownReason::Unseen) => "shut down",
            Self::Crashed(CrashReason::GuestPanicked) => "crashed: the guest's kernel panicked",
            Self::Crashed(CrashReason::InternalError) => "crashed: QEMU met an internal error",
            Self::Crashed(CrashReason::QemuEnded { exit, said }) => {
                write!(f, "crashed: QEMU ended with {exit}")?;
                return match said.trim() {
                    "" => Ok(()),
                    said => write!(f, ": {said}"),
                };
            }
            Self::Exited => "ended",
        };
        f.write_str(text)
    }
}

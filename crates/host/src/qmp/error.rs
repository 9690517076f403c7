//! Why a QMP command was not done.

use std::path::PathBuf;
use std::time::Duration;

/// Why a QMP command was not done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QmpError {
    /// Nobody listens on the socket, or it cannot be reached.
    #[error("connecting to the QMP socket {path}: {cause}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The kernel's answer.
        cause: String,
    },
    /// The socket accepts, but no greeting came: QEMU serves one client at a time, so another one may hold it.
    #[error("no QMP greeting on {path} within {after:?}; does another client hold the socket?")]
    NoGreeting {
        /// The socket.
        path: PathBuf,
        /// How long was waited.
        after: Duration,
    },
    /// The connection is over, most often because QEMU has ended.
    #[error("the QMP connection is closed: {why}")]
    Closed {
        /// What ended it.
        why: String,
    },
    /// No answer came in time. The command may still be carried out.
    #[error("QEMU did not answer `{command}` within {after:?}")]
    Timeout {
        /// The command.
        command: String,
        /// How long was waited.
        after: Duration,
    },
    /// QEMU said no.
    #[error("QEMU refused `{command}`: {description}")]
    Refused {
        /// The command.
        command: String,
        /// Its error class, such as `GenericError`, `CommandNotFound` or `DeviceNotFound`.
        class: String,
        /// Its words.
        description: String,
    },
    /// The answer is not shaped as documented.
    #[error("QEMU answered `{command}` with something unexpected: {cause}")]
    Unexpected {
        /// The command.
        command: String,
        /// What did not fit.
        cause: String,
    },
    /// So many commands wait for their answer that no more are taken.
    #[error("QEMU has not answered {waiting} earlier commands: `{command}` is not sent")]
    Busy {
        /// The command.
        command: String,
        /// How many wait.
        waiting: usize,
    },
}

impl QmpError {
    /// Whether QEMU does not know the command: an older version, or built without it.
    pub fn is_unknown_command(&self) -> bool {
        matches!(self, Self::Refused { class, .. } if class == "CommandNotFound")
    }

    /// Whether QEMU does not know the device named.
    pub fn is_unknown_device(&self) -> bool {
        matches!(self, Self::Refused { class, .. } if class == "DeviceNotFound")
    }

    /// Whether the connection is gone, so that no later command can succeed on it.
    pub fn is_closed(&self) -> bool {
        matches!(
            self,
            Self::Closed { .. } | Self::Connect { .. } | Self::NoGreeting { .. }
        )
    }
}

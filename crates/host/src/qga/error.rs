//! Why the guest agent did not do what it was asked.

use std::path::PathBuf;
use std::time::Duration;

/// Why the guest agent did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QgaError {
    /// The guest does not run, or has no agent port.
    #[error("the agent port {socket} cannot be opened: {cause}")]
    NoPort {
        /// The host's end of the port.
        socket: PathBuf,
        /// The kernel's answer.
        cause: String,
    },
    /// Nobody answers in the guest.
    #[error(
        "no guest agent answered within {after:?}: install qemu-guest-agent in the guest, and see that it runs"
    )]
    Absent {
        /// How long was waited.
        after: Duration,
    },
    /// The agent is there, but this took too long. It may still be done.
    #[error("the guest agent did not finish `{command}` within {after:?}")]
    Timeout {
        /// The command.
        command: String,
        /// How long was waited.
        after: Duration,
    },
    /// The agent said no.
    #[error("the guest agent refused `{command}`: {description}")]
    Refused {
        /// The command.
        command: String,
        /// Its error class, such as `CommandNotFound`.
        class: String,
        /// Its words.
        description: String,
    },
    /// The answer is not shaped as documented, or is too long.
    #[error("the guest agent answered `{command}` with something unexpected: {cause}")]
    Unexpected {
        /// The command.
        command: String,
        /// What did not fit.
        cause: String,
    },
    /// The connection broke while the question was under way.
    #[error("the connection to the guest agent broke during `{command}`: {cause}")]
    Broken {
        /// The command.
        command: String,
        /// What happened.
        cause: String,
    },
    /// A file in the guest is larger than the caller wants to read.
    #[error("{path} in the guest has more than {most} bytes")]
    TooLarge {
        /// The file.
        path: String,
        /// The most that is read, in bytes.
        most: usize,
    },
}

impl QgaError {
    /// Whether the agent does not know the command, or its owner has switched it off.
    pub fn is_unknown_command(&self) -> bool {
        matches!(self, Self::Refused { class, .. } if class == "CommandNotFound" || class == "CommandDisabled")
    }
}

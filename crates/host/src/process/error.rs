//! Why a program did not do its work.

use super::packages::remedy;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It returned this code; 0 is success.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It is gone, and it was not our child, so the kernel does not say how it ended.
    Unknown,
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Unknown,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => match nix::sys::signal::Signal::try_from(*number) {
                Ok(signal) => write!(f, "signal {signal}"),
                Err(_) => write!(f, "signal {number}"),
            },
            Self::Unknown => f.write_str("ended while nobody watched"),
        }
    }
}

/// Why a program did not do its work. `program` is its name without arguments; `said` is the end of its standard error.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program is not installed.
    #[error("`{program}` is not installed{}", remedy(.program))]
    Missing {
        /// Its name or path.
        program: String,
    },
    /// The kernel refused to start it.
    #[error("`{program}` cannot be started: {source}")]
    Start {
        /// Its name.
        program: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// It ended with another code than those accepted, or by a signal.
    #[error("`{program}` failed with {exit}{}", last_words(.said))]
    Failed {
        /// Its name.
        program: String,
        /// How it ended.
        exit: Exit,
        /// The end of its standard error.
        said: String,
    },
    /// It took longer than allowed and was killed.
    #[error("`{program}` did not end within {after:?} and was killed{}", last_words(.said))]
    Timeout {
        /// Its name.
        program: String,
        /// The time it had.
        after: Duration,
        /// The end of its standard error.
        said: String,
    },
    /// It wrote more than allowed and was killed.
    #[error("`{program}` wrote more than the {limit} bytes that are read from it, and was killed")]
    TooMuchOutput {
        /// Its name.
        program: String,
        /// The most that is read, in bytes.
        limit: usize,
    },
    /// A pipe to it, or a descriptor it was to have, failed.
    #[error("{doing} `{program}`: {source}")]
    Pipe {
        /// Its name.
        program: String,
        /// What was being done, such as "reading the output of".
        doing: &'static str,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The process, looked at after it was started, could not be seen.
    #[error("`{program}` was started as process {pid} but cannot be followed: {source}")]
    Follow {
        /// Its name.
        program: String,
        /// Its process id.
        pid: u32,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

impl ProcessError {
    /// How the process ended, when that is the failure.
    pub fn exit(&self) -> Option<Exit> {
        match self {
            Self::Failed { exit, .. } => Some(*exit),
            _ => None,
        }
    }

    /// The end of what the program wrote to standard error, when there is any.
    pub fn said(&self) -> Option<&str> {
        match self {
            Self::Failed { said, .. } | Self::Timeout { said, .. } => Some(said),
            _ => None,
        }
    }
}

fn last_words(text: &str) -> String {
    match text.trim() {
        "" => String::new(),
        text => format!(": {text}"),
    }
}

//! Programs that outlive us: own session, no pipe to us.

use super::error::ProcessError;
use super::identity::Process;
use super::run::Run;
use crate::clock::Clock;
use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;

/// Where a detached program's standard output and standard error go.
#[derive(Debug, Clone)]
pub enum Stderr {
    /// Nowhere.
    Discard,
    /// Appended to this file, which is created readable by its owner only.
    Append(PathBuf),
}

impl Run {
    /// Starts it in its own session with no tie to us: our end, however sudden, does not reach it.
    ///
    /// Its standard input is empty (bytes given by [`Run::stdin_bytes`] are not used), and both outputs go to `stderr`.
    /// It counts as started once the kernel has taken it over; whether it then does its work must be asked of itself.
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the program is missing or the kernel refuses.
    pub fn spawn_detached(
        self,
        stderr: &Stderr,
        clock: &dyn Clock,
    ) -> Result<Process, ProcessError> {
        let mut command = self.command(true)?;
        let (out, err) = match stderr {
            Stderr::Discard => (Stdio::null(), Stdio::null()),
            Stderr::Append(path) => {
                use std::os::unix::fs::OpenOptionsExt as _;
                let log = File::options()
                    .create(true)
                    .append(true)
                    .mode(0o600)
                    .open(path)
                    .and_then(|log| Ok((log.try_clone()?, log)));
                let (out, err) = log.map_err(|source| ProcessError::Pipe {
                    program: self.name(),
                    doing: "opening the log of",
                    source,
                })?;
                (Stdio::from(out), Stdio::from(err))
            }
        };
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let child = self.start(&mut command)?;
        let pid = child.id().unwrap_or_default();
        Process::of_child(child, clock).map_err(|source| ProcessError::Follow {
            program: self.name(),
            pid,
            source,
        })
    }
}

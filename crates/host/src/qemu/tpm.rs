//! The guest's TPM: a swtpm process beside its QEMU, which ends when QEMU lets go of it.

use super::driver::DriverError;
use super::launch::Launch;
use crate::clock::Clock;
use crate::process::{Process, ProcessError, Run, Stderr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The arguments of the TPM's program.
pub(super) fn args(launch: &Launch, state: &Path) -> Vec<String> {
    let socket = launch.sockets().tpm;
    [
        "socket".to_owned(),
        "--tpm2".to_owned(),
        "--tpmstate".to_owned(),
        format!("dir={},mode=0600", state.display()),
        "--ctrl".to_owned(),
        format!("type=unixio,path={},mode=0600", socket.display()),
        // The connection is QEMU's life.
        "--terminate".to_owned(),
    ]
    .to_vec()
}

/// Starts the TPM's process.
pub(super) fn start(
    program: &Path,
    launch: &Launch,
    args: &[String],
    cgroup: Option<&Path>,
    clock: &dyn Clock,
) -> Result<Process, ProcessError> {
    let mut run = Run::new(program).args(args);
    if let Some((uid, gid)) = launch.user {
        run = run.uid_gid(uid, gid);
    }
    if let Some(cgroup) = cgroup {
        run = run.cgroup(cgroup);
    }
    run.spawn_detached(&Stderr::Append(log(launch)), clock)
}

fn log(launch: &Launch) -> PathBuf {
    launch.dir.join("tpm.log")
}

/// Returns once the TPM's control socket is there.
pub(super) async fn ready(process: &Process, launch: &Launch) -> Result<(), DriverError> {
    let socket = launch.sockets().tpm;
    let accepting = async {
        let mut pause = Duration::from_millis(2);
        // A connection would count as QEMU's and end it, so only the socket's presence is asked.
        while !socket.exists() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    };
    let why = tokio::select! {
        () = accepting => return Ok(()),
        exit = process.wait() => match exit {
            Ok(exit) => format!("ended with {exit}"),
            Err(error) => error.to_string(),
        },
        () = tokio::time::sleep(Duration::from_secs(20)) => "did not open its socket within 20 s".to_owned(),
    };
    Err(DriverError::Tpm {
        guest: launch.name.clone(),
        why,
        said: super::driver::tail(&log(launch)),
    })
}

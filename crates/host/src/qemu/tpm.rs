//! The guest's TPM: a swtpm process beside its QEMU, which ends when QEMU lets go of it.

use super::driver::DriverError;
use super::launch::Launch;
use crate::clock::Clock;
use crate::process::{Process, Run, Stderr};
use std::path::Path;
use std::time::Duration;

/// Starts the TPM and returns once its control socket accepts.
pub(super) async fn start(
    program: &Path,
    launch: &Launch,
    state: &Path,
    cgroup: Option<&Path>,
    clock: &dyn Clock,
) -> Result<Process, DriverError> {
    let log = launch.dir.join("tpm.log");
    let socket = launch.sockets().tpm;
    let mut run = Run::new(program).args([
        "socket".to_owned(),
        "--tpm2".to_owned(),
        "--tpmstate".to_owned(),
        format!("dir={},mode=0600", state.display()),
        "--ctrl".to_owned(),
        format!("type=unixio,path={},mode=0600", socket.display()),
        // The connection is QEMU's life.
        "--terminate".to_owned(),
    ]);
    if let Some((uid, gid)) = launch.user {
        run = run.uid_gid(uid, gid);
    }
    if let Some(cgroup) = cgroup {
        run = run.cgroup(cgroup);
    }
    let process = run.spawn_detached(&Stderr::Append(log.clone()), clock)?;
    let accepting = async {
        let mut pause = Duration::from_millis(2);
        // A connection would count as QEMU's and end it, so only the socket's presence is asked.
        while !socket.exists() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    };
    let why = tokio::select! {
        () = accepting => return Ok(process),
        exit = process.wait() => match exit {
            Ok(exit) => format!("ended with {exit}"),
            Err(error) => error.to_string(),
        },
        () = tokio::time::sleep(Duration::from_secs(20)) => "did not open its socket within 20 s".to_owned(),
    };
    // It may be alive but stuck; nothing of it is needed any more.
    let _ = process.end(Duration::from_millis(500)).await;
    Err(DriverError::Tpm {
        guest: launch.name.clone(),
        why,
        said: super::driver::tail(&log),
    })
}

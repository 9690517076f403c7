//! Takes listening sockets from systemd (sd_listen_fds(3)).

use super::Listeners;
use model::{Error, Result};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The first descriptor that systemd passes.
const FIRST: RawFd = 3;
static TAKEN: AtomicBool = AtomicBool::new(false);

pub(super) fn take() -> Result<Listeners> {
    let mut out = Listeners::new();
    let var = |name: &str| std::env::var(name).ok();
    let for_us = var("LISTEN_PID").is_some_and(|pid| pid == std::process::id().to_string());
    if !for_us || TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(out);
    }
    for (at, name) in names(var("LISTEN_FDS"), var("LISTEN_FDNAMES")).enumerate() {
        // SAFETY: systemd passes these descriptors open to this process (LISTEN_PID is ours), and TAKEN makes sure
        // that each is owned once.
        let fd = unsafe { OwnedFd::from_raw_fd(FIRST + at as RawFd) };
        put(&mut out, &name, fd).map_err(|e| {
            Error::refused(format!(
                "the socket `{name}` that systemd passed cannot be used: {e}"
            ))
            .hint("the socket unit must name stream sockets https, grpc and api")
        })?;
    }
    Ok(out)
}

/// One name per passed descriptor.
fn names(count: Option<String>, names: Option<String>) -> impl Iterator<Item = String> {
    let count: usize = count.and_then(|c| c.parse().ok()).unwrap_or(0).min(64);
    let names = names.unwrap_or_default();
    let mut names: Vec<String> = names.split(':').map(str::to_owned).collect();
    names.resize(count, "unnamed".to_owned());
    names.into_iter()
}

fn put(out: &mut Listeners, name: &str, fd: OwnedFd) -> std::io::Result<()> {
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    match name {
        "https" | "grpc" => {
            let listener = std::net::TcpListener::from(fd);
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            listener.local_addr()?;
            match name {
                "https" => out.https.push(listener),
                _ => out.grpc.push(listener),
            }
        }
        "api" => {
            let listener = std::os::unix::net::UnixListener::from(fd);
            listener.set_nonblocking(true)?;
            out.unix.push(tokio::net::UnixListener::from_std(listener)?);
        }
        _ => return Err(std::io::Error::other("unknown name")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_descriptor_gets_a_name() {
        let names = |count: &str, text: &str| -> Vec<String> {
            super::names(Some(count.into()), Some(text.into())).collect()
        };
        assert_eq!(names("2", "https:api"), ["https", "api"]);
        assert_eq!(names("2", "https"), ["https", "unnamed"]);
        assert!(names("x", "https").is_empty());
    }
}

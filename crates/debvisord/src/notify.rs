//! Tells systemd how we stand (sd_notify(3)). Without systemd it does nothing, and a failure to tell is never an error.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// All is up: what waits for this unit may go on.
pub fn ready() {
    tell("READY=1");
}

/// The end has begun.
pub fn stopping() {
    tell("STOPPING=1");
}

fn tell(state: &str) {
    let Ok(name) = std::env::var("NOTIFY_SOCKET") else {
        return;
    };
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    let sent = address.and_then(|at| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &at));
    if let Err(error) = sent {
        tracing::warn!(%error, state, "systemd could not be told");
    }
}

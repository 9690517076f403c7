//! What this machine is: capacity, kernel, QEMU, acceleration.

use host::clock::Clock;
use runtime::node::{Capacity, NodeStatus};
use std::path::Path;

/// Looks at this machine.
pub async fn of_this_machine(_cache: &Path, clock: &dyn Clock) -> NodeStatus {
    let uname = nix::sys::utsname::uname();
    let kernel = uname
        .map(|u| u.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    let memory = nix::sys::sysinfo::sysinfo()
        .map(|s| s.ram_total())
        .unwrap_or_default();
    NodeStatus {
        version: env!("CARGO_PKG_VERSION").into(),
        kernel,
        boot_id: clock.boot_id().to_string(),
        capacity: Capacity {
            cpus: std::thread::available_parallelism().map_or(0, |n| n.get() as u32),
            memory,
        },
        ..NodeStatus::default()
    }
}

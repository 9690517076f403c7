//! What this machine is: capacity, kernel, QEMU, acceleration.

use host::accel::{AccelProbe, Acceleration};
use host::clock::Clock;
use host::qemu::{Accel, Features};
use model::{Condition, ConditionStatus, Timestamp};
use runtime::node::{Capacity, NodeStatus};
use std::path::Path;

/// The emulator that guests run in.
const QEMU: &str = "qemu-system-x86_64";

/// What was found out by asking the machine.
pub struct Facts {
    /// For the node's status.
    pub status: NodeStatus,
    /// What executes guests.
    pub acceleration: Acceleration,
}

/// Looks at this machine. Runs a guest for a moment to see whether KVM works; answers from `cache` when nothing changed.
pub async fn of_this_machine(cache: &Path, clock: &dyn Clock, now: Timestamp) -> Facts {
    let qemu = Path::new(QEMU);
    let acceleration = AccelProbe::new(qemu, &cache.join("acceleration.json"), true)
        .ask(clock)
        .await;
    let features = Features::of(qemu, &cache.join("qemu-features.json")).await;
    let uname = nix::sys::utsname::uname();
    let kernel = uname
        .map(|u| u.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    let memory = nix::sys::sysinfo::sysinfo()
        .map(|s| s.ram_total())
        .unwrap_or_default();
    let mut conditions = Vec::new();
    let (accel, holds) = match acceleration.accel {
        Accel::Kvm => ("kvm", ConditionStatus::True),
        Accel::Tcg => ("tcg", ConditionStatus::False),
    };
    Condition::set(
        &mut conditions,
        "Accelerated",
        holds,
        accel,
        &acceleration.because,
        now,
    );
    match &features {
        Ok(_) => Condition::set(
            &mut conditions,
            "CanRunGuests",
            ConditionStatus::True,
            "",
            "",
            now,
        ),
        Err(e) => {
            let message = format!(
                "{e}: install QEMU 8.2 or newer (Debian 12: qemu-system-x86 from backports)"
            );
            Condition::set(
                &mut conditions,
                "CanRunGuests",
                ConditionStatus::False,
                "NoQemu",
                &message,
                now,
            )
        }
    };
    let status = NodeStatus {
        version: env!("CARGO_PKG_VERSION").into(),
        kernel,
        qemu: features
            .as_ref()
            .map(|f| f.version.to_string())
            .unwrap_or_default(),
        acceleration: accel.into(),
        boot_id: clock.boot_id().to_string(),
        capacity: Capacity {
            cpus: std::thread::available_parallelism().map_or(0, |n| n.get() as u32),
            memory,
        },
        conditions,
        ..NodeStatus::default()
    };
    Facts {
        status,
        acceleration,
    }
}

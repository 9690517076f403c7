//! What this machine is, for its node's status: capacity, kernel, and what guests stand on.

use compute::vm::qemu::Ground;
use host::clock::{Clock, SharedClock};
use host::qemu::Accel;
use model::{Condition, ConditionStatus, Timestamp};
use runtime::Cx;
use runtime::node::{Capacity, Facts, Node, NodeStatus};
use std::sync::Arc;
use tokio::sync::watch;

/// The facts, with a condition for each thing that guests may lack here; its message names the remedy.
pub fn of_this_machine(ground: &Ground, clock: &dyn Clock) -> NodeStatus {
    let now = runtime::Clock::now(&runtime::SystemClock);
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
        qemu: ground.version().into(),
        acceleration: ground.accelerated().into(),
        boot_id: clock.boot_id().to_string(),
        capacity: Capacity {
            cpus: std::thread::available_parallelism().map_or(0, |n| n.get() as u32),
            memory,
        },
        conditions: conditions(ground, now),
        ..NodeStatus::default()
    }
}

/// Until the process ends: finds the facts anew whenever what guests stand on changes.
pub fn follow(
    cx: &Cx,
    facts: Arc<Facts>,
    mut ground: watch::Receiver<Arc<Ground>>,
    clock: SharedClock,
) {
    let (cx, life) = (cx.clone(), cx.life().clone());
    let stop = cx.shutdown();
    life.spawn("facts", async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = ground.changed() => if changed.is_err() { return },
            }
            let now = of_this_machine(&ground.borrow_and_update(), &*clock);
            facts.found(now);
            cx.wake(&cx.key::<Node>(None, cx.node()));
        }
    });
}

fn conditions(ground: &Ground, now: Timestamp) -> Vec<Condition> {
    let mut out = Vec::new();
    let mut set = |kind: &str, holds: bool, reason: &str, message: &str| {
        let status = match holds {
            true => ConditionStatus::True,
            false => ConditionStatus::False,
        };
        Condition::set(&mut out, kind, status, reason, message, now);
    };
    let because = &ground.acceleration.because;
    let kvm = ground.acceleration.accel == Accel::Kvm;
    set("Accelerated", kvm, ground.accelerated(), because);
    match &ground.features {
        Ok(_) => set("CanRunGuests", true, "Ready", ""),
        Err(why) => set("CanRunGuests", false, "NoQemu", why),
    }
    match &ground.no_tap {
        None => set("CanConnectGuests", true, "Ready", ""),
        Some(why) => set("CanConnectGuests", false, "NoTap", why),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::accel::Acceleration;

    #[test]
    fn what_is_missing_is_a_condition_with_its_remedy() {
        let ground = Ground {
            features: Err("install the Debian package `qemu-system-x86`".into()),
            acceleration: Acceleration {
                accel: Accel::Tcg,
                because: "/dev/kvm does not exist".into(),
                cpu: "qemu64".into(),
            },
            no_tap: Some("/dev/net/tun is missing: `modprobe tun`".into()),
        };
        let found = conditions(&ground, Timestamp::from_millis(0));
        let lines: Vec<String> = found
            .iter()
            .map(|c| format!("{} {:?} {}: {}", c.kind, c.status, c.reason, c.message))
            .collect();
        assert_eq!(
            lines,
            [
                "Accelerated False tcg: /dev/kvm does not exist",
                "CanRunGuests False NoQemu: install the Debian package `qemu-system-x86`",
                "CanConnectGuests False NoTap: /dev/net/tun is missing: `modprobe tun`",
            ]
        );
    }
}

//! Whose turn it is after a boot of the host: VMs with a lower `auto_start.order` start first.

use model::Timestamp;
use std::time::Duration;

/// Another VM that ran before the host's boot and shall run again.
#[derive(Clone, Debug, PartialEq)]
pub struct Other {
    /// Its name.
    pub name: String,
    /// Its order.
    pub order: u32,
    /// How long those after it wait.
    pub delay: Duration,
    /// Whether a start was tried in this boot, and when it last began.
    pub tried: bool,
    /// When it was started, if it was.
    pub started: Option<Timestamp>,
}

/// How long a VM waits for others at most, counted from the first look after the boot: one that cannot start must not
/// keep the rest from starting.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// For what a VM of this order still waits; `None` when it is its turn.
pub fn turn(order: u32, others: &[Other], waited: Duration, now: Timestamp) -> Option<String> {
    if waited > PATIENCE {
        return None;
    }
    others.iter().filter(|o| o.order < order).find_map(|other| {
        if !other.tried {
            return Some(format!("VM `{}` starts before it", other.name));
        }
        let since = now.since(other.started?);
        (since < other.delay).then(|| {
            let rest = (other.delay - since).as_secs() + 1;
            format!("it starts {rest} s from now, after VM `{}`", other.name)
        })
    })
}

//! What to do next about one VM, from what is wanted, what is seen, and the time.

use super::super::types::{
    Exit, ExitReason, OnCrash, OnGuestShutdown, Power, PowerOffMode, VmSpec,
};
use super::change::Change;
use model::Timestamp;
use std::time::Duration;

/// What is seen of one VM on its node.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The guest.
    pub guest: Guest,
    /// Why it cannot be started yet: a disk that is being made, a network that is not up.
    pub missing: Option<String>,
    /// Whose turn it is first, after a boot of the host.
    pub turn: Option<String>,
    /// This boot of the host.
    pub boot: String,
    /// How the guest last ended.
    pub last_exit: Option<Exit>,
    /// How often it crashed in a row.
    pub crashes: u32,
    /// The request counter when it was last started.
    pub starts: u64,
    /// Since when it is being powered off.
    pub stopping_since: Option<Timestamp>,
    /// When it was last asked to shut down.
    pub shutdown_asked: Option<Timestamp>,
    /// What the guest can take over while it runs.
    pub changes: Vec<Change>,
    /// Whether the VM shall be deleted.
    pub deleting: bool,
}

/// What is seen of the guest itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Guest {
    /// There is none, and nothing is left of one.
    Absent,
    /// Its CPUs run.
    Running,
    /// Its CPUs stand still because they were told to.
    Paused,
    /// Its CPUs stand still because a disk could not be written; when they may be tried again.
    Stuck {
        /// Since when.
        since: Timestamp,
        /// What is wrong, for people.
        why: String,
    },
    /// It crashed and stands still.
    Crashed(Crashed),
    /// It ended; its traces are still there.
    Ended(Exit),
    /// It cannot be reached, yet its process lives.
    Unreachable(String),
}

/// How a guest that still has its process crashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crashed {
    /// What is known about it.
    pub message: String,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing can be done until something else happens.
    Wait(String),
    /// Nothing can be done until then.
    WaitUntil(Timestamp, String),
    /// Start it; standing still when `paused`.
    Launch {
        /// Whether its CPUs stand still from the first instruction.
        paused: bool,
    },
    /// Let its CPUs run.
    Continue,
    /// Make its CPUs stand still.
    Pause,
    /// Ask the guest to shut down.
    AskShutdown,
    /// Cut the power, for this reason.
    PowerOff(ExitReason, String),
    /// Let the guest take over a change.
    Apply(Change),
    /// Take the traces of an ended guest away and remember how it ended.
    Clean(Exit),
    /// Nothing is left: the VM may go.
    Release,
}

/// How often a full disk is tried again.
const STUCK_RETRY: Duration = Duration::from_secs(10);

/// How often a guest that shall shut down is asked: one that boots hears nothing until its kernel listens.
pub const ASK_AGAIN: Duration = Duration::from_secs(10);

/// How often a VM that waits for its turn looks again.
const TURN_LOOK: Duration = Duration::from_secs(1);

/// How long to wait before the start that follows the n-th crash in a row: 5 s, doubled each time, 5 min at most.
pub fn back_off(crashes: u32) -> Duration {
    let doubled = 5u64.saturating_mul(1 << crashes.saturating_sub(1).min(16));
    Duration::from_secs(doubled.min(300))
}

/// What to do next, in order. Empty: all is as it shall be.
pub fn plan(spec: &VmSpec, seen: &Seen, now: Timestamp) -> Vec<Step> {
    let wanted = spec.power != Power::Off && !seen.deleting;
    match &seen.guest {
        Guest::Ended(exit) => vec![Step::Clean(exit.clone())],
        Guest::Absent if seen.deleting => vec![Step::Release],
        Guest::Absent if wanted => start(spec, seen, now),
        Guest::Absent => Vec::new(),
        _ if !wanted => stop(spec, seen, now),
        Guest::Unreachable(why) => vec![Step::Wait(why.clone())],
        Guest::Crashed(crash) => match spec.on_crash {
            OnCrash::Pause => Vec::new(),
            OnCrash::Restart | OnCrash::StayOff => {
                vec![Step::PowerOff(ExitReason::Crash, crash.message.clone())]
            }
        },
        Guest::Stuck { since, why } if spec.power == Power::On => {
            let again = since.plus(STUCK_RETRY);
            match again <= now {
                true => vec![Step::Continue],
                false => vec![Step::WaitUntil(again, why.clone())],
            }
        }
        Guest::Stuck { .. } => Vec::new(),
        Guest::Running if spec.power == Power::Paused => vec![Step::Pause],
        Guest::Paused if spec.power == Power::On => vec![Step::Continue],
        Guest::Running | Guest::Paused => seen.changes.iter().cloned().map(Step::Apply).collect(),
    }
}

fn start(spec: &VmSpec, seen: &Seen, now: Timestamp) -> Vec<Step> {
    let launch = Step::Launch {
        paused: spec.power == Power::Paused,
    };
    let asked_again = spec.starts > seen.starts;
    let due = match &seen.last_exit {
        None => None,
        Some(exit) if exit.boot != seen.boot || asked_again => None,
        Some(exit) => match exit.reason {
            ExitReason::Asked | ExitReason::HostReboot | ExitReason::Reboot => None,
            ExitReason::GuestShutdown => match spec.on_guest_shutdown {
                OnGuestShutdown::StayOff => return Vec::new(),
                OnGuestShutdown::Restart => None,
            },
            ExitReason::Crash => match spec.on_crash {
                OnCrash::StayOff | OnCrash::Pause => return Vec::new(),
                OnCrash::Restart => Some(("it crashed", exit.at.plus(back_off(seen.crashes)))),
            },
            ExitReason::StartFailed => Some((
                "it could not be started",
                exit.at.plus(back_off(seen.crashes)),
            )),
        },
    };
    if let Some((why, at)) = due
        && at > now
    {
        let message = seen.last_exit.as_ref().map_or("", |e| e.message.as_str());
        let message = if message.is_empty() { why } else { message };
        return vec![Step::WaitUntil(
            at,
            format!("{message}; starts again at {at}"),
        )];
    }
    if let Some(missing) = &seen.missing {
        return vec![Step::Wait(missing.clone())];
    }
    if let Some(turn) = &seen.turn {
        return vec![Step::WaitUntil(now.plus(TURN_LOOK), turn.clone())];
    }
    vec![launch]
}

fn stop(spec: &VmSpec, seen: &Seen, now: Timestamp) -> Vec<Step> {
    let cut = |message: &str| vec![Step::PowerOff(ExitReason::Asked, message.to_owned())];
    if seen.deleting {
        return cut("the VM is deleted");
    }
    if spec.power_off.mode == PowerOffMode::Hard {
        return cut("its power was cut as asked");
    }
    match &seen.guest {
        Guest::Running | Guest::Paused => {}
        // A guest that does not run cannot follow a request.
        _ => return cut("it could not shut itself down"),
    }
    let ask = match seen.guest {
        Guest::Paused => vec![Step::Continue, Step::AskShutdown],
        _ => vec![Step::AskShutdown],
    };
    let Some(since) = seen.stopping_since else {
        return ask;
    };
    let timeout = spec.power_off.timeout;
    let end = since.plus(timeout.duration());
    if end <= now {
        return match spec.power_off.force {
            true => cut(&format!("it did not shut down within {timeout}")),
            false => vec![Step::Wait(format!(
                "the guest has not shut down within {timeout}; its power is not cut, as asked"
            ))],
        };
    }
    let again = seen.shutdown_asked.unwrap_or(since).plus(ASK_AGAIN);
    if again <= now {
        return ask;
    }
    let message = match spec.power_off.force {
        true => format!("the guest was asked to shut down; its power is cut at {end}"),
        false => "the guest was asked to shut down".to_owned(),
    };
    vec![Step::WaitUntil(again.min(end), message)]
}

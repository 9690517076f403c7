//! The state people see, and which verbs it allows.
//!
//! ```text
//!            launch              continue
//! stopped ----------> starting -----------> running <-----> paused
//!    ^                    |                  |   |  pause/   |
//!    |                    | fails            |   |  resume   |
//!    |                    v      panics, dies |   | asked to  |
//!    +-- stays off --- crashed <--------------+   | stop      |
//!    |                                            v           |
//!    +---------------- guest ends ------------ stopping <-----+
//!
//! unknown: the process lives and does not answer
//! ```

use super::super::types::{ExitReason, Power, State, VmSpec};
use super::plan::{Guest, Seen};
use model::{Error, Result};

/// The state that what is seen amounts to.
pub fn phase(spec: &VmSpec, seen: &Seen) -> State {
    match &seen.guest {
        Guest::Absent | Guest::Ended(_) if spec.power == Power::Off => State::Stopped,
        Guest::Absent => match &seen.last_exit {
            Some(exit) if matches!(exit.reason, ExitReason::Crash | ExitReason::StartFailed) => {
                State::Crashed
            }
            _ => State::Stopped,
        },
        Guest::Running | Guest::Paused if seen.stopping_since.is_some() => State::Stopping,
        Guest::Running => State::Running,
        Guest::Paused | Guest::Stuck { .. } => State::Paused,
        Guest::Crashed(_) => State::Crashed,
        Guest::Ended(exit) => match exit.reason {
            ExitReason::Crash | ExitReason::StartFailed => State::Crashed,
            _ => State::Stopped,
        },
        Guest::Unreachable(_) => State::Unknown,
    }
}

/// Refuses a verb that a state does not allow, naming what would allow it.
pub fn allowed(verb: &str, vm: &str, state: State) -> Result<()> {
    use State::{Crashed, Paused, Running, Starting, Stopped, Stopping, Unknown};
    let (states, remedy): (&[State], &str) = match verb {
        "pause" => (&[Running, Starting, Paused], "start it first"),
        "resume" => (&[Paused, Running], "only a paused VM can be resumed"),
        "reset" => (&[Running, Paused, Crashed, Stopping], "start it instead"),
        "reboot" => (&[Running], "start or resume it first"),
        "exec" | "agent" => (&[Running, Stopping], "start it first"),
        "screen" => (&[Running, Paused, Stopping, Crashed], "start it first"),
        _ => (
            &[
                Stopped, Starting, Running, Paused, Stopping, Crashed, Unknown,
            ],
            "",
        ),
    };
    if states.contains(&state) {
        return Ok(());
    }
    let word = serde_json::to_value(state)
        .ok()
        .and_then(|v| v.as_str().map(str::to_owned))
        .unwrap_or_default();
    Err(Error::refused(format!("cannot {verb} VM `{vm}`: it is {word}")).hint(remedy))
}

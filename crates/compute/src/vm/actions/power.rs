//! `start`, `shutdown`, `stop`, `pause`, `resume`: intents about power.

use super::super::Vm;
use super::super::rules::allowed;
use super::super::types::{ExitReason, Power, PowerOffMode, State, VmStatus};
use super::{edit, params, parts};
use model::{Action, Danger, Result, Seconds, WorkStyle, schema};
use runtime::{Draft, Until};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(super) const START: Action = Action {
    verb: "start",
    doc: "Starts the VM, and keeps it on: it comes back after a reboot of the host. A guest that had shut itself down, or \
          crashed, starts again at once.",
    danger: Danger::None,
    style: WorkStyle::Intent,
    input: schema::empty,
    claims: &["power"],
    deadline: 900,
    event: "started",
    examples: &["dvctl vm start web1"],
};

pub(super) const SHUTDOWN: Action = Action {
    verb: "shutdown",
    doc: "Asks the guest to shut down, by its agent or its power button, and keeps the VM off. When the guest has not \
          followed after the timeout, its power is cut, unless `force` is false.",
    danger: Danger::Disrupts,
    style: WorkStyle::Intent,
    input: schema::of::<Shutdown>,
    claims: &["power"],
    deadline: 3900,
    event: "shut-down",
    examples: &[
        "dvctl vm shutdown web1",
        "dvctl vm shutdown web1 --timeout 30s",
    ],
};

pub(super) const STOP: Action = Action {
    verb: "stop",
    doc: "Cuts the power of the VM at once, and keeps it off. What the guest has not written to its disks is lost.",
    danger: Danger::Disrupts,
    style: WorkStyle::Intent,
    input: schema::empty,
    claims: &["power"],
    deadline: 120,
    event: "stopped",
    examples: &["dvctl vm stop web1"],
};

pub(super) const PAUSE: Action = Action {
    verb: "pause",
    doc: "Makes the guest's CPUs stand still; its memory is kept.",
    danger: Danger::Disrupts,
    style: WorkStyle::Intent,
    input: schema::empty,
    claims: &["power"],
    deadline: 120,
    event: "paused",
    examples: &["dvctl vm pause web1"],
};

pub(super) const RESUME: Action = Action {
    verb: "resume",
    doc: "Lets the CPUs of a paused guest run on.",
    danger: Danger::None,
    style: WorkStyle::Intent,
    input: schema::empty,
    claims: &["power"],
    deadline: 120,
    event: "resumed",
    examples: &["dvctl vm resume web1"],
};

/// How to shut down.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Shutdown {
    /// How long the guest may take, 1 s to 1 h. Absent: as the VM says, 180 s by default.
    #[serde(default)]
    timeout: Option<Seconds>,
    /// Whether the power is cut when it takes longer.
    #[serde(default = "yes")]
    force: bool,
}

fn yes() -> bool {
    true
}

pub(super) fn start(draft: &mut Draft<'_>, _: &Value) -> Result<()> {
    let status: VmStatus = draft.status::<Vm>();
    edit(draft, |spec| {
        // A guest that runs has nothing to be started again for.
        let runs = matches!(status.state, State::Running | State::Starting);
        if spec.power != Power::On || !runs {
            spec.starts = spec.starts.max(status.starts) + 1;
        }
        spec.power = Power::On;
        spec.power_off.mode = PowerOffMode::Graceful;
        Ok(())
    })
}

pub(super) fn shutdown(draft: &mut Draft<'_>, given: &Value) -> Result<()> {
    let given: Shutdown = params(given)?;
    edit(draft, |spec| {
        spec.power = Power::Off;
        spec.power_off.mode = PowerOffMode::Graceful;
        spec.power_off.force = given.force;
        spec.power_off.timeout = given.timeout.unwrap_or(spec.power_off.timeout);
        Ok(())
    })
}

pub(super) fn stop(draft: &mut Draft<'_>, _: &Value) -> Result<()> {
    edit(draft, |spec| {
        spec.power = Power::Off;
        spec.power_off.mode = PowerOffMode::Hard;
        Ok(())
    })
}

pub(super) fn pause(draft: &mut Draft<'_>, _: &Value) -> Result<()> {
    let state = draft.status::<Vm>().state;
    allowed("pause", &draft.meta.name, state)?;
    edit(draft, |spec| {
        spec.power = Power::Paused;
        Ok(())
    })
}

pub(super) fn resume(draft: &mut Draft<'_>, _: &Value) -> Result<()> {
    let state = draft.status::<Vm>().state;
    allowed("resume", &draft.meta.name, state)?;
    edit(draft, |spec| {
        spec.power = Power::On;
        Ok(())
    })
}

pub(super) fn runs(object: &Value) -> Until {
    let Some((_, status)) = parts(object) else {
        return Until::Waiting("the node to look at it".into());
    };
    let running = status
        .conditions
        .iter()
        .find(|c| c.kind == "Running")
        .map(|c| c.message.clone())
        .filter(|m| !m.is_empty());
    match (status.state, &status.last_exit) {
        (State::Running, _) => Until::Done,
        (State::Crashed, Some(exit)) if exit.reason == ExitReason::StartFailed => {
            Until::Failed(exit.message.clone())
        }
        _ => Until::Waiting(running.unwrap_or_else(|| "the guest to run".into())),
    }
}

pub(super) fn is_off(object: &Value) -> Until {
    match parts(object).map(|(_, s)| s.state) {
        Some(State::Stopped) => Until::Done,
        _ => Until::Waiting("the guest to end".into()),
    }
}

pub(super) fn stands_still(object: &Value) -> Until {
    match parts(object).map(|(_, s)| s.state) {
        Some(State::Paused) => Until::Done,
        _ => Until::Waiting("the guest to stand still".into()),
    }
}

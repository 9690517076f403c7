//! `reset`, `reboot`, `send-key`: things that happen once. Each carries the number of the guest's boot that it is meant for.

use super::super::hypervisor::Ask;
use super::super::types::State;
use super::{ask, may, runs, target};
use model::{Action, Danger, Error, Result, WorkStyle, schema};
use runtime::Proc;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;

pub(super) const RESET: Action = Action {
    verb: "reset",
    doc: "Presses the reset button: the guest starts anew at once. What it has not written to its disks is lost.",
    danger: Danger::Disrupts,
    style: WorkStyle::Procedure,
    input: schema::empty,
    claims: &["power"],
    deadline: 60,
    event: "reset",
    examples: &["dvctl vm reset web1"],
};

pub(super) const REBOOT: Action = Action {
    verb: "reboot",
    doc: "Asks the guest to reboot: by its agent, or else by shutting it down and starting it again.",
    danger: Danger::Disrupts,
    style: WorkStyle::Procedure,
    input: schema::empty,
    claims: &["power"],
    deadline: 900,
    event: "rebooted",
    examples: &["dvctl vm reboot web1"],
};

pub(super) const SEND_KEY: Action = Action {
    verb: "send-key",
    doc: "Presses keys in the guest, all at once: `ctrl-alt-delete`, `ret`, `a`, `shift-b`, by QEMU's key names.",
    danger: Danger::Disrupts,
    style: WorkStyle::Procedure,
    input: schema::of::<SendKey>,
    claims: &[],
    deadline: 60,
    event: "key-sent",
    examples: &["dvctl vm send-key web1 --keys ctrl-alt-delete"],
};

/// Which keys.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SendKey {
    /// QEMU key names joined by `-`, such as `ctrl-alt-delete`.
    #[schemars(
        length(min = 1, max = 200),
        regex(pattern = "^[a-z0-9_]+(-[a-z0-9_]+)*$")
    )]
    keys: String,
}

/// How often a procedure looks whether the guest has rebooted.
const LOOK: Duration = Duration::from_millis(250);

pub(super) async fn reset(proc: Proc) -> Result<Value> {
    // The boot it is meant for is fixed by the first step: after a crash of ours the same one is asked for.
    let boot: u64 = proc
        .step("look", || async {
            let (_, vm) = target(&proc)?;
            may(&vm, "reset")?;
            Ok(vm.status.as_ref().map_or(0, |s| s.incarnation))
        })
        .await?;
    proc.step("reset", || async {
        let (id, _) = target(&proc)?;
        ask(&proc, &id, Ask::Reset(boot)).await.map(drop)
    })
    .await?;
    Ok(json!({ "boot": boot + 1 }))
}

pub(super) async fn reboot(proc: Proc) -> Result<Value> {
    let boot: u64 = proc
        .step("look", || async {
            let (_, vm) = target(&proc)?;
            may(&vm, "reboot")?;
            Ok(vm.status.as_ref().map_or(0, |s| s.incarnation))
        })
        .await?;
    proc.step("ask", || async {
        let (id, vm) = target(&proc)?;
        if vm.status.as_ref().is_some_and(|s| s.incarnation > boot) {
            return Ok(());
        }
        match ask(&proc, &id, Ask::Reboot).await {
            // Asked before a crash of ours, it is on its way by now; how that ends is seen below.
            Err(_) if !runs(&proc, &id).await? => Ok(()),
            asked => asked.map(drop),
        }
    })
    .await?;
    proc.step("wait", || async {
        let token = proc.token();
        loop {
            let (_, vm) = target(&proc)?;
            let status = vm.status.clone().unwrap_or_default();
            if status.incarnation > boot && status.state == State::Running {
                return Ok(());
            }
            if vm.spec.power == super::super::types::Power::Off {
                return Err(Error::refused("the VM was powered off meanwhile"));
            }
            tokio::select! {
                () = token.cancelled() => return Err(Error::refused("the task was cancelled")),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    })
    .await?;
    Ok(json!({ "boot": boot + 1 }))
}

pub(super) async fn send_key(proc: Proc) -> Result<Value> {
    let given: SendKey = proc.params()?;
    proc.step("send", || async {
        let (id, vm) = target(&proc)?;
        may(&vm, "screen")?;
        let keys = given.keys.split('-').map(str::to_owned).collect();
        ask(&proc, &id, Ask::Keys(keys)).await.map(drop)
    })
    .await?;
    Ok(Value::Null)
}

//! What can be asked of a VM beyond editing it.
//!
//! Intent actions edit the spec and wait until the guest follows; procedures do something once, and carry the number of
//! the guest's boot, so that a late one cannot hit the next boot.

mod agent;
mod devices;
mod look;
mod once;
mod power;
mod resize;

use model::Action;
use runtime::Run;

/// The declarations.
pub static DECLARED: &[Action] = &[
    power::START,
    power::SHUTDOWN,
    power::STOP,
    power::PAUSE,
    power::RESUME,
    once::REBOOT,
    once::RESET,
    resize::RESIZE,
    devices::ATTACH_DISK,
    devices::DETACH_DISK,
    devices::ATTACH_NIC,
    devices::DETACH_NIC,
    once::SEND_KEY,
    agent::FILE_READ,
    agent::FILE_WRITE,
    agent::FS_FREEZE,
    agent::FS_THAW,
    agent::OS_INFO,
    look::CHECK,
    look::RENDER,
    look::VALIDATE,
];

/// How they run.
pub static RUNS: &[(&str, Run)] = &[
    (
        "start",
        Run::Intent {
            edit: power::start,
            until: power::runs,
        },
    ),
    (
        "shutdown",
        Run::Intent {
            edit: power::shutdown,
            until: power::is_off,
        },
    ),
    (
        "stop",
        Run::Intent {
            edit: power::stop,
            until: power::is_off,
        },
    ),
    (
        "pause",
        Run::Intent {
            edit: power::pause,
            until: power::stands_still,
        },
    ),
    (
        "resume",
        Run::Intent {
            edit: power::resume,
            until: power::runs,
        },
    ),
    ("reboot", Run::Procedure(|p| Box::pin(once::reboot(p)))),
    ("reset", Run::Procedure(|p| Box::pin(once::reset(p)))),
    (
        "resize",
        Run::Intent {
            edit: resize::resize,
            until: resize::follows,
        },
    ),
    (
        "attach-disk",
        Run::Intent {
            edit: devices::attach_disk,
            until: devices::follows,
        },
    ),
    (
        "detach-disk",
        Run::Intent {
            edit: devices::detach_disk,
            until: devices::follows,
        },
    ),
    (
        "attach-nic",
        Run::Intent {
            edit: devices::attach_nic,
            until: devices::follows,
        },
    ),
    (
        "detach-nic",
        Run::Intent {
            edit: devices::detach_nic,
            until: devices::follows,
        },
    ),
    ("send-key", Run::Procedure(|p| Box::pin(once::send_key(p)))),
    (
        "file-read",
        Run::Procedure(|p| Box::pin(agent::file_read(p))),
    ),
    (
        "file-write",
        Run::Procedure(|p| Box::pin(agent::file_write(p))),
    ),
    (
        "fs-freeze",
        Run::Procedure(|p| Box::pin(agent::fs_freeze(p))),
    ),
    ("fs-thaw", Run::Procedure(|p| Box::pin(agent::fs_thaw(p)))),
    ("os-info", Run::Procedure(|p| Box::pin(agent::os_info(p)))),
    ("check", Run::Procedure(|p| Box::pin(look::check(p)))),
    (
        "cloud-init-render",
        Run::Procedure(|p| Box::pin(look::render(p))),
    ),
    (
        "cloud-init-validate",
        Run::Procedure(|p| Box::pin(look::validate(p))),
    ),
];

/// What their steps are undone by.
pub static UNDOS: &[&Undo] = &[&agent::THAW];

use super::hypervisor::{Ask, Guests, Reply, VmId};
use super::rules::Guest;
use super::rules::allowed;
use super::types::VmStatus;
use super::{Vm, VmSpec};
use model::{Error, Result};
use runtime::{Draft, Obj, Proc, Undo};
use serde_json::Value;
use std::sync::Arc;

/// Reads the parameters of an intent action.
fn params<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T> {
    serde_json::from_value(value.clone()).map_err(|e| Error::field("params", e.to_string()))
}

/// Edits the typed spec of a draft.
fn edit(draft: &mut Draft<'_>, with: impl FnOnce(&mut VmSpec) -> Result<()>) -> Result<()> {
    let mut spec = draft.spec::<Vm>()?;
    with(&mut spec)?;
    draft.set_spec::<Vm>(&spec)
}

/// The typed parts of a whole object, for the conditions that tasks wait for.
fn parts(object: &Value) -> Option<(VmSpec, VmStatus)> {
    let spec = serde_json::from_value(object["spec"].clone()).ok()?;
    let status = serde_json::from_value(object["status"].clone()).ok()?;
    Some((spec, status))
}

/// The VM that a procedure is about.
fn target(proc: &Proc) -> Result<(VmId, Arc<Obj<Vm>>)> {
    let object = proc.target().clone();
    let vm = proc
        .cx()
        .get::<Vm>(object.project.as_deref(), &object.name)
        .filter(|vm| vm.metadata.uid == proc.target_uid())
        .ok_or_else(|| Error::not_found(format!("there is no VM `{}`", object.name)))?;
    let id = VmId {
        uid: vm.metadata.uid,
        object,
    };
    Ok((id, vm))
}

/// Refuses what the state of the VM does not allow.
fn may(vm: &Obj<Vm>, verb: &str) -> Result<()> {
    let state = vm.status.as_ref().map(|s| s.state).unwrap_or_default();
    allowed(verb, &vm.metadata.name, state)
}

/// Asks the guest of a procedure.
async fn ask(proc: &Proc, id: &VmId, what: Ask) -> Result<Reply> {
    let guests = Guests::of(proc.cx())?;
    // After a restart of ours the guest may not have been taken up yet.
    guests.look(proc.cx(), id).await?;
    guests.ask(id, what).await
}

/// Whether there is a guest whose CPUs run or could run.
async fn runs(proc: &Proc, id: &VmId) -> Result<bool> {
    let view = Guests::of(proc.cx())?.look(proc.cx(), id).await?;
    Ok(!matches!(view.guest, Guest::Absent | Guest::Ended(_)))
}

//! `resize`: more or fewer CPUs, more memory, a larger disk.

use super::super::types::State;
use super::{edit, params, parts};
use model::{Action, Bytes, Danger, Error, Result, WorkStyle, schema};
use runtime::{Draft, Until};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(super) const RESIZE: Action = Action {
    verb: "resize",
    doc: "Changes the number of CPUs, the memory, or the size of a disk. A running guest takes it over at once as far as it \
          can (CPUs up to `cpu.max`, memory up to `max_memory`, disks); the rest waits for the next cold start, named by the \
          condition NeedsRestart.",
    danger: Danger::None,
    style: WorkStyle::Intent,
    input: schema::of::<Resize>,
    claims: &[],
    deadline: 300,
    event: "resized",
    examples: &[
        "dvctl vm resize web1 --vcpus 4",
        "dvctl vm resize web1 --disk disk0 --size 20GiB",
    ],
};

/// What to change.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Resize {
    /// Number of virtual CPUs, 1 to 256.
    #[serde(default)]
    #[schemars(range(min = 1, max = 256))]
    vcpus: Option<u32>,
    /// Memory, 128 MiB to 1 TiB.
    #[serde(default)]
    memory: Option<Bytes>,
    /// Name of the disk that `size` is about. Absent: the first one.
    #[serde(default)]
    #[schemars(length(max = 16))]
    disk: Option<String>,
    /// New size of the disk; it only grows.
    #[serde(default)]
    size: Option<Bytes>,
}

pub(super) fn resize(draft: &mut Draft<'_>, given: &Value) -> Result<()> {
    let given: Resize = params(given)?;
    if given.vcpus.is_none() && given.memory.is_none() && given.size.is_none() {
        return Err(Error::field("params", "nothing to change is given")
            .hint("give vcpus, memory, or disk and size"));
    }
    edit(draft, |spec| {
        spec.vcpus = given.vcpus.unwrap_or(spec.vcpus);
        spec.memory = given.memory.unwrap_or(spec.memory);
        let Some(size) = given.size else {
            return Ok(());
        };
        let names: Vec<String> = spec.disks.iter().map(|d| d.name.clone()).collect();
        let disk = match &given.disk {
            Some(name) => spec.disks.iter_mut().find(|d| d.name == *name),
            None => spec.disks.first_mut(),
        };
        let disk = disk.ok_or_else(|| {
            Error::field(
                "params.disk",
                format!("there is no disk `{}`", given.disk.unwrap_or_default()),
            )
            .hint(format!("there are: {}", names.join(", ")))
        })?;
        if let Some(volume) = &disk.volume {
            return Err(Error::refused(format!(
                "disk `{}` is volume `{volume}`, which has its own size",
                disk.name
            ))
            .hint(format!("dvctl volume set {volume} --size {size}")));
        }
        disk.size = Some(size);
        Ok(())
    })
}

pub(super) fn follows(object: &Value) -> Until {
    let Some((spec, status)) = parts(object) else {
        return Until::Waiting("the node to look at it".into());
    };
    let waits = status.conditions.iter().any(|c| c.kind == "NeedsRestart");
    let same = status.vcpus == Some(spec.vcpus) && status.memory == Some(spec.memory.0);
    match status.state {
        State::Stopped | State::Crashed => Until::Done,
        _ if same || waits => Until::Done,
        _ => Until::Waiting("the guest to take it over".into()),
    }
}

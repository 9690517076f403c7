//! A quota: how much a project may use of what kinds count, and how much it uses.
//!
//! **Invariants.** Each project has one, of its name, which belongs to it and goes with it; before it is made, the numbers
//! of a new project hold. What is used is counted by the runtime from the objects themselves, so that it cannot drift; the
//! status here shows it. A limit below what is used takes nothing away.

mod controller;
#[cfg(test)]
mod tests;
mod types;

pub use types::{QuotaSpec, QuotaStatus};

use model::{Column, Error, Kind, Resource, Result, Scope, Unit, Verb, Violation, schema};
use runtime::usage::{Countable, Limits};
use runtime::{Controller, Cx, Draft, Place, Seat, Subsystem, normal};
use std::sync::Arc;

/// Ties the kind to its types.
pub struct Quota;

impl Resource for Quota {
    const KIND: &'static Kind = &KIND;
    type Spec = QuotaSpec;
    type Status = QuotaStatus;
}

/// The declaration.
pub static KIND: Kind = Kind {
    name: "quota",
    plural: "quotas",
    title: "Quota",
    scope: Scope::Cluster,
    doc: "How much a project may use, and how much it uses. Each project has one of its own name. What would go over a limit is refused, whoever asks. A limit that is not given is no limit; one below what is used already takes nothing away.",
    verbs: &[Verb::Read, Verb::Update],
    spec: schema::of::<QuotaSpec>,
    status: schema::of::<QuotaStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("vms", "status.used.vms"),
        Column::new("of-vms", "spec.vms"),
        Column::new("vcpus", "status.used.vcpus"),
        Column::new("of-vcpus", "spec.vcpus"),
        Column::new("memory", "status.used.memory").unit(Unit::Bytes),
        Column::new("of-memory", "spec.memory").unit(Unit::Bytes),
        Column::new("disk", "status.used.disk").unit(Unit::Bytes),
        Column::new("of-disk", "spec.disk").unit(Unit::Bytes),
        Column::new("networks", "status.used.networks").wide(),
        Column::new("of-networks", "spec.networks").wide(),
        Column::new("over", "status.over").wide(),
    ],
    actions: &[],
    streams: &[],
    examples: &[
        "dvctl quota list",
        "dvctl quota show shop",
        "dvctl quota set shop --vms 20 --memory 128GiB",
        "dvctl quota set shop --unset networks",
    ],
};

/// The subsystem.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Api,
    seat: Seat::Api,
    normal: normal::<Quota>,
    admit,
    runs: &[],
    undos: &[],
    streams: &[],
    finalizes: false,
    controllers,
};

fn controllers(cx: &Cx) -> Vec<Arc<dyn Controller>> {
    cx.life()
        .spawn("usage of projects", controller::follow(cx.clone()));
    vec![Arc::new(controller::QuotaController)]
}

fn admit(draft: &mut Draft<'_>) -> Result<()> {
    let spec = draft.spec::<Quota>()?;
    let known = draft.cx().registry().countables();
    let mut wrong = Vec::new();
    for word in spec.more.keys() {
        let field = format!("spec.more.{word}");
        if QuotaSpec::WORDS.contains(&word.as_str()) {
            wrong.push(
                Violation::new(field, "has a field of its own").hint(format!("set `{word}`")),
            );
        } else if !known.iter().any(|what| *what.word == **word) {
            let words: Vec<&str> = known.iter().map(|what| &*what.word).collect();
            let wrong_word = Violation::new(field, "is nothing that any kind counts");
            wrong.push(match model::nearest(word, words.iter().copied()) {
                Some(near) => wrong_word.hint(format!("did you mean `{near}`?")),
                None => wrong_word.hint(format!("counted are: {}", words.join(", "))),
            });
        }
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Error::invalid(wrong)),
    }
}

/// The limits of all projects, as the runtime asks for them.
#[derive(Debug)]
pub struct Quotas;

impl Limits for Quotas {
    fn limit(&self, cx: &Cx, project: &str, word: &str) -> Option<u64> {
        match cx.get::<Quota>(None, project) {
            Some(quota) => quota.spec.limit(word),
            None => QuotaSpec::of_new(cx, project).limit(word),
        }
    }

    fn remedy(&self, project: &str, what: &Countable, needed: u64) -> String {
        // Rounded up: a size is shown with one decimal, and must not be less than what is needed.
        let gib = 1u64 << 30;
        let needed = match what.bytes && needed > gib {
            true => what.shown(needed.div_ceil(gib).saturating_mul(gib)),
            false => what.shown(needed),
        };
        match QuotaSpec::WORDS.contains(&&*what.word) {
            true => format!("dvctl quota set {project} --{} {needed}", what.word),
            false => format!(
                "dvctl quota set {project} --set more.{}={needed}",
                what.word
            ),
        }
    }
}

/// The part that a process needs.
pub fn part() -> Arc<runtime::usage::LimitRules> {
    Arc::new(runtime::usage::LimitRules(Arc::new(Quotas)))
}

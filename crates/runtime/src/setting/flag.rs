//! The kind `flag`: something new that is on for some users or projects first. A subject that is in stays in.

use super::{Changed, HISTORY, find, history};
use crate::{Cx, Draft, Place, Run, Seat, Subsystem, Until, no_controllers, normal};
use model::{
    Action, Column, Condition, Danger, Kind, Resource, Result, Scope, Unit, Verb, WorkStyle, schema,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

/// A switch with a rollout.
pub struct Flag;

impl Resource for Flag {
    const KIND: &'static Kind = &KIND;
    type Spec = FlagSpec;
    type Status = FlagStatus;
}

/// The declaration.
pub static KIND: Kind = Kind {
    name: "flag",
    plural: "flags",
    title: "Feature flag",
    scope: Scope::Cluster,
    doc: "Something that can be switched on for a share of the users, or for named users and projects. DebVisor makes one object for each flag that it knows. Whoever is within a share stays in when the share grows.",
    verbs: &[Verb::Read, Verb::Update],
    spec: schema::of::<FlagSpec>,
    status: schema::of::<FlagStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("enabled", "spec.enabled"),
        Column::new("rollout", "spec.rollout_percent").unit(Unit::Percent),
        Column::new("users", "spec.users"),
        Column::new("projects", "spec.projects"),
        Column::new("description", "status.description").wide(),
        Column::new("changed", "status.changed")
            .unit(Unit::Age)
            .wide(),
    ],
    actions: &[
        action("enable", "Switches it on.", "enabled", schema::empty),
        action(
            "disable",
            "Switches it off for everybody.",
            "disabled",
            schema::empty,
        ),
        action(
            "rollout",
            "Says for whom it holds while it is on.",
            "rolled-out",
            schema::of::<Rollout>,
        ),
        action(
            "reset",
            "Goes back to off, and to everybody once it is on.",
            "reset",
            schema::empty,
        ),
    ],
    streams: &[HISTORY],
    examples: &[
        "dvctl flag list",
        "dvctl flag rollout log-requests --percent 20",
        "dvctl flag enable log-requests",
        "dvctl flag history log-requests",
    ],
};

const fn action(
    verb: &'static str,
    doc: &'static str,
    event: &'static str,
    input: fn() -> schemars::Schema,
) -> Action {
    Action {
        verb,
        doc,
        danger: Danger::None,
        style: WorkStyle::Intent,
        input,
        claims: &[],
        deadline: 60,
        event,
        examples: &[],
    }
}

/// For whom a flag holds.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// The share of users that it holds for, 0 to 100 percent.
    #[schemars(range(max = 100))]
    pub percent: u8,
    /// Users that it always holds for; absent leaves them as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<Vec<String>>,
    /// Projects that it always holds for; absent leaves them as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projects: Option<Vec<String>>,
}

/// For whom a flag is on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FlagSpec {
    /// Whether it is on at all.
    #[serde(default)]
    pub enabled: bool,
    /// The share of users that it holds for, 0 to 100 percent.
    #[serde(default = "whole")]
    #[schemars(range(max = 100))]
    pub rollout_percent: u8,
    /// Users that it always holds for.
    #[serde(default)]
    pub users: Vec<String>,
    /// Projects that it always holds for.
    #[serde(default)]
    pub projects: Vec<String>,
}

fn whole() -> u8 {
    100
}

/// What a flag is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FlagStatus {
    /// What it switches.
    pub description: String,
    /// When it was last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed: Option<model::Timestamp>,
    /// Its last changes, oldest first, at most 50.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Changed>,
    /// Generation of its spec that was seen.
    pub observed_generation: u64,
    /// Conditions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// One known flag.
#[derive(Debug)]
pub struct FlagKnown {
    /// Its name.
    pub name: &'static str,
    /// What it switches.
    pub doc: &'static str,
}

/// Whether admitted requests are logged.
pub static LOG_REQUESTS: FlagKnown = FlagKnown {
    name: "log-requests",
    doc: "Logs also what only reads, of these users and projects, at the level `info`: for following what somebody does. Changes are always logged.",
};

/// All flags of this version.
pub static FLAGS: &[&FlagKnown] = &[&LOG_REQUESTS];

impl FlagKnown {
    /// Whether it is on for a user in a project. Whatever cannot be told is off.
    pub fn on(&self, cx: &Cx, user: &str, project: Option<&str>) -> bool {
        // Asked at every request: a flag that is off is told by its column, without reading the object.
        let key = cx.key::<Flag>(None, self.name);
        let row = cx.cache().row(KIND.name, &key);
        let off = row.is_none_or(|row| {
            let at = KIND.columns.iter().position(|c| c.name == "enabled");
            at.and_then(|at| row.columns.get(at))
                .is_none_or(|c| **c == *"false")
        });
        if off {
            return false;
        }
        cx.get_key::<Flag>(&key)
            .is_some_and(|flag| self.holds(&flag.spec, user, project))
    }

    fn holds(&self, spec: &FlagSpec, user: &str, project: Option<&str>) -> bool {
        spec.enabled
            && (spec.users.iter().any(|u| u == user)
                || project.is_some_and(|p| spec.projects.iter().any(|q| q == p))
                || in_rollout(self.name, user, spec.rollout_percent))
    }
}

/// The kind `flag`. Its status is written by its rule, like that of settings.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Api,
    seat: Seat::Api,
    normal: normal::<Flag>,
    admit,
    runs: &[
        (
            "enable",
            Run::Intent {
                edit: |draft, _| switch(draft, true),
                until: |_| Until::Done,
            },
        ),
        (
            "disable",
            Run::Intent {
                edit: |draft, _| switch(draft, false),
                until: |_| Until::Done,
            },
        ),
        (
            "rollout",
            Run::Intent {
                edit: |draft, params| {
                    draft.spec["rollout_percent"] = params["percent"].clone();
                    for list in ["users", "projects"] {
                        if params[list].is_array() {
                            draft.spec[list] = params[list].clone();
                        }
                    }
                    Ok(())
                },
                until: |_| Until::Done,
            },
        ),
        (
            "reset",
            Run::Intent {
                edit: |draft, _| {
                    draft.spec = json!({});
                    Ok(())
                },
                until: |_| Until::Done,
            },
        ),
    ],
    undos: &[],
    streams: &[("history", history::open)],
    finalizes: false,
    controllers: no_controllers,
};

fn switch(draft: &mut Draft<'_>, on: bool) -> Result<()> {
    draft.spec["enabled"] = json!(on);
    Ok(())
}

fn admit(draft: &mut Draft<'_>) -> Result<()> {
    let known = find(draft.meta.name.as_str(), FLAGS.iter().map(|k| (k.name, *k)))?;
    let mut status = draft.status::<Flag>();
    let before = draft
        .old_spec::<Flag>()?
        .and_then(|old| serde_json::to_value(old).ok());
    let now = draft.spec.clone();
    history::note(draft, &mut status.history, before, &now);
    status.changed = status.history.last().map(|last| last.time);
    known.doc.clone_into(&mut status.description);
    status.observed_generation = draft.next_generation();
    draft.set_status::<Flag>(&status)
}

/// Whether a subject is within the first `percent` of a flag's rollout: SHA-256(flag : subject) mod 100.
pub fn in_rollout(flag: &str, subject: &str, percent: u8) -> bool {
    let hash = Sha256::digest(format!("{flag}:{subject}").as_bytes());
    let bucket = hash
        .iter()
        .fold(0u32, |acc, byte| (acc * 256 + u32::from(*byte)) % 100);
    bucket < u32::from(percent)
}

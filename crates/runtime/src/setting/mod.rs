//! The kind `setting`: everything that can wait for the store. A setting is declared in code with type, default and
//! range; an object of its name overrides the default. A setting may be a flag with a rollout.

mod flag;

use crate::{Cx, Draft, Place, Subsystem, no_controllers, normal};
pub use flag::in_rollout;
use model::{
    Column, Condition, Error, Kind, Resource, Result, Scope, Verb, Violation, nearest, schema,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A value that an administrator may change while everything runs.
pub struct Setting;

impl Resource for Setting {
    const KIND: &'static Kind = &KIND;
    type Spec = SettingSpec;
    type Status = SettingStatus;
}

/// The declaration.
pub static KIND: Kind = Kind {
    name: "setting",
    plural: "settings",
    title: "Setting",
    scope: Scope::Cluster,
    doc: "A value that may be changed while everything runs. Each has a default that holds while no object of its name exists: delete the object to go back to it. A flag is a setting that can be rolled out to a share of users or projects.",
    verbs: Verb::ALL,
    spec: schema::of::<SettingSpec>,
    status: schema::of::<SettingStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("value", "spec.value"),
        Column::new("rollout", "spec.rollout_percent").wide(),
    ],
    actions: &[],
    streams: &[],
    examples: &[
        "dvctl setting list",
        "dvctl setting create log-level --value '\"debug\"'",
    ],
};

/// The value of a setting.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SettingSpec {
    /// The value; its type is that of the default.
    pub value: Value,
    /// For flags: the share of users or projects that it holds for, 0 to 100.
    #[serde(default = "whole")]
    #[schemars(range(max = 100))]
    pub rollout_percent: u8,
    /// For flags: users that it always holds for.
    #[serde(default)]
    pub users: Vec<String>,
    /// For flags: projects that it always holds for.
    #[serde(default)]
    pub projects: Vec<String>,
}

fn whole() -> u8 {
    100
}

/// Settings have no status beyond their conditions.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SettingStatus {
    /// Generation of its spec that was seen.
    pub observed_generation: u64,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

/// One known setting.
pub struct Known {
    /// Its name.
    pub name: &'static str,
    /// What it does, with unit and range.
    pub doc: &'static str,
    /// The value while none is set, as JSON.
    pub default: &'static str,
    /// Whether it is a flag.
    pub flag: bool,
}

/// All settings of this version.
pub static KNOWN: &[Known] = &[
    Known {
        name: "log-level",
        doc: "How much is logged: a filter such as `info` or `info,compute=debug`. Changed live.",
        default: "\"info\"",
        flag: false,
    },
    Known {
        name: "task-history",
        doc: "How many seconds an ended task stays, 60 to 2592000.",
        default: "3600",
        flag: false,
    },
    Known {
        name: "consoles-per-vm",
        doc: "How many consoles of one VM (serial line, screen) may be open at once, 1 to 100.",
        default: "10",
        flag: false,
    },
];

/// The kind `setting`.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Api,
    normal: normal::<Setting>,
    admit,
    runs: &[],
    undos: &[],
    streams: &[],
    finalizes: false,
    controllers: no_controllers,
};

fn admit(draft: &mut Draft<'_>) -> Result<()> {
    let name = draft.meta.name.to_string();
    let Some(known) = KNOWN.iter().find(|k| k.name == name) else {
        let names = KNOWN.iter().map(|k| k.name);
        let mut v = Violation::new("metadata.name", format!("there is no setting `{name}`"));
        v.hint = Some(match nearest(&name, names.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("settings: {}", names.collect::<Vec<_>>().join(", ")),
        });
        return Err(Error::invalid(vec![v]));
    };
    let default: Value = serde_json::from_str(known.default).unwrap_or(Value::Null);
    let value = &draft.spec["value"];
    let same = std::mem::discriminant(&default) == std::mem::discriminant(value);
    if !same {
        return Err(Error::field(
            "spec.value",
            format!("{value} is not of the type of the default {default}"),
        ));
    }
    if known.name == "task-history"
        && !value
            .as_u64()
            .is_some_and(|n| (60..=2_592_000).contains(&n))
    {
        return Err(Error::field(
            "spec.value",
            format!("{value} is not in 60 to 2592000"),
        ));
    }
    if known.name == "consoles-per-vm" && !value.as_u64().is_some_and(|n| (1..=100).contains(&n)) {
        return Err(Error::field(
            "spec.value",
            format!("{value} is not in 1 to 100"),
        ));
    }
    if known.name == "log-level"
        && let Err(e) = value
            .as_str()
            .unwrap_or_default()
            .parse::<tracing_subscriber::EnvFilter>()
    {
        return Err(
            Error::field("spec.value", format!("{value} is not a filter: {e}"))
                .hint("for example `info,compute=debug`"),
        );
    }
    Ok(())
}

/// The value of a setting now: what is set, else its default.
pub fn value(cx: &Cx, name: &str) -> Value {
    let default = || {
        KNOWN
            .iter()
            .find(|k| k.name == name)
            .and_then(|k| serde_json::from_str(k.default).ok())
            .unwrap_or(Value::Null)
    };
    cx.get::<Setting>(None, name)
        .map_or_else(default, |s| s.spec.value.clone())
}

/// Whether a flag holds for a subject. Anything unknown is off.
pub fn flag(cx: &Cx, name: &str, user: &str, project: &str) -> bool {
    let Some(setting) = cx.get::<Setting>(None, name) else {
        return false;
    };
    let spec = &setting.spec;
    spec.value == Value::Bool(true)
        && (spec.users.iter().any(|u| u == user)
            || spec.projects.iter().any(|p| p == project)
            || in_rollout(name, user, spec.rollout_percent))
}

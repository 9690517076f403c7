//! The kinds `setting` and `flag`: everything that can wait for the store. What there is is declared in code, with type,
//! default and range ([`KNOWN`], [`FLAGS`]); an api process makes an object for each when it starts. A change is in
//! force as soon as the watch cache has it, and stands in the object's history.

mod flag;
mod history;
mod known;
mod login;
mod project;

pub use flag::{FLAGS, Flag, FlagKnown, FlagSpec, FlagStatus, LOG_REQUESTS, in_rollout};
pub use history::Changed;
pub use known::{
    ACME_HTTP_ADDRESS, ACME_TLS_ADDRESS, AUDIT_ANCHOR_CA, AUDIT_ANCHOR_FILE, AUDIT_ANCHOR_SYSLOG,
    AUDIT_ANCHOR_TSA, CONSOLES_PER_VM, CORS_ORIGINS, KNOWN, Known, LOG_LEVEL, NODE_TIMEOUT,
    SLOW_READ, Sort, TASK_HISTORY, TLS_CERTIFICATE,
};
pub use login::{
    BREACHED_PASSWORDS, GEOIP_FILE, PANEL_HOST, PANEL_ORIGINS, SMTP_CA, SMTP_FROM, SMTP_SECRET,
    SMTP_SERVER, SMTP_USER, WEBAUTHN_ATTESTATION, WEBAUTHN_ROOTS,
};
pub use project::{
    PROJECT_DISK, PROJECT_MEMORY, PROJECT_NETWORKS, PROJECT_SNAPSHOTS, PROJECT_VCPUS, PROJECT_VMS,
};

pub(crate) static FLAG: &Subsystem = &flag::SUBSYSTEM;

use crate::{Cx, Draft, Op, Place, Run, Seat, Subsystem, Until, no_controllers, normal};
use model::{
    Action, Column, Condition, Danger, Error, Kind, Resource, Result, Scope, StreamKind, Unit,
    Verb, Violation, Way, WorkStyle, nearest, schema,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

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
    doc: "A value that may be changed while everything runs. DebVisor makes one object for each setting that it knows; an empty value stands for the default.",
    verbs: &[Verb::Read, Verb::Update],
    spec: schema::of::<SettingSpec>,
    status: schema::of::<SettingStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("value", "status.value"),
        Column::new("default", "status.default"),
        Column::new("unit", "status.unit"),
        Column::new("restart", "status.restart_needed"),
        Column::new("description", "status.description").wide(),
        Column::new("changed", "status.changed")
            .unit(Unit::Age)
            .wide(),
    ],
    actions: &[RESET],
    streams: &[HISTORY],
    examples: &[
        "dvctl setting list",
        "dvctl setting set log-level --value info,compute=debug",
        "dvctl setting history log-level",
        "dvctl setting reset log-level",
    ],
};

const RESET: Action = Action {
    verb: "reset",
    doc: "Goes back to the default.",
    danger: Danger::None,
    style: WorkStyle::Intent,
    input: schema::empty,
    claims: &[],
    deadline: 60,
    event: "reset",
    examples: &["dvctl setting reset log-level"],
};

const HISTORY: StreamKind = StreamKind {
    name: "history",
    doc: "Its last changes, oldest first: when, who, from what, to what.",
    way: Way::Read,
    ticketed: false,
    input: schema::empty,
};

/// What a setting is set to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SettingSpec {
    /// The value: a number or a text, as the setting's type says. Absent: the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}

/// What a setting is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SettingStatus {
    /// The value in force.
    pub value: Value,
    /// The value while none is set.
    pub default: Value,
    /// `number` or `text`.
    #[serde(rename = "type")]
    pub sort: String,
    /// Unit of a number.
    pub unit: String,
    /// Smallest number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<u64>,
    /// Largest number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
    /// What it does.
    pub description: String,
    /// What it holds for.
    pub scope: String,
    /// Whether a change is in force only after a restart of the daemon.
    pub restart_needed: bool,
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

/// The kind `setting`. Its status is written by its rule, in the transaction of the change itself: so no change is
/// without its history, and no controller is needed.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Api,
    seat: Seat::Api,
    normal: normal::<Setting>,
    admit,
    runs: &[(
        "reset",
        Run::Intent {
            edit: |draft, _| {
                draft.spec = json!({});
                // An action's edit is admitted like any other change of the spec.
                Ok(())
            },
            until: |_| Until::Done,
        },
    )],
    undos: &[],
    streams: &[("history", history::open)],
    finalizes: false,
    controllers: no_controllers,
};

fn admit(draft: &mut Draft<'_>) -> Result<()> {
    let known = find(draft.meta.name.as_str(), KNOWN.iter().map(|k| (k.name, *k)))?;
    let new = draft.spec::<Setting>()?;
    if let Some(value) = &new.value {
        known.check(value)?;
    }
    let mut status = draft.status::<Setting>();
    let value = known.value_of(&new);
    let before = draft.old_spec::<Setting>()?.map(|old| known.value_of(&old));
    history::note(draft, &mut status.history, before, &value);
    status.changed = status.history.last().map(|last| last.time);
    known.describe(&mut status);
    status.value = value;
    // Whoever reads it sees it at once: there is no controller to wait for.
    status.observed_generation = draft.next_generation();
    draft.set_status::<Setting>(&status)
}

/// One of what is known by name; the error names the nearest.
fn find<T>(name: &str, mut known: impl Iterator<Item = (&'static str, T)> + Clone) -> Result<T> {
    let names = known.clone().map(|(name, _)| name);
    match known.find(|(known, _)| *known == name) {
        Some((_, found)) => Ok(found),
        None => {
            let mut v = Violation::new("metadata.name", format!("there is no setting `{name}`"));
            v.hint = Some(match nearest(name, names.clone()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are: {}", names.collect::<Vec<_>>().join(", ")),
            });
            Err(Error::invalid(vec![v]))
        }
    }
}

/// Makes the objects of all settings and flags that are not there yet, and renews what is said about them. For the api,
/// at its start.
///
/// # Errors
/// When the store refuses.
pub async fn make(cx: &Cx) -> Result<()> {
    for known in KNOWN {
        make_one(cx, KIND.name, known.name, json!({})).await?;
        cx.set_status::<Setting>(&cx.key::<Setting>(None, known.name), |status| {
            known.describe(status);
        })
        .await?;
    }
    for known in FLAGS {
        let spec = json!({ "enabled": false });
        make_one(cx, flag::KIND.name, known.name, spec).await?;
        cx.set_status::<Flag>(&cx.key::<Flag>(None, known.name), |status| {
            known.doc.clone_into(&mut status.description);
        })
        .await?;
    }
    Ok(())
}

async fn make_one(cx: &Cx, kind: &str, name: &str, spec: Value) -> Result<()> {
    if cx
        .cache()
        .row(kind, &crate::object_key(kind, None, name))
        .is_some()
    {
        return Ok(());
    }
    let op = Op::Create {
        kind: kind.into(),
        project: None,
        body: json!({ "metadata": { "name": name }, "spec": spec }),
    };
    match cx.submit(op, "setting").await {
        Err(error) if error.what != model::What::Exists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;

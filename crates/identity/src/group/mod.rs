//! A group: users who get the same grants. Who is in it stands with each user, in one place.

use crate::access;
use model::{Column, Condition, Kind, Resource, Result, Scope, Unit, Verb, schema};
use runtime::{Draft, Place, Seat, Subsystem, no_controllers, normal};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Ties the kind to its types.
pub struct Group;

impl Resource for Group {
    const KIND: &'static Kind = &KIND;
    type Spec = GroupSpec;
    type Status = GroupStatus;
}

/// What people want of a group.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupSpec {
    /// What it is for, in people's words; at most 1000 characters.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    pub description: String,
    /// Names that directories and login providers have for it: whoever comes in with one of them is in it. `NAME` is
    /// believed of every realm, `REALM:NAME` of that one and of no other. A name with a `:` of its own is put into the
    /// `group_map` of its realm.
    #[serde(default)]
    #[schemars(length(max = 50), inner(length(min = 1, max = 256)))]
    pub directory: Vec<String>,
}

/// What is. A group has nothing to observe.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GroupStatus {
    /// Generation of its spec that was seen.
    pub observed_generation: u64,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

/// The declaration.
pub static KIND: Kind = Kind {
    name: "group",
    plural: "groups",
    title: "Group",
    scope: Scope::Cluster,
    doc: "Users who get the same grants. A user says which groups he is in (`dvctl user set anna --groups operators`).",
    verbs: Verb::ALL,
    spec: schema::of::<GroupSpec>,
    status: schema::of::<GroupStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("description", "spec.description"),
        Column::new("directory", "spec.directory").wide(),
        Column::new("age", "metadata.created").unit(Unit::Age),
    ],
    actions: &[],
    streams: &[],
    examples: &[
        "dvctl group list",
        "dvctl group create operators --description 'Those on call'",
    ],
};

/// A name that a realm says puts people into the group: only who may do that himself may say which.
fn admit(draft: &mut Draft<'_>) -> Result<()> {
    let spec = draft.spec::<Group>()?;
    let old = draft.old_spec::<Group>()?;
    let had = old.is_some_and(|old| spec.directory.iter().all(|n| old.directory.contains(n)));
    match had || spec.directory.is_empty() {
        true => Ok(()),
        false => access::may_join(draft.cx(), draft.actor(), &draft.meta.name),
    }
}

/// The subsystem.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Api,
    seat: Seat::Api,
    normal: normal::<Group>,
    admit,
    runs: &[],
    undos: &[],
    streams: &[],
    finalizes: false,
    controllers: no_controllers,
};

//! A demo kind `guest`: what `compute` will be to this crate.

use crate::{Held, Wish, allocate};
use model::{Kind, Resource, Result, Scope, Verb, schema};
use runtime::{Draft, Place, Seat, Subsystem, no_controllers, normal};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub struct Guest;

impl Resource for Guest {
    const KIND: &'static Kind = &KIND;
    type Spec = GuestSpec;
    type Status = GuestStatus;
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GuestSpec {
    pub nics: Vec<Nic>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Nic {
    #[schemars(extend("x-ref" = "network"))]
    pub network: String,
    #[schemars(extend("x-allocated" = true))]
    pub mac: String,
    #[schemars(extend("x-allocated" = true))]
    pub ipv4: Option<String>,
    #[schemars(extend("x-allocated" = true))]
    pub ipv6: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct GuestStatus {}

pub static KIND: Kind = Kind {
    name: "guest",
    plural: "guests",
    title: "Guest",
    scope: Scope::Project,
    doc: "A guest, for tests.",
    verbs: Verb::ALL,
    spec: schema::of::<GuestSpec>,
    status: schema::of::<GuestStatus>,
    columns: &[],
    actions: &[],
    streams: &[],
    examples: &[],
};

pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Agent,
    seat: Seat::Every,
    normal: normal::<Guest>,
    admit,
    runs: &[],
    undos: &[],
    streams: &[],
    finalizes: false,
    controllers: no_controllers,
};

fn admit(draft: &mut Draft<'_>) -> Result<()> {
    let mut spec = draft.spec::<Guest>()?;
    let held: Vec<Held> = draft
        .old_spec::<Guest>()?
        .unwrap_or_default()
        .nics
        .into_iter()
        .map(|nic| Held {
            network: nic.network,
            mac: nic.mac,
            ipv4: nic.ipv4,
            ipv6: nic.ipv6,
        })
        .collect();
    let mut wishes: Vec<Wish<'_>> = spec
        .nics
        .iter_mut()
        .enumerate()
        .map(|(i, nic)| Wish {
            field: format!("spec.nics[{i}]"),
            network: &nic.network,
            mac: &mut nic.mac,
            ipv4: &mut nic.ipv4,
            ipv6: &mut nic.ipv6,
        })
        .collect();
    allocate(draft, &held, &mut wishes)?;
    draft.set_spec::<Guest>(&spec)
}

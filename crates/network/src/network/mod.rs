//! Kind `network`: a bridge of its own on each node, with subnets, NAT or not, DHCP, router advertisements and names.
//!
//! ```text
//! pending -> ready <-> failed          (failed says why in its conditions, and is tried again)
//! any -> deletion requested -> bridge, rules and dnsmasq removed -> gone
//! ```
//! **Invariants.** A network never takes addresses the host already has a route for. A repaired bridge takes its taps back, so
//! guests lose no more than the moment it was gone. A restart of ours changes nothing on the wire.

mod controller;
mod rules;
mod types;

pub use rules::{Ipv4Layout, Ipv6Layout, Layout};
pub(crate) use rules::{layout, may_hold_ipv4, may_hold_ipv6, subnets};
pub use types::{Family, Mode, Network, NetworkSpec, NetworkStatus, State};

use model::{Column, Kind, Resource, Scope, Unit, Verb, schema};
use runtime::{Draft, Place, Seat, Subsystem, normal};

/// The declaration.
pub static KIND: Kind = Kind {
    name: "network",
    plural: "networks",
    title: "Network",
    scope: Scope::Project,
    doc: "A network of guests: a bridge of its own with an IPv4 and an IPv6 subnet. DebVisor hands out addresses (DHCP, router \
          advertisements), answers names (a guest finds another by its name), lets guests reach the world by NAT or routing, or keeps them apart from it, \
          and makes sure that each guest speaks only under its own addresses.",
    verbs: Verb::ALL,
    spec: schema::of::<NetworkSpec>,
    status: schema::of::<NetworkStatus>,
    columns: &[
        Column::new("mode", "spec.mode"),
        Column::new("subnet", "spec.subnet"),
        Column::new("state", "status.state"),
        Column::new("leases", "status.leases"),
        Column::new("ipv6_subnet", "spec.ipv6_subnet").wide(),
        Column::new("bridge", "status.bridge").wide(),
        Column::new("age", "metadata.created").unit(Unit::Age),
    ],
    actions: &[],
    streams: &[],
    examples: &[
        "dvctl network create lab",
        "dvctl network create lab --mode isolated --subnet 10.20.0.0/24",
        "dvctl network show default -o yaml",
    ],
};

/// This subsystem.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Agent,
    seat: Seat::Every,
    normal: normal::<Network>,
    admit,
    runs: &[],
    undos: &[],
    streams: &[],
    finalizes: true,
    controllers: controller::controllers,
};

impl Resource for Network {
    const KIND: &'static Kind = &KIND;
    type Spec = NetworkSpec;
    type Status = NetworkStatus;
}

/// Chooses what was left open, and refuses what cannot work.
fn admit(draft: &mut Draft<'_>) -> model::Result<()> {
    let mut spec = draft.spec::<Network>()?;
    if let Some(old) = draft.old_spec::<Network>()? {
        let fixed = |of: &NetworkSpec| {
            let of = of.clone();
            (of.family, of.subnet, of.gateway, of.ipv6_subnet)
        };
        if fixed(&old) != fixed(&spec) {
            // These are refused as unchangeable; what would follow from them is of no interest.
            return Ok(());
        }
    }
    let others: Vec<rules::Other> = draft
        .cx()
        .list::<Network>(None)
        .iter()
        .filter(|other| other.metadata.uid != draft.meta.uid)
        .map(|other| rules::Other {
            // A name of another project is not for everybody's eyes.
            name: (other.metadata.project == draft.meta.project)
                .then(|| other.metadata.name.to_string()),
            layout: layout(&other.spec).unwrap_or_default(),
        })
        .collect();
    rules::fill(&mut spec, &others, draft.random_bytes::<32>());
    let wrong = rules::check(&spec, &others);
    if !wrong.is_empty() {
        return Err(model::Error::invalid(wrong));
    }
    draft.set_spec::<Network>(&spec)
}

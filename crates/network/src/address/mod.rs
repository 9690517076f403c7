//! Kind `address`: which NIC speaks under which addresses on which network.
//!
//! Kept by DebVisor itself: made when a NIC is plugged in, gone with it. The guard, DHCP and DNS of a network are compiled from these.
//!
//! **Invariant:** the values are allocated by the owner's transaction ([`crate::allocate()`]), so an address object never claims anything.

mod types;

pub use types::{Address, AddressSpec, AddressStatus};

use model::{Column, Kind, Resource, Scope, Unit, Verb, schema};
use runtime::{Place, Seat, Subsystem, no_controllers, normal, nothing_to_admit};

/// The declaration.
pub static KIND: Kind = Kind {
    name: "address",
    plural: "addresses",
    title: "Address",
    scope: Scope::Project,
    doc: "The addresses of one network card of a guest that is plugged into a network. DebVisor keeps these objects itself; \
          to choose an address, write it into the guest's network card.",
    verbs: Verb::READ,
    spec: schema::of::<AddressSpec>,
    status: schema::of::<AddressStatus>,
    columns: &[
        Column::new("ipv4", "spec.ipv4"),
        Column::new("ipv6", "spec.ipv6"),
        Column::new("mac", "spec.mac"),
        Column::new("network", "spec.network"),
        Column::new("guest", "spec.guest"),
        Column::new("nic", "spec.nic").wide(),
        Column::new("tap", "spec.tap").wide(),
        Column::new("node", "spec.node").wide(),
        Column::new("age", "metadata.created").unit(Unit::Age),
    ],
    actions: &[],
    streams: &[],
    examples: &["dvctl address list", "dvctl address list -o wide"],
};

/// This subsystem.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Agent,
    seat: Seat::Field("spec.node"),
    normal: normal::<Address>,
    admit: nothing_to_admit,
    runs: &[],
    undos: &[],
    streams: &[],
    finalizes: false,
    controllers: no_controllers,
};

impl Resource for Address {
    const KIND: &'static Kind = &KIND;
    type Spec = AddressSpec;
    type Status = AddressStatus;
}

//! Kind `vm`: a virtual machine.
//!
//! The spec says what people want, in words richer than on and off; [`rules::plan`] decides in pure code what to do next
//! from what is wanted and what is seen; [`controller`](self) does it through [`hypervisor::Hypervisor`]. The states and
//! their diagram are in `rules/phase.rs`.
//!
//! **Invariants.** A guest that shuts itself down, or crashes, is an observation plus a policy: nothing here edits the
//! spec because of it. A late request for one boot of a guest (`incarnation`) never hits the next. A running guest is
//! never stopped because we restart, lose the store, or cannot reach it.

mod actions;
mod controller;
mod disks;
pub mod hypervisor;
mod nics;
pub mod qemu;
pub mod rules;
pub mod seed;
#[cfg(any(test, feature = "stand-in"))]
pub mod stand_in;
mod streams;
#[cfg(test)]
mod tests;
mod types;

pub use types::*;

use model::{Column, Kind, Resource, Scope, Unit, Verb, schema};
use runtime::{Place, Seat, Subsystem, normal};
use std::sync::Arc;

/// A virtual machine.
pub struct Vm;

impl Resource for Vm {
    const KIND: &'static Kind = &KIND;
    type Spec = VmSpec;
    type Status = VmStatus;
}

/// The declaration.
pub static KIND: Kind = Kind {
    name: "vm",
    plural: "vms",
    title: "Virtual machine",
    scope: Scope::Project,
    doc: "A virtual machine: CPUs, memory, disks and network interfaces, run by QEMU. It keeps running when DebVisor is \
          restarted or upgraded, and comes back after a reboot of the host while its power is on.",
    verbs: Verb::ALL,
    spec: schema::of::<VmSpec>,
    status: schema::of::<VmStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("state", "status.state"),
        Column::new("vcpus", "spec.vcpus"),
        Column::new("memory", "spec.memory").unit(Unit::Bytes),
        Column::new("addresses", "status.addresses"),
        Column::new("node", "status.node"),
        Column::new("age", "metadata.created").unit(Unit::Age),
        Column::new("power", "spec.power").wide(),
        Column::new("started", "status.started")
            .unit(Unit::Age)
            .wide(),
        Column::new("machine", "spec.machine").wide(),
        Column::new("firmware", "spec.firmware").wide(),
        Column::new("number", "spec.number").wide(),
        Column::new("hostname", "status.hostname").wide(),
        Column::new("os", "status.os").wide(),
    ],
    actions: actions::DECLARED,
    streams: streams::DECLARED,
    examples: &[
        "dvctl vm create web1 --image debian-12 --vcpus 2 --memory 1GiB --disk 8GiB --network default --ssh-key ~/.ssh/id_ed25519.pub --start",
        "dvctl vm list -o wide",
        "dvctl vm set web1 --memory 2GiB",
        "dvctl vm show web1 -o yaml > web1.yaml",
        "dvctl vm delete web1",
    ],
};

/// This subsystem.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Agent,
    seat: Seat::Twin {
        kind: "assignment",
        field: "spec.node",
    },
    normal: normal::<Vm>,
    admit: rules::admit,
    runs: actions::RUNS,
    undos: actions::UNDOS,
    streams: streams::OPEN,
    finalizes: true,
    controllers: |_| vec![Arc::new(controller::Driver::default())],
};

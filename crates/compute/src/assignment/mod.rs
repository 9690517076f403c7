//! Kind `assignment`: on which node a VM is. Written by the placement controller, acted on by that node's agent.
//!
//! ```text
//! VM appears -> assignment (node, epoch 1)      no node fits -> assignment without node, condition Placed=False
//! VM goes    -> assignment goes
//! ```
//! The epoch grows with each new node, so that a node that lost a VM can be told from the one that has it.
//!
//! **Invariant:** an assignment names a node only while that node may run the VM; two nodes never hold the same epoch.

mod controller;
mod types;

pub use types::{Assignment, AssignmentSpec, AssignmentStatus};

use model::{Column, Kind, Resource, Scope, Unit, Verb, schema};
use runtime::{Place, Seat, Subsystem, normal, nothing_to_admit};
use std::sync::Arc;

/// The declaration.
pub static KIND: Kind = Kind {
    name: "assignment",
    plural: "assignments",
    title: "Assignment",
    scope: Scope::Project,
    doc: "On which node a virtual machine is, and in which epoch. DebVisor keeps these objects itself.",
    verbs: Verb::READ,
    spec: schema::of::<AssignmentSpec>,
    status: schema::of::<AssignmentStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("node", "spec.node"),
        Column::new("epoch", "spec.epoch"),
        Column::new("age", "metadata.created").unit(Unit::Age),
    ],
    actions: &[],
    streams: &[],
    examples: &["dvctl assignment list"],
};

/// This subsystem.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Api,
    seat: Seat::Api,
    normal: normal::<Assignment>,
    admit: nothing_to_admit,
    runs: &[],
    undos: &[],
    streams: &[],
    finalizes: false,
    controllers: |_| vec![Arc::new(controller::Placement)],
};

impl Resource for Assignment {
    const KIND: &'static Kind = &KIND;
    type Spec = AssignmentSpec;
    type Status = AssignmentStatus;
}

//! A project: the room that people's objects lie in.
//!
//! **Invariants.** A project name never changes. A project that holds objects cannot be deleted, and one that is not
//! active takes no change (both are kept by the runtime, which sees every write). One project, `default`, is made when
//! a store is used for the first time; after that nobody makes it again.

#[cfg(test)]
pub(crate) mod tests;
mod types;

pub use types::{ProjectSpec, ProjectStatus};

use model::{Column, Error, Kind, Resource, Result, Scope, Verb, schema};
use runtime::{Cx, Op, Place, Seat, Subsystem, no_controllers, normal, nothing_to_admit};
use serde_json::json;

/// The project that is there from the start.
pub const DEFAULT: &str = "default";

/// Ties the kind to its types.
pub struct Project;

impl Resource for Project {
    const KIND: &'static Kind = &KIND;
    type Spec = ProjectSpec;
    type Status = ProjectStatus;
}

/// The declaration.
pub static KIND: Kind = Kind {
    name: "project",
    plural: "projects",
    title: "Project",
    scope: Scope::Cluster,
    doc: "A room for objects. Names are unique inside a project, and what lies in one project is not seen from another. A project that holds objects cannot be deleted.",
    verbs: Verb::ALL,
    spec: schema::of::<ProjectSpec>,
    status: schema::of::<ProjectStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("active", "spec.active"),
        Column::new("description", "spec.description"),
        Column::new("age", "metadata.created").unit(model::Unit::Age),
    ],
    actions: &[],
    streams: &[],
    examples: &[
        "dvctl project list",
        "dvctl project create shop --description 'The web shop'",
        "dvctl project set shop --active=false",
    ],
};

/// The subsystem.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Api,
    seat: Seat::Api,
    normal: normal::<Project>,
    admit: nothing_to_admit,
    runs: &[],
    undos: &[],
    streams: &[],
    finalizes: false,
    controllers: no_controllers,
};

/// Makes the default project when there is no project at all. Says whether it did. The `api` role calls it at start.
pub async fn make_default(cx: &Cx) -> Result<bool> {
    if !cx.list::<Project>(None).is_empty() {
        return Ok(false);
    }
    let body = json!({
        "metadata": { "name": DEFAULT },
        "spec": { "description": "Made at first start" },
    });
    let op = Op::Create {
        kind: KIND.name.into(),
        project: None,
        body,
    };
    match cx.submit(op, "first start").await {
        Ok(_) => Ok(true),
        Err(Error {
            what: model::What::Exists,
            ..
        }) => Ok(false),
        Err(error) => Err(error),
    }
}

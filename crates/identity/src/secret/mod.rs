//! A secret: a value that is sealed here, or kept by a key server, and shown to nobody who does not ask for just that.
//!
//! ```text
//! current ──rotate──► rotating ──all users verified──► current (next version)
//!                        └──a user refuses, or does not take it──► failed (version before it, still valid)
//! ```
//!
//! **Invariants.** No value is in an answer, a task, a log, an event or an audit row; only the stream `reveal` gives one out,
//! to who opened it, after the audit row is on disk. The valid version is changed by a rotation or a rollback in one
//! write, after every user has proved that the new value works there; until then the old one is valid.

mod controller;
mod read;
mod rotate;
mod rules;
mod show;
mod types;

pub use read::read;
pub(crate) use read::stored_for;
pub(crate) use rules::is_path;
pub use types::{
    Rotation, SecretSpec, SecretState, SecretStatus, SecretType, Version, VersionStatus,
};

use model::{
    Action, Column, Danger, Kind, Resource, Scope, StreamKind, Unit, Verb, Way, WorkStyle, schema,
};
use runtime::{Place, Run, Seat, Subsystem, normal};
use std::sync::Arc;

/// Ties the kind to its types.
pub struct Secret;

impl Resource for Secret {
    const KIND: &'static Kind = &KIND;
    type Spec = SecretSpec;
    type Status = SecretStatus;
}

const fn action(
    verb: &'static str,
    doc: &'static str,
    danger: Danger,
    event: &'static str,
    claims: &'static [&'static str],
    examples: &'static [&'static str],
) -> Action {
    Action {
        verb,
        doc,
        danger,
        style: WorkStyle::Procedure,
        input: schema::empty,
        claims,
        deadline: 3600,
        event,
        examples,
    }
}

/// The declaration.
pub static KIND: Kind = Kind {
    name: "secret",
    plural: "secrets",
    title: "Secret",
    scope: Scope::Project,
    doc: "A password, key or token: sealed here or kept by a key server, in versions, rotated together with who uses it. Its value is in no answer; `reveal` shows it, which is a privilege of its own and stands in the audit trail.",
    verbs: Verb::ALL,
    spec: schema::of::<SecretSpec>,
    status: schema::of::<SecretStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("type", "spec.type"),
        Column::new("state", "status.state"),
        Column::new("version", "status.version"),
        Column::new("age", "status.since").unit(Unit::Age),
        Column::new("due", "status.due"),
        Column::new("users", "status.used_by").unit(Unit::Count),
        Column::new("backend", "spec.backend").wide(),
    ],
    actions: &[
        action(
            "rotate",
            "Makes a new value, gives it to every user in order, has each prove that it works, and then makes it the valid one. When one does not take it, all go back to the old value, which has been valid all the time.",
            Danger::Disrupts,
            "rotated",
            &["value"],
            &["dvctl secret rotate db"],
        ),
        Action {
            input: schema::of::<rotate::RollbackInput>,
            ..action(
                "rollback",
                "Makes an older version the valid one again, in the way of a rotation.",
                Danger::Disrupts,
                "rolled-back",
                &["value"],
                &["dvctl secret rollback db"],
            )
        },
        action(
            "check",
            "Has every user prove that the valid version works there.",
            Danger::None,
            "checked",
            &["value"],
            &["dvctl secret check db"],
        ),
    ],
    streams: &[
        StreamKind {
            name: "reveal",
            doc: "Shows the value, to you alone. It stands in the audit trail that you have asked.",
            way: Way::Read,
            ticketed: true,
            input: schema::of::<show::RevealInput>,
        },
        StreamKind {
            name: "versions",
            doc: "Lists the versions that are kept, newest first, without their values.",
            way: Way::Read,
            ticketed: false,
            input: schema::empty,
        },
        StreamKind {
            name: "users",
            doc: "Lists who names this secret, as far as its reader may read them too.",
            way: Way::Read,
            ticketed: false,
            input: schema::empty,
        },
    ],
    examples: &[
        "dvctl secret create db --type database",
        "dvctl secret reveal db",
        "dvctl secret rotate db --yes",
        "dvctl secret versions db",
    ],
};

/// The subsystem.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Api,
    seat: Seat::Api,
    normal: normal::<Secret>,
    admit: rules::admit,
    runs: &[
        (
            "rotate",
            Run::Procedure(|proc| Box::pin(rotate::rotate(proc))),
        ),
        (
            "rollback",
            Run::Procedure(|proc| Box::pin(rotate::rollback(proc))),
        ),
        (
            "check",
            Run::Procedure(|proc| Box::pin(rotate::check(proc))),
        ),
    ],
    undos: &[&rotate::FORGET, &rotate::GO_BACK],
    streams: &[
        ("reveal", show::reveal),
        ("versions", show::versions),
        ("users", show::users),
    ],
    finalizes: false,
    controllers: |_| vec![Arc::new(controller::SecretController)],
};

#[cfg(test)]
mod tests;

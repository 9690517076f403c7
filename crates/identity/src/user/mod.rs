//! A user: a person who may log in.
//!
//! **Invariants.** A user holds no password: it is one of his factors. What is personal in him lies sealed in the
//! store. No two users have names that look alike. The last administrator can be neither disabled nor deleted. Nobody
//! is a user from the start: the first one is made with the code that the first start prints.

mod controller;
pub mod names;
mod reset;
mod rules;
mod types;

pub(crate) use reset::{Reset, make as make_reset, spend as spend_reset};
pub(crate) use rules::{subject_key, unique_key};
pub use types::{Theme, UserSpec, UserStatus};

use model::{
    Action, Column, Danger, Kind, Resource, Scope, StreamKind, Unit, Verb, Way, WorkStyle, schema,
};
use runtime::{Place, Run, Seat, Subsystem, normal};
use std::sync::Arc;

/// The realm of users whose passwords we keep.
pub const LOCAL: &str = "local";

/// Ties the kind to its types.
pub struct User;

impl Resource for User {
    const KIND: &'static Kind = &KIND;
    type Spec = UserSpec;
    type Status = UserStatus;
}

const fn action(
    verb: &'static str,
    doc: &'static str,
    danger: Danger,
    event: &'static str,
) -> Action {
    Action {
        verb,
        doc,
        danger,
        style: WorkStyle::Intent,
        input: schema::empty,
        claims: &[],
        deadline: 60,
        event,
        examples: &[],
    }
}

/// The declaration.
pub static KIND: Kind = Kind {
    name: "user",
    plural: "users",
    title: "User",
    scope: Scope::Cluster,
    doc: "A person who may log in. What he may do is said by grants to him and to his groups. He is made without a password: `reset` gives a code with which he sets one himself.",
    verbs: Verb::ALL,
    spec: schema::of::<UserSpec>,
    status: schema::of::<UserStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("active", "spec.active"),
        Column::new("full-name", "spec.full_name"),
        Column::new("groups", "spec.groups"),
        Column::new("factors", "status.factors"),
        Column::new("last-login", "status.last_login").unit(Unit::Age),
        Column::new("realm", "spec.realm").wide(),
        Column::new("email", "spec.email").wide(),
    ],
    actions: &[
        action(
            "disable",
            "Lets him in no more: his sessions, API keys and open streams end within seconds.",
            Danger::Disrupts,
            "disabled",
        ),
        action("enable", "Lets him in again.", Danger::None, "enabled"),
        action(
            "unlock",
            "Forgets wrong passwords: he may try again at once.",
            Danger::None,
            "unlocked",
        ),
    ],
    streams: &[StreamKind {
        name: "reset",
        doc: "Makes a code that is good once and for an hour, with which he sets a new password: `dvctl login URL --code CODE`. Ends all his sessions. An older code is good no more.",
        way: Way::Read,
        ticketed: true,
        input: schema::empty,
    }],
    examples: &[
        "dvctl user list",
        "dvctl user create anna --full-name 'Anna Huber' --email anna@example.org --groups operators",
        "dvctl user reset anna",
        "dvctl user disable anna --yes",
    ],
};

/// The subsystem.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Api,
    seat: Seat::Api,
    normal: normal::<User>,
    admit: rules::admit,
    runs: &[
        (
            "disable",
            Run::Intent {
                edit: |draft, _| rules::switch(draft, false),
                until: rules::at_once,
            },
        ),
        (
            "enable",
            Run::Intent {
                edit: |draft, _| rules::switch(draft, true),
                until: rules::at_once,
            },
        ),
        (
            "unlock",
            Run::Intent {
                edit: |draft, _| rules::unlock(draft),
                until: rules::at_once,
            },
        ),
    ],
    undos: &[],
    streams: &[("reset", reset::open)],
    finalizes: false,
    controllers: |_| vec![Arc::new(controller::UserController)],
};

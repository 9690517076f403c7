//! A role: a set of privileges with a name. It does nothing until a [grant](crate::grant) ties it to somebody.
//!
//! **Invariants.** The built-in roles are made at start, follow this version's table and cannot be changed or deleted by
//! people. Nobody can write more into a role than he may do himself, so that a role is never a way up.

mod builtin;
#[cfg(test)]
mod tests;
mod types;

pub use builtin::{BUILT_IN, BuiltIn, SUPERADMIN, make_built_in};
pub use types::{Mfa, RoleSpec, RoleStatus};

use crate::access::{self, Pattern};
use model::{Column, Error, Kind, Resource, Result, Scope, Verb, Violation, schema};
use runtime::{ActorKind, Draft, Place, Seat, Subsystem, no_controllers, normal};
use std::collections::HashSet;

/// Ties the kind to its types.
pub struct Role;

impl Resource for Role {
    const KIND: &'static Kind = &KIND;
    type Spec = RoleSpec;
    type Status = RoleStatus;
}

/// The declaration.
pub static KIND: Kind = Kind {
    name: "role",
    plural: "roles",
    title: "Role",
    scope: Scope::Cluster,
    doc: "A named set of privileges. A grant gives it to a user, a group or a key, on everything or on a part. Built-in roles cannot be changed; copy one to make your own.",
    verbs: Verb::ALL,
    spec: schema::of::<RoleSpec>,
    status: schema::of::<RoleStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("allow", "spec.allow").wide(),
        Column::new("deny", "spec.deny").wide(),
        Column::new("parents", "spec.parents").wide(),
        Column::new("mfa", "spec.mfa"),
        Column::new("description", "spec.description"),
    ],
    actions: &[],
    streams: &[],
    examples: &[
        "dvctl role list",
        "dvctl role show operator -o yaml",
        "dvctl role create web-operator --allow vm.read --allow vm.start --allow vm.console --description 'May start and use web servers'",
    ],
};

/// The subsystem.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Api,
    seat: Seat::Api,
    normal: normal::<Role>,
    admit,
    runs: &[],
    undos: &[],
    streams: &[],
    finalizes: false,
    controllers: no_controllers,
};

/// Longest chain of parents.
const DEPTH: usize = 10;

fn admit(draft: &mut Draft<'_>) -> Result<()> {
    let name = draft.meta.name.to_string();
    let built_in = BUILT_IN.iter().any(|role| role.name == name);
    // Only the start of the process writes them.
    if built_in && draft.actor().kind != ActorKind::System {
        return Err(
            Error::refused(format!("role `{name}` is built in and cannot be changed"))
                .hint("make one of your own with it as parent: dvctl role create NAME --parents"),
        );
    }
    let spec = draft.spec::<Role>()?;
    if built_in {
        return Ok(());
    }
    let mut wrong = Vec::new();
    for (field, list) in [("allow", &spec.allow), ("deny", &spec.deny)] {
        for (at, text) in list.iter().enumerate() {
            if let Err(mut violation) = Pattern::known(draft.cx(), text) {
                violation.field = format!("spec.{field}[{at}]");
                wrong.push(violation);
            }
        }
    }
    if let Some(circle) = circle(draft, &name, &spec.parents) {
        wrong.push(Violation::new("spec.parents", circle));
    }
    if !wrong.is_empty() {
        return Err(Error::invalid(wrong));
    }
    let old = draft.old_spec::<Role>()?;
    access::may_write_role(draft.cx(), draft.actor(), &name, old.as_ref(), &spec)
}

/// What is wrong with the parents, when one of them leads back here or too far up.
fn circle(draft: &Draft<'_>, name: &str, parents: &[String]) -> Option<String> {
    let mut level: HashSet<String> = parents.iter().cloned().collect();
    // Each is looked at once: a few that name one another many times are soon more than memory holds.
    let mut seen = HashSet::new();
    for _ in 0..DEPTH {
        if level.iter().any(|parent| parent == name) {
            return Some(format!("lead back to `{name}`"));
        }
        seen.extend(level.iter().cloned());
        level = level
            .iter()
            .filter_map(|parent| draft.cx().get::<Role>(None, parent))
            .flat_map(|parent| parent.spec.parents.clone())
            .filter(|parent| !seen.contains(parent))
            .collect();
        if level.is_empty() {
            return None;
        }
    }
    Some(format!("have more than {DEPTH} parents in a row"))
}

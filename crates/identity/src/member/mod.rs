//! A member: somebody who has a role inside a project, let in by whoever runs that project.
//!
//! **Invariants.** It reaches its own project and nothing else: it names no scope, it lies in one. It only gives, so that
//! nobody is shut out of a project from inside it. Nobody lets in somebody who may more there than himself, nor changes
//! or removes such a one.

#[cfg(test)]
mod tests;
mod types;

pub use types::{MemberSpec, MemberStatus};

use crate::access::{self, Reach, Subject};
use model::{Column, Error, Kind, Resource, Result, Scope, Selector, Verb, Violation, schema};
use runtime::{Draft, Place, Seat, Subsystem, no_controllers, normal};

/// Ties the kind to its types.
pub struct Member;

impl Resource for Member {
    const KIND: &'static Kind = &KIND;
    type Spec = MemberSpec;
    type Status = MemberStatus;
}

/// The declaration.
pub static KIND: Kind = Kind {
    name: "member",
    plural: "members",
    title: "Member",
    scope: Scope::Project,
    doc: "Lets a user or a group into a project with a role: on all of the project or on one object of it. Whoever runs a project makes its members himself, and gives at most what he has there. It reaches nothing outside its project and denies nobody anything.",
    verbs: Verb::ALL,
    spec: schema::of::<MemberSpec>,
    status: schema::of::<MemberStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("user", "spec.user"),
        Column::new("group", "spec.group"),
        Column::new("role", "spec.role"),
        Column::new("object", "spec.object"),
        Column::new("expires", "spec.expires"),
    ],
    actions: &[],
    streams: &[],
    examples: &[
        "dvctl member list -p shop",
        "dvctl member create alice -p shop --user alice --role developer",
        "dvctl member create night -p shop --group night-shift --role operator --object vm/web1",
    ],
};

/// The subsystem.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Api,
    seat: Seat::Api,
    normal: normal::<Member>,
    admit,
    runs: &[],
    undos: &[],
    streams: &[],
    finalizes: false,
    controllers: no_controllers,
};

fn admit(draft: &mut Draft<'_>) -> Result<()> {
    let spec = draft.spec::<Member>()?;
    let project = draft.project().unwrap_or_default().to_owned();
    let grant = spec.grant(&project);
    let mut wrong = Vec::new();
    if Subject::of(&grant).is_none() {
        wrong.push(
            Violation::new("spec.user", "of user and group exactly one must be given")
                .hint("--user NAME or --group NAME"),
        );
    }
    if let Err(error) = Selector::parse(&spec.selector) {
        wrong.push(Violation::new("spec.selector", error.to_string()));
    }
    for (at, when) in spec.conditions.iter().enumerate() {
        wrong.extend(when.check(&format!("spec.conditions[{at}]")));
    }
    if let Some(object) = &spec.object {
        wrong.extend(wrong_object(draft, object, &grant.scope));
    }
    if !wrong.is_empty() {
        return Err(Error::invalid(wrong));
    }
    let (cx, actor) = (draft.cx(), draft.actor());
    let name = format!("member {project}/{}", draft.meta.name);
    access::may_grant(cx, actor, &name, &grant, true)?;
    match draft.old_spec::<Member>()? {
        Some(old) => access::may_grant(cx, actor, &name, &old.grant(&project), true),
        None => Ok(()),
    }
}

/// What is wrong with an object that is named as `KIND/NAME`.
fn wrong_object(draft: &Draft<'_>, object: &str, scope: &str) -> Option<Violation> {
    let good = object.split('/').count() == 2;
    let checked = Reach::parse(scope).and_then(|reach| reach.check(draft.cx()));
    if good && checked.is_ok() {
        return None;
    }
    Some(
        Violation::new(
            "spec.object",
            format!("`{object}` is no object of a project"),
        )
        .hint("KIND/NAME, for example vm/web1"),
    )
}

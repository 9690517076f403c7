//! A grant: who has which role, on what, until when and under which conditions.
//!
//! **Invariants.** It names exactly one subject. Nobody grants what he does not hold himself at that place. The last grant
//! of `superadmin` on everything cannot go.

mod types;

pub use types::{Day, GrantSpec, GrantStatus, When};

use crate::access::{self, Reach, Subject};
use crate::role::SUPERADMIN;
use model::{Column, Error, Kind, Resource, Result, Scope, Selector, Verb, Violation, schema};
use runtime::{Draft, Place, Seat, Subsystem, no_controllers, normal};

/// Ties the kind to its types.
pub struct Grant;

impl Resource for Grant {
    const KIND: &'static Kind = &KIND;
    type Spec = GrantSpec;
    type Status = GrantStatus;
}

/// The declaration.
pub static KIND: Kind = Kind {
    name: "grant",
    plural: "grants",
    title: "Grant",
    scope: Scope::Cluster,
    doc: "Gives a role to a user, a group or an API key: on everything, on a project, or on one object; for good or until a day; at any time or under conditions. Of several grants that reach an object, the one that lies deepest counts; of equally deep ones, a denial beats a permission.",
    verbs: Verb::ALL,
    spec: schema::of::<GrantSpec>,
    status: schema::of::<GrantStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("user", "spec.user"),
        Column::new("group", "spec.group"),
        Column::new("key", "spec.key").wide(),
        Column::new("role", "spec.role"),
        Column::new("scope", "spec.scope"),
        Column::new("expires", "spec.expires"),
    ],
    actions: &[],
    streams: &[],
    examples: &[
        "dvctl grant list",
        "dvctl grant create alice-runs-web1 --user alice --role operator --scope vm/shop/web1",
        "dvctl grant create devs-shop --group devs --role developer --scope project/shop",
        "dvctl access check alice vm.start vm/shop/web1",
    ],
};

/// The subsystem.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Api,
    seat: Seat::Api,
    normal: normal::<Grant>,
    admit,
    runs: &[],
    undos: &[],
    streams: &[],
    finalizes: false,
    controllers: no_controllers,
};

fn admit(draft: &mut Draft<'_>) -> Result<()> {
    let spec = draft.spec::<Grant>()?;
    let mut wrong = Vec::new();
    if Subject::of(&spec).is_none() {
        wrong.push(
            Violation::new(
                "spec.user",
                "of user, group and key exactly one must be given",
            )
            .hint("--user NAME, --group NAME or --key NAME"),
        );
    }
    if let Err(error) = Selector::parse(&spec.selector) {
        wrong.push(Violation::new("spec.selector", error.to_string()));
    }
    for (at, when) in spec.conditions.iter().enumerate() {
        wrong.extend(when.check(&format!("spec.conditions[{at}]")));
    }
    if !wrong.is_empty() {
        return Err(Error::invalid(wrong));
    }
    Reach::parse(&spec.scope)?.check(draft.cx())?;
    let (cx, actor, name) = (draft.cx(), draft.actor(), draft.meta.name.to_string());
    access::may_grant(cx, actor, &name, &spec, false)?;
    access::keeps_a_superadmin(cx, &spec)?;
    if let Some(old) = draft.old_spec::<Grant>()? {
        access::may_grant(cx, actor, &name, &old, false)?;
        if is_superadmin(&old) && !is_superadmin(&spec) {
            access::another_superadmin(draft.cx(), |grant, _| grant != name)?;
        }
    }
    Ok(())
}

/// Whether it gives everything, everywhere, for good.
pub fn is_superadmin(spec: &GrantSpec) -> bool {
    spec.role == SUPERADMIN
        && spec.scope == "/"
        && spec.selector.is_empty()
        && spec.propagate
        && spec.expires.is_none()
        && spec.conditions.is_empty()
}

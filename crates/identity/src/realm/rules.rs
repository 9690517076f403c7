//! Decides, without asking anybody outside, whether a realm may be declared so, and by whom.

use super::{LOCAL, Realm, RealmSpec, RealmType, ldap, mapping, oidc};
use crate::access;
use crate::user::User;
use model::{Error, Result, Violation};
use runtime::Draft;

/// The space in which the first realm of a login page is unique.
const DEFAULT: &str = "default-realm";
const YES: &str = "yes";

/// At creation and every change.
pub(super) fn admit(draft: &mut Draft<'_>) -> Result<()> {
    let spec = draft.spec::<Realm>()?;
    let name = draft.meta.name.to_string();
    let wrong = check(&name, &spec);
    if !wrong.is_empty() {
        return Err(Error::invalid(wrong));
    }
    first(draft, &spec)?;
    no_way_up(draft, &name, &spec)
}

fn check(name: &str, spec: &RealmSpec) -> Vec<Violation> {
    let mut wrong = Vec::new();
    let local = spec.sort == RealmType::Local;
    if local != (name == LOCAL) {
        wrong.push(Violation::new(
            "spec.type",
            "`local` is the realm `local` and no other: it is there from the start",
        ));
    }
    if local && !spec.enabled {
        wrong.push(
            Violation::new(
                "spec.enabled",
                "the realm `local` is the way back in and stays on",
            )
            .hint("disable its users instead: dvctl user disable NAME"),
        );
    }
    if local && (!spec.group_map.is_empty() || spec.auto_create) {
        wrong.push(Violation::new(
            "spec",
            "the realm `local` is told its users and groups by nobody",
        ));
    }
    let asks = [
        (
            "spec.oidc",
            spec.oidc.is_some(),
            spec.sort == RealmType::Oidc,
        ),
        (
            "spec.ldap",
            spec.ldap.is_some(),
            matches!(spec.sort, RealmType::Ldap | RealmType::Ad),
        ),
    ];
    for (field, there, wanted) in asks {
        let sort = spec.sort.word();
        match (there, wanted) {
            (true, false) => wrong.push(Violation::new(
                field,
                format!("is not for a realm of type `{sort}`"),
            )),
            (false, true) => wrong.push(Violation::new(
                field,
                format!("is required for a realm of type `{sort}`"),
            )),
            _ => {}
        }
    }
    if let Some(oidc) = &spec.oidc {
        wrong.extend(oidc::check(oidc));
    }
    if let Some(ldap) = &spec.ldap {
        wrong.extend(ldap::check(ldap, spec.sort == RealmType::Ad));
    }
    wrong
}

/// Of all realms one is the first.
fn first(draft: &mut Draft<'_>, spec: &RealmSpec) -> Result<()> {
    match (spec.default, draft.holds_key(DEFAULT, YES)) {
        (true, false) if draft.key_taken(DEFAULT, YES) => Err(Error::exists(
            "another realm is the default already",
        )
        .hint("take it away there first: dvctl realm list; dvctl realm set NAME --default false")),
        (true, false) => {
            draft.claim_key(DEFAULT, YES);
            Ok(())
        }
        (false, true) => {
            draft.release_key(DEFAULT, YES);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Who says who somebody is can be anybody of that realm, and give any group that it reaches: so only somebody who may
/// manage all of them may say it.
fn no_way_up(draft: &Draft<'_>, name: &str, spec: &RealmSpec) -> Result<()> {
    let (cx, actor) = (draft.cx(), draft.actor());
    if actor.is_trusted() {
        return Ok(());
    }
    for user in cx
        .list::<User>(None)
        .iter()
        .filter(|u| u.spec.realm == name)
    {
        if name != LOCAL {
            access::manages(cx, actor, &user.metadata.name)?;
        }
    }
    let ours = mapping::ours(cx);
    let mapping = mapping::Mapping {
        realm: name,
        table: &spec.group_map,
        same_names: spec.same_names && name != LOCAL,
        groups: &ours,
    };
    for group in ours.iter().filter(|_| name != LOCAL) {
        if mapping.reaches(group) {
            access::may_join(cx, actor, &group.name)?;
        }
    }
    Ok(())
}

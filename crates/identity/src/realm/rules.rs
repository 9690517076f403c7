//! Decides, without asking anybody outside, whether a realm may be declared so, and by whom.

use super::{LOCAL, Realm, RealmSpec, RealmType, ldap, mapping, oidc};
use crate::access;
use crate::secret_backend::may_say_where;
use crate::user::User;
use model::{Error, Result, Violation};
use runtime::Draft;
use serde_json::json;

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
    may_send(draft, &spec)?;
    no_way_up(draft, &name, &spec)
}

/// What proves us to a directory or provider is sent to where this spec says.
fn may_send(draft: &Draft<'_>, spec: &RealmSpec) -> Result<()> {
    let sent = |spec: &RealmSpec| {
        let ldap = spec.ldap.as_ref().and_then(|ldap| {
            let way = json!([ldap.urls, ldap.tls, ldap.ca, ldap.bind_dn]);
            Some((ldap.secret.clone()?, way))
        });
        let oidc = spec.oidc.as_ref().and_then(|oidc| {
            let way = json!([oidc.issuer, oidc.client_id, oidc.ca]);
            Some((oidc.client_secret.clone()?, way))
        });
        ldap.into_iter().chain(oidc).collect::<Vec<_>>()
    };
    let before = draft.old_spec::<Realm>()?.map(|old| sent(&old));
    let before = before.unwrap_or_default();
    let now = sent(spec);
    if now == before {
        return Ok(());
    }
    now.iter()
        .chain(&before)
        .try_for_each(|(secret, _)| may_say_where(draft, secret))
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

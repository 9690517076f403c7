//! What a user may be: the rules of its spec, and who may not be lost.

use super::{LOCAL, User, UserSpec, names};
use crate::access;
use crate::login::administrators;
use crate::realm::Realm;
use model::{Error, Result};
use runtime::{Draft, Until};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The space of unique names.
const SPACE: &str = "username";

/// The value that makes a look unique: hashed, because unique values are keys of the store and stand there open.
pub(crate) fn unique(username: &str) -> String {
    hex::encode(Sha256::digest(names::look(username).as_bytes()))
}

/// The key that a user of this name, or of one that looks like it, holds.
pub(crate) fn unique_key(username: &str) -> runtime::Key {
    runtime::unique_key(SPACE, &unique(username))
}

/// The space of who somebody is in his realm.
const SUBJECTS: &str = "subject";

/// What makes one in a realm unique; hashed like a name.
fn subject(realm: &str, subject: &str) -> String {
    hex::encode(Sha256::digest(format!("{realm}\n{subject}").as_bytes()))
}

/// The key that the user of a realm with this subject holds.
pub(crate) fn subject_key(realm: &str, who: &str) -> runtime::Key {
    runtime::unique_key(SUBJECTS, &subject(realm, who))
}

/// Nobody else of the realm is who he is there.
fn claim_subject(draft: &mut Draft<'_>, spec: &UserSpec, old: Option<&UserSpec>) -> Result<()> {
    if spec.subject.is_some() && spec.realm == LOCAL {
        return Err(Error::field(
            "spec.subject",
            "is for users of another realm than `local`",
        ));
    }
    let new = spec.subject.as_deref().map(|who| subject(&spec.realm, who));
    let old = old.and_then(|old| Some(subject(&old.realm, old.subject.as_deref()?)));
    if new == old {
        return Ok(());
    }
    if let Some(old) = &old {
        draft.release_key(SUBJECTS, old);
    }
    let Some(new) = new else { return Ok(()) };
    if draft.key_taken(SUBJECTS, &new) {
        return Err(Error::exists(format!(
            "there is a user who is the same in realm `{}`",
            spec.realm
        ))
        .hint("dvctl user list -o wide"));
    }
    draft.claim_key(SUBJECTS, &new);
    Ok(())
}

/// Whoever is somebody in his realm stays him: who could make a user somebody else would have, in the sessions and keys
/// that he holds of the one, the rights of the other.
fn stays_himself(draft: &Draft<'_>, spec: &UserSpec, old: &UserSpec) -> Result<()> {
    let same = spec.subject == old.subject && spec.realm == old.realm;
    if same || draft.actor().is_trusted() {
        return Ok(());
    }
    let holds = |key: &runtime::Key| {
        let kinds = [crate::session::KIND.name, crate::api_key::KIND.name];
        runtime::object_ref(key).is_some_and(|it| kinds.contains(&&*it.kind))
    };
    let own = draft.cx().key::<User>(None, &draft.meta.name);
    match old.subject.is_none() && !draft.cx().cache().owned(&own).iter().any(holds) {
        true => Ok(()),
        false => Err(Error::denied(format!(
            "`{}` may not say that user `{}` is somebody else",
            draft.actor().name,
            draft.meta.name
        ))
        .hint("make another user; on the machine itself an administrator may")),
    }
}

/// At creation and every change.
pub(super) fn admit(draft: &mut Draft<'_>) -> Result<()> {
    let mut spec = draft.spec::<User>()?;
    let old = draft.old_spec::<User>()?;
    if spec.username.is_empty() {
        spec.username = draft.meta.name.to_string();
    }
    spec.username = names::parse(&spec.username)?;
    // Nobody is called or looks like who the machine vouches for.
    let reserved = names::look(crate::ADMINISTRATOR);
    let taken = [
        ("metadata.name", draft.meta.name.as_str()),
        ("spec.username", spec.username.as_str()),
    ];
    if let Some((field, _)) = taken.iter().find(|(_, name)| names::look(name) == reserved) {
        return Err(Error::field(
            *field,
            format!(
                "`{}` is who the machine itself vouches for",
                crate::ADMINISTRATOR
            ),
        )
        .hint("choose the name of a person"));
    }
    let look = unique(&spec.username);
    if !draft.holds_key(SPACE, &look) {
        if draft.key_taken(SPACE, &look) {
            return Err(Error::exists(format!(
                "there is a user whose name is `{}` or looks like it",
                spec.username
            ))
            .hint("choose a name that nobody can take for another"));
        }
        if let Some(old) = &old {
            draft.release_key(SPACE, &unique(&old.username));
        }
        draft.claim_key(SPACE, &look);
    }
    // In the future it would switch every delay off until then.
    if spec.unlocked.is_some_and(|at| at > draft.now()) {
        return Err(
            Error::field("spec.unlocked", "lies in the future").hint("dvctl user unlock NAME")
        );
    }
    spec.groups.sort();
    spec.groups.dedup();
    // Nobody manages who is above him, nor lifts anybody above himself.
    let (cx, actor) = (draft.cx(), draft.actor());
    if old.is_some() {
        access::manages(cx, actor, &draft.meta.name)?;
    }
    let had = |group: &String| old.as_ref().is_some_and(|old| old.groups.contains(group));
    for group in spec.groups.iter().filter(|group| !had(group)) {
        access::may_join(cx, actor, group)?;
    }
    let left = old.iter().flat_map(|old| &old.groups);
    let left: Vec<&String> = left.filter(|group| !spec.groups.contains(group)).collect();
    for group in &left {
        access::may_leave(cx, actor, &draft.meta.name, group)?;
    }
    access::leaves_a_superadmin(cx, &draft.meta.name, &left)?;
    let there = spec.realm == LOCAL || cx.get::<Realm>(None, &spec.realm).is_some();
    if old.is_none() && !there {
        return Err(
            Error::field("spec.realm", format!("there is no realm `{}`", spec.realm))
                .hint("`local` is always there; see `dvctl realm list`"),
        );
    }
    if let Some(old) = &old {
        stays_himself(draft, &spec, old)?;
    }
    claim_subject(draft, &spec, old.as_ref())?;
    let was_active = old.as_ref().is_some_and(|old| old.active);
    if was_active && !spec.active {
        administrators::may_lose(draft.cx(), &draft.meta.name)?;
    }
    draft.set_spec::<User>(&spec)
}

/// `disable` and `enable`.
pub(super) fn switch(draft: &mut Draft<'_>, active: bool) -> Result<()> {
    draft.spec["active"] = json!(active);
    // What a person says of him, his directory does not take back.
    draft.spec["suspended"] = Value::Null;
    Ok(())
}

/// `unlock`: what was tried wrongly so far counts no more.
pub(super) fn unlock(draft: &mut Draft<'_>) -> Result<()> {
    draft.spec["unlocked"] = json!(draft.now());
    Ok(())
}

/// Nothing has to follow but what is asked at every request anyway.
pub(super) fn at_once(_: &Value) -> Until {
    Until::Done
}

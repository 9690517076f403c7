//! Somebody whom a realm has proved: which of our users he is, made when the realm may make users, with what the realm
//! says of him.
//!
//! **Invariant.** He is known by realm and subject, never by a name: a name may be given to another one there, and two
//! realms may know two people of one name. A user whom an administrator made for the realm has no subject at first; who
//! first logs in with his name gets him, once.

use super::{Realm, mapping};
use crate::user::{self, LOCAL, User};
use crate::{api_key, session};
use model::{Error, Name, ObjectRef, Result, What};
use runtime::{Cx, Obj, Op, object_ref};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// What a realm says of somebody whom it has proved.
#[derive(Clone, Debug, Default)]
pub struct Incoming {
    /// Who he is there, for good: of a provider its issuer, a blank, and the subject; of a directory the unique id of
    /// his entry.
    pub subject: String,
    /// His user name there.
    pub username: String,
    /// His e-mail address.
    pub email: Option<String>,
    /// His name as people write it.
    pub full_name: Option<String>,
    /// The groups that he is in there.
    pub groups: Vec<String>,
}

/// The user of this realm with this subject.
pub fn known(cx: &Cx, realm: &str, subject: &str) -> Option<Arc<Obj<User>>> {
    let key = cx.cache().unique(&user::subject_key(realm, subject))?;
    cx.get_key::<User>(&key)
        .filter(|user| user.spec.realm == realm && user.spec.subject.as_deref() == Some(subject))
}

/// Finds or makes the user, and brings him to what the realm says.
///
/// # Errors
/// `Denied` when there is no such user and the realm may make none, or when he is disabled.
pub async fn arrive(cx: &Cx, realm: &Obj<Realm>, incoming: &Incoming) -> Result<Arc<Obj<User>>> {
    let name = realm.metadata.name.as_str();
    loop {
        let found = match known(cx, name, &incoming.subject) {
            Some(user) => Some(user),
            None => promised(cx, name, &incoming.username),
        };
        let Some(user) = found else {
            if !realm.spec.auto_create {
                return Err(Error::denied(format!(
                    "realm `{name}` knows you, and DebVisor has no user for you"
                ))
                .hint(format!(
                    "an administrator makes one: dvctl user create NAME --realm {name}"
                )));
            }
            return make(cx, realm, incoming).await;
        };
        if !user.spec.active {
            return Err(Error::denied("this user is disabled")
                .hint("an administrator can enable him: dvctl user enable NAME"));
        }
        if let Some(user) = update(cx, realm, &user, incoming).await? {
            return Ok(user);
        }
    }
}

/// The user whom an administrator made for somebody of this name, and whom nobody has taken yet.
fn promised(cx: &Cx, realm: &str, username: &str) -> Option<Arc<Obj<User>>> {
    let username = user::names::parse(username).ok()?;
    let key = cx.cache().unique(&user::unique_key(&username))?;
    cx.get_key::<User>(&key).filter(|user| {
        user.spec.realm == realm && user.spec.subject.is_none() && user.spec.username == username
    })
}

/// What must change of a user for what the realm says.
pub(super) fn differences(
    cx: &Cx,
    realm: &Obj<Realm>,
    user: &Obj<User>,
    incoming: &Incoming,
) -> Map<String, Value> {
    let spec = &user.spec;
    let mut new = Map::new();
    let mut differs = |field: &str, now: Value, wanted: Value| {
        if now != wanted {
            new.insert(field.to_owned(), wanted);
        }
    };
    let groups = mapping::groups(cx, realm, &spec.groups, &incoming.groups);
    differs("groups", json!(spec.groups), json!(groups));
    differs("subject", json!(spec.subject), json!(incoming.subject));
    if let Some(email) = email(incoming) {
        differs("email", json!(spec.email), json!(email));
    }
    if let Some(full_name) = full_name(incoming) {
        differs("full_name", json!(spec.full_name), json!(full_name));
    }
    new
}

/// Brings a user to what the realm says; `None` when somebody changed him meanwhile.
async fn update(
    cx: &Cx,
    realm: &Obj<Realm>,
    user: &Arc<Obj<User>>,
    incoming: &Incoming,
) -> Result<Option<Arc<Obj<User>>>> {
    let new = differences(cx, realm, user, incoming);
    if new.is_empty() {
        return Ok(Some(user.clone()));
    }
    let op = Op::Patch {
        target: ObjectRef {
            kind: user::KIND.name.into(),
            project: None,
            name: user.metadata.name.to_string(),
        },
        body: json!({ "metadata": { "revision": user.metadata.revision }, "spec": new }),
    };
    // Who could be anybody until now is somebody: what others hold of him is worth nothing more.
    let is_taken = user.spec.subject.is_none();
    match cx.submit(op, "login").await {
        Ok(_) => {
            if is_taken {
                take_back(cx, &user.metadata.name).await?;
            }
            Ok(cx.get::<User>(None, &user.metadata.name))
        }
        Err(Error {
            what: What::PreconditionFailed(_) | What::NotFound,
            ..
        }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Ends the sessions of a user and takes his keys back.
async fn take_back(cx: &Cx, user: &str) -> Result<()> {
    session::end_all(cx, user, None).await?;
    let key = cx.key::<User>(None, user);
    let owned = cx.cache().owned(&key);
    let keys = owned.iter().filter_map(object_ref);
    for target in keys.filter(|target| target.kind == api_key::KIND.name) {
        let op = Op::Act {
            target,
            verb: "revoke".into(),
            params: json!({ "reason": "made before its owner first came" }),
        };
        match cx.submit(op, "login").await {
            Err(error) if error.what != What::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

async fn make(cx: &Cx, realm: &Obj<Realm>, incoming: &Incoming) -> Result<Arc<Obj<User>>> {
    let at = realm.metadata.name.as_str();
    let groups = mapping::groups(cx, realm, &[], &incoming.groups);
    // Somebody else may have the name already, of another realm or by its look.
    let plain = ours(&incoming.username);
    let longer = ours(&format!("{plain}.{at}"));
    // Who logs in without naming a realm gives his password to that of the plain name: that is no other than the first.
    let realms = cx.list::<Realm>(None);
    let others = realms
        .iter()
        .any(|realm| ![LOCAL, at].contains(&realm.metadata.name.as_str()));
    let plain = Some(plain).filter(|_| !others || super::first(cx) == at);
    for username in plain.into_iter().chain([longer]) {
        let (Ok(username), Some(name)) = (user::names::parse(&username), Name::suggest(&username))
        else {
            continue;
        };
        let body = json!({
            "metadata": { "name": name },
            "spec": {
                "username": username, "realm": at, "subject": incoming.subject, "groups": groups,
                "email": email(incoming), "full_name": full_name(incoming),
            },
        });
        let op = Op::Create {
            kind: user::KIND.name.into(),
            project: None,
            body,
        };
        match cx.submit(op, "first login").await {
            Ok(_) => {
                let made = known(cx, at, &incoming.subject);
                return made.ok_or_else(|| Error::internal("a user who was just made is gone"));
            }
            Err(Error {
                what: What::Exists, ..
            }) => {
                // Of two logins at once the other one made him.
                if let Some(made) = known(cx, at, &incoming.subject) {
                    return Ok(made);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::denied(format!(
        "realm `{at}` knows you by a name that cannot be yours here: somebody has it, or it is none"
    ))
    .hint(format!(
        "an administrator makes a user for you: dvctl user create NAME --realm {at} --subject TEXT"
    )))
}

/// A name as we can have it: what is no letter of ours becomes a dash.
fn ours(theirs: &str) -> String {
    let good = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    let text: String = theirs
        .chars()
        .take(user::names::MOST)
        .map(|c| if good(c) { c } else { '-' })
        .collect();
    text.trim_matches(|c: char| !c.is_ascii_alphanumeric())
        .to_owned()
}

fn email(incoming: &Incoming) -> Option<&str> {
    let email = incoming.email.as_deref()?;
    let good = email.len() <= 120 && email.contains('@') && email.is_ascii();
    (good && !email.chars().any(|c| c.is_control() || c == ' ')).then_some(email)
}

fn full_name(incoming: &Incoming) -> Option<String> {
    let name = incoming.full_name.as_deref()?;
    let kept: String = name.chars().filter(|c| !c.is_control()).take(120).collect();
    (!kept.trim().is_empty()).then_some(kept)
}

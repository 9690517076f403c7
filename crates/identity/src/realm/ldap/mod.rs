//! Realms that are directories: OpenLDAP and its like (`ldap`), Active Directory and Samba (`ad`).
//!
//! ```text
//! name, password -> search with the user filter -> bind as the entry that was found -> groups, also through groups -> user
//! ```
//!
//! **Invariants.** Nothing is said to a server but through TLS that was verified. What somebody types never becomes part
//! of a filter. Without a password nobody is proved to be anybody. Nothing is followed that a server would have us look
//! for elsewhere. A password goes to the directory and is kept nowhere. What could not be read to its end changes nobody.

mod ber;
mod connection;
mod directory;
mod filter;
mod groups;
mod login;
mod person;
mod sync;
mod types;
mod wire;

pub use directory::Directories;
pub(crate) use login::{Proved, pretend, prove};
pub(crate) use sync::let_in_again;
pub(super) use sync::{SyncInput, run as sync, when_due as sync_when_due};
pub use sync::{SyncResult, SyncStatus};
pub use types::{LdapSpec, LdapTls};

use super::{LOCAL, Realm, RealmType};
use connection::Server;
use directory::Words;
use model::{Error, Result, Violation};
use person::Found;
use runtime::{Cx, Obj};
use serde_json::{Value, json};

/// What is wrong with it, by the rules alone.
pub(super) fn check(spec: &LdapSpec, ad: bool) -> Vec<Violation> {
    let mut wrong = Vec::new();
    for (at, url) in spec.urls.iter().enumerate() {
        if let Err(why) = Server::parse(url, spec.tls) {
            wrong.push(Violation::new(
                format!("spec.ldap.urls[{at}]"),
                format!("`{}` {why}", url.escape_debug()),
            ));
        }
    }
    if let Err((field, why)) = Words::of(spec, ad) {
        wrong.push(Violation::new(field, why));
    }
    for (field, name) in [
        ("spec.ldap.name_attribute", spec.name_attribute.as_deref()),
        ("spec.ldap.id_attribute", spec.id_attribute.as_deref()),
        (
            "spec.ldap.member_attribute",
            Some(spec.member_attribute.as_str()),
        ),
    ] {
        if name.is_some_and(|name| !filter::is_attribute(name)) {
            wrong.push(Violation::new(field, "is not the name of an attribute"));
        }
    }
    match (&spec.bind_dn, &spec.secret) {
        (Some(_), None) => wrong.push(
            Violation::new("spec.ldap.secret", "is required with `bind_dn`")
                .hint("make a secret that holds its password, and name it `PROJECT/NAME`"),
        ),
        (None, Some(_)) => wrong.push(Violation::new(
            "spec.ldap.bind_dn",
            "is required with `secret`: whose password is it?",
        )),
        (_, Some(secret)) if !secret.contains('/') => wrong.push(Violation::new(
            "spec.ldap.secret",
            "names a secret with its project: `project/name`",
        )),
        _ => {}
    }
    if let Some(pem) = &spec.ca
        && connection::roots(pem).is_err()
    {
        wrong.push(Violation::new(
            "spec.ldap.ca",
            "holds no certificate that can be trusted, as PEM",
        ));
    }
    wrong
}

/// Asks every server of the directory, and, when a name is given, who that is there.
///
/// # Errors
/// When no server answers as it must, or the name is nobody's.
pub(super) async fn test(cx: &Cx, realm: &Obj<Realm>, user: Option<&str>) -> Result<Value> {
    let directory = Directories::of(cx, realm)?;
    let looked = directory.look(cx).await;
    let servers: Vec<Value> = looked
        .iter()
        .map(|(url, asked)| match asked {
            Ok(()) => json!({ "url": url, "answers": true }),
            Err(error) => json!({ "url": url, "answers": false, "why": error.message }),
        })
        .collect();
    if looked.iter().all(|(_, asked)| asked.is_err()) {
        let why: Vec<&str> = looked
            .iter()
            .filter_map(|(_, asked)| asked.as_ref().err().map(|e| e.message.as_str()))
            .collect();
        return Err(Error::unavailable(format!(
            "no server of realm `{}` answers as it must: {}",
            realm.metadata.name,
            why.join("; ")
        )));
    }
    let mut said = json!({ "type": realm.spec.sort.word(), "servers": servers });
    if let Some(name) = user {
        said["user"] = who(cx, realm, &directory, name).await?;
    }
    Ok(said)
}

/// What a login of somebody would find, but for his password.
async fn who(
    cx: &Cx,
    realm: &Obj<Realm>,
    directory: &directory::Directory,
    name: &str,
) -> Result<Value> {
    let at = &realm.metadata.name;
    let asked = directory.words.user.filled(name).to_string();
    let person = match person::by_name(cx, directory, name).await? {
        Found::One(person) => person,
        Found::Nobody => {
            return Err(Error::not_found(format!(
                "realm `{at}` has nobody for `{asked}` below `{}`",
                directory.spec.base_dn
            )));
        }
        Found::Several => {
            return Err(
                Error::refused(format!("realm `{at}` has several for `{asked}`"))
                    .hint("`user_filter` must find one entry for a name"),
            );
        }
    };
    directory.parents.forget();
    let groups = groups::of(cx, directory, &person).await?;
    let ours = super::mapping::groups(cx, realm, &[], &groups);
    Ok(json!({
        "filter": asked, "dn": person.dn, "subject": person.subject, "username": person.name(name),
        "disabled": person.disabled, "directory_groups": groups, "groups": ours,
    }))
}

/// The directory that is asked for a login: of the realm that was named, of the user of that name, or the first.
pub(crate) fn asked(cx: &Cx, named: &str) -> Option<std::sync::Arc<Obj<Realm>>> {
    if named == LOCAL {
        return None;
    }
    cx.get::<Realm>(None, named).filter(|realm| {
        realm.spec.enabled && matches!(realm.spec.sort, RealmType::Ldap | RealmType::Ad)
    })
}

#[cfg(test)]
mod samba;
#[cfg(test)]
mod slapd;
#[cfg(test)]
mod tests;

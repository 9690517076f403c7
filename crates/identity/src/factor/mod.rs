//! A factor: something by which a user proves that it is him. Made only by the conversations in [`crate::login`]; an
//! administrator, or the user himself, may take one away.
//!
//! **Invariants.** What it is checked against is a secret field: sealed in the store, null in every answer. A code is
//! good once: using it up is one compare-and-set, so of two who show the same code one is refused.

pub mod breached;
pub mod codes;
pub mod password;
pub mod totp;
mod types;
pub mod webauthn;

pub use types::{FactorSpec, FactorStatus, Sort};

use crate::user::User;
use model::{Column, Error, Kind, Resource, Result, Scope, Unit, Verb, schema};
use runtime::{Cx, Obj, Op, Place, Seat, Subsystem, no_controllers, normal, nothing_to_admit};
use serde_json::{Value, json};
use std::sync::Arc;

/// Ties the kind to its types.
pub struct Factor;

impl Resource for Factor {
    const KIND: &'static Kind = &KIND;
    type Spec = FactorSpec;
    type Status = FactorStatus;
}

/// The declaration.
pub static KIND: Kind = Kind {
    name: "factor",
    plural: "factors",
    title: "Login factor",
    scope: Scope::Cluster,
    doc: "Something by which a user proves that it is him: a password, an app that makes codes, a security key, codes on paper. Users make them at login; here they are seen and taken away.",
    verbs: &[Verb::Read, Verb::Delete],
    spec: schema::of::<FactorSpec>,
    status: schema::of::<FactorStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("user", "spec.user"),
        Column::new("sort", "spec.sort"),
        Column::new("label", "spec.label"),
        Column::new("last-used", "status.last_used").unit(Unit::Age),
        Column::new("age", "metadata.created").unit(Unit::Age),
    ],
    actions: &[],
    streams: &[],
    examples: &[
        "dvctl factor list",
        "dvctl factor delete totp-0192f0c1a2b34c5d --yes",
    ],
};

/// The subsystem.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Api,
    seat: Seat::Api,
    normal: normal::<Factor>,
    admit: nothing_to_admit,
    runs: &[],
    undos: &[],
    streams: &[],
    finalizes: false,
    controllers: no_controllers,
};

/// All factors of a user, found by what belongs to him.
pub fn of(cx: &Cx, user: &Obj<User>) -> Vec<Arc<Obj<Factor>>> {
    let key = cx.key::<User>(None, &user.metadata.name);
    cx.cache()
        .owned(&key)
        .iter()
        .filter(|key| runtime::object_ref(key).is_some_and(|r| r.kind == KIND.name))
        .filter_map(|key| cx.get_key::<Factor>(key))
        .filter(|factor| factor.spec.user == user.metadata.name.as_str())
        .collect()
}

/// Those of one sort.
pub fn of_sort(cx: &Cx, user: &Obj<User>, sort: Sort) -> Vec<Arc<Obj<Factor>>> {
    let mut all = of(cx, user);
    all.retain(|factor| factor.spec.sort == sort);
    all
}

/// The one of its sort that counts, where there should be one: another was to go when this one came, and did not.
pub fn newest(cx: &Cx, user: &Obj<User>, sort: Sort) -> Option<Arc<Obj<Factor>>> {
    let all = of_sort(cx, user, sort);
    all.into_iter()
        .max_by_key(|f| (f.metadata.created, f.metadata.uid))
}

/// Whether a user has a second factor.
pub fn has_second(cx: &Cx, user: &Obj<User>) -> bool {
    of(cx, user).iter().any(|f| f.spec.sort.stands_alone())
}

/// A name that nothing has yet.
pub(crate) fn fresh_name(cx: &Cx, sort: Sort) -> String {
    let mut random = [0; 8];
    cx.clock().fill(&mut random);
    format!("{}-{}", sort.word(), hex::encode(random))
}

/// Puts a factor in the place of all others of its sort. Gives the name that it has: of a password or an app the one
/// before is changed, in one commit, so that there is no moment in which both count, nor one in which neither does.
///
/// # Errors
/// When it cannot be stored.
pub async fn replace(
    cx: &Cx,
    user: &Obj<User>,
    name: &str,
    sort: Sort,
    material: String,
    expires: Option<model::Timestamp>,
) -> Result<String> {
    let mut old = of_sort(cx, user, sort);
    if matches!(sort, Sort::Password | Sort::Totp) {
        old.sort_by_key(|f| (f.metadata.created, f.metadata.uid));
        if let Some(newest) = old.pop()
            && change(cx, &newest, &material).await?
        {
            for factor in old {
                remove(cx, &factor).await?;
            }
            return Ok(newest.metadata.name.to_string());
        }
    }
    add(
        cx,
        user,
        name,
        json!({ "sort": sort, "material": material, "expires": expires }),
    )
    .await?;
    for factor in old {
        remove(cx, &factor).await?;
    }
    Ok(name.to_owned())
}

/// Gives a factor other material. Says whether it was still there.
async fn change(cx: &Cx, factor: &Obj<Factor>, material: &str) -> Result<bool> {
    let op = Op::Patch {
        target: target(factor),
        body: json!({ "spec": { "material": material } }),
    };
    is_there(cx.submit(op, "login").await)
}

fn target(factor: &Obj<Factor>) -> model::ObjectRef {
    model::ObjectRef {
        kind: KIND.name.into(),
        project: None,
        name: factor.metadata.name.to_string(),
    }
}

fn is_there<T>(done: Result<T>) -> Result<bool> {
    match done {
        Ok(_) => Ok(true),
        Err(Error {
            what: model::What::NotFound,
            ..
        }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives a user one more factor. `spec` says which.
///
/// # Errors
/// When it cannot be stored.
pub(crate) async fn add(cx: &Cx, user: &Obj<User>, name: &str, mut spec: Value) -> Result<()> {
    spec["user"] = user.metadata.name.as_str().into();
    let body = json!({
        "metadata": {
            "name": name,
            "owner": { "kind": User::KIND.name, "name": user.metadata.name, "uid": user.metadata.uid },
        },
        "spec": spec,
    });
    let op = Op::Create {
        kind: KIND.name.into(),
        project: None,
        body,
    };
    cx.submit(op, "login").await.map(drop)
}

/// Takes a factor away. Says whether it was us; one that is gone already is no error.
///
/// # Errors
/// When the store does not answer.
pub async fn remove(cx: &Cx, factor: &Obj<Factor>) -> Result<bool> {
    let op = Op::Delete {
        target: target(factor),
        keep: Vec::new(),
    };
    is_there(cx.submit(op, "login").await)
}

/// Uses something of a factor up, exactly once: `claim` changes the status, or leaves it when it is used up already.
/// Says whether it was us.
pub(crate) async fn claim(
    cx: &Cx,
    factor: &Obj<Factor>,
    claim: impl Fn(&mut FactorStatus) -> bool,
) -> Result<bool> {
    let key = cx.key::<Factor>(None, &factor.metadata.name);
    let now = cx.clock().now();
    let mut ours = false;
    let changed = cx
        .set_status::<Factor>(&key, |status| {
            let mut new = status.clone();
            ours = claim(&mut new);
            if ours {
                new.last_used = Some(now);
                *status = new;
            }
        })
        .await?;
    Ok(changed && ours)
}

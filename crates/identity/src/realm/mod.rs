//! A realm: who proves who somebody is. `local` is DebVisor itself and always there; others are providers of OpenID
//! Connect and directories.
//!
//! **Invariants.** Somebody of a realm is known by the realm and his subject there, never by a name, so that nobody of
//! one realm is taken for somebody of another. A realm that does not answer keeps only its own people out. Who declares a
//! realm may manage everybody whom it could make somebody into.

mod controller;
mod incoming;
pub mod ldap;
mod mapping;
pub mod oidc;
mod rules;
mod types;

pub use incoming::{Incoming, arrive, known};
pub use types::{GroupMap, RealmSpec, RealmStatus, RealmType};

pub use crate::user::LOCAL;
use model::{
    Action, Column, Danger, Error, Kind, ObjectRef, Resource, Result, Scope, Unit, Verb, What,
    WorkStyle, schema,
};
use runtime::{Cx, Obj, Op, Place, Proc, Run, Seat, Subsystem, normal};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

/// Ties the kind to its types.
pub struct Realm;

impl Resource for Realm {
    const KIND: &'static Kind = &KIND;
    type Spec = RealmSpec;
    type Status = RealmStatus;
}

/// The declaration.
pub static KIND: Kind = Kind {
    name: "realm",
    plural: "realms",
    title: "Login realm",
    scope: Scope::Cluster,
    doc: "Who proves who somebody is: DebVisor itself (`local`), a provider of OpenID Connect, or a directory. Users of another realm have no password here.",
    verbs: Verb::ALL,
    spec: schema::of::<RealmSpec>,
    status: schema::of::<RealmStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("type", "spec.type"),
        Column::new("enabled", "spec.enabled"),
        Column::new("default", "spec.default"),
        Column::new("issuer", "spec.oidc.issuer"),
        Column::new("auto-create", "spec.auto_create").wide(),
        Column::new("last-reached", "status.last_reached").unit(Unit::Age),
    ],
    actions: &[
        Action {
            verb: "test",
            doc: "Asks the provider or directory whether it is as declared.",
            danger: Danger::None,
            style: WorkStyle::Procedure,
            input: schema::of::<TestInput>,
            claims: &[],
            deadline: 120,
            event: "tested",
            examples: &["dvctl realm test corp", "dvctl realm test corp --user anna"],
        },
        Action {
            verb: "sync",
            doc: "Looks up everybody of a directory again: who is gone there or disabled is let in no more and his sessions end, and groups follow. Nobody is changed when the directory does not answer to the end.",
            danger: Danger::None,
            style: WorkStyle::Procedure,
            input: schema::of::<ldap::SyncInput>,
            claims: &[],
            deadline: 3600,
            event: "synced",
            examples: &["dvctl realm sync corp", "dvctl realm sync corp --dry-run"],
        },
    ],
    streams: &[],
    examples: &[
        "dvctl realm list",
        "dvctl realm create corp --type oidc --oidc issuer=https://login.example.org/realms/corp,client_id=debvisor,client_secret=default/corp-client --auto-create",
        "dvctl realm test corp",
    ],
};

/// The subsystem.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Api,
    seat: Seat::Api,
    normal: normal::<Realm>,
    admit: rules::admit,
    runs: &[
        (
            "test",
            Run::Procedure(|proc| Box::pin(async move { proc.step("ask", || test(&proc)).await })),
        ),
        ("sync", Run::Procedure(|proc| Box::pin(ldap::sync(proc)))),
    ],
    undos: &[],
    streams: &[],
    finalizes: false,
    controllers: |_| vec![Arc::new(controller::RealmController)],
};

/// What `test` is asked.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TestInput {
    /// Of a directory also: somebody's user name, and who that is there, in which groups.
    #[serde(default)]
    #[schemars(length(min = 1, max = 256))]
    user: Option<String>,
}

async fn test(proc: &Proc) -> Result<Value> {
    let (cx, name) = (proc.cx(), &proc.target().name);
    let input: TestInput = proc.params()?;
    let realm = cx
        .get::<Realm>(None, name)
        .ok_or_else(|| Error::not_found(format!("there is no realm `{name}`")))?;
    let token = proc.token();
    let said = tokio::select! {
        () = token.cancelled() => return Err(Error::refused("the task was cancelled")),
        said = ask(cx, &realm, input.user.as_deref()) => said?,
    };
    cx.wake(&cx.key::<Realm>(None, name));
    Ok(said)
}

/// Asks whoever is behind it.
async fn ask(cx: &Cx, realm: &Obj<Realm>, user: Option<&str>) -> Result<Value> {
    match realm.spec.sort {
        RealmType::Local => Ok(json!({ "type": "local" })),
        RealmType::Oidc => oidc::test(cx, realm).await,
        RealmType::Ldap | RealmType::Ad => ldap::test(cx, realm, user).await,
    }
}

/// Makes the realm `local` when there is none yet. The `api` role calls it at start.
///
/// # Errors
/// When the store does not answer.
pub async fn make_local(cx: &Cx) -> Result<()> {
    if cx.get::<Realm>(None, LOCAL).is_some() {
        return Ok(());
    }
    let op = Op::Update {
        target: ObjectRef {
            kind: KIND.name.into(),
            project: None,
            name: LOCAL.into(),
        },
        body: json!({ "metadata": { "name": LOCAL, "protection": true }, "spec": { "type": "local" } }),
        create: true,
    };
    match cx.submit(op, "first start").await {
        Ok(_)
        | Err(Error {
            what: What::Exists, ..
        }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The realm that login pages offer first.
pub fn first(cx: &Cx) -> String {
    let realms = cx.list::<Realm>(None);
    let first = realms.iter().find(|r| r.spec.default && r.spec.enabled);
    first.map_or_else(|| LOCAL.into(), |realm| realm.metadata.name.to_string())
}

#[cfg(test)]
mod tests;

//! A key server that keeps values of secrets for us: HashiCorp Vault or OpenBao.
//!
//! **Invariants.** A value that was read is kept in memory only, for at most 300 s, and used without asking again in that
//! time; after it, a server that is down is an error and never an old value. The token is renewed before half of its life
//! is over. Its certificate is always verified; plain HTTP goes to this machine alone.

mod client;
mod controller;
mod kept;
mod rules;
mod types;
mod user;

pub use kept::Backends;
pub(crate) use rules::{is_here, may_say_where};
pub use types::{Auth, AuthMethod, BackendSpec, BackendStatus, BackendType};
pub use user::PasswordThere;

use crate::secret::Secret;
use model::{
    Action, Column, Danger, Error, Kind, Resource, Result, Scope, Verb, WorkStyle, schema,
};
use runtime::{Cx, Key, Obj, Place, Proc, Run, Seat, Subsystem, normal};
use serde_json::{Value, json};
use std::sync::Arc;

/// Ties the kind to its types.
pub struct Backend;

impl Resource for Backend {
    const KIND: &'static Kind = &KIND;
    type Spec = BackendSpec;
    type Status = BackendStatus;
}

/// The declaration.
pub static KIND: Kind = Kind {
    name: "secret-backend",
    plural: "secret-backends",
    title: "Key server",
    scope: Scope::Cluster,
    doc: "A HashiCorp Vault or OpenBao that keeps values of secrets. A secret names it with `backend` and `path`; what is read there is used for 300 s.",
    verbs: Verb::ALL,
    spec: schema::of::<BackendSpec>,
    status: schema::of::<BackendStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("type", "spec.type"),
        Column::new("address", "spec.address"),
        Column::new("auth", "spec.auth.method"),
        Column::new("version", "status.version"),
        Column::new("token-expires", "status.token_expires").wide(),
    ],
    actions: &[Action {
        verb: "test",
        doc: "Asks it how it is and logs in anew.",
        danger: Danger::None,
        style: WorkStyle::Procedure,
        input: schema::empty,
        claims: &[],
        deadline: 120,
        event: "tested",
        examples: &["dvctl secret-backend test vault"],
    }],
    streams: &[],
    examples: &[
        "dvctl secret-backend create vault --address https://vault.example.org:8200 --auth method=token,secret=default/vault-token",
        "dvctl secret create db --backend vault --path apps/shop/db",
        "dvctl secret-backend test vault",
    ],
};

/// The subsystem.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Api,
    seat: Seat::Api,
    normal: normal::<Backend>,
    admit: rules::admit,
    runs: &[(
        "test",
        Run::Procedure(|proc| {
            Box::pin(async move { proc.step("ask and log in", || test(&proc)).await })
        }),
    )],
    undos: &[],
    streams: &[],
    finalizes: false,
    controllers: |_| vec![Arc::new(controller::BackendController)],
};

async fn test(proc: &Proc) -> Result<Value> {
    let cx = proc.cx();
    let backend = get(cx, &proc.target().name)?;
    let kept = Backends::of(cx)?;
    let client = kept.client(cx, &backend)?;
    let asked = async {
        let health = client.health().await?;
        Ok((health, kept.log_in(cx, &backend).await?))
    };
    let token = proc.token();
    let (health, token) = tokio::select! {
        () = token.cancelled() => return Err(Error::refused("the task was cancelled")),
        asked = asked => asked?,
    };
    cx.wake(&cx.key::<Backend>(None, &proc.target().name));
    Ok(json!({ "version": health.version, "token_seconds": token.life.map(|l| l.as_secs()) }))
}

fn get(cx: &Cx, name: &str) -> Result<Arc<Obj<Backend>>> {
    cx.get::<Backend>(None, name)
        .ok_or_else(|| Error::not_found(format!("there is no secret-backend `{name}`")))
}

/// A value that lies there, at most 300 s old.
pub(crate) async fn fetch(cx: &Cx, backend: &str, path: &str, field: &str) -> Result<String> {
    let backend = get(cx, backend)?;
    Backends::of(cx)?.value(cx, &backend, path, field).await
}

/// The secret that proves to a key server who we are.
pub(crate) fn secret_of(cx: &Cx, key: &Key) -> Option<Key> {
    let backend = cx.get_key::<Backend>(key)?;
    let (project, name) = backend.spec.auth.secret.split_once('/')?;
    Some(cx.key::<Secret>(Some(project), name))
}

#[cfg(test)]
mod tests;

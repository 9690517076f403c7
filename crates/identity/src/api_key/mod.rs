//! An API key: what a program shows instead of a person. It has at most the rights of its owner.
//!
//! ```text
//! created -> waiting -(secret)-> active -> expiring -> expired
//!               ^                  | rotate (the old secret works on for a while)
//!               +------------------+          any -(revoke)-> revoked
//! ```
//!
//! **Invariants.** A secret goes out once, over the stream `secret`, to who opens it, or into the one secret that the key
//! names as its sink, and is kept nowhere else: only a salted
//! hash, sealed. Nobody brings a secret of his own. A key that was revoked lets nobody in at the next request, and never
//! again.

mod controller;
mod hook;
#[cfg(test)]
mod hook_tests;
mod keys;
pub mod policy;
#[cfg(test)]
mod policy_tests;
mod rules;
pub mod token;
mod types;

pub(crate) use keys::Keys;
pub use types::{
    ApiKeySpec, ApiKeyStatus, KeySecret, Reason, Revoke, Revoked, Rotate, Rotation, State,
};

use crate::access;
use futures::future::BoxFuture;
use model::{
    Action, Column, Danger, Error, Kind, ObjectRef, Resource, Result, Scope, StreamKind, Unit,
    Verb, Way, What, WorkStyle, schema,
};
use runtime::audit::{Note, TOKEN_ISSUED, note};
use runtime::{Cx, Op, Place, Run, Seat, StreamIo, StreamRequest, Subsystem, Until, normal};
use serde_json::json;
use std::net::IpAddr;
use std::sync::Arc;

/// Ties the kind to its types.
pub struct ApiKey;

impl Resource for ApiKey {
    const KIND: &'static Kind = &KIND;
    type Spec = ApiKeySpec;
    type Status = ApiKeyStatus;
}

/// The declaration.
pub static KIND: Kind = Kind {
    name: "api-key",
    plural: "api-keys",
    title: "API key",
    scope: Scope::Cluster,
    doc: "What a program shows instead of a person: `Authorization: Bearer dv_...`. It has its owner's rights, or fewer, from everywhere or from some networks, until it ends. `secret` shows its secret, once; after `rotate` it shows the next one, and the old one works on for a while.",
    verbs: Verb::ALL,
    spec: schema::of::<ApiKeySpec>,
    status: schema::of::<ApiKeyStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("owner", "spec.owner"),
        Column::new("state", "status.state"),
        Column::new("expires", "spec.expires"),
        Column::new("last-used", "status.last_used").unit(Unit::Age),
        Column::new("uses", "status.uses").wide(),
        Column::new("networks", "spec.networks").wide(),
        Column::new("machine", "spec.machine").wide(),
        Column::new("description", "spec.description").wide(),
    ],
    actions: &[
        Action {
            verb: "rotate",
            doc: "Lets `secret` show a new secret; the old one works on for 7 days, or not at all after an incident. It is good for another 90 days.",
            danger: Danger::Disrupts,
            style: WorkStyle::Intent,
            input: schema::of::<Rotate>,
            claims: &[],
            deadline: 60,
            event: "rotated",
            examples: &[
                "dvctl api-key rotate ci --yes",
                "dvctl api-key rotate ci --reason key_compromise --yes",
            ],
        },
        Action {
            verb: "revoke",
            doc: "Takes it back for good: it lets nobody in any more, and what is open ends within seconds.",
            danger: Danger::Disrupts,
            style: WorkStyle::Intent,
            input: schema::of::<Revoke>,
            claims: &[],
            deadline: 60,
            event: "revoked",
            examples: &["dvctl api-key revoke ci --reason 'left on a train' --yes"],
        },
    ],
    streams: &[StreamKind {
        name: "secret",
        doc: "Shows its secret: once after it was made, and once after each rotation.",
        way: Way::Read,
        ticketed: true,
        input: schema::empty,
    }],
    examples: &[
        "dvctl api-key create ci --owner anna --privileges vm.read --networks 192.0.2.0/24",
        "dvctl api-key secret ci",
        "dvctl api-key create build --owner anna --machine builder1",
        "dvctl api-key create ci --owner anna --sink default/ci-key --auto-rotate",
        "dvctl api-key list",
        "dvctl api-key stats",
        "dvctl api-key check-expiring --days 30",
        "dvctl api-key auto-rotate --yes",
        "dvctl api-key cleanup --yes",
    ],
};

/// The subsystem.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Api,
    seat: Seat::Api,
    normal: normal::<ApiKey>,
    admit: rules::admit,
    runs: &[
        (
            "rotate",
            Run::Intent {
                edit: rules::rotate,
                until: |_| Until::Done,
            },
        ),
        (
            "revoke",
            Run::Intent {
                edit: rules::revoke,
                until: |_| Until::Done,
            },
        ),
    ],
    undos: &[],
    streams: &[("secret", secret)],
    finalizes: false,
    controllers: |_| vec![Arc::new(controller::ApiKeyController)],
};

fn target(name: &str) -> ObjectRef {
    ObjectRef {
        kind: KIND.name.into(),
        project: None,
        name: name.into(),
    }
}

/// The stream `secret`.
fn secret(cx: Cx, request: StreamRequest, io: StreamIo) -> BoxFuture<'static, Result<()>> {
    Box::pin(async move {
        let target = &request.target;
        let made = loop {
            let object = cx
                .get::<ApiKey>(None, &target.name)
                .ok_or_else(|| Error::not_found(format!("there is no {target}")))?;
            access::manages(&cx, &request.actor, &object.spec.owner)?;
            let now = cx.clock().now();
            if !rules::lives(&object.spec, now) {
                return Err(Error::refused(format!("{target} has ended")).hint("make a new one"));
            }
            if !rules::awaits(&object.spec) {
                return Err(
                    Error::refused(format!("the secret of {target} was shown already")).hint(
                        format!("dvctl api-key rotate {} makes another", target.name),
                    ),
                );
            }
            if let Some(sink) = &object.spec.sink {
                return Err(Error::refused(format!(
                    "the secret of {target} goes to the secret `{sink}`, and is shown by nothing else"
                )));
            }
            let (made, stored) = fresh(&cx);
            let secrets = rules::with(&object.spec, stored, now);
            // On record before it is out: what gives somebody rights needs its row.
            note(&cx, Note::by(&TOKEN_ISSUED, &request.actor).about(target)).await?;
            let op = Op::Patch {
                target: target.clone(),
                body: json!({
                    "metadata": { "revision": object.metadata.revision }, "spec": { "secrets": secrets },
                }),
            };
            match cx.submit(op, "api key").await {
                Ok(_) => break made,
                // Somebody was faster, or its use was noted: look again.
                Err(Error {
                    what: What::PreconditionFailed(_),
                    ..
                }) => continue,
                Err(error) => return Err(error),
            }
        };
        io.data(format!("{made}\n")).await
    })
}

/// A new secret, and what is stored of it.
fn fresh(cx: &Cx) -> (String, KeySecret) {
    let (mut random, mut salt) = ([0; 32], [0; 16]);
    cx.clock().fill(&mut random);
    cx.clock().fill(&mut salt);
    let made = token::make(random);
    let stored = token::stored(&made, salt, cx.clock().now());
    (made, stored)
}

/// Notes uses of a key.
pub(crate) async fn note_use(cx: &Cx, name: &str, from: Option<IpAddr>, count: u64) -> Result<()> {
    let (key, now) = (cx.key::<ApiKey>(None, name), cx.clock().now());
    cx.set_status::<ApiKey>(&key, |status: &mut ApiKeyStatus| {
        status.last_used = Some(now);
        status.last_address = from.map(|ip| ip.to_string());
        status.uses = status.uses.saturating_add(count);
    })
    .await
    .map(drop)
}

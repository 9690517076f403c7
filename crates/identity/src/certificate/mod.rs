//! Kind `certificate`: names, a key and who vouches for them.
//!
//! ```text
//! pending --issued--> valid --30 days left--> expiring --end--> expired
//!    |                  ^ \_______________________/ | renewed
//!    +--failed--> error-+        revoked <----------+ (revoke, from anywhere)
//! ```
//!
//! **Invariants.** Chain and key change in one write. A renewal that fails changes neither: the present certificate is
//! kept, and people are told. The key is a secret field and is never shown. A certificate of this kind is no login.

mod controller;
pub(crate) mod issue;
pub mod material;
pub mod panel;
mod rules;
mod sct;
mod snippet;
#[cfg(test)]
pub(crate) mod tests;
mod types;

pub use types::{
    CertificateSpec, CertificateStatus, Challenge, Issuer, KeyType, Level, OrderParams, Profile,
    RevokeParams, State,
};

pub use sct::Promise;

pub(crate) use rules::{is_name, wait};
pub(crate) use sct::enough;

use issue::Keep;
use model::{
    Action, Column, Danger, Kind, Resource, Scope, StreamKind, Unit, Verb, Way, WorkStyle, schema,
};
use runtime::{Place, Run, Seat, Subsystem, normal};
use std::sync::Arc;

/// Ties the kind to its types.
pub struct Certificate;

impl Resource for Certificate {
    const KIND: &'static Kind = &KIND;
    type Spec = CertificateSpec;
    type Status = CertificateStatus;
}

/// The declaration.
pub static KIND: Kind = Kind {
    name: "certificate",
    plural: "certificates",
    title: "Certificate",
    scope: Scope::Cluster,
    doc: "A certificate with its key: signed by the internal CA, by a public one (ACME), or imported. It is issued at once and renewed in time; when a renewal fails, the present one is kept and people are told. The setting `tls-certificate` names the one that the panel shows.",
    verbs: Verb::ALL,
    spec: schema::of::<CertificateSpec>,
    status: schema::of::<CertificateStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("state", "status.state"),
        Column::new("issuer", "spec.issuer"),
        Column::new("profile", "spec.profile"),
        Column::new("names", "status.names"),
        Column::new("not_after", "status.not_after"),
        Column::new("shown", "status.shown"),
        Column::new("age", "metadata.created").unit(Unit::Age),
        Column::new("level", "status.level").wide(),
        Column::new("issued_by", "status.issued_by").wide(),
        Column::new("fingerprint", "status.fingerprint").wide(),
    ],
    actions: &[
        Action {
            verb: "renew",
            doc: "Issues it anew for the same key. It is done by itself with 30 days, or a third of its life, left.",
            danger: Danger::None,
            style: WorkStyle::Procedure,
            input: schema::empty,
            claims: &["material"],
            deadline: 900,
            event: "renewed",
            examples: &["dvctl certificate renew web"],
        },
        Action {
            verb: "rotate",
            doc: "Issues it anew for a new key.",
            danger: Danger::None,
            style: WorkStyle::Procedure,
            input: schema::empty,
            claims: &["material"],
            deadline: 900,
            event: "rotated",
            examples: &["dvctl certificate rotate web"],
        },
        Action {
            verb: "order",
            doc: "Orders it from its public CA when that is due: there is none yet, its names have changed, it ends soon, or the CA suggests it. With `--force` in any case.",
            danger: Danger::None,
            style: WorkStyle::Procedure,
            input: schema::of::<OrderParams>,
            claims: &["material"],
            // A person may have to make TXT records meanwhile.
            deadline: 3 * 86_400,
            event: "ordered",
            examples: &[
                "dvctl certificate order panel",
                "dvctl certificate order panel web --force",
            ],
        },
        Action {
            verb: "proceed",
            doc: "Lets an order go on that waits until somebody has made TXT records, without looking for them.",
            danger: Danger::None,
            style: WorkStyle::Procedure,
            input: schema::empty,
            claims: &[],
            deadline: 60,
            event: "proceeded",
            examples: &["dvctl certificate proceed wild"],
        },
        Action {
            verb: "revoke",
            doc: "Has it refused from now on. It is not renewed by itself afterwards; `rotate` issues a new one.",
            danger: Danger::Disrupts,
            style: WorkStyle::Procedure,
            input: schema::of::<RevokeParams>,
            claims: &["material"],
            deadline: 300,
            event: "revoked",
            examples: &["dvctl certificate revoke web --reason key-compromise"],
        },
    ],
    streams: &[StreamKind {
        name: "snippet",
        doc: "Prints what a web server needs to show it: the configuration, and where chain and key go. The key itself is not in it.",
        way: Way::Read,
        ticketed: false,
        input: schema::of::<snippet::Params>,
    }],
    examples: &[
        "dvctl certificate snippet web --for nginx",
        "dvctl certificate create web --names web.example.org --names 192.0.2.10",
        "dvctl certificate create panel --issuer acme --account letsencrypt --names panel.example.org",
        "dvctl certificate create bought --issuer imported --chain chain.pem --private-key key.pem",
        "dvctl certificate list",
        "dvctl certificate expiring --days 14",
        "dvctl setting set tls-certificate --value bought",
    ],
};

/// The subsystem.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Api,
    seat: Seat::Api,
    normal: normal::<Certificate>,
    admit: rules::admit,
    runs: &[
        (
            "renew",
            Run::Procedure(|proc| Box::pin(issue::renew(proc, Keep::Key))),
        ),
        (
            "rotate",
            Run::Procedure(|proc| Box::pin(issue::renew(proc, Keep::Nothing))),
        ),
        ("order", Run::Procedure(|proc| Box::pin(issue::order(proc)))),
        (
            "proceed",
            Run::Procedure(|proc| {
                Box::pin(async move { proc.step("proceed", || issue::proceed(&proc)).await })
            }),
        ),
        (
            "revoke",
            Run::Procedure(|proc| {
                Box::pin(async move { proc.step("revoke", || issue::revoke(&proc)).await })
            }),
        ),
    ],
    undos: &[&crate::acme::order::WITHDRAW],
    streams: &[("snippet", snippet::stream)],
    finalizes: true,
    controllers: |_| vec![Arc::new(controller::Certificates::default())],
};

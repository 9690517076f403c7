//! Kind `pin`: what a peer that we call must show, besides a certificate that is good.
//!
//! **Invariants.** A pin only ever refuses: what the usual checks refuse, it does not let in. It is looked at in each
//! handshake, before anything is sent. A CA counts only when the certificate leads to it: one that merely lies in the
//! chain does not.

mod controller;
mod types;
pub mod verify;

#[cfg(test)]
mod tests;

pub use types::{Hash, PinSpec, PinStatus, PinType, Rotate, State, Violation};
pub(crate) use verify::standing;
pub use verify::{Pins, Trust, http, tls};

use model::{
    Action, Column, Danger, Error, Kind, Resource, Result, Scope, Verb, WorkStyle, schema,
};
use runtime::{Draft, Place, Run, Seat, Subsystem, Until, normal};
use serde_json::Value;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long a pin may last.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);
/// Backups of one pin.
const MOST: usize = 10;

/// Ties the kind to its types.
pub struct Pin;

impl Resource for Pin {
    const KIND: &'static Kind = &KIND;
    type Spec = PinSpec;
    type Status = PinStatus;
}

/// The declaration.
pub static KIND: Kind = Kind {
    name: "pin",
    plural: "pins",
    title: "Pin",
    scope: Scope::Cluster,
    doc: "What a peer that this cluster calls over TLS must show: a key, a certificate or a CA. ACME providers, key servers, OpenID providers and directories are held to it; one that shows another certificate, however well signed, is refused.",
    verbs: Verb::ALL,
    spec: schema::of::<PinSpec>,
    status: schema::of::<PinStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("peer", "spec.peer"),
        Column::new("type", "spec.type"),
        Column::new("state", "status.state"),
        Column::new("expires", "spec.expires"),
        Column::new("violations", "status.violations"),
        Column::new("primary", "spec.primary").wide(),
    ],
    actions: &[Action {
        verb: "rotate",
        doc: "Expects another hash from now on, for a year; the present one becomes the first backup.",
        danger: Danger::Disrupts,
        style: WorkStyle::Intent,
        input: schema::of::<Rotate>,
        claims: &[],
        deadline: 60,
        event: "rotated",
        examples: &[
            "dvctl pin rotate vault --primary 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        ],
    }],
    streams: &[],
    examples: &[
        "dvctl pin create vault --peer vault.example.org --primary 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "dvctl pin create acme --peer acme-v02.api.letsencrypt.org --type ca --primary 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "dvctl pin list",
    ],
};

/// The subsystem.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Api,
    seat: Seat::Api,
    normal: normal::<Pin>,
    admit,
    runs: &[(
        "rotate",
        Run::Intent {
            edit: rotate,
            until: |_| Until::Done,
        },
    )],
    undos: &[],
    streams: &[],
    finalizes: false,
    controllers: |_| vec![Arc::new(controller::PinController)],
};

/// A hash as people type it, in the form that is compared.
fn plain(field: &str, text: &str, algorithm: Hash) -> Result<String> {
    let plain = text.replace(':', "").to_ascii_lowercase();
    let (digits, name) = match algorithm {
        Hash::Sha256 => (64, "SHA-256"),
        Hash::Sha512 => (128, "SHA-512"),
    };
    match plain.len() == digits && plain.bytes().all(|b| b.is_ascii_hexdigit()) {
        true => Ok(plain),
        false => Err(Error::field(
            field,
            format!("`{text}` is not the {name} of something: {digits} hex digits"),
        )
        .hint("openssl x509 -in peer.pem -pubkey -noout | openssl pkey -pubin -outform DER | openssl dgst -sha256")),
    }
}

fn admit(draft: &mut Draft<'_>) -> Result<()> {
    let mut spec = draft.spec::<Pin>()?;
    let old = draft.old_spec::<Pin>()?;
    let peer = spec.peer.trim_end_matches('.').to_ascii_lowercase();
    spec.peer = match peer.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(ip) => ip.to_string(),
        Err(_) if crate::certificate::is_name(&peer) && !peer.starts_with("*.") => peer,
        Err(_) => {
            return Err(Error::field(
                "spec.peer",
                format!("`{}` is neither a DNS name nor an IP address", spec.peer),
            )
            .hint("as it stands in the URL, without https:// and port"));
        }
    };
    spec.primary = plain("spec.primary", &spec.primary, spec.algorithm)?;
    for (n, backup) in spec.backups.iter_mut().enumerate() {
        *backup = plain(&format!("spec.backups[{n}]"), backup, spec.algorithm)?;
    }
    let mut seen = vec![spec.primary.clone()];
    spec.backups.retain(|b| {
        let fresh = !seen.contains(b);
        seen.push(b.clone());
        fresh
    });
    let now = draft.now();
    let expires = spec.expires.unwrap_or_else(|| now.plus(LONGEST));
    // What was good when it came may stay when other fields change.
    let kept = old.is_some_and(|old| old.expires == Some(expires));
    if !kept && (expires <= now || expires.since(now) > LONGEST) {
        return Err(
            Error::field("spec.expires", "must be within a year from now")
                .hint("look at the peer again before then, and `dvctl pin rotate`"),
        );
    }
    spec.expires = Some(expires);
    draft.set_spec::<Pin>(&spec)
}

fn rotate(draft: &mut Draft<'_>, params: &Value) -> Result<()> {
    let asked: Rotate = serde_json::from_value(params.clone())
        .map_err(|_| Error::field("primary", "is missing"))?;
    let mut spec = draft.spec::<Pin>()?;
    let new = plain("primary", &asked.primary, spec.algorithm)?;
    let before = std::mem::replace(&mut spec.primary, new);
    spec.backups.insert(0, before);
    spec.backups.truncate(MOST);
    spec.expires = Some(draft.now().plus(LONGEST));
    draft.set_spec::<Pin>(&spec)
}

//! A machine that credentials are bound to: its TPM has proven which machine it is and what it has booted, and holds the one
//! key that stands for it.
//!
//! ```text
//! waiting -(challenge, prove)-> proven -> expiring -> expired      any -(revoke)-> revoked
//!                                 ^-------(challenge, prove)-+
//! ```
//!
//! **Invariants.** A proof is taken only of a TPM whose endorsement certificate leads to a maker that the machine names, that
//! is the same TPM as the first time, for a challenge that was given out minutes ago and that no other TPM can open, and
//! while its registers hold what they held. The key that stands for the machine was made in that TPM and cannot leave it. Who
//! comes with a bound credential has shown in the TLS handshake that he can use that key.

mod controller;
mod endorsement;
mod prove;
mod rules;
#[cfg(test)]
mod tests;
mod types;

pub(crate) use rules::is_at;
pub use types::{
    ChallengeParams, MachineSpec, MachineStatus, Open, Proof, ProveParams, RevokeParams, Revoked,
    State,
};

use model::{Action, Column, Danger, Kind, Resource, Scope, Unit, Verb, WorkStyle, schema};
use runtime::{Place, Run, Seat, Subsystem, Until, normal};
use std::sync::Arc;

/// Ties the kind to its types.
pub struct Machine;

impl Resource for Machine {
    const KIND: &'static Kind = &KIND;
    type Spec = MachineSpec;
    type Status = MachineStatus;
}

/// The declaration.
pub static KIND: Kind = Kind {
    name: "machine",
    plural: "machines",
    title: "Machine",
    scope: Scope::Cluster,
    doc: "A machine that API keys are bound to by its TPM: copied to another one, they are worth nothing. An administrator makes it and names the makers of TPMs that are trusted; on the machine itself `dvctl tpm enrol` proves which one it is, and again before the proof is too old.",
    verbs: Verb::ALL,
    spec: schema::of::<MachineSpec>,
    status: schema::of::<MachineStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("state", "status.state"),
        Column::new("until", "status.until"),
        Column::new("proven", "spec.proof.at").unit(Unit::Age),
        Column::new("description", "spec.description").wide(),
        Column::new("endorsement", "spec.endorsement").wide(),
    ],
    actions: &[
        Action {
            verb: "challenge",
            doc: "Gives a challenge that only the TPM with this endorsement certificate can answer; `dvctl tpm enrol` asks for it. The one before is worth nothing from then on.",
            danger: Danger::None,
            style: WorkStyle::Procedure,
            input: schema::of::<ChallengeParams>,
            claims: &["proof"],
            deadline: 60,
            event: "challenged",
            examples: &[
                "dvctl machine challenge builder1 --certificate MIIB --voucher ACMA --key ACMA",
            ],
        },
        Action {
            verb: "prove",
            doc: "Takes the answer to the challenge and signs a certificate for the key in the TPM; `dvctl tpm enrol` gives it.",
            danger: Danger::None,
            style: WorkStyle::Procedure,
            input: schema::of::<ProveParams>,
            claims: &["proof"],
            deadline: 60,
            event: "proven",
            examples: &[
                "dvctl machine prove builder1 --secret AAAA --quote AAAA --quote-signature AAAA --certified AAAA --certified-signature AAAA",
            ],
        },
        Action {
            verb: "remeasure",
            doc: "Takes whatever its registers hold when it proves itself next: after a new firmware, say. Until then it stays as it is.",
            danger: Danger::Disrupts,
            style: WorkStyle::Intent,
            input: schema::empty,
            claims: &[],
            deadline: 60,
            event: "to-be-remeasured",
            examples: &["dvctl machine remeasure builder1 --yes"],
        },
        Action {
            verb: "revoke",
            doc: "Trusts it no longer, for good: what is bound to it lets nobody in any more, what is open ends within seconds, and its certificate goes onto the revocation list.",
            danger: Danger::Disrupts,
            style: WorkStyle::Intent,
            input: schema::of::<RevokeParams>,
            claims: &[],
            deadline: 60,
            event: "revoked",
            examples: &["dvctl machine revoke builder1 --reason stolen --yes"],
        },
    ],
    streams: &[],
    examples: &[
        "dvctl machine create builder1 --makers tpm-makers.pem",
        "dvctl tpm enrol builder1",
        "dvctl machine list",
    ],
};

/// The subsystem.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Api,
    seat: Seat::Api,
    normal: normal::<Machine>,
    admit: rules::admit,
    runs: &[
        (
            "challenge",
            Run::Procedure(|proc| {
                Box::pin(async move { proc.step("challenge", || prove::challenge(&proc)).await })
            }),
        ),
        (
            "prove",
            Run::Procedure(|proc| {
                Box::pin(async move { proc.step("prove", || prove::prove(&proc)).await })
            }),
        ),
        (
            "remeasure",
            Run::Intent {
                edit: rules::remeasure,
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
    streams: &[],
    finalizes: true,
    controllers: |_| vec![Arc::new(controller::Machines)],
};

//! What happens to security and is no change of an object: each by a fixed name, with how much it matters and which
//! bodies of rules ask for it. Changes of objects have the names of their actions (`vm.start`) and need no entry.

use model::{Error, What};
use serde::{Deserialize, Serialize};

/// How much a row matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As wanted.
    #[default]
    Info,
    /// Somebody may want to look.
    Warning,
    /// Somebody must look.
    Critical,
}

/// A body of rules that asks for the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "their names are all that is to be said")]
pub enum Tag {
    #[serde(rename = "GDPR")]
    Gdpr,
    #[serde(rename = "HIPAA")]
    Hipaa,
    #[serde(rename = "SOC2")]
    Soc2,
    #[serde(rename = "PCI")]
    Pci,
    #[serde(rename = "ISO27001")]
    Iso27001,
}

/// One thing that may happen.
#[derive(Debug)]
pub struct Happening {
    /// Its name in the column `action`.
    pub action: &'static str,
    /// How much it matters.
    pub level: Level,
    /// Who asks for it.
    pub tags: &'static [Tag],
    /// What has happened.
    pub doc: &'static str,
}

const fn info(action: &'static str, doc: &'static str) -> Happening {
    Happening {
        action,
        level: Level::Info,
        tags: &[Tag::Gdpr, Tag::Soc2, Tag::Iso27001],
        doc,
    }
}

const fn warning(action: &'static str, doc: &'static str) -> Happening {
    Happening {
        level: Level::Warning,
        ..info(action, doc)
    }
}

const fn critical(action: &'static str, doc: &'static str) -> Happening {
    Happening {
        level: Level::Critical,
        ..info(action, doc)
    }
}

/// Somebody proved who he is.
pub static LOGIN_SUCCEEDED: Happening = info("auth.login.succeeded", "Somebody has logged in.");
/// Somebody did not prove it.
pub static LOGIN_FAILED: Happening = warning(
    "auth.login.failed",
    "A login was refused; the result says why, which the caller was not told.",
);
/// Too many wrong tries.
pub static LOGIN_LOCKED: Happening = warning(
    "auth.login.locked",
    "An account or address must wait before it may try again.",
);
/// A login that is unlike its user.
pub static LOGIN_RISKY: Happening = warning(
    "auth.login.risky",
    "A login was unlike those before of its user; the parameters say how and what was done.",
);
/// A login that is so unlike its user that it was refused.
pub static LOGIN_REFUSED: Happening = critical(
    "auth.login.refused",
    "Somebody showed all that was asked for and was refused, because the login was too unlike those before.",
);
/// A session was ended by its owner.
pub static LOGOUT: Happening = info("auth.logout", "Somebody has logged out.");
/// A token was given out.
pub static TOKEN_ISSUED: Happening = info("auth.token.issued", "A token was given to somebody.");
/// A token that must not be used any more was used.
pub static TOKEN_REUSED: Happening = critical(
    "auth.token.reused",
    "A token was used that had been used or revoked before: somebody may have copied it.",
);
/// A second factor was added.
pub static FACTOR_ENROLLED: Happening = info(
    "auth.factor.enrolled",
    "A second factor was added to an account.",
);
/// A second factor was taken away.
pub static FACTOR_REMOVED: Happening = warning(
    "auth.factor.removed",
    "A second factor was taken from an account.",
);
/// A wrong second factor.
pub static FACTOR_FAILED: Happening = warning("auth.factor.failed", "A second factor was wrong.");
/// A security key that somebody has copied.
pub static FACTOR_CLONED: Happening = critical(
    "auth.factor.cloned",
    "A security key was refused because its counter went back: there is a copy of it.",
);
/// A password is new.
pub static PASSWORD_CHANGED: Happening =
    info("auth.password.changed", "A password was set or changed.");
/// A password reset was asked for.
pub static RESET_ASKED: Happening = info("auth.reset.asked", "A password reset was asked for.");
/// A session begins.
pub static SESSION_CREATED: Happening = info("session.created", "A session has begun.");
/// A session ended by its age.
pub static SESSION_EXPIRED: Happening = info("session.expired", "A session has ended by its age.");
/// Somebody ended a session of somebody.
pub static SESSION_REVOKED: Happening = warning("session.revoked", "A session was ended by force.");
/// Somebody may not.
pub static PERMISSION_DENIED: Happening = warning(
    "security.permission_denied",
    "A request was refused, because its actor lacks a privilege or is unknown.",
);
/// Too many requests.
pub static RATE_LIMITED: Happening = warning(
    "security.rate_limited",
    "Requests of one caller were refused, because they were too many.",
);
/// A request that a page of somebody else has made, or that can be read two ways.
pub static REQUEST_REFUSED: Happening = warning(
    "security.request_refused",
    "A request was refused by its head: a page of another site sent it, it lacks the token of its login, or two readers could read it two ways.",
);
/// A certificate that is not ours, or is revoked.
pub static CERTIFICATE_REFUSED: Happening = warning(
    "security.certificate_refused",
    "A client certificate was refused.",
);
/// A request whose signature is wrong.
pub static SIGNATURE_REFUSED: Happening = critical(
    "security.signature_refused",
    "A signed request was refused: its signature is wrong, too old or was used before.",
);
/// Somebody has seen a secret.
pub static SECRET_REVEALED: Happening = warning(
    "secret.revealed",
    "The value of a secret was shown to somebody.",
);
/// A part of DebVisor has used a secret.
pub static SECRET_READ: Happening = info(
    "secret.read",
    "The value of a secret was read for something that names it.",
);
/// The trail itself was read out.
pub static EXPORTED: Happening =
    warning("audit.exported", "Rows of the audit trail were exported.");
/// Keys of the trail.
pub static KEYS_ROTATED: Happening = info(
    "audit.keys.rotated",
    "New rows are sealed with a new key; older keys still open older rows.",
);
/// The key of a subject is gone.
pub static SUBJECT_ERASED: Happening = warning(
    "audit.subject.erased",
    "The key of a person was destroyed: what rows say of him personally can no longer be read.",
);
/// The chain was looked through.
pub static VERIFIED: Happening = info("audit.verified", "The audit trail was verified.");
/// The chain is broken.
pub static BROKEN: Happening = critical(
    "audit.broken",
    "The audit trail was verified and is not as it was written.",
);

/// Everything that may happen.
pub static CATALOGUE: &[&Happening] = &[
    &LOGIN_SUCCEEDED,
    &LOGIN_FAILED,
    &LOGIN_LOCKED,
    &LOGIN_RISKY,
    &LOGIN_REFUSED,
    &LOGOUT,
    &TOKEN_ISSUED,
    &TOKEN_REUSED,
    &FACTOR_ENROLLED,
    &FACTOR_REMOVED,
    &FACTOR_CLONED,
    &FACTOR_FAILED,
    &PASSWORD_CHANGED,
    &RESET_ASKED,
    &SESSION_CREATED,
    &SESSION_EXPIRED,
    &SESSION_REVOKED,
    &PERMISSION_DENIED,
    &RATE_LIMITED,
    &REQUEST_REFUSED,
    &CERTIFICATE_REFUSED,
    &SIGNATURE_REFUSED,
    &SECRET_REVEALED,
    &SECRET_READ,
    &EXPORTED,
    &KEYS_ROTATED,
    &SUBJECT_ERASED,
    &VERIFIED,
    &BROKEN,
];

/// Whether an error means that somebody wanted what is not his.
pub(super) fn is_refusal(error: &Error) -> bool {
    matches!(error.what, What::Denied | What::Unauthenticated)
}

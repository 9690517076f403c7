//! Says who is there and who may what: users, groups, their factors and sessions, roles and grants, projects, the
//! internal certificate authority, and the conversations by which somebody logs in.
//!
//! It holds no socket and serves nobody: `server` reaches it through [`runtime::Authority`], [`runtime::Identities`] and
//! [`runtime::Access`].

pub mod access;
pub mod acme;
pub mod api_key;
pub mod ca;
pub mod certificate;
pub mod factor;
mod files;
pub mod grant;
pub mod group;
pub mod login;
pub mod machine;
pub mod mail;
pub mod member;
pub mod pin;
pub mod project;
pub mod quota;
pub mod realm;
pub mod role;
pub mod secret;
pub mod secret_backend;
pub mod session;
pub mod user;

pub use ca::{Ca, CaConfig, Surroundings};

use model::Timestamp;
use runtime::{SecretUser, Subsystem};
use std::sync::Arc;

/// Where the time comes from.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The account of certificates for who the machine itself vouches for: the way back in when everybody else is locked out.
/// No user can have this name.
pub const ADMINISTRATOR: &str = "administrator";

/// How a secret begins that was kept: a rule sees it as it is stored. Nobody can send such a text but
/// the one that is stored.
const KEPT: &str = "$sealed:";

/// What this crate declares.
pub static SUBSYSTEMS: &[&Subsystem] = &[
    &project::SUBSYSTEM,
    &realm::SUBSYSTEM,
    &quota::SUBSYSTEM,
    &user::SUBSYSTEM,
    &group::SUBSYSTEM,
    &factor::SUBSYSTEM,
    &session::SUBSYSTEM,
    &api_key::SUBSYSTEM,
    &api_key::policy::SUBSYSTEM,
    &secret::SUBSYSTEM,
    &secret_backend::SUBSYSTEM,
    &role::SUBSYSTEM,
    &grant::SUBSYSTEM,
    &member::SUBSYSTEM,
    &ca::kind::SUBSYSTEM,
    &acme::SUBSYSTEM,
    &certificate::SUBSYSTEM,
    &pin::SUBSYSTEM,
    &machine::SUBSYSTEM,
];

/// Whose copies of secrets this crate's kinds speak for.
pub fn secret_users() -> Vec<Arc<dyn SecretUser>> {
    vec![Arc::new(secret_backend::PasswordThere)]
}

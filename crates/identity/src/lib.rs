//! Says who is there: the internal certificate authority, the login that trades a one-time code for a client
//! certificate, and the kind `project`.
//!
//! It holds no socket and serves nobody: `server` reaches it through [`runtime::Authority`]. The only identity for now
//! is one administrator.

pub mod access;
pub mod ca;
mod files;
pub mod grant;
pub mod login;
pub mod project;
pub mod role;

pub use ca::{Ca, CaConfig};

use model::Timestamp;
use runtime::Subsystem;
use std::sync::Arc;

/// Where the time comes from.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The account of the one administrator.
pub const ADMINISTRATOR: &str = "administrator";

/// What this crate declares.
pub static SUBSYSTEMS: &[&Subsystem] = &[&project::SUBSYSTEM, &role::SUBSYSTEM, &grant::SUBSYSTEM];

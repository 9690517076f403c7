//! The spine: one gate for every request, a watch cache for every read, controllers for every loop and durable tasks
//! for every long verb.
//!
//! **Invariants.** Nothing outside this crate writes an object except through [`Gate`] and [`Desk`] (people and, with a
//! system actor, controllers) or [`Cx::set_status`] (the one controller that owns the status). A controller takes no
//! hint. A guest never depends on a process of this crate being alive.

pub mod audit;
pub mod event;
pub mod law;
pub mod life;
pub mod limit;
pub mod link;
pub mod node;
pub mod resilience;
pub mod setting;
pub mod signing;
pub mod store_kind;
pub mod stream;
pub mod tally;
pub mod task;
pub mod usage;

mod authority;
mod cache;
mod clock;
mod cx;
mod desk;
mod draft;
mod engine;
mod gate;
mod identities;
mod key;
mod offer;
mod registry;
mod seat;
mod secret;
mod secret_use;
mod subsystem;
#[cfg(test)]
mod tests;
pub mod trace;

pub use authority::{Authority, CaCertificate, Document, Holder, Issued, LoginCode, TlsIdentity};
pub use cache::{Cache, Delta, Listed, Query, Row};
pub use clock::{Bearing, Clock, ManualClock, SystemClock};
pub use cx::{Cx, CxBuilder, Obj};
pub use desk::{Answer, Desk, WatchEvent};
pub use draft::Draft;
pub use engine::{Controller, Engine, Next, Watch};
pub use gate::{
    Access, AccessRules, Actor, ActorKind, Admitted, Gate, Op, Request, Surface, View, Wish,
};
pub use identities::{COOKIE, FLOW_COOKIE, Identities, Known, Proof, Said, Talk, Whence};
pub use key::{object_key, object_ref, unique_key};
pub use offer::{Offer, Sort};
pub use registry::{Declared, Registry};
pub use seat::Seat;
pub use secret::{NoSeal, Seal, renew_all as renew_secrets};
pub use secret_use::{Change, SecretUser, SecretUsers};
pub use store::{Key, Revision};
pub use stream::{Msg, OpenFn, StreamIo, StreamRequest};
pub use subsystem::{Place, Run, Subsystem, Until, no_controllers, normal, nothing_to_admit};
pub use task::{Proc, Undo, UndoCall};
pub use trace::Trace;

/// The subsystems that the spine itself brings: `task`, `node`, `setting`, `flag`, `store`, `audit-chain`.
pub static SUBSYSTEMS: &[&Subsystem] = &[
    &task::SUBSYSTEM,
    &node::SUBSYSTEM,
    &setting::SUBSYSTEM,
    setting::FLAG,
    &store_kind::SUBSYSTEM,
    &audit::SUBSYSTEM,
];

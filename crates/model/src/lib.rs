//! The words of DebVisor: kinds and actions, names, quantities, labels, conditions, errors and the schema vocabulary.
//!
//! Pure data and rules. It does no I/O, knows no async, and imports no other crate of ours.

pub mod schema;

mod condition;
mod error;
mod kind;
mod labels;
mod meta;
mod name;
mod quantity;
mod time;
mod uid;

pub use condition::{Condition, ConditionStatus};
pub use error::{Error, Problem, Violation, What, nearest};
pub use kind::{
    Action, Column, Danger, Kind, Resource, SchemaFn, Scope, StreamKind, Unit, Verb, Way, WorkStyle,
};
pub use labels::{Labels, Selector};
pub use meta::{Hold, Meta, Object, ObjectRef, Owner};
pub use name::Name;
pub use quantity::{Bytes, Millis, Seconds};
pub use time::Timestamp;
pub use uid::Uid;

/// Result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The version that files and API answers carry.
pub const VERSION: &str = "v1";

//! Pools: places where disks are kept. A pool never knows what the disks in it are for.
//!
//! ```text
//! unknown ─► online ◄─► degraded       (filling up, or full: nothing new is put into it)
//!              └──► offline            (its folder is missing or is not its own; comes back by itself)
//! ```
//! **Invariants.** A pool's folder belongs to one pool, which a marker file in it says. Once it was prepared, a missing
//! folder means a missing disk: it is never made anew, so that no guest gets an empty disk in place of its own.

#[cfg(test)]
mod conformance;
mod controller;
mod dir;
mod driver;
mod rules;
mod types;

pub(crate) use controller::refuses;
pub use controller::{Usable, usable};
pub use dir::Dir;
pub use driver::{Driver, ImageRecord, Layer, Make, Origin, Seen, Usage};
pub use types::{Content, DriverKind, KIND, Pool, PoolSpec, PoolState, PoolStatus};

use runtime::{Place, Seat, Subsystem, normal};
use std::sync::Arc;

/// The kind `pool`.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Agent,
    seat: Seat::Field("status.node"),
    normal: normal::<Pool>,
    admit: rules::admit,
    runs: &[],
    undos: &[],
    streams: &[],
    finalizes: true,
    controllers: |_| vec![Arc::new(controller::Pools)],
};

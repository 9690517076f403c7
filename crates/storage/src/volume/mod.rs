//! Volumes: disks in pools. A volume never knows which guest uses it.
//!
//! **Invariants.** A volume grows and never shrinks. Its file is there whole or not at all. Once it was there, a
//! missing file is an error and never a reason to make an empty one. While a guest has it open, its QEMU grows it.

mod controller;
mod rules;
mod types;

pub use controller::open;
pub use types::{KIND, Provisioned, Volume, VolumeFormat, VolumeSpec, VolumeState, VolumeStatus};

use runtime::{Place, Seat, Subsystem, normal};
use std::sync::Arc;

/// The kind `volume`.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Agent,
    seat: Seat::With {
        kind: "pool",
        field: "spec.pool",
    },
    normal: normal::<Volume>,
    admit: rules::admit,
    runs: &[],
    undos: &[],
    streams: &[],
    finalizes: true,
    controllers: |_| vec![Arc::new(controller::Volumes)],
};

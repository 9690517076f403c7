//! Volumes: the disks of guests.

mod types;

pub use types::{KIND, Provisioned, Volume, VolumeFormat, VolumeSpec, VolumeState, VolumeStatus};

//! Pools, volumes and images: where the disks of guests live. It never knows of a guest.

pub mod image;
pub mod pool;
pub mod volume;

mod local;
mod qemu_img;

pub use local::{FetchLimits, Local};

use runtime::Subsystem;

/// The kinds of this crate.
pub static SUBSYSTEMS: &[&Subsystem] = &[&pool::SUBSYSTEM, &volume::SUBSYSTEM, &image::SUBSYSTEM];

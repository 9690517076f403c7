//! Pools, volumes and images: where the disks of guests live. It never knows of a guest.

pub mod image;
pub mod pool;
pub mod volume;

mod qemu_img;

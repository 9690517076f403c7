//! Images: disks that volumes are made of.

pub mod recipe;

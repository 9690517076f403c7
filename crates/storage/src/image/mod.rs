//! Images: disks that volumes are made of.

pub mod inspect;
pub mod recipe;
mod types;

pub use inspect::Format;
pub use types::{Image, ImageSpec, ImageState, ImageStatus, KIND, RecipeName, Source, Upload};

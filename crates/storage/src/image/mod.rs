//! Images: disks that volumes are made from. An image never changes once it is ready.
//!
//! ```text
//! waiting ─► importing ─► ready
//!                ▲  └───► failed ─┐
//!                └────────────────┘ action `import`, or a new upload
//! ```
//! **Invariants.** Nothing of a foreign image is opened by any tool before its header was found to refer to nothing
//! outside of it; and what then opens it has no rights and no network. An image is in its pool whole or not at all.

mod controller;
mod fetch;
mod import;
pub mod recipe;
mod rules;
mod types;
mod upload;

pub use types::{
    Format, Image, ImageSpec, ImageState, ImageStatus, KIND, RecipeName, Source, Upload,
};

use runtime::{Place, Run, Seat, Subsystem, normal};
use std::sync::Arc;

/// The kind `image`.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Agent,
    seat: Seat::With {
        kind: "pool",
        field: "spec.pool",
    },
    normal: normal::<Image>,
    admit: rules::admit,
    runs: &[(
        "import",
        Run::Procedure(|proc| Box::pin(import::import(proc))),
    )],
    undos: &[&import::UNSTAGE],
    streams: &[("upload", |cx, request, io| {
        Box::pin(upload::open(cx, request, io))
    })],
    finalizes: true,
    controllers: |_| vec![Arc::new(controller::Images)],
};

//! What the surfaces say about themselves, for people and for tests: the commands of `dvctl`, the table of privileges,
//! and which surface offers which action.
//!
//! Pure: the same registry gives the same text, so that it can be committed and compared.

mod commands;
mod privileges;
mod surfaces;

pub use commands::commands;
pub(crate) use privileges::OWN;
pub use privileges::privileges;
pub use surfaces::{Offered, surfaces};

/// The first line of a text, with what a table's cell cannot hold taken out.
fn cell(text: &str) -> String {
    text.lines().next().unwrap_or_default().replace('|', "\\|")
}

//! Revisions as clients send them back.

use model::{Error, Result};
use runtime::Revision;

/// Reads a revision that we gave out.
pub(crate) fn parse_revision(text: &str) -> Result<Revision> {
    text.trim_matches('"').parse().map(Revision).map_err(|_| {
        Error::field("?after", format!("`{text}` is not a revision"))
            .hint("send back the `revision` of a list or of an event as it was given")
    })
}

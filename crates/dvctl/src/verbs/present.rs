//! Shows an object, or says in a line what became of it.

use crate::connect::Answer;
use crate::failure::Result;
use crate::output::{Format, indent, name_of, yaml};
use crate::session::Session;
use serde_json::Value;

/// Shows the object of an answer in the chosen format; in tables only `line`.
pub fn object(s: &Session, answer: &Answer, line: &str) -> Result<()> {
    match s.format {
        Format::Json => s.screen.put_bytes(&indent(&answer.body)),
        Format::Yaml => s.screen.put(&yaml(&answer.json()?)?),
        Format::Name => s.screen.put(&format!("{}\n", name_of(&answer.json()?))),
        Format::Table | Format::Wide => s.screen.put(&format!("{line}\n")),
    }
}

/// The same for an object at hand.
pub fn value(s: &Session, object: &Value, line: &str) -> Result<()> {
    match s.format {
        Format::Json => s.screen.put_bytes(&indent(object.to_string().as_bytes())),
        Format::Yaml => s.screen.put(&yaml(object)?),
        Format::Name => s.screen.put(&format!("{}\n", name_of(object))),
        Format::Table | Format::Wide => s.screen.put(&format!("{line}\n")),
    }
}

//! What is shown and how: tables, JSON as the API gave it, YAML, differences, progress.

mod asker;
mod diff;
mod human;
mod indent;
mod progress;
mod screen;
mod table;

pub use asker::Asker;
pub use diff::unified;
pub use human::{now, shown, tidy};
pub use indent::indent;
pub use progress::Progress;
pub use screen::Screen;
pub use table::Table;

use crate::failure::{Failure, Result};
use serde_json::Value;

/// `--output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns.
    Table,
    /// All columns.
    Wide,
    /// The API's JSON.
    Json,
    /// The same as YAML.
    Yaml,
    /// `kind/name`.
    Name,
}

impl Format {
    /// From the word on the command line.
    pub fn from_word(word: Option<&str>) -> Format {
        match word {
            Some("wide") => Format::Wide,
            Some("json") => Format::Json,
            Some("yaml") => Format::Yaml,
            Some("name") => Format::Name,
            _ => Format::Table,
        }
    }

    /// For people, not for programs.
    pub fn is_table(self) -> bool {
        matches!(self, Format::Table | Format::Wide)
    }
}

/// A value as YAML.
pub fn yaml(value: &Value) -> Result<String> {
    serde_yaml_ng::to_string(value).map_err(|e| Failure::io("writing YAML", e))
}

/// `kind/name` of an object.
pub fn name_of(object: &Value) -> String {
    let text = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or("")
    };
    format!("{}/{}", text("/kind"), text("/metadata/name"))
}

//! The command line, made from the registry: shapes of values, flags from schemas, commands from kinds.

mod command;
mod flag;
mod path;
mod shape;

pub use command::{BUILTINS, Before, before, dotted, kind_command, kind_verbs, root};
pub use flag::{Flag, flags_of};
pub use path::{Step, at, parse_path, put};
pub use shape::{Shape, word};

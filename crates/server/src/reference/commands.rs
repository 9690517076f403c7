//! The reference of `dvctl`: a table of commands for every kind.

use super::cell;
use model::{Danger, Kind, Scope, Verb};
use runtime::Registry;
use serde_json::Value;
use std::fmt::Write;

/// Command, the verb of the kind that it needs, what it does.
const COMMON: &[(&str, Verb, &str)] = &[
    ("list", Verb::Read, "shows a table of them"),
    ("show NAME", Verb::Read, "shows one"),
    ("watch [NAME]", Verb::Read, "shows changes as they happen"),
    (
        "explain NAME",
        Verb::Read,
        "says what is wanted, what is, and what it waits for",
    ),
    ("wait NAME", Verb::Read, "waits for a condition"),
    ("create NAME", Verb::Create, "makes one"),
    ("set NAME", Verb::Update, "changes fields"),
    ("edit NAME", Verb::Update, "opens one in an editor"),
    ("delete NAME", Verb::Delete, "removes one"),
];

/// The commands of `dvctl` as Markdown: `api/commands.md`.
pub fn commands(registry: &Registry) -> String {
    let mut out = String::from(
        "# Commands of dvctl\n\nMade from the registry by `cargo xtask api`. Options of each command: `dvctl KIND VERB --help`.\n",
    );
    for declared in registry.iter() {
        section(&mut out, declared.kind());
    }
    out
}

/// Whether a field says when the object is over.
fn ends(schema: model::SchemaFn) -> bool {
    let schema = schema();
    let fields = schema.get("properties").and_then(Value::as_object);
    fields.is_some_and(|fields| {
        let marked = |field: &Value| model::schema::flagged(field, model::schema::EXPIRES);
        fields.values().any(marked)
    })
}

fn section(out: &mut String, kind: &Kind) {
    let scope = match kind.scope {
        Scope::Cluster => "of the cluster",
        Scope::Project | Scope::Any => "in a project",
    };
    let name = kind.name;
    let _ = write!(
        out,
        "\n## {name}\n\n{} ({scope})\n\n| command | does |\n|---|---|\n",
        kind.doc.lines().next().unwrap_or_default()
    );
    for (verb, needs, does) in COMMON {
        if kind.allows(*needs) {
            let _ = writeln!(out, "| `dvctl {name} {verb}` | {does} |");
        }
    }
    if [kind.status, kind.spec].into_iter().any(ends) {
        let _ = writeln!(
            out,
            "| `dvctl {name} expiring [--days N]` | shows those that end soon, or have ended |"
        );
    }
    for action in kind.actions {
        let danger = match action.danger {
            Danger::None => "",
            Danger::Disrupts => " (disrupts)",
            Danger::Destroys => " (destroys)",
        };
        let _ = writeln!(
            out,
            "| `dvctl {name} {} NAME` | {}{danger} |",
            action.verb,
            cell(action.doc)
        );
    }
    for stream in kind.streams {
        let _ = writeln!(
            out,
            "| `dvctl {name} {} NAME` | {} |",
            stream.name,
            cell(stream.doc)
        );
    }
}

//! The table of privileges: what a role can be given, and what each allows.

use super::cell;
use model::Danger;
use runtime::{Registry, Sort};
use std::fmt::Write;

/// Privileges over what is no object: kind, verb, what they allow.
pub(crate) const OWN: &[(&str, &str, &str)] = &[
    (
        "registry",
        "read",
        "read the declaration: registry, OpenAPI, docs, GraphQL introspection, gRPC reflection",
    ),
    ("event", "read", "read and follow events"),
    ("metrics", "read", "read `/metrics`"),
    ("health", "read", "read `/health/detail`"),
    ("session", "read", "ask who one is"),
];

/// The table of privileges as Markdown: `api/privileges.md`.
pub fn privileges(registry: &Registry) -> String {
    let mut out = String::from(
        "# Privileges\n\nMade from the registry by `cargo xtask api`. The gate asks for one of these before every request, \
         whatever surface it comes through; who lacks it is answered `PERMISSION_DENIED` with its name.\n\n\
         | privilege | allows | danger |\n|---|---|---|\n",
    );
    let mut rows: Vec<(String, Vec<String>, Danger)> = Vec::new();
    for offer in registry.offers() {
        let privilege = offer.privilege();
        let allows = match offer.sort {
            Sort::Common => offer.verb.to_owned(),
            Sort::Action | Sort::Stream => cell(offer.doc),
        };
        match rows.iter_mut().find(|(name, _, _)| *name == privilege) {
            Some((_, all, danger)) => {
                all.push(allows);
                if offer.danger != Danger::None {
                    *danger = offer.danger;
                }
            }
            None => rows.push((privilege, vec![allows], offer.danger)),
        }
    }
    for (privilege, allows, danger) in rows {
        let danger = match danger {
            Danger::None => "",
            Danger::Disrupts => "disrupts",
            Danger::Destroys => "destroys",
        };
        let _ = writeln!(out, "| `{privilege}` | {} | {danger} |", allows.join(", "));
    }
    for (kind, verb, allows) in OWN {
        let _ = writeln!(out, "| `{kind}.{verb}` | {allows} | |");
    }
    out
}

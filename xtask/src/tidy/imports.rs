//! The import table: which crate of ours may import which, compared with what cargo says.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Faults;
use crate::{sh, tree};

/// The table of ARCHITECTURE.md. A new crate needs a row here before it compiles in CI.
const TABLE: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("store", &["model"]),
    ("runtime", &["model", "store"]),
    ("host", &["model"]),
    ("tpm", &[]),
    ("identity", &["model", "runtime", "host", "tpm"]),
    ("storage", &["model", "runtime", "host"]),
    ("network", &["model", "runtime", "host"]),
    (
        "compute",
        &["model", "runtime", "host", "storage", "network"],
    ),
    ("server", &["model", "runtime"]),
    ("dvctl", &["model", "tpm"]),
    (
        "debvisord",
        &[
            "model", "store", "runtime", "host", "identity", "storage", "network", "compute",
            "server",
        ],
    ),
    ("xtask", &[]),
    // Drives the real binaries from outside.
    ("system-tests", &[]),
];

/// What tests may import besides all that their crate stands on.
const IN_TESTS: &[(&str, &str)] = &[
    // A real certificate authority behind the TLS of the tests; the server itself knows only a trait.
    ("server", "identity"),
    // Every kind that there is, because the laws are checked over all of them.
    ("server", "compute"),
    ("server", "network"),
    ("server", "storage"),
    // The real server, which the tests run the real program against.
    ("dvctl", "identity"),
    ("dvctl", "runtime"),
    ("dvctl", "server"),
    ("dvctl", "store"),
];

/// A crate of that name is a sign of a missing word in `model` or a missing verb in `host`.
const FORBIDDEN: &[&str] = &[
    "utils", "util", "common", "core", "helpers", "helper", "manager", "service", "shared", "misc",
];

/// One crate of ours and the crates of ours it imports.
struct Member {
    name: String,
    imports: Vec<Import>,
}

struct Import {
    name: String,
    /// In tests only. They may stand on all that their crate stands on indirectly, such as the store in memory.
    in_tests: bool,
}

pub fn check() -> Result<Faults> {
    let mut command = tree::cargo();
    command.args([
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
        "--offline",
    ]);
    faults(&members(&mut command)?)
}

fn members(command: &mut Command) -> Result<Vec<Member>> {
    let metadata: Value = serde_json::from_str(&sh::output(command)?)?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata lists no packages")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(packages
        .iter()
        .map(|package| Member {
            name: text(&package["name"]),
            imports: package["dependencies"]
                .as_array()
                .into_iter()
                .flatten()
                // Only a dependency inside this tree has a path.
                .filter(|dependency| dependency["path"].is_string())
                .map(|dependency| Import {
                    name: text(&dependency["name"]),
                    in_tests: dependency["kind"] == "dev",
                })
                .collect(),
        })
        .collect())
}

fn faults(members: &[Member]) -> Result<Faults> {
    let mut faults = Faults::new();
    for member in members {
        let name = member.name.as_str();
        if FORBIDDEN.contains(&name) {
            faults.push(format!(
                "crate `{name}` has a name that says nothing: name what it is"
            ));
        }
        let Some((_, allowed)) = TABLE.iter().find(|(row, _)| *row == name) else {
            faults.push(format!(
                "crate `{name}` has no row in the import table (xtask/src/tidy/imports.rs and ARCHITECTURE.md)"
            ));
            continue;
        };
        for Import {
            name: import,
            in_tests,
        } in &member.imports
        {
            let import = import.as_str();
            let fine = allowed.contains(&import)
                || (*in_tests
                    && (below(name).contains(&import) || IN_TESTS.contains(&(name, import))));
            if !fine {
                faults.push(format!(
                    "crate `{name}` may not import `{import}`; it may import {}",
                    if allowed.is_empty() {
                        "none of ours".into()
                    } else {
                        allowed.join(", ")
                    }
                ));
            }
        }
    }
    Ok(faults)
}

/// All that a crate stands on, directly or not.
fn below(name: &str) -> Vec<&'static str> {
    let row = |name: &str| {
        TABLE
            .iter()
            .find(|(row, _)| *row == name)
            .map_or(&[][..], |(_, imports)| imports)
    };
    let mut found: Vec<&str> = row(name).to_vec();
    let mut at = 0;
    while at < found.len() {
        found.extend(row(found[at]));
        at += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, imports: &[&str]) -> Faults {
        check_sort(name, imports, false)
    }

    fn check_sort(name: &str, imports: &[&str], in_tests: bool) -> Faults {
        let imports = imports
            .iter()
            .map(|&import| Import {
                name: import.to_owned(),
                in_tests,
            })
            .collect();
        faults(&[Member {
            name: name.to_owned(),
            imports,
        }])
        .unwrap()
    }

    #[test]
    fn an_import_outside_the_table_is_a_fault() {
        assert_eq!(check("server", &["model", "runtime"]), Faults::new());
        assert!(check("server", &["compute"])[0].contains("may not import `compute`"));
        assert!(check("dvctl", &["runtime"])[0].contains("it may import model"));
    }

    #[test]
    fn tests_may_stand_on_what_their_crate_stands_on() {
        assert_eq!(check_sort("identity", &["store"], true), Faults::new());
        assert_eq!(check_sort("identity", &["store"], false).len(), 1);
        assert_eq!(check_sort("model", &["compute"], true).len(), 1);
    }

    #[test]
    fn an_unknown_or_meaningless_crate_is_a_fault() {
        assert!(check("billing", &[])[0].contains("no row"));
        assert!(check("utils", &[])[0].contains("says nothing"));
    }

    #[test]
    fn the_table_has_no_cycle() {
        for (at, (name, imports)) in TABLE.iter().enumerate() {
            for import in *imports {
                let row = TABLE.iter().position(|(row, _)| row == import).unwrap();
                assert!(
                    row < at,
                    "`{name}` imports `{import}`, which stands below it"
                );
            }
        }
    }
}

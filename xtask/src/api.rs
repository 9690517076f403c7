//! `cargo xtask api`: writes `api/`, what the declarations look like from outside, so that a change of one shows its whole effect in one diff.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{sh, tree};

/// Options of `cargo xtask api`.
#[derive(clap::Args)]
pub struct Args {
    /// Change nothing; fail when a file is not what the declarations say
    #[arg(long)]
    check: bool,
}

/// One golden file.
struct Golden {
    name: &'static str,
    text: String,
}

/// `cargo xtask api [--check]`.
pub fn command(args: &Args) -> Result<()> {
    if args.check {
        return check();
    }
    fs::create_dir_all(folder())?;
    for Golden { name, text } in golden()? {
        let path = folder().join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("wrote {}", folder().display());
    Ok(())
}

/// Fails when a committed file differs from what the declarations say now.
pub fn check() -> Result<()> {
    let mut stale = Vec::new();
    for Golden { name, text } in golden()? {
        let committed = fs::read_to_string(folder().join(name)).unwrap_or_default();
        if let Some(line) = first_difference(&committed, &text) {
            stale.push(format!("api/{name} differs from line {line}"));
        }
    }
    if !stale.is_empty() {
        bail!(
            "{}: run `cargo xtask api` and look at the diff",
            stale.join(", ")
        );
    }
    println!("api: no drift");
    Ok(())
}

fn folder() -> PathBuf {
    tree::root().join("api")
}

/// The number of the first line that is not the same, from 1.
fn first_difference(committed: &str, now: &str) -> Option<usize> {
    if committed == now {
        return None;
    }
    let same = committed
        .lines()
        .zip(now.lines())
        .take_while(|(a, b)| a == b)
        .count();
    Some(same + 1)
}

fn golden() -> Result<Vec<Golden>> {
    sh::run(tree::cargo().args(["build", "--locked", "--quiet", "-p", "debvisord"]))?;
    let daemon = tree::target().join("debug/debvisord");
    let print = |what: &str| sh::output(Command::new(&daemon).args(["--print", what]));
    let pretty = |text: String| -> Result<String> {
        let value: Value = serde_json::from_str(&text).context("the daemon printed no JSON")?;
        Ok(format!("{}\n", serde_json::to_string_pretty(&value)?))
    };
    let registry = pretty(print("registry")?)?;
    let proto = tree::root().join("crates/server/proto/debvisor.proto");
    Ok(vec![
        Golden {
            name: "openapi.json",
            text: pretty(print("openapi")?)?,
        },
        Golden {
            name: "schema.graphql",
            text: print("graphql")?,
        },
        Golden {
            name: "debvisor.proto",
            text: fs::read_to_string(&proto)
                .with_context(|| format!("cannot read {}", proto.display()))?,
        },
        Golden {
            name: "commands.md",
            text: commands(&serde_json::from_str(&registry)?),
        },
        Golden {
            name: "registry.json",
            text: registry,
        },
    ])
}

/// The reference of `dvctl`, from the registry it reads.
fn commands(registry: &Value) -> String {
    let mut out = String::from(
        "# Commands of dvctl\n\nMade from the registry by `cargo xtask api`. Options of each command: `dvctl KIND VERB --help`.\n",
    );
    for kind in registry["kinds"].as_array().into_iter().flatten() {
        let name = word(kind, "name");
        let scope = if kind["scope"] == "cluster" {
            "of the cluster"
        } else {
            "in a project"
        };
        out.push_str(&format!(
            "\n## {name}\n\n{} ({scope})\n\n| command | does |\n|---|---|\n",
            first_line(kind)
        ));
        let verbs: Vec<_> = kind["verbs"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        for (verb, needs, does) in BASIC {
            if verbs.contains(needs) {
                out.push_str(&format!("| `dvctl {name} {verb}` | {does} |\n"));
            }
        }
        for action in kind["actions"].as_array().into_iter().flatten() {
            let danger = match word(action, "danger") {
                "disrupts" => " (disrupts)",
                "destroys" => " (destroys)",
                _ => "",
            };
            out.push_str(&format!(
                "| `dvctl {name} {} NAME` | {}{danger} |\n",
                word(action, "verb"),
                first_line(action)
            ));
        }
        for stream in kind["streams"].as_array().into_iter().flatten() {
            out.push_str(&format!(
                "| `dvctl {name} {} NAME` | {} |\n",
                word(stream, "name"),
                first_line(stream)
            ));
        }
    }
    out
}

/// Command, the verb of the registry it needs, what it does.
const BASIC: &[(&str, &str, &str)] = &[
    ("list", "read", "shows a table of them"),
    ("show NAME", "read", "shows one"),
    ("watch [NAME]", "read", "shows changes as they happen"),
    (
        "explain NAME",
        "read",
        "says what is wanted, what is, and what it waits for",
    ),
    ("wait NAME", "read", "waits for a condition"),
    ("create NAME", "create", "makes one"),
    ("set NAME", "update", "changes fields"),
    ("edit NAME", "update", "opens one in an editor"),
    ("delete NAME", "delete", "removes one"),
];

fn word<'a>(of: &'a Value, field: &str) -> &'a str {
    of[field].as_str().unwrap_or_default()
}

fn first_line(of: &Value) -> &str {
    word(of, "doc").lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_is_named_by_line() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), Some(2));
        assert_eq!(first_difference("", "a\n"), Some(1));
    }

    #[test]
    fn each_kind_has_its_commands() {
        let registry = serde_json::json!({"kinds": [{
            "name": "lamp", "doc": "A lamp.\nMore.", "scope": "project", "verbs": ["read", "delete"],
            "actions": [{"verb": "break", "doc": "Breaks it.", "danger": "destroys"}], "streams": []
        }]});
        let text = commands(&registry);
        assert!(text.contains("## lamp\n\nA lamp. (in a project)"), "{text}");
        assert!(
            text.contains("| `dvctl lamp break NAME` | Breaks it. (destroys) |"),
            "{text}"
        );
        assert!(!text.contains("lamp create"), "{text}");
    }
}

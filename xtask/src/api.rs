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

    /// Write also when something that clients may use is gone without having been deprecated before
    #[arg(long)]
    allow_removal: bool,
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
    let golden = golden()?;
    if !args.allow_removal {
        refuse_removal(&golden)?;
    }
    for Golden { name, text } in golden {
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

/// A client that was made from the committed description goes on working: what it names may go only after it has been
/// committed as deprecated.
fn refuse_removal(golden: &[Golden]) -> Result<()> {
    let Ok(committed) = fs::read_to_string(folder().join("openapi.json")) else {
        return Ok(());
    };
    let Some(now) = golden.iter().find(|g| g.name == "openapi.json") else {
        return Ok(());
    };
    let gone = removed(
        &serde_json::from_str(&committed).context("api/openapi.json is not JSON")?,
        &serde_json::from_str(&now.text)?,
    );
    if gone.is_empty() {
        return Ok(());
    }
    bail!(
        "gone from api/openapi.json without having been deprecated: {}\nmark it as deprecated first (`#[deprecated]`, or `deprecated` in its schema) and \
         remove it at least six months later, or give --allow-removal when no release had it",
        gone.join(", ")
    )
}

/// Operations, and fields of schemas, that are in one description and not in a later one, but for those that were
/// deprecated.
fn removed(old: &Value, new: &Value) -> Vec<String> {
    let mut out = Vec::new();
    for (path, item) in old["paths"].as_object().into_iter().flatten() {
        for (method, operation) in item.as_object().into_iter().flatten() {
            let known = operation["operationId"].is_string();
            if known && operation["deprecated"] != true && new["paths"][path][method].is_null() {
                out.push(format!("{} {path}", method.to_ascii_uppercase()));
            }
        }
    }
    for (name, schema) in old["components"]["schemas"]
        .as_object()
        .into_iter()
        .flatten()
    {
        fields_removed(schema, &new["components"]["schemas"][name], name, &mut out);
    }
    out
}

fn fields_removed(old: &Value, new: &Value, at: &str, out: &mut Vec<String>) {
    if old["deprecated"] == true {
        return;
    }
    for (name, part) in old["properties"].as_object().into_iter().flatten() {
        let field = format!("{at}.{name}");
        match &new["properties"][name] {
            Value::Null if part["deprecated"] == true => {}
            Value::Null => out.push(field),
            now => fields_removed(part, now, &field, out),
        }
    }
    for word in ["items", "additionalProperties"] {
        if old[word].is_object() {
            fields_removed(&old[word], &new[word], &format!("{at}[]"), out);
        }
    }
    for word in ["anyOf", "oneOf"] {
        for (n, branch) in old[word].as_array().into_iter().flatten().enumerate() {
            // A branch that is found again may stand elsewhere in the list.
            let again = new[word]
                .as_array()
                .into_iter()
                .flatten()
                .any(|b| b == branch);
            if !again {
                fields_removed(branch, &new[word][n], at, out);
            }
        }
    }
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
            text: print("commands")?,
        },
        Golden {
            name: "privileges.md",
            text: print("privileges")?,
        },
        Golden {
            name: "registry.json",
            text: pretty(print("registry")?)?,
        },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_promised_goes_only_after_it_was_deprecated() {
        let old = json!({
            "paths": {
                "/lamps": { "get": { "operationId": "listLamp" }, "post": { "operationId": "createLamp", "deprecated": true } },
                "/lamps/{name}/actions/dim": { "post": { "operationId": "dimLamp" }, "parameters": [] },
            },
            "components": { "schemas": {
                "LampSpec": { "properties": {
                    "on": { "type": "boolean" },
                    "old": { "type": "string", "deprecated": true },
                    "parts": { "type": "array", "items": { "properties": { "glass": {}, "weight": {} } } },
                    "owner": { "anyOf": [{ "properties": { "name": {} } }, { "type": "null" }] },
                } },
            } },
        });
        assert_eq!(removed(&old, &old), Vec::<String>::new());
        let mut new = old.clone();
        let gone = |value: &mut Value, at: &str, name: &str| {
            let map = value
                .pointer_mut(at)
                .and_then(Value::as_object_mut)
                .unwrap();
            map.remove(name).unwrap();
        };
        gone(&mut new, "/paths/~1lamps", "post");
        gone(&mut new, "/components/schemas/LampSpec/properties", "old");
        assert_eq!(
            removed(&old, &new),
            Vec::<String>::new(),
            "these were deprecated"
        );
        gone(&mut new, "/paths", "/lamps/{name}/actions/dim");
        gone(&mut new, "/components/schemas/LampSpec/properties", "on");
        gone(
            &mut new,
            "/components/schemas/LampSpec/properties/parts/items/properties",
            "weight",
        );
        gone(
            &mut new,
            "/components/schemas/LampSpec/properties/owner/anyOf/0/properties",
            "name",
        );
        assert_eq!(
            removed(&old, &new),
            [
                "POST /lamps/{name}/actions/dim",
                "LampSpec.on",
                "LampSpec.parts[].weight",
                "LampSpec.owner.name"
            ]
        );
    }

    #[test]
    fn drift_is_named_by_line() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), Some(2));
        assert_eq!(first_difference("", "a\n"), Some(1));
    }
}

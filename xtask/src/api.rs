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

    #[test]
    fn drift_is_named_by_line() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), Some(2));
        assert_eq!(first_difference("", "a\n"), Some(1));
    }
}

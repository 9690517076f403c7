//! `cargo xtask deny`: licences, bans and sources of every dependency, by cargo-deny with `deny.toml`.
//!
//! Advisories are not asked here: they need a database from outside, and a test must not depend on one.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use crate::{sh, tree};

/// Checks, after installing cargo-deny into our cache when it is nowhere.
pub fn command() -> Result<()> {
    let tool = match installed() {
        Some(tool) => tool,
        None => install()?,
    };
    check(tool)
}

/// cargo-deny in `PATH` or in our cache.
pub fn installed() -> Option<PathBuf> {
    let cached = tree::cache().join("tools/bin/cargo-deny");
    sh::find("cargo-deny").or_else(|| cached.is_file().then_some(cached))
}

fn check(tool: PathBuf) -> Result<()> {
    sh::run(
        Command::new(tool)
            .args([
                "--locked",
                "--workspace",
                "check",
                "--hide-inclusion-graph",
                "bans",
                "licenses",
                "sources",
            ])
            .current_dir(tree::root()),
    )
}

fn install() -> Result<PathBuf> {
    let root = tree::cache().join("tools");
    eprintln!(
        "installing cargo-deny into {} (a few minutes, once)",
        root.display()
    );
    sh::run(
        tree::cargo()
            .args(["install", "--locked", "--quiet", "cargo-deny", "--root"])
            .arg(&root),
    )?;
    Ok(root.join("bin/cargo-deny"))
}

//! The provider of OpenID Connect that tests log in by: from npm, into the cache, at one version.

use crate::{sh, tree};
use anyhow::{Context, Result};
use std::{fs, process::Command};

/// Its name, its version, and the file that must be there then.
const PROVIDER: (&str, &str, &str) = (
    "oidc-provider",
    "8.8.1",
    "node_modules/oidc-provider/package.json",
);

/// Installs it when it is missing; does nothing, and says nothing, when it is not.
pub fn ensure() -> Result<()> {
    let (name, version, seen) = PROVIDER;
    let folder = tree::cache().join("tools").join(name);
    if folder.join(seen).exists() {
        return Ok(());
    }
    eprintln!("{name} {version}, which the tests log in by, is installed");
    // Beside its place first: one that was cut off is never taken for whole.
    let part = folder.with_extension("part");
    if part.exists() {
        fs::remove_dir_all(&part).with_context(|| format!("cannot remove {}", part.display()))?;
    }
    fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
    let quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--silent"];
    sh::output(
        Command::new("npm")
            .args(["install", "--prefix"])
            .arg(&part)
            .args(quiet)
            .arg(format!("{name}@{version}")),
    )?;
    fs::rename(&part, &folder).with_context(|| format!("cannot move to {}", folder.display()))
}

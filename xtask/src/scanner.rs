//! schemathesis, which asks the API what its description allows and what it does not: into our cache, from PyPI, once.

use std::process::Command;

use anyhow::Result;

use crate::{sh, tree};

/// The version that the tests were written with.
const VERSION: &str = "schemathesis==4.32.5";

/// Whether it is there already.
pub fn installed() -> bool {
    let cached = tree::cache().join("tools/schemathesis/bin/schemathesis");
    cached.is_file() || sh::find("schemathesis").is_some()
}

/// Installs it when it is nowhere. The test that wants it says so when it cannot be had.
pub fn install() -> Result<()> {
    if installed() {
        return Ok(());
    }
    let folder = tree::cache().join("tools/schemathesis");
    eprintln!(
        "installing {VERSION} into {} (a minute, once)",
        folder.display()
    );
    sh::run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let pip = folder.join("bin/pip");
    sh::run(Command::new(pip).args(["install", "--quiet", VERSION]))
}

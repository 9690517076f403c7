//! The checkout: where it is, what git tracks in it, where caches and builds lie.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::sh;

/// The root of the checkout this xtask was built from.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// `cargo`, as the one that runs us, in the root of the checkout.
pub fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}

/// Where images, package indexes and tools are kept: outside the checkout, so that a fresh clone is warm.
pub fn cache() -> PathBuf {
    if let Some(folder) = std::env::var_os("DEBVISOR_CACHE") {
        return folder.into();
    }
    if sh::is_root() {
        return "/var/cache/debvisor".into();
    }
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
    home.join(".cache/debvisor")
}

/// Files git tracks or would add, relative to the root. Ignored ones are left out.
pub fn files() -> Result<Vec<PathBuf>> {
    let root = root();
    let list = sh::output(
        Command::new("git")
            .args([
                "ls-files",
                "-z",
                "--cached",
                "--others",
                "--exclude-standard",
            ])
            .current_dir(&root),
    )
    .context("cannot list the files of the checkout")?;
    let mut files: Vec<_> = list
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from)
        .filter(|name| root.join(name).is_file())
        .collect();
    files.sort();
    files.dedup();
    Ok(files)
}

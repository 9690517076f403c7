//! A folder with an unpacked Debian system in it, and programs run from it with its own libraries, so that what this
//! machine has installed decides nothing. It never enters the folder by chroot.

use super::command::run;
use anyhow::{Context, Result, bail};
use host::process::{Output, Run};
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

const LIBRARIES: [&str; 2] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];

/// An unpacked Debian system.
pub(super) struct Tree(pub(super) PathBuf);

impl Tree {
    /// A path inside the tree.
    pub(super) fn path(&self, inside: &str) -> PathBuf {
        self.0.join(inside)
    }

    fn loader(&self) -> Result<PathBuf> {
        // The link in lib64 is absolute, and would lead to this machine's own loader.
        let places = LIBRARIES
            .iter()
            .map(|folder| self.0.join(folder).join("ld-linux-x86-64.so.2"));
        places
            .clone()
            .find(|p| p.exists())
            .with_context(|| format!("{} has no dynamic loader", self.0.display()))
    }

    /// A run of `program`, a path inside the tree.
    fn program(&self, program: &str) -> Result<Run> {
        let libraries: Vec<_> = LIBRARIES
            .iter()
            .map(|folder| self.0.join(folder).display().to_string())
            .collect();
        let run = Run::new(self.loader()?).args([
            "--inhibit-cache",
            "--library-path",
            &libraries.join(":"),
        ]);
        Ok(run.arg(self.0.join(program)))
    }

    /// Runs `program`, a path inside the tree.
    pub(super) async fn run(
        &self,
        program: &str,
        arguments: &[&Path],
        cancel: &CancellationToken,
    ) -> Result<Output> {
        run(
            &format!("running {program}"),
            self.program(program)?.args(arguments),
            cancel,
        )
        .await
    }

    /// The shared libraries that `program` loads, and the loader: the name each is looked up by, and its file.
    pub(super) async fn libraries(
        &self,
        program: &str,
        cancel: &CancellationToken,
    ) -> Result<Vec<(String, PathBuf)>> {
        let libraries: Vec<_> = LIBRARIES
            .iter()
            .map(|folder| self.0.join(folder).display().to_string())
            .collect();
        let list = Run::new(self.loader()?).args([
            "--inhibit-cache",
            "--library-path",
            &libraries.join(":"),
            "--list",
        ]);
        let listed = run(
            &format!("listing the libraries of {program}"),
            list.arg(self.0.join(program)),
            cancel,
        )
        .await?
        .text();
        let mut found = Vec::new();
        for line in listed.lines() {
            let Some((name, rest)) = line.trim().split_once(" => ") else {
                continue;
            };
            let file = PathBuf::from(rest.split(" (").next().unwrap_or_default());
            if name.contains("ld-linux") {
                continue;
            }
            if !file.starts_with(&self.0) {
                bail!(
                    "{program} needs the library {name}, which the unpacked packages do not have"
                );
            }
            found.push((name.to_owned(), file));
        }
        found.push(("ld-linux-x86-64.so.2".to_owned(), self.loader()?));
        Ok(found)
    }
}

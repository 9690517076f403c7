//! Downloads Debian packages of one release and unpacks them into a folder, with a package state of its own. It never
//! installs anything on this machine, and never reads or changes what the machine has installed.

use super::Release;
use super::command::{run, watch};
use super::mirror::Mirror;
use anyhow::{Context, Result, bail};
use host::process::Run;
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

/// The keys of the Debian archive, where the package `debian-archive-keyring` has them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The keyring, when this machine has it where Debian keeps it.
pub(super) fn keyring() -> Result<&'static str> {
    if Path::new(KEYRING).exists() {
        Ok(KEYRING)
    } else {
        bail!(
            "{KEYRING} is missing, so that packages cannot be verified: install the Debian package `debian-archive-keyring`"
        )
    }
}

/// A private package state in a folder.
pub(super) struct Apt {
    folder: PathBuf,
    options: Vec<String>,
}

impl Apt {
    /// Reads the package lists of `release` from the machine's mirror. `folder` is made and holds everything.
    pub(super) async fn prepare(
        folder: &Path,
        release: Release,
        cancel: &CancellationToken,
    ) -> Result<Self> {
        for part in ["lists/partial", "archives/partial", "etc"] {
            let path = folder.join(part);
            std::fs::create_dir_all(&path)
                .with_context(|| format!("making the folder {}", path.display()))?;
        }
        let sources = Mirror::of_this_machine()?
            .lines(release, Some(keyring()?))
            .join("\n");
        std::fs::write(folder.join("etc/sources.list"), sources + "\n")
            .context("writing the package sources")?;
        std::fs::write(folder.join("status"), "").context("writing an empty package state")?;
        let here = folder.display();
        let options = [
            format!("Dir::Etc::sourcelist={here}/etc/sources.list"),
            "Dir::Etc::sourceparts=-".to_owned(),
            "Dir::Etc::preferences=/dev/null".to_owned(),
            "Dir::Etc::preferencesparts=-".to_owned(),
            format!("Dir::State={here}"),
            format!("Dir::State::status={here}/status"),
            format!("Dir::Cache={here}"),
            "APT::Architecture=amd64".to_owned(),
            "APT::Install-Recommends=false".to_owned(),
            "APT::Default-Release=".to_owned(),
            // The folder is root's alone, and the user `_apt` could not write into it.
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::Retries=3".to_owned(),
        ];
        let options = options
            .into_iter()
            .flat_map(|option| ["-o".to_owned(), option])
            .collect();
        let apt = Self {
            folder: folder.to_owned(),
            options,
        };
        let update = apt.words("apt-get", &["--error-on=any", "update"]);
        watch(
            "reading Debian's package lists",
            &update,
            |run| run,
            cancel,
            |_| (),
        )
        .await?;
        Ok(apt)
    }

    fn words(&self, program: &str, arguments: &[&str]) -> Vec<String> {
        let mut words = vec![program.to_owned(), "-q".to_owned()];
        words.extend(self.options.iter().cloned());
        words.extend(arguments.iter().map(|&argument| argument.to_owned()));
        words
    }

    /// The first package that `package` depends on whose name starts with `prefix`: what a metapackage stands for.
    pub(super) async fn dependency(
        &self,
        package: &str,
        prefix: &str,
        cancel: &CancellationToken,
    ) -> Result<String> {
        let words = self.words("apt-cache", &["depends", "--important", package]);
        let listed = run(
            "asking apt for dependencies",
            Run::new(&words[0]).args(&words[1..]),
            cancel,
        )
        .await?
        .text();
        let found = listed
            .lines()
            .filter_map(|l| l.trim().strip_prefix("Depends: "))
            .find(|name| name.starts_with(prefix));
        found
            .map(str::to_owned)
            .with_context(|| format!("package `{package}` depends on no `{prefix}...` package"))
    }

    /// Downloads exactly these packages.
    pub(super) async fn download(
        &self,
        packages: &[&str],
        cancel: &CancellationToken,
        each: impl FnMut(&str) + Send,
    ) -> Result<()> {
        let mut arguments = vec!["download"];
        arguments.extend(packages);
        let words = self.words("apt-get", &arguments);
        let archives = self.folder.join("archives");
        watch(
            "downloading Debian packages",
            &words,
            |run| run.cwd(archives),
            cancel,
            each,
        )
        .await
    }

    /// Downloads these packages and all that they need to run.
    pub(super) async fn download_closure(
        &self,
        packages: &[&str],
        cancel: &CancellationToken,
        each: impl FnMut(&str) + Send,
    ) -> Result<()> {
        let mut arguments = vec!["install", "--download-only", "--yes"];
        arguments.extend(packages);
        let words = self.words("apt-get", &arguments);
        watch(
            "downloading Debian packages",
            &words,
            |run| run,
            cancel,
            each,
        )
        .await
    }

    /// Unpacks every package downloaded so far into `tree`. Their scripts are not run.
    pub(super) async fn unpack(&self, tree: &Path, cancel: &CancellationToken) -> Result<()> {
        std::fs::create_dir_all(tree)
            .with_context(|| format!("making the folder {}", tree.display()))?;
        let archives = self.folder.join("archives");
        for entry in std::fs::read_dir(&archives).context("reading the downloaded packages")? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "deb") {
                let unpack = Run::new("dpkg-deb").arg("-x").arg(&path).arg(tree);
                run(&format!("unpacking {}", path.display()), unpack, cancel).await?;
            }
        }
        Ok(())
    }
}

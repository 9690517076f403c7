//! A development instance: its name, its folders, its network namespace. It knows where things are, never what runs in them.

pub mod daemons;
pub mod http;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};

use crate::tree;

/// One of the instances of this checkout.
#[derive(Clone, Debug)]
pub struct Instance {
    pub name: String,
}

impl Instance {
    /// An instance of that name, which need not be there yet.
    pub fn named(name: &str) -> Result<Instance> {
        let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let fits = !name.is_empty()
            && name.len() <= 20
            && name.chars().all(label)
            && !name.starts_with('-')
            && !name.ends_with('-');
        // Beside the instances `bin` holds the CLI, and `etc` what must not lie in a state folder.
        if !fits || ["bin", "etc"].contains(&name) {
            bail!(
                "`{name}` cannot name an instance: at most 20 of a-z, 0-9 and `-`, not at either end, and neither `bin` nor `etc`"
            );
        }
        Ok(Instance {
            name: name.to_owned(),
        })
    }

    /// Every instance that has a folder in this checkout.
    pub fn all() -> Vec<Instance> {
        let Ok(entries) = fs::read_dir(home()) else {
            return Vec::new();
        };
        let names = entries
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .filter_map(|entry| entry.file_name().into_string().ok());
        let mut found: Vec<_> = names
            .filter_map(|name| Instance::named(&name).ok())
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    /// State, logs and configuration.
    pub fn dir(&self) -> PathBuf {
        home().join(&self.name)
    }

    /// Sockets and run folders of guests: short, because a socket's path has at most 107 bytes.
    pub fn run_dir(&self) -> PathBuf {
        PathBuf::from(format!("/run/dv-{}", self.name))
    }

    /// What is not in the state folder, as on a real node: the root key.
    pub fn secrets_dir(&self) -> PathBuf {
        home().join("etc").join(&self.name)
    }

    /// The network namespace, which is also the prefix of each guest's process name.
    pub fn netns(&self) -> String {
        format!("dv-{}", self.name)
    }

    pub fn config(&self) -> PathBuf {
        self.dir().join("debvisord.toml")
    }

    pub fn log(&self, of: &str) -> PathBuf {
        self.dir().join("log").join(format!("{of}.log"))
    }

    pub fn api_socket(&self) -> PathBuf {
        self.run_dir().join("api.sock")
    }
}

/// `.dev` of the checkout.
pub fn home() -> PathBuf {
    tree::root().join(".dev")
}

/// Installs a program of this build under `to`, by rename, so that a process that runs the former one goes on. True when it changed.
pub fn install(program: &str, release: bool, to: &std::path::Path) -> Result<bool> {
    let from = tree::target()
        .join(if release { "release" } else { "debug" })
        .join(program);
    let wanted =
        fs::metadata(&from).with_context(|| format!("{} was not built", from.display()))?;
    if let Ok(have) = fs::metadata(to)
        && have.len() == wanted.len()
        && have.modified()? == wanted.modified()?
    {
        return Ok(false);
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let fresh = to.with_extension("new");
    fs::copy(&from, &fresh)
        .with_context(|| format!("cannot copy {} to {}", from.display(), fresh.display()))?;
    fs::File::options()
        .append(true)
        .open(&fresh)?
        .set_modified(wanted.modified()?)?;
    fs::rename(&fresh, to)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_not_fit_are_refused() {
        for good in ["default", "a", "test-1"] {
            assert!(Instance::named(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "bin",
            "etc",
            "-a",
            "a-",
            "A",
            "a/b",
            "a-name-that-is-too-long",
        ] {
            assert!(Instance::named(bad).is_err(), "{bad}");
        }
    }
}

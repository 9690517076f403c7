//! Saved logins: one file per server with the pinned CA and our tokens, or our certificate and key; readable by its
//! owner only.

use super::Resident;
use crate::failure::{Failure, Result};
use model::Timestamp;
use serde::{Deserialize, Serialize};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A server we have logged in to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Login {
    /// What `--cluster` calls it.
    pub name: String,
    /// `https://host:port`.
    pub url: String,
    /// The pinned CA, PEM.
    pub ca: String,
    /// Our certificate (chain), PEM; empty when tokens say who we are.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub certificate: String,
    /// Our key, PEM. Never shown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// What a user shows who has logged in with a password. Never shown otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
    /// The key of the certificate, when it is in this machine's TPM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpm: Option<Resident>,
    /// What a program shows. Never shown otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<String>,
}

/// The tokens of a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tokens {
    /// Whose.
    pub user: String,
    /// For requests.
    pub access: String,
    /// When it ends.
    pub access_expires: Timestamp,
    /// For the next pair, once.
    pub refresh: String,
}

/// The folder of saved logins.
pub struct Logins {
    folder: PathBuf,
}

impl Logins {
    /// In the user's configuration folder (XDG).
    pub fn of_user() -> Logins {
        let config = std::env::var_os("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
            .or_else(|| std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".config")))
            // A user without a home has no logins to keep: a folder that only root can make says so at the first use.
            .unwrap_or_else(|| "/nonexistent".into());
        Logins::at(&config.join("debvisor"))
    }

    /// In a given folder.
    pub fn at(folder: &Path) -> Logins {
        Logins {
            folder: folder.into(),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join("logins").join(format!("{name}.json"))
    }

    /// Names of all saved logins, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.folder.join("logins"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| Some(e.file_name().to_str()?.strip_suffix(".json")?.to_owned()))
            .collect();
        names.sort();
        names
    }

    /// One login by name.
    pub fn get(&self, name: &str) -> Result<Login> {
        model::Name::parse("--cluster", name)?;
        let path = self.file(name);
        let text = std::fs::read(&path).map_err(|_| {
            let names = self.names();
            let known: Vec<&str> = names.iter().map(String::as_str).collect();
            let failure = Failure::new(5, format!("there is no saved login `{name}`"));
            match known.is_empty() {
                true => failure.hint("log in with `dvctl login URL --code CODE`"),
                false => failure.hint(format!("saved logins: {}", known.join(", "))),
            }
        })?;
        serde_json::from_slice(&text).map_err(|e| {
            Failure::io(format!("reading {}", path.display()), e)
                .hint("delete the file and log in again")
        })
    }

    /// The login used when nothing else is said.
    pub fn current(&self) -> Result<Option<Login>> {
        if let Ok(name) = std::fs::read_to_string(self.folder.join("current")) {
            return self.get(name.trim()).map(Some);
        }
        match self.names().as_slice() {
            [only] => self.get(only).map(Some),
            _ => Ok(None),
        }
    }

    /// Saves a login and makes it the current one.
    pub fn save(&self, login: &Login) -> Result<PathBuf> {
        let path = self.keep(login)?;
        let current = self.folder.join("current");
        write_private(&current, login.name.as_bytes())
            .map_err(|e| Failure::io(format!("saving {}", current.display()), e))?;
        Ok(path)
    }

    /// Saves a login and leaves the current one as it is.
    pub fn keep(&self, login: &Login) -> Result<PathBuf> {
        let path = self.file(&login.name);
        let wrong = |e: std::io::Error| Failure::io(format!("saving {}", path.display()), e);
        if let Some(parent) = path.parent() {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(parent)
                .map_err(wrong)?;
        }
        let json =
            serde_json::to_vec_pretty(login).map_err(|e| Failure::io("writing the login", e))?;
        write_private(&path, &json).map_err(wrong)?;
        Ok(path)
    }

    /// The file that a process holds locked while it changes a login.
    pub fn lock_file(&self, name: &str) -> Result<std::fs::File> {
        let path = self.file(name).with_extension("lock");
        std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|e| Failure::io(format!("opening {}", path.display()), e))
    }

    /// Forgets a login.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.get(name)?;
        let path = self.file(name);
        std::fs::remove_file(&path)
            .map_err(|e| Failure::io(format!("removing {}", path.display()), e))?;
        _ = std::fs::remove_file(path.with_extension("lock"));
        let current = self.folder.join("current");
        if std::fs::read_to_string(&current).is_ok_and(|c| c.trim() == name) {
            std::fs::remove_file(&current)
                .map_err(|e| Failure::io(format!("removing {}", current.display()), e))?;
        }
        Ok(())
    }
}

/// Writes a file of mode 0600 in one step: a reader sees the old one or the new one.
fn write_private(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let written = (|| {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(text)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    })();
    if written.is_err() {
        _ = std::fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn saved_private_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let logins = Logins::at(&dir.path().join("debvisor"));
        let login = Login {
            name: "lab".into(),
            url: "https://lab:8443".into(),
            ca: "CA".into(),
            certificate: "CERT".into(),
            key: "KEY".into(),
            tokens: None,
            tpm: None,
            api_key: None,
        };
        let path = logins.save(&login).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(logins.current().unwrap().unwrap().url, login.url);
        assert!(
            logins
                .get("other")
                .unwrap_err()
                .hint
                .unwrap()
                .contains("lab")
        );
        logins.remove("lab").unwrap();
        assert!(logins.current().unwrap().is_none());
    }
}

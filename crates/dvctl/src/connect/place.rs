//! Which server is meant.

use super::logins::{Login, Logins};
use crate::failure::{Failure, Result};
use std::path::{Path, PathBuf};

/// Where a server is.
#[derive(Clone, Debug)]
pub enum Place {
    /// A unix socket of this machine.
    Socket(PathBuf),
    /// A saved login.
    Remote(Box<Login>),
}

/// What the command line and the environment say about the server.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// `--instance` or `DEBVISOR_INSTANCE`.
    pub instance: Option<String>,
    /// `--cluster`.
    pub cluster: Option<String>,
}

impl Wish {
    /// Decides: `--cluster`, then the instance, then the checkout this binary stands in, then the socket of this
    /// machine, then the current login.
    pub fn decide(&self, logins: &Logins) -> Result<Place> {
        if let Some(name) = &self.cluster {
            return Ok(Place::Remote(Box::new(logins.get(name)?)));
        }
        if let Some(instance) = &self.instance {
            let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if instance.is_empty() || !instance.chars().all(good) {
                return Err(
                    Failure::usage(format!("`{instance}` is not the name of an instance"))
                        .hint("a-z, 0-9 and -, as given to `cargo xtask up --instance`"),
                );
            }
            return Ok(Place::Socket(format!("/run/dv-{instance}/api.sock").into()));
        }
        if let Some(socket) = beside_binary() {
            return Ok(Place::Socket(socket));
        }
        let standard = PathBuf::from("/run/debvisor/api.sock");
        if !standard.exists()
            && let Some(login) = logins.current()?
        {
            return Ok(Place::Remote(Box::new(login)));
        }
        Ok(Place::Socket(standard))
    }
}

/// The socket named by `.dev/default-instance`, when this binary is `.dev/bin/dvctl` of a checkout. The file holds the
/// name of an instance or the path of a socket.
fn beside_binary() -> Option<PathBuf> {
    let binary = std::env::current_exe().ok()?;
    // `.dev/bin/dvctl` may be a link to the build folder: the name it was called by counts as well.
    let called = std::env::args_os().next().map(PathBuf::from);
    let called = called.and_then(|name| match name.components().count() {
        1 => std::env::split_paths(&std::env::var_os("PATH")?)
            .map(|folder| folder.join(&name))
            .find(|path| path.is_file()),
        _ => Some(name),
    });
    [called, Some(binary)]
        .into_iter()
        .flatten()
        .find_map(|path| default_instance(&path))
}

fn default_instance(binary: &Path) -> Option<PathBuf> {
    let bin = binary.parent()?;
    let dev = bin.parent()?;
    let is_bin = bin.file_name().is_some_and(|n| n == "bin");
    if !is_bin {
        return None;
    }
    let text = std::fs::read_to_string(dev.join("default-instance")).ok()?;
    let text = text.trim();
    match text {
        "" => None,
        path if path.starts_with('/') => Some(path.into()),
        name => Some(format!("/run/dv-{name}/api.sock").into()),
    }
}

impl Place {
    /// For people: the socket's path or the URL.
    pub fn shown(&self) -> String {
        match self {
            Place::Socket(path) => path.display().to_string(),
            Place::Remote(login) => login.url.clone(),
        }
    }

    /// What to do when it does not answer.
    pub fn remedy(&self, denied: bool) -> String {
        match self {
            Place::Socket(_) if denied => {
                "only root and the owner of the instance may use its socket; use `sudo`, or `dvctl login URL --code CODE`"
                    .into()
            }
            Place::Socket(path) if path.starts_with("/run/debvisor") => {
                "start the daemon (`systemctl start debvisord`, or `cargo xtask up` in a checkout), name an instance with \
                 --instance, or log in to another machine with `dvctl login URL --code CODE`"
                    .into()
            }
            Place::Socket(_) => {
                "start the instance with `cargo xtask up`, or name another with --instance".into()
            }
            Place::Remote(login) => format!(
                "check that {} is up and reachable from here, or pick another login with --cluster",
                login.url
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_beside_the_binary() {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join(".dev/bin");
        std::fs::create_dir_all(&bin).unwrap();
        let binary = bin.join("dvctl");
        assert_eq!(default_instance(&binary), None);
        std::fs::write(dir.path().join(".dev/default-instance"), "blue\n").unwrap();
        assert_eq!(
            default_instance(&binary),
            Some("/run/dv-blue/api.sock".into())
        );
        std::fs::write(dir.path().join(".dev/default-instance"), "/tmp/x.sock").unwrap();
        assert_eq!(default_instance(&binary), Some("/tmp/x.sock".into()));
    }

    #[test]
    fn strange_instance_is_refused() {
        let wish = Wish {
            instance: Some("../x".into()),
            cluster: None,
        };
        let dir = tempfile::tempdir().unwrap();
        let e = wish.decide(&Logins::at(dir.path())).unwrap_err();
        assert_eq!(e.exit, 2);
    }
}

//! Packet forwarding: switched on where our networks need it, and put back when the last user is gone.
//!
//! In a namespace of ours it is simply on. In the root namespace it is the administrator's: there only the interfaces in
//! question forward, their former settings are kept in `/run/debvisor-forwarding` (gone with a reboot, as the settings are), and
//! the last user to leave restores them. IPv6 forwarding is never switched on for a whole host that learned its default
//! route from a router, because it would forget that route.

use super::{Links, Netns, sysctl};
use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Where the root namespace's former settings and the users of forwarding are noted.
const FOLDER: &str = "/run/debvisor-forwarding";

/// Which families are forwarded now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// IPv4 packets are.
    pub ipv4: bool,
    /// IPv6 packets are. False on a host whose kernel forwards IPv6 for all interfaces or none, and which got its default route by
    /// router advertisement.
    pub ipv6: bool,
}

/// Lets packets pass between interface `inside` and wherever the default routes lead, on behalf of `user` (a name for whom to
/// restore later; letters, digits and `-`).
///
/// # Errors
/// When a setting cannot be read or written.
pub async fn allow(links: &Links, user: &str, inside: &str) -> Result<Forwarded> {
    let netns = links.netns();
    if !netns.is_root() {
        let on = |key: &str| (key.to_owned(), "1".to_owned());
        let missing = sysctl::write(
            netns,
            &[
                on("net/ipv4/ip_forward"),
                on("net/ipv6/conf/all/forwarding"),
            ],
        )
        .await?;
        return Ok(Forwarded {
            ipv4: true,
            ipv6: missing.is_empty(),
        });
    }
    let routes = links.routes().await?;
    let mut wanted = Vec::new();
    let mut devs: Vec<&str> = vec![inside];
    devs.extend(
        routes
            .iter()
            .filter(|route| route.is_default())
            .map(|route| route.dev.as_str()),
    );
    devs.sort_unstable();
    devs.dedup();
    for dev in &devs {
        wanted.push(format!("net/ipv4/conf/{dev}/forwarding"));
    }
    let mut ipv6 = sysctl::read(netns, "net/ipv6/conf/all/forwarding")
        .await?
        .is_some_and(|now| now == "1");
    if !ipv6 {
        let per_interface: Vec<_> = devs
            .iter()
            .map(|dev| format!("net/ipv6/conf/{dev}/force_forwarding"))
            .collect();
        if sysctl::read(netns, &per_interface[0]).await?.is_some() {
            wanted.extend(per_interface);
            ipv6 = true;
        } else if !routes
            .iter()
            .any(|route| route.is_default() && route.advertised)
        {
            wanted.push("net/ipv6/conf/all/forwarding".to_owned());
            ipv6 = sysctl::read(netns, "net/ipv6/conf/all/forwarding")
                .await?
                .is_some();
        }
    }
    let notes = Notes::open(Path::new(FOLDER)).await?;
    let mut before = notes.read()?;
    let mut settings = Vec::new();
    for key in wanted {
        match sysctl::read(netns, &key).await? {
            Some(now) if now != "1" => {
                before.entry(key.clone()).or_insert(now);
                settings.push((key, "1".to_owned()));
            }
            _ => {}
        }
    }
    // Noted first: a crash in between leaves a note too many, never a setting that nobody restores.
    notes.write(user, &before)?;
    sysctl::write(netns, &settings).await?;
    Ok(Forwarded { ipv4: true, ipv6 })
}

/// Says that `user` needs no forwarding in the root namespace any more; the last one to say so restores what was before.
///
/// # Errors
/// When the notes cannot be read or a setting cannot be restored.
pub async fn leave(user: &str) -> Result<()> {
    if !Path::new(FOLDER).exists() {
        return Ok(());
    }
    let notes = Notes::open(Path::new(FOLDER)).await?;
    if notes.forget(user)? {
        return Ok(());
    }
    // An interface that is gone took its setting with it: missing ones are passed over.
    let before: Vec<_> = notes.read()?.into_iter().collect();
    sysctl::write(&Netns::root(), &before).await?;
    notes.remove()
}

/// The notes, locked against other instances while held.
struct Notes {
    folder: PathBuf,
    _lock: Flock<File>,
}

impl Notes {
    async fn open(folder: &Path) -> Result<Self> {
        let folder = folder.to_owned();
        let work = move || {
            std::fs::create_dir_all(folder.join("users"))
                .with_context(|| format!("cannot make {}", folder.display()))?;
            // Beside the folder, because the last user removes the folder.
            let path = folder.with_extension("lock");
            let file = File::options()
                .create(true)
                .append(true)
                .open(&path)
                .with_context(|| format!("cannot open {}", path.display()))?;
            let lock = match Flock::lock(file, FlockArg::LockExclusive) {
                Ok(lock) => lock,
                Err((_, errno)) => bail!("cannot lock {}: {errno}", path.display()),
            };
            std::fs::create_dir_all(folder.join("users"))?;
            Ok(Self {
                folder,
                _lock: lock,
            })
        };
        tokio::task::spawn_blocking(work)
            .await
            .context("locking the notes on forwarding was cut short")?
    }

    fn read(&self) -> Result<BTreeMap<String, String>> {
        match std::fs::read(self.folder.join("before.json")) {
            // Torn by a crash or a full disk: nothing can be restored from it, and that must not stop the network.
            Ok(text) => Ok(serde_json::from_slice(&text).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(error).context("cannot read the notes on forwarding"),
        }
    }

    fn write(&self, user: &str, before: &BTreeMap<String, String>) -> Result<()> {
        let write = |name: &str, text: &[u8]| {
            let (path, fresh) = (self.folder.join(name), self.folder.join("fresh"));
            std::fs::write(&fresh, text)
                .and_then(|()| std::fs::rename(&fresh, &path))
                .with_context(|| format!("cannot write {}", path.display()))
        };
        write(&format!("users/{user}"), b"")?;
        write("before.json", &serde_json::to_vec(before)?)
    }

    /// Says whether other users remain.
    fn forget(&self, user: &str) -> Result<bool> {
        let users = self.folder.join("users");
        match std::fs::remove_file(users.join(user)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context("cannot leave the users of forwarding");
            }
            _ => {}
        }
        Ok(std::fs::read_dir(&users)
            .context("cannot list the users of forwarding")?
            .next()
            .is_some())
    }

    fn remove(&self) -> Result<()> {
        std::fs::remove_dir_all(&self.folder)
            .with_context(|| format!("cannot remove {}", self.folder.display()))
    }
}

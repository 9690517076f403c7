//! One dnsmasq process: started, adopted, told of changes, stopped.

use super::config::{self, Config, HostEntry};
use super::lease::{self, Lease};
use crate::clock::SharedClock;
use crate::net::Netns;
use crate::process::{Identity, Process, Run, Stderr};
use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long it may take from its start until it serves.
const START: Duration = Duration::from_secs(10);
/// How long it may take to end when asked to.
const GRACE: Duration = Duration::from_secs(3);

/// The dnsmasq of one network. It holds no process: what runs is found by what was written down, also after our own restart.
#[derive(Clone, Debug)]
pub struct Dnsmasq {
    netns: Netns,
    folder: PathBuf,
    clock: SharedClock,
}

/// What [`Dnsmasq::ensure`] had to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ran, with everything as wanted.
    Unchanged,
    /// It ran and was told to read its hosts again.
    Reloaded,
    /// It was started, or stopped and started.
    Started,
}

/// What is known of the running process, kept beside its files.
#[derive(Serialize, Deserialize)]
struct Launched {
    identity: Identity,
    /// Hash of the configuration it was started with.
    config: String,
    /// Hash of the hosts it has read.
    hosts: String,
}

impl Dnsmasq {
    /// The dnsmasq whose files stand in `folder` (made when it starts). Every part of its path must be passable for all users,
    /// because dnsmasq reads its files again after it has given up root.
    pub fn new(netns: &Netns, folder: impl Into<PathBuf>, clock: SharedClock) -> Self {
        Self {
            netns: netns.clone(),
            folder: folder.into(),
            clock,
        }
    }

    /// The process, when it runs in our namespace: started by us now or in an earlier life.
    ///
    /// # Errors
    /// When the kernel refuses to look.
    pub fn running(&self) -> Result<Option<Process>> {
        Ok(self.launched()?.map(|(_, process)| process))
    }

    fn launched(&self) -> Result<Option<(Launched, Process)>> {
        let Some(launched) = read(&self.folder.join("process.json"))?
            .and_then(|text| serde_json::from_slice::<Launched>(&text).ok())
        else {
            return Ok(None);
        };
        let process = Process::adopt(&launched.identity, &*self.clock)
            .context("cannot look for a running dnsmasq")?;
        Ok(process.map(|process| (launched, process)))
    }

    /// Brings dnsmasq to serve exactly this: starts it, tells it of new hosts, or starts it anew, whichever is least.
    ///
    /// # Errors
    /// When dnsmasq is missing, its files cannot be written, or it does not start; the error has its last words.
    pub async fn ensure(&self, config: &Config, hosts: &[HostEntry]) -> Result<(Outcome, Process)> {
        let mut hosts = hosts.to_vec();
        hosts.sort();
        let what = || format!("cannot serve DHCP and DNS on bridge `{}`", config.bridge);
        self.bring(config, &hosts).await.with_context(what)
    }

    async fn bring(&self, config: &Config, hosts: &[HostEntry]) -> Result<(Outcome, Process)> {
        let text = config.render(&self.folder);
        let (names, leases) = (config::hosts(hosts), config::dhcp_hosts(hosts));
        let (config_hash, hosts_hash) = (hash(&[&text]), hash(&[&names, &leases]));
        let running = self.launched()?;
        let pruned = read(&self.folder.join("leases"))?
            .and_then(|file| lease::without_stale(&String::from_utf8_lossy(&file), hosts));
        let astray = match &running {
            Some((_, process)) => !self.is_in_namespace(process),
            None => false,
        };
        match running {
            Some((launched, process))
                if !astray && pruned.is_none() && launched.config == config_hash =>
            {
                if launched.hosts == hosts_hash {
                    return Ok((Outcome::Unchanged, process));
                }
                self.write_hosts(&names, &leases)?;
                process
                    .signal(Signal::SIGHUP)
                    .context("cannot tell dnsmasq to read its hosts again")?;
                self.note(&Launched {
                    hosts: hosts_hash,
                    ..launched
                })?;
                return Ok((Outcome::Reloaded, process));
            }
            Some((_, process)) => {
                process.end(GRACE).await.context("cannot stop dnsmasq")?;
            }
            None => {}
        }
        self.prepare_folder()?;
        self.end_unnoted().await?;
        self.write_hosts(&names, &leases)?;
        self.write("dnsmasq.conf", &text)?;
        if let Some(pruned) = pruned {
            self.write("leases", &pruned)?;
        }
        let process = self.start().await?;
        self.note(&Launched {
            identity: process.identity().clone(),
            config: config_hash,
            hosts: hosts_hash,
        })?;
        Ok((Outcome::Started, process))
    }

    async fn start(&self) -> Result<Process> {
        let (pid_file, log) = (self.folder.join("pid"), self.folder.join("log"));
        for file in [&pid_file, &log] {
            remove(file)?;
        }
        let netns = (!self.netns.is_root()).then(|| self.netns.path());
        let process = Run::new("dnsmasq")
            .arg(self.conf_argument())
            .maybe_netns(netns)
            .spawn_detached(&Stderr::Append(log.clone()), &*self.clock)?;
        // dnsmasq writes its pid after it has bound its ports, so from then on nobody asks in vain.
        let ready = async {
            while !pid_file.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let failed = tokio::select! {
            () = ready => return Ok(process),
            exit = process.wait() => format!("ended ({})", exit?),
            () = tokio::time::sleep(START) => {
                process.end(GRACE).await?;
                format!("was not ready within {START:?}")
            }
        };
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let last = said.lines().rev().take(3).collect::<Vec<_>>().join(" | ");
        Err(anyhow!("dnsmasq {failed}: {last}"))
    }

    /// Ends a dnsmasq of ours that was started but not noted, because we were killed in between.
    async fn end_unnoted(&self) -> Result<()> {
        let pid = read(&self.folder.join("pid"))?
            .and_then(|text| String::from_utf8_lossy(&text).trim().parse().ok());
        let Some(pid) = pid else { return Ok(()) };
        let Ok(identity) = Identity::of(pid, &*self.clock) else {
            return Ok(());
        };
        let Some(process) =
            Process::adopt(&identity, &*self.clock).context("cannot look for a running dnsmasq")?
        else {
            return Ok(());
        };
        // The pid may long be someone else's; only our configuration on its command line makes it ours.
        let command = read(Path::new(&format!("/proc/{pid}/cmdline")))?.unwrap_or_default();
        if command
            .split(|byte| *byte == 0)
            .any(|word| word == self.conf_argument().as_encoded_bytes())
        {
            process
                .end(GRACE)
                .await
                .context("cannot stop a dnsmasq that an earlier life of ours left")?;
        }
        Ok(())
    }

    fn conf_argument(&self) -> std::ffi::OsString {
        let mut argument = std::ffi::OsString::from("--conf-file=");
        argument.push(self.folder.join("dnsmasq.conf"));
        argument
    }

    /// Stops it and removes its files.
    ///
    /// # Errors
    /// When it cannot be stopped or a file cannot be removed.
    pub async fn stop(&self) -> Result<()> {
        if let Some((_, process)) = self.launched()? {
            process.end(GRACE).await.context("cannot stop dnsmasq")?;
        }
        self.end_unnoted().await?;
        match std::fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.folder.display()))
            }
            _ => Ok(()),
        }
    }

    /// The addresses guests hold by DHCP now, as dnsmasq wrote them down.
    ///
    /// # Errors
    /// When the lease file exists and cannot be read.
    pub fn leases(&self) -> Result<Vec<Lease>> {
        let text = read(&self.folder.join("leases"))?.unwrap_or_default();
        Ok(lease::parse(&String::from_utf8_lossy(&text)))
    }

    /// False when the namespace was removed and made again while the process lived on in the old one.
    fn is_in_namespace(&self, process: &Process) -> bool {
        let inode = |path: &Path| std::fs::metadata(path).map(|meta| meta.ino()).ok();
        inode(Path::new(&format!("/proc/{}/ns/net", process.pid()))) == inode(&self.netns.path())
    }

    fn prepare_folder(&self) -> Result<()> {
        let folder = &self.folder;
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
            .with_context(|| format!("cannot open {} to dnsmasq", folder.display()))?;
        for part in folder.ancestors() {
            let mode = std::fs::metadata(part)
                .with_context(|| format!("cannot look at {}", part.display()))?
                .mode();
            if mode & 0o001 == 0 {
                bail!(
                    "{} is closed to other users, so dnsmasq, which runs without privileges, cannot read its files below it: `chmod o+x {0}`",
                    part.display()
                );
            }
        }
        Ok(())
    }

    fn write_hosts(&self, names: &str, leases: &str) -> Result<()> {
        self.write("hosts", names)?;
        self.write("dhcp-hosts", leases)
    }

    fn note(&self, launched: &Launched) -> Result<()> {
        self.write("process.json", &serde_json::to_string(launched)?)
    }

    /// Replaces a file in one step, readable by all.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        let (path, fresh) = (self.folder.join(name), self.folder.join("fresh"));
        std::fs::write(&fresh, text)
            .and_then(|()| std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o644)))
            .and_then(|()| std::fs::rename(&fresh, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Whether dnsmasq is installed; gives the user it should run as.
///
/// # Errors
/// When it is not; the error names the Debian package.
pub async fn check_installed() -> Result<String> {
    Run::new("dnsmasq")
        .arg("--version")
        .timeout(Duration::from_secs(10))
        .output()
        .await?;
    for user in ["dnsmasq", "nobody"] {
        if let Ok(Some(_)) = nix::unistd::User::from_name(user) {
            return Ok(user.to_owned());
        }
    }
    bail!(
        "there is neither a user `dnsmasq` nor `nobody` that dnsmasq could run as: install the Debian package `dnsmasq-base`"
    )
}

fn hash(texts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    hex::encode(hash.finalize())
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

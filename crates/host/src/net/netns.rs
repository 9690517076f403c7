//! Network namespaces: made, entered, removed.
//!
//! A thread, not a process, is what is in a network namespace, so everything that must happen inside one runs on a thread of its own
//! that ends with the work: no pooled thread ever comes back in the wrong namespace. Sockets and processes made there
//! stay in the namespace and can be used from anywhere.
//!
//! **Never** moves a thread that it did not start.

use anyhow::{Context, Result, anyhow, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where named namespaces stand, as `ip netns` expects them.
const FOLDER: &str = "/run/netns";

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Netns(Where);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Where {
    Root,
    Named(String),
}

impl Netns {
    /// The namespace our own process is in.
    pub fn root() -> Self {
        Self(Where::Root)
    }

    /// The namespace of that name under `/run/netns`, whether it exists already or not.
    ///
    /// # Errors
    /// When the name is empty, longer than 64 bytes or has anything but letters, digits, `-`, `_` and `.`.
    pub fn named(name: &str) -> Result<Self> {
        let fits = (1..=64).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
            && !name.starts_with('.');
        if !fits {
            bail!(
                "`{name}` cannot name a network namespace: use 1 to 64 letters, digits, `-`, `_` or `.`, not starting with a dot"
            );
        }
        Ok(Self(Where::Named(name.to_owned())))
    }

    /// True for [`Netns::root`].
    pub fn is_root(&self) -> bool {
        self.0 == Where::Root
    }

    /// The name for people: `root`, or what [`Netns::named`] was given.
    pub fn name(&self) -> &str {
        match &self.0 {
            Where::Root => "root",
            Where::Named(name) => name,
        }
    }

    /// The file that stands for this namespace.
    pub fn path(&self) -> PathBuf {
        match &self.0 {
            // The main thread never changes its namespace, whichever thread asks.
            Where::Root => PathBuf::from("/proc/self/ns/net"),
            Where::Named(name) => Path::new(FOLDER).join(name),
        }
    }

    /// Opens the namespace, for `setns` in a process that is being started.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn open(&self) -> Result<File> {
        let path = self.path();
        File::open(&path).with_context(|| {
            format!(
                "cannot open network namespace `{}` ({})",
                self.name(),
                path.display()
            )
        })
    }

    /// True when the namespace exists.
    pub fn exists(&self) -> bool {
        self.is_root() || is_namespace_file(&self.path())
    }

    /// Makes the namespace, with its loopback up, unless it exists; says whether it was made now.
    ///
    /// # Errors
    /// When the kernel refuses (not root, or no network namespaces).
    pub async fn ensure(&self) -> Result<bool> {
        let Where::Named(name) = &self.0 else {
            return Ok(false);
        };
        if self.exists() {
            return Ok(false);
        }
        let path = self.path();
        on_thread(move || make(&path))
            .await
            .with_context(|| format!("cannot make network namespace `{name}`"))?;
        let links = super::Links::open(self).await?;
        links.set_up("lo", true).await?;
        Ok(true)
    }

    /// Removes the name. The namespace itself, with all its links, goes with the last process or socket in it.
    ///
    /// # Errors
    /// When called on the root namespace, or when the kernel refuses.
    pub fn remove(&self) -> Result<()> {
        let Where::Named(name) = &self.0 else {
            bail!("the root network namespace cannot be removed")
        };
        let path = self.path();
        if is_namespace_file(&path) {
            umount2(&path, MntFlags::MNT_DETACH)
                .with_context(|| format!("cannot unmount network namespace `{name}`"))?;
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove network namespace `{name}`"))
            }
            _ => Ok(()),
        }
    }

    /// Runs blocking work on a thread inside the namespace and waits for it.
    ///
    /// # Errors
    /// When the namespace cannot be entered, and what the work itself fails with. A panic in the work becomes an error.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inside = self.clone();
        let runtime = tokio::runtime::Handle::current();
        on_thread(move || {
            // Sockets made inside register with the caller's reactor.
            let _reactor = runtime.enter();
            inside.enter()?;
            work()
        })
        .await
    }

    /// Puts the calling thread into the namespace, for good.
    fn enter(&self) -> Result<()> {
        if self.is_root() {
            return Ok(());
        }
        setns(self.open()?, CloneFlags::CLONE_NEWNET).with_context(|| {
            format!(
                "cannot enter network namespace `{}`: this needs root",
                self.name()
            )
        })
    }
}

/// Runs work on a thread of its own; a panic there is an error here.
async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (done, answer) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("netns".to_owned())
        .spawn(move || {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            // Nobody waits any more when the asking task was cancelled.
            let _ = done.send(result);
        })
        .context("cannot start a thread for work in a network namespace")?;
    match answer.await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(anyhow!("work in a network namespace panicked")),
        Err(_) => Err(anyhow!(
            "the thread for work in a network namespace ended without an answer"
        )),
    }
}

/// Makes a namespace and pins it to a file, as `ip netns add` does, so that `ip netns exec` finds it.
fn make(path: &Path) -> Result<()> {
    share_folder()?;
    if path.exists() {
        // Left by a crash between making the file and mounting on it, or by a reboot without a fresh /run.
        std::fs::remove_file(path).context("cannot remove the stale file in its place")?;
    }
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(path)
        .context("cannot make its file")?;
    let made = unshare(CloneFlags::CLONE_NEWNET)
        .context("cannot unshare: this needs root")
        .and_then(|()| {
            mount(
                Some("/proc/thread-self/ns/net"),
                path,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
            .context("cannot mount it")
        });
    if made.is_err() {
        let _ = std::fs::remove_file(path);
    }
    made
}

/// Makes `/run/netns` a shared mount, so that the names are seen in other mount namespaces too.
fn share_folder() -> Result<()> {
    std::fs::create_dir_all(FOLDER).with_context(|| format!("cannot make {FOLDER}"))?;
    let share = || {
        mount(
            None::<&str>,
            FOLDER,
            None::<&str>,
            MsFlags::MS_SHARED | MsFlags::MS_REC,
            None::<&str>,
        )
    };
    if share().is_ok() {
        return Ok(());
    }
    // Not a mount point yet.
    mount(
        Some(FOLDER),
        FOLDER,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )
    .and_then(|()| share())
    .with_context(|| format!("cannot make {FOLDER} a shared mount"))
}

/// True when a namespace is mounted at the path.
fn is_namespace_file(path: &Path) -> bool {
    /// `NSFS_MAGIC` of linux/magic.h.
    const NSFS: i64 = 0x6e73_6673;
    nix::sys::statfs::statfs(path).is_ok_and(|fs| fs.filesystem_type().0 == NSFS)
}

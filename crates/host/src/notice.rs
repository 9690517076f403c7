//! Tells when one of a few files comes, goes or is replaced: a program that is installed, a device node that a module brings.
//!
//! The folders of the files are watched by inotify, or the nearest folder above that exists. It says only *that* something
//! changed; whoever is told looks again.

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What of a file counts as another one: number, time of change (in ns), rights, device. `None` when it is not there.
type Print = Option<(u64, i128, u32, u64)>;

/// An ear for some files.
pub struct Notice {
    files: Vec<PathBuf>,
    inotify: AsyncFd<Ear>,
    seen: Vec<Print>,
}

struct Ear(Inotify);

impl AsRawFd for Ear {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl std::fmt::Debug for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notice")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Notice {
    /// Begins to listen; what changes from now on is noticed. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the kernel gives no more watches (`fs.inotify.max_user_instances`).
    pub fn of(files: impl IntoIterator<Item = PathBuf>) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let files: Vec<PathBuf> = files.into_iter().collect();
        // SAFETY: the descriptor is owned by the value that is registered, and never replaced in it.
        let inotify = unsafe { AsyncFd::register_with_interest(Ear(inotify), Interest::READABLE)? };
        let mut notice = Self {
            seen: Vec::new(),
            files,
            inotify,
        };
        notice.arm()?;
        notice.seen = notice.look();
        Ok(notice)
    }

    /// Waits until one of the files is another than before. Cancelling it loses no change.
    ///
    /// # Errors
    /// When the kernel gives no more watches.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            let now = self.look();
            if now != self.seen {
                self.seen = now;
                return Ok(());
            }
            let mut ready = self.inotify.readable().await?;
            loop {
                match ready.get_inner().0.read_events() {
                    // More than fit may wait; what they say is only that something happened.
                    Ok(_) => {}
                    Err(nix::errno::Errno::EAGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready();
            drop(ready);
            // A folder above may be there now.
            self.arm()?;
        }
    }

    /// Watches each file's folder, or the nearest one above it. Watching one again is no harm.
    fn arm(&self) -> io::Result<()> {
        let folders: BTreeSet<&Path> = self
            .files
            .iter()
            .filter_map(|file| file.ancestors().skip(1).find(|folder| folder.is_dir()))
            .collect();
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_ONLYDIR;
        for folder in folders {
            match self.inotify.get_ref().0.add_watch(folder, flags) {
                // Gone since: the next event tells.
                Ok(_) | Err(nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn look(&self) -> Vec<Print> {
        let of = |path: &PathBuf| {
            let meta = fs::metadata(path).ok()?;
            let changed = i128::from(meta.ctime()) * 1_000_000_000 + i128::from(meta.ctime_nsec());
            Some((meta.ino(), changed, meta.mode(), meta.rdev()))
        };
        self.files.iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_file_that_comes_late_in_a_folder_that_comes_late_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, file) = (dir.path().join("bin"), dir.path().join("bin/qemu"));
        let mut notice = Notice::of([file.clone()]).unwrap();
        let soon = Duration::from_secs(30);
        let nothing = tokio::time::timeout(Duration::from_millis(50), notice.changed()).await;
        assert!(nothing.is_err(), "nothing happened");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("other"), "").unwrap();
        let nothing = tokio::time::timeout(Duration::from_millis(50), notice.changed()).await;
        assert!(nothing.is_err(), "only another file came");
        fs::write(&file, "#!/bin/sh\n").unwrap();
        let told = tokio::time::timeout(soon, notice.changed()).await;
        told.unwrap().unwrap();
        fs::remove_file(&file).unwrap();
        let told = tokio::time::timeout(soon, notice.changed()).await;
        told.unwrap().unwrap();
    }
}

//! The few uses of `qemu-img`, always with the format given: a format is never guessed from a disk's content, because
//! the guest writes that. Files from outside are only opened as a user without rights and without a network.

use host::process::{Limits, ProcessError, Run};
use model::{Error, Result};
use serde::Deserialize;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

/// The user without rights as whom foreign files are opened.
pub(crate) const NOBODY: u32 = 65534;

/// How long an operation on metadata may take.
const QUICK: Duration = Duration::from_secs(60);

/// What `qemu-img info` says of a file.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Info {
    /// Size of the disk in it, in bytes.
    pub(crate) virtual_size: u64,
    /// Space that it takes, in bytes.
    #[serde(default)]
    pub(crate) actual_size: u64,
    /// The file it is a layer upon, as its header says it.
    #[serde(default)]
    pub(crate) backing_filename: Option<String>,
    /// Whether its content is encrypted.
    #[serde(default)]
    pub(crate) encrypted: bool,
}

fn failed(what: &str, path: &Path, error: ProcessError) -> Error {
    let said = error.said().unwrap_or_default();
    if said.contains("No space left on device") || said.contains("Disk quota exceeded") {
        return Error::refused(format!("{what} {}: the disk is full", path.display()))
            .hint("free some space in the pool, or use another pool")
            .because(error);
    }
    if said.contains("Failed to get") && said.contains("lock") {
        return Error::new(
            model::What::Unavailable(Duration::from_secs(5)),
            format!("{what} {}: it is in use", path.display()),
        )
        .because(error);
    }
    Error::internal(format!("{what} {}: {error}", path.display())).because(error)
}

/// Describes one of our own files, also while it is in use.
pub(crate) async fn info(path: &Path, format: &str) -> Result<Info> {
    let run = Run::new("qemu-img")
        .args(["info", "--force-share", "--output=json", "-f", format])
        .arg(path)
        .timeout(QUICK);
    let out = run
        .output()
        .await
        .map_err(|error| failed("looking at", path, error))?;
    serde_json::from_slice(&out.stdout).map_err(|error| {
        Error::internal(format!("qemu-img described {} unreadably", path.display())).because(error)
    })
}

/// Makes an empty disk. `thick` takes all of its space.
pub(crate) async fn create(path: &Path, format: &str, size: u64, thick: bool) -> Result<()> {
    let preallocation = if thick {
        "preallocation=falloc"
    } else {
        "preallocation=off"
    };
    let run = Run::new("qemu-img")
        .args(["create", "-q", "-f", format, "-o", preallocation])
        .arg(path)
        .arg(size.to_string());
    run.timeout(QUICK * 10)
        .output()
        .await
        .map_err(|error| failed("making", path, error))?;
    Ok(())
}

/// Makes a qcow2 layer upon one of our images. `below` is written into the header as it is: relative to the layer's
/// folder, so that a pool can be moved.
pub(crate) async fn layer(path: &Path, below: &str, size: u64) -> Result<()> {
    let run = Run::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", below])
        .arg(path)
        .arg(size.to_string());
    run.timeout(QUICK)
        .output()
        .await
        .map_err(|error| failed("making", path, error))?;
    Ok(())
}

/// Grows one of our disks; `qemu-img` itself refuses to shrink one.
pub(crate) async fn grow(path: &Path, format: &str, size: u64, thick: bool) -> Result<()> {
    let preallocation = if thick {
        "--preallocation=falloc"
    } else {
        "--preallocation=off"
    };
    let run = Run::new("qemu-img")
        .args(["resize", "-q", "-f", format, preallocation])
        .arg(path)
        .arg(size.to_string());
    run.timeout(QUICK * 10)
        .output()
        .await
        .map_err(|error| failed("growing", path, error))?;
    Ok(())
}

/// Copies one of our own images into a new disk.
pub(crate) async fn copy(from: &Path, to: &Path, format: &str) -> Result<()> {
    let run = Run::new("qemu-img")
        .args(["convert", "-q", "-f", "qcow2", "-O", format])
        .arg(from)
        .arg(to);
    run.output()
        .await
        .map_err(|error| failed("copying into", to, error))?;
    Ok(())
}

/// A file from outside and its format, ready for a user without rights: both ends belong to [`NOBODY`], whatever
/// folder they are in.
pub(crate) struct Foreign<'a> {
    /// The file.
    pub(crate) from: &'a Path,
    /// Its format, found by [`crate::image::inspect`].
    pub(crate) format: &'a str,
}

impl Foreign<'_> {
    /// Gives `path` to [`NOBODY`] and opens it.
    fn hand_over(path: &Path, write: bool) -> std::io::Result<OwnedFd> {
        let file = File::options().read(true).write(write).open(path)?;
        std::os::unix::fs::fchown(&file, Some(NOBODY), Some(NOBODY))?;
        Ok(file.into())
    }

    fn sandboxed() -> Run {
        // A hostile image can make qemu-img take any time and memory it is given.
        Run::new("qemu-img")
            .uid_gid(NOBODY, NOBODY)
            .no_network()
            .limits(Limits {
                cpu_seconds: Some(4 * 3600),
                address_space: Some(4 << 30),
                ..Limits::default()
            })
    }

    /// Describes it.
    pub(crate) async fn info(&self) -> Result<Info> {
        let fd = Self::hand_over(self.from, false).map_err(|error| unreadable(self.from, error))?;
        let mut run = Self::sandboxed();
        let number = run.fd(fd);
        let run = run
            .args([
                "info",
                "--output=json",
                "-f",
                self.format,
                &format!("/dev/fd/{number}"),
            ])
            .timeout(QUICK);
        let out = run
            .output()
            .await
            .map_err(|error| refused(self.format, error))?;
        serde_json::from_slice(&out.stdout).map_err(|error| {
            Error::internal("qemu-img described the image unreadably").because(error)
        })
    }

    /// Writes its disk as qcow2 into `to`, a new file, which belongs to root afterwards. `each` gets the percentage.
    pub(crate) async fn convert(&self, to: &Path, mut each: impl FnMut(f64) + Send) -> Result<()> {
        let from =
            Self::hand_over(self.from, false).map_err(|error| unreadable(self.from, error))?;
        let new = File::create(to).map_err(|error| unreadable(to, error))?;
        drop(new);
        let out = Self::hand_over(to, true).map_err(|error| unreadable(to, error))?;
        let mut run = Self::sandboxed();
        let (input, output) = (run.fd(from), run.fd(out));
        let run = run.args([
            "convert",
            "-p",
            "-f",
            self.format,
            "-O",
            "qcow2",
            "-o",
            "lazy_refcounts=off,compat=1.1",
        ]);
        let run = run.args([format!("/dev/fd/{input}"), format!("/dev/fd/{output}")]);
        let percent = |line: &str| {
            line.trim()
                .strip_prefix('(')?
                .split('/')
                .next()?
                .trim()
                .parse::<f64>()
                .ok()
        };
        run.lines(|line| {
            if let Some(percent) = percent(line) {
                each(percent);
            }
        })
        .await
        .map_err(|error| {
            let full = error
                .said()
                .is_some_and(|said| said.contains("No space left"));
            if full {
                failed("converting into", to, error)
            } else {
                refused(self.format, error)
            }
        })?;
        std::os::unix::fs::chown(to, Some(0), Some(0)).map_err(|error| unreadable(to, error))?;
        Ok(())
    }
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    if error.raw_os_error() == Some(nix::libc::ENOSPC) {
        return Error::refused(format!("{}: the disk is full", path.display()))
            .hint("free some space in the pool, or use another pool");
    }
    Error::internal(format!("{} cannot be opened: {error}", path.display())).because(error)
}

/// What a foreign image made `qemu-img` say is the image's fault.
fn refused(format: &str, error: ProcessError) -> Error {
    match &error {
        ProcessError::Missing { .. } | ProcessError::Start { .. } => {
            Error::internal(error.to_string()).because(error)
        }
        _ => {
            let said = error
                .said()
                .unwrap_or_default()
                .lines()
                .last()
                .unwrap_or_default();
            let said = said.split("': ").last().unwrap_or(said).to_owned();
            Error::refused(format!("the {format} image cannot be read: {said}")).because(error)
        }
    }
}

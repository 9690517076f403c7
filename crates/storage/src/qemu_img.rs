//! The uses of `qemu-img` on files of our own, beside what `host::img` does with foreign ones. The format is always
//! given, never guessed, because the guest writes the content. A volume that a guest's QEMU could have written is only
//! opened by a user without rights, and without the files that its header names.

use host::process::{Limits, ProcessError, Run};
use model::{Error, Result};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

/// The user without rights as whom files are opened that we did not write alone.
pub(crate) const NOBODY: u32 = 65534;

/// How long an operation may take that copies nothing.
const QUICK: Duration = Duration::from_secs(60);
/// How long it may take when it reserves space.
const SLOW: Duration = Duration::from_secs(3600);

fn failed(what: &str, path: &Path, error: ProcessError) -> Error {
    let said = error.said().unwrap_or_default();
    if said.contains("No space left on device") || said.contains("Disk quota exceeded") {
        return Error::refused(format!("{what} {}: the disk is full", path.display()))
            .hint("free some space in the pool, or use another pool")
            .because(error);
    }
    if said.contains("Failed to get") && said.contains("lock") {
        return Error::unavailable(format!("{what} {}: it is in use", path.display()))
            .because(error);
    }
    Error::internal(format!("{what} {}: {error}", path.display())).because(error)
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
    run.timeout(SLOW)
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

/// Grows a disk. What it is a layer upon is not opened: that is never larger than the disk, so it holds nothing of the
/// new part.
pub(crate) async fn grow(path: &Path, format: &str, size: u64, thick: bool) -> Result<()> {
    let mut run = Run::new("qemu-img").timeout(SLOW).limits(Limits {
        address_space: Some(4 << 30),
        ..Limits::default()
    });
    let opened = File::options().read(true).write(true).open(path);
    let file = opened.map_err(|error| {
        Error::internal(format!("opening {}: {error}", path.display())).because(error)
    })?;
    let root = nix::unistd::geteuid().is_root();
    if root {
        give(&file, path, NOBODY)?;
        run = run.uid_gid(NOBODY, NOBODY).no_network();
    }
    let kept = file.try_clone().map_err(|error| {
        Error::internal(format!("opening {}: {error}", path.display())).because(error)
    })?;
    let number = run.fd(file.into());
    let mut node = serde_json::json!({ "driver": format, "file": { "driver": "file", "filename": format!("/dev/fd/{number}") } });
    if format == "qcow2" {
        node["backing"] = serde_json::Value::Null;
    }
    let preallocation = if thick {
        "--preallocation=falloc"
    } else {
        "--preallocation=off"
    };
    let done = run
        .args([
            "resize",
            "-q",
            preallocation,
            &format!("json:{node}"),
            &size.to_string(),
        ])
        .output()
        .await;
    if root {
        give(&kept, path, 0)?;
    }
    done.map_err(|error| failed("growing", path, error))?;
    Ok(())
}

fn give(file: &File, path: &Path, user: u32) -> Result<()> {
    std::os::unix::fs::fchown(file, Some(user), Some(user)).map_err(|error| {
        Error::internal(format!("changing the owner of {}: {error}", path.display())).because(error)
    })
}

/// Copies one of our own images, whose header was checked when it was published, into a new disk.
pub(crate) async fn copy(from: &Path, to: &Path, format: &str) -> Result<()> {
    let run = Run::new("qemu-img")
        .args(["convert", "-q", "-f", "qcow2", "-O", format])
        .arg(from)
        .arg(to);
    run.timeout(SLOW)
        .output()
        .await
        .map_err(|error| failed("copying into", to, error))?;
    Ok(())
}

/// What a qcow2 header says: the size of the disk in bytes, and what it is a layer upon. Reading it ourselves costs
/// nothing and follows nothing, also while a guest has the disk open.
pub(crate) fn header(file: &mut (impl Read + Seek)) -> std::io::Result<(u64, Option<String>)> {
    let damaged = |what: &str| {
        std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            format!("its qcow2 header {what}"),
        )
    };
    let mut head = [0; 32];
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(&mut head)?;
    if !head.starts_with(b"QFI\xfb") {
        return Err(damaged("is not there"));
    }
    let number = |at: usize| {
        head[at..at + 8]
            .iter()
            .fold(0, |n, &byte| n << 8 | u64::from(byte))
    };
    let (place, length) = (number(8), number(16) >> 32);
    let size = number(24);
    if place == 0 {
        return Ok((size, None));
    }
    if length == 0 || length > 1023 {
        return Err(damaged("names a backing file that is too long"));
    }
    let mut name = vec![0; length as usize];
    file.seek(SeekFrom::Start(place))?;
    file.read_exact(&mut name)?;
    Ok((
        size,
        Some(String::from_utf8(name).map_err(|_| damaged("names a backing file that is no text"))?),
    ))
}

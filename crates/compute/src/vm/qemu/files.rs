//! Files beside a guest: its seed, the variables of its firmware, its TPM's state.

use super::super::hypervisor::Launch;
use super::super::types::Firmware;
use model::{Error, Result};
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Where Debian keeps UEFI for guests.
const OVMF: &str = "/usr/share/OVMF";

/// What a launch needs beside its disks.
pub(super) struct Files {
    /// The seed, opened to read.
    pub seed: Option<OwnedFd>,
    /// The firmware and its variables, opened to read and write.
    pub uefi: Option<Uefi>,
    /// Folder of the TPM's state.
    pub tpm: Option<PathBuf>,
}

/// UEFI.
pub(super) struct Uefi {
    pub code: PathBuf,
    pub vars: OwnedFd,
    pub secure: bool,
}

fn wrong(doing: &str, path: &Path, error: std::io::Error) -> Error {
    Error::unavailable(format!("cannot {doing} {}: {error}", path.display())).because(error)
}

/// Makes a folder and all above it.
pub(super) fn folder(path: &Path, mode: u32) -> Result<()> {
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path);
    made.map_err(|e| wrong("make folder", path, e))
}

/// Makes and opens what a launch needs.
pub(super) fn prepare(
    kept: &Path,
    run: &Path,
    launch: &Launch,
    user: Option<(u32, u32)>,
) -> Result<Files> {
    folder(run, 0o711)?;
    let seed = match &launch.seed {
        None => None,
        Some(bytes) => Some(seed(&run.join("seed.iso"), bytes)?),
    };
    let uefi = match launch.spec.firmware {
        Firmware::Bios => None,
        Firmware::Uefi => Some(uefi(
            kept,
            "uefi-vars.fd",
            "OVMF_CODE_4M.fd",
            "OVMF_VARS_4M.fd",
            false,
        )?),
        Firmware::UefiSecure => Some(uefi(
            kept,
            "uefi-secure-vars.fd",
            "OVMF_CODE_4M.secboot.fd",
            "OVMF_VARS_4M.ms.fd",
            true,
        )?),
    };
    let tpm = match launch.spec.tpm {
        false => None,
        true => {
            let path = kept.join("tpm");
            folder(kept, 0o711)?;
            folder(&path, 0o700)?;
            if let Some((uid, gid)) = user {
                std::os::unix::fs::chown(&path, Some(uid), Some(gid))
                    .map_err(|e| wrong("give away", &path, e))?;
            }
            Some(path)
        }
    };
    Ok(Files { seed, uefi, tpm })
}

fn seed(path: &Path, bytes: &[u8]) -> Result<OwnedFd> {
    let write = || -> std::io::Result<File> {
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(bytes)?;
        File::open(path)
    };
    write().map(Into::into).map_err(|e| wrong("write", path, e))
}

fn uefi(kept: &Path, name: &str, code: &str, template: &str, secure: bool) -> Result<Uefi> {
    let code = Path::new(OVMF).join(code);
    let template = Path::new(OVMF).join(template);
    if !code.exists() || !template.exists() {
        return Err(Error::refused(format!(
            "UEFI for guests is not installed: there is no {}",
            code.display()
        ))
        .hint("apt-get install ovmf"));
    }
    folder(kept, 0o711)?;
    let path = kept.join(name);
    if !path.exists() {
        // Whole or not there: a half copy would be a broken firmware for ever.
        let new = kept.join(format!("{name}.new"));
        let copied = fs::read(&template).and_then(|bytes| {
            let mut file = File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&new, &path)
        });
        copied.map_err(|e| wrong("make", &path, e))?;
    }
    let vars = File::options()
        .read(true)
        .write(true)
        .open(&path)
        .map_err(|e| wrong("open", &path, e))?;
    Ok(Uefi {
        code,
        vars: vars.into(),
        secure,
    })
}

/// Largest log of a QEMU, as far as it is looked at in time.
const LOG: u64 = 1 << 20;
/// What stays of a log that was too large.
const KEPT: u64 = 64 << 10;

/// Cuts a log that somebody else appends to and that has grown too large; the end of it stays beside it as `.1`.
pub(super) fn bound(path: &Path) {
    let cut = || -> std::io::Result<()> {
        let mut file = File::options().read(true).write(true).open(path)?;
        let len = file.metadata()?.len();
        if len <= LOG {
            return Ok(());
        }
        file.seek(SeekFrom::Start(len - KEPT))?;
        let mut end = Vec::new();
        (&file).take(KEPT).read_to_end(&mut end)?;
        fs::write(path.with_extension("log.1"), &end)?;
        file.set_len(0)
    };
    if let Err(error) = cut()
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "a log cannot be bounded");
    }
}

/// The end of a log.
pub(super) fn last_words(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let from = file.metadata()?.len().saturating_sub(1024);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    match read() {
        Ok(text) if !text.is_empty() => text,
        _ => "it left no word".into(),
    }
}

/// Removes a folder of a guest with all in it.
pub(super) fn remove(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "files of a guest remain");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_cut_under_its_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qemu.log");
        let mut writer = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        writer.write_all(b"short\n").unwrap();
        bound(&path);
        assert_eq!(fs::read(&path).unwrap(), b"short\n");
        writer.write_all(&vec![b'x'; 2 << 20]).unwrap();
        writer.write_all(b"last").unwrap();
        bound(&path);
        writer.write_all(b"after").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"after");
        let former = fs::read(dir.path().join("qemu.log.1")).unwrap();
        assert!(former.len() as u64 == KEPT && former.ends_with(b"xlast"));
    }
}

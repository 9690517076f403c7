//! The key file: one line a key, readable by the daemon's user only.

use super::SealError;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// First line of the file.
const TITLE: &str = "debvisor keys 1";

/// The keys by id.
pub(super) struct KeyFile {
    pub(super) primary: String,
    pub(super) keys: BTreeMap<String, [u8; 32]>,
}

impl KeyFile {
    pub(super) fn open_or_make(path: &Path) -> Result<KeyFile, SealError> {
        // Not through a link: somebody who may write the folder must not point us elsewhere.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(path);
        let file = match file {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::make(path),
            Err(error) => return Err(bad(path, format!("cannot be opened: {error}"))),
        };
        check_mode(path, &file)?;
        let mut text = String::new();
        let read = file.take(1 << 20).read_to_string(&mut text);
        read.map_err(|e| bad(path, format!("cannot be read: {e}")))?;
        Self::parse(&text).map_err(|line| {
            bad(
                path,
                format!("line {line} is not as it was written; restore the file from your backup"),
            )
        })
    }

    fn make(path: &Path) -> Result<KeyFile, SealError> {
        let mut keys = KeyFile {
            primary: String::new(),
            keys: BTreeMap::new(),
        };
        keys.add_primary();
        keys.write(path)?;
        Ok(keys)
    }

    pub(super) fn add_primary(&mut self) {
        let id: [u8; 8] = rand::random();
        self.primary = hex::encode(id);
        self.keys.insert(self.primary.clone(), rand::random());
    }

    pub(super) fn remove(&mut self, path: &Path, id: &str) -> Result<(), SealError> {
        if id == self.primary {
            return Err(bad(
                path,
                format!("key {id} is the primary one; rotate first"),
            ));
        }
        match self.keys.remove(id) {
            Some(_) => Ok(()),
            None => Err(bad(path, format!("has no key {id}"))),
        }
    }

    /// Writes the file beside its place and moves it there, durable.
    pub(super) fn write(&self, path: &Path) -> Result<(), SealError> {
        let part = path.with_extension("part");
        let write = || -> io::Result<()> {
            match fs::remove_file(&part) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&part)?;
            writeln!(file, "{TITLE}")?;
            for (id, secret) in &self.keys {
                let role = if *id == self.primary {
                    "primary"
                } else {
                    "older"
                };
                writeln!(file, "{role} {id} {}", hex::encode(secret))?;
            }
            file.sync_all()?;
            fs::rename(&part, path)?;
            let folder = path
                .parent()
                .filter(|p| !p.as_os_str().is_empty())
                .unwrap_or(Path::new("."));
            File::open(folder)?.sync_all()
        };
        write().map_err(|e| bad(path, format!("cannot be written: {e}")))
    }

    /// The keys of a file, or the number of the first line that is wrong.
    fn parse(text: &str) -> Result<KeyFile, usize> {
        let mut lines = text.lines().zip(1..);
        if lines.next().map(|(line, _)| line) != Some(TITLE) {
            return Err(1);
        }
        let mut file = KeyFile {
            primary: String::new(),
            keys: BTreeMap::new(),
        };
        let mut last = 1;
        for (line, number) in lines {
            last = number;
            let mut words = line.split(' ');
            let (Some(role), Some(id), Some(secret), None) =
                (words.next(), words.next(), words.next(), words.next())
            else {
                return Err(number);
            };
            let mut key = [0; 32];
            hex::decode_to_slice(secret, &mut key).map_err(|_| number)?;
            if id.is_empty() || id.contains(':') || file.keys.insert(id.to_owned(), key).is_some() {
                return Err(number);
            }
            match role {
                "primary" if file.primary.is_empty() => file.primary = id.to_owned(),
                "older" => {}
                _ => return Err(number),
            }
        }
        if file.primary.is_empty() {
            Err(last)
        } else {
            Ok(file)
        }
    }
}

fn check_mode(path: &Path, file: &File) -> Result<(), SealError> {
    let meta = file
        .metadata()
        .map_err(|e| bad(path, format!("cannot be examined: {e}")))?;
    let me = nix::unistd::geteuid().as_raw();
    if !meta.is_file() {
        return Err(bad(path, "is not a plain file".into()));
    }
    if meta.mode() & 0o077 != 0 {
        let mode = meta.mode() & 0o777;
        return Err(bad(
            path,
            format!(
                "has mode {mode:04o}, so others may read the keys; run `chmod 600` on it, and rotate the keys if anybody may have read them"
            ),
        ));
    }
    // Root reads what the unprivileged half of a node made: both halves share the keys.
    if me != 0 && meta.uid() != me && meta.uid() != 0 {
        return Err(bad(
            path,
            format!(
                "belongs to user {}, not to user {me} who runs the daemon; run `chown` on it",
                meta.uid()
            ),
        ));
    }
    Ok(())
}

fn bad(path: &Path, reason: String) -> SealError {
    SealError::KeyFile {
        path: path.to_owned(),
        reason,
    }
}

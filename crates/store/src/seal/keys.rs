//! The key ring as it lies in the state folder: data keys, one line each, wrapped with the root key. Without the root key
//! it says only how many keys there are and of what.

use super::file::{self, bad};
use super::root::RootKeys;
use super::{SealError, old};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use std::fmt::Write;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// First line of the file.
const TITLE: &str = "debvisor ring 1";

/// What a key is for when it is not for one project.
pub(super) const CLUSTER: &str = "cluster";

/// One data key.
#[derive(Clone)]
pub(super) struct DataKey {
    /// [`CLUSTER`], or `project/NAME`.
    pub(super) scope: String,
    /// Counts up with each new key of its scope; new texts are sealed with the highest.
    pub(super) version: u32,
    pub(super) id: String,
    pub(super) secret: [u8; 32],
}

impl DataKey {
    fn about(&self) -> String {
        format!("{} {} {}", self.scope, self.version, self.id)
    }
}

/// The keys of the file.
pub(super) struct KeyFile {
    pub(super) keys: Vec<DataKey>,
    /// Whether some are wrapped with a root key that is not the current one any more.
    pub(super) behind: bool,
}

impl KeyFile {
    /// The keys of the folder, or `None` when it has none. What an older version left there is read too.
    pub(super) fn read(folder: &Path, roots: &RootKeys) -> Result<Option<KeyFile>, SealError> {
        let path = folder.join(super::RING);
        if let Some(text) = text_of(&path)? {
            return parse(&path, &text, roots).map(Some);
        }
        let path = folder.join(super::OLD);
        let Some(text) = text_of(&path)? else {
            return Ok(None);
        };
        let keys = old::parse(&text).map_err(|line| bad(&path, damaged(line)))?;
        let mut file = KeyFile { keys, behind: true };
        // They have lain in the clear: what is sealed from now on has a key that never did.
        file.add(CLUSTER);
        Ok(Some(file))
    }

    /// A ring with one new key for the cluster.
    pub(super) fn new() -> KeyFile {
        let mut file = KeyFile {
            keys: Vec::new(),
            behind: true,
        };
        file.add(CLUSTER);
        file
    }

    /// Adds a new key of a scope, and answers its id.
    pub(super) fn add(&mut self, scope: &str) -> String {
        let versions = self.keys.iter().filter(|k| k.scope == scope);
        let version = versions.map(|k| k.version).max().unwrap_or(0) + 1;
        let id = hex::encode(rand::random::<[u8; 8]>());
        self.keys.push(DataKey {
            scope: scope.to_owned(),
            version,
            id: id.clone(),
            secret: rand::random(),
        });
        id
    }

    /// Removes an old key.
    pub(super) fn remove(&mut self, folder: &Path, id: &str) -> Result<(), SealError> {
        let path = folder.join(super::RING);
        let Some(at) = self.keys.iter().position(|k| k.id == id) else {
            return Err(bad(&path, format!("has no key {id}")));
        };
        let key = &self.keys[at];
        let newer = |k: &DataKey| k.scope == key.scope && k.version > key.version;
        if !self.keys.iter().any(newer) {
            let reason = format!("key {id} is the primary one of {}; rotate first", key.scope);
            return Err(bad(&path, reason));
        }
        self.keys.remove(at);
        Ok(())
    }

    /// Writes the ring, every key wrapped with the current root key. What an older version left goes then.
    pub(super) fn write(&mut self, folder: &Path, roots: &RootKeys) -> Result<(), SealError> {
        let path = folder.join(super::RING);
        let mut text = format!("{TITLE}\n");
        for key in &self.keys {
            let about = key.about();
            let Some(wrapped) = roots.wrap(&about, &key.secret) else {
                return Err(bad(&path, "cannot be written: there is no root key".into()));
            };
            let _ = writeln!(
                text,
                "{about} {} {}",
                roots.current(),
                BASE64.encode(wrapped)
            );
        }
        file::write(&path, &text)?;
        self.behind = false;
        let left = folder.join(super::OLD);
        match fs::remove_file(&left) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(bad(
                &left,
                format!("holds keys in the clear and cannot be removed: {e}"),
            )),
            _ => Ok(()),
        }
    }
}

/// The text of a file that only its owner may read; `None` when there is none.
fn text_of(path: &Path) -> Result<Option<String>, SealError> {
    // Not through a link: somebody who may write the folder must not point us elsewhere.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path);
    let file = match file {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(bad(path, format!("cannot be opened: {error}"))),
    };
    file::check_mode(path, &file)?;
    let mut text = String::new();
    // Ten thousand projects with some versions each.
    let read = file.take(64 << 20).read_to_string(&mut text);
    read.map_err(|e| bad(path, format!("cannot be read: {e}")))?;
    Ok(Some(text))
}

fn damaged(line: usize) -> String {
    format!("line {line} is not as it was written; restore the file from your backup")
}

fn parse(path: &Path, text: &str, roots: &RootKeys) -> Result<KeyFile, SealError> {
    let mut lines = text.lines().zip(1..);
    if lines.next().map(|(line, _)| line) != Some(TITLE) {
        return Err(bad(path, damaged(1)));
    }
    let mut file = KeyFile {
        keys: Vec::new(),
        behind: false,
    };
    let mut last = 1;
    for (line, number) in lines {
        last = number;
        let wrong = || bad(path, damaged(number));
        let words: Vec<_> = line.split(' ').collect();
        let [scope, version, id, root, wrapped] = words[..] else {
            return Err(wrong());
        };
        let wrapped = BASE64.decode(wrapped).map_err(|_| wrong())?;
        let mut key = DataKey {
            scope: scope.to_owned(),
            version: version.parse().map_err(|_| wrong())?,
            id: id.to_owned(),
            secret: [0; 32],
        };
        let twice = |k: &DataKey| k.id == id || (k.scope == scope && k.version == key.version);
        if id.is_empty() || file.keys.iter().any(twice) {
            return Err(wrong());
        }
        key.secret = match roots.unwrap(root, &key.about(), &wrapped) {
            Some(secret) => secret,
            None if roots.has(root) => return Err(wrong()),
            None => {
                return Err(SealError::UnknownRoot {
                    path: path.to_owned(),
                    root: root.chars().take(32).collect(),
                    found: roots.current().to_owned(),
                });
            }
        };
        file.behind |= root != roots.current();
        file.keys.push(key);
    }
    match file.keys.iter().any(|k| k.scope == CLUSTER) {
        true => Ok(file),
        false => Err(bad(path, damaged(last))),
    }
}

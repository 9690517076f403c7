//! The keys of persons: what a row says of somebody personally (name, address, program, e-mail ...) can be read only with
//! his own key. To destroy that key is to erase him, and the chain of rows still verifies.
//!
//! Keys are sealed with the data key of the cluster and kept apart from the trail. A key has versions: `active` seals and opens, `rotated`
//! only opens. A subject may be `disabled` (nothing of him is opened until he is enabled again) or `destroyed`.

use super::files;
use super::format::Personal;
use super::head::ChainId;
use crate::Seal;
use model::{Error, Result};
use parking_lot::RwLock;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;

/// Of whom nobody is known: strangers share one key.
pub(super) const STRANGER: &str = "stranger";
/// Bytes before the sealed text: subject, version, nonce, search value.
const HEAD: usize = 8 + 4 + 12 + MAC;
/// Bytes of a search value.
const MAC: usize = 16;

type Id = [u8; 8];

/// How the keys of a subject stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// Seals and opens.
    #[default]
    Active,
    /// Only opens: a newer version seals.
    Rotated,
    /// Opens nothing until it is active again; still seals.
    Disabled,
    /// Gone.
    Destroyed,
}

/// A line of the key file: one subject. The last line about a subject counts.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(with = "hex")]
    id: Id,
    /// His name, wrapped; empty once destroyed.
    name: String,
    #[serde(default)]
    state: KeyState,
    /// Wrapped keys, version 1 first; empty once destroyed.
    keys: Vec<String>,
}

struct Key {
    seal: LessSafeKey,
    search: hmac::Key,
}

impl Key {
    fn of(secret: &[u8]) -> Result<Key> {
        let derive = |what: &[u8]| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
            hmac::sign(&key, what)
        };
        let seal = UnboundKey::new(&AES_256_GCM, derive(b"seal").as_ref())
            .map_err(|_| Error::internal("a key of the audit trail has a wrong length"))?;
        Ok(Key {
            seal: LessSafeKey::new(seal),
            search: hmac::Key::new(hmac::HMAC_SHA256, derive(b"search").as_ref()),
        })
    }

    fn mac(&self, tag: u8, plain: &str) -> [u8; MAC] {
        let mut context = hmac::Context::with_key(&self.search);
        context.update(&[tag]);
        context.update(plain.as_bytes());
        let mut out = [0; MAC];
        out.copy_from_slice(&context.sign().as_ref()[..MAC]);
        out
    }
}

struct Subject {
    id: Id,
    line: Line,
    /// Version 1 first.
    keys: Vec<Key>,
}

#[derive(Default)]
struct Ring {
    by_name: HashMap<String, Subject>,
    names: HashMap<Id, String>,
    destroyed: HashMap<Id, Line>,
}

/// The keys of all subjects.
pub(super) struct Subjects {
    path: PathBuf,
    seal: Arc<dyn Seal>,
    chain: ChainId,
    ring: RwLock<Ring>,
    /// How many subjects have come.
    came: watch::Sender<u64>,
}

/// How many keys are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct KeyCounts {
    /// Subjects whose key seals and opens.
    pub active: u64,
    /// Older versions of keys, which still open.
    pub rotated: u64,
    /// Subjects of whom nothing is opened for now.
    pub disabled: u64,
    /// Subjects who were erased.
    pub destroyed: u64,
}

/// What a value looks like in rows, under each key that is there: for a search without opening.
pub(super) struct Search(HashMap<Id, Vec<[u8; MAC]>>);

impl Search {
    /// Whether a sealed field holds it.
    pub fn finds(&self, sealed: &[u8]) -> bool {
        let (Some(id), Some(mac)) = (sealed.first_chunk::<8>(), sealed.get(24..HEAD)) else {
            return false;
        };
        self.0
            .get(id)
            .is_some_and(|all| all.iter().any(|one| one == mac))
    }
}

fn context(id: &Id, what: &str) -> String {
    format!("audit-subject/{}/{what}", hex::encode(id))
}

impl Subjects {
    /// Reads the keys, making the file when there is none.
    pub fn open(path: &Path, seal: &Arc<dyn Seal>, chain: ChainId) -> Result<Subjects> {
        let subjects = Subjects {
            path: path.to_owned(),
            seal: seal.clone(),
            chain,
            ring: RwLock::default(),
            came: watch::Sender::new(0),
        };
        let text = files::read(path)?.unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let mut lines: HashMap<Id, Line> = HashMap::new();
        for (number, line) in whole.lines().enumerate() {
            let line: Line = serde_json::from_str(line).map_err(|e| {
                Error::unavailable(format!(
                    "line {} of {} is not as it was written",
                    number + 1,
                    path.display()
                ))
                .hint("restore it from your backup of the keys folder")
                .because(e)
            })?;
            lines.insert(line.id, line);
        }
        // A line that a crash cut short was never used.
        let mut anew = whole.len() + 1 < text.len();
        {
            let mut ring = subjects.ring.write();
            for line in lines.into_values() {
                anew |= subjects.enter(&mut ring, line)?;
            }
        }
        if anew {
            subjects.write(&subjects.ring.read())?;
        }
        Ok(subjects)
    }

    /// Takes a line up. Says whether it was wrapped anew, because the key that wrapped it is to be retired.
    fn enter(&self, ring: &mut Ring, mut line: Line) -> Result<bool> {
        if line.state == KeyState::Destroyed {
            ring.destroyed.insert(line.id, line);
            return Ok(false);
        }
        let (id, mut anew) = (line.id, false);
        let mut fresh = |what: &str, wrapped: &mut String| -> Result<String> {
            let context = context(&id, what);
            let text = self.seal.open(&context, wrapped)?;
            if self.seal.is_stale(wrapped) {
                *wrapped = self.seal.seal(&context, &text)?;
                anew = true;
            }
            Ok(text)
        };
        let name = fresh("name", &mut line.name)?;
        let mut keys = Vec::new();
        for (version, key) in (1..).zip(&mut line.keys) {
            let text = fresh(&version_name(version), key)?;
            let secret = hex::decode(text)
                .map_err(|e| Error::internal("a key of the audit trail").because(e))?;
            keys.push(Key::of(&secret)?);
        }
        ring.names.insert(line.id, name.clone());
        ring.by_name.insert(name, Subject { id, line, keys });
        Ok(anew)
    }

    /// Writes all of it anew.
    fn write(&self, ring: &Ring) -> Result<()> {
        let mut text = String::new();
        let living = ring.by_name.values().map(|s| &s.line);
        for line in living.chain(ring.destroyed.values()) {
            text.push_str(&as_text(line)?);
        }
        files::replace(&self.path, &text)
    }

    fn fresh_key(&self, id: &Id, version: u32) -> Result<(String, Key)> {
        let mut secret: [u8; 32] = rand::random();
        let key = Key::of(&secret)?;
        let text = hex::encode(secret);
        secret.fill(0);
        Ok((
            self.seal
                .seal(&context(id, &version_name(version)), &text)?,
            key,
        ))
    }

    /// Changes when somebody gets his first key.
    pub fn came(&self) -> watch::Receiver<u64> {
        self.came.subscribe()
    }

    /// Whether somebody of this name has a key.
    pub fn knows(&self, name: &str) -> bool {
        self.ring.read().by_name.contains_key(name)
    }

    /// Seals a field of a row for a subject, who gets a key when he has none. The new key is on disk before anything
    /// sealed with it.
    pub fn seal(&self, subject: &str, seq: u64, field: &Personal) -> Result<Vec<u8>> {
        if let Some(sealed) = self.seal_known(subject, seq, field)? {
            return Ok(sealed);
        }
        let id: Id = rand::random();
        let (wrapped, key) = self.fresh_key(&id, 1)?;
        let line = Line {
            id,
            name: self.seal.seal(&context(&id, "name"), subject)?,
            state: KeyState::Active,
            keys: vec![wrapped],
        };
        {
            let mut ring = self.ring.write();
            if !ring.by_name.contains_key(subject) {
                files::append(&self.path, &as_text(&line)?)?;
                ring.names.insert(id, subject.to_owned());
                let keys = vec![key];
                ring.by_name
                    .insert(subject.to_owned(), Subject { id, line, keys });
                self.came.send_modify(|count| *count += 1);
            }
        }
        self.seal_known(subject, seq, field)?
            .ok_or_else(|| Error::internal("a key of the audit trail is gone while it is used"))
    }

    /// The same for who has a key; nothing for who has none, or none any more.
    pub fn seal_known(&self, subject: &str, seq: u64, field: &Personal) -> Result<Option<Vec<u8>>> {
        let ring = self.ring.read();
        let Some(found) = ring.by_name.get(subject) else {
            return Ok(None);
        };
        let Some(key) = found.keys.last() else {
            return Err(Error::internal("a subject of the audit trail has no key"));
        };
        let version = found.keys.len() as u32;
        let nonce: [u8; 12] = rand::random();
        let mut out = Vec::with_capacity(HEAD + field.plain.len() + 16);
        out.extend_from_slice(&found.id);
        out.extend_from_slice(&version.to_le_bytes());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&key.mac(field.tag, &field.plain));
        let mut text = field.plain.as_bytes().to_vec();
        let bound = Aad::from(self.bound(seq, field.tag, &found.id, version));
        key.seal
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), bound, &mut text)
            .map_err(|_| Error::internal("a field of the audit trail could not be sealed"))?;
        out.append(&mut text);
        Ok(Some(out))
    }

    /// Opens a field of a row; `None` when it cannot be read any more, or was moved here from elsewhere.
    pub fn open_field(&self, seq: u64, tag: u8, sealed: &[u8]) -> Option<String> {
        let id: Id = sealed.get(..8)?.try_into().ok()?;
        let version = u32::from_le_bytes(sealed.get(8..12)?.try_into().ok()?);
        let nonce: [u8; 12] = sealed.get(12..24)?.try_into().ok()?;
        let mut text = sealed.get(HEAD..)?.to_vec();
        let ring = self.ring.read();
        let subject = ring.by_name.get(ring.names.get(&id)?)?;
        if subject.line.state != KeyState::Active {
            return None;
        }
        let key = subject.keys.get(version.checked_sub(1)? as usize)?;
        let bound = Aad::from(self.bound(seq, tag, &id, version));
        let plain = key
            .seal
            .open_in_place(Nonce::assume_unique_for_key(nonce), bound, &mut text)
            .ok()?;
        String::from_utf8(plain.to_vec()).ok()
    }

    /// What is authenticated beside the text: where it stands.
    fn bound(&self, seq: u64, tag: u8, id: &Id, version: u32) -> Vec<u8> {
        let mut out = self.chain.to_vec();
        out.extend_from_slice(&seq.to_le_bytes());
        out.push(tag);
        out.extend_from_slice(id);
        out.extend_from_slice(&version.to_le_bytes());
        out
    }

    /// How a value looks in a field of rows.
    pub fn search(&self, tag: u8, plain: &str) -> Search {
        let ring = self.ring.read();
        let active = ring
            .by_name
            .values()
            .filter(|s| s.line.state == KeyState::Active);
        let looks = |s: &Subject| s.keys.iter().map(|key| key.mac(tag, plain)).collect();
        Search(active.map(|s| (s.id, looks(s))).collect())
    }

    /// Gives everybody a new version of his key. Answers how many.
    pub fn rotate(&self) -> Result<u64> {
        let mut ring = self.ring.write();
        let mut fresh = Vec::new();
        for (name, subject) in &ring.by_name {
            let version = subject.keys.len() as u32 + 1;
            let (wrapped, key) = self.fresh_key(&subject.id, version)?;
            fresh.push((name.clone(), wrapped, key));
        }
        let count = fresh.len() as u64;
        for (name, wrapped, key) in fresh {
            if let Some(subject) = ring.by_name.get_mut(&name) {
                subject.line.keys.push(wrapped);
                subject.keys.push(key);
            }
        }
        // When this fails, the new versions may have been used by no row: nothing was sealed while the ring was held.
        if let Err(error) = self.write(&ring) {
            for subject in ring.by_name.values_mut() {
                subject.line.keys.pop();
                subject.keys.pop();
            }
            return Err(error);
        }
        Ok(count)
    }

    /// Destroys the keys of a subject, in the file and in memory. Says whether there was one.
    pub fn destroy(&self, name: &str) -> Result<bool> {
        let mut ring = self.ring.write();
        let Some(subject) = ring.by_name.remove(name) else {
            return Ok(false);
        };
        let id = subject.id;
        let gone = Line {
            id,
            name: String::new(),
            state: KeyState::Destroyed,
            keys: Vec::new(),
        };
        ring.destroyed.insert(id, gone);
        if let Err(error) = self.write(&ring) {
            ring.destroyed.remove(&id);
            ring.by_name.insert(name.to_owned(), subject);
            return Err(error);
        }
        ring.names.remove(&id);
        Ok(true)
    }

    /// Makes a subject unreadable for now, or readable again. Says whether there is one.
    pub fn restrict(&self, name: &str, on: bool) -> Result<bool> {
        let mut ring = self.ring.write();
        let Some(subject) = ring.by_name.get_mut(name) else {
            return Ok(false);
        };
        let before = subject.line.state;
        subject.line.state = match on {
            true => KeyState::Disabled,
            false => KeyState::Active,
        };
        if let Err(error) = self.write(&ring) {
            if let Some(subject) = ring.by_name.get_mut(name) {
                subject.line.state = before;
            }
            return Err(error);
        }
        Ok(true)
    }

    /// How the keys stand.
    pub fn counts(&self) -> KeyCounts {
        let ring = self.ring.read();
        let mut counts = KeyCounts {
            destroyed: ring.destroyed.len() as u64,
            ..KeyCounts::default()
        };
        for subject in ring.by_name.values() {
            match subject.line.state {
                KeyState::Disabled => counts.disabled += 1,
                _ => counts.active += 1,
            }
            counts.rotated += subject.keys.len().saturating_sub(1) as u64;
        }
        counts
    }
}

fn version_name(version: u32) -> String {
    format!("key/{version}")
}

fn as_text(line: &Line) -> Result<String> {
    let text = serde_json::to_string(line)
        .map_err(|e| Error::internal("a key of the audit trail").because(e))?;
    Ok(text + "\n")
}

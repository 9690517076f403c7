//! Signed messages: what leaves mutual TLS (a webhook between regions, a call that waits in a queue) stays as it was, and
//! is taken once.
//!
//! The signature is an HMAC over the method, the path with its query, the timestamp, the nonce, the signed headers in
//! order of their names, and the SHA-256 of the body, joined by newlines; no part but the body may hold one, so two
//! messages never have one text. It travels in the headers below. A verifier takes a message within [`TOLERANCE`] of its
//! timestamp and remembers its nonce for [`MEMORY`], which is as long as any timestamp is taken.

use model::Timestamp;
use parking_lot::Mutex;
use ring::hmac;
use sha2::{Digest, Sha256};
use std::collections::{HashSet, VecDeque};
use std::time::Duration;

/// How far a timestamp may be off, either way.
pub const TOLERANCE: Duration = Duration::from_secs(300);
/// How long a nonce is remembered.
pub const MEMORY: Duration = Duration::from_secs(600);
/// Most nonces remembered at a time. Only who has a key can fill them.
const MOST_NONCES: usize = 200_000;
/// Shortest secret, in bytes: what is shorter can be guessed.
const SHORTEST_SECRET: usize = 32;

/// The signature, in lower-case hex.
pub const SIGNATURE: &str = "x-debvisor-signature";
/// Seconds since 1970.
pub const TIMESTAMP: &str = "x-debvisor-timestamp";
/// 16 to 128 of `A-Z a-z 0-9 - _`, never twice.
pub const NONCE: &str = "x-debvisor-nonce";
/// Name of the [`Algorithm`].
pub const ALGORITHM: &str = "x-debvisor-algorithm";
/// Which key.
pub const KEY_ID: &str = "x-debvisor-key-id";
/// Names of the signed headers, in lower case and order, with `;` between.
pub const SIGNED_HEADERS: &str = "x-debvisor-signed-headers";

/// Which hash the HMAC is made with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// The default.
    #[default]
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    const ALL: [Algorithm; 3] = [Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "HMAC-SHA256",
            Algorithm::Sha384 => "HMAC-SHA384",
            Algorithm::Sha512 => "HMAC-SHA512",
        }
    }

    fn named(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|a| a.name() == name)
    }

    fn key(self, secret: &[u8]) -> hmac::Key {
        let algorithm = match self {
            Algorithm::Sha256 => hmac::HMAC_SHA256,
            Algorithm::Sha384 => hmac::HMAC_SHA384,
            Algorithm::Sha512 => hmac::HMAC_SHA512,
        };
        hmac::Key::new(algorithm, secret)
    }
}

/// One message, as it stands on the wire.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Method, in capitals.
    pub method: &'a str,
    /// Path with its query, as it is sent.
    pub target: &'a str,
    /// All headers.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a [u8],
}

/// Why a message is not taken. All of them are 401; the code is stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not signed.
    #[error("this needs a signed request")]
    Required,
    /// The signature does not fit the message, or the message is not of this time. Which it is, is not told.
    #[error("the signature is not accepted")]
    Invalid,
    /// It was taken before, or so many were that this cannot be told.
    #[error("this request was taken before")]
    Replayed,
}

impl Refused {
    /// The stable word.
    pub fn code(self) -> &'static str {
        match self {
            Refused::Required => "SIGNATURE_REQUIRED",
            Refused::Invalid => "INVALID_SIGNATURE",
            Refused::Replayed => "REPLAYED",
        }
    }
}

/// A secret that both sides know.
struct Key {
    id: String,
    secret: Vec<u8>,
}

/// The keys of one relation: the primary signs, all verify. To rotate, add the new key on both sides, make it primary,
/// take the old one away.
pub struct Keys(Vec<Key>);

/// A key that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// Its secret is too short.
    #[error(
        "the secret of signing key `{0}` has fewer than {SHORTEST_SECRET} bytes: make it of random ones"
    )]
    Short(String),
    /// Another key has its id.
    #[error("there are two signing keys `{0}`: give each an id of its own")]
    Twice(String),
    /// Its id is no id.
    #[error("`{0}` cannot be the id of a signing key: 1 to 128 of A-Z a-z 0-9 - _ are")]
    Id(String),
}

impl Keys {
    /// With this primary key.
    ///
    /// # Errors
    /// When the secret is too short or the id is none.
    pub fn new(id: &str, secret: &[u8]) -> Result<Keys, BadKey> {
        let mut keys = Keys(Vec::new());
        keys.add(id, secret)?;
        Ok(keys)
    }

    /// One more that verifies.
    ///
    /// # Errors
    /// When the secret is too short, or the id is none or taken.
    pub fn add(&mut self, id: &str, secret: &[u8]) -> Result<(), BadKey> {
        if !is_word(id, 1) {
            return Err(BadKey::Id(id.to_owned()));
        }
        if secret.len() < SHORTEST_SECRET {
            return Err(BadKey::Short(id.to_owned()));
        }
        if self.find(id).is_some() {
            return Err(BadKey::Twice(id.to_owned()));
        }
        self.0.push(Key {
            id: id.to_owned(),
            secret: secret.to_vec(),
        });
        Ok(())
    }

    fn find(&self, id: &str) -> Option<&Key> {
        self.0.iter().find(|key| key.id == id)
    }

    /// The headers that sign a message, with these headers of it. The nonce is of 16 random bytes. One that the message
    /// does not have, or has twice, cannot be signed.
    ///
    /// # Errors
    /// [`Refused::Invalid`] when a part cannot be signed.
    pub fn sign(
        &self,
        message: &Message<'_>,
        headers: &[&str],
        algorithm: Algorithm,
        now: Timestamp,
        random: [u8; 16],
    ) -> Result<Vec<(&'static str, String)>, Refused> {
        let mut names: Vec<String> = headers.iter().map(|n| n.to_ascii_lowercase()).collect();
        names.sort_unstable();
        names.dedup();
        let primary = self.0.first().ok_or(Refused::Invalid)?;
        let timestamp = now.millis().div_euclid(1000).to_string();
        let nonce = hex::encode(random);
        let text = canonical(message, &timestamp, &nonce, &names).ok_or(Refused::Invalid)?;
        let tag = hmac::sign(&algorithm.key(&primary.secret), text.as_bytes());
        Ok(vec![
            (SIGNATURE, hex::encode(tag)),
            (TIMESTAMP, timestamp),
            (NONCE, nonce),
            (ALGORITHM, algorithm.name().to_owned()),
            (KEY_ID, primary.id.clone()),
            (SIGNED_HEADERS, names.join(";")),
        ])
    }
}

impl std::fmt::Debug for Keys {
    /// Names the keys, never their secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|k| &k.id))
            .finish()
    }
}

/// Takes signed messages, each once.
#[derive(Debug)]
pub struct Verifier {
    keys: Keys,
    /// Headers that must be among the signed ones.
    must: Vec<String>,
    /// What was signed before may have been taken by our predecessor, whose nonces nobody knows.
    since: i64,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    nonces: HashSet<String>,
    order: VecDeque<(i64, String)>,
}

impl Verifier {
    /// Takes what these keys sign from `now` on, when at least these headers are signed. Nonces are kept in memory: what
    /// was signed before this call is refused, so that a restart of ours takes nothing twice. (A sender whose clock is
    /// ahead of ours by as much as our restart takes could be replayed: keep the clocks together.)
    pub fn new(keys: Keys, must: &[&str], now: Timestamp) -> Verifier {
        Verifier {
            keys,
            must: must.iter().map(|n| n.to_ascii_lowercase()).collect(),
            since: now.millis().div_euclid(1000),
            seen: Mutex::default(),
        }
    }

    /// The id of the key that signed it.
    ///
    /// # Errors
    /// Why it is refused; see [`Refused`].
    pub fn verify(&self, message: &Message<'_>, now: Timestamp) -> Result<&str, Refused> {
        let signature = one(message.headers, SIGNATURE)?.ok_or(Refused::Required)?;
        let need = |name| one(message.headers, name)?.ok_or(Refused::Invalid);
        let (timestamp, nonce) = (need(TIMESTAMP)?, need(NONCE)?);
        let (algorithm, id) = (need(ALGORITHM)?, need(KEY_ID)?);
        let names: Vec<String> = match need(SIGNED_HEADERS)? {
            "" => Vec::new(),
            list => list.split(';').map(str::to_owned).collect(),
        };
        let ordered = names.windows(2).all(|two| two[0] < two[1]);
        if !ordered || !self.must.iter().all(|name| names.contains(name)) {
            return Err(Refused::Invalid);
        }
        let algorithm = Algorithm::named(algorithm).ok_or(Refused::Invalid)?;
        let key = self.keys.find(id).ok_or(Refused::Invalid)?;
        let text = canonical(message, timestamp, nonce, &names).ok_or(Refused::Invalid)?;
        let tag = hex::decode(signature).map_err(|_| Refused::Invalid)?;
        // Takes the same time wherever they differ.
        hmac::verify(&algorithm.key(&key.secret), text.as_bytes(), &tag)
            .map_err(|_| Refused::Invalid)?;
        let signed: i64 = timestamp.parse().map_err(|_| Refused::Invalid)?;
        let now = now.millis().div_euclid(1000);
        let off = now.abs_diff(signed);
        if off > TOLERANCE.as_secs() || signed < self.since {
            return Err(Refused::Invalid);
        }
        self.seen.lock().take(&key.id, nonce, now)?;
        Ok(&key.id)
    }
}

impl Seen {
    /// Remembers a nonce, when it is new.
    fn take(&mut self, key: &str, nonce: &str, now: i64) -> Result<(), Refused> {
        let memory = MEMORY.as_secs().cast_signed();
        while let Some((at, _)) = self.order.front()
            && now - at > memory
        {
            if let Some((_, gone)) = self.order.pop_front() {
                self.nonces.remove(&gone);
            }
        }
        let both = format!("{key} {nonce}");
        if self.nonces.len() >= MOST_NONCES || !self.nonces.insert(both.clone()) {
            return Err(Refused::Replayed);
        }
        self.order.push_back((now, both));
        Ok(())
    }
}

/// The text that is signed; `None` when a part has no single meaning.
fn canonical(
    message: &Message<'_>,
    timestamp: &str,
    nonce: &str,
    names: &[String],
) -> Option<String> {
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic());
    let digits = timestamp.len() <= 12 && timestamp.bytes().all(|b| b.is_ascii_digit());
    if !plain(message.method) || !plain(message.target) || !digits || timestamp.is_empty() {
        return None;
    }
    if !is_word(nonce, 16) {
        return None;
    }
    let mut lines = [message.method, message.target, timestamp, nonce].join("\n");
    for name in names {
        let lower = name
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase());
        if name.is_empty() || !lower || name.contains([':', ';']) {
            return None;
        }
        let value = one(message.headers, name).ok().flatten()?.trim();
        if value.contains(['\n', '\r']) {
            return None;
        }
        lines.push_str(&format!("\n{name}:{value}"));
    }
    lines.push('\n');
    lines.push_str(&hex::encode(Sha256::digest(message.body)));
    Some(lines)
}

/// The header of this name; two of them are an error, because two readers might take different ones.
fn one<'a>(headers: &[(&'a str, &'a str)], name: &str) -> Result<Option<&'a str>, Refused> {
    let mut all = headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
    let first = all.next().map(|(_, value)| *value);
    match all.next() {
        None => Ok(first),
        Some(_) => Err(Refused::Invalid),
    }
}

/// Whether it is a word of letters, digits, `-` and `_`, at least so long and at most 128.
fn is_word(text: &str, least: usize) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (least..=128).contains(&text.len()) && text.bytes().all(letter)
}

#[cfg(test)]
mod tests;

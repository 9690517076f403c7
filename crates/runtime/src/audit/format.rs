//! How a row lies on disk, and how rows are chained. Pure: bytes in, rows out. `docs/adr` has the whole form on a page.
//!
//! ```text
//! payload = hash[32] rest
//! rest    = version u8, sort u8, seq u64, prev[32], time i64 (ms since 1970), fields
//! field   = tag u8, length u32, bytes        tags rise; an absent field is not there
//! hash    = SHA-256(rest)                    prev = hash of the row before; numbers are little-endian
//! ```
//!
//! A row is hashed as it lies there: to verify it, nothing in it has to be understood.

use super::row::{Phase, Row};
use crate::Trace;
use model::{Timestamp, Uid};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// SHA-256.
pub type Hash = [u8; 32];

/// Version of the form.
pub(super) const VERSION: u8 = 1;
/// Bytes before the fields.
pub(super) const HEAD: usize = 32 + 1 + 1 + 8 + 32 + 8;
/// Longest plain text field; what comes from outside is bounded long before.
const LONGEST: usize = 64 * 1024;

/// What sort of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// What somebody did.
    Row,
    /// A signature over the row before it.
    Seal,
}

/// The tags of fields. Never given twice, never changed.
pub(super) mod tag {
    pub const PHASE: u8 = 1;
    pub const LEVEL: u8 = 2;
    pub const ACTOR_KIND: u8 = 3;
    pub const SURFACE: u8 = 4;
    pub const ACTOR: u8 = 5;
    pub const REQUEST: u8 = 6;
    pub const TRACE: u8 = 7;
    pub const ACTION: u8 = 8;
    pub const KIND: u8 = 9;
    pub const UID: u8 = 10;
    pub const PROJECT: u8 = 11;
    pub const NAME: u8 = 12;
    pub const CHANGE: u8 = 13;
    pub const PARAMS: u8 = 14;
    pub const ASKED: u8 = 15;
    pub const RESULT: u8 = 16;
    pub const DURATION: u8 = 17;
    pub const RECOVERED: u8 = 18;
    pub const REPEATS: u8 = 19;
    pub const TAGS: u8 = 20;
    /// Sealed fields.
    pub const SEALED_ACTOR: u8 = 32;
    pub const SEALED_USER: u8 = 33;
    pub const SEALED_ADDRESS: u8 = 34;
    pub const SEALED_AGENT: u8 = 35;
    pub const SEALED_NAME: u8 = 36;
    pub const SEALED_PARAMS: u8 = 37;
    /// Fields of a seal.
    pub const EPOCH: u8 = 64;
    pub const NEXT_KEY: u8 = 65;
    pub const SIGNATURE: u8 = 66;
}

/// A record, looked into as far as the chain needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link<'p> {
    pub hash: Hash,
    pub sort: Sort,
    pub seq: u64,
    pub prev: Hash,
    pub time: i64,
    pub fields: &'p [u8],
    rest: &'p [u8],
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

impl<'p> Link<'p> {
    /// Reads the head of a payload; `None` when it is not one of ours.
    pub fn read(payload: &'p [u8]) -> Option<Link<'p>> {
        let rest = payload.get(32..)?;
        if *rest.first()? != VERSION {
            return None;
        }
        Some(Link {
            hash: part(payload, 0)?,
            sort: match rest.get(1)? {
                1 => Sort::Row,
                2 => Sort::Seal,
                _ => return None,
            },
            seq: u64::from_le_bytes(part(rest, 2)?),
            prev: part(rest, 10)?,
            time: i64::from_le_bytes(part(rest, 42)?),
            fields: payload.get(HEAD..)?,
            rest,
        })
    }

    /// Whether the hash is that of the contents.
    pub fn is_whole(&self) -> bool {
        Hash::from(Sha256::digest(self.rest)) == self.hash
    }

    /// One field.
    pub fn field(&self, wanted: u8) -> Option<&'p [u8]> {
        fields(self.fields)
            .find(|(tag, _)| *tag == wanted)
            .map(|(_, value)| value)
    }
}

/// The fields of a record, as far as they are sound.
pub(super) fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (tag, rest) = bytes.split_first()?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        bytes = rest;
        Some((*tag, value))
    })
}

/// Puts a record together.
pub(super) struct Writer {
    out: Vec<u8>,
    last: u8,
}

impl Writer {
    pub fn new(sort: Sort, seq: u64, prev: &Hash, time: i64) -> Writer {
        let mut out = Vec::with_capacity(512);
        out.extend_from_slice(&[0; 32]);
        out.push(VERSION);
        out.push(match sort {
            Sort::Row => 1,
            Sort::Seal => 2,
        });
        out.extend_from_slice(&seq.to_le_bytes());
        out.extend_from_slice(prev);
        out.extend_from_slice(&time.to_le_bytes());
        Writer { out, last: 0 }
    }

    /// Adds a field. Tags must rise.
    pub fn field(&mut self, tag: u8, value: &[u8]) {
        debug_assert!(tag > self.last, "tag {tag} after {}", self.last);
        self.last = tag;
        let value = &value[..value.len().min(LONGEST)];
        self.out.push(tag);
        // Cut above, so it fits.
        self.out
            .extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.out.extend_from_slice(value);
    }

    fn text(&mut self, tag: u8, value: Option<&str>) {
        if let Some(value) = value.filter(|v| !v.is_empty()) {
            self.field(tag, value.as_bytes());
        }
    }

    /// The payload and its hash.
    pub fn end(mut self) -> (Vec<u8>, Hash) {
        let hash = Hash::from(Sha256::digest(&self.out[32..]));
        self.out[..32].copy_from_slice(&hash);
        (self.out, hash)
    }
}

/// A field of a row that is only kept sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Personal {
    pub tag: u8,
    pub plain: String,
}

/// The name of a word of a vocabulary, as serde has it.
fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    }
}

fn from_word<T: DeserializeOwned>(word: &[u8]) -> Option<T> {
    let text = std::str::from_utf8(word).ok()?;
    serde_json::from_value(Value::String(text.to_owned())).ok()
}

/// JSON whose members stand in order of their names, without white space: the same value has the same bytes, whoever
/// writes it.
pub(super) fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write_canonical(value, &mut out);
    out
}

fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut names: Vec<&String> = map.keys().collect();
            names.sort_unstable();
            out.push('{');
            for (i, name) in names.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write_canonical(&map[name], out);
            }
            out.push('}');
        }
        Value::Array(list) => {
            out.push('[');
            for (i, value) in list.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_canonical(value, out);
            }
            out.push(']');
        }
        plain => out.push_str(&plain.to_string()),
    }
}

/// Writes a row. `sealed` are its personal fields as bytes, by rising tag; `actor` and `name` stand in the clear when
/// they are no person's.
pub(super) fn encode(row: &Row, prev: &Hash, clear: Clear, sealed: &[(u8, Vec<u8>)]) -> Writer {
    let mut w = Writer::new(Sort::Row, row.seq, prev, row.time.millis());
    w.field(tag::PHASE, &[matches!(row.phase, Phase::Outcome) as u8]);
    w.text(tag::LEVEL, Some(&word(&row.level)));
    w.text(tag::ACTOR_KIND, Some(&word(&row.actor_kind)));
    w.text(tag::SURFACE, Some(&word(&row.surface)));
    w.text(tag::ACTOR, clear.actor.then_some(&row.actor));
    w.text(tag::REQUEST, Some(&row.request_id));
    if !row.trace.is_empty() {
        let trace = serde_json::to_value(&row.trace).unwrap_or_default();
        w.text(tag::TRACE, Some(&canonical(&trace)));
    }
    w.text(tag::ACTION, Some(&row.action));
    w.text(tag::KIND, row.kind.as_deref());
    if let Some(uid) = &row.uid {
        w.text(tag::UID, Some(&uid.to_string()));
    }
    w.text(tag::PROJECT, row.project.as_deref());
    w.text(tag::NAME, row.name.as_deref().filter(|_| clear.name));
    if let Some(change) = &row.change {
        w.text(tag::CHANGE, Some(&change.to_string()));
    }
    if !row.params.is_null() {
        w.text(tag::PARAMS, Some(&canonical(&row.params)));
    }
    w.text(tag::ASKED, Some(&row.asked));
    w.text(tag::RESULT, row.result.as_deref());
    if let Some(ms) = row.duration_ms {
        w.field(tag::DURATION, &ms.to_le_bytes());
    }
    if row.recovered {
        w.field(tag::RECOVERED, &[]);
    }
    if row.repeats > 0 {
        w.field(tag::REPEATS, &row.repeats.to_le_bytes());
    }
    if !row.tags.is_empty() {
        let tags: Vec<String> = row.tags.iter().map(word).collect();
        w.text(tag::TAGS, Some(&tags.join(",")));
    }
    for (tag, value) in sealed {
        w.field(*tag, value);
    }
    w
}

/// What stands in the clear.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clear {
    pub actor: bool,
    pub name: bool,
}

/// Reads a row; `open` opens its sealed fields. Fields that this version does not know are left out. `None` for what is
/// no row.
pub(super) fn decode(payload: &[u8], open: &dyn Fn(u8, &[u8]) -> Option<String>) -> Option<Row> {
    let link = Link::read(payload)?;
    if link.sort != Sort::Row {
        return None;
    }
    let mut row = Row {
        seq: link.seq,
        time: Timestamp::from_millis(link.time),
        ..Row::default()
    };
    for (tag, value) in fields(link.fields) {
        let text = || std::str::from_utf8(value).ok().map(str::to_owned);
        let number = || {
            value
                .first_chunk::<8>()
                .map(|n| u64::from_le_bytes(*n))
                .unwrap_or_default()
        };
        let json = || serde_json::from_slice::<Value>(value).unwrap_or_default();
        match tag {
            tag::PHASE if value == [0] => row.phase = Phase::Intent,
            tag::LEVEL => row.level = from_word(value).unwrap_or_default(),
            tag::ACTOR_KIND => row.actor_kind = from_word(value)?,
            tag::SURFACE => row.surface = from_word(value)?,
            tag::ACTOR => row.actor = text()?,
            tag::REQUEST => row.request_id = text()?,
            tag::TRACE => row.trace = serde_json::from_value::<Trace>(json()).unwrap_or_default(),
            tag::ACTION => row.action = text()?,
            tag::KIND => row.kind = text(),
            tag::UID => row.uid = text().and_then(|t| Uid::parse(&t)),
            tag::PROJECT => row.project = text(),
            tag::NAME => row.name = text(),
            tag::CHANGE => row.change = text().and_then(|t| Uid::parse(&t)),
            tag::PARAMS => row.params = json(),
            tag::ASKED => row.asked = text()?,
            tag::RESULT => row.result = text(),
            tag::DURATION => row.duration_ms = Some(number()),
            tag::RECOVERED => row.recovered = true,
            tag::REPEATS => row.repeats = number(),
            tag::TAGS => {
                let all = text().unwrap_or_default();
                let tags = all.split(',').filter_map(|t| from_word(t.as_bytes()));
                row.tags = tags.collect();
            }
            tag::SEALED_ACTOR => row.actor = open(tag, value).unwrap_or_else(|| pseudonym(value)),
            tag::SEALED_USER => {
                row.user = Some(open(tag, value).unwrap_or_else(|| pseudonym(value)))
            }
            tag::SEALED_ADDRESS => row.address = open(tag, value),
            tag::SEALED_AGENT => row.user_agent = open(tag, value),
            tag::SEALED_NAME => {
                row.name = Some(open(tag, value).unwrap_or_else(|| pseudonym(value)));
                row.is_person = true;
            }
            tag::SEALED_PARAMS => {
                if let Some(values) = open(tag, value).and_then(|t| serde_json::from_str(&t).ok()) {
                    row.personal = unmask(&mut row.params, values);
                }
            }
            _ => {}
        }
    }
    Some(row)
}

/// What stands for a person whose key is gone or not used: nobody can say who it was, but it is the same one everywhere.
fn pseudonym(sealed: &[u8]) -> String {
    let id = sealed.get(..8).map(hex::encode).unwrap_or_default();
    format!("subject-{id}")
}

/// Puts opened personal values back where they stood. Answers where that is.
fn unmask(params: &mut Value, values: Map<String, Value>) -> Vec<String> {
    let mut places = Vec::new();
    for (pointer, value) in values {
        if let Some(place) = params.pointer_mut(&pointer) {
            *place = value;
            places.push(pointer);
        }
    }
    places
}

/// Takes personal values out of params. Answers them by their places.
pub(super) fn mask(params: &mut Value, places: &[String]) -> Map<String, Value> {
    let mut values = Map::new();
    for pointer in places {
        if let Some(place) = params.pointer_mut(pointer) {
            values.insert(pointer.clone(), place.take());
            *place = Value::from("***");
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use serde_json::json;

    fn whole() -> Vec<u8> {
        let row = Row {
            seq: 7,
            time: Timestamp::from_millis(1_700_000_000_000),
            actor: "system:vm".into(),
            action: "vm.start".into(),
            params: json!({ "b": [1, { "d": 2, "c": "é" }], "a": null }),
            asked: "00".into(),
            result: Some("ok".into()),
            duration_ms: Some(9),
            ..Row::default()
        };
        let clear = Clear {
            actor: true,
            name: true,
        };
        encode(&row, &[3; 32], clear, &[]).end().0
    }

    #[test]
    fn a_row_comes_back_as_it_was_and_any_flipped_bit_shows() {
        let payload = whole();
        let link = Link::read(&payload).unwrap();
        assert!(link.is_whole());
        assert_eq!((link.seq, link.prev), (7, [3; 32]));
        let row = decode(&payload, &|_, _| None).unwrap();
        assert_eq!((&*row.actor, &*row.action), ("system:vm", "vm.start"));
        assert_eq!(
            (row.duration_ms, row.result.as_deref()),
            (Some(9), Some("ok"))
        );
        for bit in 0..payload.len() * 8 {
            let mut bad = payload.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!Link::read(&bad).is_some_and(|l| l.is_whole()), "bit {bit}");
        }
    }

    #[test]
    fn canonical_json_does_not_depend_on_the_order_of_members() {
        let one = json!({ "b": [1, { "d": 2, "c": 3 }], "a": "x\"y" });
        let two = json!({ "a": "x\"y", "b": [1, { "c": 3, "d": 2 }] });
        assert_eq!(canonical(&one), canonical(&two));
        assert_eq!(canonical(&one), r#"{"a":"x\"y","b":[1,{"c":3,"d":2}]}"#);
    }

    /// Whatever lies on the disk, the parser answers and never panics.
    #[test]
    fn foreign_bytes_are_no_row_and_no_panic() {
        let mut dice = StdRng::seed_from_u64(0xa0d1);
        let payload = whole();
        for round in 0..20_000 {
            let mut bytes = match round % 2 {
                0 => payload.clone(),
                _ => (0..dice.random_range(0..300))
                    .map(|_| dice.random())
                    .collect(),
            };
            for _ in 0..dice.random_range(1..8) {
                if bytes.is_empty() {
                    break;
                }
                let at = dice.random_range(0..bytes.len());
                match dice.random_range(0..3) {
                    0 => bytes[at] = dice.random(),
                    1 => bytes.truncate(at),
                    _ => bytes.insert(at, dice.random()),
                }
            }
            if let Some(link) = Link::read(&bytes) {
                let _ = (link.is_whole(), link.field(tag::PARAMS));
                let _ = super::super::head::Head::of([0; 16], &link);
            }
            let _ = decode(&bytes, &|_, _| Some(String::from_utf8_lossy(&bytes).into()));
            let text = String::from_utf8_lossy(&bytes);
            let _ = super::super::head::Head::parse(&text);
        }
    }
}

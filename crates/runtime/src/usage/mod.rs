//! What projects use of what they have limits for, and how a write takes of it.
//!
//! A kind says in its schema what it counts: the word `x-counts` at the root counts objects, at a number or a size that
//! number, at a list its length; in spec and status, of which the larger counts. Nothing here knows a kind or a word.
//!
//! **What is used is nowhere written down as a sum.** It is added up from the objects themselves, in the watch cache, by
//! each change: a crash, a deletion by an agent or a cascade cannot leave a wrong number behind. What belongs to another
//! object is counted with it: of what the owner says that it will have made for it, and of what is there, the larger.
//!
//! **How it stays exact.** Each write that raises a number reserves the difference in this process first (`Ledger`), so
//! that of many at once none sees room that another has taken; and its transaction expects that the guard of the project
//! is still this process's, so that of two processes only one hands out room at a time. Who loses the guard takes it
//! again, having seen all that was written under the other.

mod ledger;
mod tally;
#[cfg(test)]
mod tests;

pub(crate) use ledger::{Held, Ledger};
pub(crate) use tally::{Counted, Tally};

use crate::registry::Declared;
use crate::{Cx, Registry};
use model::Bytes;
use model::schema::{self, COUNTS, UNIT};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How much of what, by the word of what is counted.
pub type Amounts = BTreeMap<Box<str>, u64>;

/// Something that kinds count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Countable {
    /// Its word: `vms`, `memory`.
    pub word: Box<str>,
    /// Whether it is a number of bytes.
    pub bytes: bool,
    /// A field that counts it, as a dotted path, and the kind that has it; without a path, objects of the kind count.
    pub fields: Vec<(&'static str, String)>,
}

impl Countable {
    /// An amount of it, as people read it.
    pub fn shown(&self, amount: u64) -> String {
        match self.bytes {
            true => Bytes(amount).to_string(),
            false => amount.to_string(),
        }
    }
}

/// Knows how much a project may use. Called for each write that raises a number: answers from memory.
pub trait Limits: Send + Sync {
    /// The most of something that a project may use; `None` for any amount.
    fn limit(&self, cx: &Cx, project: &str, word: &str) -> Option<u64>;
    /// What somebody can do who needs so much of it, as a command.
    fn remedy(&self, project: &str, what: &Countable, needed: u64) -> String;
}

/// The limits of this process, as a part. Without it nothing is limited.
pub struct LimitRules(pub Arc<dyn Limits>);

impl std::fmt::Debug for LimitRules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LimitRules")
    }
}

impl Registry {
    /// All that kinds count, in the order of their words.
    pub fn countables(&self) -> Vec<Countable> {
        let mut out: Vec<Countable> = Vec::new();
        for declared in self.iter().filter(|declared| declared.counts) {
            let kind = declared.kind().name;
            let mut found = |word: &str, bytes: bool, path: String| {
                let at = out.iter().position(|known| *known.word == *word);
                let at = at.unwrap_or_else(|| {
                    out.push(Countable {
                        word: word.into(),
                        bytes: false,
                        fields: Vec::new(),
                    });
                    out.len() - 1
                });
                out[at].bytes |= bytes;
                out[at].fields.push((kind, path));
            };
            marks(&declared.spec, "spec", &mut found);
            marks(&declared.status, "status", &mut found);
        }
        out.sort_by(|a, b| a.word.cmp(&b.word));
        out
    }
}

/// Every place of a schema that counts something: its word, whether it is a size, its path.
fn marks(here: &Value, path: &str, found: &mut dyn FnMut(&str, bool, String)) {
    let Value::Object(map) = here else { return };
    if let Some(word) = map.get(COUNTS).and_then(Value::as_str) {
        let bytes = map.get(UNIT).is_some_and(|unit| unit == "bytes");
        let path = match path {
            "spec" | "status" => String::new(),
            path => path.to_owned(),
        };
        found(word, bytes, path);
    }
    for (name, part) in map
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        marks(part, &format!("{path}.{name}"), found);
    }
    if let Some(items) = map.get("items") {
        marks(items, &format!("{path}[]"), found);
    }
    for branch in ["anyOf", "oneOf", "allOf"] {
        for part in map
            .get(branch)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            marks(part, path, found);
        }
    }
}

/// What an object takes.
pub(crate) fn amounts(declared: &Declared, object: &Value) -> Amounts {
    let mut out = Amounts::new();
    if !declared.counts {
        return out;
    }
    let sum = |schema: &Value, part: &Value| {
        let mut sums = Amounts::new();
        schema::walk(schema, COUNTS, part, &mut |_, word, value| {
            let amount = match value {
                Value::Number(n) => n.as_u64().unwrap_or(0),
                Value::Array(list) => list.len() as u64,
                Value::Object(_) => 1,
                Value::Bool(yes) => u64::from(*yes),
                Value::String(_) | Value::Null => 0,
            };
            if let Some(word) = word.as_str() {
                let so_far = sums.entry(word.into()).or_default();
                *so_far = so_far.saturating_add(amount);
            }
        });
        sums
    };
    for sums in [
        sum(&declared.spec, &object["spec"]),
        sum(&declared.status, &object["status"]),
    ] {
        for (word, amount) in sums {
            let most = out.entry(word).or_default();
            *most = (*most).max(amount);
        }
    }
    out.retain(|_, amount| *amount > 0);
    out
}

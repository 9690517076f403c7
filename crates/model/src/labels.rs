//! Labels and the selectors that pick objects by them.

use crate::{Error, Result, Violation};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Labels of an object: key to value.
pub type Labels = BTreeMap<String, String>;

/// Most labels on one object.
pub const MAX_LABELS: usize = 64;

/// Checks keys (1 to 63 of `A-Za-z0-9._/-`) and values (0 to 63 of `A-Za-z0-9._-`).
pub(crate) fn check_labels(labels: &Labels) -> Vec<Violation> {
    let mut out = Vec::new();
    if labels.len() > MAX_LABELS {
        out.push(Violation::new(
            "metadata.labels",
            format!("{} labels are more than {MAX_LABELS}", labels.len()),
        ));
    }
    for (key, value) in labels {
        if key.is_empty()
            || key.len() > 63
            || !key
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._/-".contains(c))
        {
            out.push(Violation::new(
                format!("metadata.labels.{key}"),
                format!("`{key}` is not a label key: 1 to 63 of A-Z a-z 0-9 . _ / -"),
            ));
        }
        if value.len() > 63
            || !value
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        {
            out.push(Violation::new(
                format!("metadata.labels.{key}"),
                format!("`{value}` is not a label value: at most 63 of A-Z a-z 0-9 . _ -"),
            ));
        }
    }
    out
}

/// Picks objects by labels: `env=prod,tier!=db,backup,!legacy,zone in (a,b)`; all parts must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector(Vec<Term>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Term {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Has(String),
    HasNot(String),
}

impl Selector {
    /// Parses a selector; the empty text picks everything.
    pub fn parse(text: &str) -> Result<Selector> {
        let wrong = |part: &str| {
            Error::invalid(vec![
                Violation::new("selector", format!("`{part}` is not a label test"))
                    .hint("write key=value, key!=value, key, !key, or key in (a,b); join them with commas"),
            ])
        };
        let mut terms = Vec::new();
        for part in split_outside_parens(text) {
            let part = part.trim();
            if part.is_empty() {
                if text.trim().is_empty() {
                    continue;
                }
                return Err(wrong(part));
            }
            let key_ok = |k: &str| {
                !k.is_empty()
                    && k.chars()
                        .all(|c| c.is_ascii_alphanumeric() || "._/-".contains(c))
            };
            let list = |t: &str| -> Option<Vec<String>> {
                let t = t.trim().strip_prefix('(')?.strip_suffix(')')?;
                Some(t.split(',').map(|v| v.trim().to_owned()).collect())
            };
            let term = if let Some((k, v)) = part.split_once("!=") {
                Term::NotIn(k.trim().into(), vec![v.trim().into()])
            } else if let Some((k, v)) = part.split_once('=') {
                Term::In(
                    k.trim().into(),
                    vec![v.trim_start_matches('=').trim().into()],
                )
            } else if let Some((k, v)) = part.split_once(" notin ") {
                Term::NotIn(k.trim().into(), list(v).ok_or_else(|| wrong(part))?)
            } else if let Some((k, v)) = part.split_once(" in ") {
                Term::In(k.trim().into(), list(v).ok_or_else(|| wrong(part))?)
            } else if let Some(k) = part.strip_prefix('!') {
                Term::HasNot(k.trim().into())
            } else {
                Term::Has(part.into())
            };
            let key = match &term {
                Term::In(k, _) | Term::NotIn(k, _) | Term::Has(k) | Term::HasNot(k) => k,
            };
            if !key_ok(key) {
                return Err(wrong(part));
            }
            terms.push(term);
        }
        Ok(Selector(terms))
    }

    /// Whether everything is picked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an object with these labels is picked.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|term| match term {
            Term::In(k, values) => labels.get(k).is_some_and(|v| values.contains(v)),
            Term::NotIn(k, values) => labels.get(k).is_none_or(|v| !values.contains(v)),
            Term::Has(k) => labels.contains_key(k),
            Term::HasNot(k) => !labels.contains_key(k),
        })
    }
}

fn split_outside_parens(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut out) = (0usize, 0, Vec::new());
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                out.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    out.push(&text[start..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks() {
        let labels: Labels = [("env", "prod"), ("zone", "a")]
            .map(|(k, v)| (k.into(), v.into()))
            .into();
        for (text, picked) in [
            ("", true),
            ("env=prod", true),
            ("env==prod", true),
            ("env!=prod", false),
            ("env=prod,zone in (a,b)", true),
            ("zone notin (a,b)", false),
            ("env,!legacy", true),
            ("missing", false),
            ("missing!=x", true),
        ] {
            assert_eq!(
                Selector::parse(text).unwrap().matches(&labels),
                picked,
                "{text}"
            );
        }
        for text in [",", "=a", "a b", "zone in a"] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
    }
}

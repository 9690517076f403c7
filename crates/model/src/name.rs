//! Names: RFC 1123 labels, unique in their scope.

use crate::{Error, Result, Violation};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The name of an object: 1 to 63 of `a-z 0-9 -`, beginning and ending with a letter or digit (RFC 1123 label).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

/// The pattern that the schema gives for a name.
pub(crate) const PATTERN: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";

impl Name {
    /// Checks a name. The error names `field`, the value and the rule.
    pub fn parse(field: &str, text: &str) -> Result<Name> {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if text.is_empty()
            || text.len() > 63
            || !text.chars().all(good)
            || text.starts_with('-')
            || text.ends_with('-')
        {
            let suggestion = Self::suggest(text);
            return Err(Error::invalid(vec![
                Violation::new(field, format!("`{text}` is not a name: 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit"))
                    .hint(match suggestion {
                        Some(s) => format!("for example `{s}`; any text may go into display_name"),
                        None => "for example `web1`".into(),
                    }),
            ]));
        }
        Ok(Name(text.into()))
    }

    /// The nearest valid name to a text, if one can be made of it.
    pub fn suggest(text: &str) -> Option<String> {
        let mut out = String::new();
        for c in text.to_lowercase().chars() {
            if c.is_ascii_lowercase() || c.is_ascii_digit() {
                out.push(c);
            } else if !out.ends_with('-') && !out.is_empty() {
                out.push('-');
            }
        }
        out.truncate(63);
        let out = out.trim_end_matches('-').to_owned();
        (!out.is_empty()).then_some(out)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Name::parse("name", text)
    }
}

impl TryFrom<String> for Name {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Name::parse("name", &text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0.as_ref().to_owned()
    }
}

impl std::ops::Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl schemars::JsonSchema for Name {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Name".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "maxLength": 63, "pattern": PATTERN })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(text: &str, expect: Expect) {
        expect.assert_eq(&match Name::parse("metadata.name", text) {
            Ok(name) => name.to_string(),
            Err(e) => e.to_string(),
        });
    }

    #[test]
    fn names() {
        check("web1", expect!["web1"]);
        check("a", expect!["a"]);
        check(
            "-a",
            expect![
                "metadata.name: `-a` is not a name: 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit (for example `a`; any text may go into display_name)"
            ],
        );
        check(
            "Web 1",
            expect![
                "metadata.name: `Web 1` is not a name: 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit (for example `web-1`; any text may go into display_name)"
            ],
        );
        check(
            "",
            expect![
                "metadata.name: `` is not a name: 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit (for example `web1`)"
            ],
        );
    }
}

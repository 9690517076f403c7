//! Filters of searches (RFC 4515): read once from their text, filled in, and written as BER.
//!
//! **Invariant.** What somebody types never becomes part of a filter's text. It is put in as a value of a filter that has
//! been read already, so that no letter of it can change what is asked; where a filter is shown as text, values are
//! escaped.

use super::ber::{OCTETS, SEQUENCE, Writer};
use std::fmt::{self, Display, Write as _};

/// Stands in a filter for what somebody typed as his name.
const USERNAME: &str = "{username}";
/// How deep brackets may be nested.
const DEEPEST: usize = 20;

/// A filter, or the pattern of one while its values have a place for a user name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    And(Vec<Filter>),
    Or(Vec<Filter>),
    Not(Box<Filter>),
    Present(String),
    Match(How, String, Value),
    /// What it begins with, holds, and ends with.
    Parts(String, Option<Value>, Vec<Value>, Option<Value>),
    /// A matching rule, of an attribute or any, also in the names of the entry.
    Rule {
        rule: Option<String>,
        attribute: Option<String>,
        names: bool,
        value: Value,
    },
}

/// How a value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Equal,
    AtLeast,
    AtMost,
    About,
}

impl How {
    fn tag(self) -> u8 {
        match self {
            How::Equal => 0xa3,
            How::AtLeast => 0xa5,
            How::AtMost => 0xa6,
            How::About => 0xa8,
        }
    }

    fn sign(self) -> &'static str {
        match self {
            How::Equal => "=",
            How::AtLeast => ">=",
            How::AtMost => "<=",
            How::About => "~=",
        }
    }
}

/// A value: bytes and places for a user name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Bytes(Vec<u8>),
    Username,
}

impl Value {
    fn known(bytes: &[u8]) -> Value {
        Value(vec![Piece::Bytes(bytes.to_vec())])
    }

    fn has_place(&self) -> bool {
        self.0.contains(&Piece::Username)
    }

    fn filled(&self, username: &str) -> Value {
        let mut all = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Bytes(bytes) => all.extend_from_slice(bytes),
                Piece::Username => all.extend_from_slice(username.as_bytes()),
            }
        }
        Value(vec![Piece::Bytes(all)])
    }

    /// The bytes; a place that was not filled is nothing.
    fn bytes(&self) -> Vec<u8> {
        let Value(mut pieces) = self.filled("");
        match pieces.pop() {
            Some(Piece::Bytes(bytes)) => bytes,
            _ => Vec::new(),
        }
    }
}

impl Filter {
    /// An attribute has this value.
    pub(super) fn equal(attribute: &str, value: &[u8]) -> Filter {
        Filter::Match(How::Equal, attribute.to_owned(), Value::known(value))
    }

    /// A matching rule holds for an attribute and a value.
    pub(super) fn rule(rule: &str, attribute: &str, value: &[u8]) -> Filter {
        Filter::Rule {
            rule: Some(rule.to_owned()),
            attribute: Some(attribute.to_owned()),
            names: false,
            value: Value::known(value),
        }
    }

    /// Whether it has a place for a user name.
    pub(super) fn has_place(&self) -> bool {
        match self {
            Filter::And(all) | Filter::Or(all) => all.iter().any(Filter::has_place),
            Filter::Not(one) => one.has_place(),
            Filter::Present(_) => false,
            Filter::Match(_, _, value) | Filter::Rule { value, .. } => value.has_place(),
            Filter::Parts(_, first, any, last) => {
                first.iter().chain(any).chain(last).any(Value::has_place)
            }
        }
    }

    /// Whether a place for a user name stands where anybody's name can be left open.
    pub(super) fn can_be_opened(&self) -> bool {
        match self {
            Filter::And(all) | Filter::Or(all) => all.iter().all(Filter::can_be_opened),
            Filter::Match(How::Equal, ..) | Filter::Present(_) => true,
            other => !other.has_place(),
        }
    }

    /// With a user name in its places.
    pub(super) fn filled(&self, username: &str) -> Filter {
        let fill = |value: &Value| value.filled(username);
        match self {
            Filter::And(all) => Filter::And(all.iter().map(|f| f.filled(username)).collect()),
            Filter::Or(all) => Filter::Or(all.iter().map(|f| f.filled(username)).collect()),
            Filter::Not(one) => Filter::Not(Box::new(one.filled(username))),
            Filter::Present(attribute) => Filter::Present(attribute.clone()),
            Filter::Match(how, attribute, value) => {
                Filter::Match(*how, attribute.clone(), fill(value))
            }
            Filter::Parts(attribute, first, any, last) => Filter::Parts(
                attribute.clone(),
                first.as_ref().map(fill),
                any.iter().map(fill).collect(),
                last.as_ref().map(fill),
            ),
            Filter::Rule {
                rule,
                attribute,
                names,
                value,
            } => Filter::Rule {
                rule: rule.clone(),
                attribute: attribute.clone(),
                names: *names,
                value: fill(value),
            },
        }
    }

    /// With any name in its places: who is found by it could be found by some name.
    pub(super) fn opened(&self) -> Filter {
        match self {
            Filter::And(all) => Filter::And(all.iter().map(Filter::opened).collect()),
            Filter::Or(all) => Filter::Or(all.iter().map(Filter::opened).collect()),
            Filter::Match(How::Equal, attribute, value) if value.has_place() => {
                open(attribute, &value.0)
            }
            other => other.clone(),
        }
    }

    /// As BER.
    pub(super) fn write(&self, out: &mut Writer) {
        match self {
            Filter::And(all) => out.nest(0xa0, |w| all.iter().for_each(|f| f.write(w))),
            Filter::Or(all) => out.nest(0xa1, |w| all.iter().for_each(|f| f.write(w))),
            Filter::Not(one) => out.nest(0xa2, |w| one.write(w)),
            Filter::Present(attribute) => out.bytes(0x87, attribute.as_bytes()),
            Filter::Match(how, attribute, value) => out.nest(how.tag(), |w| {
                w.bytes(OCTETS, attribute.as_bytes());
                w.bytes(OCTETS, &value.bytes());
            }),
            Filter::Parts(attribute, first, any, last) => out.nest(0xa4, |w| {
                w.bytes(OCTETS, attribute.as_bytes());
                w.nest(SEQUENCE, |w| {
                    first.iter().for_each(|v| w.bytes(0x80, &v.bytes()));
                    any.iter().for_each(|v| w.bytes(0x81, &v.bytes()));
                    last.iter().for_each(|v| w.bytes(0x82, &v.bytes()));
                });
            }),
            Filter::Rule {
                rule,
                attribute,
                names,
                value,
            } => out.nest(0xa9, |w| {
                rule.iter().for_each(|r| w.bytes(0x81, r.as_bytes()));
                attribute.iter().for_each(|a| w.bytes(0x82, a.as_bytes()));
                w.bytes(0x83, &value.bytes());
                if *names {
                    w.flag(0x84, true);
                }
            }),
        }
    }
}

/// What an equality becomes when a name in it is anything.
fn open(attribute: &str, pieces: &[Piece]) -> Filter {
    let known: Vec<(usize, Value)> = pieces
        .iter()
        .enumerate()
        .filter_map(|(at, piece)| match piece {
            Piece::Bytes(bytes) if !bytes.is_empty() => Some((at, Value::known(bytes))),
            _ => None,
        })
        .collect();
    if known.is_empty() {
        return Filter::Present(attribute.to_owned());
    }
    let (mut first, mut any, mut last) = (None, Vec::new(), None);
    for (at, value) in known {
        if at == 0 {
            first = Some(value);
        } else if at + 1 == pieces.len() {
            last = Some(value);
        } else {
            any.push(value);
        }
    }
    Filter::Parts(attribute.to_owned(), first, any, last)
}

/// A value as it may stand in the text of a filter (RFC 4515, 3): what has a meaning there, and what is not plain ASCII,
/// becomes `\` and two hexadecimal digits.
pub(super) fn escape(value: &[u8]) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value {
        match byte {
            b'(' | b')' | b'*' | b'\\' | b'{' | 0..0x20 | 0x7f.. => {
                let _ = write!(out, "\\{byte:02x}");
            }
            plain => out.push(char::from(*plain)),
        }
    }
    out
}

impl Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Bytes(bytes) => f.write_str(&escape(bytes)),
            Piece::Username => f.write_str(USERNAME),
        })
    }
}

impl Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('(')?;
        match self {
            Filter::And(all) | Filter::Or(all) => {
                f.write_char(if matches!(self, Filter::And(_)) {
                    '&'
                } else {
                    '|'
                })?;
                all.iter().try_for_each(|one| one.fmt(f))?;
            }
            Filter::Not(one) => write!(f, "!{one}")?,
            Filter::Present(attribute) => write!(f, "{attribute}=*")?,
            Filter::Match(how, attribute, value) => {
                write!(f, "{attribute}{}{value}", how.sign())?;
            }
            Filter::Parts(attribute, first, any, last) => {
                write!(f, "{attribute}=")?;
                first.iter().try_for_each(|v| v.fmt(f))?;
                any.iter().try_for_each(|v| write!(f, "*{v}"))?;
                f.write_char('*')?;
                last.iter().try_for_each(|v| v.fmt(f))?;
            }
            Filter::Rule {
                rule,
                attribute,
                names,
                value,
            } => {
                attribute.iter().try_for_each(|a| f.write_str(a))?;
                if *names {
                    f.write_str(":dn")?;
                }
                rule.iter().try_for_each(|r| write!(f, ":{r}"))?;
                write!(f, ":={value}")?;
            }
        }
        f.write_char(')')
    }
}

/// Reads the text of a filter.
///
/// # Errors
/// What is wrong with it, for who wrote it.
pub(super) fn parse(text: &str) -> Result<Filter, String> {
    let mut reading = Reading {
        rest: text.trim(),
        depth: 0,
    };
    let filter = reading.filter()?;
    match reading.rest {
        "" => Ok(filter),
        rest => Err(format!("has `{}` behind its end", shown(rest))),
    }
}

fn shown(text: &str) -> String {
    text.chars()
        .take(20)
        .collect::<String>()
        .escape_debug()
        .to_string()
}

struct Reading<'a> {
    rest: &'a str,
    depth: usize,
}

impl Reading<'_> {
    fn eat(&mut self, sign: char) -> bool {
        match self.rest.strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn filter(&mut self) -> Result<Filter, String> {
        if !self.eat('(') {
            return Err(match self.rest {
                "" => "ends where `(` must come".into(),
                rest => format!("has no `(` before `{}`", shown(rest)),
            });
        }
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("is nested deeper than {DEEPEST}"));
        }
        let filter = if self.eat('&') {
            Filter::And(self.several()?)
        } else if self.eat('|') {
            Filter::Or(self.several()?)
        } else if self.eat('!') {
            Filter::Not(Box::new(self.filter()?))
        } else {
            self.item()?
        };
        self.depth -= 1;
        match self.eat(')') {
            true => Ok(filter),
            false => Err("has a `(` without its `)`".into()),
        }
    }

    fn several(&mut self) -> Result<Vec<Filter>, String> {
        let mut all = Vec::new();
        while self.rest.starts_with('(') {
            all.push(self.filter()?);
        }
        match all.is_empty() {
            true => Err("has `&` or `|` with nothing in it".into()),
            false => Ok(all),
        }
    }

    fn item(&mut self) -> Result<Filter, String> {
        let end = self
            .rest
            .find(['(', ')'])
            .ok_or("has a `(` without its `)`")?;
        let (item, rest) = self.rest.split_at(end);
        self.rest = rest;
        let (left, right) = item
            .split_once('=')
            .ok_or_else(|| format!("compares nothing in `{}`", shown(item)))?;
        if let Some(left) = left.strip_suffix(':') {
            return rule(left, value(right)?);
        }
        for (sign, how) in [('>', How::AtLeast), ('<', How::AtMost), ('~', How::About)] {
            if let Some(left) = left.strip_suffix(sign) {
                return Ok(Filter::Match(how, attribute(left)?, value(right)?));
            }
        }
        let attribute = attribute(left)?;
        if right == "*" {
            return Ok(Filter::Present(attribute));
        }
        let parts = right
            .split('*')
            .map(value)
            .collect::<Result<Vec<_>, String>>()?;
        match <[Value; 1]>::try_from(parts) {
            Ok([value]) => Ok(Filter::Match(How::Equal, attribute, value)),
            Err(mut parts) => {
                let full = |value: &Value| value.has_place() || !value.bytes().is_empty();
                let last = parts.pop().filter(full);
                let mut parts = parts.into_iter();
                let first = parts.next().filter(full);
                let any: Vec<Value> = parts.filter(full).collect();
                if first.is_none() && any.is_empty() && last.is_none() {
                    return Ok(Filter::Present(attribute));
                }
                Ok(Filter::Parts(attribute, first, any, last))
            }
        }
    }
}

fn rule(left: &str, value: Value) -> Result<Filter, String> {
    let mut words = left.split(':');
    let named = words.next().unwrap_or_default();
    let attribute = match named {
        "" => None,
        text => Some(attribute(text)?),
    };
    let mut rest: Vec<&str> = words.collect();
    let names = rest
        .first()
        .is_some_and(|word| word.eq_ignore_ascii_case("dn"));
    if names {
        rest.remove(0);
    }
    let rule = match rest[..] {
        [] => None,
        [rule] => Some(self::attribute(rule)?),
        _ => return Err(format!("has more than one rule in `{}`", shown(left))),
    };
    if attribute.is_none() && rule.is_none() {
        return Err("has neither attribute nor rule before `:=`".into());
    }
    Ok(Filter::Rule {
        rule,
        attribute,
        names,
        value,
    })
}

/// Whether a text names an attribute or a rule.
pub(super) fn is_attribute(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "-.;".contains(c);
    !text.is_empty() && text.len() <= 128 && text.chars().all(good)
}

fn attribute(text: &str) -> Result<String, String> {
    match is_attribute(text) {
        true => Ok(text.to_owned()),
        false => Err(format!("has no attribute in `{}`", shown(text))),
    }
}

fn value(text: &str) -> Result<Value, String> {
    let (mut pieces, mut bytes) = (Vec::new(), Vec::new());
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(behind) = rest.strip_prefix(USERNAME) {
            if !bytes.is_empty() {
                pieces.push(Piece::Bytes(std::mem::take(&mut bytes)));
            }
            pieces.push(Piece::Username);
            rest = behind;
        } else if let Some(behind) = rest.strip_prefix('\\') {
            let mut byte = [0];
            let digits = behind.as_bytes().get(..2).unwrap_or_default();
            hex::decode_to_slice(digits, &mut byte).map_err(|_| {
                format!(
                    "has `\\` without two hexadecimal digits in `{}`",
                    shown(text)
                )
            })?;
            bytes.push(byte[0]);
            rest = &behind[2..];
        } else {
            let mut letters = rest.chars();
            if let Some(letter) = letters.next() {
                if letter == '\0' || letter == '*' {
                    return Err(format!("must escape a letter in `{}`", shown(text)));
                }
                bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            }
            rest = letters.as_str();
        }
    }
    if !bytes.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Bytes(bytes));
    }
    Ok(Value(pieces))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ber(filter: &Filter) -> Vec<u8> {
        let mut out = Writer::default();
        filter.write(&mut out);
        out.done()
    }

    #[test]
    fn filters_are_read_and_shown() {
        for text in [
            "(uid={username})",
            "(&(objectCategory=person)(objectClass=user)(sAMAccountName={username}))",
            "(|(uid={username})(mail={username}@example.org))",
            "(!(nsAccountLock=TRUE))",
            "(uid=*)",
            "(cn=a*b*c)",
            "(cn=*b*)",
            "(cn=a*)",
            "(cn=)",
            "(a>=1)",
            "(a<=1)",
            "(a~=b)",
            "(userAccountControl:1.2.840.113556.1.4.803:=2)",
            "(ou:dn:=people)",
            "(:caseIgnoreMatch:=x)",
            "(cn=\\28x\\29\\2a\\5c\\00)",
            "(cn;lang-de=x=y)",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        assert_eq!(parse(" (uid=a) ").unwrap(), parse("(uid=a)").unwrap());
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for bad in [
            "",
            "uid={username}",
            "(uid={username}",
            "(uid=a))",
            "(&)",
            "(=a)",
            "(u id=a)",
            "(uid)",
            "(uid=\\2)",
            "(uid=\\zz)",
            "(uid=\\\u{e9}a)",
            "(:=a)",
            "(a:b:c:=d)",
            "(a>=b*)",
            "(!(a=b)(c=d))",
            &"(!".repeat(1000),
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_typed_is_a_value() {
        let filter = parse("(uid={username})").unwrap();
        assert_eq!(
            filter.filled("*)(uid=*").to_string(),
            "(uid=\\2a\\29\\28uid=\\2a)"
        );
        assert_eq!(
            ber(&filter.filled("*)(uid=*")),
            ber(&Filter::equal("uid", b"*)(uid=*"))
        );
        assert_eq!(
            filter.filled("{username}").to_string(),
            "(uid=\\7busername})"
        );
    }

    #[test]
    fn any_name_leaves_the_rest_as_it_is() {
        for (text, opened) in [
            ("(uid={username})", "(uid=*)"),
            (
                "(&(a=b)(mail={username}@example.org))",
                "(&(a=b)(mail=*@example.org))",
            ),
            ("(cn=x-{username})", "(cn=x-*)"),
            ("(cn=x-{username}-y)", "(cn=x-*-y)"),
        ] {
            let filter = parse(text).unwrap();
            assert!(filter.can_be_opened());
            assert_eq!(filter.opened().to_string(), opened);
        }
        for text in [
            "(!(uid={username}))",
            "(uid>={username})",
            "(uid=*{username})",
            "(uid:rule:={username})",
        ] {
            assert!(!parse(text).unwrap().can_be_opened(), "{text}");
        }
    }

    #[test]
    fn as_ber() {
        let filter = parse("(&(a=b)(!(c=*)))").unwrap();
        assert_eq!(
            ber(&filter),
            [
                0xa0, 0x0d, 0xa3, 0x06, 4, 1, b'a', 4, 1, b'b', 0xa2, 0x03, 0x87, 1, b'c'
            ]
        );
    }

    proptest! {
        #[test]
        fn no_name_changes_what_is_asked(name in "\\PC{0,40}", raw in proptest::collection::vec(any::<u8>(), 0..40)) {
            let pattern = parse("(&(objectClass=person)(|(uid={username})(mail={username}@x)))").unwrap();
            let filled = pattern.filled(&name);
            // As text, it is read back as the very same filter: nothing of the name was taken for a sign.
            prop_assert_eq!(parse(&filled.to_string()).unwrap(), filled);
            let escaped = escape(&raw);
            let plain = escaped.bytes().all(|b| (0x20..0x7f).contains(&b) && !b"()*{".contains(&b));
            prop_assert!(plain);
            prop_assert_eq!(value(&escaped).unwrap().bytes(), raw);
        }

        #[test]
        fn whatever_comes_is_an_answer(text in "[(&|!)a={}username*\\\\0-9:~<>é]{0,60}") {
            if let Ok(filter) = parse(&text) {
                prop_assert_eq!(parse(&filter.to_string()).unwrap(), filter.clone());
                let _ = ber(&filter.filled("x"));
                if filter.can_be_opened() {
                    prop_assert!(!filter.opened().has_place());
                }
            }
        }
    }
}

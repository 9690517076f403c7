//! The messages of LDAP (RFC 4511) that we send and read. Pure.

use super::ber::{BOOLEAN, ENUMERATED, INTEGER, Malformed, OCTETS, Reader, SEQUENCE, Writer, head};
use super::filter::Filter;

/// The longest message that is read: a group with tens of thousands of members fits.
pub(super) const LONGEST: usize = 8 << 20;
/// Results in pages (RFC 2696).
const PAGED: &str = "1.2.840.113556.1.4.319";
/// TLS from here on (RFC 4511, 4.14).
const START_TLS: &str = "1.3.6.1.4.1.1466.20037";

/// Codes of outcomes that mean something to us.
pub(super) const SUCCESS: i32 = 0;
pub(super) const SIZE_LIMIT: i32 = 4;
pub(super) const REFERRAL: i32 = 10;
pub(super) const NO_SUCH_OBJECT: i32 = 32;
pub(super) const INVALID_CREDENTIALS: i32 = 49;
const BUSY: i32 = 51;
const UNAVAILABLE: i32 = 52;

/// Where a search looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Where {
    /// At the entry itself.
    Base,
    /// At it and everything below.
    Below,
}

/// A search.
#[derive(Clone, Debug)]
pub(super) struct Search {
    pub base: String,
    pub within: Where,
    pub filter: Filter,
    pub attributes: Vec<String>,
    /// How many entries at most; 0 for all.
    pub most: i32,
}

fn message(id: i32, op: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut out = Writer::default();
    out.nest(SEQUENCE, |w| {
        w.number(INTEGER, id);
        op(w);
    });
    out.done()
}

/// Proves who we are by a password.
pub(super) fn bind(id: i32, dn: &str, password: &str) -> Vec<u8> {
    message(id, |w| {
        w.nest(0x60, |w| {
            w.number(INTEGER, 3);
            w.bytes(OCTETS, dn.as_bytes());
            w.bytes(0x80, password.as_bytes());
        });
    })
}

/// Asks for TLS.
pub(super) fn start_tls(id: i32) -> Vec<u8> {
    message(id, |w| {
        w.nest(0x77, |w| w.bytes(0x80, START_TLS.as_bytes()))
    })
}

/// Says goodbye.
pub(super) fn unbind(id: i32) -> Vec<u8> {
    message(id, |w| w.bytes(0x42, &[]))
}

/// Searches; in pages of this size when one is given, from where the last page ended.
pub(super) fn search(
    id: i32,
    search: &Search,
    page: Option<(i32, &[u8])>,
    seconds: i32,
) -> Vec<u8> {
    message(id, |w| {
        w.nest(0x63, |w| {
            w.bytes(OCTETS, search.base.as_bytes());
            w.number(
                ENUMERATED,
                match search.within {
                    Where::Base => 0,
                    Where::Below => 2,
                },
            );
            // Aliases are never followed.
            w.number(ENUMERATED, 0);
            w.number(INTEGER, search.most);
            w.number(INTEGER, seconds);
            w.flag(BOOLEAN, false);
            search.filter.write(w);
            w.nest(SEQUENCE, |w| {
                for attribute in &search.attributes {
                    w.bytes(OCTETS, attribute.as_bytes());
                }
            });
        });
        if let Some((size, cookie)) = page {
            w.nest(0xa0, |w| {
                w.nest(SEQUENCE, |w| {
                    w.bytes(OCTETS, PAGED.as_bytes());
                    let mut value = Writer::default();
                    value.nest(SEQUENCE, |w| {
                        w.number(INTEGER, size);
                        w.bytes(OCTETS, cookie);
                    });
                    w.bytes(OCTETS, &value.done());
                });
            });
        }
    })
}

/// How an operation ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub code: i32,
    /// What the server says of it.
    pub message: String,
}

impl Outcome {
    /// Whether the server may do it a little later.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self.code, BUSY | UNAVAILABLE)
    }

    /// For people.
    pub(super) fn told(&self) -> String {
        let word = match self.code {
            SIZE_LIMIT => "more entries than it gives at a time",
            7 | 8 => "it wants another way of proving who we are",
            REFERRAL => "it refers to another server, which is not followed",
            13 => "it wants TLS",
            16 => "there is no such attribute",
            18 => "it does not know the matching rule",
            NO_SUCH_OBJECT => "there is no such entry",
            34 => "that is no distinguished name",
            48 | INVALID_CREDENTIALS => "name or password is wrong",
            50 => "the account may not do this",
            BUSY | UNAVAILABLE => "it is busy or going down",
            53 => "it is not willing to",
            _ => "an error",
        };
        let said: String = self
            .message
            .chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect();
        match said.is_empty() {
            true => format!("{word} (code {})", self.code),
            false => format!("{word} (code {}: {said})", self.code),
        }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub dn: String,
    /// Attributes, their names in lower case.
    attributes: Vec<(String, Vec<Vec<u8>>)>,
}

impl Entry {
    /// All values of an attribute; its name without regard to case.
    pub(super) fn values(&self, name: &str) -> &[Vec<u8>] {
        let found = self.attributes.iter();
        let mut found = found.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        found.next().map_or(&[], |(_, values)| values)
    }

    /// The first value that is not empty, as text.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let values = self.values(name).iter();
        let mut texts = values.filter_map(|v| std::str::from_utf8(v).ok());
        texts.find(|text| !text.is_empty()).map(str::to_owned)
    }
}

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Bound(Outcome),
    Found(Entry),
    /// It would have us look elsewhere.
    Elsewhere,
    /// The end of a search, and where the next page begins.
    Searched(Outcome, Vec<u8>),
    Extended(Outcome),
}

/// How long the next message is, with its head; `None` while that cannot be told.
pub(super) fn length(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    match head(bytes)? {
        None => Ok(None),
        Some((SEQUENCE, head, len)) if len <= LONGEST => Ok(Some(head + len)),
        Some(_) => Err(Malformed),
    }
}

/// Reads one message: its number and what it says.
pub(super) fn read(bytes: &[u8]) -> Result<(i32, Answer), Malformed> {
    let mut all = Reader::new(bytes).nested(SEQUENCE)?;
    let id = all.number(INTEGER)?;
    let (tag, content) = all.next()?;
    let mut op = Reader::new(content);
    let answer = match tag {
        0x61 => Answer::Bound(outcome(&mut op)?),
        0x64 => Answer::Found(entry(&mut op)?),
        0x65 => {
            let outcome = outcome(&mut op)?;
            Answer::Searched(outcome, cookie(all)?)
        }
        0x73 => Answer::Elsewhere,
        0x78 => Answer::Extended(outcome(&mut op)?),
        _ => return Err(Malformed),
    };
    Ok((id, answer))
}

fn outcome(op: &mut Reader<'_>) -> Result<Outcome, Malformed> {
    let code = op.number(ENUMERATED)?;
    op.take(OCTETS)?;
    let message = op.text(OCTETS)?;
    Ok(Outcome { code, message })
}

fn entry(op: &mut Reader<'_>) -> Result<Entry, Malformed> {
    let dn = op.text(OCTETS)?;
    let mut list = op.nested(SEQUENCE)?;
    let mut attributes = Vec::new();
    while !list.is_empty() {
        let mut one = list.nested(SEQUENCE)?;
        let name = one.text(OCTETS)?.to_ascii_lowercase();
        let mut set = one.nested(0x31)?;
        let mut values = Vec::new();
        while !set.is_empty() {
            values.push(set.take(OCTETS)?.to_vec());
        }
        attributes.push((name, values));
    }
    Ok(Entry { dn, attributes })
}

/// Where the next page begins; empty when there is none.
fn cookie(mut rest: Reader<'_>) -> Result<Vec<u8>, Malformed> {
    while !rest.is_empty() {
        let (0xa0, controls) = rest.next()? else {
            continue;
        };
        let mut controls = Reader::new(controls);
        while !controls.is_empty() {
            let mut control = controls.nested(SEQUENCE)?;
            if control.take(OCTETS)? != PAGED.as_bytes() {
                continue;
            }
            while !control.is_empty() {
                if let (OCTETS, value) = control.next()? {
                    let mut value = Reader::new(value).nested(SEQUENCE)?;
                    value.number(INTEGER)?;
                    return value.take(OCTETS).map(<[u8]>::to_vec);
                }
            }
        }
    }
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answered(tag: u8, inside: impl FnOnce(&mut Writer)) -> Vec<u8> {
        message(7, |w| w.nest(tag, inside))
    }

    fn ended(w: &mut Writer, code: i32) {
        w.number(ENUMERATED, code);
        w.bytes(OCTETS, b"");
        w.bytes(OCTETS, b"why");
    }

    fn found() -> Vec<u8> {
        answered(0x64, |w| {
            w.bytes(OCTETS, b"uid=anna,dc=x");
            w.nest(SEQUENCE, |w| {
                w.nest(SEQUENCE, |w| {
                    w.bytes(OCTETS, b"Mail");
                    w.nest(0x31, |w| {
                        w.bytes(OCTETS, b"");
                        w.bytes(OCTETS, b"a@x");
                    });
                });
            });
        })
    }

    #[test]
    fn answers_are_read() {
        let outcome = Outcome {
            code: 49,
            message: "why".into(),
        };
        assert_eq!(
            read(&answered(0x61, |w| ended(w, 49))),
            Ok((7, Answer::Bound(outcome)))
        );
        let Ok((7, Answer::Found(entry))) = read(&found()) else {
            panic!("an entry");
        };
        assert_eq!(entry.text("MAIL").unwrap(), "a@x");
        assert_eq!(entry.values("mail").len(), 2);
        assert!(entry.values("cn").is_empty());
        let paged = message(7, |w| {
            w.nest(0x65, |w| ended(w, 0));
            w.nest(0xa0, |w| {
                w.nest(SEQUENCE, |w| {
                    w.bytes(OCTETS, PAGED.as_bytes());
                    w.flag(BOOLEAN, false);
                    let mut value = Writer::default();
                    value.nest(SEQUENCE, |w| {
                        w.number(INTEGER, 0);
                        w.bytes(OCTETS, b"next");
                    });
                    w.bytes(OCTETS, &value.done());
                });
            });
        });
        let Ok((7, Answer::Searched(_, cookie))) = read(&paged) else {
            panic!("an end");
        };
        assert_eq!(cookie, b"next");
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_before_it_is_read() {
        assert_eq!(length(&[0x30, 0x84, 0x7f, 0, 0, 0]), Err(Malformed));
        assert_eq!(length(&[0x30, 0x82, 1]), Ok(None));
        assert_eq!(length(&[0x30, 0x82, 1, 0]), Ok(Some(260)));
        assert_eq!(length(b"HTTP"), Err(Malformed));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (read(&bytes), length(&bytes));
        }

        #[test]
        fn broken_answers_break_nothing(at in 0usize..40, with: u8, cut in 0usize..40) {
            let mut bytes = found();
            let at = at % bytes.len();
            bytes[at] = with;
            let _ = read(&bytes);
            bytes.truncate(cut);
            let _ = (read(&bytes), length(&bytes));
        }
    }
}

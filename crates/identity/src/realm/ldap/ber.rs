//! BER as LDAP uses it (RFC 4511, 5.1): tags of one byte and definite lengths. Pure; every length is held against what is
//! there before anything is taken, and nothing here calls itself, so that no answer of a server costs more than its bytes.

/// Tags of the universal class.
pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTETS: u8 = 0x04;
pub(super) const ENUMERATED: u8 = 0x0a;
pub(super) const SEQUENCE: u8 = 0x30;

/// What is not BER, or not what was to come.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

type Read<T> = Result<T, Malformed>;

/// Writes values one after the other.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn bytes(&mut self, tag: u8, content: &[u8]) {
        self.0.push(tag);
        let len = content.len();
        if len < 0x80 {
            self.0.push(len as u8);
        } else {
            let all = len.to_be_bytes();
            let skip = all.iter().take_while(|b| **b == 0).count();
            self.0.push(0x80 | (all.len() - skip) as u8);
            self.0.extend_from_slice(&all[skip..]);
        }
        self.0.extend_from_slice(content);
    }

    pub(super) fn nest(&mut self, tag: u8, inside: impl FnOnce(&mut Writer)) {
        let mut inner = Writer::default();
        inside(&mut inner);
        self.bytes(tag, &inner.0);
    }

    pub(super) fn number(&mut self, tag: u8, value: i32) {
        let all = value.to_be_bytes();
        // As short as it can be with its sign kept.
        let skip = (0..3)
            .take_while(|at| match all[*at] {
                0x00 => all[at + 1] & 0x80 == 0,
                0xff => all[at + 1] & 0x80 != 0,
                _ => false,
            })
            .count();
        self.bytes(tag, &all[skip..]);
    }

    pub(super) fn flag(&mut self, tag: u8, value: bool) {
        self.bytes(tag, &[if value { 0xff } else { 0x00 }]);
    }

    pub(super) fn done(self) -> Vec<u8> {
        self.0
    }
}

/// What a value begins with: its tag, how long that and the length are, and how long the content is. `None` while too
/// few bytes are there to tell.
pub(super) fn head(bytes: &[u8]) -> Read<Option<(u8, usize, usize)>> {
    let [tag, first, rest @ ..] = bytes else {
        return Ok(None);
    };
    if tag & 0x1f == 0x1f {
        return Err(Malformed);
    }
    match first {
        0..=0x7f => Ok(Some((*tag, 2, usize::from(*first)))),
        // 0x80 is an open end, which LDAP forbids; more than four bytes are no length of a message.
        0x81..=0x84 => {
            let count = usize::from(first & 0x7f);
            let Some(length) = rest.get(..count) else {
                return Ok(None);
            };
            let length = length
                .iter()
                .fold(0usize, |sum, b| (sum << 8) | usize::from(*b));
            Ok(Some((*tag, 2 + count, length)))
        }
        _ => Err(Malformed),
    }
}

/// Reads values one after the other.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn next(&mut self) -> Read<(u8, &'a [u8])> {
        let (tag, head, len) = head(self.0)?.ok_or(Malformed)?;
        let end = head.checked_add(len).ok_or(Malformed)?;
        let content = self.0.get(head..end).ok_or(Malformed)?;
        self.0 = &self.0[end..];
        Ok((tag, content))
    }

    pub(super) fn take(&mut self, tag: u8) -> Read<&'a [u8]> {
        match self.next()? {
            (found, content) if found == tag => Ok(content),
            _ => Err(Malformed),
        }
    }

    pub(super) fn nested(&mut self, tag: u8) -> Read<Reader<'a>> {
        self.take(tag).map(Reader)
    }

    pub(super) fn number(&mut self, tag: u8) -> Read<i32> {
        let content = self.take(tag)?;
        let (Some(first), 1..=4) = (content.first(), content.len()) else {
            return Err(Malformed);
        };
        let sign = if first & 0x80 != 0 { -1 } else { 0 };
        Ok(content
            .iter()
            .fold(sign, |sum: i32, b| (sum << 8) | i32::from(*b)))
    }

    /// Text as people may read it: what is no UTF-8 is replaced.
    pub(super) fn text(&mut self, tag: u8) -> Read<String> {
        self.take(tag)
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_as_short_as_they_can_be() {
        for (value, bytes) in [
            (0, vec![2, 1, 0]),
            (127, vec![2, 1, 127]),
            (128, vec![2, 2, 0, 128]),
            (-1, vec![2, 1, 255]),
            (-129, vec![2, 2, 0xff, 0x7f]),
            (i32::MAX, vec![2, 4, 0x7f, 255, 255, 255]),
        ] {
            let mut out = Writer::default();
            out.number(INTEGER, value);
            let out = out.done();
            assert_eq!(out, bytes);
            assert_eq!(Reader::new(&out).number(INTEGER), Ok(value));
        }
    }

    #[test]
    fn a_length_that_lies_is_refused() {
        for bad in [
            &[0x30, 0x80, 0, 0][..],
            &[0x30, 0x85, 0, 0, 0, 0, 1, 0],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0],
            &[0x30, 2, 0],
            &[0x1f, 0x81, 0],
        ] {
            assert_eq!(Reader::new(bad).next(), Err(Malformed), "{bad:x?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read(content in proptest::collection::vec(any::<u8>(), 0..300), value: i32) {
            let mut out = Writer::default();
            out.nest(SEQUENCE, |w| {
                w.bytes(OCTETS, &content);
                w.number(ENUMERATED, value);
            });
            let out = out.done();
            let mut read = Reader::new(&out).nested(SEQUENCE).unwrap();
            prop_assert_eq!(read.take(OCTETS).unwrap(), &content[..]);
            prop_assert_eq!(read.number(ENUMERATED).unwrap(), value);
            prop_assert!(read.is_empty());
        }

        #[test]
        fn whatever_comes_is_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut read = Reader::new(&bytes);
            while let Ok((_, content)) = read.next() {
                prop_assert!(content.len() < bytes.len());
                let _ = Reader::new(content).number(INTEGER);
            }
        }
    }
}

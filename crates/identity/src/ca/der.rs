//! The little DER that rcgen does not write for us: OCSP messages and one extension. Reading never trusts a length and
//! never copies.

/// BOOLEAN, INTEGER and so on, as the first byte of an element.
pub(super) mod tag {
    pub const INTEGER: u8 = 0x02;
    pub const BIT_STRING: u8 = 0x03;
    pub const OCTET_STRING: u8 = 0x04;
    #[cfg(test)]
    pub const NULL: u8 = 0x05;
    pub const OID: u8 = 0x06;
    pub const ENUMERATED: u8 = 0x0a;
    pub const GENERALIZED_TIME: u8 = 0x18;
    pub const SEQUENCE: u8 = 0x30;
    /// `[n]`, constructed.
    pub const fn context(n: u8) -> u8 {
        0xa0 | n
    }
    /// `[n]`, primitive.
    pub const fn context_primitive(n: u8) -> u8 {
        0x80 | n
    }
}

/// One element.
pub(super) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        short @ 0..=0x7f => out.push(short as u8),
        long => {
            let bytes = long.to_be_bytes();
            let first = bytes.iter().position(|b| *b != 0).unwrap_or(0);
            out.push(0x80 | (bytes.len() - first) as u8);
            out.extend_from_slice(&bytes[first..]);
        }
    }
    out.extend_from_slice(content);
    out
}

/// An element of elements.
pub(super) fn nest(tag: u8, parts: &[Vec<u8>]) -> Vec<u8> {
    element(tag, &parts.concat())
}

/// An OBJECT IDENTIFIER by its numbers.
pub(super) fn oid(numbers: &[u32]) -> Vec<u8> {
    let mut out = Vec::new();
    if let [first, second, ..] = numbers {
        out.push((first * 40 + second) as u8);
    }
    for number in numbers.iter().skip(2) {
        let mut group = vec![(number & 0x7f) as u8];
        let mut rest = number >> 7;
        while rest > 0 {
            group.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        group.reverse();
        out.extend_from_slice(&group);
    }
    element(tag::OID, &out)
}

/// Reads elements one after the other. `None` is: not DER, or not what was asked for.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the next element has this tag.
    pub fn next_is(&self, tag: u8) -> bool {
        self.0.first() == Some(&tag)
    }

    /// The next element: its whole bytes and its content.
    pub fn any(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let first = usize::from(*self.0.get(1)?);
        let (head, length) = match first {
            0..=0x7f => (2, first),
            0x81..=0x83 => {
                let count = first & 0x7f;
                let bytes = self.0.get(2..2 + count)?;
                let length = bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b));
                // DER has one form for each length.
                if length < 0x80 || bytes.first() == Some(&0) {
                    return None;
                }
                (2 + count, length)
            }
            _ => return None,
        };
        let end = head.checked_add(length)?;
        let whole = self.0.get(..end)?;
        self.0 = &self.0[end..];
        Some((whole, &whole[head..]))
    }

    /// The content of the next element, which must have this tag.
    pub fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        match self.next_is(tag) {
            true => self.any().map(|(_, content)| content),
            false => None,
        }
    }

    /// The next element of this tag, to be read inside.
    pub fn enter(&mut self, tag: u8) -> Option<Reader<'a>> {
        self.take(tag).map(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        for length in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000] {
            let content = vec![7; length];
            let bytes = element(tag::OCTET_STRING, &content);
            let mut reader = Reader(&bytes);
            assert_eq!(reader.take(tag::OCTET_STRING), Some(&content[..]));
            assert!(reader.is_empty());
        }
        assert_eq!(
            oid(&[1, 2, 840, 10045, 4, 3, 2]),
            hex::decode("06082a8648ce3d040302").unwrap()
        );
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for bad in [
            "30",
            "3001",
            "3081",
            "308101",
            "30820001aa",
            "3085ffffffffff",
            "3080",
        ] {
            let bytes = hex::decode(bad).unwrap();
            assert!(Reader(&bytes).any().is_none(), "{bad}");
        }
    }
}

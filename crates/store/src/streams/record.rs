//! One record on disk: `len|crc32c|seq|time|payload`. Pure: bytes in, records out.
//!
//! The checksum also covers a random number of the segment (its salt). A payload that happens, or tries, to look
//! like a record is therefore never taken for one, also when the reader has lost its place.

use bytes::Bytes;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Bytes before the payload.
pub(super) const HEAD: usize = 24;

/// One record of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number; the first record of a stream is 1. Numbers are never given twice.
    pub seq: u64,
    /// When it was appended, since 1970 in UTC, to the microsecond. As the wall clock said, so it may go back.
    pub time: Duration,
    /// What was appended.
    pub payload: Bytes,
}

/// Where a record lies in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) seq: u64,
    pub(super) micros: u64,
    /// Length with its head.
    pub(super) len: usize,
}

impl Place {
    /// The record whose place this is, at the start of `from`.
    pub(super) fn record(&self, from: &Bytes, at: usize) -> Record {
        Record {
            seq: self.seq,
            time: Duration::from_micros(self.micros),
            payload: from.slice(at + HEAD..at + self.len),
        }
    }
}

/// Appends a record to `out`.
pub(super) fn encode(out: &mut Vec<u8>, salt: u32, seq: u64, micros: u64, payload: &[u8]) {
    // Callers have checked the length against a limit far below this.
    let len = u32::try_from(payload.len())
        .unwrap_or(u32::MAX)
        .to_le_bytes();
    let (seq, micros) = (seq.to_le_bytes(), micros.to_le_bytes());
    out.extend_from_slice(&len);
    out.extend_from_slice(&checksum(salt, &len, &seq, &micros, payload).to_le_bytes());
    out.extend_from_slice(&seq);
    out.extend_from_slice(&micros);
    out.extend_from_slice(payload);
}

/// How long the record at the start of `bytes` says it is; `None` without a whole head.
pub(super) fn len(bytes: &[u8]) -> Option<usize> {
    let len = bytes.get(..HEAD)?.first_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(*len))
        .ok()?
        .checked_add(HEAD)
}

/// As [`decode`], if its number is among `seqs`: looking at that first makes a search through damage cheap.
pub(super) fn decode_of(bytes: &[u8], salt: u32, seqs: RangeInclusive<u64>) -> Option<Place> {
    let seq = bytes.get(8..)?.first_chunk::<8>()?;
    if !seqs.contains(&u64::from_le_bytes(*seq)) {
        return None;
    }
    decode(bytes, salt)
}

/// The record at the start of `bytes`, if a whole and sound one is there.
pub(super) fn decode(bytes: &[u8], salt: u32) -> Option<Place> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let (seq, rest) = rest.split_first_chunk::<8>()?;
    let (micros, rest) = rest.split_first_chunk::<8>()?;
    let payload = rest.get(..usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
    if checksum(salt, len, seq, micros, payload) != u32::from_le_bytes(*sum) {
        return None;
    }
    Some(Place {
        seq: u64::from_le_bytes(*seq),
        micros: u64::from_le_bytes(*micros),
        len: HEAD + payload.len(),
    })
}

fn checksum(salt: u32, len: &[u8; 4], seq: &[u8; 8], micros: &[u8; 8], payload: &[u8]) -> u32 {
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&salt.to_le_bytes());
    head[4..8].copy_from_slice(len);
    head[8..16].copy_from_slice(seq);
    head[16..].copy_from_slice(micros);
    crc32c::crc32c_append(crc32c::crc32c(&head), payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_whole_or_nothing() {
        let mut out = Vec::new();
        encode(&mut out, 7, 3, 99, b"hello");
        assert_eq!(
            decode(&out, 7),
            Some(Place {
                seq: 3,
                micros: 99,
                len: HEAD + 5
            })
        );
        assert_eq!(decode(&out, 8), None, "of another segment");
        for cut in 0..out.len() {
            assert_eq!(decode(&out[..cut], 7), None);
        }
        for bit in 0..out.len() * 8 {
            let mut bad = out.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bad, 7), None, "bit {bit} is flipped");
        }
    }
}

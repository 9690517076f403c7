//! Time stamps of heads (RFC 3161): the request, and what an answer must hold to be kept.
//!
//! Only the outer form is read here: that it was granted, and that it speaks of our hash and our nonce. Whose signature it
//! bears is for whoever checks it later, with tools of his own: `openssl ts -verify`.

use model::{Error, Result};
use sha2::{Digest, Sha256};

/// Longest answer, in bytes.
pub(super) const LONGEST: usize = 64 * 1024;

/// What a line of an anchor is stamped as.
pub(super) fn imprint(line: &str) -> [u8; 32] {
    Sha256::digest(line.as_bytes()).into()
}

/// `SEQUENCE { SEQUENCE { id-sha256, NULL }, OCTET STRING }` of a hash.
fn message_imprint(hash: &[u8; 32]) -> Vec<u8> {
    let mut out = vec![
        0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01,
        0x05, 0x00, 0x04, 0x20,
    ];
    out.extend_from_slice(hash);
    out
}

/// A nonce as an INTEGER: positive, of eight bytes, without a needless zero before it.
fn integer(nonce: [u8; 8]) -> Vec<u8> {
    let mut out = vec![0x02, 0x08];
    out.extend_from_slice(&nonce);
    out[2] = out[2] & 0x7f | 0x40;
    out
}

/// `TimeStampReq`, version 1, that asks for the certificate too, so that the stamp can be checked by itself.
pub(super) fn request(hash: &[u8; 32], nonce: [u8; 8]) -> Vec<u8> {
    let mut inner = vec![0x02, 0x01, 0x01];
    inner.extend(message_imprint(hash));
    inner.extend(integer(nonce));
    inner.extend([0x01, 0x01, 0xff]);
    let mut out = vec![0x30, inner.len() as u8];
    out.append(&mut inner);
    out
}

/// Whether an answer is a stamp of this hash, asked for with this nonce.
///
/// # Errors
/// When it was not granted, or is about something else.
pub(super) fn check(answer: &[u8], hash: &[u8; 32], nonce: [u8; 8]) -> Result<()> {
    let wrong = |why: &str| Error::unavailable(format!("its answer {why}"));
    let (response, _) = element(answer, 0x30).ok_or_else(|| wrong("is no time stamp"))?;
    let (status, token) = element(response, 0x30).ok_or_else(|| wrong("is no time stamp"))?;
    let (status, _) = element(status, 0x02).ok_or_else(|| wrong("has no status"))?;
    // 0 granted, 1 granted with modifications (RFC 3161, section 2.4.2).
    if !matches!(status, [0 | 1]) {
        return Err(wrong(&format!(
            "refuses, with status {}",
            hex::encode(status)
        )));
    }
    let (token, _) = element(token, 0x30).ok_or_else(|| wrong("holds no stamp"))?;
    let holds = |part: &[u8]| token.windows(part.len()).any(|window| window == part);
    match holds(&message_imprint(hash)) && holds(&integer(nonce)) {
        true => Ok(()),
        false => Err(wrong("is about something else")),
    }
}

/// The content of a DER element with this tag at the beginning, and what comes after it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = der.split_first()?;
    let (&short, rest) = rest.split_first()?;
    if first != tag {
        return None;
    }
    let (length, rest) = match short {
        0..=0x7f => (usize::from(short), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
            (bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_must_be_granted_and_speak_of_what_was_asked() {
        let (hash, nonce) = (imprint("a head\n"), [0xff, 1, 2, 3, 4, 5, 6, 7]);
        let asked = request(&hash, nonce);
        assert_eq!((asked[0], usize::from(asked[1])), (0x30, asked.len() - 2));
        let answer = |status: u8, hash: &[u8; 32], nonce: [u8; 8]| {
            let mut token = message_imprint(hash);
            token.extend(integer(nonce));
            let mut out = vec![0x30, 0, 0x30, 3, 0x02, 1, status, 0x30, token.len() as u8];
            out.append(&mut token);
            out[1] = (out.len() - 2) as u8;
            out
        };
        check(&answer(0, &hash, nonce), &hash, nonce).unwrap();
        check(&answer(2, &hash, nonce), &hash, nonce).unwrap_err();
        check(&answer(0, &imprint("another\n"), nonce), &hash, nonce).unwrap_err();
        check(&answer(0, &hash, [1; 8]), &hash, nonce).unwrap_err();
    }

    #[test]
    fn whatever_comes_is_an_answer() {
        let (hash, nonce) = (imprint("x"), [7; 8]);
        for _ in 0..20_000 {
            let bytes: [u8; 64] = rand::random();
            // With a head that leads on, as often as not.
            let mut der = vec![0x30, bytes[0], 0x30, bytes[1] & 7, 0x02, 1, 0];
            der.extend(&bytes[2..2 + usize::from(bytes[1] % 62)]);
            check(&bytes, &hash, nonce).unwrap_err();
            check(&der, &hash, nonce).unwrap_err();
        }
    }
}

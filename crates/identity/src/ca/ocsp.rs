//! OCSP (RFC 6960): reads a request, writes a signed answer. Knows no file: what a serial number stands for is asked.

use super::der::{Reader, element, nest, oid, tag};
use super::revoked::Revocation;
use jiff::tz::TimeZone;
use model::Timestamp;
use ring::digest;
use std::time::Duration;

/// How long an answer is good.
pub(super) const LIFE: Duration = Duration::from_secs(24 * 3600);
/// Most certificates that one request may ask about.
const MOST: usize = 16;
/// Longest request that is read.
pub(super) const LONGEST: usize = 16 * 1024;
/// Longest nonce that is sent back (RFC 9654).
const LONGEST_NONCE: usize = 128;

const BASIC: &[u32] = &[1, 3, 6, 1, 5, 5, 7, 48, 1, 1];
const NONCE: &[u32] = &[1, 3, 6, 1, 5, 5, 7, 48, 1, 2];
const SHA1: &[u32] = &[1, 3, 14, 3, 2, 26];
const SHA256: &[u32] = &[2, 16, 840, 1, 101, 3, 4, 2, 1];

/// A certificate that is asked about.
pub(super) struct Asked<'a> {
    /// The whole CertID, which the answer repeats.
    id: &'a [u8],
    /// The hash function, as a whole OID.
    hash: Vec<u8>,
    issuer_name: &'a [u8],
    issuer_key: &'a [u8],
    serial: &'a [u8],
}

/// What a request says.
pub(super) struct Request<'a> {
    asked: Vec<Asked<'a>>,
    /// The whole extension.
    nonce: Option<&'a [u8]>,
}

/// Reads a request; a signature on it is not looked at. `None`: it is none.
pub(super) fn read(der: &[u8]) -> Option<Request<'_>> {
    if der.len() > LONGEST {
        return None;
    }
    let mut outer = Reader(der);
    let mut whole = outer.enter(tag::SEQUENCE)?;
    if !outer.is_empty() {
        return None;
    }
    let mut tbs = whole.enter(tag::SEQUENCE)?;
    if tbs.next_is(tag::context(0)) {
        tbs.any()?;
    }
    if tbs.next_is(tag::context(1)) {
        tbs.any()?;
    }
    let mut list = tbs.enter(tag::SEQUENCE)?;
    let mut asked = Vec::new();
    while !list.is_empty() {
        if asked.len() == MOST {
            return None;
        }
        let mut one = list.enter(tag::SEQUENCE)?;
        let (id, content) = one.next_is(tag::SEQUENCE).then(|| one.any())??;
        let mut parts = Reader(content);
        let mut algorithm = parts.enter(tag::SEQUENCE)?;
        let (hash, _) = algorithm.next_is(tag::OID).then(|| algorithm.any())??;
        asked.push(Asked {
            id,
            hash: hash.to_vec(),
            issuer_name: parts.take(tag::OCTET_STRING)?,
            issuer_key: parts.take(tag::OCTET_STRING)?,
            serial: parts.take(tag::INTEGER)?,
        });
    }
    let nonce = match tbs.enter(tag::context(2)) {
        Some(mut extensions) => nonce(extensions.enter(tag::SEQUENCE)?)?,
        None => None,
    };
    (!asked.is_empty()).then_some(Request { asked, nonce })
}

fn nonce(mut extensions: Reader<'_>) -> Option<Option<&[u8]>> {
    let wanted = oid(NONCE);
    while !extensions.is_empty() {
        let (whole, content) = extensions
            .next_is(tag::SEQUENCE)
            .then(|| extensions.any())??;
        let mut parts = Reader(content);
        let (name, _) = parts.any()?;
        if name == wanted {
            let value = parts.take(tag::OCTET_STRING)?;
            return (value.len() <= LONGEST_NONCE + 2).then_some(Some(whole));
        }
    }
    Some(None)
}

/// Who answers: hashes of the CA's name and key.
pub(super) struct Responder {
    sha1: (Vec<u8>, Vec<u8>),
    sha256: (Vec<u8>, Vec<u8>),
}

impl Responder {
    /// Of the CA with this subject (DER) and public key (the bits).
    pub fn new(subject: &[u8], key: &[u8]) -> Responder {
        let hash = |with, bytes| digest::digest(with, bytes).as_ref().to_vec();
        let both = |with| (hash(with, subject), hash(with, key));
        Responder {
            sha1: both(&digest::SHA1_FOR_LEGACY_USE_ONLY),
            sha256: both(&digest::SHA256),
        }
    }

    /// Whether it is asked about a certificate of this CA.
    pub fn is_asked(&self, request: &Request<'_>) -> bool {
        request.asked.iter().any(|asked| self.is_issuer(asked))
    }

    fn is_issuer(&self, asked: &Asked<'_>) -> bool {
        let (name, key) = match &asked.hash {
            hash if *hash == oid(SHA1) => &self.sha1,
            hash if *hash == oid(SHA256) => &self.sha256,
            _ => return false,
        };
        asked.issuer_name == name && asked.issuer_key == key
    }
}

/// What is known of a serial number of ours.
pub(super) enum Known {
    Good,
    Revoked(Revocation),
    Unknown,
}

/// The body that is to be signed.
pub(super) fn body(
    request: &Request<'_>,
    responder: &Responder,
    now: Timestamp,
    known: impl Fn(&[u8]) -> Known,
) -> Vec<u8> {
    let mut answers = Vec::new();
    for asked in &request.asked {
        // A leading zero only keeps the number positive.
        let serial = match asked.serial {
            [0, rest @ ..] if !rest.is_empty() => rest,
            serial => serial,
        };
        let status = match responder.is_issuer(asked).then(|| known(serial)) {
            Some(Known::Good) => element(tag::context_primitive(0), &[]),
            Some(Known::Revoked(revocation)) => {
                let reason = element(tag::ENUMERATED, &[revocation.reason.number()]);
                let parts = [time(revocation.time), nest(tag::context(0), &[reason])];
                nest(tag::context(1), &parts)
            }
            Some(Known::Unknown) | None => element(tag::context_primitive(2), &[]),
        };
        let until = nest(tag::context(0), &[time(now.plus(LIFE))]);
        let parts = [asked.id.to_vec(), status, time(now), until];
        answers.push(nest(tag::SEQUENCE, &parts));
    }
    let by_key = element(tag::OCTET_STRING, &responder.sha1.1);
    let mut parts = vec![
        nest(tag::context(2), &[by_key]),
        time(now),
        nest(tag::SEQUENCE, &answers),
    ];
    if let Some(nonce) = request.nonce {
        let extensions = element(tag::SEQUENCE, nonce);
        parts.push(nest(tag::context(1), &[extensions]));
    }
    nest(tag::SEQUENCE, &parts)
}

/// The answer around a signed body. `algorithm` is the OID of the signature.
pub(super) fn signed(body: &[u8], algorithm: &[u32], signature: &[u8]) -> Vec<u8> {
    let mut bits = vec![0];
    bits.extend_from_slice(signature);
    let basic = nest(
        tag::SEQUENCE,
        &[
            body.to_vec(),
            nest(tag::SEQUENCE, &[oid(algorithm)]),
            element(tag::BIT_STRING, &bits),
        ],
    );
    let response = nest(
        tag::SEQUENCE,
        &[oid(BASIC), element(tag::OCTET_STRING, &basic)],
    );
    nest(
        tag::SEQUENCE,
        &[
            element(tag::ENUMERATED, &[0]),
            nest(tag::context(0), &[response]),
        ],
    )
}

/// "Your request was none" (1), "something here is broken" (2), "it is not mine to say" (6).
pub(super) fn refusal(status: u8) -> Vec<u8> {
    nest(tag::SEQUENCE, &[element(tag::ENUMERATED, &[status])])
}

fn time(at: Timestamp) -> Vec<u8> {
    let at =
        jiff::Timestamp::from_second(at.millis() / 1000).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let text = at
        .to_zoned(TimeZone::UTC)
        .strftime("%Y%m%d%H%M%SZ")
        .to_string();
    element(tag::GENERALIZED_TIME, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(nonce: &[u8]) -> Vec<u8> {
        let id = nest(
            tag::SEQUENCE,
            &[
                nest(tag::SEQUENCE, &[oid(SHA1), element(tag::NULL, &[])]),
                element(tag::OCTET_STRING, &[1; 20]),
                element(tag::OCTET_STRING, &[2; 20]),
                element(tag::INTEGER, &[0, 0x80]),
            ],
        );
        let one = nest(tag::SEQUENCE, &[id]);
        let value = element(tag::OCTET_STRING, &element(tag::OCTET_STRING, nonce));
        let extension = nest(tag::SEQUENCE, &[oid(NONCE), value]);
        let extensions = nest(tag::context(2), &[nest(tag::SEQUENCE, &[extension])]);
        let tbs = nest(tag::SEQUENCE, &[nest(tag::SEQUENCE, &[one]), extensions]);
        nest(tag::SEQUENCE, &[tbs])
    }

    #[test]
    fn a_request_is_read_and_a_long_nonce_refused() {
        let bytes = request(&[9; 32]);
        let read = read(&bytes).unwrap();
        assert_eq!(read.asked.len(), 1);
        assert_eq!(read.asked[0].serial, &[0, 0x80]);
        assert!(read.nonce.is_some());
        assert!(super::read(&request(&[9; 200])).is_none());
    }

    /// No bytes make it panic, and what is cut short is no request.
    #[test]
    fn bytes_from_outside() {
        use rand::{Rng, SeedableRng};
        let mut random = rand::rngs::StdRng::seed_from_u64(6960);
        let good = request(&[9; 32]);
        for cut in 0..good.len() {
            assert!(read(&good[..cut]).is_none(), "{cut} bytes");
        }
        let responder = Responder::new(b"name", b"key");
        let now = Timestamp::from_millis(0);
        for _ in 0..200_000 {
            let mut bytes = good.clone();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..bytes.len());
                bytes[at] = random.random();
            }
            if let Some(request) = read(&bytes) {
                body(&request, &responder, now, |_| Known::Good);
            }
        }
    }
}

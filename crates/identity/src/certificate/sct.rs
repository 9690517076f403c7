//! What public logs have promised of a certificate: signed certificate timestamps (RFC 6962, 3.3), as they are embedded in
//! it. Their form is checked, not their signatures: that needs the list of logs that browsers come with.

use model::{Error, Result, Timestamp};
use std::time::Duration;
use x509_parser::certificate::X509Certificate;

/// The extension that holds them.
const EMBEDDED: &str = "1.3.6.1.4.1.11129.2.4.2";
/// How far the clocks of logs may be before ours.
const AHEAD: Duration = Duration::from_secs(300);
/// Up to so long a life, browsers want two logs; three above it.
const SHORT: Duration = Duration::from_secs(180 * 86_400);

/// One promise to list a certificate.
#[derive(Clone, Debug, PartialEq)]
pub struct Promise {
    /// SHA-256 of the log's key.
    pub log: [u8; 32],
    /// When it was given.
    pub time: Timestamp,
}

/// The promises in a certificate; none when it has no such extension.
///
/// # Errors
/// Why they cannot be read.
pub(super) fn embedded(leaf: &X509Certificate<'_>) -> std::result::Result<Vec<Promise>, String> {
    let mut found = leaf
        .extensions()
        .iter()
        .filter(|e| e.oid.to_id_string() == EMBEDDED);
    let Some(extension) = found.next() else {
        return Ok(Vec::new());
    };
    match found.next() {
        Some(_) => Err("it has two lists of promises".into()),
        None => list(extension.value).ok_or_else(|| "its list of promises is not one".into()),
    }
}

/// Whether enough logs have promised to list it, as browsers want it.
///
/// # Errors
/// `Refused`, with what is missing.
pub(crate) fn enough(
    promises: &std::result::Result<Vec<Promise>, String>,
    life: Duration,
    now: Timestamp,
) -> Result<()> {
    let wanted = if life <= SHORT { 2 } else { 3 };
    let wrong = |why: String| {
        Err(Error::refused(format!(
            "the provider gave a certificate that browsers refuse: {why}"
        ))
        .hint("the present one is kept; ask the provider, or take another one"))
    };
    let promises = match promises {
        Ok(promises) => promises,
        Err(why) => return wrong(why.clone()),
    };
    if let Some(late) = promises.iter().find(|p| p.time > now.plus(AHEAD)) {
        return wrong(format!(
            "a log has promised to list it only at {}",
            late.time
        ));
    }
    match logs(promises) {
        logs if logs >= wanted => Ok(()),
        logs => wrong(format!(
            "{logs} public logs have promised to list it, and {wanted} are wanted"
        )),
    }
}

/// How many different logs there are.
pub(super) fn logs(promises: &[Promise]) -> usize {
    let mut logs: Vec<_> = promises.iter().map(|p| p.log).collect();
    logs.sort_unstable();
    logs.dedup();
    logs.len()
}

/// The list as the extension holds it: a whole OCTET STRING of whole promises, and nothing behind them.
fn list(extension: &[u8]) -> Option<Vec<Promise>> {
    let (content, rest) = match extension {
        [0x04, length @ ..=0x7f, rest @ ..] => (usize::from(*length), rest),
        [0x04, 0x81, length, rest @ ..] => (usize::from(*length), rest),
        [0x04, 0x82, high, low, rest @ ..] => {
            (usize::from(u16::from_be_bytes([*high, *low])), rest)
        }
        _ => return None,
    };
    if rest.len() != content {
        return None;
    }
    let (all, []) = vector(rest)? else {
        return None;
    };
    let (mut left, mut out) = (all, Vec::new());
    while !left.is_empty() {
        let (one, rest) = vector(left)?;
        left = rest;
        // Another version is another form: it counts for nothing.
        if one.first()? == &0 {
            out.push(promise(&one[1..])?);
        }
    }
    // A list is never empty (RFC 6962, 3.3).
    (!all.is_empty()).then_some(out)
}

/// Log, time, extensions, algorithms, signature.
fn promise(bytes: &[u8]) -> Option<Promise> {
    let (log, rest) = bytes.split_first_chunk::<32>()?;
    let (time, rest) = rest.split_first_chunk::<8>()?;
    let (_, rest) = vector(rest)?;
    let ([hash, sort], rest) = rest.split_first_chunk::<2>()?;
    let (signature, []) = vector(rest)? else {
        return None;
    };
    // SHA-256 with RSA or ECDSA: no log may have anything else.
    (*hash == 4 && matches!(sort, 1 | 3) && !signature.is_empty()).then_some(())?;
    let millis = i64::try_from(u64::from_be_bytes(*time)).ok()?;
    Some(Promise {
        log: *log,
        time: Timestamp::from_millis(millis),
    })
}

/// What a length of two bytes stands before, and what comes after it.
fn vector(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::material;

    /// What public CAs have given: Amazon's of 2021 for one of its own names, and that of crates.io of 2023. They are over,
    /// and everybody has them: the logs list them.
    const AMAZON: &str = include_str!("tests/amazon.pem");
    const CRATES_IO: &str = include_str!("tests/crates.io.pem");

    fn at(text: &str) -> Timestamp {
        serde_json::from_value(serde_json::json!(text)).unwrap()
    }

    #[test]
    fn real_certificates_of_public_cas_hold_promises() {
        for (pem, first, then) in [
            (
                AMAZON,
                "2979bef09e393921f056739f63a577e5be577d9c600af8f94d5d265c255dc784",
                "2021-10-06T02:59:08.091Z",
            ),
            (
                CRATES_IO,
                "eecdd064d5db1acec55cb79db4cd13a23287467cbcecdec351485946711fb59b",
                "2023-01-25T09:21:02.180Z",
            ),
        ] {
            let (_, facts) = material::read(pem).unwrap();
            let promises = facts.promises.clone().unwrap();
            // openssl reads the same.
            assert!(hex::encode(promises[0].log).starts_with(first));
            assert_eq!(promises[0].time, at(then));
            assert_eq!(logs(&promises), 3);
            let life = facts.not_after.since(facts.not_before);
            assert!(life > SHORT);
            enough(
                &facts.promises,
                life,
                facts.not_before.plus(Duration::from_secs(86_400)),
            )
            .unwrap();
            // Before they were given, they are not believed.
            let early = enough(&facts.promises, life, at("2020-01-01T00:00:00Z")).unwrap_err();
            assert!(early.message.contains("only at"), "{early}");
            let two = Ok(promises[..2].to_vec());
            let now = facts.not_after;
            assert!(
                enough(&two, life, now)
                    .unwrap_err()
                    .message
                    .contains("3 are wanted")
            );
            enough(&two, SHORT, now).unwrap();
            // The same log twice is one log.
            let same = Ok(vec![promises[0].clone(), promises[0].clone()]);
            assert!(enough(&same, SHORT, now).is_err());
        }
    }

    #[test]
    fn a_list_that_is_cut_or_changed_in_its_lengths_is_none() {
        let der = crate::ca::der_of(AMAZON).next().unwrap();
        let (_, leaf) = x509_parser::parse_x509_certificate(&der).unwrap();
        let found = leaf
            .extensions()
            .iter()
            .find(|e| e.oid.to_id_string() == EMBEDDED);
        let good = found.unwrap().value;
        assert_eq!(list(good).unwrap().len(), 3);
        for cut in 0..good.len() {
            assert_eq!(list(&good[..cut]), None, "{cut}");
        }
        let longer = [good, &[0]].concat();
        assert_eq!(list(&longer), None);
        // Tag, the length of the OCTET STRING, that of the list, that of its first promise, and its algorithms.
        for at in [0, 1, 2, 3, 4, 5, 6, 7, 8 + 1 + 32 + 8 + 2] {
            let mut bad = good.to_vec();
            bad[at] ^= 0x40;
            assert_eq!(list(&bad), None, "{at}");
        }
        assert_eq!(list(&[0x04, 2, 0, 0]), None);
        let none = Ok(Vec::new());
        let error = enough(&none, SHORT, Timestamp::from_millis(0)).unwrap_err();
        assert!(error.message.contains("0 public logs"), "{error}");
        let unreadable = Err("its list of promises is not one".to_owned());
        assert!(enough(&unreadable, SHORT, Timestamp::from_millis(0)).is_err());
    }
}

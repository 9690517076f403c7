//! Codes that change every 30 seconds (RFC 6238 over HMAC-SHA-1, which is what every app does).

use ring::hmac;

/// Seconds that a code is shown for.
pub const PERIOD: u64 = 30;
/// Digits of a code.
pub const DIGITS: u32 = 6;
/// Bytes of a key: what RFC 4226 recommends for SHA-1.
pub const KEY: usize = 20;
/// How many periods before and after now are accepted, for clocks that are not right.
const SKEW: u64 = 1;

/// The code of one period.
pub fn code(key: &[u8], step: u64) -> String {
    digits(key, step, DIGITS)
}

fn digits(key: &[u8], step: u64, digits: u32) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let tag = tag.as_ref();
    // Dynamic truncation (RFC 4226, 5.3): a SHA-1 tag has 20 bytes, and the offset is at most 15.
    let at = usize::from(tag[19] & 15);
    let word = u32::from_be_bytes([tag[at] & 0x7f, tag[at + 1], tag[at + 2], tag[at + 3]]);
    let width = digits as usize;
    format!("{:0width$}", word % 10u32.pow(digits))
}

/// The period of a time, in milliseconds since 1970.
pub fn step(now_ms: i64) -> u64 {
    (now_ms.max(0) as u64) / 1000 / PERIOD
}

/// The period whose code this is, when it is good now and later than the last one used. Blanks do not count. Looks at
/// all candidates, so that the time taken says nothing.
pub fn check(key: &[u8], typed: &str, now_ms: i64, last: Option<u64>) -> Option<u64> {
    let typed: String = typed
        .chars()
        .filter(|c| !c.is_whitespace())
        .take(12)
        .collect();
    let now = step(now_ms);
    let mut found = None;
    for candidate in now.saturating_sub(SKEW)..=now + SKEW {
        let same = same(code(key, candidate).as_bytes(), typed.as_bytes());
        if same && last.is_none_or(|last| candidate > last) {
            found = Some(candidate);
        }
    }
    found
}

/// Compares every byte.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    let differing = a
        .iter()
        .zip(b)
        .fold(a.len() ^ b.len(), |all, (a, b)| all | usize::from(a ^ b));
    std::hint::black_box(differing) == 0
}

/// What an app reads as a QR code (the Key URI format).
pub fn uri(issuer: &str, account: &str, key: &[u8]) -> String {
    let (issuer, account) = (percent(issuer), percent(account));
    format!(
        "otpauth://totp/{issuer}:{account}?secret={}&issuer={issuer}&algorithm=SHA1&digits={DIGITS}&period={PERIOD}",
        base32(key)
    )
}

/// RFC 4648 without padding, as apps want it.
pub fn base32(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut out = String::new();
    let (mut bits, mut held) = (0u32, 0u32);
    for byte in bytes {
        bits = (bits << 8) | u32::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            out.push(char::from(LETTERS[(bits >> held & 31) as usize]));
        }
        bits &= (1 << held) - 1;
    }
    if held > 0 {
        out.push(char::from(LETTERS[(bits << (5 - held) & 31) as usize]));
    }
    out
}

fn percent(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => out.push(char::from(byte)),
            false => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RFC: &[u8] = b"12345678901234567890";

    #[test]
    fn vectors_of_rfc_6238() {
        for (seconds, right) in [
            (59, "94287082"),
            (1_111_111_109, "07081804"),
            (1_111_111_111, "14050471"),
            (1_234_567_890, "89005924"),
            (2_000_000_000, "69279037"),
            (20_000_000_000, "65353130"),
        ] {
            let eight = digits(RFC, step(seconds * 1000), 8);
            assert_eq!(eight, right, "{seconds}");
        }
        assert_eq!(code(RFC, step(59_000)), "287082");
    }

    #[test]
    fn one_period_before_and_after_each_code_once() {
        let now = 1_800_000_000_000;
        let here = step(now);
        for (at, good) in [
            (here - 2, false),
            (here - 1, true),
            (here, true),
            (here + 1, true),
            (here + 2, false),
        ] {
            assert_eq!(check(RFC, &code(RFC, at), now, None).is_some(), good);
        }
        let typed = code(RFC, here);
        assert_eq!(
            check(RFC, &format!(" {} {}", &typed[..3], &typed[3..]), now, None),
            Some(here)
        );
        assert_eq!(check(RFC, &typed, now, Some(here)), None);
        assert_eq!(check(RFC, &typed, now, Some(here - 1)), Some(here));
        for bad in ["", "287", "2870822", "28708x", "２８７０８２"] {
            assert_eq!(check(RFC, bad, now, None), None);
        }
    }

    #[test]
    fn what_apps_read() {
        for (plain, text) in [
            ("", ""),
            ("f", "MY"),
            ("fo", "MZXQ"),
            ("foo", "MZXW6"),
            ("foob", "MZXW6YQ"),
            ("foobar", "MZXW6YTBOI"),
        ] {
            assert_eq!(base32(plain.as_bytes()), text);
        }
        assert_eq!(
            uri("my cluster", "anna", RFC),
            "otpauth://totp/my%20cluster:anna?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=my%20cluster&algorithm=SHA1&digits=6&period=30"
        );
    }

    proptest! {
        #[test]
        fn whatever_is_typed_is_an_answer(text in "\\PC{0,40}", now in any::<i64>()) {
            let _ = check(RFC, &text, now, None);
        }
    }
}

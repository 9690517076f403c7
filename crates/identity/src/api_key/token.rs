//! The secret of an API key: `dv_` and 64 hexadecimal digits, of which the first 8 name it.

use super::types::KeySecret;
use crate::factor::totp::same;
use model::Timestamp;
use ring::hmac;

const PREFIX: &str = "dv_";
const DIGITS: usize = 64;
const ID: usize = 8;

/// A new one from 256 random bits.
pub fn make(random: [u8; DIGITS / 2]) -> String {
    format!("{PREFIX}{}", hex::encode(random))
}

/// Whether a text means to be one. Says nothing about its worth.
pub fn is_token(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// The part that may be known, of a text that has the form of one.
pub fn id(text: &str) -> Option<&str> {
    let digits = text.strip_prefix(PREFIX)?;
    let good = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (digits.len() == DIGITS && digits.bytes().all(good)).then(|| &digits[..ID])
}

/// What is stored of it.
pub fn stored(token: &str, salt: [u8; 16], made: Timestamp) -> KeySecret {
    KeySecret {
        id: id(token).unwrap_or_default().to_owned(),
        material: Some(format!("{}:{}", hex::encode(salt), tag(&salt, token))),
        made,
        until: None,
    }
}

/// Whether this is what was stored. Compares every byte.
pub fn fits(material: &str, token: &str) -> bool {
    let Some((salt, known)) = material.split_once(':') else {
        return false;
    };
    hex::decode(salt).is_ok_and(|salt| same(tag(&salt, token).as_bytes(), known.as_bytes()))
}

fn tag(salt: &[u8], token: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, salt);
    hex::encode(hmac::sign(&key, token.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_whole_fits() {
        let token = make([0x5a; 32]);
        assert_eq!((token.len(), id(&token)), (67, Some("5a5a5a5a")));
        let kept = stored(&token, [1; 16], Timestamp::from_millis(0));
        let material = kept.material.unwrap();
        assert!(fits(&material, &token) && !material.contains(&token[11..]));
        let mut other = token.clone();
        other.replace_range(66.., "b");
        assert!(!fits(&material, &other) && !fits("", &token) && !fits("zz:", &token));
        for wrong in [
            &token[..66],
            &token.to_uppercase(),
            &format!("{token}a"),
            "dv_",
            "",
        ] {
            assert_eq!(id(wrong), None);
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_an_answer(text in "\\PC{0,90}", material in "\\PC{0,60}") {
            prop_assert!(id(&text).is_none());
            prop_assert!(!fits(&material, &text));
        }
    }
}

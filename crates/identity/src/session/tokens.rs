//! What a session is shown by: opaque tokens. `dva_` + 16 hex for the session + 64 hex of randomness is one for
//! requests, `dvr_` one for getting the next, `dvc_` the value of a browser's cookie. Only SHA-256 of a whole token is
//! stored: with 256 random bits nothing slower is needed.

use sha2::{Digest, Sha256};

/// Characters that name the session.
const NAME: usize = 16;
/// Characters of randomness.
const SECRET: usize = 64;

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// `Authorization: Bearer` of a request.
    Access,
    /// Getting the next pair of tokens, once.
    Refresh,
    /// The cookie of a browser.
    Cookie,
}

impl Use {
    fn prefix(self) -> &'static str {
        match self {
            Use::Access => "dva_",
            Use::Refresh => "dvr_",
            Use::Cookie => "dvc_",
        }
    }
}

/// The name of a session's object, from random bytes.
pub fn name(random: [u8; NAME / 2]) -> String {
    format!("s-{}", hex::encode(random))
}

/// A new token of a session.
pub fn make(what: Use, session: &str, random: [u8; SECRET / 2]) -> String {
    let name = session.strip_prefix("s-").unwrap_or(session);
    format!("{}{name}{}", what.prefix(), hex::encode(random))
}

/// The session whose token this is, when it has the form of one for this use. Says nothing about its worth.
pub fn session(what: Use, token: &str) -> Option<String> {
    let rest = token.strip_prefix(what.prefix())?;
    let good = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (rest.len() == NAME + SECRET && rest.bytes().all(good)).then(|| format!("s-{}", &rest[..NAME]))
}

/// What is stored of a token.
pub fn hash(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_for_each_use_and_never_another() {
        let name = name([0xab; 8]);
        for what in [Use::Access, Use::Refresh, Use::Cookie] {
            let token = make(what, &name, [7; 32]);
            assert_eq!(token.len(), 4 + 80);
            assert_eq!(session(what, &token), Some(name.clone()));
            for other in [Use::Access, Use::Refresh, Use::Cookie] {
                assert_eq!(session(other, &token).is_some(), other == what);
            }
            for wrong in [
                &token[..83],
                &token.to_uppercase(),
                &format!("{token}0"),
                &token[1..],
            ] {
                assert_eq!(session(what, wrong), None);
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_an_answer(text in "\\PC{0,120}", cut in 0usize..84) {
            for what in [Use::Access, Use::Refresh, Use::Cookie] {
                prop_assert!(session(what, &text).is_none());
                let token = make(what, "s-0123456789abcdef", [1; 32]);
                prop_assert!(session(what, &token[..cut]).is_none());
            }
        }
    }
}

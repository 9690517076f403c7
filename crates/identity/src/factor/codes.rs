//! Codes on paper: ten of ten characters, each good once. A code has 50 random bits and is tried at most a few times a
//! minute; what is stored is SHA-256 over a salt of the list and the code.

use super::totp::same;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How many codes a list has.
pub const COUNT: usize = 10;
/// Characters of a code.
pub const LETTERS: usize = 10;
/// Crockford's base 32: without I, L, O and U, so that nothing is misread.
pub(crate) const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// What is stored of a list.
#[derive(Serialize, Deserialize)]
struct List {
    salt: String,
    hashes: Vec<String>,
}

/// A new list from random bytes: the codes for its owner, and what is stored of them.
pub fn make(random: &[[u8; LETTERS]; COUNT], salt: [u8; 16]) -> (Vec<String>, String) {
    let salt = hex::encode(salt);
    let codes: Vec<String> = random.iter().map(|code| letters(code)).collect();
    let hashes = codes.iter().map(|code| hash(&salt, code)).collect();
    let list = List { salt, hashes };
    let shown = codes
        .iter()
        .map(|code| format!("{}-{}", &code[..LETTERS / 2], &code[LETTERS / 2..]))
        .collect();
    (shown, serde_json::to_string(&list).unwrap_or_default())
}

/// Letters for random bytes, five bits of each.
pub(crate) fn letters(random: &[u8]) -> String {
    random
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte & 31)]))
        .collect()
}

/// The place of a code in its list, if it is in it. Compares with all.
pub fn find(material: &str, typed: &str) -> Option<usize> {
    let list: List = serde_json::from_str(material).ok()?;
    let hash = hash(&list.salt, &plain(typed, LETTERS)?);
    let mut found = None;
    for (at, known) in list.hashes.iter().enumerate() {
        if same(known.as_bytes(), hash.as_bytes()) {
            found = Some(at);
        }
    }
    found
}

/// A code as typed: case, dashes and blanks do not count, O is 0, I and L are 1.
pub(crate) fn plain(typed: &str, letters: usize) -> Option<String> {
    if typed.len() > 4 * letters {
        return None;
    }
    let plain: String = typed
        .chars()
        .filter(|c| *c != '-' && !c.is_whitespace())
        .map(|c| match c.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        })
        .collect();
    let good = |c: char| c.is_ascii() && ALPHABET.contains(&(c as u8));
    (plain.chars().count() == letters && plain.chars().all(good)).then_some(plain)
}

fn hash(salt: &str, code: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(salt.as_bytes());
    hash.update([0]);
    hash.update(code.as_bytes());
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list() -> (Vec<String>, String) {
        let random = std::array::from_fn(|i| std::array::from_fn(|j| (i * 31 + j * 7) as u8));
        make(&random, [1; 16])
    }

    #[test]
    fn each_is_found_as_typed_and_none_is_stored() {
        let (codes, stored) = list();
        assert_eq!(codes.len(), COUNT);
        for (at, code) in codes.iter().enumerate() {
            assert_eq!(code.len(), LETTERS + 1);
            assert!(!stored.contains(code) && !stored.contains(&code.replace('-', "")));
            let sloppy = code.to_lowercase().replace('-', " ").replace('0', "o");
            assert_eq!(find(&stored, &sloppy), Some(at));
        }
        for bad in ["", "00000", "ZZZZZ-ZZZZZ", "UUUUU-UUUUU"] {
            assert_eq!(find(&stored, bad), None);
        }
        assert_eq!(find("nonsense", &codes[0]), None);
    }

    proptest! {
        #[test]
        fn whatever_is_typed_is_an_answer(text in "\\PC{0,60}") {
            let (codes, stored) = list();
            let known = codes.iter().any(|c| plain(c, LETTERS) == plain(&text, LETTERS));
            prop_assert_eq!(find(&stored, &text).is_some(), known && plain(&text, LETTERS).is_some());
        }
    }
}

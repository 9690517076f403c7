//! Passwords that others have lost: a list of their SHA-1 hashes, as Have I Been Pwned ships it, searched in the file. One
//! `HASH:COUNT` in a line, sorted; some forty gigabytes, of which a search reads some kilobytes.

use model::{Error, Result, Violation};
use ring::digest;
use runtime::Cx;
use runtime::setting::BREACHED_PASSWORDS;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};

/// What is said when there is no list.
pub const SKIPPED: &str = "skipped: no data";
/// What is said when a password is not in the list.
pub const CLEAN: &str = "not in the list";
/// Below so many bytes the rest is read at once.
const NEAR: u64 = 4096;
/// Longest line: a hash, a colon, a count, an end.
const LINE: u64 = 80;
const HEX: usize = 40;

/// Refuses a password for `field` that is in the list, and says whether there was one.
///
/// # Errors
/// [`model::What::Invalid`] for a known password. `Unavailable` when there should be a list and it cannot be read: a check
/// that cannot be made is not passed.
pub async fn check(cx: &Cx, field: &str, password: &str) -> Result<&'static str> {
    let path = BREACHED_PASSWORDS.text(cx);
    if path.is_empty() {
        return Ok(SKIPPED);
    }
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
    let wanted = hex::encode_upper(hash);
    let known = tokio::task::spawn_blocking(move || {
        File::open(path).and_then(|mut file| holds(&mut file, wanted.as_bytes()))
    });
    let known = known
        .await
        .map_err(|e| Error::internal("looking for a password broke off").because(e))?;
    match known {
        Ok(false) => Ok(CLEAN),
        Ok(true) => Err(Error::invalid(vec![
            Violation::new(
                field,
                "is known to those who guess: it was lost by some other site",
            )
            .hint("four words that nobody would put together are a good one"),
        ])),
        Err(error) => {
            tracing::error!(%error, "the list of breached passwords cannot be read");
            Err(Error::unavailable("the list of passwords that others have lost cannot be read").hint(
                "an administrator looks at the setting breached-passwords; the log says why",
            ))
        }
    }
}

/// Whether a sorted file has a line that begins with a hash in upper case.
fn holds(file: &mut File, wanted: &[u8]) -> io::Result<bool> {
    // A line begins at `low`, and those before it are smaller; those that begin at or after `high` are not.
    let (mut low, mut high) = (0, file.seek(SeekFrom::End(0))?);
    while high - low > NEAR {
        let middle = low + (high - low) / 2;
        let around = piece(file, middle, 2 * LINE)?;
        let end = around.iter().take(LINE as usize).position(|b| *b == b'\n');
        let end = end.ok_or_else(unsorted)?;
        let begin = middle + end as u64 + 1;
        let line = around.get(end + 1..).unwrap_or_default();
        match hash(line)?.as_slice() < wanted {
            true => low = begin,
            false => high = begin,
        }
    }
    let rest = piece(file, low, high - low + LINE)?;
    for line in rest.split(|b| *b == b'\n').filter(|line| line.len() >= HEX) {
        let found = hash(line)?;
        if found.as_slice() >= wanted {
            return Ok(found == wanted);
        }
    }
    Ok(false)
}

fn piece(file: &mut File, from: u64, long: u64) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    file.take(long).read_to_end(&mut out)?;
    Ok(out)
}

/// The hash that a line begins with, in upper case.
fn hash(line: &[u8]) -> io::Result<Vec<u8>> {
    let hash = line.get(..HEX).ok_or_else(unsorted)?;
    let ended = matches!(line.get(HEX), None | Some(b':' | b'\r' | b'\n'));
    match hash.iter().all(u8::is_ascii_hexdigit) && ended {
        true => Ok(hash.to_ascii_uppercase()),
        false => Err(unsorted()),
    }
}

fn unsorted() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "it is not a list of SHA-1 hashes, one HASH:COUNT in a line",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;

    fn sha1(text: &str) -> String {
        let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        hex::encode_upper(hash)
    }

    /// A list of made passwords, as it is shipped.
    fn list(many: usize) -> (File, Vec<String>) {
        let mut all: Vec<String> = (0..many).map(|n| sha1(&format!("password {n}"))).collect();
        all.sort();
        let mut file = tempfile::tempfile().unwrap();
        for (nth, hash) in all.iter().enumerate() {
            write!(file, "{hash}:{}\r\n", nth * 37 + 1).unwrap();
        }
        (file, all)
    }

    #[test]
    fn each_of_a_list_is_found_and_no_other() {
        for many in [0, 1, 2, 80, 90, 5000] {
            let (mut file, all) = list(many);
            for hash in &all {
                assert!(holds(&mut file, hash.as_bytes()).unwrap(), "{many} {hash}");
                let mut near = hash.clone().into_bytes();
                near[39] = if near[39] == b'0' { b'1' } else { b'0' };
                let known = all.iter().any(|h| h.as_bytes() == near);
                assert_eq!(holds(&mut file, &near).unwrap(), known);
            }
            for other in ["0".repeat(40), "F".repeat(40), sha1("nobody's")] {
                assert!(
                    !holds(&mut file, other.as_bytes()).unwrap(),
                    "{many} {other}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_list_is_an_error_and_not_an_answer() {
        for text in [
            "hello\n".repeat(2000),
            "x".repeat(9000),
            format!("{}xyz\n", "A".repeat(40)),
        ] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            assert!(
                holds(&mut file, sha1("x").as_bytes()).is_err(),
                "{:.20}",
                text
            );
        }
    }

    proptest! {
        #[test]
        fn whatever_the_file_is_a_search_ends(bytes in proptest::collection::vec(any::<u8>(), 0..20_000)) {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            let _ = holds(&mut file, sha1("x").as_bytes());
        }
    }
}

//! Passwords: Argon2id (RFC 9106) with the parameters that OWASP asks for at least, hashed off the async threads and
//! only few at a time, since each takes 19 MiB and tens of milliseconds.

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use model::{Error, Result, Violation};
use std::sync::LazyLock;
use tokio::sync::Semaphore;

/// Fewest characters.
pub const LEAST: usize = 8;
/// Most characters.
pub const MOST: usize = 128;
/// KiB of memory, passes, lanes.
const COST: (u32, u32, u32) = (19 * 1024, 2, 1);
/// How many are hashed at once; others wait.
const AT_ONCE: usize = 2;
/// How many may wait; more are told to come back.
const WAITING: usize = 64;

static ROOM: Semaphore = Semaphore::const_new(AT_ONCE);
static QUEUE: Semaphore = Semaphore::const_new(WAITING);

/// What a password of nobody is checked against, so that an unknown name costs what a known one does.
static DUMMY: LazyLock<String> =
    LazyLock::new(|| hash_now("no password of anybody", [7; 16]).unwrap_or_default());

fn hasher() -> Argon2<'static> {
    // The parameters are constants within the limits of the algorithm.
    let params = Params::new(COST.0, COST.1, COST.2, None).unwrap_or_default();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// What a new password must be.
///
/// # Errors
/// [`model::What::Invalid`] for `field`; the password itself is not in it.
pub fn check(field: &str, password: &str, username: &str) -> Result<()> {
    let long = password.chars().count();
    let wrong = match long {
        ..LEAST => format!("has {long} characters, and {LEAST} is the least"),
        _ if long > MOST => format!("has {long} characters, and {MOST} is the most"),
        _ if password.eq_ignore_ascii_case(username) => "is the name of the user".into(),
        _ if password.chars().all(|c| password.starts_with(c)) => {
            "is one character again and again".into()
        }
        _ => return Ok(()),
    };
    Err(Error::invalid(vec![Violation::new(field, wrong).hint(
        "four words that nobody would put together are a good one",
    )]))
}

/// The hash of a password, as a PHC string.
///
/// # Errors
/// `Unavailable` when too many wait.
pub async fn hash(password: String, salt: [u8; 16]) -> Result<String> {
    aside(move || hash_now(&password, salt)).await?
}

/// Whether a password is the one of a hash. `None` for a user without one, or for no user: it takes as long, and the
/// answer is no.
///
/// # Errors
/// `Unavailable` when too many wait.
pub async fn verify(password: String, hash: Option<String>) -> Result<bool> {
    aside(move || {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| DUMMY.clone());
        // Longer than any password: then nothing is hashed but the beginning, which is nobody's.
        let password: String = password.chars().take(MOST + 1).collect();
        let right = PasswordHash::new(&hash)
            .is_ok_and(|hash| hasher().verify_password(password.as_bytes(), &hash).is_ok());
        right && known
    })
    .await
}

fn hash_now(password: &str, salt: [u8; 16]) -> Result<String> {
    let wrong = |e: argon2::password_hash::Error| {
        Error::internal(format!("the password could not be hashed: {e}"))
    };
    let salt = SaltString::encode_b64(&salt).map_err(wrong)?;
    let hash = hasher()
        .hash_password(password.as_bytes(), &salt)
        .map_err(wrong)?;
    Ok(hash.to_string())
}

async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let busy = || Error::unavailable("too many logins at once");
    let waits = QUEUE.try_acquire().map_err(|_| busy())?;
    let room = ROOM.acquire().await.map_err(|_| busy())?;
    let done = tokio::task::spawn_blocking(move || {
        // The work goes on when nobody waits for it any more, and so does what it counts for.
        let _held = (waits, room);
        work()
    });
    done.await
        .map_err(|e| Error::internal("hashing a password broke off").because(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn right_wrong_and_nobody() {
        let hash = hash("correct horse".into(), [3; 16]).await.unwrap();
        assert!(
            hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hash}"
        );
        assert!(
            verify("correct horse".into(), Some(hash.clone()))
                .await
                .unwrap()
        );
        assert!(
            !verify("correct hors".into(), Some(hash.clone()))
                .await
                .unwrap()
        );
        assert!(!verify("".into(), Some(hash)).await.unwrap());
        // The same work for nobody; and the password behind the dummy lets nobody in.
        assert!(DUMMY.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(!verify("no password of anybody".into(), None).await.unwrap());
        assert!(!verify("x".into(), Some("nonsense".into())).await.unwrap());
    }

    #[test]
    fn what_a_password_must_be() {
        for bad in [
            "",
            "1234567",
            "annahuber",
            "AnnaHuber",
            "aaaaaaaaaa",
            &"ab".repeat(65),
        ] {
            let error = check("password", bad, "annahuber").unwrap_err();
            let told = format!("{error:?}");
            assert!(bad.len() < 9 || !told.contains(bad), "{told}");
        }
        for good in ["12345678", "pässwörter", &"ab".repeat(64)] {
            check("password", good, "anna").unwrap();
        }
    }
}

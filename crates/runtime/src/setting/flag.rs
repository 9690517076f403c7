//! Which subjects a rollout has reached: always the same ones.

use sha2::{Digest, Sha256};

/// Whether a subject is within the first `percent` of a flag's rollout: SHA-256(flag : subject) mod 100.
pub fn in_rollout(flag: &str, subject: &str, percent: u8) -> bool {
    let hash = Sha256::digest(format!("{flag}:{subject}").as_bytes());
    let bucket = hash
        .iter()
        .fold(0u32, |acc, byte| (acc * 256 + u32::from(*byte)) % 100);
    bucket < u32::from(percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_is_a_fifth_and_stays_the_same() {
        let picked: Vec<bool> = (0..10_000)
            .map(|n| in_rollout("new-ui", &format!("user{n}"), 20))
            .collect();
        let n = picked.iter().filter(|p| **p).count();
        assert!((1900..=2100).contains(&n), "{n}");
        for (i, was) in picked.iter().enumerate() {
            assert_eq!(in_rollout("new-ui", &format!("user{i}"), 20), *was);
            assert!(
                !*was || in_rollout("new-ui", &format!("user{i}"), 50),
                "more rollout never takes anybody out"
            );
        }
    }
}

//! What a transaction may look like, whichever backend it goes to. Pure: looks at the transaction only.

use crate::{
    Expect, Key, MAX_EXPECT, MAX_KEY, MAX_TXN, MAX_VALUE, MAX_WRITES, Result, StoreError, Txn,
    Write,
};
use std::collections::HashSet;

/// Refuses a transaction that no backend would take.
pub(crate) fn check(txn: &Txn) -> Result<()> {
    if txn.writes.len() > MAX_WRITES {
        return Err(StoreError::TooLarge(format!(
            "{} writes, at most {MAX_WRITES} are allowed",
            txn.writes.len()
        )));
    }
    if txn.expect.len() > MAX_EXPECT {
        return Err(StoreError::TooLarge(format!(
            "{} expectations, at most {MAX_EXPECT} are allowed",
            txn.expect.len()
        )));
    }
    let mut size = 0;
    for write in &txn.writes {
        let key = write.key();
        check_key(key)?;
        size += key.as_str().len();
        if let Write::Put { value, .. } = write {
            if value.len() > MAX_VALUE {
                return Err(StoreError::TooLarge(format!(
                    "the value of key `{key}` has {} bytes, at most {MAX_VALUE} are allowed",
                    value.len()
                )));
            }
            size += value.len();
        }
    }
    if size > MAX_TXN {
        return Err(StoreError::TooLarge(format!(
            "{size} bytes of keys and values, at most {MAX_TXN} are allowed"
        )));
    }
    for expect in &txn.expect {
        check_key(expect.key())?;
    }
    match first_twice(&txn.writes) {
        Some(key) => Err(StoreError::TooLarge(format!(
            "key `{key}` is written twice"
        ))),
        None => Ok(()),
    }
}

fn check_key(key: &Key) -> Result<()> {
    match key.as_str().len() {
        0 => Err(StoreError::TooLarge("a key is empty".into())),
        n if n > MAX_KEY => {
            let head: String = key.as_str().chars().take(60).collect();
            Err(StoreError::TooLarge(format!(
                "key `{head}...` has {n} bytes, at most {MAX_KEY} are allowed"
            )))
        }
        _ => Ok(()),
    }
}

fn first_twice(writes: &[Write]) -> Option<&Key> {
    // Most transactions write one to four keys: comparing is cheaper than hashing.
    if writes.len() <= 8 {
        return writes.iter().enumerate().find_map(|(i, w)| {
            writes[..i]
                .iter()
                .any(|o| o.key() == w.key())
                .then(|| w.key())
        });
    }
    let mut seen = HashSet::with_capacity(writes.len());
    writes.iter().map(Write::key).find(|key| !seen.insert(*key))
}

/// Compares what a transaction expects of a key with the revision of its last change (`None`: it does not exist).
pub(crate) fn holds(expect: &Expect, modified: Option<crate::Revision>) -> Result<()> {
    let held = match expect {
        Expect::Absent(_) => modified.is_none(),
        Expect::Present(_) => modified.is_some(),
        Expect::At(_, revision) => modified == Some(*revision),
    };
    if held {
        return Ok(());
    }
    Err(StoreError::Conflict {
        key: expect.key().clone(),
        found: modified.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text)
    }

    #[test]
    fn limits_are_inclusive() {
        let full = (0..MAX_WRITES).fold(Txn::new(), |t, i| t.put(key(&format!("k{i}")), "v"));
        assert!(check(&full).is_ok());
        assert!(matches!(
            check(&full.put(key("one more"), "v")),
            Err(StoreError::TooLarge(_))
        ));
        assert!(check(&Txn::new().put(key("k"), vec![0; MAX_VALUE])).is_ok());
        assert!(check(&Txn::new().put(key("k"), vec![0; MAX_VALUE + 1])).is_err());
        assert!(check(&Txn::new().put(Key::new("x".repeat(MAX_KEY)), "v")).is_ok());
        assert!(check(&Txn::new().delete(Key::new("x".repeat(MAX_KEY + 1)))).is_err());
        assert!(check(&Txn::new().delete(key(""))).is_err());
        let heavy = (0..5).fold(Txn::new(), |t, i| {
            t.put(key(&format!("k{i}")), vec![0; MAX_VALUE])
        });
        assert!(check(&heavy).is_err());
    }

    #[test]
    fn a_key_is_written_once() {
        assert!(check(&Txn::new().put(key("a"), "1").delete(key("a"))).is_err());
        let many = (0..20).fold(Txn::new(), |t, i| t.put(key(&format!("k{i}")), "v"));
        assert!(check(&many.clone()).is_ok());
        assert!(check(&many.put(key("k3"), "v")).is_err());
    }
}

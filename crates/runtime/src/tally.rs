//! Small facts that every process of a cluster must see at once and that are no objects: how often somebody has tried.
//!
//! A fact lies under a space and the SHA-256 of its subject, so that a store that is copied away names nobody. Whoever
//! keeps facts sweeps them.

use crate::Cx;
use crate::cx::store_error;
use model::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use store::{Key, Page, Prefix, StoreError, Txn};

const PREFIX: &str = "l/";

/// What becomes of a fact.
#[derive(Debug)]
pub enum Becomes<V> {
    /// It stays as it is.
    Same,
    /// It is this from now on.
    New(V),
    /// It is forgotten.
    Forgotten,
}

/// Looks at a fact and changes it in one step: nobody else changes it in between. What cannot be read is as if it were
/// not there.
///
/// # Errors
/// When the store does not answer.
pub async fn edit<V, T>(
    cx: &Cx,
    space: &str,
    subject: &str,
    mut with: impl FnMut(Option<V>) -> (Becomes<V>, T),
) -> Result<T>
where
    V: Serialize + DeserializeOwned,
{
    let hash = hex::encode(Sha256::digest(subject.as_bytes()));
    let key = Key::from_parts(&["l", space, &hash]);
    loop {
        let entry = cx.store().get(&key).await.map_err(store_error)?;
        let old = entry
            .as_ref()
            .and_then(|entry| serde_json::from_slice(&entry.value).ok());
        let (becomes, answer) = with(old);
        let bytes = match &becomes {
            Becomes::Same => return Ok(answer),
            Becomes::Forgotten if entry.is_none() => return Ok(answer),
            Becomes::Forgotten => None,
            Becomes::New(value) => Some(
                serde_json::to_vec(value)
                    .map_err(|e| Error::internal("a fact as JSON").because(e))?,
            ),
        };
        let txn = match (&entry, bytes) {
            (None, Some(bytes)) => Txn::new().create(key.clone(), bytes),
            (Some(entry), Some(bytes)) => Txn::new().replace(key.clone(), entry.modified, bytes),
            (Some(entry), None) => Txn::new()
                .expect(store::Expect::At(key.clone(), entry.modified))
                .delete(key.clone()),
            (None, None) => return Ok(answer),
        };
        match cx.store().commit(txn).await {
            Ok(_) => return Ok(answer),
            Err(StoreError::Conflict { .. }) => continue,
            Err(e) => return Err(store_error(e)),
        }
    }
}

/// Seals what a fact says about a person, for one space and subject.
///
/// # Errors
/// When the key is not there.
pub fn sealed(cx: &Cx, space: &str, subject: &str, plain: &str) -> Result<String> {
    cx.seal().seal(&context(space, subject), plain)
}

/// Opens it again; nothing when that cannot be done: then it is as if it were not there.
pub fn opened(cx: &Cx, space: &str, subject: &str, sealed: &str) -> Option<String> {
    cx.seal().open(&context(space, subject), sealed).ok()
}

fn context(space: &str, subject: &str) -> String {
    format!("{PREFIX}{space}/{subject}")
}

/// Forgets the facts of a space that are of no use any more. Says how many.
///
/// # Errors
/// When the store does not answer.
pub async fn sweep<V: DeserializeOwned>(
    cx: &Cx,
    space: &str,
    keep: impl Fn(&V) -> bool,
) -> Result<usize> {
    let prefix = Prefix::new(format!("{PREFIX}{space}/"));
    let listing = cx
        .store()
        .list(&prefix, Page::ALL)
        .await
        .map_err(store_error)?;
    let old: Vec<Key> = listing
        .entries
        .into_iter()
        .filter(|e| serde_json::from_slice::<V>(&e.value).map_or(true, |value| !keep(&value)))
        .map(|e| e.key)
        .collect();
    for chunk in old.chunks(store::MAX_WRITES) {
        let txn = chunk.iter().cloned().fold(Txn::new(), Txn::delete);
        cx.store().commit(txn).await.map_err(store_error)?;
    }
    Ok(old.len())
}

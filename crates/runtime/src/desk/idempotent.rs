//! Idempotency-Key: the same key with the same body answers the same object again, for a day.
//!
//! The record lies in the same transaction as the change, so that there is never one without the other.

use super::write::Attempt;
use super::{Answer, Desk, object_answer};
use crate::cx::store_error;
use crate::gate::{Op, Request};
use model::{Error, Result, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::time::Duration;
use store::{Key, Page, Prefix, Txn};

const PREFIX: &str = "i/";
const KEPT: Duration = Duration::from_secs(24 * 3600);

#[derive(Serialize, Deserialize)]
struct Record {
    body: String,
    answer: String,
    time: Timestamp,
}

impl Desk {
    /// The answer that this request had before, if it had one.
    pub(super) async fn replay(&self, request: &Request) -> Result<Option<Answer>> {
        let Some(key) = record_key(request)? else {
            return Ok(None);
        };
        let Some(entry) = self.cx.store().get(&key).await.map_err(store_error)? else {
            return Ok(None);
        };
        let record: Record = serde_json::from_slice(&entry.value)
            .map_err(|e| Error::internal("idempotency record").because(e))?;
        if self.cx.clock().now().since(record.time) > KEPT {
            self.cx
                .store()
                .commit(Txn::new().delete(key.clone()))
                .await
                .map_err(store_error)?;
            return Ok(None);
        }
        let body = self.cx.seal().open(&context(&key), &record.body)?;
        if body != body_hash(request) {
            return Err(
                Error::field("Idempotency-Key", "was used before with another body")
                    .hint("use a new key for a new request"),
            );
        }
        let answer = Key::new(record.answer);
        let Some(target) = crate::object_ref(&answer) else {
            return Ok(None);
        };
        match self.cx.cache().row(&target.kind, &answer) {
            Some(row) if matches!(request.op, Op::Act { .. } | Op::Batch { .. }) => {
                Ok(Some(Answer::Accepted {
                    task: row.json.clone(),
                }))
            }
            Some(row) => Ok(Some(object_answer(
                &row,
                matches!(request.op, Op::Create { .. }),
            ))),
            None => Err(Error::gone(
                "this request was carried out before, and what it made is gone since",
            )),
        }
    }

    /// Adds the record to the transaction.
    pub(super) fn with_idempotency(
        &self,
        request: &Request,
        txn: Txn,
        answer: &Key,
    ) -> Result<Txn, Attempt> {
        let Some(key) = record_key(request)? else {
            return Ok(txn);
        };
        // What was asked may be a secret that can be guessed: its hash does not lie about in the clear.
        let body = body_hash(request);
        let record = Record {
            body: self.cx.seal().seal(&context(&key), &body)?,
            answer: answer.as_str().to_owned(),
            time: self.cx.clock().now(),
        };
        let record = serde_json::to_vec(&record)
            .map_err(|e| Error::internal("idempotency record").because(e))?;
        Ok(txn.create(key, record))
    }

    /// Deletes records older than a day. The daemon calls it hourly.
    pub async fn forget_old_requests(&self) -> Result<usize> {
        let listing = self
            .cx
            .store()
            .list(&Prefix::new(PREFIX), Page::ALL)
            .await
            .map_err(store_error)?;
        let now = self.cx.clock().now();
        let old: Vec<Key> = listing
            .entries
            .into_iter()
            .filter(|e| {
                serde_json::from_slice::<Record>(&e.value)
                    .map_or(true, |r| now.since(r.time) > KEPT)
            })
            .map(|e| e.key)
            .collect();
        for chunk in old.chunks(store::MAX_WRITES) {
            let txn = chunk.iter().cloned().fold(Txn::new(), Txn::delete);
            self.cx.store().commit(txn).await.map_err(store_error)?;
        }
        Ok(old.len())
    }
}

fn record_key(request: &Request) -> Result<Option<Key>> {
    let Some(text) = &request.idempotency else {
        return Ok(None);
    };
    if text.is_empty() || text.len() > 255 {
        return Err(Error::field(
            "Idempotency-Key",
            "must have 1 to 255 characters",
        ));
    }
    let mut hash = Sha256::new();
    hash.update(request.actor.name.as_bytes());
    hash.update([0]);
    hash.update(text.as_bytes());
    Ok(Some(Key::new(format!(
        "{PREFIX}{}",
        hex::encode(hash.finalize())
    ))))
}

fn context(key: &Key) -> String {
    format!("idempotency/{}", key.as_str())
}

fn body_hash(request: &Request) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{:?}", request.op).as_bytes());
    hex::encode(hash.finalize())
}

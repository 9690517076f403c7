//! Whether a node's agent lives: a key of the store that hangs on a lease.
//!
//! The agent puts what it found on its machine under the key and renews the lease three times in its term. When the
//! renewals stop, the lease ends, the key goes, and a watch tells the api at once: nobody asks around.

use super::{Facts, KIND, NodeStatus};
use crate::resilience::Retry;
use crate::{Cx, object_key, setting};
use futures::StreamExt;
use model::{Error, Result};
use std::time::Duration;
use store::{Key, Page, Prefix, StoreError, Txn};

/// Where the presence of nodes stands.
pub(crate) const PREFIX: &str = "n/";

fn key_of(node: &str) -> Key {
    Key::new(format!("{PREFIX}{node}"))
}

/// What a living agent says of its machine; `None` when it is gone.
pub(super) async fn of(cx: &Cx, node: &str) -> Result<Option<NodeStatus>> {
    let entry = cx.store().get(&key_of(node)).await;
    entry
        .map_err(crate::cx::store_error)?
        .map(|entry| {
            serde_json::from_slice(&entry.value)
                .map_err(|e| Error::internal(format!("presence of node {node}")).because(e))
        })
        .transpose()
}

/// Keeps the presence of this node up until the process ends.
pub(super) async fn keep(cx: Cx) {
    let stop = cx.shutdown();
    let mut failed = 0;
    loop {
        let wait = match keep_one(&cx).await {
            Ok(()) => Duration::ZERO,
            Err(error) => {
                failed += 1;
                tracing::warn!(%error, "the presence of this node could not be kept up");
                Retry::default().wait(failed, rand::random())
            }
        };
        if wait.is_zero() {
            failed = 0;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Holds one lease until it ends, its term changes, or the process ends.
async fn keep_one(cx: &Cx) -> Result<(), StoreError> {
    let Some(facts) = cx.try_part::<Facts>() else {
        cx.shutdown().cancelled().await;
        return Ok(());
    };
    let mut found = facts.follow();
    found.mark_unchanged();
    let changed = setting::NODE_TIMEOUT.changed(cx);
    tokio::pin!(changed);
    let ttl = setting::NODE_TIMEOUT.seconds(cx);
    let lease = cx.store().lease(ttl).await?;
    let put = || {
        let facts = serde_json::to_vec(&facts.now()).unwrap_or_default();
        Txn::new().put_leased(key_of(cx.node()), facts, lease)
    };
    cx.store().commit(put()).await?;
    let stop = cx.shutdown();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(ttl / 3) => {}
            () = &mut changed => return Ok(()),
            told = found.changed() => if told.is_ok() {
                cx.store().commit(put()).await?;
            },
        }
        match cx.store().keep_alive(lease).await {
            Ok(()) => {}
            Err(StoreError::LeaseEnded(_)) => return Ok(()),
            // The link may be down; the lease may still live when it is back.
            Err(error) => tracing::debug!(%error, "presence was not renewed"),
        }
    }
}

/// Wakes the nodes whose presence comes or goes, until the process ends.
pub(super) async fn watch(cx: Cx) {
    let stop = cx.shutdown();
    let mut failed = 0;
    loop {
        let listed = cx.store().list(&Prefix::new(PREFIX), Page::ALL).await;
        let after = match listed {
            Ok(listing) => {
                failed = 0;
                listing.revision
            }
            Err(error) => {
                failed += 1;
                tracing::warn!(%error, "the presence of nodes is not known");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(Retry::default().wait(failed, rand::random())) => {}
                }
                continue;
            }
        };
        for row in cx.cache().rows(KIND.name, None) {
            cx.wake(&row.key);
        }
        let mut changes = cx.store().watch(&Prefix::new(PREFIX), after);
        loop {
            let change = tokio::select! {
                () = stop.cancelled() => return,
                change = changes.next() => change,
            };
            match change {
                Some(Ok(change)) => {
                    if let Some(node) = change.kind.key().as_str().strip_prefix(PREFIX) {
                        cx.wake(&object_key(KIND.name, None, node));
                    }
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "watch of the nodes' presence broke");
                    break;
                }
                None => break,
            }
        }
    }
}

//! Leases: their keys go with them, as one change.

use super::{Replica, Subject, key, keys, next, now, put, value};
use crate::{ChangeKind, LeaseId, Prefix, Revision, StoreError, Txn};
use std::time::Duration;

const SHORT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(600);

pub(super) async fn expiry_is_one_change(store: Subject) {
    let lease = store.lease(SHORT).await.expect("a lease");
    put(&store, "stays", "v").await;
    let txn = (0..100).fold(Txn::new(), |t, i| {
        t.put_leased(key(format!("l/{i:03}")), "v", lease)
    });
    store.commit(txn).await.expect("a put");
    let at = store
        .commit(Txn::new().put_leased(key("l/more"), "v", lease))
        .await
        .expect("a put");
    let entry = store
        .get(&key("l/more"))
        .await
        .expect("a get")
        .expect("the lease is young");
    assert_eq!(entry.lease, Some(lease));
    let mut watch = store.watch(&Prefix::new(""), at);
    let mut gone = Vec::new();
    loop {
        let change = next(&mut watch).await;
        let ChangeKind::Delete(key) = change.kind else {
            panic!("only deletions come")
        };
        gone.push((change.revision, key.to_string()));
        if change.last {
            break;
        }
    }
    assert_eq!(gone.len(), 101, "all keys of the lease go in one revision");
    assert!(
        gone.iter()
            .all(|(revision, _)| *revision == gone[0].0 && *revision > at)
    );
    assert_eq!(keys(&store, "").await, ["stays"]);
    assert!(
        matches!(store.keep_alive(lease).await, Err(StoreError::LeaseEnded(id)) if id == lease)
    );
    let late = store
        .commit(Txn::new().put_leased(key("l/late"), "v", lease))
        .await;
    assert!(matches!(late, Err(StoreError::LeaseEnded(_))), "{late:?}");
}

pub(super) async fn keep_alive_keeps(store: Subject) {
    let ttl = SHORT * 2;
    let (kept, left) = (
        store.lease(ttl).await.expect("a lease"),
        store.lease(ttl).await.expect("a lease"),
    );
    assert_ne!(kept, left);
    let txn = Txn::new()
        .put_leased(key("kept"), "v", kept)
        .put_leased(key("left"), "v", left);
    let at = store.commit(txn).await.expect("a put");
    let mut watch = store.watch(&Prefix::new(""), at);
    let change = loop {
        store.keep_alive(kept).await.expect("the lease lives");
        tokio::select! {
            change = next(&mut watch) => break change,
            _ = tokio::time::sleep(ttl / 8) => {}
        }
    };
    assert_eq!(change.kind, ChangeKind::Delete(key("left")));
    assert_eq!(value(&store, "kept").await, Some("v".into()));
}

pub(super) async fn revoke_ends(store: Subject) {
    let lease = store.lease(LONG).await.expect("a lease");
    let txn = Txn::new()
        .put_leased(key("r/1"), "v", lease)
        .put_leased(key("r/2"), "v", lease)
        .put(key("r/3"), "v");
    let at = store.commit(txn).await.expect("a put");
    let mut replica = Replica {
        revision: Revision(at.0 - 1),
        ..Replica::default()
    };
    let mut watch = store.watch(&Prefix::new("r/"), replica.revision);
    store.revoke(lease).await.expect("the lease lives");
    assert_eq!(
        keys(&store, "r/").await,
        ["r/3"],
        "the keys are gone when revoke returns"
    );
    replica.follow(&mut watch, now(&store).await).await;
    assert_eq!(replica.changes, 5);
    assert!(matches!(
        store.revoke(lease).await,
        Err(StoreError::LeaseEnded(_))
    ));
    assert!(matches!(
        store.keep_alive(lease).await,
        Err(StoreError::LeaseEnded(_))
    ));
    let idle = store.lease(LONG).await.expect("a lease");
    let before = now(&store).await;
    store
        .revoke(idle)
        .await
        .expect("a lease without keys can be revoked");
    assert_eq!(now(&store).await, before, "which changes nothing");
}

pub(super) async fn unknown_is_refused(store: Subject) {
    let never = LeaseId(7);
    assert!(matches!(
        store.keep_alive(never).await,
        Err(StoreError::LeaseEnded(_))
    ));
    assert!(matches!(
        store.revoke(never).await,
        Err(StoreError::LeaseEnded(_))
    ));
    let txn = Txn::new()
        .put(key("a"), "v")
        .put_leased(key("b"), "v", never);
    assert!(matches!(store.commit(txn).await, Err(StoreError::LeaseEnded(id)) if id == never));
    assert_eq!(value(&store, "a").await, None);
}

pub(super) async fn put_moves_a_key(store: Subject) {
    let (one, two) = (
        store.lease(LONG).await.expect("a lease"),
        store.lease(LONG).await.expect("a lease"),
    );
    let txn = ["free", "moved", "bound"]
        .into_iter()
        .fold(Txn::new(), |t, k| t.put_leased(key(k), "v", one));
    store.commit(txn).await.expect("a put");
    store
        .commit(
            Txn::new()
                .put(key("free"), "v")
                .put_leased(key("moved"), "v", two),
        )
        .await
        .expect("a put");
    store.revoke(one).await.expect("the lease lives");
    assert_eq!(keys(&store, "").await, ["free", "moved"]);
    store.revoke(two).await.expect("the lease lives");
    assert_eq!(
        keys(&store, "").await,
        ["free"],
        "a put without a lease sets a key free"
    );
}

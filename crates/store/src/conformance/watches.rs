//! Watches: each commit once, in order, from where one asks.

use super::{PATIENCE, Replica, Subject, key, next, now, put};
use crate::{ChangeKind, Page, Prefix, Revision, StoreError, Txn};
use futures::StreamExt;
use std::collections::BTreeSet;
use tokio::task::JoinSet;

pub(super) async fn sees_what_was_and_what_comes(store: Subject) {
    let start = now(&store).await;
    put(&store, "a", "1").await;
    put(&store, "a", "2").await;
    let mut watch = store.watch(&Prefix::new(""), start);
    let (one, two) = (next(&mut watch).await, next(&mut watch).await);
    assert!(one.revision < two.revision && one.last && two.last);
    let deleted = store
        .commit(Txn::new().delete(key("a")))
        .await
        .expect("a delete");
    let three = next(&mut watch).await;
    assert_eq!(
        (three.revision, &three.kind, three.last),
        (deleted, &ChangeKind::Delete(key("a")), true)
    );
    let mut late = store.watch(&Prefix::new(""), deleted);
    let again = put(&store, "a", "3").await;
    for watch in [&mut watch, &mut late] {
        let change = next(watch).await;
        let ChangeKind::Put(entry) = change.kind else {
            panic!("a put is seen as a put")
        };
        assert_eq!(
            (change.revision, entry.created, &entry.value[..]),
            (again, again, &b"3"[..])
        );
    }
}

pub(super) async fn prefix_and_last(store: Subject) {
    let start = now(&store).await;
    let mut watch = store.watch(&Prefix::new("a/"), start);
    let txn = Txn::new()
        .put(key("a/1"), "v")
        .put(key("b/1"), "v")
        .put(key("a/2"), "v")
        .put(key("b/2"), "v");
    let first = store.commit(txn).await.expect("a put");
    put(&store, "b/3", "v").await;
    put(&store, "a", "not under a/").await;
    let second = put(&store, "a/3", "v").await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let change = next(&mut watch).await;
        seen.push((change.revision, change.kind.key().to_string(), change.last));
    }
    let under: BTreeSet<_> = seen
        .iter()
        .take(2)
        .map(|(r, k, _)| (*r, k.as_str()))
        .collect();
    assert_eq!(under, BTreeSet::from([(first, "a/1"), (first, "a/2")]));
    assert_eq!(
        (seen[0].2, seen[1].2),
        (false, true),
        "the last change under the prefix is marked"
    );
    assert_eq!(seen[2], (second, "a/3".to_string(), true));
}

/// Hundreds of writers, watchers that begin at different times: nobody misses or repeats anything.
pub(super) async fn many_writers(store: Subject) {
    const WRITERS: usize = 200;
    const EACH: usize = 10;
    let start = now(&store).await;
    let mut writers = JoinSet::new();
    for w in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            for n in 0..EACH {
                let shared = key(format!("w/shared-{}", (w * 7 + n) % 10));
                let txn = Txn::new()
                    .put(key(format!("w/{w}")), n.to_string())
                    .put(shared, format!("{w}:{n}"));
                let txn = if n % 3 == 2 {
                    txn.delete(key(format!("w/{w}/x")))
                } else {
                    txn.put(key(format!("w/{w}/x")), "v")
                };
                store.commit(txn).await.expect("a put");
            }
        });
    }
    let mut followers = JoinSet::new();
    let (end_tx, end) = tokio::sync::watch::channel(None::<Revision>);
    for f in 0..20 {
        let (store, mut end) = (store.clone(), end.clone());
        followers.spawn(async move {
            // Half begin at the start, half list somewhere on the way and go on from there.
            let mut replica = Replica {
                revision: start,
                ..Replica::default()
            };
            if f % 2 == 1 {
                tokio::time::sleep(std::time::Duration::from_millis(f * 3)).await;
                let listing = store
                    .list(&Prefix::new("w/"), Page::ALL)
                    .await
                    .expect("a list");
                replica = Replica::at(listing.revision, listing.entries);
            }
            let mut watch = store.watch(&Prefix::new("w/"), replica.revision);
            while replica.revision < end.borrow().unwrap_or(Revision(u64::MAX)) || replica.open {
                tokio::select! {
                    change = next(&mut watch) => replica.apply(change),
                    _ = end.changed(), if end.borrow().is_none() => {}
                }
            }
            (f, replica)
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer.expect("the writer did not panic");
    }
    end_tx.send_replace(Some(put(&store, "w/end", "v").await));
    let truth = store
        .list(&Prefix::new("w/"), Page::ALL)
        .await
        .expect("a list")
        .entries;
    while let Some(follower) = followers.join_next().await {
        let (f, replica) = follower.expect("the follower did not panic");
        replica.assert_same(&truth);
        if f % 2 == 0 {
            let all = WRITERS * EACH * 3 + 1;
            assert_eq!(
                replica.changes, all,
                "follower {f} saw every change exactly once"
            );
        }
    }
}

pub(super) async fn resumes(store: Subject) {
    let start = now(&store).await;
    for n in 0..50 {
        let txn = Txn::new()
            .put(key(format!("r/{n}")), "v")
            .put(key("r/same"), n.to_string());
        store.commit(txn).await.expect("a put");
    }
    let end = now(&store).await;
    let mut replica = Replica {
        revision: start,
        ..Replica::default()
    };
    while replica.revision < end {
        let mut watch = store.watch(&Prefix::new("r/"), replica.revision);
        for _ in 0..3 {
            if replica.revision < end || replica.open {
                replica.apply(next(&mut watch).await);
            }
        }
        while replica.open {
            replica.apply(next(&mut watch).await);
        }
    }
    assert_eq!(replica.changes, 100);
}

/// History is bounded: who asks for what is gone, or does not keep up, is told to list again.
pub(super) async fn too_old_or_too_slow(store: Subject) {
    let start = now(&store).await;
    let mut slow = store.watch(&Prefix::new("c/"), start);
    let mut last = put(&store, "c/000", "first").await;
    let mut replica = Replica {
        revision: start,
        ..Replica::default()
    };
    replica.apply(next(&mut slow).await);
    assert_eq!(replica.revision, last);
    let mut compacted = false;
    for _ in 0..2_000 {
        for _ in 0..20 {
            let txn = (0..100).fold(Txn::new(), |t, i| t.put(key(format!("c/{i:03}")), "v"));
            last = store.commit(txn).await.expect("a put");
        }
        match tokio::time::timeout(PATIENCE, store.watch(&Prefix::new("c/"), start).next()).await {
            Ok(Some(Err(StoreError::Compacted { asked, oldest }))) => {
                assert!(asked == start && oldest > start);
                compacted = true;
                break;
            }
            Ok(Some(Ok(_))) => {}
            other => panic!("a change or Compacted is expected, not {other:?}"),
        }
    }
    assert!(compacted, "history is bounded");
    // The slow one may have some changes under way, but never a gap before it is told.
    loop {
        match tokio::time::timeout(PATIENCE, slow.next())
            .await
            .expect("the slow watcher is told")
        {
            Some(Ok(change)) => replica.apply(change),
            Some(Err(StoreError::Compacted { .. })) => break,
            other => panic!("changes, then Compacted, not {other:?}"),
        }
        if replica.revision == last && !replica.open {
            break;
        }
    }
    let mut fresh = store.watch(&Prefix::new("c/"), last);
    let at = put(&store, "c/end", "v").await;
    assert_eq!(next(&mut fresh).await.revision, at);
}

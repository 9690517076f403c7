//! Gets and lists.

use super::{Replica, Subject, key, keys, put};
use crate::{Page, Prefix, Txn};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::JoinSet;

pub(super) async fn values_and_order(store: Subject) {
    let all: Vec<u8> = (0..=255).collect();
    let txn = Txn::new()
        .put(key("empty"), Bytes::new())
        .put(key("all"), all.clone());
    store.commit(txn).await.expect("any bytes are a value");
    assert_eq!(
        store
            .get(&key("empty"))
            .await
            .expect("a get")
            .map(|e| e.value),
        Some(Bytes::new())
    );
    assert_eq!(
        store
            .get(&key("all"))
            .await
            .expect("a get")
            .map(|e| e.value),
        Some(Bytes::from(all))
    );
    for at in [
        "z/é",
        "z/Z",
        "z/a",
        "z/a/b",
        "z/a-b",
        "z/\u{10FFFF}",
        "z/\u{FFFF}",
        "z/0",
    ] {
        put(&store, at, "v").await;
    }
    let mut sorted = keys(&store, "z/").await;
    assert_eq!(sorted.len(), 8);
    let listed = sorted.clone();
    sorted.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    assert_eq!(listed, sorted, "keys are in the order of their bytes");
}

pub(super) async fn prefixes_and_pages(store: Subject) {
    for at in ["a", "a/1", "a/2", "a/3", "a0", "b/1", "a/\u{10FFFF}x"] {
        put(&store, at, at).await;
    }
    assert_eq!(keys(&store, "").await.len(), 7);
    assert_eq!(
        keys(&store, "a/").await,
        ["a/1", "a/2", "a/3", "a/\u{10FFFF}x"]
    );
    assert_eq!(keys(&store, "a").await.len(), 6);
    assert_eq!(keys(&store, "c").await, Vec::<String>::new());
    let page = |limit, after: Option<&str>| Page {
        limit,
        after: after.map(key),
    };
    let read = async |page| {
        let listing = store.list(&Prefix::new("a/"), page).await.expect("a list");
        (
            listing
                .entries
                .iter()
                .map(|e| e.key.to_string())
                .collect::<Vec<_>>(),
            listing.more,
        )
    };
    assert_eq!(
        read(page(2, None)).await,
        (vec!["a/1".into(), "a/2".into()], true)
    );
    assert_eq!(
        read(page(2, Some("a/2"))).await,
        (vec!["a/3".into(), "a/\u{10FFFF}x".into()], false)
    );
    assert!(
        !read(page(4, None)).await.1,
        "a full page with nothing behind it is the last"
    );
    assert_eq!(read(page(0, Some("a/1"))).await.0.len(), 3);
    assert_eq!(
        read(page(0, Some("a/15"))).await.0[0],
        "a/2",
        "the key to go on after need not exist"
    );
    assert_eq!(
        read(page(0, Some("A"))).await.0.len(),
        4,
        "a key before the prefix means from its start"
    );
    assert_eq!(read(page(0, Some("b"))).await, (vec![], false));
}

/// Walks pages while others write: what stood all the time is seen exactly once, and the first page's revision is
/// a place to watch from that leads to the truth.
pub(super) async fn pages_under_writes(store: Subject) {
    for chunk in 0..5 {
        let txn = (0..100).fold(Txn::new(), |t, i| {
            t.put(key(format!("o/{:03}", chunk * 100 + i)), "stays")
        });
        store.commit(txn).await.expect("a put");
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for w in 0..4 {
        let (store, stop) = (store.clone(), stop.clone());
        writers.spawn(async move {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                let at = key(format!("o/{:03}-{w}", (n * 37 + w) % 500));
                store
                    .commit(Txn::new().put(at.clone(), "comes"))
                    .await
                    .expect("a put");
                store.commit(Txn::new().delete(at)).await.expect("a delete");
                n += 1;
            }
        });
    }
    for _ in 0..5 {
        let mut page = Page {
            limit: 37,
            after: None,
        };
        let mut seen: Vec<String> = Vec::new();
        let mut first = None;
        loop {
            let listing = store
                .list(&Prefix::new("o/"), page.clone())
                .await
                .expect("a list");
            assert!(
                first.is_none_or(|r| r <= listing.revision),
                "revisions of later reads do not go back"
            );
            first.get_or_insert(listing.revision);
            assert!(
                listing
                    .entries
                    .iter()
                    .all(|e| e.modified <= listing.revision),
                "nothing from the future"
            );
            seen.extend(listing.entries.iter().map(|e| e.key.to_string()));
            page.after = listing.entries.last().map(|e| e.key.clone());
            if !listing.more {
                break;
            }
        }
        assert!(
            seen.is_sorted_by(|a, b| a < b),
            "every key at most once, in order"
        );
        assert_eq!(
            seen.iter().filter(|k| !k.contains('-')).count(),
            500,
            "what stays is seen"
        );
    }
    let whole = store
        .list(&Prefix::new("o/"), Page::ALL)
        .await
        .expect("a list");
    let mut replica = Replica::at(whole.revision, whole.entries);
    let mut watch = store.watch(&Prefix::new("o/"), whole.revision);
    stop.store(true, Ordering::Relaxed);
    while let Some(writer) = writers.join_next().await {
        writer.expect("the writer did not panic");
    }
    let end = put(&store, "o/end", "v").await;
    replica.follow(&mut watch, end).await;
    replica.assert_same(
        &store
            .list(&Prefix::new("o/"), Page::ALL)
            .await
            .expect("a list")
            .entries,
    );
}

pub(super) async fn own_writes_are_seen(store: Subject) {
    let mut tasks = JoinSet::new();
    for t in 0..8 {
        let store = store.clone();
        tasks.spawn(async move {
            for n in 0..20 {
                let at = key(format!("t/{t}"));
                let revision = store
                    .commit(Txn::new().put(at.clone(), n.to_string()))
                    .await
                    .expect("a put");
                let entry = store
                    .get(&at)
                    .await
                    .expect("a get")
                    .expect("it was just put");
                assert_eq!(
                    (entry.modified, &entry.value[..]),
                    (revision, n.to_string().as_bytes())
                );
                let listing = store
                    .list(&Prefix::new("t/"), Page::ALL)
                    .await
                    .expect("a list");
                assert!(
                    listing.revision >= revision,
                    "a list after a commit is not older than it"
                );
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.expect("the task did not panic");
    }
}

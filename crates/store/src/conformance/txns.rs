//! Transactions: compare and set, all or nothing, limits.

use super::{Subject, key, now, put, value};
use crate::{Expect, MAX_EXPECT, MAX_TXN, MAX_VALUE, MAX_WRITES, Revision, StoreError, Txn};
use tokio::task::JoinSet;

pub(super) async fn create_replace_delete(store: Subject) {
    let created = store
        .commit(Txn::new().create(key("a"), "1"))
        .await
        .expect("the key is free");
    let entry = store
        .get(&key("a"))
        .await
        .expect("a get")
        .expect("it was created");
    assert_eq!(
        (entry.created, entry.modified, entry.lease),
        (created, created, None)
    );

    match store.commit(Txn::new().create(key("a"), "2")).await {
        Err(StoreError::Conflict { key: at, found }) => {
            assert_eq!((at, found), (key("a"), created))
        }
        other => panic!("a second create conflicts, not {other:?}"),
    }
    let replaced = store
        .commit(Txn::new().replace(key("a"), created, "2"))
        .await
        .expect("nobody was faster");
    assert!(replaced > created);
    let entry = store
        .get(&key("a"))
        .await
        .expect("a get")
        .expect("it exists");
    assert_eq!((entry.created, entry.modified), (created, replaced));
    assert!(matches!(
        store.commit(Txn::new().replace(key("a"), created, "3")).await,
        Err(StoreError::Conflict { found, .. }) if found == replaced
    ));

    let deleted = store
        .commit(
            Txn::new()
                .expect(Expect::At(key("a"), replaced))
                .delete(key("a")),
        )
        .await;
    let deleted = deleted.expect("it was at that revision");
    assert_eq!(store.get(&key("a")).await.expect("a get"), None);
    assert!(matches!(
        store
            .commit(Txn::new().replace(key("a"), replaced, "4"))
            .await,
        Err(StoreError::Conflict {
            found: Revision::ZERO,
            ..
        })
    ));
    let again = store
        .commit(Txn::new().create(key("a"), "5"))
        .await
        .expect("free again");
    assert!(again > deleted);
    let entry = store
        .get(&key("a"))
        .await
        .expect("a get")
        .expect("it exists");
    assert_eq!(
        (entry.created, entry.modified),
        (again, again),
        "a new life begins with a new created revision"
    );
}

pub(super) async fn expectations(store: Subject) {
    let at = put(&store, "there", "v").await;
    let missing = || key("missing");
    let there = || key("there");
    let holds = [
        Expect::Absent(missing()),
        Expect::Present(there()),
        Expect::At(there(), at),
    ];
    let fails = [
        (Expect::Absent(there()), at),
        (Expect::Present(missing()), Revision::ZERO),
        (Expect::At(there(), Revision(at.0 + 1)), at),
        (Expect::At(missing(), at), Revision::ZERO),
    ];
    for expect in holds.clone() {
        let answer = store.commit(Txn::new().expect(expect.clone())).await;
        assert!(answer.is_ok(), "{expect:?} holds, yet {answer:?}");
    }
    for (expect, is) in fails {
        let all = holds.iter().cloned().fold(Txn::new(), Txn::expect);
        match store
            .commit(all.expect(expect.clone()).put(key("never"), "v"))
            .await
        {
            Err(StoreError::Conflict { key, found }) => {
                assert_eq!((&key, found), (expect.key(), is))
            }
            other => panic!("{expect:?} conflicts, not {other:?}"),
        }
    }
    assert_eq!(value(&store, "never").await, None);
    let guarded = store
        .commit(
            Txn::new()
                .expect(Expect::Present(there()))
                .put(key("other"), "v"),
        )
        .await;
    assert!(
        guarded.is_ok(),
        "an expectation may be about a key that is not written"
    );
}

pub(super) async fn all_or_nothing(store: Subject) {
    put(&store, "taken", "mine").await;
    let before = now(&store).await;
    let txn = Txn::new()
        .put(key("x"), "1")
        .put(key("y"), "2")
        .delete(key("taken"))
        .create(key("taken2"), "3");
    assert!(
        store
            .commit(txn.clone().expect(Expect::Absent(key("taken"))))
            .await
            .is_err()
    );
    assert_eq!(
        now(&store).await,
        before,
        "a refused transaction takes no revision"
    );
    assert_eq!(super::keys(&store, "").await, ["taken"]);
    let at = store.commit(txn).await.expect("nothing is in the way");
    let entries = store
        .list(&crate::Prefix::new(""), crate::Page::ALL)
        .await
        .expect("a list")
        .entries;
    assert_eq!(
        entries.iter().map(|e| e.key.as_str()).collect::<Vec<_>>(),
        ["taken2", "x", "y"]
    );
    assert!(
        entries.iter().all(|e| e.modified == at),
        "all writes of a transaction have one revision"
    );
}

pub(super) async fn limits(store: Subject) {
    let before = now(&store).await;
    let many = |n: usize| (0..n).fold(Txn::new(), |t, i| t.put(key(format!("many/{i:03}")), "v"));
    let expects = |n: usize| {
        (0..n).fold(Txn::new(), |t, i| {
            t.expect(Expect::Absent(key(format!("no/{i}"))))
        })
    };
    let heavy = (0..MAX_TXN / MAX_VALUE + 1).fold(Txn::new(), |t, i| {
        t.put(key(format!("h/{i}")), vec![7; MAX_VALUE])
    });
    let refused = [
        many(MAX_WRITES + 1),
        expects(MAX_EXPECT + 1),
        heavy,
        Txn::new().put(key("big"), vec![0u8; MAX_VALUE + 1]),
        Txn::new().put(key("twice"), "1").put(key("twice"), "2"),
        Txn::new().put(key("twice"), "1").delete(key("twice")),
        Txn::new().put(key(""), "no name"),
        Txn::new().put(key("k".repeat(crate::MAX_KEY + 1)), "long name"),
    ];
    for txn in refused {
        let writes = txn.writes.len();
        let answer = store.commit(txn).await;
        assert!(
            matches!(answer, Err(StoreError::TooLarge(_))),
            "{writes} writes: {answer:?}"
        );
    }
    assert_eq!(now(&store).await, before);
    store
        .commit(many(MAX_WRITES))
        .await
        .expect("as many writes as are allowed");
    store
        .commit(expects(MAX_EXPECT))
        .await
        .expect("as many expectations as are allowed");
    store
        .commit(Txn::new().put(key("big"), vec![7u8; MAX_VALUE]))
        .await
        .expect("the largest value");
    let big = store
        .get(&key("big"))
        .await
        .expect("a get")
        .expect("it was put");
    assert!(big.value.len() == MAX_VALUE && big.value.iter().all(|b| *b == 7));
    assert_eq!(super::keys(&store, "many/").await.len(), MAX_WRITES);
}

pub(super) async fn no_change_no_revision(store: Subject) {
    let first = put(&store, "a", "1").await;
    assert_eq!(
        now(&store).await,
        first,
        "an empty transaction answers the current revision"
    );
    let nothing = store
        .commit(Txn::new().delete(key("not there")))
        .await
        .expect("no error");
    assert_eq!(nothing, first, "deleting nothing changes nothing");
    let second = put(&store, "a", "1").await;
    assert!(second > first, "writing the same value is a change");
    let mixed = store
        .commit(Txn::new().delete(key("not there")).delete(key("a")))
        .await
        .expect("no error");
    assert!(mixed > second);
}

/// Sixteen tasks raise one counter by compare and set; none may be lost.
pub(super) async fn counting_together(store: Subject) {
    const TASKS: usize = 16;
    const EACH: usize = 10;
    put(&store, "counter", "0").await;
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let store = store.clone();
        tasks.spawn(async move {
            let mut done = 0;
            while done < EACH {
                let entry = store
                    .get(&key("counter"))
                    .await
                    .expect("a get")
                    .expect("the counter exists");
                let n: usize = String::from_utf8_lossy(&entry.value)
                    .parse()
                    .expect("a number");
                match store
                    .commit(Txn::new().replace(key("counter"), entry.modified, (n + 1).to_string()))
                    .await
                {
                    Ok(_) => done += 1,
                    Err(StoreError::Conflict { .. }) => {}
                    Err(other) => panic!("only conflicts are expected, not {other}"),
                }
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.expect("the task did not panic");
    }
    assert_eq!(
        value(&store, "counter").await,
        Some((TASKS * EACH).to_string())
    );
}

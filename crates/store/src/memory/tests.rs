use super::*;
use crate::clock::ManualClock;
use futures::StreamExt;

#[tokio::test]
async fn conforms() {
    crate::conformance::all(|| Box::pin(async { Memory::new() as Arc<dyn Store> })).await;
}

#[tokio::test]
async fn a_crash_after_a_commit_keeps_it_and_ends_everything() {
    let faults = Faults::new().at(2, Fault::CrashAfter);
    let store = Memory::with_faults(faults.clone());
    let mut watch = store.watch(&Prefix::new(""), Revision::ZERO);
    store
        .commit(Txn::new().put(Key::new("a"), "1"))
        .await
        .unwrap();
    let died = store.commit(Txn::new().put(Key::new("b"), "2")).await;
    assert!(matches!(died, Err(StoreError::Unavailable(_))), "{died:?}");
    faults.crashed().await;
    assert!(store.get(&Key::new("a")).await.is_err());
    assert!(watch.next().await.unwrap().is_ok());
    assert!(
        watch.next().await.unwrap().is_ok(),
        "the commit was done, so whoever watched may have seen it"
    );
    assert!(matches!(
        watch.next().await,
        Some(Err(StoreError::Unavailable(_)))
    ));

    let again = store.restart(Faults::new());
    assert_eq!(
        &again.get(&Key::new("b")).await.unwrap().unwrap().value[..],
        b"2"
    );
    assert_eq!(again.commit(Txn::new()).await.unwrap(), Revision(2));
    let old = again.watch(&Prefix::new(""), Revision(1)).next().await;
    assert!(matches!(old, Some(Err(StoreError::Compacted { .. }))));
}

#[tokio::test]
async fn the_other_faults() {
    let faults = Faults::new()
        .at(1, Fault::Fail)
        .at(2, Fault::FailAfter)
        .at(4, Fault::CrashBefore);
    let store = Memory::with_faults(faults);
    let put = |k: &'static str| store.commit(Txn::new().put(Key::new(k), "v"));
    assert!(put("failed").await.is_err());
    assert!(put("unknown").await.is_err());
    assert_eq!(put("fine").await.unwrap(), Revision(2));
    assert!(put("lost").await.is_err());
    assert!(put("after").await.is_err());
    let keys = store
        .restart(Faults::new())
        .list(&Prefix::new(""), Page::ALL)
        .await
        .unwrap();
    assert_eq!(
        keys.entries
            .iter()
            .map(|e| e.key.as_str())
            .collect::<Vec<_>>(),
        ["fine", "unknown"]
    );
}

#[tokio::test]
async fn leases_follow_the_boot_clock_and_start_anew_after_a_restart() {
    let clock = Arc::new(ManualClock::new(
        Duration::from_secs(1000),
        Duration::from_secs(5_000_000),
    ));
    let store = Memory::with(clock.clone(), Keep::default(), Faults::new());
    let lease = store.lease(Duration::from_secs(10)).await.unwrap();
    store
        .commit(Txn::new().put_leased(Key::new("a"), "1", lease))
        .await
        .unwrap();
    clock.advance(Duration::from_secs(9));
    clock.set_wall(Duration::ZERO);
    let store = store.restart(Faults::new());
    clock.advance(Duration::from_secs(9));
    assert!(store.get(&Key::new("a")).await.unwrap().is_some());
    clock.advance(Duration::from_secs(1));
    assert!(store.get(&Key::new("a")).await.unwrap().is_none());
}

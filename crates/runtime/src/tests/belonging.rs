//! What belongs to an object goes with it: generic, in two phases, all or nothing.

use super::demo::*;
use crate::*;
use model::ObjectRef;
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Memory, memory::Faults};

/// Makes a lamp that belongs to another.
async fn part_of(cx: &Cx, owner: &str, name: &str, spec: Value) {
    let uid = cx.get::<Lamp>(Some("default"), owner).unwrap().metadata.uid;
    let body = json!({
        "metadata": { "name": name, "owner": { "kind": "lamp", "name": owner, "uid": uid } },
        "spec": spec,
    });
    let op = Op::Create {
        kind: "lamp".into(),
        project: Some("default".into()),
        body,
    };
    cx.submit(op, "test").await.unwrap();
}

fn delete(name: &str, keep: &[&str]) -> Op {
    Op::Delete {
        target: lamp(name),
        keep: keep.iter().map(|k| (*k).to_owned()).collect(),
    }
}

fn names(cx: &Cx) -> Vec<String> {
    let lamps = cx.list::<Lamp>(None);
    lamps.iter().map(|l| l.metadata.name.to_string()).collect()
}

async fn gone(cx: &Cx, name: &str) {
    until(cx, &lamp(name), |o| o.is_none()).await;
}

#[tokio::test]
async fn what_belongs_to_an_object_goes_first_and_then_the_object() {
    let cx = start().await;
    create(&cx, "a", json!({})).await.unwrap();
    part_of(&cx, "a", "a-part", json!({})).await;
    part_of(&cx, "a-part", "a-part-part", json!({})).await;
    create(&cx, "other", json!({})).await.unwrap();
    ask(&cx, delete("a", &[])).await.unwrap();
    gone(&cx, "a").await;
    assert_eq!(names(&cx), ["other"]);
    let events: Vec<String> = cx
        .events()
        .read(0, 100)
        .await
        .into_iter()
        .filter(|e| e.event == "lamp.deleted")
        .map(|e| e.about.name)
        .collect();
    assert_eq!(events, ["a-part-part", "a-part", "a"]);
}

#[tokio::test]
async fn what_is_kept_is_cut_loose() {
    let cx = start().await;
    create(&cx, "a", json!({})).await.unwrap();
    part_of(&cx, "a", "part", json!({})).await;
    ask(&cx, delete("a", &["lamp"])).await.unwrap();
    gone(&cx, "a").await;
    assert_eq!(names(&cx), ["part"]);
    assert_eq!(
        cx.get::<Lamp>(Some("default"), "part")
            .unwrap()
            .metadata
            .owner,
        None
    );
}

#[tokio::test]
async fn nothing_goes_when_a_part_may_not() {
    let cx = start().await;
    create(&cx, "a", json!({})).await.unwrap();
    part_of(&cx, "a", "part", json!({})).await;
    create(&cx, "user", json!({ "follows": "part" }))
        .await
        .unwrap();
    let error = ask(&cx, delete("a", &[])).await.unwrap_err().to_string();
    assert!(
        error.contains("lamp default/part belongs to it and is used by lamp default/user"),
        "{error}"
    );
    ask(&cx, delete("user", &[])).await.unwrap();
    gone(&cx, "user").await;
    let op = |protection: bool| Op::Patch {
        target: lamp("part"),
        body: json!({ "metadata": { "protection": protection } }),
    };
    ask(&cx, op(true)).await.unwrap();
    let error = ask(&cx, delete("a", &[])).await.unwrap_err().to_string();
    assert!(error.contains("belongs to it and is protected"), "{error}");
    ask(&cx, op(false)).await.unwrap();
    ask(&cx, delete("a", &[])).await.unwrap();
    gone(&cx, "a").await;
    assert!(names(&cx).is_empty());
}

#[tokio::test]
async fn what_lost_its_owner_goes_and_what_a_namesake_owns_stays() {
    let store = Memory::new();
    let cx = start_over(store.clone(), Arc::default()).await;
    create(&cx, "a", json!({})).await.unwrap();
    part_of(&cx, "a", "orphan", json!({})).await;
    let key = |name: &str| cx.key::<Lamp>(Some("default"), name);
    cx.life().stop(std::time::Duration::from_secs(5)).await;
    // As an older version left it: the owner is gone, and another has taken its name.
    let a = cx.get::<Lamp>(Some("default"), "a").unwrap().metadata.uid;
    let store: Arc<dyn store::Store> = store.restart(Faults::new());
    let txn = store::Txn::new().delete(key("a"));
    store.commit(txn).await.unwrap();
    let cx = start_over(store, Arc::default()).await;
    create(&cx, "a", json!({ "socket": 9 })).await.unwrap();
    part_of(&cx, "a", "child", json!({})).await;
    gone(&cx, "orphan").await;
    assert_eq!(names(&cx), ["a", "child"]);
    assert_ne!(
        cx.get::<Lamp>(Some("default"), "a").unwrap().metadata.uid,
        a
    );
}

#[tokio::test]
async fn a_crash_at_any_commit_of_a_deletion_leaves_nothing_behind() {
    for fault in [
        store::memory::Fault::CrashBefore,
        store::memory::Fault::CrashAfter,
    ] {
        for nth in 1.. {
            let faults = Faults::new();
            let store = Memory::with_faults(faults.clone());
            let cx = start_over(store.clone(), Arc::default()).await;
            create(&cx, "a", json!({})).await.unwrap();
            part_of(&cx, "a", "part", json!({})).await;
            let settled =
                |o: Option<&Value>| o.is_some_and(|o| o["status"]["observed_generation"] == 1);
            until(&cx, &lamp("a"), settled).await;
            until(&cx, &lamp("part"), settled).await;
            faults.order(faults.commits() + nth, fault);
            let asked = ask(&cx, delete("a", &[])).await;
            let target: ObjectRef = lamp("a");
            let survived = tokio::select! {
                () = faults.crashed() => false,
                _ = until(&cx, &target, |o| o.is_none()), if asked.is_ok() => true,
            };
            cx.life().stop(std::time::Duration::from_secs(5)).await;
            if survived {
                assert!(nth > 3, "a deletion has several commits: {nth}");
                break;
            }
            let cx = start_over(store.restart(Faults::new()), Arc::default()).await;
            if ask(&cx, delete("a", &[])).await.is_ok() {
                gone(&cx, "a").await;
            }
            gone(&cx, "part").await;
            assert!(
                names(&cx).is_empty(),
                "{fault:?} at {nth}: {:?}",
                names(&cx)
            );
            assert!(cx.cache().unique_in("socket").is_empty());
            cx.life().stop(std::time::Duration::from_secs(5)).await;
        }
    }
}

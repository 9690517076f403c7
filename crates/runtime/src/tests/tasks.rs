//! Deadlines, later changes, the queue, retry and force.

use super::demo::*;
use crate::*;
use model::{ObjectRef, What};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Memory;

fn state(task: &Value) -> (&str, &str) {
    let word = |field: &str| task["status"][field].as_str().unwrap_or_default();
    (word("state"), word("reason"))
}

async fn world() -> (Cx, Arc<Bench>) {
    let bench = Arc::new(Bench::default());
    let cx = start_over(Memory::new(), bench.clone()).await;
    create(&cx, "a", json!({})).await.unwrap();
    (cx, bench)
}

fn on_task(task: &ObjectRef, verb: &str) -> Op {
    Op::Act {
        target: task.clone(),
        verb: verb.into(),
        params: Value::Null,
    }
}

fn task_of(answer: Answer) -> ObjectRef {
    let Answer::Accepted { task } = answer else {
        panic!("{answer:?}")
    };
    let task: Value = serde_json::from_slice(&task).unwrap();
    ObjectRef {
        kind: "task".into(),
        project: Some("default".into()),
        name: task["metadata"]["name"].as_str().unwrap().into(),
    }
}

#[tokio::test]
async fn an_intent_that_does_not_come_true_in_time_has_failed() {
    let (cx, _) = world().await;
    let task = act(&cx, "a", "flash").await.unwrap();
    let end = ended(&cx, &task).await;
    assert_eq!(state(&end), ("failed", "DEADLINE"), "{end}");
    let events = cx.events().read(0, 100).await;
    assert!(events.iter().any(|e| e.event == "lamp.flash-failed"));
}

#[tokio::test]
async fn a_wall_clock_that_jumps_cuts_no_task_short() {
    let clock = Arc::new(ManualClock::at(1_800_000_000_000));
    let cx = CxBuilder::new(registry(), Memory::new())
        .part(Arc::new(Bench::default()))
        .clock(clock.clone())
        .build()
        .await
        .unwrap();
    Engine::start(&cx);
    create(&cx, "a", json!({})).await.unwrap();
    let glow = act_with(&cx, lamp("a"), "glow", json!({ "to": 42 }));
    let task = glow.await.unwrap();
    let shine = async |on: bool| {
        let body = json!({ "spec": { "on": on } });
        let target = lamp("a");
        ask(&cx, Op::Patch { target, body }).await.unwrap();
        let so = move |o: Option<&Value>| o.is_some_and(|o| o["status"]["shines"] == on);
        until(&cx, &lamp("a"), so).await;
    };
    let key = object_key("task", Some("default"), &task.name);
    // Each change of the lamp has the task looked at.
    for (on, jump) in [(true, 3_600_000), (false, -7_200_000)] {
        clock.jump(jump);
        shine(on).await;
        let waits = cx.cache().row("task", &key).unwrap().value().unwrap();
        assert_eq!(state(&waits).0, "running", "{waits}");
    }
    clock.pass(299_000);
    shine(true).await;
    let waits = cx.cache().row("task", &key).unwrap().value().unwrap();
    assert_eq!(state(&waits).0, "running", "{waits}");
    clock.pass(2_000);
    shine(false).await;
    let end = ended(&cx, &task).await;
    assert_eq!(state(&end), ("failed", "DEADLINE"), "{end}");
}

#[tokio::test]
async fn a_procedure_that_is_late_is_undone_and_lets_go() {
    let (cx, bench) = world().await;
    let task = act(&cx, "a", "stall").await.unwrap();
    let end = ended(&cx, &task).await;
    assert_eq!(state(&end), ("rolled_back", "DEADLINE"), "{end}");
    assert!(bench.apart.lock().is_empty());
    let a = cx.get::<Lamp>(Some("default"), "a").unwrap();
    assert!(a.metadata.claims.is_empty());
}

#[tokio::test]
async fn a_later_change_of_the_same_field_supersedes_an_intent() {
    let (cx, _) = world().await;
    let task = act_with(&cx, lamp("a"), "glow", json!({ "to": 42 }))
        .await
        .unwrap();
    let patch = |field: &str, value: Value| Op::Patch {
        target: lamp("a"),
        body: json!({ "spec": { field: value } }),
    };
    ask(&cx, patch("on", json!(true))).await.unwrap();
    until(&cx, &lamp("a"), |o| {
        o.is_some_and(|o| o["status"]["shines"] == true)
    })
    .await;
    let key = object_key("task", Some("default"), &task.name);
    let waits = cx.cache().row("task", &key).unwrap().value().unwrap();
    assert_eq!(
        state(&waits).0,
        "running",
        "another field is another matter"
    );
    ask(&cx, patch("brightness", json!(43))).await.unwrap();
    let end = ended(&cx, &task).await;
    assert_eq!(state(&end), ("superseded", "SUPERSEDED"), "{end}");
    let error = ask(&cx, on_task(&task, "cancel")).await.unwrap_err();
    assert_eq!(error.what, What::Refused, "{error}");
}

#[tokio::test]
async fn a_thousand_open_tasks_of_a_project_are_enough() {
    let (cx, _) = world().await;
    let first = act_with(&cx, lamp("a"), "glow", json!({ "to": 42 }))
        .await
        .unwrap();
    let key = object_key("task", Some("default"), &first.name);
    let task = cx.cache().row("task", &key).unwrap().value().unwrap();
    for hundred in 0..10 {
        let mut txn = store::Txn::new();
        for n in 0..100 {
            let name = format!("glow-a-{hundred}-{n}");
            let mut task = task.clone();
            task["metadata"]["name"] = json!(name);
            let key = object_key("task", Some("default"), &name);
            txn = txn.create(key, cx::to_bytes(&task).unwrap());
        }
        let revision = cx.store().commit(txn).await.unwrap();
        cx.cache().reach(revision).await.unwrap();
    }
    let error = act(&cx, "a", "switch-on").await.unwrap_err();
    assert_eq!(error.what, What::Quota(None));
    assert!(
        error
            .to_string()
            .contains("1001 tasks have not ended in project default, and 1000 is the most"),
        "{error}"
    );
    let body = json!({ "names": ["a"] });
    let batch = Op::Batch {
        kind: "lamp".into(),
        project: Some("default".into()),
        verb: "switch-on".into(),
        body,
    };
    assert_eq!(ask(&cx, batch).await.unwrap_err().what, What::Quota(None));
    for n in 0..2 {
        let task = ObjectRef {
            name: format!("glow-a-0-{n}"),
            ..first.clone()
        };
        ask(&cx, on_task(&task, "cancel")).await.unwrap();
        ended(&cx, &task).await;
    }
    act(&cx, "a", "switch-on").await.unwrap();
}

#[tokio::test]
async fn what_failed_is_asked_for_again() {
    let (cx, bench) = world().await;
    *bench.fails.lock() = Some("clean");
    let task = act(&cx, "a", "repair").await.unwrap();
    assert_eq!(state(&ended(&cx, &task).await).0, "rolled_back");
    *bench.fails.lock() = None;
    let again = task_of(ask(&cx, on_task(&task, "retry")).await.unwrap());
    assert_ne!(again, task);
    assert_eq!(state(&ended(&cx, &again).await).0, "succeeded");
    let error = ask(&cx, on_task(&again, "retry")).await.unwrap_err();
    assert!(error.to_string().contains("has succeeded"), "{error}");
}

#[tokio::test]
async fn of_a_batch_only_what_did_not_succeed_is_asked_for_again() {
    let (cx, _) = world().await;
    create(&cx, "b", json!({})).await.unwrap();
    let key = cx.key::<Lamp>(Some("default"), "b");
    let claim = async |claims: Value| {
        let edit = |o: &mut Value| {
            o["metadata"]["claims"] = claims.clone();
            Ok(())
        };
        cx.edit_stored(&key, edit).await.unwrap();
    };
    claim(json!([{ "task": "other", "scopes": ["power"] }])).await;
    let body = json!({ "names": ["a", "b"], "on_error": "continue" });
    let batch = Op::Batch {
        kind: "lamp".into(),
        project: Some("default".into()),
        verb: "switch-on".into(),
        body,
    };
    let task = task_of(ask(&cx, batch).await.unwrap());
    assert_eq!(state(&ended(&cx, &task).await).0, "failed");
    claim(json!([])).await;
    let again = task_of(ask(&cx, on_task(&task, "retry")).await.unwrap());
    let end = ended(&cx, &again).await;
    assert_eq!(state(&end).0, "succeeded");
    assert_eq!(end["status"]["targets"].as_array().unwrap().len(), 1);
    assert_eq!(end["status"]["targets"][0]["name"], "b");
}

#[tokio::test]
async fn force_cancels_the_task_in_the_way_first() {
    let (cx, bench) = world().await;
    bench.hold.send_replace(true);
    let first = act(&cx, "a", "repair").await.unwrap();
    let open = ask(
        &cx,
        Op::Delete {
            target: first.clone(),
            keep: Vec::new(),
        },
    )
    .await
    .unwrap_err();
    assert!(
        open.to_string().contains("has not ended: cancel it first"),
        "{open}"
    );
    let error = act(&cx, "a", "switch-on").await.unwrap_err();
    assert_eq!(error.what, What::Busy(first.name.clone()));
    assert!(error.to_string().contains("--force"), "{error}");
    let force = async |op: Op| {
        let mut request = Request::new("r2", Actor::administrator("tester"), Surface::Rest, op);
        request.force = true;
        ask_as(&cx, request).await
    };
    let op = Op::Act {
        target: lamp("a"),
        verb: "switch-on".into(),
        params: Value::Null,
    };
    let second = task_of(force(op).await.unwrap());
    assert_eq!(state(&ended(&cx, &first).await).0, "cancelled");
    assert_eq!(state(&ended(&cx, &second).await).0, "succeeded");

    let third = act(&cx, "a", "repair").await.unwrap();
    let delete = || Op::Delete {
        target: lamp("a"),
        keep: Vec::new(),
    };
    let error = ask(&cx, delete()).await.unwrap_err();
    assert_eq!(error.what, What::Busy(third.name.clone()));
    force(delete()).await.unwrap();
    until(&cx, &lamp("a"), |o| o.is_none()).await;
    assert_eq!(state(&ended(&cx, &third).await).0, "cancelled");
    ask(
        &cx,
        Op::Delete {
            target: third,
            keep: Vec::new(),
        },
    )
    .await
    .unwrap();
}

//! One verb over many objects as one task.

use super::demo::*;
use crate::task::{Task, TaskState};
use crate::*;
use model::What;
use serde_json::{Value, json};
use std::sync::Arc;
use store::Memory;

async fn world(names: &[&str]) -> (Cx, Arc<Bench>) {
    let bench = Arc::new(Bench::default());
    let cx = start_over(Memory::new(), bench.clone()).await;
    for name in names {
        labelled(&cx, name, "web").await.unwrap();
    }
    (cx, bench)
}

async fn labelled(cx: &Cx, name: &str, tier: &str) -> model::Result<Answer> {
    let body = json!({ "metadata": { "name": name, "labels": { "tier": tier } }, "spec": {} });
    let op = Op::Create {
        kind: "lamp".into(),
        project: Some("default".into()),
        body,
    };
    ask(cx, op).await
}

fn over(verb: &str, body: Value) -> Op {
    Op::Batch {
        kind: "lamp".into(),
        project: Some("default".into()),
        verb: verb.into(),
        body,
    }
}

fn accepted(answer: Answer) -> (ObjectRefOfTask, Value) {
    match answer {
        Answer::Accepted { task } => {
            let task: Value = serde_json::from_slice(&task).unwrap();
            let target = model::ObjectRef {
                kind: "task".into(),
                project: Some("default".into()),
                name: task["metadata"]["name"].as_str().unwrap().into(),
            };
            (target, task)
        }
        other => panic!("{other:?}"),
    }
}

type ObjectRefOfTask = model::ObjectRef;

async fn batch(cx: &Cx, verb: &str, body: Value) -> ObjectRefOfTask {
    accepted(ask(cx, over(verb, body)).await.unwrap()).0
}

/// `a succeeded, b failed BUSY`.
fn told(task: &Value) -> String {
    let rows = task["status"]["targets"].as_array().unwrap();
    let line = |row: &Value| {
        let word = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
        format!("{} {} {}", word("name"), word("state"), word("reason"))
            .trim()
            .to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join(", ")
}

async fn claim(cx: &Cx, name: &str) {
    cx.edit_stored(&cx.key::<Lamp>(Some("default"), name), |o| {
        o["metadata"]["claims"] = json!([{ "task": "other-task", "scopes": ["power"] }]);
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_selector_becomes_one_task_with_a_child_for_each_object() {
    let (cx, _) = world(&["a", "b", "c"]).await;
    labelled(&cx, "d", "db").await.unwrap();
    let task = batch(&cx, "switch-on", json!({ "selector": "tier=web" })).await;
    let end = ended(&cx, &task).await;
    assert_eq!(end["status"]["state"], "succeeded", "{end}");
    assert_eq!(told(&end), "a succeeded, b succeeded, c succeeded");
    assert_eq!(end["status"]["progress"], 100);
    let shines = |name: &str| cx.get::<Lamp>(Some("default"), name).unwrap().spec.on;
    assert!(shines("a") && shines("b") && shines("c") && !shines("d"));
    let children: Vec<_> = cx.list::<Task>(Some("default"));
    let mut of: Vec<&str> = children
        .iter()
        .filter(|t| t.spec.parent.as_deref() == Some(&*task.name))
        .map(|t| &*t.spec.target.name)
        .collect();
    of.sort_unstable();
    assert_eq!(of, ["a", "b", "c"]);
    let events: Vec<_> = cx.events().read(0, 100).await;
    let lit = events.iter().filter(|e| e.event == "lamp.switched-on");
    assert_eq!(lit.count(), 3, "each object has its event");
    let end = events.iter().find(|e| e.event == "task.succeeded").unwrap();
    assert_eq!(end.request_id.as_deref(), Some("r1"));
}

#[tokio::test]
async fn a_failure_stops_what_has_not_begun_or_does_not() {
    let (cx, _) = world(&["a", "b", "c"]).await;
    claim(&cx, "b").await;
    let body = json!({ "names": ["a", "b", "c"], "parallel": 1 });
    let end = ended(&cx, &batch(&cx, "switch-on", body).await).await;
    assert_eq!(told(&end), "a succeeded, b failed BUSY, c skipped");
    assert_eq!(end["status"]["state"], "failed");
    assert_eq!(end["status"]["message"], "1 of 3 done, 1 failed, 1 skipped");
    let body = json!({ "names": ["a", "b", "c"], "parallel": 1, "on_error": "continue" });
    let end = ended(&cx, &batch(&cx, "switch-on", body).await).await;
    assert_eq!(told(&end), "a succeeded, b failed BUSY, c succeeded");
    assert_eq!(end["status"]["state"], "failed");
}

#[tokio::test]
async fn a_dry_run_lists_what_would_become_of_each_and_changes_nothing() {
    let (cx, _) = world(&["a", "b"]).await;
    claim(&cx, "b").await;
    let mut request = Request::new(
        "r1",
        Actor::administrator("tester"),
        Surface::Rest,
        over("repair", json!({ "selector": "tier" })),
    );
    request.dry_run = true;
    let before = cx.revision();
    let (_, task) = accepted(ask_as(&cx, request).await.unwrap());
    assert_eq!(told(&task), "a would_run, b refused BUSY");
    assert_eq!(cx.revision(), before);
    assert!(cx.list::<Task>(None).is_empty());
}

#[tokio::test]
async fn what_a_batch_cannot_be_asked_names_field_and_remedy() {
    let (cx, _) = world(&["a"]).await;
    for (verb, body, text) in [
        ("switch-on", json!({}), "selector: is required, or names"),
        (
            "switch-on",
            json!({ "selector": " " }),
            "selector: is required",
        ),
        (
            "switch-on",
            json!({ "selector": "tier=web", "names": ["a"] }),
            "names: cannot stand beside a selector",
        ),
        (
            "switch-on",
            json!({ "selector": "tier=db" }),
            "no lamp matches `tier=db` in project default",
        ),
        (
            "switch-on",
            json!({ "names": ["aa"] }),
            "there is no lamp default/aa: did you mean `a`?",
        ),
        (
            "switch-on",
            json!({ "names": ["a"], "parallel": 0 }),
            "parallel: 0 is not in 1 to 100",
        ),
        (
            "switch-on",
            json!({ "names": ["a"], "paralel": 4 }),
            "unknown field `paralel`",
        ),
        (
            "switch-on",
            json!({ "names": ["a"], "on_error": "roll_back" }),
            "on_error: `roll_back` is not possible here",
        ),
        (
            "switch-on",
            json!({ "names": ["a"], "params": { "x": 1 } }),
            "x: is not a field here",
        ),
        (
            "delete",
            json!({ "names": ["a"], "params": { "x": 1 } }),
            "params: mean nothing to `delete`",
        ),
        (
            "swich-on",
            json!({ "names": ["a"] }),
            "lamp has no action `swich-on`: did you mean `switch-on`?",
        ),
    ] {
        let error = ask(&cx, over(verb, body.clone())).await.unwrap_err();
        assert!(error.to_string().contains(text), "{body}: {error}");
    }
    let stranger = Request::new(
        "r1",
        Actor::anonymous(),
        Surface::Rest,
        over("switch-on", json!({ "names": ["a"] })),
    );
    let error = cx.gate().admit(stranger).unwrap_err();
    assert_eq!(error.what, What::Unauthenticated);
    assert!(cx.list::<Task>(None).is_empty());
}

#[tokio::test]
async fn a_cancel_asks_what_runs_and_begins_nothing_more() {
    let (cx, bench) = world(&["a", "b", "c"]).await;
    bench.hold.send_replace(true);
    let task = batch(&cx, "repair", json!({ "selector": "tier", "parallel": 2 })).await;
    until(&cx, &task, |t| {
        t.is_some_and(|t| told(t) == "a running, b running, c pending")
    })
    .await;
    let cancel = Op::Act {
        target: task.clone(),
        verb: "cancel".into(),
        params: Value::Null,
    };
    ask(&cx, cancel).await.unwrap();
    let end = ended(&cx, &task).await;
    assert_eq!(end["status"]["state"], "cancelled", "{end}");
    assert_eq!(
        told(&end),
        "a cancelled CANCELLED, b cancelled CANCELLED, c skipped"
    );
    for name in ["a", "b"] {
        until(&cx, &lamp(name), |o| {
            o.is_some_and(|o| o["metadata"]["claims"].as_array().is_none_or(Vec::is_empty))
        })
        .await;
    }
}

#[tokio::test]
async fn many_are_deleted_by_one_task() {
    let (cx, _) = world(&["a", "b", "c"]).await;
    create(&cx, "d", json!({ "follows": "c" })).await.unwrap();
    let body = json!({ "selector": "tier=web", "on_error": "continue" });
    let end = ended(&cx, &batch(&cx, "delete", body).await).await;
    assert_eq!(told(&end), "a succeeded, b succeeded, c failed REFUSED");
    let left: Vec<_> = cx.list::<Lamp>(None);
    let left: Vec<&str> = left.iter().map(|l| l.metadata.name.as_str()).collect();
    assert_eq!(left, ["c", "d"]);
}

#[tokio::test]
async fn the_same_key_makes_one_batch() {
    let (cx, _) = world(&["a"]).await;
    let request = || {
        let op = over("switch-on", json!({ "names": ["a"] }));
        let mut r = Request::new("r1", Actor::administrator("t"), Surface::Rest, op);
        r.idempotency = Some("k".into());
        r
    };
    let first = accepted(ask_as(&cx, request()).await.unwrap()).0;
    let second = accepted(ask_as(&cx, request()).await.unwrap()).0;
    assert_eq!(first, second);
}

#[tokio::test(flavor = "multi_thread")]
async fn survives_a_crash_at_every_commit() {
    let bench: parking_lot::Mutex<Arc<Bench>> = parking_lot::Mutex::default();
    let scene = law::Scene {
        start: &|store| Box::pin(start_over(store, bench.lock().clone())),
        fresh: &|fails| {
            let new = Arc::new(Bench::default());
            *new.fails.lock() = fails;
            *bench.lock() = new;
        },
        setup: &|cx| {
            Box::pin(async move {
                for name in ["a", "b"] {
                    labelled(&cx, name, "web").await?;
                    until(&cx, &lamp(name), |o| {
                        o.is_some_and(|o| o["status"]["observed_generation"] == 1)
                    })
                    .await;
                }
                Ok(())
            })
        },
        target: lamp("a"),
        verb: "repair",
        params: json!({ "selector": "tier=web", "parallel": 2 }),
        batch: true,
        failing: &[],
        holds: &|cx, state| {
            if !bench.lock().apart.lock().is_empty() {
                return Err("a lamp is still apart".into());
            }
            let tasks = cx.list::<Task>(None);
            let open = tasks
                .iter()
                .find(|t| !t.status.as_ref().is_some_and(|s| s.state.ended()));
            if let Some(open) = open {
                return Err(format!("{} has not ended", open.metadata.name));
            }
            let children = tasks.iter().filter(|t| t.spec.parent.is_some());
            let mut of: Vec<&str> = children.map(|t| &*t.spec.target.name).collect();
            of.sort_unstable();
            let made = of.len();
            of.dedup();
            if of.len() < made {
                return Err(format!("an object was worked on twice: {of:?} of {made}"));
            }
            match (state, of.len()) {
                (TaskState::Succeeded, n) if n < 2 => Err(format!("succeeded after {n} of 2")),
                _ => Ok(()),
            }
        },
    };
    let survived = law::procedure_survives(&scene).await.unwrap();
    assert!(survived > 60, "{survived}");
}

use super::demo::*;
use crate::*;
use serde_json::json;
use std::sync::Arc;
use store::Memory;

async fn world(fails: Option<&'static str>) -> (Cx, Arc<Bench>) {
    let bench = Arc::new(Bench::default());
    *bench.fails.lock() = fails;
    let cx = start_over(Memory::new(), bench.clone()).await;
    create(&cx, "a", json!({})).await.unwrap();
    (cx, bench)
}

#[tokio::test]
async fn runs_through() {
    let (cx, bench) = world(None).await;
    let task = act(&cx, "a", "repair").await.unwrap();
    let end = ended(&cx, &task).await;
    assert_eq!(
        (&end["status"]["state"], &end["status"]["result"]),
        (&json!("succeeded"), &json!({"clean": true}))
    );
    assert!(bench.apart.lock().is_empty());
    let a = until(&cx, &lamp("a"), |o| {
        o.is_some_and(|o| o["metadata"]["claims"].as_array().is_none_or(Vec::is_empty))
    })
    .await;
    assert!(a.is_some(), "the claim is gone with the task");
}

#[tokio::test]
async fn a_failure_undoes_what_was_done() {
    let (cx, bench) = world(Some("clean")).await;
    let task = act(&cx, "a", "repair").await.unwrap();
    let end = ended(&cx, &task).await;
    assert_eq!(end["status"]["state"], "rolled_back");
    assert_eq!(end["status"]["message"], "clean failed");
    assert!(bench.apart.lock().is_empty());
}

#[tokio::test]
async fn a_claim_refuses_actions_on_the_same_scope_and_names_the_task() {
    let (cx, _bench) = world(None).await;
    let key = cx.key::<Lamp>(Some("default"), "a");
    cx.edit_stored(&key, |o| {
        o["metadata"]["claims"] = json!([{"task": "other-task", "scopes": ["power"]}]);
        Ok(())
    })
    .await
    .unwrap();
    let error = act(&cx, "a", "switch-on").await.unwrap_err();
    assert_eq!(error.what, model::What::Busy("other-task".into()));
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
                create(&cx, "a", json!({})).await?;
                until(&cx, &lamp("a"), |o| {
                    o.is_some_and(|o| o["status"]["observed_generation"] == 1)
                })
                .await;
                Ok(())
            })
        },
        target: lamp("a"),
        verb: "repair",
        params: json!({}),
        batch: false,
        failing: &["look", "clean"],
        holds: &|_, state| match bench.lock().apart.lock().is_empty() {
            true => Ok(()),
            false => Err(format!("the lamp is still apart after {}", state.word())),
        },
    };
    let survived = law::procedure_survives(&scene).await.unwrap();
    assert!(survived > 40, "{survived}");
}

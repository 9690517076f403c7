//! Many objects in one task, in the right of who asked, from where he asked.

use super::tests::{person, world};
use model::ObjectRef;
use runtime::{Answer, Engine, Op};
use serde_json::{Value, json};
use std::time::Duration;
use store::{Page, Prefix};

#[tokio::test]
async fn parts_of_a_batch_come_from_where_it_was_asked_for() {
    let world = world().await;
    Engine::start(&world.cx);
    let role = json!({ "allow": ["thing.*", "task.read"] });
    world
        .root("role", None, "things", json!({}), role)
        .await
        .unwrap();
    let spec = json!({
        "user": "ann", "role": "things", "scope": "project/shop",
        "conditions": [{ "type": "network", "networks": ["192.0.2.0/24"] }],
    });
    world.grant("ann-from-home", spec).await;
    for name in ["a", "b"] {
        world.thing("shop", name, json!({})).await;
    }
    let op = || Op::Batch {
        kind: "thing".into(),
        project: Some("shop".into()),
        verb: "delete".into(),
        body: json!({ "names": ["a", "b"] }),
    };
    assert!(
        world
            .ask(person("ann"), Some("198.51.100.1"), op())
            .await
            .is_err()
    );
    let answer = world.ask(person("ann"), Some("192.0.2.7"), op()).await;
    let Answer::Accepted { task } = answer.unwrap() else {
        panic!("a task was asked for")
    };
    let task: Value = serde_json::from_slice(&task).unwrap();
    let target = ObjectRef {
        kind: "task".into(),
        project: Some("shop".into()),
        name: task["metadata"]["name"].as_str().unwrap().into(),
    };
    let key = runtime::object_key("task", Some("shop"), &target.name);
    let mut changes = world.cx.cache().subscribe();
    let ended = async {
        loop {
            let row = world.cx.cache().row("task", &key).unwrap();
            let task = row.value().unwrap();
            if !["pending", "running"].contains(&task["status"]["state"].as_str().unwrap()) {
                return task;
            }
            changes.recv().await.unwrap();
        }
    };
    let task = tokio::time::timeout(Duration::from_secs(20), ended)
        .await
        .unwrap();
    assert_eq!(task["status"]["state"], "succeeded", "{task}");
    assert!(world.cx.cache().rows("thing", Some("shop")).is_empty());
    // Where he was stands in the task for nobody to read.
    let all = world.cx.store_handle();
    let all = all.list(&Prefix::new(""), Page::ALL).await.unwrap();
    for entry in all.entries {
        let text = String::from_utf8_lossy(&entry.value).into_owned();
        let is_task = entry.key.as_str().starts_with("o/task/");
        assert!(!is_task || !text.contains("192.0.2.7"), "{text}");
    }
}

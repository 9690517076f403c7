use super::controller::check;
use super::*;
use crate::access::tests::{World, world};
use model::ObjectRef;
use runtime::{Engine, Op};
use serde_json::{Value, json};
use std::time::Duration;

/// The quota of a project, once it is as awaited.
async fn quota(world: &World, name: &str, is: impl Fn(&Value) -> bool) -> Value {
    let key = runtime::object_key(KIND.name, None, name);
    let mut changes = world.cx.cache().subscribe();
    let wait = async {
        loop {
            let row = world.cx.cache().row(KIND.name, &key);
            let value = row.map_or(Value::Null, |row| row.value().unwrap());
            if is(&value) {
                return value;
            }
            changes.recv().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .unwrap()
}

fn target(kind: &str, name: &str) -> ObjectRef {
    ObjectRef {
        kind: kind.into(),
        project: None,
        name: name.into(),
    }
}

fn set(name: &str, spec: Value) -> Op {
    Op::Patch {
        target: target("quota", name),
        body: json!({ "spec": spec }),
    }
}

#[tokio::test]
async fn each_project_has_one_that_goes_with_it() {
    let world = world().await;
    Engine::start(&world.cx);
    world
        .root("project", None, "default", json!({}), json!({}))
        .await
        .unwrap();
    let shop = quota(&world, "shop", |quota| !quota.is_null()).await;
    assert_eq!(
        shop["spec"],
        json!({ "vms": 10, "vcpus": 20, "memory": 64_u64 << 30, "disk": 1000_u64 << 30, "networks": 5, "snapshots": 50 })
    );
    let first = quota(&world, "default", |quota| !quota.is_null()).await;
    assert_eq!(
        first["spec"],
        json!({ "vms": 100, "vcpus": 200, "memory": 512_u64 << 30, "disk": 5000_u64 << 30 })
    );
    let admin = runtime::Actor::administrator("root@unix");
    let gone = Op::Delete {
        target: target("project", "shop"),
        keep: Vec::new(),
    };
    world.ask(admin.clone(), None, gone).await.unwrap();
    quota(&world, "shop", Value::is_null).await;
    // A new project of the name has a new one.
    let anew = async {
        while world
            .root("project", None, "shop", json!({}), json!({}))
            .await
            .is_err()
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), anew)
        .await
        .unwrap();
    let again = quota(&world, "shop", |quota| !quota.is_null()).await;
    assert_ne!(again["metadata"]["uid"], shop["metadata"]["uid"]);
}

#[tokio::test]
async fn what_a_new_project_may_use_is_a_setting() {
    let world = world().await;
    Engine::start(&world.cx);
    let shop = quota(&world, "shop", |quota| !quota.is_null()).await;
    for (name, value) in [
        ("project-vms", 3),
        ("project-memory", 8),
        ("project-networks", 0),
    ] {
        let body = json!({ "metadata": { "name": name }, "spec": { "value": value } });
        let op = Op::Update {
            target: target("setting", name),
            body,
            create: true,
        };
        world.cx.submit(op, "test").await.unwrap();
    }
    // Before its quota is made the same holds.
    let limit = |word| Quotas.limit(&world.cx, "lab", word);
    assert_eq!((limit("vms"), limit("networks")), (Some(3), None));
    for name in ["lab", "default"] {
        world
            .root("project", None, name, json!({}), json!({}))
            .await
            .unwrap();
    }
    let lab = quota(&world, "lab", |quota| !quota.is_null()).await;
    assert_eq!(
        lab["spec"],
        json!({ "vms": 3, "vcpus": 20, "memory": 8_u64 << 30, "disk": 1000_u64 << 30, "snapshots": 50 })
    );
    // The first one has its own, and who is there keeps what he has.
    let first = quota(&world, "default", |quota| !quota.is_null()).await;
    assert_eq!(first["spec"]["vms"], 100);
    let same = quota(&world, "shop", |quota| !quota.is_null()).await;
    assert_eq!(same["spec"], shop["spec"]);
}

#[tokio::test]
async fn what_is_shown_wrongly_is_shown_rightly_again() {
    let world = world().await;
    Engine::start(&world.cx);
    for name in ["a", "b"] {
        world.thing("shop", name, json!({})).await;
    }
    quota(&world, "shop", |quota| {
        quota["status"]["used"]["things"] == 2
    })
    .await;
    let key = runtime::object_key(KIND.name, None, "shop");
    world
        .cx
        .set_status::<Quota>(&key, |status| {
            status.used.insert("things".into(), 99);
        })
        .await
        .unwrap();
    world.cx.wake(&key);
    quota(&world, "shop", |quota| {
        quota["status"]["used"]["things"] == 2
    })
    .await;
    // Nothing to mend: nobody is told anything.
    check(&world.cx).await;
    let events = world.cx.events().read(0, 1000).await;
    assert!(events.iter().all(|event| event.event != "quota.repaired"));
}

#[tokio::test]
async fn who_is_in_a_project_sees_its_quota_and_does_not_change_it() {
    let world = world().await;
    Engine::start(&world.cx);
    for project in ["shop", "bank"] {
        quota(&world, project, |quota| !quota.is_null()).await;
    }
    // `admin` on the project: everything in it is his.
    let spec = json!({ "user": "alice", "role": "admin", "scope": "project/shop" });
    world.grant("alice", spec).await;
    assert_eq!(world.names("alice", "quota", None).await, ["shop"]);
    let get = |name: &str| Op::Get {
        target: target("quota", name),
    };
    assert_eq!(world.told("alice", get("shop")).await, 200);
    assert_eq!(world.told("alice", get("bank")).await, 404);
    assert_eq!(
        world.told("alice", set("shop", json!({ "vms": 99 }))).await,
        403
    );
    assert_eq!(
        world.told("alice", set("bank", json!({ "vms": 99 }))).await,
        404
    );
    let more = json!({ "user": "alice", "role": "admin", "scope": "quota/shop" });
    world.grant("alice-quota", more).await;
    assert_eq!(
        world.told("alice", set("shop", json!({ "vms": 99 }))).await,
        200
    );
}

#[tokio::test]
async fn only_what_is_counted_can_be_limited() {
    let world = world().await;
    Engine::start(&world.cx);
    quota(&world, "shop", |quota| !quota.is_null()).await;
    let admin = || runtime::Actor::administrator("root@unix");
    let ask = |spec: Value| world.ask(admin(), None, set("shop", spec));
    let error = ask(json!({ "more": { "thinks": 1 } })).await.unwrap_err();
    assert_eq!(error.status(), 422);
    assert!(error.message.contains("did you mean `things`?"), "{error}");
    let error = ask(json!({ "more": { "vms": 1 } })).await.unwrap_err();
    assert!(error.message.contains("set `vms`"), "{error}");
    ask(json!({ "more": { "things": 1 } })).await.unwrap();
    world.thing("shop", "a", json!({})).await;
    let second = world.root("thing", Some("shop"), "b", json!({}), json!({}));
    let error = second.await.unwrap_err();
    assert_eq!(error.code(), "QUOTA_EXCEEDED");
    let hint = error.hint.unwrap();
    assert!(
        hint.ends_with("dvctl quota set shop --set more.things=2"),
        "{hint}"
    );
    // Another project has its own numbers.
    world.thing("bank", "b", json!({})).await;
}

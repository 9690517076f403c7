//! An api and an agent, joined by a real unix socket.

use super::demo::*;
use crate::event::Events;
use crate::link::{self, AgentLink};
use crate::task::TaskLogs;
use crate::*;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use store::Memory;
use store::remote::RemoteStore;

struct Agent {
    cx: Cx,
    dialling: tokio::task::JoinSet<()>,
}

async fn api(socket: &std::path::Path) -> Cx {
    let cx = CxBuilder::new(registry(), Memory::new())
        .place(Place::Api)
        .seal(Arc::new(TestSeal))
        .part(Arc::new(TaskLogs::in_memory()))
        .build()
        .await
        .unwrap();
    Engine::start(&cx);
    let listener = tokio::net::UnixListener::bind(socket).unwrap();
    let me = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(socket).unwrap());
    cx.life()
        .spawn("agents", link::serve(cx.clone(), listener, vec![me]));
    cx
}

async fn agent(socket: &std::path::Path, bench: Arc<Bench>) -> Agent {
    let link = AgentLink::new(socket);
    let mut dialling = tokio::task::JoinSet::new();
    let dialler = link.clone();
    dialling.spawn(async move {
        dialler
            .run(tokio_util::sync::CancellationToken::new())
            .await
    });
    let cx = CxBuilder::new(registry(), RemoteStore::new(Arc::new(link.clone())))
        .place(Place::Agent)
        .seal(Arc::new(TestSeal))
        .events(Events::new(Arc::new(link.clone())))
        .part(Arc::new(TaskLogs::new(Arc::new(link.clone()))))
        .part(Arc::new(link.clone()))
        .part(bench)
        .build()
        .await
        .unwrap();
    link.serve(&cx);
    Engine::start(&cx);
    Agent { cx, dialling }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_does_what_the_api_stores() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let api = api(&socket).await;
    let bench = Arc::new(Bench::default());
    let mut first = agent(&socket, bench.clone()).await;

    create(&api, "a", json!({})).await.unwrap();
    let task = act(&api, "a", "switch-on").await.unwrap();
    assert_eq!(ended(&api, &task).await["status"]["state"], "succeeded");
    assert_eq!(*bench.runs.lock(), Vec::<String>::new());

    let task = act(&api, "a", "repair").await.unwrap();
    assert_eq!(ended(&api, &task).await["status"]["state"], "succeeded");
    assert_eq!(bench.runs.lock().len(), 4, "the procedure ran in the agent");
    // Its lines and events crossed the link.
    let uid = api
        .get::<task::Task>(Some("default"), &task.name)
        .unwrap()
        .metadata
        .uid;
    let has_lines = async {
        while TaskLogs::of(&api).lines(uid).await.len() < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        while !api
            .events()
            .read(0, 100)
            .await
            .iter()
            .any(|e| e.event == "lamp.repaired")
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), has_lines)
        .await
        .unwrap();

    // A stream opened at the api runs in the agent.
    let (near, far) = StreamIo::pair();
    let op = Op::Stream {
        target: lamp("a"),
        stream: "talk".into(),
        params: json!({}),
    };
    let admitted = api
        .gate()
        .admit(Request::new(
            "s",
            Actor::administrator("t"),
            Surface::Rest,
            op,
        ))
        .unwrap();
    let desk = api.desk();
    let opened = tokio::join!(desk.open(admitted, far), async {
        let mut near = near;
        near.data("hello").await.unwrap();
        let echoed = near.recv().await.unwrap();
        drop(near);
        echoed
    });
    assert_eq!(opened.1, Msg::Data("hello".into()));

    // The agent dies; what is asked meanwhile is done by the next one.
    first.dialling.abort_all();
    first.cx.life().stop(Duration::from_secs(5)).await;
    drop(first);
    create(&api, "b", json!({"on": true})).await.unwrap();
    let _second = agent(&socket, bench).await;
    until(&api, &lamp("b"), |o| {
        o.is_some_and(|o| o["status"]["shines"] == true)
    })
    .await;
}

/// What the store holds under a key, as JSON.
async fn stored(cx: &Cx, key: &Key) -> serde_json::Value {
    let entry = cx.store().get(key).await.unwrap().unwrap();
    serde_json::from_slice(&entry.value).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_held_to_its_node() {
    use store::{Expect, StoreError, Txn};
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let api = api(&socket).await;
    let agent = agent(&socket, Arc::default()).await;
    let at = |node: &str| json!({ "node": node, "pin": "4711", "on": true });
    create(&api, "mine", at("node1")).await.unwrap();
    create(&api, "other", at("node2")).await.unwrap();
    setting::make(&api).await.unwrap();
    until(&api, &lamp("mine"), |o| {
        o.is_some_and(|o| o["status"]["shines"] == true)
    })
    .await;
    agent.cx.cache().reach(api.revision()).await.unwrap();

    // What it sees: the other's secret is not among it, and no flags and no allocations are.
    let key = |name: &str| object_key("lamp", Some("default"), name);
    let pin = |name: &str| {
        let row = agent.cx.cache().row("lamp", &key(name)).unwrap();
        row.stored().unwrap()["spec"]["pin"].clone()
    };
    assert!(pin("mine").as_str().is_some_and(|p| p.contains("1174")));
    assert_eq!(pin("other"), json!(null));
    assert!(agent.cx.cache().rows("flag", None).is_empty());
    assert!(!agent.cx.cache().rows("setting", None).is_empty());
    assert!(agent.cx.cache().unique_in("socket").is_empty());
    assert!(!api.cache().unique_in("socket").is_empty());

    // What it may not write, told by key and node; and nothing has changed.
    let before = api.store().commit(Txn::new()).await.unwrap();
    let modified = |kind: &str, key: &Key| api.cache().row(kind, key).unwrap().modified;
    let mut foreign = stored(&api, &key("other")).await;
    foreign["status"] = json!({ "shines": true, "observed_generation": 1, "conditions": [] });
    let mut own = stored(&api, &key("mine")).await;
    own["spec"]["on"] = json!(false);
    let flag = object_key("flag", None, "log-requests");
    let setting = object_key("setting", None, "log-level");
    let text = |value: &serde_json::Value| value.to_string();
    let tries = [
        (
            "foreign status",
            Txn::new().replace(
                key("other"),
                modified("lamp", &key("other")),
                text(&foreign),
            ),
        ),
        (
            "own spec",
            Txn::new().replace(key("mine"), modified("lamp", &key("mine")), text(&own)),
        ),
        ("without revision", Txn::new().put(key("mine"), text(&own))),
        ("new object", Txn::new().create(key("new"), text(&own))),
        (
            "not asked to delete",
            Txn::new()
                .expect(Expect::At(key("mine"), modified("lamp", &key("mine"))))
                .delete(key("mine")),
        ),
        (
            "flag",
            Txn::new().replace(flag.clone(), modified("flag", &flag), "{}"),
        ),
        (
            "setting",
            Txn::new().replace(setting.clone(), modified("setting", &setting), "{}"),
        ),
        ("allocation", Txn::new().put(unique_key("socket", "1"), "x")),
        ("presence", Txn::new().put(Key::new("n/node2"), "{}")),
        (
            "journal",
            Txn::new().put(Key::new(format!("j/{}/000000", api.clock().uid())), "{}"),
        ),
        ("anything", Txn::new().put(Key::new("z/z"), "{}")),
        (
            "one of two",
            Txn::new()
                .put(Key::new("n/node1"), "{}")
                .put(Key::new("n/node2"), "{}"),
        ),
    ];
    for (what, txn) in tries {
        let about = txn.writes.last().unwrap().key().to_string();
        match agent.cx.store().commit(txn).await {
            Err(StoreError::Denied(text)) => {
                assert!(
                    text.contains(&about) && text.contains("node1"),
                    "{what}: {text}"
                );
            }
            other => panic!("{what}: {other:?}"),
        }
    }
    let peeks = [flag, Key::new("i/x"), unique_key("socket", "1")];
    for key in peeks {
        let got = agent.cx.store().get(&key).await;
        assert!(matches!(got, Err(StoreError::Denied(_))), "{key}: {got:?}");
    }
    assert_eq!(
        api.store().commit(Txn::new()).await.unwrap(),
        before,
        "nothing was changed"
    );

    // What it may not ask for.
    let body = json!({ "spec": { "on": false } });
    let asks = [
        Op::Patch {
            target: lamp("other"),
            body: body.clone(),
        },
        Op::Patch {
            target: lamp("mine"),
            body,
        },
        Op::Delete {
            target: lamp("mine"),
            keep: Vec::new(),
        },
        Op::Act {
            target: lamp("other"),
            verb: "repair".into(),
            params: json!({}),
        },
        Op::Act {
            target: lamp("mine"),
            verb: "switch-on".into(),
            params: json!({}),
        },
        Op::Create {
            kind: "lamp".into(),
            project: Some("default".into()),
            body: json!({ "metadata": { "name": "new" }, "spec": {} }),
        },
        Op::Create {
            kind: "node".into(),
            project: None,
            body: json!({ "metadata": { "name": "node2" }, "spec": {} }),
        },
        Op::Create {
            kind: "flag".into(),
            project: None,
            body: json!({ "metadata": { "name": "log-requests" }, "spec": {} }),
        },
    ];
    for op in asks {
        let said = format!("{op:?}");
        let error = agent.cx.submit(op, "test").await.unwrap_err();
        assert_eq!(error.what, model::What::Denied, "{said}: {error}");
        assert!(error.message.contains("node1"), "{error}");
    }
    assert_eq!(api.store().commit(Txn::new()).await.unwrap(), before);

    // What it may ask for: what belongs to an object of its own, and a procedure on it.
    let uid = api.cache().row("lamp", &key("mine")).unwrap().uid;
    let owner = json!({ "kind": "lamp", "name": "mine", "uid": uid });
    let child = Op::Create {
        kind: "lamp".into(),
        project: Some("default".into()),
        body: json!({ "metadata": { "name": "child", "owner": owner }, "spec": { "node": "node1" } }),
    };
    agent.cx.submit(child, "test").await.unwrap();
    let row = agent.cx.cache().row("lamp", &key("child"));
    assert!(row.is_some(), "who asked reads what came of it");
    let delete = Op::Delete {
        target: lamp("child"),
        keep: Vec::new(),
    };
    agent.cx.submit(delete, "test").await.unwrap();
    until(&api, &lamp("child"), |o| o.is_none()).await;
    let repair = Op::Act {
        target: lamp("mine"),
        verb: "repair".into(),
        params: json!({}),
    };
    agent.cx.submit(repair, "test").await.unwrap();
}

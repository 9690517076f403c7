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
        .seal(Arc::new(NoSeal))
        .events(Events::new(Arc::new(link.clone())))
        .part(Arc::new(TaskLogs::new(Arc::new(link.clone()))))
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
    tokio::time::timeout(Duration::from_secs(5), has_lines)
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

//! What somebody has who copies the state folder (store, its log and copies, streams, keys): nothing that is secret or
//! personal, and no way to it, because the root key is not in it.

use crate::kinds;
use model::ObjectRef;
use runtime::audit::{AuditTrail, FileTrail, TrailOptions};
use runtime::event::{Events, FileLog};
use runtime::task::{FileLines, Task, TaskLogs};
use runtime::{Actor, Answer, Cx, CxBuilder, Engine, Msg, Op, Place, Request, StreamIo, Surface};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use store::Sqlite;
use store::seal::{RootSource, Sealer};

/// Part of everything that must not be found.
const HUSH: &str = "hush-0815";
/// Part of what is no secret: who looks must be able to find.
const PLAIN: &str = "plain-0815";

async fn request(cx: &Cx, op: Op) -> Value {
    let request = Request::new("r", Actor::administrator("ann"), Surface::Rest, op);
    let admitted = cx.gate().admit(request).unwrap();
    match cx.desk().carry_out(admitted).await.unwrap() {
        Answer::Object { json, .. } | Answer::Accepted { task: json } => {
            serde_json::from_slice(&json).unwrap()
        }
        _ => Value::Null,
    }
}

async fn create(cx: &Cx, kind: &str, project: Option<&str>, name: &str, spec: Value) {
    let op = Op::Create {
        kind: kind.into(),
        project: project.map(str::to_owned),
        body: json!({ "metadata": { "name": name }, "spec": spec }),
    };
    request(cx, op).await;
}

fn secret() -> ObjectRef {
    ObjectRef {
        kind: "secret".into(),
        project: Some("default".into()),
        name: "db".into(),
    }
}

/// In which files a text is found.
fn found(folder: &Path, text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            if bytes.windows(text.len()).any(|w| w == text.as_bytes()) {
                out.push(path.display().to_string());
            }
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copied_state_folder_tells_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    for part in ["store", "keys", "streams"] {
        std::fs::create_dir_all(state.join(part)).unwrap();
    }
    let root = || RootSource::find(None, &folder.path().join("root.key"), &state).unwrap();
    let streams = state.join("streams");
    let sqlite = Sqlite::open(state.join("store")).unwrap();
    let events = FileLog::open(&streams.join("events")).await.unwrap();
    let sealer = Arc::new(Sealer::open(root(), state.join("keys")).unwrap());
    let (rows, secrets) = (streams.join("audit"), state.join("keys/audit"));
    let options = TrailOptions::new(&rows, &secrets, sealer.clone());
    let trail = FileTrail::open(options).await.unwrap();
    let lines = FileLines::new(&streams.join("tasks"));
    let cx = CxBuilder::new(kinds::registry().unwrap(), sqlite.clone())
        .place(Place::Api)
        .seal(sealer)
        .events(Events::new(Arc::new(events)))
        .part(Arc::new(TaskLogs::new(Arc::new(lines))))
        .part(Arc::new(AuditTrail::new(Arc::new(trail))))
        .build()
        .await
        .unwrap();
    identity::project::make_default(&cx).await.unwrap();
    Engine::start(&cx);
    let spec = json!({ "description": PLAIN, "value": format!("{HUSH}-first") });
    create(&cx, "secret", Some("default"), "db", spec).await;
    let spec =
        json!({ "full_name": format!("{HUSH} name"), "email": format!("{HUSH}@example.org") });
    create(&cx, "user", None, "ann", spec).await;
    let cloud_init = json!({ "cloud_init": { "password": format!("{HUSH}-password") } });
    create(&cx, "vm", Some("default"), "web1", cloud_init).await;
    request(
        &cx,
        Op::Patch {
            target: secret(),
            body: json!({ "spec": { "value": format!("{HUSH}-second") } }),
        },
    )
    .await;
    let (mut near, far) = StreamIo::pair();
    let reveal = Op::Stream {
        target: secret(),
        stream: "reveal".into(),
        params: json!({}),
    };
    let asked = Request::new("r", Actor::administrator("ann"), Surface::Rest, reveal);
    cx.desk()
        .open(cx.gate().admit(asked).unwrap(), far)
        .await
        .unwrap();
    let Some(Msg::Data(shown)) = near.recv().await else {
        panic!("nothing was revealed");
    };
    assert_eq!(shown, format!("{HUSH}-second\n").as_bytes());
    let rotate = Op::Act {
        target: secret(),
        verb: "rotate".into(),
        params: json!({}),
    };
    let task = request(&cx, rotate).await;
    let name = task["metadata"]["name"].as_str().unwrap().to_owned();
    let ended = || {
        let task = cx.get::<Task>(Some("default"), &name);
        task.is_some_and(|t| t.status.as_ref().is_some_and(|s| s.state.ended()))
    };
    let end = tokio::time::Instant::now() + Duration::from_secs(60);
    while !ended() {
        assert!(tokio::time::Instant::now() < end, "it never ends");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let db = cx
        .get::<identity::secret::Secret>(Some("default"), "db")
        .unwrap();
    assert_eq!(db.spec.version, 3);
    let drawn = db.spec.versions["3"].value.clone().unwrap();
    sqlite.daily_copy().await.unwrap().expect("a copy");

    assert!(
        !found(&state, PLAIN).is_empty(),
        "what is no secret is found"
    );
    let wal = found(&state, PLAIN).iter().any(|f| f.contains("-wal"));
    for text in [HUSH, &drawn] {
        assert_eq!(
            found(&state, text),
            [""; 0],
            "with the log of the store: {wal}"
        );
    }
    let root_key = std::fs::read_to_string(folder.path().join("root.key")).unwrap();
    assert_eq!(found(&state, root_key.trim()), [""; 0]);
    cx.life().stop(Duration::from_secs(5)).await;
    sqlite.close().await;
    assert_eq!(found(&state, HUSH), [""; 0], "after a clean end");

    // With all of it, but another root key, nothing opens.
    let thief = RootSource::File(folder.path().join("thief.key"));
    thief.make().unwrap();
    let why = Sealer::join(thief, state.join("keys"))
        .unwrap_err()
        .to_string();
    assert!(why.contains("wrapped with root key"), "{why}");
    Sealer::join(root(), state.join("keys")).unwrap();
}

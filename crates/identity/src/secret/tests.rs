//! Secrets through the gate, over a real key ring and audit trail, with users that take a value or do not.

use super::*;
use futures::future::BoxFuture;
use model::{Error, ObjectRef, Result};
use parking_lot::Mutex;
use runtime::audit::{AuditTrail, FileTrail, Trail, TrailOptions};
use runtime::task::{Task, TaskState};
use runtime::{
    Actor, Answer, Change, Cx, CxBuilder, Engine, ManualClock, Msg, Op, Registry, Request,
    SecretUser, SecretUsers, StreamIo, Subsystem, Surface, nothing_to_admit,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use store::seal::{RootSource, Sealer};
use store::{Page, Prefix, Store};

/// A lock outside that a secret opens.
struct Lock;

#[derive(Clone, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct LockSpec {
    /// What opens it.
    #[schemars(extend("x-ref" = "secret"))]
    secret: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
struct LockStatus {}

impl Resource for Lock {
    const KIND: &'static Kind = &LOCK;
    type Spec = LockSpec;
    type Status = LockStatus;
}

static LOCK: Kind = Kind {
    name: "lock",
    plural: "locks",
    title: "Lock",
    scope: Scope::Project,
    doc: "For tests.",
    verbs: Verb::ALL,
    spec: schema::of::<LockSpec>,
    status: schema::of::<LockStatus>,
    columns: &[],
    actions: &[],
    streams: &[],
    examples: &[],
};

static LOCKS: Subsystem = Subsystem {
    kind: &LOCK,
    place: Place::Api,
    seat: Seat::Api,
    normal: normal::<Lock>,
    admit: nothing_to_admit,
    runs: &[],
    undos: &[],
    streams: &[],
    finalizes: false,
    controllers: runtime::no_controllers,
};

/// What opens each lock now, whom it was told in which order, and which lock is broken.
#[derive(Default)]
struct Doors {
    opens: Mutex<BTreeMap<String, String>>,
    told: Mutex<Vec<String>>,
    broken: Mutex<Option<&'static str>>,
}

struct Locksmith(Arc<Doors>);

impl SecretUser for Locksmith {
    fn kind(&self) -> &'static str {
        "lock"
    }
    fn write<'a>(
        &'a self,
        _: &'a Cx,
        user: &'a ObjectRef,
        change: Change<'a>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.0.told.lock().push(user.name.clone());
            if *self.0.broken.lock() == Some("refuses") && user.name == "b" {
                return Err(Error::refused("it is stuck"));
            }
            let mut opens = self.0.opens.lock();
            let now = opens.get(&user.name).cloned().unwrap_or_default();
            assert!(
                now.is_empty() || now == change.from || now == change.to,
                "it is opened by neither"
            );
            opens.insert(user.name.clone(), change.to.to_owned());
            Ok(())
        })
    }
    fn verify<'a>(
        &'a self,
        _: &'a Cx,
        user: &'a ObjectRef,
        value: &'a str,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let stuck = *self.0.broken.lock() == Some("does not open") && user.name == "b";
            match !stuck
                && self
                    .0
                    .opens
                    .lock()
                    .get(&user.name)
                    .is_some_and(|v| v == value)
            {
                true => Ok(()),
                false => Err(Error::refused("it does not open")),
            }
        })
    }
}

struct World {
    cx: Cx,
    clock: Arc<ManualClock>,
    store: Arc<store::Memory>,
    doors: Arc<Doors>,
    trail: Arc<FileTrail>,
    folder: tempfile::TempDir,
}

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    std::fs::create_dir(&keys).unwrap();
    let sealer = Sealer::open(RootSource::File(folder.path().join("root.key")), keys).unwrap();
    let sealer = Arc::new(sealer);
    let (rows, secrets) = (
        folder.path().join("audit"),
        folder.path().join("audit-keys"),
    );
    let options = TrailOptions::new(&rows, &secrets, sealer.clone());
    let trail = FileTrail::open(options).await.unwrap();
    let trail = Arc::new(trail);
    let (clock, doors) = (
        Arc::new(ManualClock::at(1_800_000_000_000)),
        Arc::new(Doors::default()),
    );
    let store = store::Memory::new();
    let registry = Registry::new(&[runtime::SUBSYSTEMS, crate::SUBSYSTEMS, &[&LOCKS]]).unwrap();
    let cx = CxBuilder::new(registry, store.clone())
        .clock(clock.clone())
        .seal(sealer)
        .part(Arc::new(AuditTrail::new(trail.clone())))
        .part(Arc::new(SecretUsers::new(vec![Arc::new(Locksmith(
            doors.clone(),
        ))])))
        .build()
        .await
        .unwrap();
    crate::project::make_default(&cx).await.unwrap();
    Engine::start(&cx);
    World {
        cx,
        clock,
        store,
        doors,
        trail,
        folder,
    }
}

fn target(kind: &str, name: &str) -> ObjectRef {
    ObjectRef {
        kind: kind.into(),
        project: Some("default".into()),
        name: name.into(),
    }
}

impl World {
    async fn ask(&self, op: Op) -> Result<Value> {
        let request = Request::new("r", Actor::administrator("ann"), Surface::Rest, op);
        let admitted = self.cx.gate().admit(request)?;
        let answer = self.cx.desk().carry_out(admitted).await?;
        let json = match answer {
            Answer::Object { json, .. } => json,
            Answer::Accepted { task } => task,
            _ => return Ok(Value::Null),
        };
        Ok(serde_json::from_slice(&json).unwrap())
    }

    async fn create(&self, kind: &str, name: &str, spec: Value) -> Result<Value> {
        self.ask(Op::Create {
            kind: kind.into(),
            project: Some("default".into()),
            body: json!({ "metadata": { "name": name }, "spec": spec }),
        })
        .await
    }

    async fn set(&self, name: &str, spec: Value) -> Result<Value> {
        self.ask(Op::Patch {
            target: target("secret", name),
            body: json!({ "spec": spec }),
        })
        .await
    }

    /// Two locks that the secret `db` opens.
    async fn with_locks(&self) {
        for name in ["a", "b"] {
            self.create("lock", name, json!({ "secret": "db" }))
                .await
                .unwrap();
            let value = self.value().await;
            self.doors.opens.lock().insert(name.into(), value);
        }
    }

    async fn value(&self) -> String {
        let by = target("lock", "a");
        read(&self.cx, &target("secret", "db"), &by).await.unwrap()
    }

    fn secret(&self) -> Arc<runtime::Obj<Secret>> {
        self.cx.get::<Secret>(Some("default"), "db").unwrap()
    }

    async fn until(&self, what: &str, so: impl Fn(&Cx) -> bool) {
        let mut deltas = self.cx.cache().subscribe();
        let end = tokio::time::Instant::now() + Duration::from_secs(60);
        while !so(&self.cx) {
            let next = tokio::time::timeout_at(end, deltas.recv()).await;
            assert!(next.is_ok(), "never {what}: {:?}", self.secret().status);
        }
    }

    /// Asks for an action and waits for the end of its task.
    async fn act(&self, verb: &str, params: Value) -> (TaskState, Value) {
        let task = self
            .ask(Op::Act {
                target: target("secret", "db"),
                verb: verb.into(),
                params,
            })
            .await
            .unwrap();
        let name = task["metadata"]["name"].as_str().unwrap().to_owned();
        let get = |cx: &Cx| cx.get::<Task>(Some("default"), &name);
        let ended =
            |cx: &Cx| get(cx).is_some_and(|t| t.status.as_ref().is_some_and(|s| s.state.ended()));
        self.until("ended", ended).await;
        let task = get(&self.cx).unwrap();
        let status = task.status.clone().unwrap();
        (status.state, serde_json::to_value(&status).unwrap())
    }

    async fn stream(&self, stream: &str, actor: Actor, params: Value) -> Result<String> {
        let op = Op::Stream {
            target: target("secret", "db"),
            stream: stream.into(),
            params,
        };
        let (mut near, far) = StreamIo::pair();
        let admitted = self
            .cx
            .gate()
            .admit(Request::new("r9", actor, Surface::Rest, op))?;
        self.cx.desk().open(admitted, far).await?;
        let mut all = Vec::new();
        while let Some(Msg::Data(bytes)) = near.recv().await {
            all.extend_from_slice(&bytes);
        }
        Ok(String::from_utf8(all).unwrap())
    }

    /// Whatever is stored, written or answered anywhere: not this.
    async fn is_nowhere(&self, value: &str) {
        let all = self.store.list(&Prefix::new(""), Page::ALL).await.unwrap();
        for entry in all.entries {
            let text = String::from_utf8_lossy(&entry.value).into_owned();
            assert!(!text.contains(value), "{}: {text}", entry.key);
        }
        let mut folders = vec![self.folder.path().to_owned()];
        let mut files = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                    continue;
                }
                files += 1;
                // What is replaced while we look has another name by then, under which it is looked at too.
                let Ok(bytes) = std::fs::read(entry.path()) else {
                    continue;
                };
                let found = bytes.windows(value.len()).any(|w| w == value.as_bytes());
                assert!(!found, "{}", entry.path().display());
            }
        }
        assert!(files > 1, "there was something to look through");
    }
}

#[tokio::test]
async fn a_value_is_shown_to_who_asks_for_it_and_that_is_on_record() {
    let world = world().await;
    let made = world
        .create(
            "secret",
            "db",
            json!({ "type": "database", "value": "hunter2-hunter2" }),
        )
        .await
        .unwrap();
    assert!(!made.to_string().contains("hunter2"), "{made}");
    assert_eq!(made["spec"]["version"], 1);
    let boss = || Actor::administrator("ann");
    let shown = world.stream("reveal", boss(), json!({})).await.unwrap();
    assert_eq!(shown, "hunter2-hunter2\n");
    let rows = world.trail.last(1000).await;
    let row = rows.iter().find(|r| r.action == "secret.revealed").unwrap();
    assert_eq!(
        (row.actor.as_str(), row.name.as_deref()),
        ("ann", Some("db"))
    );
    world.is_nowhere("hunter2").await;
    // An older one, by its number.
    world
        .set("db", json!({ "value": "second-value" }))
        .await
        .unwrap();
    let shown = world
        .stream("reveal", boss(), json!({ "version": 1 }))
        .await;
    assert_eq!(shown.unwrap(), "hunter2-hunter2\n");
    let refused = world
        .stream("reveal", boss(), json!({ "version": 9 }))
        .await;
    assert_eq!(refused.unwrap_err().status(), 404);
    let listed = world.stream("versions", boss(), json!({})).await.unwrap();
    assert!(
        listed.starts_with("2 ") && listed.contains("valid\n1 "),
        "{listed}"
    );
    let anonymous = world.stream("reveal", Actor::anonymous(), json!({})).await;
    assert_eq!(anonymous.unwrap_err().status(), 401);
}

#[tokio::test]
async fn versions_are_ours_to_write() {
    let world = world().await;
    let forged = json!({ "version": 7, "versions": { "7": { "value": "mine" } } });
    world.create("secret", "db", forged.clone()).await.unwrap();
    let first = world.value().await;
    assert_eq!(first.len(), 32, "drawn");
    let secret = world.secret();
    assert_eq!((secret.spec.version, secret.spec.versions.len()), (1, 1));
    world.set("db", forged).await.unwrap();
    assert_eq!(world.value().await, first);
    for n in 2..=8 {
        world
            .set("db", json!({ "value": format!("value-{n}") }))
            .await
            .unwrap();
    }
    let secret = world.secret();
    let kept: Vec<_> = secret.spec.versions.keys().cloned().collect();
    assert_eq!(
        (secret.spec.version, kept.join(" ")),
        (8, "4 5 6 7 8".into())
    );
    for wrong in [
        json!({ "value": "$sealed:sealed:2:x:y" }),
        json!({ "value": "" }),
        json!({ "path": "a" }),
        json!({ "rotation": { "every_days": 5, "notice_days": 5 } }),
    ] {
        let error = world.set("db", wrong.clone()).await.unwrap_err();
        assert_eq!(error.status(), 422, "{wrong}: {error}");
    }
    let ssh = world
        .create("secret", "key", json!({ "type": "ssh_key" }))
        .await;
    assert_eq!(ssh.unwrap_err().status(), 422);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_reaches_every_user_or_none() {
    let world = world().await;
    world
        .create("secret", "db", json!({ "type": "database" }))
        .await
        .unwrap();
    world.with_locks().await;
    let first = world.value().await;
    let (state, status) = world.act("rotate", json!({})).await;
    assert_eq!(state, TaskState::Succeeded, "{status}");
    let second = world.value().await;
    assert_ne!(first, second);
    let opened = |value: &str| world.doors.opens.lock().values().all(|v| v == value);
    assert!(opened(&second));
    assert_eq!(*world.doors.told.lock(), ["a", "b"]);
    world
        .until("current", |_| {
            world
                .secret()
                .status
                .as_ref()
                .is_some_and(|s| s.version == 2 && s.state == SecretState::Current)
        })
        .await;
    assert_eq!(world.secret().status.as_ref().unwrap().used_by, 2);

    for broken in ["does not open", "refuses"] {
        *world.doors.broken.lock() = Some(broken);
        world.clock.pass(60_000);
        let begun = world.cx.clock().now();
        let (state, status) = world.act("rotate", json!({})).await;
        assert_eq!(state, TaskState::RolledBack, "{broken}: {status}");
        assert_eq!(world.value().await, second, "{broken}");
        let opens = world.doors.opens.lock().clone();
        assert!(opened(&second), "{broken}: {opens:?} are not all {second}");
        world
            .until("failed", |_| {
                world
                    .secret()
                    .status
                    .as_ref()
                    .is_some_and(|s| s.state == SecretState::Failed)
            })
            .await;
        // The next try by itself waits from this one on, not from the first.
        let conditions = world.secret().status.clone().unwrap().conditions;
        let rotated = conditions.iter().find(|c| c.kind == "Rotated").unwrap();
        assert!(rotated.since >= begun, "{broken}: {rotated:?}");
        let kept: Vec<_> = world.secret().spec.versions.keys().cloned().collect();
        assert_eq!(kept, ["1", "2"], "{broken}");
    }
    let (state, _) = world.act("check", json!({})).await;
    assert_eq!(state, TaskState::Succeeded);
    *world.doors.broken.lock() = Some("does not open");
    let (state, status) = world.act("check", json!({})).await;
    assert_eq!(state, TaskState::Failed);
    assert!(status.to_string().contains("lock/b"), "{status}");

    *world.doors.broken.lock() = None;
    let (state, status) = world.act("rollback", json!({})).await;
    assert_eq!(state, TaskState::Succeeded, "{status}");
    assert_eq!(world.value().await, first);
    assert!(opened(&first));
    for value in [first, second] {
        world.is_nowhere(&value).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_rotated_by_itself_in_its_window() {
    let world = world().await;
    let rotation = json!({ "every_days": 30, "notice_days": 7, "window_from": "02:00", "window_until": "04:00" });
    world
        .create("secret", "db", json!({ "rotation": rotation }))
        .await
        .unwrap();
    let fresh = |cx: &Cx| {
        let secret = cx.get::<Secret>(Some("default"), "db").unwrap();
        let conditions = secret.status.clone().unwrap_or_default().conditions;
        conditions
            .iter()
            .find(|c| c.kind == "Fresh")
            .map(|c| c.reason.clone())
    };
    let version = |cx: &Cx| {
        cx.get::<Secret>(Some("default"), "db")
            .unwrap()
            .spec
            .version
    };
    world
        .until("fresh", |cx| fresh(cx).as_deref() == Some("NotDue"))
        .await;
    let key = world.cx.key::<Secret>(Some("default"), "db");
    let day = 24 * 3600 * 1000;
    world.clock.pass(24 * day);
    world.cx.wake(&key);
    world
        .until("noticed", |cx| fresh(cx).as_deref() == Some("RotationDue"))
        .await;
    assert_eq!(version(&world.cx), 1);
    // 08:00 on the day after: too old, yet not in the window. Then 02:00 of the next.
    world.clock.pass(7 * day);
    world.cx.wake(&key);
    world.clock.pass(18 * 3600 * 1000);
    world.cx.wake(&key);
    world.until("rotated", |cx| version(cx) == 2).await;
}

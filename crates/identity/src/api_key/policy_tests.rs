//! All keys at once: numbers, what ends soon, what is deleted and rotated, and who sees which of it.

use super::policy::{self, ApiKeyPolicy, DEFAULT, SUBSYSTEM};
use super::{ApiKey, Reason};
use crate::access::tests::{World, patch, person, world};
use model::ObjectRef;
use runtime::task::{Task, TaskState};
use runtime::{Actor, Answer, Engine, Msg, Op, StreamIo, StreamRequest};
use serde_json::{Value, json};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);
const DAY_MS: i64 = 24 * 3_600_000;

/// Users, and a key of each of these with so many days to live.
async fn keys(keys: &[(&str, &str, u64)]) -> World {
    let world = world().await;
    policy::make(&world.cx).await.unwrap();
    let now = world.cx.clock().now();
    for (name, owner, days) in keys {
        // For the second of an owner it is there.
        let _ = world.root("user", None, owner, json!({}), json!({})).await;
        let spec =
            json!({ "owner": owner, "expires": now.plus(DAY * u32::try_from(*days).unwrap()) });
        world
            .root("api-key", None, name, json!({}), spec)
            .await
            .unwrap();
    }
    world
}

/// Shows a key its secret, as the stream would.
pub(super) async fn shown(world: &World, name: &str) {
    let key = world.cx.get::<ApiKey>(None, name).unwrap();
    let (_, stored) = super::fresh(&world.cx);
    let secrets = super::rules::with(&key.spec, stored, world.cx.clock().now());
    let body = json!({ "spec": { "secrets": secrets } });
    let op = patch("api-key", None, name, body);
    world.cx.submit(op, "test").await.unwrap();
}

pub(super) async fn until<T>(world: &World, found: impl Fn() -> Option<T>) -> T {
    let mut changes = world.cx.cache().subscribe();
    let wait = async {
        loop {
            if let Some(found) = found() {
                return found;
            }
            // What was missed is seen in the next look; some things change by the time alone.
            let tick = Duration::from_millis(50);
            let _ = tokio::time::timeout(tick, changes.recv()).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
    waited.expect("it never came")
}

/// Lets somebody act on all keys; the result of the task.
pub(super) async fn act(world: &World, actor: Actor, verb: &str) -> Value {
    let op = Op::Act {
        target: policy_ref(),
        verb: verb.into(),
        params: Value::Null,
    };
    let Answer::Accepted { task } = world.ask(actor, None, op).await.unwrap() else {
        panic!("no task");
    };
    let task: Value = serde_json::from_slice(&task).unwrap();
    let name = task["metadata"]["name"].as_str().unwrap().to_owned();
    until(world, || {
        let task = world.cx.get::<Task>(None, &name)?;
        let status = task.status.as_ref()?;
        match status.state {
            TaskState::Succeeded => Some(status.result.clone()),
            TaskState::Failed => panic!("{status:?}"),
            _ => None,
        }
    })
    .await
}

pub(super) fn policy_ref() -> ObjectRef {
    ObjectRef {
        kind: "api-key-policy".into(),
        project: None,
        name: DEFAULT.into(),
    }
}

async fn soon(world: &World, actor: Actor, days: u32) -> Vec<String> {
    let (ours, mut theirs) = StreamIo::pair();
    let request = StreamRequest {
        target: policy_ref(),
        stream: "check-expiring".into(),
        params: json!({ "days": days }),
        actor,
        request_id: "r".into(),
    };
    let (_, open) = SUBSYSTEM.streams[0];
    open(world.cx.clone(), request, ours).await.unwrap();
    let mut names = Vec::new();
    while let Some(msg) = theirs.recv().await {
        let Msg::Data(line) = msg else { continue };
        let line: Value = serde_json::from_slice(&line).unwrap();
        names.push(format!(
            "{} {}",
            line["name"].as_str().unwrap(),
            line["days"]
        ));
    }
    names
}

#[tokio::test]
async fn keys_are_counted_by_their_states() {
    let world = keys(&[
        ("a", "ann", 90),
        ("b", "ann", 10),
        ("c", "bob", 40),
        ("d", "bob", 50),
    ])
    .await;
    for name in ["a", "b", "c"] {
        shown(&world, name).await;
    }
    let revoke = Op::Act {
        target: super::target("c"),
        verb: "revoke".into(),
        params: json!({}),
    };
    Engine::start(&world.cx);
    world.cx.submit(revoke, "test").await.unwrap();
    let status = until(&world, || {
        // The counts follow at most every two seconds of the clock.
        world.clock.pass(3000);
        let policy = world.cx.get::<ApiKeyPolicy>(None, DEFAULT)?;
        let status = policy.status.clone()?;
        world.cx.wake(&world.cx.key::<ApiKeyPolicy>(None, DEFAULT));
        let counts = (
            status.active,
            status.expiring,
            status.revoked,
            status.waiting,
        );
        (counts == (1, 1, 1, 1)).then_some(status)
    })
    .await;
    let b = world.cx.get::<ApiKey>(None, "b").unwrap();
    assert_eq!(status.next_end, b.spec.expires);
}

#[tokio::test]
async fn what_ends_soon_is_told_to_who_may_see_it() {
    let world = keys(&[
        ("late", "ann", 60),
        ("soon", "ann", 10),
        ("sooner", "bob", 3),
    ])
    .await;
    let admin = || Actor::administrator("root@unix");
    assert_eq!(soon(&world, admin(), 14).await, ["sooner 3", "soon 10"]);
    assert_eq!(soon(&world, admin(), 60).await.len(), 3);
    world.clock.jump(4 * DAY_MS);
    assert_eq!(soon(&world, admin(), 14).await, ["soon 6"]);
    // Who reads one key reads of that one.
    let allow = json!({ "allow": ["api-key.read", "api-key-policy.check-expiring"] });
    world
        .root("role", None, "looks", json!({}), allow)
        .await
        .unwrap();
    let scope = json!({ "user": "eve", "role": "looks", "scope": "api-key/late" });
    world.grant("eve-late", scope).await;
    assert_eq!(soon(&world, person("eve"), 365).await, ["late 56"]);
}

#[tokio::test]
async fn what_ended_a_year_ago_is_deleted_and_nothing_else() {
    let world = keys(&[
        ("old", "ann", 1),
        ("younger", "ann", 3),
        ("lives", "bob", 365),
    ])
    .await;
    world.clock.jump(366 * DAY_MS + 1000);
    Engine::start(&world.cx);
    // The hourly look may be faster: then there is nothing left to count.
    act(&world, Actor::administrator("root@unix"), "cleanup").await;
    until(&world, || {
        let there = |name: &str| world.cx.get::<ApiKey>(None, name).is_some();
        (!there("old") && there("younger") && there("lives")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn with_approval_keys_rotate_when_a_person_says_so() {
    let world = keys(&[("auto", "ann", 10), ("manual", "ann", 10)]).await;
    let sink = json!({ "value": "nothing yet" });
    world
        .root("secret", Some("shop"), "sink", json!({}), sink)
        .await
        .unwrap();
    let auto = json!({ "spec": { "sink": "shop/sink", "auto_rotate": true } });
    world
        .ask(
            Actor::administrator("root@unix"),
            None,
            patch("api-key", None, "auto", auto),
        )
        .await
        .unwrap();
    for name in ["auto", "manual"] {
        shown(&world, name).await;
    }
    let strict = json!({ "spec": { "approval": true, "overlap_hours": 24 } });
    let op = patch("api-key-policy", None, DEFAULT, strict);
    world
        .ask(Actor::administrator("root@unix"), None, op)
        .await
        .unwrap();
    Engine::start(&world.cx);
    let rotation = |name: &str| {
        world
            .cx
            .get::<ApiKey>(None, name)
            .unwrap()
            .spec
            .rotation
            .clone()
    };
    // It was looked at, and waits for a person.
    until(&world, || {
        let key = world.cx.get::<ApiKey>(None, "auto")?;
        let status = key.status.as_ref()?;
        let waits = |c: &model::Condition| c.message.contains("somebody to ask");
        status.conditions.iter().any(waits).then_some(())
    })
    .await;
    assert_eq!(rotation("auto"), None);
    let done = act(&world, Actor::administrator("root@unix"), "auto-rotate").await;
    assert_eq!(done, json!({ "rotated": 1 }));
    let rotated = rotation("auto").unwrap();
    assert_eq!(rotated.reason, Reason::Scheduled);
    assert_eq!(rotated.old_until, rotated.at.plus(DAY));
    assert_eq!(rotation("manual"), None);
}

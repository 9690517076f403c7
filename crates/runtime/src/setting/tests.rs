//! Settings and flags as people change them: checked, in force at once, remembered.

use super::*;
use crate::tests::demo::{ask, ended, start};
use crate::{Answer, Msg, StreamIo, StreamRequest};
use model::ObjectRef;
use std::time::Duration;

fn target(kind: &str, name: &str) -> ObjectRef {
    ObjectRef {
        kind: kind.into(),
        project: None,
        name: name.into(),
    }
}

async fn set(cx: &Cx, name: &str, value: Value) -> Result<Answer> {
    let target = target("setting", name);
    let body = json!({ "spec": { "value": value } });
    ask(cx, Op::Patch { target, body }).await
}

/// Runs an action to its end.
async fn act(cx: &Cx, kind: &str, name: &str, verb: &str, params: Value) -> Result<()> {
    let target = target(kind, name);
    let verb = verb.into();
    let op = Op::Act {
        target,
        verb,
        params,
    };
    let Answer::Accepted { task } = ask(cx, op).await? else {
        panic!("an action answers its task");
    };
    let task: Value = serde_json::from_slice(&task).unwrap();
    let task = ObjectRef {
        kind: "task".into(),
        project: None,
        name: task["metadata"]["name"].as_str().unwrap().into(),
    };
    let task = ended(cx, &task).await;
    assert_eq!(task["status"]["state"], "succeeded", "{task:#}");
    Ok(())
}

async fn ready() -> Cx {
    let cx = start().await;
    make(&cx).await.unwrap();
    cx
}

#[tokio::test]
async fn every_setting_has_its_object_with_its_default_and_meaning() {
    let cx = ready().await;
    for known in KNOWN {
        let it = cx.get::<Setting>(None, known.name).unwrap();
        let status = it.status.clone().unwrap();
        assert_eq!(it.spec.value, None);
        assert_eq!(status.value, status.default);
        assert_eq!(status.description, known.doc);
        assert!(status.history.is_empty());
        known.check(&status.default).unwrap();
    }
    let before = cx.revision();
    make(&cx).await.unwrap();
    assert_eq!(cx.revision(), before, "made twice, nothing changes");
}

#[tokio::test]
async fn a_value_of_the_wrong_type_or_out_of_range_is_refused_with_the_reason() {
    let cx = ready().await;
    let before = cx.revision();
    let cases = [
        ("node-timeout", json!("soon"), "is not a whole number"),
        ("node-timeout", json!(-4), "is not a whole number"),
        ("node-timeout", json!(2), "is not in 3 to 600"),
        ("node-timeout", json!(601), "is not in 3 to 600"),
        ("log-level", json!(3), "is not a text"),
        ("log-level", json!("compute=loud"), "is not a filter"),
    ];
    for (name, value, why) in cases {
        let error = set(&cx, name, value.clone()).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(why), "{name} {value}: {text}");
        assert!(text.contains("spec.value"), "{text}");
    }
    assert_eq!(cx.revision(), before, "nothing changed");
    let op = Op::Create {
        kind: "setting".into(),
        project: None,
        body: json!({ "metadata": { "name": "node-timeuot" }, "spec": {} }),
    };
    let error = cx.submit(op, "test").await.unwrap_err().to_string();
    assert!(error.contains("did you mean `node-timeout`?"), "{error}");
}

#[tokio::test]
async fn a_change_is_in_force_at_once_remembered_and_reset() {
    let cx = ready().await;
    let changed = NODE_TIMEOUT.changed(&cx);
    set(&cx, "task-history", json!(100)).await.unwrap();
    set(&cx, "node-timeout", json!(9)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), changed)
        .await
        .expect("who follows it is told");
    assert_eq!(NODE_TIMEOUT.seconds(&cx), Duration::from_secs(9));
    set(&cx, "node-timeout", json!(9)).await.unwrap();
    act(&cx, "setting", "node-timeout", "reset", Value::Null)
        .await
        .unwrap();
    assert_eq!(NODE_TIMEOUT.number(&cx), 30);
    let status = cx.get::<Setting>(None, "node-timeout").unwrap();
    let history = status.status.clone().unwrap().history;
    let steps: Vec<_> = history
        .iter()
        .map(|c| (c.actor.as_str(), c.from.clone(), c.to.clone()))
        .collect();
    assert_eq!(
        steps,
        [
            ("tester", json!(30), json!(9)),
            ("tester", json!(9), json!(30))
        ],
        "what changes nothing is no change"
    );
    let (mut near, far) = StreamIo::pair();
    let request = StreamRequest {
        target: target("setting", "node-timeout"),
        stream: "history".into(),
        params: Value::Null,
        actor: crate::Actor::administrator("t"),
        request_id: "r".into(),
    };
    cx.desk().open_stream(request, far).await.unwrap();
    let Some(Msg::Data(line)) = near.recv().await else {
        panic!("a line");
    };
    let line = String::from_utf8(line.to_vec()).unwrap();
    assert!(line.ends_with("tester 30 -> 9\n"), "{line}");
}

#[tokio::test]
async fn history_is_bounded() {
    let cx = ready().await;
    for n in 0..60 {
        set(&cx, "node-timeout", json!(100 + n)).await.unwrap();
    }
    let history = cx.get::<Setting>(None, "node-timeout").unwrap();
    let history = history.status.clone().unwrap().history;
    assert_eq!(history.len(), 50);
    assert_eq!(history[49].to, json!(159));
}

#[tokio::test]
async fn a_flag_is_off_until_it_is_on_and_holds_for_whom_it_says() {
    let cx = ready().await;
    let on = |user: &str, project: Option<&str>| LOG_REQUESTS.on(&cx, user, project);
    assert!(!on("ann", None));
    act(
        &cx,
        "flag",
        "log-requests",
        "rollout",
        json!({ "percent": 0, "users": ["ann"], "projects": ["lab"] }),
    )
    .await
    .unwrap();
    assert!(!on("ann", None), "a rollout alone switches nothing on");
    act(&cx, "flag", "log-requests", "enable", Value::Null)
        .await
        .unwrap();
    assert!(on("ann", None) && on("bob", Some("lab")));
    assert!(!on("bob", None) && !on("bob", Some("home")));
    let error = act(
        &cx,
        "flag",
        "log-requests",
        "rollout",
        json!({ "percent": 101 }),
    )
    .await
    .unwrap_err();
    assert!(error.to_string().contains("100"), "{error}");
    act(&cx, "flag", "log-requests", "disable", Value::Null)
        .await
        .unwrap();
    assert!(!on("ann", None));
    act(&cx, "flag", "log-requests", "reset", Value::Null)
        .await
        .unwrap();
    let flag = cx.get::<Flag>(None, "log-requests").unwrap();
    assert_eq!(flag.spec.rollout_percent, 100);
    assert!(flag.spec.users.is_empty());
    assert_eq!(flag.status.clone().unwrap().history.len(), 4);
}

#[tokio::test]
async fn a_flag_that_nobody_made_or_that_cannot_be_read_is_off() {
    let cx = start().await;
    assert!(!LOG_REQUESTS.on(&cx, "ann", None));
    let key = cx.key::<Flag>(None, "log-requests");
    make(&cx).await.unwrap();
    act(&cx, "flag", "log-requests", "enable", Value::Null)
        .await
        .unwrap();
    assert!(LOG_REQUESTS.on(&cx, "ann", None));
    cx.edit_stored(&key, |object| {
        object["spec"]["enabled"] = json!("perhaps");
        Ok(())
    })
    .await
    .unwrap();
    assert!(!LOG_REQUESTS.on(&cx, "ann", None), "any error is off");
}

#[test]
fn a_fifth_is_a_fifth_and_stays_the_same() {
    let picked: Vec<bool> = (0..10_000)
        .map(|n| in_rollout("new-ui", &format!("user{n}"), 20))
        .collect();
    let n = picked.iter().filter(|p| **p).count();
    assert!((1900..=2100).contains(&n), "{n}");
    for (i, was) in picked.iter().enumerate() {
        let user = format!("user{i}");
        assert_eq!(in_rollout("new-ui", &user, 20), *was);
        assert!(
            !*was || in_rollout("new-ui", &user, 50),
            "more rollout never takes anybody out"
        );
    }
}

#[test]
fn an_origin_is_written_as_a_browser_writes_it() {
    let said = |text: &str| CORS_ORIGINS.check(&json!(text)).is_ok();
    for good in [
        "",
        "https://a.example",
        "https://a.example https://10.0.0.1:8443",
    ] {
        assert!(said(good), "{good}");
    }
    for bad in [
        "*",
        "null",
        "http://a.example",
        "https://a.example/",
        "https://A.example",
        "https://a.example:443",
        "https://a.example:0x1",
        "https://*.example",
        "https://",
        "https://u@a.example",
        "a.example",
    ] {
        assert!(!said(bad), "{bad}");
    }
}

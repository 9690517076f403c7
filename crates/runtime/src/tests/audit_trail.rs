//! The audit pair: an intent on disk before the change, an outcome after it, also after a crash between the two.

use super::demo::*;
use crate::audit::{Durable, FileTrail, Phase, Row, Trail, TrailOptions};
use crate::*;
use futures::future::BoxFuture;
use model::What;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use store::Memory;
use store::memory::{Fault, Faults};

pub async fn trail(dir: &Path) -> Arc<FileTrail> {
    let options = TrailOptions::new(&dir.join("rows"), &dir.join("keys"), Arc::new(TestSeal));
    Arc::new(FileTrail::open(options).await.unwrap())
}

/// The rows about what people asked for: our own loops write some too.
async fn people(trail: &dyn Trail) -> Vec<Row> {
    let mut rows = trail.last(1000).await;
    rows.retain(|r| r.actor == "tester");
    rows
}

fn words(rows: &[Row]) -> Vec<String> {
    let word = |r: &Row| {
        let phase = match r.phase {
            Phase::Intent => "intent",
            Phase::Outcome => "outcome",
        };
        let result = r.result.as_deref().unwrap_or_default();
        format!("{phase} {} {result}", r.action).trim().to_owned()
    };
    rows.iter().map(word).collect()
}

#[tokio::test]
async fn each_change_has_a_pair_without_secrets_and_reads_have_none() {
    let dir = tempfile::tempdir().unwrap();
    let kept = trail(dir.path()).await;
    let cx = start_with(Memory::new(), Arc::default(), Some(kept.clone())).await;
    create(&cx, "a", json!({ "pin": "hush-1", "pni": "hush-2" }))
        .await
        .unwrap_err();
    let misplaced = Op::Create {
        kind: "lamp".into(),
        project: Some("default".into()),
        body: json!({ "metadata": { "name": "a", "pin": "hush-0" }, "spec": {} }),
    };
    ask(&cx, misplaced).await.unwrap_err();
    create(&cx, "a", json!({ "pin": "hush-3", "brightness": 7 }))
        .await
        .unwrap();
    ask(&cx, Op::Get { target: lamp("a") }).await.unwrap();
    act_with(&cx, lamp("a"), "glow", json!({ "to": 5, "word": "hush-4" }))
        .await
        .unwrap();
    act(&cx, "nobody", "switch-on").await.unwrap_err();
    let rows = people(&*kept).await;
    assert_eq!(
        words(&rows),
        [
            "intent lamp.create",
            "outcome lamp.create INVALID",
            "intent lamp.create",
            "outcome lamp.create INVALID",
            "intent lamp.create",
            "outcome lamp.create ok",
            "intent lamp.glow",
            "outcome lamp.glow ok",
            "intent lamp.switch-on",
            "outcome lamp.switch-on NOT_FOUND",
        ]
    );
    for pair in rows.chunks(2) {
        assert!(pair[0].change.is_some() && pair[0].change == pair[1].change);
        assert_eq!(pair[0].request_id, "r1");
        assert_eq!(pair[0].asked, pair[1].asked);
    }
    assert_eq!(
        rows[4].params["spec"],
        json!({ "pin": "***", "brightness": 7 })
    );
    assert_eq!(rows[6].params, json!({ "to": 5, "word": "***" }));
    cx.life().stop(std::time::Duration::from_secs(5)).await;
    for file in std::fs::read_dir(dir.path().join("rows")).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&bytes).contains("hush"));
    }
}

/// Keeps rows until the process "dies": then it is as gone as the store.
struct Mortal(Arc<FileTrail>, Faults);

impl Trail for Mortal {
    fn keep(&self, row: Row, when: Durable) -> BoxFuture<'_, model::Result<()>> {
        match self.1.has_crashed() {
            true => Box::pin(async { Ok(()) }),
            false => self.0.keep(row, when),
        }
    }
    fn last(&self, limit: usize) -> BoxFuture<'_, Vec<Row>> {
        self.0.last(limit)
    }
}

#[tokio::test]
async fn after_a_crash_between_the_two_the_outcome_is_found_out() {
    for (fault, word) in [
        (Fault::CrashBefore, "INTERRUPTED"),
        (Fault::CrashAfter, "ok"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let kept = trail(dir.path()).await;
        let faults = Faults::new();
        let store = Memory::with_faults(faults.clone());
        let mortal = Arc::new(Mortal(kept.clone(), faults.clone()));
        let cx = start_with(store.clone(), Arc::default(), Some(mortal)).await;
        faults.order(faults.commits() + 1, fault);
        create(&cx, "a", json!({})).await.unwrap_err();
        cx.life().stop(std::time::Duration::from_secs(5)).await;
        assert_eq!(words(&people(&*kept).await), ["intent lamp.create"]);

        let mut store = store;
        for _ in 0..2 {
            store = store.restart(Faults::new());
            let cx = start_with(store.clone(), Arc::default(), Some(kept.clone())).await;
            let there = cx.get::<Lamp>(Some("default"), "a").is_some();
            assert_eq!(there, word == "ok");
            let rows = people(&*kept).await;
            let expected = format!("outcome lamp.create {word}");
            assert_eq!(words(&rows), ["intent lamp.create", &*expected]);
            assert!(rows[1].recovered && rows[0].change == rows[1].change);
            cx.life().stop(std::time::Duration::from_secs(5)).await;
        }
    }
}

/// Cannot keep anything.
struct Full;

impl Trail for Full {
    fn keep(&self, _: Row, _: Durable) -> BoxFuture<'_, model::Result<()>> {
        Box::pin(async { Err(model::Error::unavailable("the disk is full")) })
    }
    fn last(&self, _: usize) -> BoxFuture<'_, Vec<Row>> {
        Box::pin(async { Vec::new() })
    }
}

#[tokio::test]
async fn without_an_intent_nothing_is_changed() {
    let cx = start_with(Memory::new(), Arc::default(), Some(Arc::new(Full))).await;
    let before = cx.revision();
    let error = create(&cx, "a", json!({})).await.unwrap_err();
    assert!(matches!(error.what, What::Unavailable(_)), "{error}");
    assert_eq!(cx.revision(), before);
    assert!(cx.list::<Lamp>(None).is_empty());
}

#[tokio::test]
async fn a_change_nobody_waits_for_any_more_has_its_outcome_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let kept = trail(dir.path()).await;
    let cx = start_with(Memory::new(), Arc::default(), Some(kept.clone())).await;
    let op = Op::Create {
        kind: "lamp".into(),
        project: Some("default".into()),
        body: json!({ "metadata": { "name": "a" } }),
    };
    let asked = Request::new("r1", Actor::administrator("tester"), Surface::Rest, op);
    let admitted = cx.gate().admit(asked).unwrap();
    let desk = cx.desk();
    // As a surface does whose client hangs up: it begins, and is dropped.
    let mut begun = Box::pin(desk.carry_out(admitted));
    assert!(futures::poll!(&mut begun).is_pending());
    drop(begun);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let rows = words(&people(&*kept).await);
        if rows == ["intent lamp.create", "outcome lamp.create ok"] {
            break;
        }
        assert!(std::time::Instant::now() < end, "{rows:?}");
        tokio::task::yield_now().await;
    }
    assert_eq!(cx.list::<Lamp>(None).len(), 1);
}

#[tokio::test]
async fn each_object_of_a_batch_has_its_pair_in_the_name_of_who_asked() {
    let dir = tempfile::tempdir().unwrap();
    let kept = trail(dir.path()).await;
    let cx = start_with(Memory::new(), Arc::default(), Some(kept.clone())).await;
    create(&cx, "a", json!({})).await.unwrap();
    create(&cx, "b", json!({})).await.unwrap();
    let batch = Op::Batch {
        kind: "lamp".into(),
        project: Some("default".into()),
        verb: "switch-on".into(),
        body: json!({ "names": ["a", "b"] }),
    };
    let Answer::Accepted { task } = ask(&cx, batch).await.unwrap() else {
        panic!("a batch is a task")
    };
    let task: Value = serde_json::from_slice(&task).unwrap();
    let target = model::ObjectRef {
        kind: "task".into(),
        name: task["metadata"]["name"].as_str().unwrap().into(),
        ..lamp("x")
    };
    ended(&cx, &target).await;
    let rows = people(&*kept).await;
    let of = |name: Option<&str>| {
        let mine = |r: &&Row| r.action == "lamp.switch-on" && r.name.as_deref() == name;
        let rows: Vec<&Row> = rows.iter().filter(mine).collect();
        assert!(rows.iter().all(|r| r.request_id == "r1"));
        rows.len()
    };
    assert_eq!((of(None), of(Some("a")), of(Some("b"))), (2, 2, 2));
}

#[tokio::test]
async fn refusals_are_on_record_and_a_flood_of_them_is_one_row_more() {
    let dir = tempfile::tempdir().unwrap();
    let kept = trail(dir.path()).await;
    let cx = start_with(Memory::new(), Arc::default(), Some(kept.clone())).await;
    let from: std::net::IpAddr = "192.0.2.7".parse().unwrap();
    for _ in 0..50 {
        let op = Op::Get { target: lamp("a") };
        let mut request = Request::new("r7", Actor::anonymous(), Surface::Rest, op);
        request.from = Some(from);
        cx.gate().admit(request).unwrap_err();
    }
    let failed = || {
        audit::Note::new(&audit::LOGIN_FAILED, "anna")
            .from(Some(from))
            .failed("WRONG_PASSWORD")
    };
    for _ in 0..3 {
        audit::note(&cx, failed()).await.unwrap();
    }
    audit::note(&cx, audit::Note::new(&audit::LOGIN_SUCCEEDED, "anna"))
        .await
        .unwrap();
    // The end of the process writes what is only counted so far.
    cx.life().stop(std::time::Duration::from_secs(5)).await;
    let mut rows = kept.last(1000).await;
    rows.retain(|r| r.action.starts_with("auth.") || r.action.starts_with("security."));
    let count = |action: &str, repeats: u64| {
        rows.iter()
            .filter(|r| r.action == action && r.repeats == repeats)
            .count()
    };
    assert_eq!(rows.len(), 5, "{rows:?}");
    assert_eq!(count("security.permission_denied", 0), 1);
    assert_eq!(count("security.permission_denied", 49), 1);
    assert_eq!(count("auth.login.failed", 0), 1);
    assert_eq!(count("auth.login.failed", 2), 1);
    assert_eq!(count("auth.login.succeeded", 0), 1);
    let denied = rows.iter().find(|r| r.repeats == 49).unwrap();
    assert_eq!(denied.result.as_deref(), Some("UNAUTHENTICATED"));
    assert_eq!(denied.params, json!({ "needs": "lamp.read" }));
    assert_eq!(denied.address.as_deref(), Some("192.0.2.7"));
}

/// A process with a chain, and the object of it.
async fn start_with_chain(dir: &Path) -> (Cx, Arc<FileTrail>) {
    let kept = trail(dir).await;
    let cx = CxBuilder::new(registry(), Memory::new())
        .seal(Arc::new(TestSeal))
        .part(Arc::<Bench>::default())
        .part(kept.clone())
        .part(Arc::new(audit::AuditTrail::new(kept.clone())))
        .build()
        .await
        .unwrap();
    Engine::start(&cx);
    setting::make(&cx).await.unwrap();
    audit::make(&cx).await.unwrap();
    (cx, kept)
}

fn chain() -> model::ObjectRef {
    model::ObjectRef {
        kind: "audit-chain".into(),
        project: None,
        name: "node1".into(),
    }
}

/// What a stream of the chain shows.
async fn shown(cx: &Cx, stream: &str, params: Value) -> Vec<Value> {
    let op = Op::Stream {
        target: chain(),
        stream: stream.into(),
        params,
    };
    let request = Request::new("r9", Actor::administrator("auditor"), Surface::Rest, op);
    let admitted = cx.gate().admit(request).unwrap();
    let (mut ours, theirs) = StreamIo::pair();
    let desk = cx.desk();
    let reading = async {
        let mut lines = Vec::new();
        while let Some(msg) = ours.recv().await {
            if let Msg::Data(line) = msg {
                lines.push(serde_json::from_slice(&line).unwrap());
            }
        }
        lines
    };
    let (opened, lines) = tokio::join!(desk.open(admitted, theirs), reading);
    opened.unwrap();
    lines
}

/// Why a stream of rows is not opened.
async fn refused(cx: &Cx, params: Value) -> model::Error {
    let op = Op::Stream {
        target: chain(),
        stream: "rows".into(),
        params,
    };
    let request = Request::new("r9", Actor::administrator("auditor"), Surface::Rest, op);
    let admitted = cx.gate().admit(request).unwrap();
    let (_ours, theirs) = StreamIo::pair();
    cx.desk().open(admitted, theirs).await.unwrap_err()
}

#[tokio::test]
async fn rows_are_found_by_what_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (cx, _kept) = start_with_chain(dir.path()).await;
    create(&cx, "a", json!({})).await.unwrap();
    act(&cx, "nobody", "switch-on").await.unwrap_err();
    let from = |n: u8| Some(std::net::IpAddr::from([192, 0, 2, n]));
    for (who, n) in [("anna", 7), ("bert", 8), ("anna", 9)] {
        let login = audit::Note::by(&audit::LOGIN_SUCCEEDED, &Actor::administrator(who));
        audit::note(&cx, login.from(from(n))).await.unwrap();
    }
    let actions = async |params: Value| -> Vec<String> {
        let rows = shown(&cx, "rows", params).await;
        let word = |r: Value| r["action"].as_str().unwrap().to_owned();
        rows.into_iter().map(word).collect()
    };
    assert_eq!(
        actions(json!({ "actor": "anna" })).await,
        ["auth.login.succeeded", "auth.login.succeeded"]
    );
    let by_address = shown(&cx, "rows", json!({ "address": "192.0.2.8" })).await;
    assert_eq!(by_address.len(), 1);
    assert_eq!(by_address[0]["actor"], "bert");
    assert_eq!(
        actions(json!({ "object": "lamp/default/a" })).await,
        ["lamp.create", "lamp.create"]
    );
    assert_eq!(
        actions(json!({ "failures": true, "actor": "tester" })).await,
        ["lamp.switch-on"]
    );
    assert_eq!(actions(json!({ "action": "auth" })).await.len(), 3);
    assert_eq!(
        actions(json!({ "action": "auth", "limit": 1 })).await.len(),
        1
    );
    assert_eq!(actions(json!({ "action": "au" })).await.len(), 0);
    assert_eq!(
        actions(json!({ "since": "1h", "action": "auth" }))
            .await
            .len(),
        3
    );
    assert_eq!(actions(json!({ "until": "1h" })).await.len(), 0);
    // Whom the machine vouches for is found by his name alone, and an address however it is spelt.
    let local = audit::Note::by(&audit::LOGOUT, &Actor::administrator("carl@unix"));
    let address = "2001:db8::7".parse().ok();
    audit::note(&cx, local.from(address)).await.unwrap();
    assert_eq!(actions(json!({ "actor": "carl" })).await, ["auth.logout"]);
    assert_eq!(
        actions(json!({ "address": "2001:0DB8:0::7" })).await,
        ["auth.logout"]
    );
    // What would find nothing, whatever happened, is refused.
    for wrong in [
        json!({ "address": "192.0.2.300" }),
        json!({ "since": "1h", "until": "2h" }),
        json!({ "since": "soon" }),
    ] {
        let error = refused(&cx, wrong.clone()).await;
        assert!(matches!(error.what, What::Invalid(_)), "{wrong}: {error}");
    }
    // Persons count as soon as they come, not at the next seal.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let shown = cx.get::<audit::AuditChain>(None, "node1");
        let keys = shown.and_then(|chain| chain.status.as_ref().map(|s| s.keys));
        if keys.is_some_and(|keys| keys.active >= 4) {
            break;
        }
        assert!(std::time::Instant::now() < end, "{keys:?}");
        tokio::task::yield_now().await;
    }
    cx.life().stop(std::time::Duration::from_secs(5)).await;
}

#[tokio::test]
async fn an_export_hides_what_is_personal_and_is_on_record_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (cx, kept) = start_with_chain(dir.path()).await;
    create(&cx, "a", json!({})).await.unwrap();
    let sealed = shown(&cx, "export", json!({})).await;
    assert!(sealed.len() > 2);
    assert!(sealed.iter().all(|r| !r.to_string().contains("tester")));
    let mut prev: Option<String> = None;
    for row in &sealed {
        if let Some(prev) = &prev {
            assert_eq!(row["previous"], json!(prev));
        }
        prev = row["hash"].as_str().map(str::to_owned);
    }
    let open = shown(&cx, "export", json!({ "decrypt": true })).await;
    assert!(open.iter().any(|r| r["row"]["actor"] == "tester"));
    let rows = kept.last(1000).await;
    let exports = rows.iter().filter(|r| r.action == "audit.exported");
    let how: Vec<_> = exports
        .map(|r| (&*r.actor, r.params["decrypt"].clone()))
        .collect();
    assert_eq!(how, [("auditor", json!(false)), ("auditor", json!(true))]);
    cx.life().stop(std::time::Duration::from_secs(5)).await;
}

/// Runs an action of the chain and answers the ended task.
async fn done(cx: &Cx, verb: &str, params: Value) -> Value {
    let op = Op::Act {
        target: chain(),
        verb: verb.into(),
        params,
    };
    let Answer::Accepted { task } = ask(cx, op).await.unwrap() else {
        panic!("an action is a task")
    };
    let task: Value = serde_json::from_slice(&task).unwrap();
    let target = model::ObjectRef {
        kind: "task".into(),
        project: None,
        name: task["metadata"]["name"].as_str().unwrap().into(),
    };
    ended(cx, &target).await;
    let row = cx
        .cache()
        .row("task", &object_key("task", None, &target.name));
    row.unwrap().value().unwrap()
}

/// A list of everything is an export by another name.
#[tokio::test]
async fn a_long_list_is_on_record() {
    let dir = tempfile::tempdir().unwrap();
    let (cx, kept) = start_with_chain(dir.path()).await;
    for (limit, notes) in [(1000, 0), (1001, 1)] {
        shown(&cx, "rows", json!({ "limit": limit })).await;
        let rows = kept.last(100).await;
        let exported = rows.iter().filter(|r| r.action == "audit.exported");
        assert_eq!(exported.count(), notes, "{limit}");
    }
    cx.life().stop(std::time::Duration::from_secs(5)).await;
}

#[tokio::test]
async fn the_chain_is_verified_anchored_and_erased_as_an_object() {
    let dir = tempfile::tempdir().unwrap();
    let (cx, kept) = start_with_chain(dir.path()).await;
    create(&cx, "a", json!({})).await.unwrap();
    let status = async |so: &dyn Fn(&Value) -> bool| {
        let key = object_key("audit-chain", None, "node1");
        let mut deltas = cx.cache().subscribe();
        let found = async {
            loop {
                let row = cx.cache().row("audit-chain", &key).unwrap();
                let status = row.value().unwrap()["status"].clone();
                if so(&status) {
                    return status;
                }
                deltas.recv().await.unwrap();
            }
        };
        let found = tokio::time::timeout(std::time::Duration::from_secs(20), found).await;
        found.unwrap_or_else(|_| {
            panic!("{:?}", cx.cache().row("audit-chain", &key).unwrap().value())
        })
    };
    let anchored = |status: &Value, how: &str| {
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        conditions
            .iter()
            .any(|c| c["type"] == "AuditUnanchored" && c["reason"] == how)
    };
    status(&|s| anchored(s, "NoAnchor")).await;

    let heads = dir.path().join("elsewhere");
    let op = Op::Patch {
        target: model::ObjectRef {
            kind: "setting".into(),
            project: None,
            name: "audit-anchor-file".into(),
        },
        body: json!({ "spec": { "value": heads } }),
    };
    ask(&cx, op).await.unwrap();
    kept.seal().await.unwrap();
    let now = status(&|s| s["anchored_to"].as_u64() > Some(0)).await;
    // The test's folders are on one disk, and it says so.
    assert!(anchored(&now, "AnchorsFail"), "{now}");

    let text = std::fs::read_to_string(&heads).unwrap();
    let line = text.lines().last().unwrap();
    let task = done(&cx, "verify", json!({ "heads": [line] })).await;
    assert_eq!(task["status"]["state"], "succeeded", "{task}");
    assert_eq!(task["status"]["result"]["sound"], true, "{task}");
    let task = done(&cx, "erase", json!({ "subject": "tester" })).await;
    assert_eq!(task["status"]["state"], "succeeded", "{task}");
    let task = done(&cx, "erase", json!({ "subject": "nobody" })).await;
    assert_eq!(task["status"]["state"], "failed", "{task}");

    // A head of a row that never was: somebody has cut the end off.
    let mut head: Value = serde_json::from_str(line).unwrap();
    head["seq"] = json!(100_000);
    let task = done(&cx, "verify", json!({ "heads": [head.to_string()] })).await;
    assert_eq!(task["status"]["state"], "failed", "{task}");
    assert!(task.to_string().contains("cut off"), "{task}");
    let rows = kept.last(100).await;
    assert!(rows.iter().any(|r| r.action == "audit.broken"));
    cx.life().stop(std::time::Duration::from_secs(5)).await;
}

use super::demo::*;
use crate::*;
use futures::StreamExt;
use model::*;
use serde_json::{Value, json};

fn json(answer: Answer) -> Value {
    match answer {
        Answer::Object { json, .. } => serde_json::from_slice(&json).unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn put(cx: &Cx, name: &str, body: Value) -> Result<Answer> {
    ask(
        cx,
        Op::Update {
            target: lamp(name),
            body,
            create: true,
        },
    )
    .await
}

#[tokio::test]
async fn create_fills_defaults_and_allocates() {
    let cx = start().await;
    let a = json(create(&cx, "a", json!({})).await.unwrap());
    assert_eq!(a["spec"]["brightness"], 100);
    assert_eq!(a["spec"]["socket"], 1);
    assert_eq!(a["metadata"]["generation"], 1);
    let b = json(create(&cx, "b", json!({})).await.unwrap());
    assert_eq!(b["spec"]["socket"], 2);
    let taken = create(&cx, "c", json!({"socket": 1})).await.unwrap_err();
    assert_eq!(taken.to_string(), "spec.socket: 1 is taken");
    let again = create(&cx, "a", json!({})).await.unwrap_err();
    assert_eq!(again.what, What::Exists);
}

#[tokio::test]
async fn parallel_creates_share_nothing() {
    let cx = start().await;
    let all = futures::future::join_all((0..40).map(|n| {
        let cx = cx.clone();
        async move {
            json(create(&cx, &format!("l{n}"), json!({})).await.unwrap())["spec"]["socket"]
                .as_u64()
                .unwrap()
        }
    }))
    .await;
    let distinct: std::collections::BTreeSet<u64> = all.iter().copied().collect();
    assert_eq!(distinct.len(), 40);
}

#[tokio::test]
async fn bad_bodies_name_field_value_and_remedy() {
    let cx = start().await;
    for (spec, text) in [
        (
            json!({"brigtness": 3}),
            "spec.brigtness: is not a field here (did you mean `brightness`?)",
        ),
        (
            json!({"brightness": 0}),
            "spec.brightness: 0 is less than the minimum of 1",
        ),
        (json!({"brightness": "x", "on": 3}), "spec.brightness"),
        (
            json!({"follows": "nobody"}),
            "spec.follows: there is no lamp `nobody` (there is none yet: `dvctl lamp create`)",
        ),
        (
            json!({"pin": "$sealed:x"}),
            "spec.pin: must not begin with `$sealed:`",
        ),
    ] {
        let error = create(&cx, "x", spec.clone())
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(text), "{spec}: {error}");
    }
    let error = ask(
        &cx,
        Op::Create {
            kind: "lmap".into(),
            project: Some("default".into()),
            body: json!({}),
        },
    )
    .await
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no kind `lmap`: did you mean `lamp`?"
    );
    assert!(cx.list::<Lamp>(None).is_empty());
}

#[tokio::test]
async fn apply_twice_changes_nothing_and_keeps_what_is_allocated() {
    let cx = start().await;
    let body = json!({"kind": "lamp", "metadata": {"name": "a"}, "spec": {"brightness": 50, "pin": "1234"}});
    let first = json(put(&cx, "a", body.clone()).await.unwrap());
    until(&cx, &lamp("a"), |o| {
        o.is_some_and(|o| o["status"]["observed_generation"] == 1)
    })
    .await;
    let shown = json(ask(&cx, Op::Get { target: lamp("a") }).await.unwrap());
    assert_eq!(shown["spec"]["pin"], Value::Null, "a secret is never shown");
    let stored = cx
        .store()
        .get(&cx.key::<Lamp>(Some("default"), "a"))
        .await
        .unwrap()
        .unwrap();
    assert!(
        !String::from_utf8_lossy(&stored.value).contains("1234"),
        "a secret is never stored in the clear"
    );
    assert_eq!(
        cx.get::<Lamp>(Some("default"), "a")
            .unwrap()
            .spec
            .pin
            .as_deref(),
        Some("1234")
    );
    let second = json(
        put(
            &cx,
            "a",
            json!({"kind": "lamp", "metadata": {"name": "a"}, "spec": {"brightness": 50}}),
        )
        .await
        .unwrap(),
    );
    assert_eq!(second["metadata"]["generation"], 1);
    assert_eq!(second["spec"]["socket"], first["spec"]["socket"]);
    assert_eq!(
        cx.get::<Lamp>(Some("default"), "a")
            .unwrap()
            .spec
            .pin
            .as_deref(),
        Some("1234"),
        "absent keeps"
    );
    let third = json(
        put(
            &cx,
            "a",
            json!({"metadata": {"name": "a"}, "spec": {"pin": null}}),
        )
        .await
        .unwrap(),
    );
    assert_eq!(third["spec"]["brightness"], 100, "absent is the default");
    assert_eq!(
        cx.get::<Lamp>(Some("default"), "a").unwrap().spec.pin,
        None,
        "null clears"
    );
}

#[tokio::test]
async fn a_stale_revision_and_a_fixed_field_are_refused() {
    let cx = start().await;
    let a = json(create(&cx, "a", json!({"glass": "green"})).await.unwrap());
    let mut stale = a.clone();
    stale["spec"]["brightness"] = json!(5);
    put(
        &cx,
        "a",
        json!({"spec": {"brightness": 7, "glass": "green"}}),
    )
    .await
    .unwrap();
    let error = put(&cx, "a", stale).await.unwrap_err();
    assert_eq!(error.status(), 412);
    let error = put(&cx, "a", json!({"spec": {"glass": "red"}}))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "spec.glass: is \"green\" and cannot change (make a new object, or leave the field as it is)"
    );
    let patched = json(
        ask(
            &cx,
            Op::Patch {
                target: lamp("a"),
                body: json!({"metadata": {"labels": {"env": "test"}}, "spec": {"brightness": 9}}),
            },
        )
        .await
        .unwrap(),
    );
    assert_eq!(
        (
            &patched["spec"]["brightness"],
            &patched["metadata"]["labels"]["env"]
        ),
        (&json!(9), &json!("test"))
    );
    assert_eq!(patched["spec"]["glass"], "green");
}

#[tokio::test]
async fn an_intent_comes_true() {
    let cx = start().await;
    create(&cx, "a", json!({})).await.unwrap();
    let task = act(&cx, "a", "switch-on").await.unwrap();
    assert_eq!(ended(&cx, &task).await["status"]["state"], "succeeded");
    assert!(
        cx.get::<Lamp>(Some("default"), "a")
            .unwrap()
            .status
            .as_ref()
            .unwrap()
            .shines
    );
    let events: Vec<String> = cx
        .events()
        .read(0, 100)
        .await
        .into_iter()
        .map(|e| e.event)
        .collect();
    assert_eq!(events, ["lamp.created", "lamp.switched-on"]);
    let error = act(&cx, "a", "swich-on").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "lamp has no action `swich-on`: did you mean `switch-on`?"
    );
}

#[tokio::test]
async fn deletion_waits_for_holds_and_refuses_while_used() {
    let cx = start().await;
    create(&cx, "a", json!({})).await.unwrap();
    create(&cx, "b", json!({"follows": "a"})).await.unwrap();
    let delete = |name: &str| Op::Delete {
        target: lamp(name),
        keep: Vec::new(),
    };
    let error = ask(&cx, delete("a")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "lamp default/a is used by lamp default/b: delete or change these first"
    );
    ask(&cx, delete("b")).await.unwrap();
    until(&cx, &lamp("b"), |o| o.is_none()).await;
    ask(&cx, delete("a")).await.unwrap();
    until(&cx, &lamp("a"), |o| o.is_none()).await;
    assert!(
        cx.cache().unique_in("socket").is_empty(),
        "its keys went with it"
    );
    let error = ask(&cx, delete("a")).await.unwrap_err();
    assert_eq!(error.what, What::NotFound);
}

#[tokio::test]
async fn a_panic_is_a_condition_and_nothing_else() {
    let cx = start().await;
    create(&cx, "a", json!({"glass": "panic"})).await.unwrap();
    let a = until(&cx, &lamp("a"), |o| {
        o.is_some_and(|o| o["status"]["conditions"][0]["status"] == "false")
    })
    .await
    .unwrap();
    assert!(
        a["status"]["conditions"][0]["message"]
            .as_str()
            .unwrap()
            .contains("thin glass")
    );
    create(&cx, "b", json!({"on": true})).await.unwrap();
    until(&cx, &lamp("b"), |o| {
        o.is_some_and(|o| o["status"]["shines"] == true)
    })
    .await;
}

#[tokio::test]
async fn the_same_key_answers_the_same() {
    let cx = start().await;
    let request = |brightness: u32| {
        let body = json!({"metadata": {"name": "a"}, "spec": {"brightness": brightness}});
        let mut r = Request::new(
            "r",
            Actor::administrator("t"),
            Surface::Rest,
            Op::Create {
                kind: "lamp".into(),
                project: Some("default".into()),
                body,
            },
        );
        r.idempotency = Some("k1".into());
        r
    };
    let first = json(ask_as(&cx, request(5)).await.unwrap());
    let second = json(ask_as(&cx, request(5)).await.unwrap());
    assert_eq!(first["metadata"]["uid"], second["metadata"]["uid"]);
    let other = ask_as(&cx, request(6)).await.unwrap_err();
    assert!(
        other.to_string().contains("used before with another body"),
        "{other}"
    );
    // Whoever copies the store cannot try what secret it was that fits the hash.
    let records = cx.store().list(&store::Prefix::new("i/"), store::Page::ALL);
    let records = records.await.unwrap().entries;
    assert_eq!(records.len(), 1);
    let record: Value = serde_json::from_slice(&records[0].value).unwrap();
    let body = record["body"].as_str().unwrap();
    assert!(body.starts_with("idempotency/"), "sealed: {body}");
}

#[tokio::test]
async fn lists_page_select_project_and_sort() {
    let cx = start().await;
    for n in 0..25 {
        let body = json!({"metadata": {"name": format!("l{n:02}"), "labels": {"odd": (n % 2 == 1).to_string()}}, "spec": {"brightness": 100 - n}});
        ask(
            &cx,
            Op::Create {
                kind: "lamp".into(),
                project: Some("default".into()),
                body,
            },
        )
        .await
        .unwrap();
    }
    let list = |query: Query| {
        let cx = cx.clone();
        async move {
            match ask(
                &cx,
                Op::List {
                    kind: "lamp".into(),
                    project: Some("default".into()),
                    query,
                },
            )
            .await
            .unwrap()
            {
                Answer::List(l) => l,
                other => panic!("{other:?}"),
            }
        }
    };
    let fields = vec!["name".to_owned()];
    let first = list(Query {
        fields: fields.clone(),
        ..Query::default()
    })
    .await;
    assert_eq!((first.items.len(), first.total), (20, 25));
    assert_eq!(&first.items[0][..], br#"{"name":"l00"}"#);
    let rest = list(Query {
        after: first.next.clone(),
        ..Query::default()
    })
    .await;
    assert_eq!((rest.items.len(), rest.next), (5, None));
    let odd = list(Query {
        selector: Selector::parse("odd=true").unwrap(),
        ..Query::default()
    })
    .await;
    assert_eq!(odd.items.len(), 12);
    let sorted = list(Query {
        fields,
        sort: Some("brightness".into()),
        limit: 2,
        ..Query::default()
    })
    .await;
    assert_eq!(&sorted.items[0][..], br#"{"name":"l24"}"#);
    let error = cx
        .cache()
        .list(
            &KIND,
            None,
            &Query {
                fields: vec!["nam".into()],
                ..Query::default()
            },
            &View::All,
        )
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "fields: `nam` is not a column of lamp (did you mean `name`?)"
    );
}

#[tokio::test]
async fn a_watch_resumes_without_a_gap() {
    let cx = start().await;
    create(&cx, "a", json!({})).await.unwrap();
    until(&cx, &lamp("a"), |o| {
        o.is_some_and(|o| o["status"]["observed_generation"] == 1)
    })
    .await;
    let from = cx.revision();
    let watch = |after| {
        let op = Op::Watch {
            kind: "lamp".into(),
            project: None,
            name: None,
            query: Query::default(),
            after,
        };
        let admitted = cx
            .gate()
            .admit(Request::new(
                "w",
                Actor::administrator("t"),
                Surface::Watch,
                op,
            ))
            .unwrap();
        cx.desk().watch(&admitted).unwrap()
    };
    create(&cx, "b", json!({})).await.unwrap();
    let mut resumed = watch(Some(from));
    // The revision that was seen last comes again (a commit may change several objects), then what is new.
    for name in ["\"a\"", "\"b\""] {
        match resumed.next().await.unwrap().unwrap() {
            WatchEvent::Put { object, .. } => {
                assert!(String::from_utf8_lossy(&object).contains(name), "{name}")
            }
            other => panic!("{other:?}"),
        }
    }
    let mut fresh = watch(None);
    let mut seen = 0;
    while let Some(Ok(event)) = fresh.next().await {
        match event {
            WatchEvent::Put { .. } => seen += 1,
            _ => break,
        }
    }
    assert_eq!(seen, 2);
}

#[tokio::test]
async fn nobody_gets_in_unknown() {
    let cx = start().await;
    for declared in cx.registry().iter() {
        let kind = declared.kind();
        let project = (kind.scope == Scope::Project).then(|| "default".to_owned());
        let target = ObjectRef {
            kind: kind.name.into(),
            project: project.clone(),
            name: "x".into(),
        };
        let mut ops = vec![
            Op::Get {
                target: target.clone(),
            },
            Op::List {
                kind: kind.name.into(),
                project: project.clone(),
                query: Query::default(),
            },
            Op::Create {
                kind: kind.name.into(),
                project: project.clone(),
                body: json!({}),
            },
            Op::Patch {
                target: target.clone(),
                body: json!({}),
            },
            Op::Delete {
                target: target.clone(),
                keep: Vec::new(),
            },
        ];
        ops.extend(kind.actions.iter().map(|a| Op::Act {
            target: target.clone(),
            verb: a.verb.into(),
            params: Value::Null,
        }));
        ops.extend(kind.streams.iter().map(|s| Op::Stream {
            target: target.clone(),
            stream: s.name.into(),
            params: Value::Null,
        }));
        for op in ops {
            let error = cx
                .gate()
                .admit(Request::new("r", Actor::anonymous(), Surface::Rest, op))
                .unwrap_err();
            assert_eq!(error.what, What::Unauthenticated);
        }
    }
}

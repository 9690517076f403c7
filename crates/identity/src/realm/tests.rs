use super::*;
use crate::session;
use crate::user::User;
use runtime::{Actor, Answer, CxBuilder, Registry, Request, Surface};

pub(super) async fn start() -> Cx {
    let registry = Registry::new(&[runtime::SUBSYSTEMS, crate::SUBSYSTEMS]).unwrap();
    let (rules, access) = crate::access::parts();
    let folder = tempfile::tempdir().unwrap();
    let root = store::seal::RootSource::File(folder.path().join("root.key"));
    std::fs::create_dir_all(folder.path().join("keys")).unwrap();
    let sealer = store::seal::Sealer::open(root, folder.path().join("keys")).unwrap();
    let cx = CxBuilder::new(registry, store::Memory::new())
        .seal(Arc::new(sealer))
        .part(Arc::new(folder))
        .part(rules)
        .part(access)
        .part(Arc::new(oidc::Providers::default()))
        .build()
        .await
        .unwrap();
    make_local(&cx).await.unwrap();
    cx
}

async fn ask_as(cx: &Cx, actor: Actor, op: Op) -> Result<Answer> {
    let request = Request::new("r", actor, Surface::Rest, op);
    cx.desk().carry_out(cx.gate().admit(request)?).await
}

pub(super) async fn create_as(
    cx: &Cx,
    actor: Actor,
    kind: &str,
    name: &str,
    spec: Value,
) -> Result<()> {
    let op = Op::Create {
        kind: kind.into(),
        project: None,
        body: json!({ "metadata": { "name": name }, "spec": spec }),
    };
    ask_as(cx, actor, op).await.map(drop)
}

pub(super) async fn create(cx: &Cx, kind: &str, name: &str, spec: Value) -> Result<()> {
    create_as(cx, Actor::administrator("tester"), kind, name, spec).await
}

pub(super) async fn set(cx: &Cx, kind: &str, name: &str, spec: Value) -> Result<()> {
    let op = Op::Patch {
        target: ObjectRef {
            kind: kind.into(),
            project: None,
            name: name.into(),
        },
        body: json!({ "spec": spec }),
    };
    ask_as(cx, Actor::administrator("tester"), op)
        .await
        .map(drop)
}

pub(super) fn provider(more: Value) -> Value {
    let mut spec = json!({ "type": "oidc", "oidc": { "issuer": "https://id.example.org", "client_id": "dv" } });
    if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
        spec.extend(more);
    }
    spec
}

fn somebody(subject: &str, username: &str, groups: &[&str]) -> Incoming {
    Incoming {
        subject: subject.into(),
        username: username.into(),
        email: Some(format!("{username}@example.org")),
        full_name: Some("Some Body".into()),
        groups: groups.iter().map(|g| (*g).to_owned()).collect(),
    }
}

async fn arrives(cx: &Cx, realm: &str, who: &Incoming) -> Result<Arc<Obj<User>>> {
    let realm = cx.get::<Realm>(None, realm).unwrap();
    arrive(cx, &realm, who).await
}

#[tokio::test]
async fn local_is_there_and_stays_as_it_is() {
    let cx = start().await;
    assert_eq!(first(&cx), "local");
    for change in [
        json!({ "enabled": false }),
        json!({ "type": "oidc" }),
        json!({ "auto_create": true }),
        json!({ "oidc": { "issuer": "https://a", "client_id": "b" } }),
    ] {
        let error = set(&cx, "realm", "local", change.clone())
            .await
            .unwrap_err();
        assert_eq!(error.status(), 422, "{change}: {error}");
    }
    let delete = Op::Delete {
        target: ObjectRef {
            kind: "realm".into(),
            project: None,
            name: "local".into(),
        },
        keep: Vec::new(),
    };
    assert!(
        ask_as(&cx, Actor::administrator("tester"), delete)
            .await
            .is_err()
    );
    assert!(
        create(&cx, "realm", "mine", json!({ "type": "local" }))
            .await
            .is_err()
    );
    assert!(
        create(&cx, "realm", "corp", json!({ "type": "oidc" }))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn one_realm_is_the_first() {
    let cx = start().await;
    create(&cx, "realm", "corp", provider(json!({ "default": true })))
        .await
        .unwrap();
    assert_eq!(first(&cx), "corp");
    let error = set(&cx, "realm", "local", json!({ "default": true }))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "ALREADY_EXISTS", "{error}");
    set(&cx, "realm", "corp", json!({ "enabled": false }))
        .await
        .unwrap();
    assert_eq!(first(&cx), "local");
    set(&cx, "realm", "corp", json!({ "default": false }))
        .await
        .unwrap();
    set(&cx, "realm", "local", json!({ "default": true }))
        .await
        .unwrap();
}

#[tokio::test]
async fn somebody_is_made_once_and_follows_his_realm() {
    let cx = start().await;
    create(&cx, "group", "debvisor-operator", json!({}))
        .await
        .unwrap();
    create(&cx, "group", "by-hand", json!({})).await.unwrap();
    create(
        &cx,
        "realm",
        "corp",
        provider(json!({ "auto_create": true })),
    )
    .await
    .unwrap();
    let anna = somebody("https://id 1", "anna", &["debvisor-operator", "unknown"]);
    let user = arrives(&cx, "corp", &anna).await.unwrap();
    assert_eq!(user.metadata.name.as_str(), "anna");
    assert_eq!(user.spec.groups, ["debvisor-operator"]);
    assert_eq!(user.spec.email.as_deref(), Some("anna@example.org"));
    set(
        &cx,
        "user",
        "anna",
        json!({ "groups": ["by-hand", "debvisor-operator"] }),
    )
    .await
    .unwrap();
    // Another name there, and no group any more: the same user.
    let renamed = somebody("https://id 1", "anna.huber", &[]);
    let user = arrives(&cx, "corp", &renamed).await.unwrap();
    assert_eq!(user.metadata.name.as_str(), "anna");
    assert_eq!(user.spec.groups, ["by-hand"]);
    assert_eq!(cx.list::<User>(None).len(), 1);
    set(&cx, "user", "anna", json!({ "active": false }))
        .await
        .unwrap();
    assert_eq!(arrives(&cx, "corp", &anna).await.unwrap_err().status(), 403);
}

#[tokio::test]
async fn nobody_is_taken_over_by_a_name() {
    let cx = start().await;
    for realm in ["corp", "club"] {
        let first = realm == "corp";
        let spec = provider(json!({ "auto_create": true, "default": first }));
        create(&cx, "realm", realm, spec).await.unwrap();
    }
    // The plain name of a realm that is not the first is left to the first: who names no realm is asked there.
    let chief = somebody("s 9", "chief", &[]);
    let user = arrives(&cx, "club", &chief).await.unwrap();
    assert_eq!(user.spec.username, "chief.club");
    let user = arrives(&cx, "corp", &chief).await.unwrap();
    assert_eq!(user.spec.username, "chief");
    for name in ["root1", "modern"] {
        create(&cx, "user", name, json!({})).await.unwrap();
    }
    // A name of a local user, and one that looks like it.
    for name in ["root1", "modem"] {
        let who = somebody(&format!("s {name}"), name, &[]);
        let user = arrives(&cx, "corp", &who).await.unwrap();
        assert_eq!(user.spec.realm, "corp");
        assert_eq!(user.spec.username, format!("{name}.corp"));
    }
    // The same subject and name in another realm is somebody else.
    let anna = somebody("s 1", "anna", &[]);
    let there = arrives(&cx, "corp", &anna).await.unwrap();
    let here = arrives(&cx, "club", &anna).await.unwrap();
    assert_ne!(there.metadata.name, here.metadata.name);
    assert_eq!((&*there.spec.realm, &*here.spec.realm), ("corp", "club"));
    // Who got the name of somebody at the provider is not him here.
    let other = arrives(&cx, "corp", &somebody("s 2", "anna", &[])).await;
    assert!(other.is_ok_and(|user| user.metadata.name != there.metadata.name));
    let third = arrives(&cx, "corp", &somebody("s 3", "anna", &[]))
        .await
        .unwrap_err();
    assert_eq!(third.status(), 403, "{third}");
}

#[tokio::test]
async fn without_auto_create_an_administrator_makes_him_and_the_first_to_come_is_him() {
    let cx = start().await;
    create(&cx, "realm", "corp", provider(json!({})))
        .await
        .unwrap();
    let anna = somebody("s 1", "anna", &[]);
    assert_eq!(arrives(&cx, "corp", &anna).await.unwrap_err().status(), 403);
    create(&cx, "user", "anna", json!({ "realm": "corp" }))
        .await
        .unwrap();
    let user = arrives(&cx, "corp", &anna).await.unwrap();
    assert_eq!(user.spec.subject.as_deref(), Some("s 1"));
    assert_eq!(
        arrives(&cx, "corp", &somebody("s 2", "anna", &[]))
            .await
            .unwrap_err()
            .status(),
        403
    );
    let taken = create(
        &cx,
        "user",
        "bert",
        json!({ "realm": "corp", "subject": "s 1" }),
    )
    .await;
    assert_eq!(taken.unwrap_err().code(), "ALREADY_EXISTS");
    // A local user is nobody's.
    assert!(
        create(&cx, "user", "cleo", json!({ "subject": "s 9" }))
            .await
            .is_err()
    );
    create(&cx, "user", "dora", json!({})).await.unwrap();
    assert!(
        arrives(&cx, "corp", &somebody("s 4", "dora", &[]))
            .await
            .is_err()
    );
}

/// Whoever made a user for somebody holds nothing of him once he has come.
#[tokio::test]
async fn what_others_hold_of_somebody_ends_when_he_comes() {
    let cx = start().await;
    crate::role::make_built_in(&cx).await.unwrap();
    create(&cx, "realm", "corp", provider(json!({})))
        .await
        .unwrap();
    for (user, spec) in [("clerk", json!({})), ("chief", json!({ "realm": "corp" }))] {
        create(&cx, "user", user, spec).await.unwrap();
    }
    let spec = json!({ "user": "clerk", "role": "admin" });
    create(&cx, "grant", "clerk", spec).await.unwrap();
    let clerk = || Actor::user("clerk", None, None);
    let key = json!({ "owner": "chief" });
    create_as(&cx, clerk(), "api-key", "mine", key)
        .await
        .unwrap();
    let before = cx.get::<User>(None, "chief").unwrap();
    let held = session::begin(&cx, &before, session::Begin::default());
    let held = held.await.unwrap().session;
    let subject = "https://id.example.org 1";
    let is = json!({ "subject": subject });
    // Nor does he become somebody whose sessions and keys are held already.
    let op = |name: &str, spec: Value| Op::Patch {
        target: ObjectRef {
            kind: "user".into(),
            project: None,
            name: name.into(),
        },
        body: json!({ "spec": spec }),
    };
    let refused = ask_as(&cx, clerk(), op("chief", is)).await;
    assert_eq!(refused.unwrap_err().status(), 403);
    let came = somebody(subject, "chief", &[]);
    arrives(&cx, "corp", &came).await.unwrap();
    let key = cx.get::<crate::api_key::ApiKey>(None, "mine").unwrap();
    assert!(key.spec.revoked.is_some());
    assert!(cx.get::<session::Session>(None, &held).is_none());
    let other = json!({ "subject": "https://id.example.org 2" });
    let refused = ask_as(&cx, clerk(), op("chief", other)).await;
    assert_eq!(refused.unwrap_err().status(), 403);
}

#[tokio::test]
async fn a_realm_is_no_way_up() {
    let cx = start().await;
    crate::role::make_built_in(&cx).await.unwrap();
    for name in ["boss", "clerk"] {
        create(&cx, "user", name, json!({})).await.unwrap();
        let role = if name == "boss" {
            "superadmin"
        } else {
            "admin"
        };
        create(&cx, "grant", name, json!({ "user": name, "role": role }))
            .await
            .unwrap();
    }
    create(&cx, "group", "owners", json!({})).await.unwrap();
    create(
        &cx,
        "grant",
        "owners",
        json!({ "group": "owners", "role": "superadmin" }),
    )
    .await
    .unwrap();
    let clerk = || Actor::user("clerk", None, None);
    let table = json!({ "group_map": [{ "from": "x", "to": "owners" }] });
    let refused = create_as(&cx, clerk(), "realm", "corp", provider(table.clone())).await;
    assert_eq!(refused.unwrap_err().status(), 403);
    create_as(&cx, clerk(), "realm", "corp", provider(json!({})))
        .await
        .unwrap();
    let op = |kind: &str, name: &str, spec: Value| Op::Patch {
        target: ObjectRef {
            kind: kind.into(),
            project: None,
            name: name.into(),
        },
        body: json!({ "spec": spec }),
    };
    for (kind, name, spec) in [
        ("realm", "corp", table),
        ("group", "owners", json!({ "directory": ["everybody"] })),
    ] {
        let refused = ask_as(&cx, clerk(), op(kind, name, spec)).await;
        assert_eq!(refused.unwrap_err().status(), 403, "{kind}");
    }
    // Nor over somebody above him who comes in by it.
    create(&cx, "user", "chief", json!({ "realm": "corp" }))
        .await
        .unwrap();
    create(
        &cx,
        "grant",
        "chief",
        json!({ "user": "chief", "role": "superadmin" }),
    )
    .await
    .unwrap();
    let moved = provider(json!({ "oidc": { "issuer": "https://mine", "client_id": "dv" } }));
    let refused = ask_as(&cx, clerk(), op("realm", "corp", moved)).await;
    assert_eq!(refused.unwrap_err().status(), 403);
}

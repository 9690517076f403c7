//! A project that runs itself: whoever administers it lets others in, and nobody gets further than that.

use crate::access::tests::{World, create, person, world};
use model::ObjectRef;
use runtime::Op;
use serde_json::{Value, json};

/// pia runs the project `shop`; ann and bob are there and have nothing.
async fn shop() -> World {
    let world = world().await;
    for user in ["ann", "bob"] {
        world
            .root("user", None, user, json!({}), json!({}))
            .await
            .unwrap();
    }
    let things = json!({ "allow": ["thing.*", "project.read"] });
    world
        .root("role", None, "things", json!({}), things)
        .await
        .unwrap();
    let runs = json!({ "parents": ["project-admin", "things"] });
    world
        .root("role", None, "runs-it", json!({}), runs)
        .await
        .unwrap();
    let spec = json!({ "user": "pia", "role": "runs-it", "scope": "project/shop" });
    world.grant("pia", spec).await;
    world.thing("shop", "a", json!({})).await;
    world.thing("shop", "b", json!({ "tier": "web" })).await;
    world.thing("bank", "x", json!({})).await;
    world
}

fn member(project: &str, name: &str, spec: Value) -> Op {
    create("member", Some(project), name, json!({}), spec)
}

fn target(project: &str, kind: &str, name: &str) -> ObjectRef {
    ObjectRef {
        kind: kind.into(),
        project: Some(project.into()),
        name: name.into(),
    }
}

fn read(project: &str, name: &str) -> Op {
    Op::Get {
        target: target(project, "thing", name),
    }
}

#[tokio::test]
async fn who_runs_a_project_lets_others_in_and_puts_them_out() {
    let world = shop().await;
    assert_eq!(world.told("ann", read("shop", "a")).await, 404);
    let spec = json!({ "user": "ann", "role": "things" });
    assert_eq!(world.told("pia", member("shop", "ann", spec)).await, 200);
    assert_eq!(world.told("ann", read("shop", "a")).await, 200);
    assert_eq!(world.told("ann", read("bank", "x")).await, 404);
    // On one object, and on those with a label.
    let spec = json!({ "user": "bob", "role": "things", "object": "thing/a" });
    assert_eq!(world.told("pia", member("shop", "bob", spec)).await, 200);
    assert_eq!(world.told("bob", read("shop", "a")).await, 200);
    assert_eq!(world.told("bob", read("shop", "b")).await, 404);
    let spec = json!({ "user": "bob", "role": "things", "selector": "tier=web" });
    assert_eq!(
        world.told("pia", member("shop", "bob-web", spec)).await,
        200
    );
    assert_eq!(world.told("bob", read("shop", "b")).await, 200);
    // Out again, at once.
    let out = Op::Delete {
        target: target("shop", "member", "ann"),
        keep: Vec::new(),
    };
    assert_eq!(world.told("pia", out).await, 200);
    assert_eq!(world.told("ann", read("shop", "a")).await, 404);
    // He needs to see neither users nor roles for it, and is told of none.
    assert_eq!(
        world
            .told("pia", create("user", None, "new", json!({}), json!({})))
            .await,
        403
    );
    let nobody = json!({ "user": "anne", "role": "things" });
    let error = world
        .ask(person("pia"), None, member("shop", "anne", nobody))
        .await
        .unwrap_err();
    assert_eq!(error.status(), 422);
    assert!(!format!("{error:?}").contains("`ann`"), "{error:?}");
}

#[tokio::test]
async fn nobody_gives_more_than_he_has_nor_beyond_his_project() {
    let world = shop().await;
    let give = |user: &str, role: &str| json!({ "user": user, "role": role });
    for role in ["superadmin", "admin", "operator", "auditor"] {
        let op = member("shop", "more", give("pia", role));
        assert_eq!(world.told("pia", op).await, 403, "{role}");
    }
    // Another project is not there, the cluster's grants and roles are not his.
    let op = member("bank", "pia", give("pia", "things"));
    assert_eq!(world.told("pia", op).await, 404);
    let grant = json!({ "user": "pia", "role": "things", "scope": "project/bank" });
    let op = create("grant", None, "wide", json!({}), grant);
    assert_eq!(world.told("pia", op).await, 403);
    let role = json!({ "allow": ["thing.read"] });
    let op = create("role", None, "own", json!({}), role);
    assert_eq!(world.told("pia", op).await, 403);
    for object in [
        "thing/bank/x",
        "project/bank",
        "user/ann",
        "/",
        "thing/../x",
    ] {
        let spec = json!({ "user": "pia", "role": "things", "object": object });
        let status = world.told("pia", member("shop", "out", spec)).await;
        assert_eq!(status, 422, "{object}");
    }
    // A deputy has what he was given and can pass on no more than that.
    let deputy = json!({ "allow": ["member.*", "thing.read", "project.read"] });
    world
        .root("role", None, "deputy", json!({}), deputy)
        .await
        .unwrap();
    let op = member("shop", "ann", give("ann", "deputy"));
    assert_eq!(world.told("pia", op).await, 200);
    let op = member("shop", "bob", give("bob", "things"));
    assert_eq!(world.told("ann", op).await, 403);
    // Nor change what somebody has who may more, nor put him out.
    let op = member("shop", "bob", give("bob", "things"));
    assert_eq!(world.told("pia", op).await, 200);
    let less = Op::Patch {
        target: target("shop", "member", "bob"),
        body: json!({ "spec": { "role": "deputy" } }),
    };
    assert_eq!(world.told("ann", less).await, 403);
    let out = Op::Delete {
        target: target("shop", "member", "bob"),
        keep: Vec::new(),
    };
    assert_eq!(world.told("ann", out).await, 403);
    // What he has until tonight he gives until tonight at most.
    let end = world
        .cx
        .clock()
        .now()
        .plus(std::time::Duration::from_secs(60));
    let mut spec = give("bob", "deputy");
    spec["expires"] = json!(end);
    let short = Op::Patch {
        target: target("shop", "member", "ann"),
        body: json!({ "spec": { "expires": end } }),
    };
    assert_eq!(world.told("pia", short).await, 200);
    let op = member("shop", "bob-long", give("bob", "deputy"));
    assert_eq!(world.told("ann", op).await, 403);
    assert_eq!(
        world.told("ann", member("shop", "bob-short", spec)).await,
        200
    );
}

#[tokio::test]
async fn nobody_is_shut_out_of_a_project_from_inside() {
    let world = shop().await;
    let nothing = json!({ "allow": ["project.read"], "deny": ["thing.*", "member.*"] });
    world
        .root("role", None, "nothing", json!({}), nothing)
        .await
        .unwrap();
    world
        .grant("root", json!({ "user": "ann", "role": "superadmin" }))
        .await;
    let spec = json!({ "user": "ann", "role": "nothing" });
    assert_eq!(world.told("pia", member("shop", "ann", spec)).await, 200);
    assert_eq!(world.told("ann", read("shop", "a")).await, 200);
    let out = Op::Delete {
        target: target("shop", "member", "ann"),
        keep: Vec::new(),
    };
    assert_eq!(world.told("ann", out).await, 200);
}

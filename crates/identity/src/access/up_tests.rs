//! The ways up that a hostile administrator of a part would try.

use super::tests::{World, create, patch, world};
use model::ObjectRef;
use runtime::{Actor, Op};
use serde_json::{Value, json};

async fn role(world: &World, name: &str, allow: &[&str], deny: &[&str]) {
    let spec = json!({ "allow": allow, "deny": deny });
    world
        .root("role", None, name, json!({}), spec)
        .await
        .unwrap();
}

async fn user(world: &World, name: &str) {
    world
        .root("user", None, name, json!({}), json!({}))
        .await
        .unwrap();
}

fn grant(name: &str, spec: Value) -> Op {
    create("grant", None, name, json!({}), spec)
}

fn gone(kind: &str, name: &str) -> Op {
    Op::Delete {
        target: ObjectRef {
            kind: kind.into(),
            project: None,
            name: name.into(),
        },
        keep: Vec::new(),
    }
}

/// hal may nearly everything with grants, and delete things everywhere but in `bank`.
async fn clerk() -> World {
    let world = world().await;
    let all = [
        "grant.*",
        "role.*",
        "user.*",
        "group.*",
        "thing.*",
        "project.read",
    ];
    role(&world, "clerk", &all, &[]).await;
    role(&world, "no-thing", &[], &["thing.*"]).await;
    role(&world, "things", &["thing.*", "project.read"], &[]).await;
    world
        .grant("hal", json!({ "user": "hal", "role": "clerk" }))
        .await;
    let spec = json!({ "user": "hal", "role": "no-thing", "scope": "project/bank" });
    world.grant("hal-bank", spec).await;
    user(&world, "puppet").await;
    world.thing("shop", "a", json!({})).await;
    world.thing("bank", "x", json!({})).await;
    world
}

#[tokio::test]
async fn what_is_denied_below_is_not_given_from_above() {
    let world = clerk().await;
    // On everything, in that project, on an object of it: in each there is something he has not.
    for scope in ["/", "project/bank", "thing/bank/x"] {
        let spec = json!({ "user": "puppet", "role": "things", "scope": scope });
        assert_eq!(world.told("hal", grant("p", spec)).await, 403, "{scope}");
    }
    let spec = json!({ "user": "puppet", "role": "things", "scope": "project/shop" });
    assert_eq!(world.told("hal", grant("p", spec)).await, 200);
    // A role is for everywhere: he cannot write one with it either.
    let wide = json!({ "allow": ["thing.read"] });
    assert_eq!(
        world
            .told("hal", create("role", None, "wide", json!({}), wide))
            .await,
        403
    );
}

#[tokio::test]
async fn a_denial_is_not_taken_off_by_whom_it_binds() {
    let world = clerk().await;
    assert_eq!(world.told("hal", gone("grant", "hal-bank")).await, 403);
    let elsewhere = patch(
        "grant",
        None,
        "hal-bank",
        json!({ "spec": { "scope": "project/shop" } }),
    );
    assert_eq!(world.told("hal", elsewhere).await, 403);
    let later = patch(
        "grant",
        None,
        "hal-bank",
        json!({ "spec": { "expires": "2000-01-01T00:00:00Z" } }),
    );
    assert_eq!(world.told("hal", later).await, 403);
    let emptied = patch("role", None, "no-thing", json!({ "spec": { "deny": [] } }));
    assert_eq!(world.told("hal", emptied).await, 403);
    // Nor by leaving the group that it binds.
    world
        .root("group", None, "bound", json!({}), json!({}))
        .await
        .unwrap();
    let spec = json!({ "group": "bound", "role": "no-thing", "scope": "project/bank" });
    world.grant("bound", spec).await;
    let root = Actor::administrator("root@unix");
    let join = patch(
        "user",
        None,
        "puppet",
        json!({ "spec": { "groups": ["bound"] } }),
    );
    world.ask(root.clone(), None, join).await.unwrap();
    let spec = json!({ "user": "puppet", "role": "things" });
    world
        .ask(root, None, grant("puppet-all", spec))
        .await
        .unwrap();
    let leave = patch("user", None, "puppet", json!({ "spec": { "groups": [] } }));
    assert_eq!(world.told("hal", leave).await, 403);
}

#[tokio::test]
async fn nobody_shuts_out_who_is_above_him() {
    let world = clerk().await;
    world
        .grant("boss", json!({ "user": "boss", "role": "superadmin" }))
        .await;
    let spec = json!({ "user": "boss", "role": "no-thing", "scope": "project/bank" });
    assert_eq!(world.told("hal", grant("out", spec)).await, 403);
    // Nor where he has it himself; whom he may manage, he may limit.
    let spec = |user: &str| json!({ "user": user, "role": "no-thing", "scope": "project/shop" });
    assert_eq!(world.told("hal", grant("out", spec("boss"))).await, 403);
    assert_eq!(world.told("hal", grant("out", spec("puppet"))).await, 200);
}

#[tokio::test]
async fn what_holds_only_sometimes_is_given_only_so() {
    let world = world().await;
    role(
        &world,
        "clerk",
        &["grant.*", "user.read", "role.read", "project.read"],
        &[],
    )
    .await;
    role(&world, "things", &["thing.*"], &[]).await;
    world
        .grant("ivy", json!({ "user": "ivy", "role": "clerk" }))
        .await;
    let home = json!([{ "type": "network", "networks": ["192.0.2.0/24"] }]);
    let spec =
        json!({ "user": "ivy", "role": "things", "selector": "tier=dev", "conditions": home });
    world.grant("ivy-things", spec).await;
    user(&world, "puppet").await;
    let give = |more: Value| {
        let mut spec = json!({ "user": "puppet", "role": "things" });
        for (name, value) in more.as_object().unwrap() {
            spec[name] = value.clone();
        }
        grant("p", spec)
    };
    assert_eq!(world.told("ivy", give(json!({}))).await, 403);
    assert_eq!(
        world
            .told("ivy", give(json!({ "selector": "tier=dev" })))
            .await,
        403
    );
    assert_eq!(
        world.told("ivy", give(json!({ "conditions": home }))).await,
        403
    );
    let same = json!({ "selector": "tier=dev", "conditions": home });
    assert_eq!(world.told("ivy", give(same)).await, 200);
}

#[tokio::test]
async fn labels_are_no_way_up() {
    let world = world().await;
    role(
        &world,
        "edits",
        &["thing.read", "thing.update", "project.read"],
        &[],
    )
    .await;
    role(&world, "deletes", &["thing.delete"], &[]).await;
    role(&world, "keeps", &[], &["thing.delete"]).await;
    role(&world, "all", &["thing.*", "project.read"], &[]).await;
    world
        .grant("kay", json!({ "user": "kay", "role": "edits" }))
        .await;
    let spec = json!({ "user": "kay", "role": "deletes", "selector": "tier=dev" });
    world.grant("kay-dev", spec).await;
    world
        .grant("lou", json!({ "user": "lou", "role": "all" }))
        .await;
    let spec = json!({ "user": "lou", "role": "keeps", "selector": "keep" });
    world.grant("lou-keeps", spec).await;
    world
        .thing("shop", "prod", json!({ "tier": "prod", "keep": "yes" }))
        .await;
    world.thing("shop", "dev", json!({ "tier": "dev" })).await;
    let label = |name: &str, labels: Value| {
        patch(
            "thing",
            Some("shop"),
            name,
            json!({ "metadata": { "labels": labels } }),
        )
    };
    // Into what he may delete; and out of what he may not.
    assert_eq!(
        world
            .told("kay", label("prod", json!({ "tier": "dev" })))
            .await,
        403
    );
    assert_eq!(
        world
            .told("lou", label("prod", json!({ "keep": null })))
            .await,
        403
    );
    // Other labels, and those of what is his anyway.
    assert_eq!(
        world
            .told("kay", label("prod", json!({ "room": "hall" })))
            .await,
        200
    );
    assert_eq!(
        world
            .told("kay", label("dev", json!({ "tier": "prod" })))
            .await,
        200
    );
    assert_eq!(
        world
            .told("lou", label("dev", json!({ "tier": "dev" })))
            .await,
        200
    );
}

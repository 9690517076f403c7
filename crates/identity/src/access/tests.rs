//! Decisions as people meet them: through the gate, over a real cache, with roles and grants as objects.

use super::*;
use crate::role::make_built_in;
use model::ObjectRef;
use runtime::{Answer, CxBuilder, ManualClock, Op, Query, Registry, Request, Surface};
use serde_json::{Value, json};
use std::net::IpAddr;

mod up;

pub(crate) struct World {
    pub cx: Cx,
    pub clock: Arc<ManualClock>,
}

/// Turns sealed texts round.
struct Mirror;

impl runtime::Seal for Mirror {
    fn seal(&self, _: &str, plain: &str) -> Result<String> {
        Ok(plain.chars().rev().collect())
    }
    fn open(&self, _: &str, sealed: &str) -> Result<String> {
        Ok(sealed.chars().rev().collect())
    }
}

pub(crate) async fn world() -> World {
    let registry = Registry::new(&[
        runtime::SUBSYSTEMS,
        crate::SUBSYSTEMS,
        &[&crate::project::tests::thing::SUBSYSTEM],
    ])
    .unwrap();
    let clock = Arc::new(ManualClock::at(1_800_000_000_000));
    let (rules, access) = parts();
    let cx = CxBuilder::new(registry, store::Memory::new())
        .clock(clock.clone())
        .seal(Arc::new(Mirror))
        .part(rules)
        .part(access)
        .part(crate::quota::part())
        .build()
        .await
        .unwrap();
    make_built_in(&cx).await.unwrap();
    let world = World { cx, clock };
    for project in ["shop", "bank"] {
        world
            .root("project", None, project, json!({}), json!({}))
            .await
            .unwrap();
    }
    world
}

impl World {
    pub async fn ask(&self, actor: Actor, from: Option<&str>, op: Op) -> Result<Answer> {
        let mut request = Request::new("r", actor, Surface::Rest, op);
        request.from = from.map(|ip| ip.parse::<IpAddr>().unwrap());
        let admitted = self.cx.gate().admit(request)?;
        self.cx.desk().carry_out(admitted).await
    }

    pub async fn root(
        &self,
        kind: &str,
        project: Option<&str>,
        name: &str,
        labels: Value,
        spec: Value,
    ) -> Result<Answer> {
        let op = create(kind, project, name, labels, spec);
        self.ask(Actor::administrator("root@unix"), None, op).await
    }

    pub async fn thing(&self, project: &str, name: &str, labels: Value) {
        self.root("thing", Some(project), name, labels, json!({}))
            .await
            .unwrap();
    }

    pub async fn grant(&self, name: &str, spec: Value) {
        if let Some(user) = spec["user"].as_str() {
            match self.root("user", None, user, json!({}), json!({})).await {
                Ok(_) => {}
                // For a second grant.
                Err(error) => assert_eq!(error.code(), "ALREADY_EXISTS", "{error}"),
            }
        }
        self.root("grant", None, name, json!({}), spec)
            .await
            .unwrap();
    }

    /// What a user is told who asks for this.
    pub async fn told(&self, user: &str, op: Op) -> u16 {
        match self.ask(person(user), Some("192.0.2.7"), op).await {
            Ok(_) => 200,
            Err(error) => error.status(),
        }
    }

    pub async fn names(&self, user: &str, kind: &str, project: Option<&str>) -> Vec<String> {
        let op = Op::List {
            kind: kind.into(),
            project: project.map(str::to_owned),
            query: Query::default(),
        };
        match self.ask(person(user), None, op).await.unwrap() {
            Answer::List(listed) => {
                assert_eq!(listed.items.len(), listed.total, "hidden ones are counted");
                let name = |item: &[u8]| {
                    let value: Value = serde_json::from_slice(item).unwrap();
                    value["metadata"]["name"].as_str().unwrap().to_owned()
                };
                listed.items.iter().map(|item| name(item)).collect()
            }
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn person(user: &str) -> Actor {
    Actor::user(user, None, None)
}

pub(crate) fn create(
    kind: &str,
    project: Option<&str>,
    name: &str,
    labels: Value,
    spec: Value,
) -> Op {
    Op::Create {
        kind: kind.into(),
        project: project.map(str::to_owned),
        body: json!({ "metadata": { "name": name, "labels": labels }, "spec": spec }),
    }
}

fn target(kind: &str, project: Option<&str>, name: &str) -> ObjectRef {
    ObjectRef {
        kind: kind.into(),
        project: project.map(str::to_owned),
        name: name.into(),
    }
}

pub(crate) fn patch(kind: &str, project: Option<&str>, name: &str, body: Value) -> Op {
    Op::Patch {
        target: target(kind, project, name),
        body,
    }
}

pub(crate) fn get(project: &str, name: &str) -> Op {
    Op::Get {
        target: target("thing", Some(project), name),
    }
}

pub(crate) fn delete(project: &str, name: &str) -> Op {
    Op::Delete {
        target: target("thing", Some(project), name),
        keep: Vec::new(),
    }
}

/// A role over the test's own kind.
async fn role(world: &World, name: &str, allow: &[&str], deny: &[&str]) {
    world
        .root(
            "role",
            None,
            name,
            json!({}),
            json!({ "allow": allow, "deny": deny }),
        )
        .await
        .unwrap();
}

#[tokio::test]
async fn who_has_no_grant_has_nothing_and_learns_nothing() {
    let world = world().await;
    world.thing("shop", "a", json!({})).await;
    // The project is not there for him, whether it is there or not.
    for project in ["shop", "nowhere"] {
        let error = world
            .ask(person("eve"), None, get(project, "a"))
            .await
            .unwrap_err();
        assert_eq!(error.status(), 404);
        assert_eq!(
            error.to_string(),
            format!("there is no project `{project}`")
        );
        assert!(!format!("{:?}", error.hint).contains("shop"), "{error:?}");
    }
    let list = Op::List {
        kind: "project".into(),
        project: None,
        query: Query::default(),
    };
    assert_eq!(world.told("eve", list).await, 403);
}

#[tokio::test]
async fn a_member_of_one_project_sees_nothing_of_another() {
    let world = world().await;
    role(&world, "things", &["thing.*", "project.read"], &[]).await;
    let spec = json!({ "user": "ann", "role": "things", "scope": "project/shop" });
    world.grant("ann-shop", spec).await;
    world.thing("shop", "a", json!({})).await;
    world.thing("bank", "gold", json!({})).await;
    assert_eq!(world.told("ann", get("shop", "a")).await, 200);
    assert_eq!(world.told("ann", get("bank", "gold")).await, 404);
    assert_eq!(world.told("ann", delete("bank", "gold")).await, 404);
    assert_eq!(world.names("ann", "thing", None).await, ["a"]);
    assert_eq!(world.names("ann", "project", None).await, ["shop"]);
    let typo = world
        .ask(person("ann"), None, get("bonk", "gold"))
        .await
        .unwrap_err();
    assert!(!format!("{typo:?}").contains("bank"), "{typo:?}");
    let op = create("thing", Some("shop"), "b", json!({}), json!({}));
    assert_eq!(world.told("ann", op).await, 200);
    let op = create("thing", Some("bank"), "b", json!({}), json!({}));
    assert_eq!(world.told("ann", op).await, 404);
}

#[tokio::test]
async fn one_object_and_no_other() {
    let world = world().await;
    role(&world, "keeper", &["thing.read", "thing.update"], &[]).await;
    for name in ["web1", "web2"] {
        world.thing("shop", name, json!({})).await;
    }
    let spec = json!({ "user": "bob", "role": "keeper", "scope": "thing/shop/web1" });
    world.grant("bob-web1", spec).await;
    assert_eq!(world.told("bob", get("shop", "web1")).await, 200);
    // He may read it, so he is told what he lacks; of the other he is told nothing.
    assert_eq!(world.told("bob", delete("shop", "web1")).await, 403);
    assert_eq!(world.told("bob", get("shop", "web2")).await, 404);
    assert_eq!(world.told("bob", delete("shop", "web2")).await, 404);
    assert_eq!(world.names("bob", "thing", Some("shop")).await, ["web1"]);
    let apply = |name: &str| Op::Update {
        target: target("thing", Some("shop"), name),
        body: json!({ "metadata": { "name": name }, "spec": {} }),
        create: true,
    };
    assert_eq!(world.told("bob", apply("web1")).await, 200);
    // Apply is no way to create what he may only change.
    let (user, op) = ("bob", apply("web3"));
    assert_eq!(world.told(user, op).await, 403);
}

#[tokio::test]
async fn deeper_beats_upper_and_denial_beats_permission_at_equal_depth() {
    let world = world().await;
    role(&world, "yes", &["thing.*"], &[]).await;
    role(&world, "no", &[], &["thing.delete"]).await;
    for name in ["a", "b", "c"] {
        world.thing("shop", name, json!({})).await;
    }
    for (name, role, scope) in [
        ("g1", "yes", "/"),
        ("g2", "no", "project/shop"),
        ("g3", "yes", "thing/shop/b"),
        ("g4", "yes", "thing/shop/c"),
        ("g5", "no", "thing/shop/c"),
    ] {
        let spec = json!({ "user": "cy", "role": role, "scope": scope });
        world.grant(name, spec).await;
    }
    assert_eq!(world.told("cy", delete("shop", "a")).await, 403);
    assert_eq!(world.told("cy", delete("shop", "c")).await, 403);
    assert_eq!(world.told("cy", delete("shop", "b")).await, 200);
    let rules = of(&world.cx).unwrap();
    let question = |object: &str| Question {
        action: "thing.delete".into(),
        object: object.into(),
        from: None,
        mfa: false,
    };
    let said = explain(&world.cx, &rules, "cy", &question("thing/shop/c")).unwrap();
    assert!(!said.allowed);
    let first = &said.grants[0];
    assert_eq!(
        (&*first.grant, first.says, first.decides),
        ("g5", "deny", true)
    );
    assert_eq!(
        said.verdict,
        "grant `g5` (role `no` on thing/shop/c) denies it"
    );
    assert_eq!(said.grants.iter().filter(|g| g.decides).count(), 1);
    let can = who_can(&world.cx, &rules, &question("thing/bank/x")).unwrap();
    assert_eq!(can.iter().map(|e| &*e.subject).collect::<Vec<_>>(), ["cy"]);
}

#[tokio::test]
async fn labels_hours_and_networks_narrow_a_grant() {
    let world = world().await;
    role(&world, "reader", &["thing.read"], &[]).await;
    world.thing("shop", "web", json!({ "tier": "web" })).await;
    world.thing("shop", "db", json!({ "tier": "db" })).await;
    world
        .grant(
            "dan",
            json!({
                "user": "dan", "role": "reader", "scope": "project/shop", "selector": "tier=web",
                "conditions": [
                    { "type": "network", "networks": ["192.0.2.0/24"] },
                    { "type": "time_range", "from": "00:00", "to": "12:00" },
                ],
            }),
        )
        .await;
    let noon = |world: &World, hour: u64| {
        let day = 24 * 3600 * 1000;
        let now = world.cx.clock().now().millis() as u64;
        let then = (now / day + 1) * day + hour * 3600 * 1000;
        world.clock.pass((then - now) as u32);
    };
    noon(&world, 9);
    let ask = async |name: &str, from: Option<&str>| match world
        .ask(person("dan"), from, get("shop", name))
        .await
    {
        Ok(_) => 200,
        Err(error) => error.status(),
    };
    assert_eq!(ask("web", Some("192.0.2.9")).await, 200);
    assert_eq!(ask("db", Some("192.0.2.9")).await, 404);
    assert_eq!(ask("web", Some("198.51.100.9")).await, 404);
    assert_eq!(ask("web", None).await, 404);
    noon(&world, 13);
    assert_eq!(ask("web", Some("192.0.2.9")).await, 404);
    let rules = of(&world.cx).unwrap();
    let question = Question {
        action: "thing.read".into(),
        object: "thing/shop/web".into(),
        from: Some("198.51.100.9".parse().unwrap()),
        mfa: false,
    };
    let said = explain(&world.cx, &rules, "dan", &question).unwrap();
    assert_eq!(
        said.grants[0].failed,
        [
            "only from the network 192.0.2.0/24",
            "only from 00:00 to 12:00 (UTC)"
        ]
    );
}

#[tokio::test]
async fn who_may_only_under_conditions_is_named_with_them() {
    let world = world().await;
    role(&world, "reader", &["thing.read"], &[]).await;
    role(&world, "locked", &[], &["thing.read"]).await;
    world.thing("shop", "web", json!({ "tier": "web" })).await;
    // It is 08:00: `night` may later, `office` may now.
    let hours = |from: &str, to: &str| json!({ "type": "time_range", "from": from, "to": to });
    let near = json!({ "type": "network", "networks": ["192.0.2.0/24"] });
    let db = json!({ "type": "tag", "key": "tier", "value": "db" });
    for (name, user, role, when) in [
        (
            "night",
            "night",
            "reader",
            json!([hours("20:00", "04:00"), near]),
        ),
        (
            "office",
            "office",
            "reader",
            json!([hours("06:00", "12:00")]),
        ),
        ("always", "always", "reader", json!([])),
        ("never", "never", "reader", json!([hours("20:00", "04:00")])),
        ("never-1", "never", "locked", json!([])),
        ("other", "other", "reader", json!([db])),
        ("but", "but", "reader", json!([])),
        ("but-1", "but", "locked", json!([hours("06:00", "12:00")])),
    ] {
        let spec =
            json!({ "user": user, "role": role, "scope": "project/shop", "conditions": when });
        world.grant(name, spec).await;
    }
    let rules = of(&world.cx).unwrap();
    let can = |from: Option<&str>| {
        let question = Question {
            action: "thing.read".into(),
            object: "thing/shop/web".into(),
            from: from.map(|ip| ip.parse().unwrap()),
            mfa: false,
        };
        let mut can = who_can(&world.cx, &rules, &question).unwrap();
        can.sort_by(|a, b| a.subject.cmp(&b.subject));
        let one = |e: Explained| (e.subject, e.allowed, e.conditions.join("; or "));
        can.into_iter().map(one).collect::<Vec<_>>()
    };
    let is = |user: &str, now: bool, when: &str| (user.to_owned(), now, when.to_owned());
    let always = is("always", true, "");
    let but = is(
        "but",
        false,
        "unless grant `but-1` denies it (only from 06:00 to 12:00 (UTC))",
    );
    let night = "only from 20:00 to 04:00 (UTC), only from the network 192.0.2.0/24";
    let office = is("office", true, "only from 06:00 to 12:00 (UTC)");
    let everybody = [
        always.clone(),
        but.clone(),
        is("night", false, night),
        office.clone(),
    ];
    assert_eq!(can(None), everybody);
    assert_eq!(can(Some("192.0.2.7")), everybody);
    // From there he may at no time.
    assert_eq!(can(Some("198.51.100.9")), [always, but, office]);
}

#[tokio::test]
async fn a_right_that_is_taken_is_gone_for_the_next_request() {
    let world = world().await;
    role(&world, "reader", &["thing.read"], &[]).await;
    world.thing("shop", "a", json!({})).await;
    let spec = json!({ "user": "fay", "role": "reader" });
    world.grant("fay", spec).await;
    assert_eq!(world.told("fay", get("shop", "a")).await, 200);
    let root = Actor::administrator("root@unix");
    let patch = Op::Patch {
        target: target("role", None, "reader"),
        body: json!({ "spec": { "allow": ["thing.update"] } }),
    };
    world.ask(root.clone(), None, patch).await.unwrap();
    assert_eq!(world.told("fay", get("shop", "a")).await, 403);
    let patch = Op::Patch {
        target: target("role", None, "reader"),
        body: json!({ "spec": { "allow": ["thing.read"] } }),
    };
    world.ask(root.clone(), None, patch).await.unwrap();
    assert_eq!(world.told("fay", get("shop", "a")).await, 200);
    let gone = Op::Delete {
        target: target("grant", None, "fay"),
        keep: Vec::new(),
    };
    world.ask(root, None, gone).await.unwrap();
    assert_eq!(world.told("fay", get("shop", "a")).await, 404);
}

#[tokio::test]
async fn a_grant_ends_when_it_says() {
    let world = world().await;
    role(&world, "reader", &["thing.read"], &[]).await;
    world.thing("shop", "a", json!({})).await;
    let end = world
        .cx
        .clock()
        .now()
        .plus(std::time::Duration::from_secs(60));
    let spec = json!({ "user": "gil", "role": "reader", "expires": end });
    world.grant("gil", spec).await;
    assert_eq!(world.told("gil", get("shop", "a")).await, 200);
    world.clock.pass(60_000);
    assert_eq!(world.told("gil", get("shop", "a")).await, 404);
}

#[tokio::test]
async fn nobody_gives_what_he_does_not_have() {
    let world = world().await;
    role(
        &world,
        "clerk",
        &[
            "grant.*",
            "role.*",
            "user.read",
            "thing.read",
            "project.read",
        ],
        &[],
    )
    .await;
    let spec = json!({ "user": "hal", "role": "clerk" });
    world.grant("hal", spec).await;
    let give = |role: &str| {
        let spec = json!({ "user": "hal", "role": role });
        create("grant", None, "more", json!({}), spec)
    };
    assert_eq!(world.told("hal", give("superadmin")).await, 403);
    assert_eq!(world.told("hal", give("auditor")).await, 403);
    let write = |name: &str, spec: Value| create("role", None, name, json!({}), spec);
    let wide = json!({ "allow": ["thing.delete"] });
    assert_eq!(world.told("hal", write("wide", wide)).await, 403);
    // Neither by a parent, nor by widening the role that he holds.
    let heir = json!({ "parents": ["superadmin"] });
    assert_eq!(world.told("hal", write("heir", heir)).await, 403);
    let widen = Op::Patch {
        target: target("role", None, "clerk"),
        body: json!({ "spec": { "allow": ["*"] } }),
    };
    assert_eq!(world.told("hal", widen).await, 403);
    let narrow = json!({ "allow": ["thing.read"] });
    assert_eq!(world.told("hal", write("narrow", narrow)).await, 200);
    assert_eq!(world.told("hal", give("narrow")).await, 200);
}

#[tokio::test]
async fn built_in_roles_stay_as_they_are() {
    let world = world().await;
    let root = Actor::administrator("root@unix");
    let change = Op::Patch {
        target: target("role", None, "viewer"),
        body: json!({ "spec": { "allow": ["*"] } }),
    };
    let error = world.ask(root.clone(), None, change).await.unwrap_err();
    assert_eq!(error.status(), 409, "{error}");
    let gone = Op::Delete {
        target: target("role", None, "viewer"),
        keep: Vec::new(),
    };
    let error = world.ask(root, None, gone).await.unwrap_err();
    assert_eq!(error.status(), 409, "{error}");
}

#[tokio::test]
async fn a_watch_shows_what_its_watcher_may_see_and_no_more() {
    use futures::StreamExt;
    let world = world().await;
    role(&world, "reader", &["thing.read"], &[]).await;
    let spec = json!({ "user": "ida", "role": "reader", "scope": "project/shop" });
    world.grant("ida", spec).await;
    world.thing("shop", "a", json!({})).await;
    world.thing("bank", "x", json!({})).await;
    let op = Op::Watch {
        kind: "thing".into(),
        project: None,
        name: None,
        query: Query::default(),
        after: None,
    };
    let request = Request::new("w", person("ida"), Surface::Watch, op);
    let admitted = world.cx.gate().admit(request).unwrap();
    let mut events = world.cx.desk().watch(&admitted).unwrap();
    let mut seen = Vec::new();
    world.thing("bank", "y", json!({})).await;
    world.thing("shop", "b", json!({})).await;
    while seen.len() < 2 {
        match events.next().await.unwrap().unwrap() {
            runtime::WatchEvent::Put { object, .. } => {
                let value: Value = serde_json::from_slice(&object).unwrap();
                seen.push(format!(
                    "{}/{}",
                    value["metadata"]["project"].as_str().unwrap(),
                    value["metadata"]["name"].as_str().unwrap()
                ));
            }
            runtime::WatchEvent::Bookmark(_) => {}
            runtime::WatchEvent::Deleted { .. } => panic!("nothing was deleted"),
        }
    }
    assert_eq!(seen, ["shop/a", "shop/b"]);
}

#[tokio::test]
async fn bad_grants_and_roles_name_what_is_wrong() {
    let world = world().await;
    let cases = [
        ("grant", json!({ "role": "viewer" }), "spec.user"),
        (
            "grant",
            json!({ "user": "a", "group": "b", "role": "viewer" }),
            "spec.user",
        ),
        (
            "grant",
            json!({ "user": "a", "role": "nobody" }),
            "spec.role",
        ),
        (
            "grant",
            json!({ "user": "a", "role": "viewer", "scope": "shop" }),
            "spec.scope",
        ),
        (
            "grant",
            json!({ "user": "a", "role": "viewer", "scope": "thing/web1" }),
            "spec.scope",
        ),
        (
            "grant",
            json!({ "user": "a", "role": "viewer", "conditions": [{ "type": "network", "networks": [] }] }),
            "spec.conditions[0].networks",
        ),
        ("role", json!({ "allow": ["thing.reed"] }), "spec.allow[0]"),
        ("role", json!({ "deny": ["everything"] }), "spec.deny[0]"),
        ("role", json!({ "parents": ["new"] }), "spec.parents"),
    ];
    for (kind, spec, field) in cases {
        let error = world
            .root(kind, None, "new", json!({}), spec.clone())
            .await
            .unwrap_err();
        assert_eq!(error.status(), 422, "{spec} {error}");
        let problem = serde_json::to_string(&error.problem("r")).unwrap();
        assert!(problem.contains(field), "{spec}: {problem}");
    }
}

#[tokio::test]
async fn groups_lift_nobody_above_who_puts_him_there() {
    let world = world().await;
    world
        .root("group", None, "chiefs", json!({}), json!({}))
        .await
        .unwrap();
    let spec = json!({ "group": "chiefs", "role": "superadmin" });
    world.grant("chiefs", spec).await;
    role(
        &world,
        "office",
        &["user.*", "group.read", "project.read"],
        &[],
    )
    .await;
    world
        .grant("jo", json!({ "user": "jo", "role": "office" }))
        .await;
    let user = |name: &str, groups: &[&str]| {
        create("user", None, name, json!({}), json!({ "groups": groups }))
    };
    assert_eq!(world.told("jo", user("kim", &[])).await, 200);
    assert_eq!(world.told("jo", user("lee", &["chiefs"])).await, 403);
    let join = |name: &str| Op::Patch {
        target: target("user", None, name),
        body: json!({ "spec": { "groups": ["chiefs"] } }),
    };
    assert_eq!(world.told("jo", join("kim")).await, 403);
    assert_eq!(world.told("jo", join("jo")).await, 403);
    // Who is in the group is above him: neither changed, nor switched off, nor deleted.
    let root = Actor::administrator("root@unix");
    world.ask(root.clone(), None, join("kim")).await.unwrap();
    let rename = Op::Patch {
        target: target("user", None, "kim"),
        body: json!({ "spec": { "full_name": "Kim" } }),
    };
    assert_eq!(world.told("jo", rename).await, 403);
    let gone = Op::Delete {
        target: target("user", None, "kim"),
        keep: Vec::new(),
    };
    assert_eq!(world.told("jo", gone.clone()).await, 403);
    // And the last of them stays, whoever asks.
    let error = world.ask(root, None, gone).await.unwrap_err();
    assert_eq!(error.status(), 409, "{error}");
}

/// Also where nobody asks for his login any more: in a batch, on an open socket, with a key of his.
#[tokio::test]
async fn who_is_disabled_or_gone_may_do_nothing_and_stays_above_others() {
    let world = world().await;
    world.thing("shop", "a", json!({})).await;
    world
        .grant("gil", json!({ "user": "gil", "role": "superadmin" }))
        .await;
    world
        .grant("hal", json!({ "user": "hal", "role": "superadmin" }))
        .await;
    world
        .grant("ida", json!({ "user": "ida", "role": "admin" }))
        .await;
    assert_eq!(world.told("gil", get("shop", "a")).await, 200);
    let active = |on: bool| Op::Patch {
        target: target("user", None, "gil"),
        body: json!({ "spec": { "active": on } }),
    };
    let root = || Actor::administrator("root@unix");
    world.ask(root(), None, active(false)).await.unwrap();
    assert_eq!(world.told("gil", get("shop", "a")).await, 404);
    assert!(manages(&world.cx, &person("ida"), "gil").is_err());
    world.ask(root(), None, active(true)).await.unwrap();
    assert_eq!(world.told("gil", get("shop", "a")).await, 200);
    // Nobody of this name is there.
    assert_eq!(world.told("jo", get("shop", "a")).await, 404);
}

/// Nor does an error say who uses what one wants to delete.
#[tokio::test]
async fn what_stands_in_the_way_is_named_to_who_may_read_it() {
    let world = world().await;
    world
        .root("group", None, "ops", json!({}), json!({}))
        .await
        .unwrap();
    let spec = json!({ "groups": ["ops"] });
    world
        .root("user", None, "olga", json!({}), spec)
        .await
        .unwrap();
    role(&world, "groups", &["group.*"], &[]).await;
    role(&world, "people", &["group.*", "user.read"], &[]).await;
    for (user, role, told) in [("jan", "groups", false), ("kim", "people", true)] {
        world
            .grant(user, json!({ "user": user, "role": role }))
            .await;
        let op = Op::Delete {
            target: target("group", None, "ops"),
            keep: Vec::new(),
        };
        let error = world.ask(person(user), None, op).await.unwrap_err();
        assert_eq!(error.to_string().contains("olga"), told, "{user}: {error}");
        assert!(error.to_string().contains("is used by"), "{error}");
    }
}

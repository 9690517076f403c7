//! No way up and no way to shut out, as people try it.

use super::*;
use crate::factor::{self, Sort};
use crate::session::{self, Begin};
use crate::user::User;

/// Most of what may be given, and all of what it is given with.
const BOSS: &[&str] = &[
    "grant.*",
    "role.*",
    "user.*",
    "group.*",
    "factor.*",
    "session.*",
    "api-key.*",
    "thing.*",
    "project.read",
];

async fn boss(world: &World, user: &str) {
    if world.cx.get::<role::Role>(None, "boss").is_none() {
        role(world, "boss", BOSS, &[]).await;
    }
    let spec = json!({ "user": user, "role": "boss" });
    world.grant(&format!("{user}-boss"), spec).await;
}

fn patch(kind: &str, name: &str, spec: Value) -> Op {
    Op::Patch {
        target: target(kind, None, name),
        body: json!({ "spec": spec }),
    }
}

fn gone(kind: &str, name: &str) -> Op {
    Op::Delete {
        target: target(kind, None, name),
        keep: Vec::new(),
    }
}

fn give(name: &str, spec: Value) -> Op {
    create("grant", None, name, json!({}), spec)
}

async fn by_root(world: &World, op: Op) -> u16 {
    match world.ask(Actor::administrator("root@unix"), None, op).await {
        Ok(_) => 200,
        Err(error) => error.status(),
    }
}

#[tokio::test]
async fn a_denial_is_lifted_only_by_who_holds_what_it_denies() {
    let world = world().await;
    role(&world, "careful", &[], &["thing.delete"]).await;
    for name in ["al", "bo", "di"] {
        boss(&world, name).await;
    }
    let spec = json!({ "user": "al", "role": "careful" });
    world.grant("al-careful", spec).await;
    let fence = create("group", None, "fence", json!({}), json!({}));
    assert_eq!(by_root(&world, fence).await, 200);
    let spec = json!({ "group": "fence", "role": "careful" });
    world.grant("fence", spec).await;
    let inside = patch("user", "di", json!({ "groups": ["fence"] }));
    assert_eq!(by_root(&world, inside).await, 200);
    let heir = json!({ "parents": ["boss", "careful"] });
    let heir = create("role", None, "heir", json!({}), heir);
    assert_eq!(by_root(&world, heir).await, 200);
    let end = world
        .cx
        .clock()
        .now()
        .plus(std::time::Duration::from_secs(1));
    for (who, op) in [
        ("al", gone("grant", "al-careful")),
        (
            "al",
            patch("grant", "al-careful", json!({ "expires": end })),
        ),
        (
            "al",
            patch("grant", "al-careful", json!({ "selector": "a=b" })),
        ),
        (
            "al",
            patch("grant", "al-careful", json!({ "propagate": false })),
        ),
        ("al", patch("role", "careful", json!({ "deny": [] }))),
        ("al", patch("role", "heir", json!({ "parents": ["boss"] }))),
        ("di", patch("user", "di", json!({ "groups": [] }))),
        ("di", gone("grant", "fence")),
    ] {
        let said = format!("{op:?}");
        assert_eq!(world.told(who, op).await, 403, "{who} {said}");
    }
    // Who holds it may.
    assert_eq!(world.told("bo", gone("grant", "al-careful")).await, 200);
    let out = patch("user", "di", json!({ "groups": [] }));
    assert_eq!(world.told("bo", out).await, 200);
    let op = patch("role", "careful", json!({ "deny": [] }));
    assert_eq!(world.told("bo", op).await, 200);
}

#[tokio::test]
async fn nobody_is_shut_out_by_who_is_below_him() {
    let world = world().await;
    boss(&world, "al").await;
    for name in ["sam", "tom"] {
        let spec = json!({ "user": name, "role": "superadmin" });
        world.grant(&format!("{name}-all"), spec).await;
    }
    let cx = &world.cx;
    for (name, kind, spec) in [
        ("chiefs", "group", json!({})),
        ("low", "user", json!({})),
        ("nothing", "role", json!({ "deny": ["*"] })),
        ("plain", "role", json!({ "allow": ["thing.read"] })),
        ("fewer", "role", json!({ "deny": ["thing.delete"] })),
        ("high", "role", json!({ "allow": ["setting.update"] })),
    ] {
        let op = create(kind, None, name, json!({}), spec);
        assert_eq!(by_root(&world, op).await, 200, "{name}");
    }
    let spec = json!({ "user": "sam", "role": "plain" });
    world.grant("sam-plain", spec).await;
    let inside = patch("user", "sam", json!({ "groups": ["chiefs"] }));
    assert_eq!(by_root(&world, inside).await, 200);
    let mut below = Vec::new();
    for name in ["sam", "low"] {
        let user = cx.get::<User>(None, name).unwrap();
        let factor = format!("password-{name}");
        factor::replace(cx, &user, &factor, Sort::Password, "x".into(), None)
            .await
            .unwrap();
        let given = session::begin(cx, &user, Begin::default()).await.unwrap();
        let key = format!("key-{name}");
        let op = create("api-key", None, &key, json!({}), json!({ "owner": name }));
        assert_eq!(by_root(&world, op).await, 200);
        below.push([
            gone("factor", &factor),
            gone("session", &given.session),
            gone("api-key", &key),
        ]);
    }
    let [sams, lows] = below.try_into().unwrap();
    let tries = [
        give("g1", json!({ "user": "sam", "role": "nothing" })),
        give(
            "g2",
            json!({ "user": "sam", "role": "nothing", "scope": "project/shop" }),
        ),
        give("g3", json!({ "group": "chiefs", "role": "nothing" })),
        give("g4", json!({ "key": "key-sam", "role": "nothing" })),
        patch("role", "high", json!({ "allow": [] })),
        patch("role", "plain", json!({ "deny": ["*"] })),
        // Nor with what he has himself.
        give("g0", json!({ "user": "sam", "role": "fewer" })),
        patch(
            "role",
            "plain",
            json!({ "allow": [], "deny": ["thing.read"] }),
        ),
    ];
    for op in tries.into_iter().chain(sams) {
        let said = format!("{op:?}");
        assert_eq!(world.told("al", op).await, 403, "{said}");
    }
    let mine = [
        give("g5", json!({ "user": "low", "role": "nothing" })),
        give("g6", json!({ "user": "low", "role": "plain" })),
        patch("role", "plain", json!({ "description": "Reads" })),
    ];
    for op in mine.into_iter().chain(lows) {
        let said = format!("{op:?}");
        assert_eq!(world.told("al", op).await, 200, "{said}");
    }
}

#[tokio::test]
async fn a_key_is_never_rid_of_its_limits() {
    let world = world().await;
    let spec = json!({ "user": "sam", "role": "superadmin" });
    world.grant("sam", spec).await;
    let allowed = json!([
        "api-key.create",
        "api-key.update",
        "api-key.read",
        "user.update",
        "user.read"
    ]);
    for (name, spec) in [
        ("small", json!({ "owner": "sam", "privileges": allowed })),
        ("whole", json!({ "owner": "sam" })),
    ] {
        let op = create("api-key", None, name, json!({}), spec);
        assert_eq!(by_root(&world, op).await, 200, "{name}");
    }
    let another = || {
        create(
            "api-key",
            None,
            "more",
            json!({}),
            json!({ "owner": "sam" }),
        )
    };
    for (key, op, wanted) in [
        ("small", another(), 403),
        (
            "small",
            patch("api-key", "small", json!({ "privileges": null })),
            403,
        ),
        (
            "small",
            patch("user", "sam", json!({ "full_name": "Sam" })),
            403,
        ),
        ("whole", another(), 200),
    ] {
        let said = format!("{key} {op:?}");
        let status = match world.ask(Actor::key(key, "s1", "sam"), None, op).await {
            Ok(_) => 200,
            Err(error) => error.status(),
        };
        assert_eq!(status, wanted, "{said}");
    }
    // One that is held to networks makes none that is not.
    let spec = json!({ "user": "tom", "role": "superadmin" });
    world.grant("tom", spec).await;
    let near = json!({ "owner": "tom", "networks": ["192.0.2.0/24"] });
    let op = create("api-key", None, "near", json!({}), near);
    assert_eq!(by_root(&world, op).await, 200);
    let free = json!({ "owner": "tom" });
    for op in [
        create("api-key", None, "free", json!({}), free),
        patch("api-key", "near", json!({ "networks": [] })),
    ] {
        let said = format!("{op:?}");
        let asked = world.ask(Actor::key("near", "s1", "tom"), None, op).await;
        assert_eq!(asked.unwrap_err().status(), 403, "{said}");
    }
}

#[tokio::test]
async fn what_is_given_is_held_whole_and_for_good() {
    let world = world().await;
    role(
        &world,
        "clerk",
        &["grant.create", "user.read", "role.read"],
        &[],
    )
    .await;
    role(&world, "things", &["thing.*"], &[]).await;
    role(&world, "fewer", &[], &["thing.delete"]).await;
    role(&world, "secrets", &["secret.read"], &[]).await;
    role(&world, "both", &["thing.*", "secret.read"], &[]).await;
    let end = world
        .cx
        .clock()
        .now()
        .plus(std::time::Duration::from_secs(3600));
    let pal = create("user", None, "pal", json!({}), json!({}));
    assert_eq!(by_root(&world, pal).await, 200);
    let g = |role: &str, scope: &str| json!({ "role": role, "scope": scope });
    let with = |mut spec: Value, name: &str, value: Value| {
        spec[name] = value;
        spec
    };
    let (all, shop, bank, web1) = ("/", "project/shop", "project/bank", "thing/shop/web1");
    // What somebody has, and what becomes of what he wants to give.
    let cases = [
        (
            vec![g("things", all)],
            vec![(g("things", all), 200), (g("things", web1), 200)],
        ),
        (
            vec![g("things", all), g("fewer", bank)],
            vec![
                (g("things", all), 403),
                (g("things", bank), 403),
                (g("things", shop), 200),
            ],
        ),
        (
            vec![
                g("things", all),
                with(g("fewer", all), "selector", json!("tier=db")),
            ],
            vec![(g("things", all), 403), (g("things", shop), 403)],
        ),
        (
            vec![g("things", shop), g("fewer", all)],
            vec![(g("things", shop), 200), (g("things", all), 403)],
        ),
        (
            vec![with(g("things", all), "propagate", json!(false))],
            vec![(g("things", all), 403)],
        ),
        (
            vec![with(g("things", all), "expires", json!(end))],
            vec![(g("things", all), 403)],
        ),
        (
            vec![with(g("things", all), "selector", json!("!x"))],
            vec![(g("things", all), 403)],
        ),
        (
            vec![with(
                g("things", all),
                "conditions",
                json!([{ "type": "attribute", "name": "kind", "value": "user" }]),
            )],
            vec![(g("things", all), 403)],
        ),
        (
            vec![g("things", web1), g("secrets", "secret/shop/web1")],
            vec![
                (g("things", web1), 200),
                (g("both", web1), 403),
                (g("things", shop), 403),
            ],
        ),
    ];
    for (at, (has, wants)) in cases.into_iter().enumerate() {
        let user = format!("u{at}");
        let spec = json!({ "user": user, "role": "clerk" });
        world.grant(&format!("{user}-clerk"), spec).await;
        for (n, has) in has.into_iter().enumerate() {
            world
                .grant(&format!("{user}-{n}"), with(has, "user", json!(user)))
                .await;
        }
        for (n, (wish, wanted)) in wants.into_iter().enumerate() {
            let op = give(
                &format!("{user}-pal-{n}"),
                with(wish.clone(), "user", json!("pal")),
            );
            assert_eq!(world.told(&user, op).await, wanted, "case {at}: {wish}");
        }
    }
}

#[tokio::test]
async fn parents_that_repeat_cost_nothing_and_none_is_left_out() {
    let world = world().await;
    for n in 0..9 {
        let parents: Vec<String> = match n {
            0 => Vec::new(),
            n => vec![format!("r{}", n - 1); 20],
        };
        let op = create(
            "role",
            None,
            &format!("r{n}"),
            json!({}),
            json!({ "parents": parents }),
        );
        assert_eq!(by_root(&world, op).await, 200, "r{n}");
    }
    // Grown at the top, a row is longer than a new one may be; the denial at its end counts.
    role(&world, "d1", &[], &["thing.delete"]).await;
    for (name, parent) in [("d0", "d1"), ("c0", "d1")] {
        let spec = json!({ "parents": [parent], "allow": ["thing.*"] });
        let op = create("role", None, name, json!({}), spec);
        assert_eq!(by_root(&world, op).await, 200, "{name}");
    }
    let cut = patch("role", "c0", json!({ "parents": [] }));
    assert_eq!(by_root(&world, cut).await, 200);
    for n in 1..10 {
        let spec = json!({ "parents": [format!("c{}", n - 1)] });
        let op = create("role", None, &format!("c{n}"), json!({}), spec);
        assert_eq!(by_root(&world, op).await, 200, "c{n}");
    }
    let grown = patch("role", "c0", json!({ "parents": ["d0"] }));
    assert_eq!(by_root(&world, grown).await, 200);
    let spec = json!({ "user": "al", "role": "c9" });
    world.grant("al", spec).await;
    world.thing("shop", "a", json!({})).await;
    assert_eq!(world.told("al", get("shop", "a")).await, 200);
    assert_eq!(world.told("al", delete("shop", "a")).await, 403);
}

#[tokio::test]
async fn the_last_superadmin_stays_and_stays_whole() {
    let world = world().await;
    let op = create("group", None, "chiefs", json!({}), json!({}));
    assert_eq!(by_root(&world, op).await, 200);
    let spec = json!({ "group": "chiefs", "role": "superadmin" });
    world.grant("chiefs", spec).await;
    role(&world, "nothing", &[], &["*"]).await;
    let op = create(
        "user",
        None,
        "sam",
        json!({}),
        json!({ "groups": ["chiefs"] }),
    );
    assert_eq!(by_root(&world, op).await, 200);
    let out = || patch("user", "sam", json!({ "groups": [] }));
    let cut = || give("cut", json!({ "user": "sam", "role": "nothing" }));
    for op in [out(), cut(), gone("user", "sam")] {
        let said = format!("{op:?}");
        assert_eq!(by_root(&world, op).await, 409, "{said}");
    }
    let spec = json!({ "user": "tom", "role": "superadmin" });
    world.grant("tom", spec).await;
    assert_eq!(by_root(&world, cut()).await, 200);
    // Sam is none any more: nothing is left to him.
    assert_eq!(by_root(&world, gone("grant", "tom")).await, 409);
    assert_eq!(by_root(&world, out()).await, 200);
}

#[tokio::test]
async fn nobody_is_called_like_who_the_machine_vouches_for() {
    let world = world().await;
    for (name, username) in [
        ("administrator", ""),
        ("x", "administrator"),
        ("y", "adrninistrator"),
        ("z", "Admin1strator"),
    ] {
        let spec = json!({ "username": username });
        let op = create("user", None, name, json!({}), spec);
        assert_eq!(by_root(&world, op).await, 422, "{name} {username}");
    }
}

#[tokio::test]
async fn where_a_secret_is_sent_is_said_by_who_may_see_it() {
    let world = world().await;
    let most = ["secret-backend.*", "secret.read", "project.read"];
    role(&world, "half", &most, &[]).await;
    role(
        &world,
        "whole",
        &["secret-backend.*", "secret.*", "project.read"],
        &[],
    )
    .await;
    for name in ["half", "whole"] {
        let spec = json!({ "user": name, "role": name });
        world.grant(name, spec).await;
    }
    for name in ["token", "other"] {
        let made = world.root(
            "secret",
            Some("shop"),
            name,
            json!({}),
            json!({ "value": "x" }),
        );
        made.await.unwrap();
    }
    let backend = |address: &str, secret: &str| json!({ "address": address, "auth": { "method": "token", "secret": secret } });
    let spec = backend("https://mine.example", "shop/token");
    let make = || create("secret-backend", None, "vault", json!({}), spec.clone());
    assert_eq!(world.told("half", make()).await, 403);
    assert_eq!(world.told("whole", make()).await, 200);
    let there = patch("secret-backend", "vault", json!({ "mount": "kv" }));
    assert_eq!(world.told("half", there).await, 200);
    for spec in [
        json!({ "address": "https://theirs.example" }),
        json!({ "auth": { "method": "token", "secret": "shop/other" } }),
    ] {
        let op = || patch("secret-backend", "vault", spec.clone());
        assert_eq!(world.told("half", op()).await, 403, "{spec}");
        assert_eq!(world.told("whole", op()).await, 200, "{spec}");
    }
}

#[tokio::test]
async fn a_project_names_what_is_its_own_in_a_key_server() {
    let world = world().await;
    let root = world.root(
        "secret",
        Some("shop"),
        "token",
        json!({}),
        json!({ "value": "x" }),
    );
    root.await.unwrap();
    let auth = json!({ "method": "token", "secret": "shop/token" });
    let spec = json!({ "address": "https://vault.example", "auth": auth });
    let made = world.root("secret-backend", None, "vault", json!({}), spec);
    made.await.unwrap();
    role(&world, "tenant", &["secret.*", "project.read"], &[]).await;
    role(&world, "sees", &["secret-backend.read"], &[]).await;
    let spec = json!({ "user": "ten", "role": "tenant", "scope": "project/shop" });
    world.grant("ten", spec).await;
    world
        .grant("ten-sees", json!({ "user": "ten", "role": "sees" }))
        .await;
    let at = |path: &str| json!({ "backend": "vault", "path": path });
    for (n, (path, wanted)) in [
        ("shop/db", 200),
        ("bank/db", 403),
        ("shopping/db", 403),
        ("shop", 403),
        ("apps/shop/db", 403),
    ]
    .into_iter()
    .enumerate()
    {
        let op = create(
            "secret",
            Some("shop"),
            &format!("s{n}"),
            json!({}),
            at(path),
        );
        assert_eq!(world.told("ten", op).await, wanted, "{path}");
    }
    let op = |name: &str, spec: Value| Op::Patch {
        target: target("secret", Some("shop"), name),
        body: json!({ "spec": spec }),
    };
    assert_eq!(
        world
            .told("ten", op("s0", json!({ "path": "bank/db" })))
            .await,
        403
    );
    // What was set by who may stays, and goes nowhere else.
    let set = world.root("secret", Some("shop"), "ours", json!({}), at("apps/all"));
    set.await.unwrap();
    let words = op("ours", json!({ "description": "Of all" }));
    let other = op("ours", json!({ "field": "admin" }));
    assert_eq!(world.told("ten", words).await, 200);
    assert_eq!(world.told("ten", other).await, 403);
}

#[tokio::test]
async fn a_token_that_was_used_is_never_forgotten() {
    let world = world().await;
    let cx = &world.cx;
    let op = create("user", None, "sam", json!({}), json!({}));
    assert_eq!(by_root(&world, op).await, 200);
    let user = cx.get::<User>(None, "sam").unwrap();
    let given = session::begin(cx, &user, Begin::default()).await.unwrap();
    let first = given.refresh.unwrap();
    let mut token = first.clone();
    let mut most = 0;
    while let session::Refreshed::Given(given, _) = session::refresh(cx, &token).await.unwrap() {
        token = given.refresh.unwrap();
        most += 1;
        assert!(most < 1000, "a session is refreshed for ever");
    }
    assert!(most > 7 * 24, "one an hour is no misuse: {most}");
    assert!(cx.get::<Session>(None, &given.session).is_none());
}

#[tokio::test]
async fn nobody_is_unlocked_in_the_future() {
    let world = world().await;
    let op = create(
        "user",
        None,
        "sam",
        json!({}),
        json!({ "unlocked": "2100-01-01T00:00:00Z" }),
    );
    assert_eq!(by_root(&world, op).await, 422, "unlocked for ever");
}

#[tokio::test]
async fn a_project_that_is_denied_altogether_is_not_there() {
    let world = world().await;
    role(&world, "reader", &["thing.read", "project.read"], &[]).await;
    role(&world, "nothing", &[], &["*"]).await;
    world
        .grant("al", json!({ "user": "al", "role": "reader" }))
        .await;
    let spec = json!({ "user": "al", "role": "nothing", "scope": "project/bank" });
    world.grant("al-bank", spec).await;
    world.thing("bank", "gold", json!({})).await;
    let told = async |project: &str| {
        let asked = world.ask(person("al"), None, get(project, "gold")).await;
        asked.unwrap_err().to_string()
    };
    assert_eq!(told("bank").await, "there is no project `bank`");
    assert_ne!(told("shop").await, "there is no project `shop`");
    // One object there lets him in again.
    let spec = json!({ "user": "al", "role": "reader", "scope": "thing/bank/gold" });
    world.grant("al-gold", spec).await;
    assert_eq!(world.told("al", get("bank", "gold")).await, 200);
}

/// A realm's server is sent the value of the secret that its spec names.
#[tokio::test]
async fn a_secret_is_sent_where_who_may_see_it_says() {
    let world = world().await;
    for (name, allow) in [
        ("realms", &["realm.*", "*.read", "group.*"] as &[&str]),
        ("sees", &["secret.reveal"]),
    ] {
        role(&world, name, allow, &[]).await;
    }
    world
        .grant("eve-realms", json!({ "user": "eve", "role": "realms" }))
        .await;
    world
        .grant("sam-realms", json!({ "user": "sam", "role": "realms" }))
        .await;
    world
        .grant("sam-sees", json!({ "user": "sam", "role": "sees" }))
        .await;
    let op = create("secret", Some("shop"), "root", json!({}), json!({}));
    assert_eq!(by_root(&world, op).await, 200);
    let spec = |server: &str, secret: &str| {
        json!({
            "type": "ldap", "same_names": false,
            "ldap": {
                "urls": [server], "base_dn": "dc=example", "bind_dn": "cn=me", "secret": secret,
            },
        })
    };
    let mine = "ldaps://mine.example";
    let new = || create("realm", None, "mine", json!({}), spec(mine, "shop/root"));
    assert_eq!(world.told("eve", new()).await, 403);
    let made = world.ask(person("sam"), None, new()).await;
    assert!(made.is_ok(), "{made:?}");
    // Nor to another server, nor with more to it than he found.
    let moved = json!({ "ldap": { "urls": ["ldaps://elsewhere.example"] } });
    assert_eq!(world.told("eve", patch("realm", "mine", moved)).await, 403);
    let other = json!({ "display_name": "Ours", "ldap": { "sync_minutes": 30 } });
    let said = world
        .ask(
            person("eve"),
            None,
            patch("realm", "mine", other["ldap"].clone()),
        )
        .await;
    assert!(said.is_err(), "no such field: {said:?}");
    let ldap = json!({ "ldap": other["ldap"] });
    assert_eq!(world.told("eve", patch("realm", "mine", ldap)).await, 200);
}

/// The way that is recommended for one's own administrators.
#[tokio::test]
async fn a_role_asks_of_logins_what_those_above_it_ask() {
    let world = world().await;
    let parents = json!({ "parents": ["superadmin"] });
    let op = create("role", None, "site", json!({}), parents);
    assert_eq!(by_root(&world, op).await, 200);
    let below = json!({ "parents": ["site"] });
    let op = create("role", None, "ours", json!({}), below);
    assert_eq!(by_root(&world, op).await, 200);
    world
        .grant("sam-ours", json!({ "user": "sam", "role": "ours" }))
        .await;
    world
        .grant("low-view", json!({ "user": "low", "role": "viewer" }))
        .await;
    let mfa = |user: &str| of(&world.cx).unwrap().mfa(&world.cx, user);
    assert_eq!(mfa("sam"), Mfa::Required);
    assert_eq!(mfa("low"), Mfa::Enrolled);
}

/// Two writes would leave a moment, and after a crash more than that, in which the old one counts or none does.
#[tokio::test]
async fn a_password_takes_the_place_of_the_old_one_in_one_commit() {
    let world = world().await;
    let cx = &world.cx;
    let op = create("user", None, "sam", json!({}), json!({}));
    assert_eq!(by_root(&world, op).await, 200);
    let user = cx.get::<User>(None, "sam").unwrap();
    let replace = |name: &'static str, hash: &'static str| {
        factor::replace(cx, &user, name, Sort::Password, hash.into(), None)
    };
    let first = replace("password-1", "old").await.unwrap();
    let before = cx.store_handle().get(&cx.key::<Factor>(None, &first)).await;
    let before = before.unwrap().unwrap().modified;
    let second = replace("password-2", "new").await.unwrap();
    let all = factor::of_sort(cx, &user, Sort::Password);
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].spec.material.as_deref(), Some("new"));
    let now = cx
        .store_handle()
        .get(&cx.key::<Factor>(None, &second))
        .await;
    let now = now.unwrap().unwrap().modified;
    assert_eq!(now.0, before.0 + 1, "one commit");
}

//! API keys over real sockets: shown once, limited, rotated with an overlap, taken back.

use crate::house::{House, told};
use crate::login::{get, text, user, with};
use reqwest::Method;
use serde_json::{Value, json};
use store::{Page, Prefix};

async fn make(house: &House, name: &str, spec: Value) -> (u16, Value) {
    let body = json!({ "metadata": { "name": name }, "spec": spec });
    house.post("/api/v1/api-keys", body).await
}

async fn fetch(house: &House, name: &str) -> (u16, Value) {
    let path = format!("/api/v1/api-keys/{name}/streams/secret");
    let (status, ticket) = house.post(&format!("{path}/ticket"), json!({})).await;
    assert_eq!(status, 201, "{ticket}");
    house
        .get(&format!("{path}?ticket={}", text(&ticket, "ticket")))
        .await
}

async fn secret(house: &House, name: &str) -> String {
    let (status, secret) = fetch(house, name).await;
    assert_eq!(status, 200, "{secret}");
    secret.as_str().unwrap().trim().to_owned()
}

async fn act(house: &House, name: &str, verb: &str, params: Value) -> (u16, Value) {
    let path = format!("/api/v1/api-keys/{name}/actions/{verb}");
    house.post(&path, params).await
}

/// A user who may do everything with lamps.
async fn lamplighter(house: &House) -> Value {
    let me = user(house, "bob").await;
    let role = json!({ "metadata": { "name": "lamps" }, "spec": { "allow": ["lamp.*"] } });
    assert_eq!(house.post("/api/v1/roles", role).await.0, 201);
    let grant =
        json!({ "metadata": { "name": "bob-lamps" }, "spec": { "user": "bob", "role": "lamps" } });
    assert_eq!(house.post("/api/v1/grants", grant).await.0, 201);
    me
}

const LAMPS: &str = "/api/v1/projects/default/lamps";

#[tokio::test]
async fn a_key_has_what_it_was_given_of_its_owners_rights() {
    let house = House::open().await;
    let me = lamplighter(&house).await;
    // Anybody's key is made by who may; bob has no right to make one.
    let body = json!({ "metadata": { "name": "own" }, "spec": {} });
    let token = text(&me, "access");
    assert_eq!(
        with(&house, token, Method::POST, "/api/v1/api-keys", Some(body))
            .await
            .0,
        403
    );
    let (status, made) = make(
        &house,
        "ci",
        json!({ "owner": "bob", "privileges": ["lamp.read"] }),
    )
    .await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(made["spec"]["secrets"], json!([]));
    let key = secret(&house, "ci").await;
    assert_eq!(key.len(), 67);
    // Once: never again, and in no other way.
    assert_eq!(fetch(&house, "ci").await.0, 409);
    let (_, shown) = house.get("/api/v1/api-keys/ci").await;
    assert_eq!(shown["spec"]["secrets"][0]["id"], key[3..11]);
    assert!(!shown.to_string().contains(&key[11..]));
    let all = house.store.list(&Prefix::new(""), Page::ALL).await.unwrap();
    let rows = serde_json::to_string(&house.trail.last(1000).await).unwrap();
    assert!(rows.contains("auth.token.issued"));
    for entry in &all.entries {
        let value = String::from_utf8_lossy(&entry.value);
        assert!(!value.contains(&key[11..]), "{} shows the key", entry.key);
    }
    assert!(!rows.contains(&key[11..]));
    let (status, who) = get(&house, &key, "/api/v1/whoami").await;
    assert_eq!((status, text(&who, "name")), (200, "key:ci"), "{who}");
    assert_eq!(get(&house, &key, LAMPS).await.0, 200);
    let lamp = json!({ "metadata": { "name": "a" }, "spec": {} });
    assert_eq!(
        with(&house, &key, Method::POST, LAMPS, Some(lamp.clone()))
            .await
            .0,
        403
    );
    assert_eq!(
        with(&house, token, Method::POST, LAMPS, Some(lamp)).await.0,
        201
    );
    let mut other = key.clone();
    other.replace_range(66.., if key.ends_with('0') { "1" } else { "0" });
    for wrong in [&other, &key[..66], "dv_", &key.to_uppercase()] {
        assert_eq!(get(&house, wrong, "/api/v1/whoami").await.0, 401, "{wrong}");
    }
    // With its owner it ends.
    house
        .post("/api/v1/users/bob/actions/disable", json!({}))
        .await;
    assert_eq!(get(&house, &key, "/api/v1/whoami").await.0, 401);
}

#[tokio::test]
async fn both_work_for_a_while_and_then_only_the_new_one() {
    let house = House::open().await;
    lamplighter(&house).await;
    make(&house, "ci", json!({ "owner": "bob" })).await;
    let first = secret(&house, "ci").await;
    let (status, task) = act(&house, "ci", "rotate", json!({})).await;
    assert_eq!(status, 202, "{task}");
    // Not again before the next one was fetched.
    assert_eq!(act(&house, "ci", "rotate", json!({})).await.0, 409);
    let second = secret(&house, "ci").await;
    for key in [&first, &second] {
        assert_eq!(get(&house, key, LAMPS).await.0, 200);
    }
    // Somebody has it: at once.
    let (status, _) = act(
        &house,
        "ci",
        "rotate",
        json!({ "reason": "key_compromise" }),
    )
    .await;
    assert_eq!(status, 202);
    for key in [&first, &second] {
        assert_eq!(get(&house, key, LAMPS).await.0, 401);
    }
    let third = secret(&house, "ci").await;
    assert_eq!(get(&house, &third, LAMPS).await.0, 200);
    assert_eq!(
        act(&house, "ci", "revoke", json!({ "reason": "lost" }))
            .await
            .0,
        202
    );
    assert_eq!(get(&house, &third, LAMPS).await.0, 401);
    // For good.
    let asked = house
        .ask(Method::PATCH, "/api/v1/api-keys/ci")
        .header("content-type", "application/merge-patch+json")
        .body(json!({ "spec": { "revoked": null } }).to_string());
    let (_, patched) = told(asked.send().await.unwrap()).await;
    assert_eq!(patched["spec"]["revoked"]["reason"], "lost", "{patched}");
    let other = json!({ "spec": { "revoked": { "at": "2026-01-01T00:00:00Z", "reason": "" } } });
    let asked = house
        .ask(Method::PATCH, "/api/v1/api-keys/ci")
        .header("content-type", "application/merge-patch+json")
        .body(other.to_string());
    assert_eq!(told(asked.send().await.unwrap()).await.0, 422);
    assert_eq!(get(&house, &third, LAMPS).await.0, 401);
    assert_eq!(act(&house, "ci", "rotate", json!({})).await.0, 409);
}

/// Reads a watch with a key until it ends.
#[allow(clippy::disallowed_methods, reason = "the test holds the handle")]
async fn watching(house: &House, key: &str) -> tokio::task::JoinHandle<()> {
    let client = crate::house::client(&house.ca, None);
    let asked = client
        .get(house.url("/api/v1/watch?kind=lamp"))
        .header("accept", "text/event-stream")
        .bearer_auth(key);
    let mut answer = asked.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    tokio::spawn(async move { while let Ok(Some(_)) = answer.chunk().await {} })
}

#[tokio::test]
async fn a_rotation_without_overlap_ends_what_the_old_secret_has_opened() {
    let house = House::open().await;
    lamplighter(&house).await;
    make(&house, "ci", json!({ "owner": "bob" })).await;
    let first = secret(&house, "ci").await;
    let open = watching(&house, &first).await;
    // With an overlap the old one goes on.
    assert_eq!(act(&house, "ci", "rotate", json!({})).await.0, 202);
    let second = secret(&house, "ci").await;
    let newer = watching(&house, &second).await;
    assert_eq!(get(&house, &first, LAMPS).await.0, 200);
    assert!(!open.is_finished() && !newer.is_finished());
    let at_once = json!({ "reason": "security_incident" });
    assert_eq!(act(&house, "ci", "rotate", at_once).await.0, 202);
    let patience = std::time::Duration::from_secs(30);
    for stream in [open, newer] {
        tokio::time::timeout(patience, stream)
            .await
            .unwrap()
            .unwrap();
    }
}

#[tokio::test]
async fn a_key_with_a_sink_writes_its_secrets_there_and_shows_them_to_nobody() {
    let house = House::open().await;
    lamplighter(&house).await;
    let path = "/api/v1/projects/default/secrets";
    let body = json!({ "metadata": { "name": "ci-key" }, "spec": { "value": "nothing yet" } });
    assert_eq!(house.post(path, body).await.0, 201);
    let alone = make(&house, "a", json!({ "owner": "bob", "auto_rotate": true })).await;
    assert_eq!(alone.0, 422, "{}", alone.1);
    let spec = json!({ "owner": "bob", "sink": "default/ci-key", "auto_rotate": true });
    let (status, made) = make(&house, "ci", spec).await;
    assert_eq!(status, 201, "{made}");
    let first = filled(&house, "nothing yet").await;
    assert_eq!(get(&house, &first, LAMPS).await.0, 200);
    assert_eq!(fetch(&house, "ci").await.0, 409);
    // Both work during the overlap, and the new one is where the old one was.
    assert_eq!(act(&house, "ci", "rotate", json!({})).await.0, 202);
    let second = filled(&house, &first).await;
    for key in [&first, &second] {
        assert_eq!(get(&house, key, LAMPS).await.0, 200);
    }
    // Near its end it does so by itself.
    let soon = house
        .cx
        .clock()
        .now()
        .plus(std::time::Duration::from_secs(3600));
    let asked = house
        .ask(Method::PATCH, "/api/v1/api-keys/ci")
        .header("content-type", "application/merge-patch+json")
        .body(json!({ "spec": { "expires": soon } }).to_string());
    let (status, patched) = told(asked.send().await.unwrap()).await;
    assert_eq!(status, 200, "{patched}");
    let third = filled(&house, &second).await;
    assert_eq!(get(&house, &third, LAMPS).await.0, 200);
    let (_, key) = house.get("/api/v1/api-keys/ci").await;
    assert_eq!(key["spec"]["rotation"]["reason"], "scheduled", "{key}");
    // Who may not write a secret does not get there by a key.
    let spec = json!({ "sink": "default/ci-key" });
    let client = crate::house::client(&house.ca, None);
    let asked = client
        .post(house.url("/api/v1/api-keys"))
        .bearer_auth(&third)
        .json(&json!({ "metadata": { "name": "mine" }, "spec": spec }));
    let refused = asked.send().await.unwrap().status().as_u16();
    assert!(refused == 422 || refused == 403, "{refused}");
}

/// What is in the sink, once it is a key that works and another than it was.
async fn filled(house: &House, was: &str) -> String {
    let target = model::ObjectRef {
        kind: "secret".into(),
        project: Some("default".into()),
        name: "ci-key".into(),
    };
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let found = identity::secret::read(&house.cx, &target, &target)
            .await
            .unwrap();
        if found != was && get(house, &found, "/api/v1/whoami").await.0 == 200 {
            return found;
        }
        assert!(std::time::Instant::now() < end, "the sink is not filled");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn three_of_an_owner_from_their_networks_at_their_rate() {
    let house = House::open().await;
    lamplighter(&house).await;
    let far = json!({ "owner": "bob", "networks": ["192.0.2.0/24"] });
    assert_eq!(make(&house, "far", far).await.0, 201);
    let key = secret(&house, "far").await;
    assert_eq!(get(&house, &key, LAMPS).await.0, 401);
    let seen = async {
        loop {
            let rows = house.trail.last(1000).await;
            if rows.iter().any(|row| {
                row.actor == "key:far" && row.result.as_deref() == Some("OUTSIDE_ITS_NETWORKS")
            }) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let seen = tokio::time::timeout(std::time::Duration::from_secs(10), seen).await;
    assert!(seen.is_ok(), "the trail does not say that it was refused");
    let slow = json!({ "owner": "bob", "networks": ["127.0.0.0/8"], "rate": 1 });
    assert_eq!(make(&house, "slow", slow).await.0, 201);
    let key = secret(&house, "slow").await;
    // Two at most, when the minute ends between them.
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(get(&house, &key, LAMPS).await.0);
    }
    assert!(answers[0] == 200 && answers.contains(&429), "{answers:?}");
    assert_eq!(
        make(&house, "third", json!({ "owner": "bob" })).await.0,
        201
    );
    let (status, refused) = make(&house, "fourth", json!({ "owner": "bob" })).await;
    assert_eq!(
        (status, text(&refused, "code")),
        (403, "QUOTA_EXCEEDED"),
        "{refused}"
    );
    act(&house, "third", "revoke", json!({})).await;
    assert_eq!(
        make(&house, "fourth", json!({ "owner": "bob" })).await.0,
        201
    );
    // Nobody brings his own secret, a word that is no privilege, or a life without end.
    for (spec, wrong) in [
        (
            json!({ "owner": "bob", "privileges": ["lamp.raed"] }),
            "spec.privileges[0]",
        ),
        (
            json!({ "owner": "bob", "expires": "2999-01-01T00:00:00Z" }),
            "spec.expires",
        ),
        (json!({ "owner": "nobody" }), "spec.owner"),
    ] {
        let (status, said) = make(&house, "bad", spec).await;
        assert_eq!(
            (status, text(&said["violations"][0], "field")),
            (422, wrong),
            "{said}"
        );
    }
}

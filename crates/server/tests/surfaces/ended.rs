//! What somebody was let in for once ends with his login, and shows only what he may read: GraphQL sockets, events, places.

use crate::house::{House, limits};
use crate::login::{get, text, user};
use crate::watch::{Socket, socket_over, tls_as};
use futures::{SinkExt, StreamExt};
use reqwest::Method;
use serde_json::{Value, json};
use server::Limits;
use std::time::Duration;
use tokio_tungstenite::tungstenite::Message;

const GRAPH: Option<&str> = Some("graphql-transport-ws");

async fn role(house: &House, allow: Value) {
    let role = json!({ "metadata": { "name": "part" }, "spec": { "allow": allow } });
    assert_eq!(house.post("/api/v1/roles", role).await.0, 201);
}

/// A user with that role; his login.
async fn member(house: &House, name: &str) -> Value {
    let me = user(house, name).await;
    let spec = json!({ "user": name, "role": "part" });
    let grant = json!({ "metadata": { "name": format!("{name}-part") }, "spec": spec });
    let (status, made) = house.post("/api/v1/grants", grant).await;
    assert_eq!(status, 201, "{made}");
    me
}

/// Ends a login in one of the two ways an administrator has.
async fn end(house: &House, way: &str, name: &str, me: &Value) {
    let (method, path) = match way {
        "disable" => (
            Method::POST,
            format!("/api/v1/users/{name}/actions/disable"),
        ),
        _ => (
            Method::DELETE,
            format!("/api/v1/sessions/{}", text(me, "session")),
        ),
    };
    let asked = house.ask(method, &path).json(&json!({}));
    let status = asked.send().await.unwrap().status();
    assert!(status.is_success(), "{way}: {status}");
}

async fn say(socket: &mut Socket, value: Value) {
    let text = value.to_string().into();
    // It may have been closed already.
    let _ = socket.send(Message::Text(text)).await;
}

fn mutation(id: &str, lamp: &str) -> Value {
    let query = format!(
        r#"mutation {{ lampCreate(project: "default", name: "{lamp}", spec: {{}}) {{ metadata {{ name }} }} }}"#
    );
    json!({ "type": "subscribe", "id": id, "payload": { "query": query } })
}

#[tokio::test]
async fn a_graphql_socket_ends_with_the_login() {
    let house = House::open().await;
    role(&house, json!(["lamp.*"])).await;
    for (name, way) in [("bob", "disable"), ("carl", "revoke")] {
        let me = member(&house, name).await;
        let stream = tls_as(&house, house.https, b"http/1.1", None).await;
        let token = Some(text(&me, "access"));
        let mut socket = socket_over(stream, &house, "/graphql", GRAPH, token)
            .await
            .unwrap();
        say(&mut socket, json!({ "type": "connection_init" })).await;
        say(&mut socket, mutation("1", &format!("{name}-a"))).await;
        let path = format!("/api/v1/projects/default/lamps/{name}");
        loop {
            match socket.next().await.unwrap().unwrap() {
                Message::Text(text) if text.contains("complete") => break,
                Message::Text(text) => assert!(!text.contains("errors"), "{text}"),
                _ => {}
            }
        }
        assert_eq!(house.get(&format!("{path}-a")).await.0, 200);

        end(&house, way, name, &me).await;
        say(&mut socket, mutation("2", &format!("{name}-b"))).await;
        let ended = async {
            loop {
                match socket.next().await {
                    Some(Ok(Message::Text(text))) if text.contains("\"2\"") => {
                        assert!(!text.contains("lampCreate\":{"), "{way}: {text}");
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => {}
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), ended)
            .await
            .unwrap_or_else(|_| panic!("{way}: the socket goes on"));
        assert_eq!(house.get(&format!("{path}-b")).await.0, 404, "{way}");
    }
}

#[tokio::test]
async fn events_end_with_the_login() {
    let house = House::open().await;
    role(&house, json!(["lamp.*", "event.read"])).await;
    for (name, way) in [("bob", "disable"), ("carl", "revoke")] {
        let me = member(&house, name).await;
        let mut events = house
            .stranger()
            .get(house.url("/api/v1/events?follow=true"))
            .bearer_auth(text(&me, "access"))
            .send()
            .await
            .unwrap();
        assert_eq!(events.status(), 200);
        end(&house, way, name, &me).await;
        let ended = tokio::time::timeout(Duration::from_secs(10), async {
            while let Ok(Some(_)) = events.chunk().await {}
        });
        assert!(ended.await.is_ok(), "{way}: the events go on");
    }
}

/// `event.read` opens the feed and shows nothing of what may not be read itself.
#[tokio::test]
async fn events_are_of_what_one_may_read() {
    let house = House::open().await;
    role(&house, json!(["lamp.*", "event.read"])).await;
    let me = member(&house, "bob").await;
    let token = text(&me, "access");
    let stream = tls_as(&house, house.https, b"http/1.1", None).await;
    let mut socket = socket_over(stream, &house, "/graphql", GRAPH, Some(token))
        .await
        .unwrap();
    say(&mut socket, json!({ "type": "connection_init" })).await;
    let query = "subscription { events }";
    let asked = json!({ "type": "subscribe", "id": "1", "payload": { "query": query } });
    say(&mut socket, asked).await;
    // An answer to a ping says that the subscription was taken up.
    say(&mut socket, json!({ "type": "ping" })).await;
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Text(text) if text.contains("pong") => break,
            _ => {}
        }
    }
    user(&house, "anna").await;
    house.lamp("a").await;
    let path = "/api/v1/projects/default/lamps/a/actions/dim";
    assert_eq!(house.post(path, json!({ "to": 1 })).await.0, 202);
    let about_lamps = async {
        loop {
            let Message::Text(text) = socket.next().await.unwrap().unwrap() else {
                continue;
            };
            let value: Value = serde_json::from_str(&text).unwrap();
            let about = &value["payload"]["data"]["events"]["about"]["kind"];
            assert!(about.is_null() || about == "lamp", "{text}");
            if about == "lamp" {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), about_lamps)
        .await
        .expect("events of lamps come");
    let kinds = |said: Value| -> Vec<String> {
        let said = said
            .as_str()
            .map_or_else(|| said.to_string(), str::to_owned);
        let lines = said
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines
            .map(|event| event["about"]["kind"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = kinds(house.get("/api/v1/events?limit=1000").await.1);
    assert!(all.iter().any(|kind| kind == "user"), "{all:?}");
    let his = kinds(get(&house, token, "/api/v1/events?limit=1000").await.1);
    assert!(
        !his.is_empty() && his.iter().all(|kind| kind == "lamp"),
        "{his:?}"
    );
}

/// However many connections he has, and whatever the sockets are for.
#[tokio::test]
async fn a_user_has_so_many_sockets_and_no_more() {
    let few = Limits {
        sockets_per_user: 2,
        ..limits()
    };
    let house = House::with(few).await;
    let watch = "/api/v1/watch?kind=lamp";
    let one = crate::watch::socket(&house, "/graphql", GRAPH)
        .await
        .unwrap();
    let two = crate::watch::socket(&house, watch, None).await.unwrap();
    let third = crate::watch::socket(&house, watch, None).await;
    let Err(tokio_tungstenite::tungstenite::Error::Http(refused)) = third else {
        panic!("a third one");
    };
    assert_eq!(refused.status().as_u16(), 429);
    drop((one, two));
    let again = async {
        while crate::watch::socket(&house, watch, None).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), again)
        .await
        .expect("the places are given back");
}

/// What a connection has become goes on holding its place.
#[tokio::test]
async fn a_socket_holds_its_place() {
    let few = Limits {
        connections_per_address: 2,
        ..limits()
    };
    let house = House::with(few).await;
    let socket = crate::watch::socket(&house, "/graphql", GRAPH)
        .await
        .unwrap();
    let other = crate::watch::socket(&house, "/api/v1/watch?kind=lamp", None)
        .await
        .unwrap();
    let asked = house.stranger().get(house.url("/health/live")).send();
    assert!(asked.await.is_err(), "there are two already");
    drop((socket, other));
    let free = async {
        while (house.stranger().get(house.url("/health/live")).send().await).is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), free)
        .await
        .expect("the places are given back");
}

/// Who looks for what is hidden from him is told that it is not there. The trail says what was so.
#[tokio::test]
async fn probes_are_on_record() {
    let house = House::open().await;
    house.lamp("a").await;
    house.lamp("b").await;
    role(&house, json!(["lamp.read"])).await;
    let me = user(&house, "bob").await;
    let spec = json!({ "user": "bob", "role": "part", "scope": "lamp/default/a" });
    let grant = json!({ "metadata": { "name": "bob-a" }, "spec": spec });
    assert_eq!(house.post("/api/v1/grants", grant).await.0, 201);
    let token = text(&me, "access");
    let lamps = "/api/v1/projects/default/lamps";
    for (path, status) in [
        (format!("{lamps}/a"), 200),
        (format!("{lamps}/b"), 404),
        (format!("{lamps}/nowhere"), 404),
        ("/metrics".to_owned(), 403),
    ] {
        assert_eq!(get(&house, token, &path).await.0, status, "{path}");
    }
    // The end of the process writes what waits.
    house.cx.life().stop(Duration::from_secs(5)).await;
    let mut rows = house.trail.last(1000).await;
    rows.retain(|row| row.action == "security.permission_denied");
    let seen: Vec<_> = rows
        .iter()
        .map(|row| (row.actor.as_str(), row.name.as_deref(), row.repeats))
        .collect();
    assert_eq!(seen[0], ("bob", Some("b"), 0), "{rows:?}");
    // What follows within the minute is counted.
    assert_eq!(seen[1..], [("bob", Some("b"), 2)], "{rows:?}");
}

/// His name, address and program stand in the rows of his sessions as well.
#[tokio::test]
async fn who_is_erased_is_gone_from_the_rows_of_his_sessions() {
    let house = House::open().await;
    let trail = house.cx.try_part::<runtime::audit::FileTrail>().unwrap();
    let me = user(&house, "bob").await;
    let keys = trail.key_counts().active;
    for _ in 0..3 {
        let (status, again) = crate::login::login(&house, "bob", crate::login::PASSWORD).await;
        assert_eq!(status, 200, "{again}");
    }
    end(&house, "revoke", "bob", &me).await;
    assert_eq!(trail.key_counts().active, keys, "a login makes no person");
    let of_sessions = async || {
        let mut rows = house.trail.last(1000).await;
        rows.retain(|row| row.kind.as_deref() == Some("session"));
        rows
    };
    let rows = of_sessions().await;
    assert!(format!("{rows:?}").contains("\"bob\""), "{rows:?}");
    // The order to erase him names him as well.
    let path = format!("/api/v1/audit-chains/{}/actions/erase", house.cx.node());
    let (status, task) = house.post(&path, json!({ "subject": "bob" })).await;
    assert_eq!(status, 202, "{task}");
    let name = text(&task["metadata"], "name");
    let path = format!("/api/v1/tasks/{name}");
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let (_, task) = house.get(&path).await;
        match task["status"]["state"].as_str() {
            Some("succeeded") => break,
            Some("failed" | "rolled_back" | "cancelled") => panic!("{task}"),
            _ => assert!(tokio::time::Instant::now() < until, "{task}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let orders = async || {
        let mut rows = house.trail.last(1000).await;
        rows.retain(|row| row.action == "audit-chain.erase");
        rows
    };
    while orders().await.len() < 2 {
        assert!(tokio::time::Instant::now() < until, "no outcome");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let rows = orders().await;
    assert!(!format!("{rows:?}").contains("bob"), "{rows:?}");
    assert!(!trail.erase("bob").await.unwrap(), "he is gone already");
    let rows = of_sessions().await;
    assert!(
        !rows.is_empty() && !format!("{rows:?}").contains("\"bob\""),
        "{rows:?}"
    );
}

/// A WebSocket is no longer its connection's, and still the server's: the server tells it and waits for it.
#[tokio::test]
async fn no_socket_outlives_the_server() {
    let mut house = House::open().await;
    house.lamp("a").await;
    let echo = "/api/v1/projects/default/lamps/a/streams/echo";
    let (_, made) = house.post(&format!("{echo}/ticket"), Value::Null).await;
    let path = format!("{echo}?ticket={}", text(&made, "ticket"));
    // A client that reads nothing: what is sent to it goes nowhere, also the word that the server restarts.
    let mut deaf = crate::watch::socket(&house, &path, None).await.unwrap();
    let piece = Message::Binary(vec![7; 256 * 1024].into());
    let full = async {
        loop {
            let sent = tokio::time::timeout(Duration::from_secs(2), deaf.send(piece.clone()));
            match sent.await {
                Ok(sent) => sent.unwrap(),
                Err(_) => return,
            }
        }
    };
    full.await;
    let mut other = crate::watch::socket(&house, "/api/v1/watch?kind=lamp", None)
        .await
        .unwrap();
    house.stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(20), &mut house.serving);
    let ended = ended.await.expect("serving ends").unwrap().unwrap();
    assert_eq!(ended, server::Ended::Forced, "the deaf one had to be cut");
    let code = loop {
        match other.next().await {
            Some(Ok(Message::Close(Some(frame)))) => break u16::from(frame.code),
            Some(Ok(_)) => {}
            other => panic!("it was not told: {other:?}"),
        }
    };
    assert_eq!(code, 1012);
}

/// Whom else a secret serves is seen by who may see them; of the others only that they are.
#[tokio::test]
async fn a_secret_names_those_who_use_it_to_who_may_see_them() {
    let house = House::open().await;
    role(&house, json!(["secret.*"])).await;
    let me = member(&house, "bob").await;
    let token = text(&me, "access");
    let secrets = "/api/v1/projects/default/secrets";
    let secret = json!({ "metadata": { "name": "ci-key" }, "spec": { "value": "x" } });
    assert_eq!(house.post(secrets, secret).await.0, 201);
    let spec = json!({ "owner": "bob", "sink": "default/ci-key" });
    let key = json!({ "metadata": { "name": "hidden" }, "spec": spec });
    let (status, made) = house.post("/api/v1/api-keys", key).await;
    assert_eq!(status, 201, "{made}");
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    let shown = loop {
        let (_, shown) = get(&house, token, &format!("{secrets}/ci-key")).await;
        if shown["status"]["used_by"] == 1 {
            break shown;
        }
        assert!(tokio::time::Instant::now() < until, "{shown}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(!shown.to_string().contains("hidden"), "{shown}");
    let users = format!("{secrets}/ci-key/streams/users");
    let (status, told) = get(&house, token, &users).await;
    assert_eq!(status, 200, "{told}");
    assert!(!told.to_string().contains("hidden"), "{told}");
    let (_, told) = house.get(&users).await;
    assert!(told.to_string().contains("api-key/hidden"), "{told}");
}

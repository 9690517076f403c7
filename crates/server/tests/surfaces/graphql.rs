//! An object lives its whole life in GraphQL (query, mutation, subscription, batch), and what is too deep, too dear or
//! asked by a stranger is refused.

use crate::house::House;
use crate::watch::{heard, socket};
use futures::SinkExt;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

impl House {
    pub async fn graph(&self, query: &str) -> Value {
        let (status, answer) = self.post("/graphql", json!({ "query": query })).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }
}

#[tokio::test]
async fn a_lamp_lives_in_graphql_too() {
    let house = House::open().await;
    let made = house
        .graph(r#"mutation { lampCreate(project: "default", name: "a", labels: { room: "hall" }, spec: { mode: SLOW_BLINK, pin: "1", parts: [{ glass: "green", weight: "1KiB" }] }) { metadata { name project labels } spec { mode brightness pin parts { glass weight } } } }"#)
        .await;
    assert_eq!(
        made["data"]["lampCreate"],
        json!({
            "metadata": { "name": "a", "project": "default", "labels": { "room": "hall" } },
            "spec": { "mode": "SLOW_BLINK", "brightness": 100, "pin": null, "parts": [{ "glass": "green", "weight": 1024 }] },
        }),
        "{made}"
    );
    let (_, rest) = house.get("/api/v1/projects/default/lamps/a").await;
    assert_eq!(rest["spec"]["mode"], "slow-blink");
    house.lamp("b").await;
    let listed = house.graph(r#"{ lamps(project: "default", sort: "-name", limit: 1) { total next revision items { metadata { name } } } }"#).await;
    assert_eq!(
        listed["data"]["lamps"]["items"],
        json!([{ "metadata": { "name": "b" } }]),
        "{listed}"
    );
    assert_eq!(listed["data"]["lamps"]["total"], 2);
    let patched = house.graph(r#"mutation { lampPatch(project: "default", name: "a", patch: { spec: { on: true } }) { spec { on } } }"#).await;
    assert_eq!(
        patched["data"]["lampPatch"]["spec"]["on"], true,
        "{patched}"
    );
    let stale = house.graph(r#"mutation { lampApply(project: "default", name: "a", if_match: "1", spec: {}) { spec { on } } }"#).await;
    assert_eq!(
        stale["errors"][0]["extensions"]["code"], "PRECONDITION_FAILED",
        "{stale}"
    );
    let gone = house
        .graph(r#"mutation { lampDelete(project: "default", name: "a") { gone } }"#)
        .await;
    assert_eq!(gone["data"]["lampDelete"]["gone"], true, "{gone}");
    let missing = house
        .graph(r#"{ lamp(project: "default", name: "a") { kind } }"#)
        .await;
    assert_eq!(missing["errors"][0]["extensions"]["code"], "NOT_FOUND");
    assert_eq!(missing["data"]["lamp"], Value::Null);
}

#[tokio::test]
async fn deep_dear_and_unknown_is_refused() {
    let house = House::open().await;
    let dear = house.graph("{ lamps(limit: 1000) { items { metadata { name uid labels created } spec { on mode brightness parts { glass weight } } status { shines } } } a: lamps(limit: 1000) { items { json metadata { name } spec { on mode } status { shines } } } }").await;
    assert_eq!(dear["errors"][0]["extensions"]["code"], "INVALID", "{dear}");
    let stranger = house
        .stranger()
        .post(house.url("/graphql"))
        .json(&json!({ "query": "{ __schema { types { name } } }" }));
    assert_eq!(
        stranger.send().await.unwrap().status(),
        401,
        "introspection needs a login"
    );
    let introspected = house.graph("{ __schema { types { name } } }").await;
    assert!(introspected.to_string().contains("LampSpecParts"));
}

#[tokio::test]
async fn a_batch_is_answered_in_its_order() {
    let house = House::open().await;
    house.lamp("a").await;
    let ask = |name: &str| json!({ "query": format!("{{ lamp(project: \"default\", name: \"{name}\") {{ metadata {{ name }} }} }}") });
    let batch = json!([ask("a"), ask("nobody"), { "query": "{ oops" }, ask("a")]);
    let (status, answers) = house.post("/graphql", batch).await;
    assert_eq!(status, 200, "{answers}");
    assert_eq!(answers[0]["data"]["lamp"]["metadata"]["name"], "a");
    assert_eq!(answers[1]["errors"][0]["extensions"]["code"], "NOT_FOUND");
    assert_eq!(answers[2]["errors"][0]["extensions"]["code"], "UNPARSEABLE");
    assert_eq!(answers[3], answers[0]);
    let many = |count: usize| Value::Array(vec![ask("a"); count]);
    assert_eq!(house.post("/graphql", many(100)).await.0, 200);
    assert_eq!(house.post("/graphql", many(101)).await.0, 422);
    assert_eq!(house.post("/graphql", json!([])).await.0, 422);
    // Together they may not cost more than one may.
    let dear = json!({ "query": "{ lamps(limit: 400) { items { metadata { name uid labels } spec { on mode } } } }" });
    let (_, answers) = house.post("/graphql", Value::Array(vec![dear; 10])).await;
    assert!(answers[0]["errors"].is_null(), "{answers}");
    assert_eq!(answers[9]["errors"][0]["extensions"]["code"], "INVALID");
}

#[tokio::test]
async fn a_subscription_follows() {
    let house = House::open().await;
    let mut socket = socket(&house, "/graphql", Some("graphql-transport-ws"))
        .await
        .unwrap();
    let mut say = async |value: Value| {
        socket
            .send(Message::Text(value.to_string().into()))
            .await
            .unwrap()
    };
    say(json!({ "type": "connection_init" })).await;
    say(json!({ "type": "subscribe", "id": "1", "payload": { "query": "subscription { lampChanges(project: \"default\") { type revision object { metadata { name } spec { on } } } }" } })).await;
    assert_eq!(heard(&mut socket).await.unwrap()["type"], "connection_ack");
    let first = heard(&mut socket).await.unwrap();
    assert_eq!(
        first["payload"]["data"]["lampChanges"]["type"], "BOOKMARK",
        "{first}"
    );
    house.lamp("a").await;
    let change = heard(&mut socket).await.unwrap();
    assert_eq!(
        change["payload"]["data"]["lampChanges"]["object"]["metadata"]["name"], "a",
        "{change}"
    );
}

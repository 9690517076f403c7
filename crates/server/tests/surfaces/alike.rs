//! The same action through each surface: one decision, one audit pair, one event, all with one request id.

use crate::grpc::{fields, key};
use crate::house::House;
use prost_types::value::Kind;
use reqwest::Method;
use runtime::audit::Phase;
use serde_json::{Value, json};
use server::grpc_v1::ActRequest;
use server::grpc_v1::resources_client::ResourcesClient;
use std::sync::Arc;
use std::time::Duration;

const PATH: &str = "/api/v1/projects/default/lamps/a/actions/dim";

fn graph(to: u32) -> Value {
    let query = format!(
        "mutation {{ lampDim(project: \"default\", name: \"a\", input: {{ to: {to} }}) {{ metadata {{ name }} }} }}"
    );
    json!({ "query": query })
}

/// What is on record of one request: audit rows, then events.
async fn record(house: &House, id: &str) -> (Vec<String>, Vec<String>) {
    let mut rows = house.trail.last(1000).await;
    rows.retain(|row| row.request_id == id);
    assert!(rows.windows(2).all(|two| two[0].change == two[1].change));
    let word = |row: runtime::audit::Row| {
        let phase = match row.phase {
            Phase::Intent => "intent".to_owned(),
            Phase::Outcome => row.result.unwrap_or_default(),
        };
        format!("{} {} {phase} {}", row.action, row.actor, row.params)
    };
    let rows = rows.into_iter().map(word).collect();
    // The event comes with the end of the task, a moment after the answer.
    let events = async {
        loop {
            let all = house.cx.events().read(0, 1000).await;
            let of = all
                .into_iter()
                .filter(|e| e.request_id.as_deref() == Some(id));
            let of: Vec<String> = of.map(|e| e.event).collect();
            if !of.is_empty() {
                return of;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let events = tokio::time::timeout(Duration::from_secs(20), events).await;
    (rows, events.unwrap())
}

#[tokio::test]
async fn one_decision_one_pair_one_event() {
    let house = Arc::new(House::open().await);
    house.lamp("a").await;
    let rest = house
        .ask(Method::POST, PATH)
        .header("x-request-id", "id-rest");
    assert_eq!(
        rest.json(&json!({ "to": 1 }))
            .send()
            .await
            .unwrap()
            .status(),
        202
    );
    let by_graph = house
        .ask(Method::POST, "/graphql")
        .header("x-request-id", "id-graph");
    let answer: Value = by_graph
        .json(&graph(2))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(answer["errors"], Value::Null, "{answer}");
    let mut client = ResourcesClient::new(house.channel().await);
    let mut request = tonic::Request::new(ActRequest {
        key: key("a"),
        verb: "dim".into(),
        params: Some(fields(&[("to", Kind::NumberValue(3.0))])),
        ..ActRequest::default()
    });
    request
        .metadata_mut()
        .insert("x-request-id", "id-grpc".parse().unwrap());
    client.act(request).await.unwrap();

    let who = house.trail.last(1000).await.last().unwrap().actor.clone();
    for (id, to) in [("id-rest", 1), ("id-graph", 2), ("id-grpc", 3)] {
        let (rows, events) = record(&house, id).await;
        let row = |phase: &str, asked: &str| format!("lamp.dim {who} {phase} {asked}");
        // What was asked stands in the intent.
        let asked = json!({ "to": to }).to_string();
        assert_eq!(rows, [row("intent", &asked), row("ok", "null")], "{id}");
        assert_eq!(events, ["lamp.dimmed"], "{id}");
    }
    // Without a login none of them does anything or leaves anything behind; gRPC has no connection at all then.
    let before = house.trail.last(1000).await.len();
    let stranger = house.stranger();
    let rest = stranger
        .post(house.url(PATH))
        .json(&json!({ "to": 1 }))
        .send()
        .await
        .unwrap();
    let by_rest: Value = rest.json().await.unwrap();
    let answer = stranger
        .post(house.url("/graphql"))
        .json(&graph(1))
        .send()
        .await
        .unwrap();
    let by_graph = answer.text().await.unwrap();
    assert_eq!(by_rest["code"], "UNAUTHENTICATED", "{by_rest}");
    assert!(by_graph.contains("UNAUTHENTICATED"), "{by_graph}");
    assert_eq!(house.trail.last(1000).await.len(), before);
    let (_, lamp) = house.get("/api/v1/projects/default/lamps/a").await;
    assert_eq!(lamp["spec"]["brightness"], 3);
}

//! One request is followed by one id through every hop: answer, object, task, event, audit row and log line, whatever
//! surface it came through; and so are the ids that outside systems give it. Nothing harmful gets into a log that way.

use crate::house::{House, told};
use crate::secrets::{Heard, follow_log};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use server::grpc_v1::resources_client::ResourcesClient;
use server::grpc_v1::{ActRequest, Key};
use std::sync::Arc;

const LAMPS: &str = "/api/v1/projects/default/lamps";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The headers of a caller that is traced.
fn traced(id: &str) -> [(&'static str, String); 4] {
    [
        ("x-request-id", id.to_owned()),
        ("x-correlation-id", format!("order-{id}")),
        ("x-causation-id", format!("cause-{id}")),
        ("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01")),
    ]
}

fn with(mut asked: RequestBuilder, headers: &[(&'static str, String)]) -> RequestBuilder {
    for (name, value) in headers {
        asked = asked.header(*name, value);
    }
    asked
}

fn header<'r>(response: &'r Response, name: &str) -> &'r str {
    response
        .headers()
        .get(name)
        .map_or("", |v| v.to_str().unwrap())
}

/// The answer names the ids, and its trace goes on with a span of ours.
fn answered(response: &Response, id: &str) {
    assert_eq!(header(response, "x-request-id"), id);
    assert_eq!(header(response, "x-correlation-id"), format!("order-{id}"));
    assert_eq!(header(response, "x-causation-id"), format!("cause-{id}"));
    let parent = header(response, "traceparent");
    assert!(
        parent.starts_with(&format!("00-{TRACE}-")) && parent.ends_with("-01"),
        "{parent}"
    );
    assert!(
        !parent.contains("00f067aa0ba902b7"),
        "our own span: {parent}"
    );
}

/// A task, an event or an audit row carries them.
fn carries(what: &Value, id: &str) {
    assert_eq!(what["request_id"], id, "{what}");
    assert_eq!(
        what["trace"]["correlation_id"],
        format!("order-{id}"),
        "{what}"
    );
    assert_eq!(
        what["trace"]["causation_id"],
        format!("cause-{id}"),
        "{what}"
    );
    let parent = what["trace"]["traceparent"].as_str().unwrap();
    assert!(parent.contains(TRACE), "{what}");
}

#[tokio::test]
async fn one_id_goes_through_every_hop() {
    let log = Heard::default();
    follow_log(log.clone());
    let house = Arc::new(House::open().await);
    let body = json!({ "metadata": { "name": "a" }, "spec": {} });
    let response = with(house.ask(Method::POST, LAMPS), &traced("f-make"))
        .json(&body)
        .send()
        .await
        .unwrap();
    answered(&response, "f-make");
    let (status, lamp) = told(response).await;
    assert_eq!(
        (status, &lamp["metadata"]["request_id"]),
        (201, &json!("f-make"))
    );

    let act = format!("{LAMPS}/a/actions/dim");
    let response = with(house.ask(Method::POST, &act), &traced("f-rest"))
        .json(&json!({ "to": 1 }))
        .send()
        .await
        .unwrap();
    answered(&response, "f-rest");
    carries(&told(response).await.1["spec"], "f-rest");

    let query = r#"mutation { lampDim(project: "default", name: "a", input: { to: 2 }) { json } }"#;
    let response = with(house.ask(Method::POST, "/graphql"), &traced("f-graph"))
        .json(&json!({ "query": query }))
        .send()
        .await
        .unwrap();
    answered(&response, "f-graph");
    carries(
        &told(response).await.1["data"]["lampDim"]["json"]["spec"],
        "f-graph",
    );

    let params = prost_types::Struct {
        fields: [(
            "to".to_owned(),
            prost_types::Value {
                kind: Some(prost_types::value::Kind::NumberValue(3.0)),
            },
        )]
        .into(),
    };
    let mut request = tonic::Request::new(ActRequest {
        key: Some(Key {
            kind: "lamp".into(),
            project: "default".into(),
            name: "a".into(),
        }),
        verb: "dim".into(),
        params: Some(params),
        ..ActRequest::default()
    });
    for (name, value) in traced("f-grpc") {
        request.metadata_mut().insert(name, value.parse().unwrap());
    }
    let reply = ResourcesClient::new(house.channel().await)
        .act(request)
        .await
        .unwrap();
    assert_eq!(reply.metadata().get("x-request-id").unwrap(), "f-grpc");
    assert_eq!(
        reply.metadata().get("x-correlation-id").unwrap(),
        "order-f-grpc"
    );

    let (_, tasks) = house.get("/api/v1/tasks?limit=100").await;
    for id in ["f-rest", "f-graph", "f-grpc"] {
        let mine = |t: &&Value| t["spec"]["request_id"] == id;
        carries(
            &tasks["items"]
                .as_array()
                .unwrap()
                .iter()
                .find(mine)
                .unwrap()["spec"],
            id,
        );
    }
    let (_, events) = house.get("/api/v1/events?limit=1000").await;
    let lines: Vec<Value> = match &events {
        Value::String(text) => text
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect(),
        one => vec![one.clone()],
    };
    carries(
        lines.iter().find(|e| e["event"] == "lamp.created").unwrap(),
        "f-make",
    );
    // Intent and outcome: a pair for each change, whatever the surface.
    let rows = house.trail.last(1000).await;
    for id in ["f-make", "f-rest", "f-graph", "f-grpc"] {
        let pair: Vec<Value> = rows
            .iter()
            .filter(|r| r.request_id == id)
            .map(|r| serde_json::to_value(r).unwrap())
            .collect();
        assert_eq!(pair.len(), 2, "{id}");
        assert_eq!(
            (&pair[0]["phase"], &pair[1]["phase"], &pair[1]["result"]),
            (&json!("intent"), &json!("outcome"), &json!("ok"))
        );
        pair.iter().for_each(|row| carries(row, id));
        assert!(
            log.said(&format!("request_id=\"{id}\"")) || log.said(&format!("request_id={id}")),
            "{id} is in no line of the log"
        );
        assert!(log.said(&format!("order-{id}")), "{id}");
    }
    assert!(log.said(TRACE));
}

#[tokio::test]
async fn a_harmful_id_is_not_kept() {
    let house = House::open().await;
    let long = "x".repeat(129);
    for bad in ["a b", "<script>", "a\"b", "a;b", long.as_str()] {
        let headers = [
            "x-request-id",
            "x-correlation-id",
            "x-causation-id",
            "traceparent",
        ]
        .map(|n| (n, bad.to_owned()));
        let response = with(house.ask(Method::GET, "/api/v1/whoami"), &headers)
            .send()
            .await
            .unwrap();
        let id = header(&response, "x-request-id").to_owned();
        assert_eq!(id.len(), 36, "a new one: {id}");
        assert_eq!(header(&response, "x-correlation-id"), id);
        assert_eq!(header(&response, "x-causation-id"), "");
        assert_eq!(header(&response, "traceparent").len(), 55);
    }
    // An error tells the id under which it is in the log.
    let response = with(house.ask(Method::GET, "/api/v1/nothing"), &traced("f-none"))
        .send()
        .await
        .unwrap();
    answered(&response, "f-none");
    assert_eq!(told(response).await.1["request_id"], "f-none");
}

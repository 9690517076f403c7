//! One verb over many objects, asked for through each surface.

use crate::grpc::{fields, key};
use crate::house::House;
use prost_types::value::Kind;
use serde_json::{Value, json};
use server::grpc_v1::resources_client::ResourcesClient;
use server::grpc_v1::{ActRequest, Batch};
use std::sync::Arc;
use std::time::Duration;

/// Waits for the end of a task.
async fn ended(house: &House, name: &str) -> Value {
    let path = format!("/api/v1/projects/default/tasks/{name}");
    let wait = async {
        loop {
            let (_, task) = house.get(&path).await;
            match task["status"]["state"].as_str() {
                Some("pending" | "running") => tokio::time::sleep(Duration::from_millis(20)).await,
                _ => return task,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .unwrap()
}

async fn brightness(house: &House, name: &str) -> Value {
    let (_, lamp) = house
        .get(&format!("/api/v1/projects/default/lamps/{name}"))
        .await;
    lamp["spec"]["brightness"].clone()
}

#[tokio::test]
async fn many_lamps_are_dimmed_through_rest_graphql_and_grpc() {
    let house = Arc::new(House::open().await);
    for name in ["a", "b"] {
        let body =
            json!({ "metadata": { "name": name, "labels": { "room": "hall" } }, "spec": {} });
        house.post("/api/v1/projects/default/lamps", body).await;
    }
    let path = "/api/v1/projects/default/lamps/actions/dim";
    let body = json!({ "selector": "room=hall", "params": { "to": 10 } });
    let (status, would) = house
        .post(&format!("{path}?dry_run=true"), body.clone())
        .await;
    assert_eq!(
        (status, &would["status"]["targets"][1]["state"]),
        (200, &json!("would_run")),
        "{would}"
    );
    let (status, task) = house.post(path, body).await;
    assert_eq!(
        (status, &task["spec"]["target"]["name"]),
        (202, &json!("*")),
        "{task}"
    );
    let end = ended(&house, task["metadata"]["name"].as_str().unwrap()).await;
    assert_eq!(end["status"]["state"], "succeeded", "{end}");
    assert_eq!(brightness(&house, "b").await, 10);
    let (status, wrong) = house.post(path, json!({ "selector": "room=cellar" })).await;
    assert_eq!(
        (status, &wrong["code"]),
        (422, &json!("INVALID")),
        "{wrong}"
    );
    let (status, none) = house
        .post(
            path,
            json!({ "selector": "room=cellar", "params": { "to": 1 } }),
        )
        .await;
    assert_eq!(
        (status, &none["code"]),
        (404, &json!("NOT_FOUND")),
        "{none}"
    );

    let answer = house
        .graph(r#"mutation { lampDimBatch(project: "default", names: ["a", "b"], on_error: "continue", input: { to: 20 }) { metadata { name } spec { batch { on_error targets { name } } } } }"#)
        .await;
    let made = &answer["data"]["lampDimBatch"];
    assert_eq!(made["spec"]["batch"]["targets"][0]["name"], "a", "{answer}");
    ended(&house, made["metadata"]["name"].as_str().unwrap()).await;
    assert_eq!(brightness(&house, "a").await, 20);

    let mut client = ResourcesClient::new(house.channel().await);
    let request = ActRequest {
        key: key(""),
        verb: "dim".into(),
        params: Some(fields(&[("to", Kind::NumberValue(30.0))])),
        batch: Some(Batch {
            selector: "room".into(),
            ..Batch::default()
        }),
        ..ActRequest::default()
    };
    let object = client
        .act(request)
        .await
        .unwrap()
        .into_inner()
        .object
        .unwrap();
    let Some(Kind::StructValue(meta)) = object.fields["metadata"].kind.clone() else {
        panic!("a task has metadata")
    };
    let Some(Kind::StringValue(name)) = meta.fields["name"].kind.clone() else {
        panic!("and a name")
    };
    ended(&house, &name).await;
    assert_eq!(brightness(&house, "b").await, 30);

    // What a REST path may say, it may say of every kind: projects are objects too.
    let (status, told) = house
        .post(
            "/api/v1/projects/actions/delete?dry_run=true",
            json!({ "names": ["default"] }),
        )
        .await;
    assert_eq!(status, 200, "{told}");
    assert_eq!(told["status"]["targets"][0]["state"], "refused", "{told}");
    let (_, task) = house
        .post(
            "/api/v1/projects/default/lamps/actions/delete",
            json!({ "names": ["a", "b"] }),
        )
        .await;
    let end = ended(&house, task["metadata"]["name"].as_str().unwrap()).await;
    assert_eq!(end["status"]["state"], "succeeded", "{end}");
    let (_, list) = house.get("/api/v1/projects/default/lamps").await;
    assert_eq!(list["total"], 0);
}

//! An object lives its whole life in gRPC, nobody gets in without a certificate, and the same action through REST,
//! GraphQL and gRPC gives the same decision in the same words.

use crate::house::House;
use crate::watch::tls;
use futures::StreamExt;
use hyper_util::rt::TokioIo;
use prost_types::value::Kind;
use prost_types::{Struct, Value as Proto};
use serde_json::json;
use server::grpc_v1::resources_client::ResourcesClient;
use server::grpc_v1::{
    ActRequest, CreateRequest, DeleteRequest, GetRequest, Key, ListRequest, WatchRequest,
};
use std::sync::Arc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

impl House {
    pub async fn channel(self: &Arc<Self>) -> Channel {
        let house = self.clone();
        let connector = tower::service_fn(move |_: http::Uri| {
            let house = house.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(tls(&house, house.grpc, b"h2").await)) }
        });
        Endpoint::from_static("https://localhost")
            .connect_with_connector(connector)
            .await
            .unwrap()
    }
}

pub fn key(name: &str) -> Option<Key> {
    Some(Key {
        kind: "lamp".into(),
        project: "default".into(),
        name: name.into(),
    })
}

pub fn fields(pairs: &[(&str, Kind)]) -> Struct {
    Struct {
        fields: pairs
            .iter()
            .map(|(name, kind)| {
                (
                    (*name).to_owned(),
                    Proto {
                        kind: Some(kind.clone()),
                    },
                )
            })
            .collect(),
    }
}

fn named(name: &str) -> Struct {
    let meta = fields(&[("name", Kind::StringValue(name.into()))]);
    fields(&[("metadata", Kind::StructValue(meta))])
}

#[tokio::test]
async fn a_lamp_lives_in_grpc_too() {
    let house = Arc::new(House::open().await);
    let mut client = ResourcesClient::new(house.channel().await);
    let create = CreateRequest {
        kind: "lamp".into(),
        project: "default".into(),
        object: Some(named("a")),
        dry_run: false,
    };
    let made = client.create(create.clone()).await.unwrap().into_inner();
    assert!(made.created && !made.revision.is_empty());
    let again = client.create(create).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);
    let got = client
        .get(GetRequest { key: key("a") })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(got.revision, made.revision);
    let missing = client.get(GetRequest { key: key("b") }).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let problem: serde_json::Value = serde_json::from_slice(
        &missing
            .metadata()
            .get_bin("debvisor-problem-bin")
            .unwrap()
            .to_bytes()
            .unwrap(),
    )
    .unwrap();
    assert_eq!(problem["code"], "NOT_FOUND");

    let mut changes = client
        .watch(WatchRequest {
            kind: "lamp".into(),
            ..WatchRequest::default()
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(changes.next().await.unwrap().unwrap().r#type, 1);
    assert_eq!(changes.next().await.unwrap().unwrap().r#type, 3, "bookmark");
    let mut stale = Request::new(DeleteRequest {
        key: key("a"),
        ..DeleteRequest::default()
    });
    stale
        .metadata_mut()
        .insert("if-match", "1".parse().unwrap());
    assert_eq!(
        client.delete(stale).await.unwrap_err().code(),
        Code::Aborted
    );
    let gone = client
        .delete(DeleteRequest {
            key: key("a"),
            ..DeleteRequest::default()
        })
        .await
        .unwrap();
    assert!(gone.into_inner().gone);
    assert_eq!(changes.next().await.unwrap().unwrap().r#type, 2, "deleted");
    let list = client
        .list(ListRequest {
            kind: "lamp".into(),
            ..ListRequest::default()
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!((list.total, list.items.len()), (0, 0));
}

#[tokio::test]
async fn grpc_without_a_certificate_is_no_connection() {
    let house = House::open().await;
    let url = format!("https://{}/debvisor.v1.Resources/Get", house.grpc);
    assert!(house.stranger().post(url).send().await.is_err());
}

/// The same action through three surfaces: one decision, one request id, in the task that it makes.
#[tokio::test]
async fn all_surfaces_decide_alike() {
    let house = Arc::new(House::open().await);
    house.lamp("a").await;
    let mut client = ResourcesClient::new(house.channel().await);
    let mut act = async |name: &str, to: f64, id: &str| {
        let params = fields(&[("to", Kind::NumberValue(to))]);
        let mut request = Request::new(ActRequest {
            key: key(name),
            verb: "dim".into(),
            params: Some(params),
            ..ActRequest::default()
        });
        request
            .metadata_mut()
            .insert("x-request-id", id.parse().unwrap());
        client.act(request).await.map(|reply| {
            let object = reply.into_inner().object.unwrap();
            let Some(Kind::StructValue(spec)) = object.fields["spec"].kind.clone() else {
                panic!("a task has a spec")
            };
            let Some(Kind::StringValue(id)) = spec.fields["request_id"].kind.clone() else {
                panic!("and a request")
            };
            id
        })
    };
    let rest = async |name: &str, to: i32, id: &str| {
        let path = format!("/api/v1/projects/default/lamps/{name}/actions/dim");
        let asked = house
            .ask(reqwest::Method::POST, &path)
            .header("x-request-id", id)
            .json(&json!({ "to": to }));
        crate::house::told(asked.send().await.unwrap()).await
    };
    let graph = async |name: &str, to: i32, id: &str| {
        let query = format!(
            "mutation {{ lampDim(project: \"default\", name: \"{name}\", input: {{ to: {to} }}) {{ spec {{ request_id }} }} }}"
        );
        let asked = house
            .ask(reqwest::Method::POST, "/graphql")
            .header("x-request-id", id)
            .json(&json!({ "query": query }));
        crate::house::told(asked.send().await.unwrap()).await.1
    };
    // Allowed: each makes a task that carries the id of its request.
    assert_eq!(
        rest("a", 1, "id-rest").await.1["spec"]["request_id"],
        "id-rest"
    );
    assert_eq!(
        graph("a", 2, "id-graph").await["data"]["lampDim"]["spec"]["request_id"],
        "id-graph"
    );
    assert_eq!(act("a", 3.0, "id-grpc").await.unwrap(), "id-grpc");
    let (_, lamp) = house.get("/api/v1/projects/default/lamps/a").await;
    assert_eq!(lamp["spec"]["brightness"], 3);
    // Refused: with the same code and the same words.
    for (name, to, code) in [("a", 500, "INVALID"), ("nobody", 5, "NOT_FOUND")] {
        let (_, by_rest) = rest(name, to, "r").await;
        let by_graph = graph(name, to, "r").await["errors"][0]["extensions"].clone();
        let by_grpc = act(name, f64::from(to), "r").await.unwrap_err();
        let by_grpc: serde_json::Value = serde_json::from_slice(
            &by_grpc
                .metadata()
                .get_bin("debvisor-problem-bin")
                .unwrap()
                .to_bytes()
                .unwrap(),
        )
        .unwrap();
        assert_eq!(by_rest["code"], code);
        assert_eq!(by_rest, by_graph);
        assert_eq!(by_rest, by_grpc);
    }
}

#[tokio::test]
async fn reflection_and_health_are_there() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let house = Arc::new(House::open().await);
    let mut client = ServerReflectionClient::new(house.channel().await);
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut replies = client
        .server_reflection_info(futures::stream::iter([ask]))
        .await
        .unwrap()
        .into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) =
        replies.next().await.unwrap().unwrap().message_response
    else {
        panic!("services were asked for")
    };
    let names: Vec<String> = list.service.into_iter().map(|s| s.name).collect();
    assert!(
        names.contains(&"debvisor.v1.Resources".to_owned()),
        "{names:?}"
    );
    assert!(
        names.contains(&"grpc.health.v1.Health".to_owned()),
        "{names:?}"
    );
}

#[test]
fn the_demo_kind_is_in_graphql_and_stable() {
    let registry = crate::house::registry();
    let sdl = server::graphql_sdl(&registry);
    assert!(
        sdl.contains("type Lamp {") && sdl.contains("lampDim("),
        "{sdl}"
    );
    assert_eq!(sdl, server::graphql_sdl(&registry));
    assert!(server::PROTO.contains("service Resources"));
}

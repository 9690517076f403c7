//! Nobody asks more often than his limit, on whatever path and surface: strangers by address, users by name; root on the
//! local socket is not counted.

use crate::grpc::key;
use crate::house::{House, rate, set, told};
use reqwest::Method;
use runtime::limit;
use serde_json::json;
use server::grpc_v1::resources_client::ResourcesClient;
use server::grpc_v1::{DeleteRequest, GetRequest, ListRequest};
use std::sync::Arc;
use tonic::Code;

#[tokio::test]
async fn the_101st_request_of_a_stranger_is_refused_on_any_path() {
    let house = House::open().await;
    rate(&house.cx, &limit::ANONYMOUS, 100).await;
    let stranger = house.stranger();
    let paths = [
        "/health/live",
        "/",
        "/api/v1/whoami",
        "/api/v1/projects/default/lamps",
        "/metrics",
        "/nothing/here",
    ];
    let ask = |n: usize| stranger.get(house.url(paths[n % paths.len()])).send();
    for n in 0..100 {
        let response = ask(n).await.unwrap();
        assert_ne!(response.status(), 429, "request {}", n + 1);
        let left = response.headers()["ratelimit-remaining"].to_str().unwrap();
        assert_eq!(left, (99 - n).to_string());
    }
    for (n, path) in paths.iter().enumerate() {
        let response = ask(n).await.unwrap();
        let headers = response.headers().clone();
        let (status, problem) = told(response).await;
        assert_eq!(status, 429, "{path}");
        assert_eq!(problem["code"], "RATE_LIMITED", "{problem}");
        let after: u64 = headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=61).contains(&after), "{after}");
        assert_eq!(headers["ratelimit-remaining"], "0");
        assert_eq!(headers["ratelimit-limit"], "100");
        assert_eq!(headers["x-content-type-options"], "nosniff");
    }
    // What is shown and not accepted counts for the address, too.
    let liar = stranger
        .get(house.url("/api/v1/whoami"))
        .header("authorization", "Bearer a")
        .header("authorization", "Bearer b");
    assert_eq!(liar.send().await.unwrap().status(), 429);
    // Who is known is not held up by his neighbours, and root on the local socket by nobody.
    assert_eq!(house.get("/api/v1/whoami").await.0, 200);
    let local = reqwest::Client::builder()
        .unix_socket(house.unix.clone())
        .build()
        .unwrap();
    for _ in 0..120 {
        let asked = local.get("http://localhost/health/live").send();
        let response = asked.await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(!response.headers().contains_key("ratelimit-limit"));
    }
}

#[tokio::test]
async fn a_user_has_one_limit_for_all_surfaces() {
    let house = Arc::new(House::open().await);
    rate(&house.cx, &limit::PRINCIPAL_BURST, 4).await;
    // One a minute comes back, so that a slow machine does not matter.
    rate(&house.cx, &limit::PRINCIPAL, 5).await;
    assert_eq!(house.get("/api/v1/whoami").await.0, 200);
    let (status, answer) = house
        .post("/graphql", json!({ "query": "{ __typename }" }))
        .await;
    assert_eq!(status, 200, "{answer}");
    let mut grpc = ResourcesClient::new(house.channel().await);
    for _ in 0..2 {
        let asked = grpc.get(GetRequest { key: key("none") }).await;
        assert_eq!(asked.unwrap_err().code(), Code::NotFound);
    }
    let refused = grpc.get(GetRequest { key: key("none") }).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(refused.metadata().contains_key("retry-after"));
    assert_eq!(refused.metadata().get("ratelimit-remaining").unwrap(), "0");
    let (status, problem) = house.get("/api/v1/whoami").await;
    assert_eq!(
        (status, problem["code"].as_str()),
        (429, Some("RATE_LIMITED"))
    );
}

#[tokio::test]
async fn what_changes_something_has_a_limit_of_its_own() {
    let house = Arc::new(House::open().await);
    rate(&house.cx, &limit::GRPC_CHANGE, 2).await;
    rate(&house.cx, &limit::GRAPHQL_MUTATION, 2).await;
    let mut grpc = ResourcesClient::new(house.channel().await);
    let delete = DeleteRequest {
        key: key("none"),
        ..DeleteRequest::default()
    };
    for _ in 0..2 {
        let asked = grpc.delete(delete.clone()).await;
        assert_eq!(asked.unwrap_err().code(), Code::NotFound);
    }
    let refused = grpc.delete(delete).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let read = grpc.get(GetRequest { key: key("none") }).await;
    assert_eq!(read.unwrap_err().code(), Code::NotFound);

    let mutation = r#"mutation { lampDelete(project: "default", name: "none") { __typename } }"#;
    let batch = json!([{ "query": mutation }, { "query": mutation }, { "query": mutation }]);
    let (_, answers) = house.post("/graphql", batch).await;
    let code = |n: usize| answers[n]["errors"][0]["extensions"]["code"].clone();
    assert_ne!(code(1), "RATE_LIMITED", "{answers}");
    assert_eq!(code(2), "RATE_LIMITED", "{answers}");
    let read = house
        .graph("{ lamps(project: \"default\") { total } }")
        .await;
    assert_eq!(read["data"]["lamps"]["total"], 0, "{read}");
}

#[tokio::test]
async fn a_limit_is_a_setting_in_force_at_once() {
    let house = House::open().await;
    rate(&house.cx, &limit::ANONYMOUS, 1).await;
    let stranger = house.stranger();
    let ask = || {
        stranger
            .request(Method::GET, house.url("/health/live"))
            .send()
    };
    assert_eq!(ask().await.unwrap().status(), 200);
    assert_eq!(ask().await.unwrap().status(), 429);
    rate(&house.cx, &limit::ANONYMOUS, 1000).await;
    let lifted = async {
        while ask().await.unwrap().status() == 429 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), lifted)
        .await
        .expect("within a second or so");
}

#[tokio::test]
async fn each_change_of_one_mutation_counts() {
    let house = Arc::new(House::open().await);
    rate(&house.cx, &limit::GRAPHQL_MUTATION, 5).await;
    let ask = |count: usize| {
        let one =
            |n| format!(r#"a{n}: lampDelete(project: "default", name: "x{n}") {{ __typename }} "#);
        let all: String = (0..count).map(one).collect();
        json!({ "query": format!("mutation {{ ...all }} fragment all on Mutation {{ {all} }}") })
    };
    for (count, code) in [(3, "NOT_FOUND"), (3, "RATE_LIMITED")] {
        let (_, answer) = house.post("/graphql", ask(count)).await;
        assert_eq!(answer["errors"][0]["extensions"]["code"], code, "{answer}");
    }
    // Who was refused is on record. The end of the process writes what waits.
    house
        .cx
        .life()
        .stop(std::time::Duration::from_secs(5))
        .await;
    let rows = house.trail.last(100).await;
    let limited = |row: &&runtime::audit::Row| row.action == runtime::audit::RATE_LIMITED.action;
    let row = rows.iter().find(limited).unwrap();
    assert_eq!(row.params, json!({ "limit": "GraphQlMutation" }), "{row:?}");
}

#[tokio::test]
async fn who_is_known_is_warned_before_he_is_refused_in_graceful_mode() {
    let house = Arc::new(House::open().await);
    set(&house.cx, &limit::MODE, json!("graceful")).await;
    rate(&house.cx, &limit::GRPC_CHANGE, 5).await;
    let mut grpc = ResourcesClient::new(house.channel().await);
    let delete = DeleteRequest {
        key: key("none"),
        ..DeleteRequest::default()
    };
    for n in 0..6 {
        let refused = grpc.delete(delete.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
        let grace = refused
            .metadata()
            .get("ratelimit-grace")
            .map(|v| v.to_str().unwrap());
        assert_eq!(grace, (n == 5).then_some("0"), "call {n}");
    }
    let refused = grpc.delete(delete).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.metadata().contains_key("retry-after"));
}

#[tokio::test]
async fn a_kind_with_a_limit_of_its_own_has_it_over_grpc_and_no_other() {
    static ROWS: &[limit::NamedRate] = &[limit::NamedRate {
        kinds: &["lamp"],
        verbs: &["list"],
        rate: limit::Rate::per_minute(3),
    }];
    let house = Arc::new(House::with_part(Arc::new(limit::NamedRates(ROWS))).await);
    // The general one is narrower, and does not count here.
    rate(&house.cx, &limit::GRPC, 1).await;
    let mut grpc = ResourcesClient::new(house.channel().await);
    let list = ListRequest {
        kind: "lamp".into(),
        project: "default".into(),
        ..ListRequest::default()
    };
    for left in ["2", "1", "0"] {
        let listed = grpc.list(list.clone()).await.unwrap();
        assert_eq!(listed.metadata().get("ratelimit-remaining").unwrap(), left);
    }
    let refused = grpc.list(list).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    let get = || GetRequest { key: key("none") };
    assert_eq!(grpc.get(get()).await.unwrap_err().code(), Code::NotFound);
    let refused = grpc.get(get()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    let (status, lamps) = house.get("/api/v1/projects/default/lamps").await;
    assert_eq!(status, 200, "{lamps}");
}

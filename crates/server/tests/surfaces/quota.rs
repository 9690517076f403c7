//! What a project may use, in every surface: of fifty at once exactly as many get in as fit, and the refusal says which
//! limit, how much of it is used and what to do. And a project that is put to sleep takes no change from anywhere.

use crate::grpc::fields;
use crate::house::{House, limits};
use prost_types::value::Kind;
use reqwest::Method;
use serde_json::{Value, json};
use server::grpc_v1::resources_client::ResourcesClient;
use server::grpc_v1::{CreateRequest, DeleteRequest, Key};
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::Channel;

/// How a surface answered: the code of its problem, or nothing; and the problem.
type Said = (Option<String>, Value);

async fn by_rest(house: &House, name: &str) -> Said {
    let body = json!({ "metadata": { "name": name }, "spec": {} });
    let (status, answer) = house.post("/api/v1/projects/shop/vms", body).await;
    match status {
        201 => (None, answer),
        _ => (Some(answer["code"].as_str().unwrap().into()), answer),
    }
}

async fn by_graph(house: &House, name: &str) -> Said {
    let query = format!(
        r#"mutation {{ vmCreate(project: "shop", name: "{name}", spec: {{}}) {{ metadata {{ name }} }} }}"#
    );
    let answer = house.graph(&query).await;
    match &answer["errors"][0]["extensions"] {
        Value::Null => (None, answer),
        problem => (
            Some(problem["code"].as_str().unwrap().into()),
            problem.clone(),
        ),
    }
}

async fn by_grpc(channel: Channel, name: &str) -> Said {
    let meta = fields(&[("name", Kind::StringValue(name.into()))]);
    let create = CreateRequest {
        kind: "vm".into(),
        project: "shop".into(),
        object: Some(fields(&[("metadata", Kind::StructValue(meta))])),
        dry_run: false,
    };
    match ResourcesClient::new(channel).create(create).await {
        Ok(_) => (None, Value::Null),
        Err(status) => problem(&status),
    }
}

fn problem(status: &tonic::Status) -> Said {
    let bytes = status.metadata().get_bin("debvisor-problem-bin").unwrap();
    let problem: Value = serde_json::from_slice(&bytes.to_bytes().unwrap()).unwrap();
    (Some(problem["code"].as_str().unwrap().into()), problem)
}

async fn shop(house: &House) -> Value {
    let body = json!({ "metadata": { "name": "shop" }, "spec": {} });
    let (status, made) = house.post("/api/v1/projects", body).await;
    assert_eq!(status, 201, "{made}");
    quota(house, |quota| quota["spec"]["vms"] == 10).await
}

/// The quota of the project, once it is as awaited.
async fn quota(house: &House, is: impl Fn(&Value) -> bool) -> Value {
    let wait = async {
        loop {
            let (_, quota) = house.get("/api/v1/quotas/shop").await;
            if is(&quota) {
                return quota;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_fifty_at_once_over_every_surface_ten_get_in() {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = store::Sqlite::open(folder.path()).unwrap();
    let stores: [Arc<dyn store::Store>; 2] = [store::Memory::new(), sqlite];
    for store in stores {
        let house = Arc::new(House::over(crate::everything(), limits(), store).await);
        let before = shop(&house).await;
        assert_eq!(before["spec"]["memory"], 64_u64 << 30, "{before}");
        let channel = house.channel().await;
        let mut tries = tokio::task::JoinSet::new();
        for n in 0..50 {
            let (house, channel) = (house.clone(), channel.clone());
            tries.spawn(async move {
                let name = format!("vm{n}");
                match n % 3 {
                    0 => by_rest(&house, &name).await,
                    1 => by_graph(&house, &name).await,
                    _ => by_grpc(channel, &name).await,
                }
            });
        }
        let said = tries.join_all().await;
        let made = said.iter().filter(|(code, _)| code.is_none()).count();
        let refused = said.iter().filter_map(|(code, _)| code.as_deref());
        assert!(
            refused.clone().all(|code| code == "QUOTA_EXCEEDED"),
            "{said:?}"
        );
        assert_eq!(made, 10, "{said:?}");
        // The eleventh, by each of them, in the same words.
        for (code, problem) in [
            by_rest(&house, "more").await,
            by_graph(&house, "more").await,
            by_grpc(channel.clone(), "more").await,
        ] {
            assert_eq!(code.as_deref(), Some("QUOTA_EXCEEDED"), "{problem}");
            let text = problem.to_string();
            for word in [
                "10 of 10 vms are used, and this needs 1 more",
                "dvctl quota set shop --vms 11",
            ] {
                assert!(text.contains(word), "{word}: {text}");
            }
        }
        let quota = quota(&house, |quota| quota["status"]["used"]["vms"] == 10).await;
        assert_eq!(quota["status"]["used"]["vcpus"], 10, "{quota}");
        house.stop.cancel();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn edits_batches_and_disks_that_are_yet_to_be_made_count_too() {
    let house = House::of(crate::everything(), limits()).await;
    shop(&house).await;
    let path = "/api/v1/projects/shop/vms";
    let body = json!({ "metadata": { "name": "a" }, "spec": { "vcpus": 15 } });
    let (status, answer) = house.post(path, body).await;
    assert_eq!(status, 201, "{answer}");
    let edit = |spec: Value| {
        let request = house.ask(Method::PATCH, &format!("{path}/a"));
        let request = request.header("content-type", "application/merge-patch+json");
        async move {
            let body = json!({ "spec": spec }).to_string();
            crate::house::told(request.body(body).send().await.unwrap()).await
        }
    };
    let (status, answer) = edit(json!({ "vcpus": 21 })).await;
    assert_eq!(
        (status, answer["code"].as_str()),
        (403, Some("QUOTA_EXCEEDED"))
    );
    let detail = answer["detail"].as_str().unwrap();
    assert!(
        detail.contains("15 of 20 vcpus are used, and this needs 6 more"),
        "{detail}"
    );
    let (status, answer) = edit(json!({ "vcpus": 20 })).await;
    assert_eq!(status, 200, "{answer}");
    let (status, answer) = edit(json!({ "memory": "65GiB" })).await;
    assert_eq!(
        (status, answer["code"].as_str()),
        (403, Some("QUOTA_EXCEEDED"))
    );
    assert!(
        answer["detail"]
            .as_str()
            .unwrap()
            .contains("of 64GiB memory"),
        "{answer}"
    );
    // Its disks would be volumes of 1001 GiB together: refused now, and not when they are made.
    let disks = json!([{ "size": "600GiB" }, { "size": "401GiB" }]);
    let (status, answer) = edit(json!({ "disks": disks })).await;
    assert_eq!(
        (status, answer["code"].as_str()),
        (403, Some("QUOTA_EXCEEDED"))
    );
    assert!(
        answer["detail"]
            .as_str()
            .unwrap()
            .contains("of 1000GiB disk"),
        "{answer}"
    );
    // A limit that is lowered takes nothing away and gives no more; one that is raised does.
    let set = |vcpus: u64| {
        let request = house.ask(Method::PATCH, "/api/v1/quotas/shop");
        let request = request.header("content-type", "application/merge-patch+json");
        async move {
            let body = json!({ "spec": { "vcpus": vcpus } }).to_string();
            request.body(body).send().await.unwrap().status()
        }
    };
    assert_eq!(set(5).await, 200);
    let quota = quota(&house, |quota| quota["status"]["over"][0] == "vcpus").await;
    assert_eq!(quota["status"]["used"]["vcpus"], 20, "{quota}");
    let (status, answer) = edit(json!({ "vcpus": 21 })).await;
    assert_eq!(status, 403, "{answer}");
    assert_eq!(edit(json!({ "vcpus": 19 })).await.0, 200);
    assert_eq!(set(21).await, 200);
    assert_eq!(edit(json!({ "vcpus": 21 })).await.0, 200);
    // Nobody makes or deletes one, and one of an unknown word is not set.
    let (status, _) = house
        .post(
            "/api/v1/quotas",
            json!({ "metadata": { "name": "other" }, "spec": {} }),
        )
        .await;
    assert_eq!(status, 405);
    house.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_project_that_sleeps_takes_no_change_from_anywhere() {
    let house = Arc::new(House::of(crate::everything(), limits()).await);
    shop(&house).await;
    assert_eq!(by_rest(&house, "a").await.0, None);
    let asleep = house
        .ask(Method::PATCH, "/api/v1/projects/shop")
        .header("content-type", "application/merge-patch+json")
        .body(json!({ "spec": { "active": false } }).to_string());
    assert_eq!(asleep.send().await.unwrap().status(), 200);
    let channel = house.channel().await;
    let refused = Some("REFUSED".to_owned());
    assert_eq!(by_rest(&house, "b").await.0, refused);
    assert_eq!(by_graph(&house, "b").await.0, refused);
    assert_eq!(by_grpc(channel.clone(), "b").await.0, refused);
    let gone = DeleteRequest {
        key: Some(Key {
            kind: "vm".into(),
            project: "shop".into(),
            name: "a".into(),
        }),
        ..DeleteRequest::default()
    };
    let error = ResourcesClient::new(channel)
        .delete(gone)
        .await
        .unwrap_err();
    assert_eq!(problem(&error).0, refused);
    for (method, path, body) in [
        (
            Method::PATCH,
            "/api/v1/projects/shop/vms/a",
            json!({ "spec": { "vcpus": 2 } }),
        ),
        (
            Method::POST,
            "/api/v1/projects/shop/vms/a/actions/start",
            json!({}),
        ),
        (Method::DELETE, "/api/v1/projects/shop/vms/a", json!({})),
        (
            Method::POST,
            "/api/v1/projects/shop/vms/actions/start",
            json!({ "names": ["a"] }),
        ),
    ] {
        let sort = match method == Method::PATCH {
            true => "application/merge-patch+json",
            false => "application/json",
        };
        let request = house
            .ask(method.clone(), path)
            .header("content-type", sort)
            .body(body.to_string());
        let (status, answer) = crate::house::told(request.send().await.unwrap()).await;
        assert_eq!(status, 409, "{method} {path}: {answer}");
        assert_eq!(answer["code"], "REFUSED", "{method} {path}: {answer}");
    }
    let (status, answer) = house.get("/api/v1/projects/shop/vms/a").await;
    assert_eq!(status, 200, "{answer}");
    house.stop.cancel();
}

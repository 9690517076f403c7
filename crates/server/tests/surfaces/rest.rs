//! REST over TLS and over the local socket: preconditions, retries, dry runs, pages, actions, versions, login, who gets
//! what, and a shutdown that loses no request.

use crate::house::{House, limits, request, told};
use reqwest::Method;
use serde_json::{Value, json};
use server::Limits;
use std::time::Duration;

const LAMPS: &str = "/api/v1/projects/default/lamps";

#[tokio::test]
async fn an_object_lives_its_life() {
    let house = House::open().await;
    let body = json!({ "metadata": { "name": "a", "labels": { "room": "hall" } }, "spec": { "pin": "1234" } });
    let response = house
        .ask(Method::POST, LAMPS)
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()["location"], format!("{LAMPS}/a"));
    let etag = response.headers()["etag"].to_str().unwrap().to_owned();
    let (_, lamp) = told(response).await;
    assert_eq!(lamp["spec"]["brightness"], 100, "defaults are there");
    assert_eq!(lamp["spec"]["pin"], Value::Null, "secrets are not");
    assert_eq!(
        etag,
        format!("\"{}\"", lamp["metadata"]["revision"].as_str().unwrap())
    );

    let again = house.post(LAMPS, body).await;
    assert_eq!(
        (again.0, again.1["code"].as_str()),
        (409, Some("ALREADY_EXISTS"))
    );

    let known = house
        .ask(Method::GET, &format!("{LAMPS}/a"))
        .header("if-none-match", &etag);
    assert_eq!(known.send().await.unwrap().status(), 304);

    let patch = house
        .ask(Method::PATCH, &format!("{LAMPS}/a"))
        .header("content-type", "application/merge-patch+json")
        .header("if-match", &etag)
        .body(r#"{"spec":{"on":true}}"#);
    let (status, lamp) = told(patch.send().await.unwrap()).await;
    assert_eq!((status, &lamp["spec"]["on"]), (200, &json!(true)));

    // The old revision is no longer good, for patch, apply and delete.
    for method in [Method::PATCH, Method::PUT, Method::DELETE] {
        let stale = house
            .ask(method.clone(), &format!("{LAMPS}/a"))
            .header("if-match", &etag)
            .json(&json!({ "spec": {} }));
        let (status, problem) = told(stale.send().await.unwrap()).await;
        assert_eq!(status, 412, "{method} {problem}");
        assert_eq!(
            problem["revision"], lamp["metadata"]["revision"],
            "{method}"
        );
    }

    let put = house
        .ask(Method::PUT, &format!("{LAMPS}/a"))
        .json(&json!({ "spec": { "brightness": 7 } }));
    let (status, lamp) = told(put.send().await.unwrap()).await;
    assert_eq!(
        (status, &lamp["spec"]["brightness"], &lamp["spec"]["on"]),
        (200, &json!(7), &json!(false))
    );
    let put = house
        .ask(Method::PUT, &format!("{LAMPS}/b"))
        .json(&json!({ "spec": {} }));
    assert_eq!(
        put.send().await.unwrap().status(),
        201,
        "apply makes what is not there"
    );

    let gone = house
        .ask(Method::DELETE, &format!("{LAMPS}/a"))
        .send()
        .await
        .unwrap();
    assert_eq!(gone.status(), 204);
    assert_eq!(house.get(&format!("{LAMPS}/a")).await.0, 404);
}

#[tokio::test]
async fn a_request_that_is_repeated_is_answered_not_done_again() {
    let house = House::open().await;
    let send = |key: &'static str, name: &'static str| {
        house
            .ask(Method::POST, LAMPS)
            .header("idempotency-key", key)
            .json(&json!({ "metadata": { "name": name } }))
            .send()
    };
    let (status, first) = told(send("k1", "a").await.unwrap()).await;
    assert_eq!(status, 201);
    let (_, second) = told(send("k1", "a").await.unwrap()).await;
    assert_eq!(first["metadata"]["uid"], second["metadata"]["uid"]);
    let (status, problem) = told(send("k1", "b").await.unwrap()).await;
    assert_eq!((status, problem["code"].as_str()), (422, Some("INVALID")));
    assert_eq!(told(send("k2", "a").await.unwrap()).await.0, 409);
}

#[tokio::test]
async fn a_dry_run_answers_what_would_be_and_writes_nothing() {
    let house = House::open().await;
    let body = json!({ "metadata": { "name": "a" }, "spec": {} });
    let (status, lamp) = house.post(&format!("{LAMPS}?dry_run=true"), body).await;
    assert_eq!((status, &lamp["spec"]["brightness"]), (200, &json!(100)));
    assert_eq!(house.get(&format!("{LAMPS}/a")).await.0, 404);
    house.lamp("a").await;
    let (status, _) = house
        .post(
            &format!("{LAMPS}/a/actions/dim?dry_run=true"),
            json!({ "to": 5 }),
        )
        .await;
    assert_eq!(status, 200);
    let dry = house
        .ask(Method::DELETE, &format!("{LAMPS}/a?dry_run"))
        .send()
        .await
        .unwrap();
    assert_eq!(dry.status(), 200);
    assert_eq!(
        house.get(&format!("{LAMPS}/a")).await.1["spec"]["brightness"],
        100
    );
}

#[tokio::test]
async fn what_stays_of_a_deleted_object_is_a_kind_or_a_field() {
    let house = House::open().await;
    for keep in ["task", "tasks", "parts"] {
        house.lamp("a").await;
        let path = format!("{LAMPS}/a?keep={keep}");
        let gone = house.ask(Method::DELETE, &path).send().await.unwrap();
        assert_eq!(gone.status(), 204, "{keep}");
    }
    house.lamp("a").await;
    let path = format!("{LAMPS}/a?keep=taks");
    let (status, problem) = told(house.ask(Method::DELETE, &path).send().await.unwrap()).await;
    assert_eq!(status, 422);
    assert!(
        problem.to_string().contains("neither a kind nor a field"),
        "{problem}"
    );
}

#[tokio::test]
async fn lists_are_paged_picked_and_sorted() {
    let house = House::open().await;
    for n in 0..45 {
        let body = json!({
            "metadata": { "name": format!("l{n:02}"), "labels": { "even": (n % 2 == 0).to_string() } },
            "spec": { "brightness": n + 1 },
        });
        assert_eq!(house.post(LAMPS, body).await.0, 201);
    }
    let (mut path, mut names, mut pages) = (LAMPS.to_owned(), Vec::new(), 0);
    loop {
        let (status, list) = house.get(&path).await;
        assert_eq!(
            (status, &list["kind"], &list["total"]),
            (200, &json!("lamp-list"), &json!(45))
        );
        pages += 1;
        for item in list["items"].as_array().unwrap() {
            names.push(item["metadata"]["name"].as_str().unwrap().to_owned());
        }
        match list["next"].as_str() {
            Some(next) => path = format!("{LAMPS}?after={next}"),
            None => break,
        }
    }
    assert_eq!((pages, names.len()), (3, 45));
    assert!(names.is_sorted());

    let (_, list) = house.get("/api/v1/lamps?limit=500&selector=even%3Dtrue&fields=name,spec.brightness&sort=-brightness").await;
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 23);
    assert_eq!(items[0], json!({ "name": "l44", "spec.brightness": 45 }));

    for (query, hint) in [
        ("limt=5", "did you mean `limit`?"),
        ("fields=nmae", "did you mean `name`?"),
        ("selector=%3Da", "write key=value"),
        ("after=zzz", "begin again"),
    ] {
        let (status, problem) = house.get(&format!("{LAMPS}?{query}")).await;
        assert_eq!(status, 422, "{query}");
        assert!(problem.to_string().contains(hint), "{query}: {problem}");
    }
}

#[tokio::test]
async fn mistakes_are_named_with_their_remedy() {
    let house = House::open().await;
    house.lamp("web1").await;
    let body = json!({ "metadata": { "name": "x" }, "spec": { "brigthness": 5, "parts": [{ "glass": "a", "wieght": 1 }] } });
    let (status, problem) = house.post(LAMPS, body).await;
    assert_eq!((status, problem["code"].as_str()), (422, Some("INVALID")));
    let violations = problem["violations"].to_string();
    assert!(
        violations.contains("did you mean `brightness`?"),
        "{violations}"
    );
    assert!(violations.contains("spec.parts[0].wieght"), "{violations}");

    for (path, status, hint) in [
        (
            "/api/v1/projects/default/lmaps",
            404,
            "did you mean `lamps`?",
        ),
        (
            "/api/v1/projects/default/lamps/wbe1",
            404,
            "did you mean `web1`?",
        ),
        (
            "/api/v1/projects/defualt/lamps",
            404,
            "did you mean `default`?",
        ),
        (
            "/api/v1/lamps/web1",
            404,
            "/api/v1/projects/PROJECT/lamps/NAME",
        ),
        (
            "/api/v1/projects/default/lamps/web1/nonsense",
            404,
            "actions/VERB",
        ),
        (
            "/api/v1/projects/default/lamps/web1/streams/ehco",
            404,
            "did you mean `echo`?",
        ),
        (
            "/api/v1/projects/default/lamps/..%2f..%2fx",
            400,
            "UNPARSEABLE",
        ),
        ("/api/v2/lamps", 404, "/api/v1"),
    ] {
        let (got, problem) = house.get(path).await;
        assert_eq!(got, status, "{path} {problem}");
        assert!(problem.to_string().contains(hint), "{path}: {problem}");
    }
    let (status, problem) = house
        .post(&format!("{LAMPS}/web1/actions/dmi"), json!({}))
        .await;
    assert_eq!(status, 404);
    assert!(
        problem["hint"].as_str().unwrap().contains("dim"),
        "{problem}"
    );
    let (status, problem) = house
        .post(&format!("{LAMPS}/web1/actions/dim"), json!({ "to": 500 }))
        .await;
    assert_eq!(
        (status, problem["violations"][0]["field"].as_str()),
        (422, Some("to")),
        "{problem}"
    );

    let response = house.ask(Method::DELETE, LAMPS).send().await.unwrap();
    assert_eq!(response.status(), 405);
    assert_eq!(response.headers()["allow"], "GET, POST");
    let tasks = house
        .ask(Method::POST, "/api/v1/projects/default/tasks")
        .json(&json!({}));
    let response = tasks.send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["allow"]),
        (405, &"GET".parse().unwrap())
    );

    for (name, value) in [
        ("api-version", "v9"),
        ("accept", "application/vnd.debvisor.v2+json"),
    ] {
        let asked = house.ask(Method::GET, LAMPS).header(name, value);
        let (status, problem) = told(asked.send().await.unwrap()).await;
        assert_eq!(
            (status, problem["code"].as_str()),
            (400, Some("VERSION_NOT_SUPPORTED"))
        );
    }
    let good = house
        .ask(Method::GET, LAMPS)
        .header("accept", "application/vnd.debvisor.v1+json");
    assert_eq!(good.send().await.unwrap().status(), 200);
    let form = house
        .ask(Method::POST, LAMPS)
        .header("content-type", "text/plain")
        .body("{}");
    assert_eq!(form.send().await.unwrap().status(), 415);
    let broken = house
        .ask(Method::POST, LAMPS)
        .header("content-type", "application/json")
        .body("{");
    let (status, problem) = told(broken.send().await.unwrap()).await;
    assert_eq!(
        (status, problem["code"].as_str()),
        (400, Some("UNPARSEABLE"))
    );
}

#[tokio::test]
async fn an_action_gives_a_task_that_can_be_found() {
    let house = House::open().await;
    house.lamp("a").await;
    let asked = house
        .ask(Method::POST, &format!("{LAMPS}/a/actions/dim"))
        .json(&json!({ "to": 5 }))
        .header("x-request-id", "my-id.1");
    let response = asked.send().await.unwrap();
    assert_eq!(response.status(), 202);
    assert_eq!(response.headers()["x-request-id"], "my-id.1");
    let at = response.headers()["location"].to_str().unwrap().to_owned();
    let (_, task) = told(response).await;
    assert_eq!(task["spec"]["request_id"], "my-id.1");
    let found = house.get(&at).await;
    assert_eq!(
        (found.0, &found.1["metadata"]["uid"]),
        (200, &task["metadata"]["uid"])
    );
    assert_eq!(
        house.get(&format!("{LAMPS}/a")).await.1["spec"]["brightness"],
        5
    );
    let (_, explained) = house.get("/api/v1/explain/lamp/default/a").await;
    assert_eq!(explained["intent"]["spec"]["brightness"], 5, "{explained}");
}

#[tokio::test]
async fn a_foreign_request_id_is_kept_only_when_it_is_harmless() {
    let house = House::open().await;
    for bad in ["a b", "x\u{e4}y", &"x".repeat(129), "a;b"] {
        let asked = house
            .ask(Method::GET, LAMPS)
            .header("x-request-id", bad.as_bytes());
        let response = asked.send().await.unwrap();
        let id = response.headers()["x-request-id"].to_str().unwrap();
        assert_ne!(id, bad);
        assert_eq!(id.len(), 36);
    }
}

#[tokio::test]
async fn who_is_unknown_learns_nothing() {
    let house = House::open().await;
    house.lamp("a").await;
    let stranger = house.stranger();
    for path in [
        LAMPS,
        "/api/v1/projects/default/lamps/a",
        "/api/v1/nonsense",
        "/api/v1/registry",
        "/api/v1/watch?kind=lamp",
        "/api/v1/events",
        "/api/v1/explain/lamp/default/a",
        "/api/openapi.json",
        "/api/docs",
        "/metrics",
        "/health/ready",
        "/health/detail",
        "/api/v1/whoami",
        "/api/v1/projects/default/lamps/a/streams/light?flashes=1",
    ] {
        let response = stranger.get(house.url(path)).send().await.unwrap();
        assert_eq!(response.status(), 401, "{path}");
    }
    for path in ["/health/live", "/api/versions", "/"] {
        let response = stranger.get(house.url(path)).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
    }
    // A code makes somebody of him, once.
    // Only on the machine: a certificate that was got by a code makes no other.
    let (status, refused) = house.post("/api/v1/login/code", Value::Null).await;
    assert_eq!(status, 403, "{refused}");
    let asked = local(&house)
        .post("http://local/api/v1/login/code")
        .json(&Value::Null);
    let (status, code) = told(asked.send().await.unwrap()).await;
    assert_eq!(status, 201, "{code}");
    let (csr, key) = request();
    let login = || {
        stranger
            .post(house.url("/api/v1/login"))
            .json(&json!({ "code": code["code"], "csr": csr }))
            .send()
    };
    let (status, issued) = told(login().await.unwrap()).await;
    assert_eq!(status, 200, "{issued}");
    let known = crate::house::client(
        &house.ca,
        Some(&(issued["certificate"].as_str().unwrap().into(), key)),
    );
    let (status, who) = told(known.get(house.url("/api/v1/whoami")).send().await.unwrap()).await;
    assert_eq!((status, who["name"].as_str()), (200, Some("administrator")));
    assert_eq!(login().await.unwrap().status(), 401);
    // Revoked, he is nobody again, also on the connection that is open.
    use x509_parser::pem::Pem;
    let pem = issued["certificate"].as_str().unwrap().as_bytes().to_vec();
    let (pem, _) = Pem::read(std::io::Cursor::new(pem)).unwrap();
    house
        .ca
        .revoke(
            &identity::ca::fingerprint(&pem.contents),
            identity::ca::Reason::KeyCompromise,
            "test",
        )
        .unwrap();
    let refused = async {
        while known
            .get(house.url("/api/v1/whoami"))
            .send()
            .await
            .unwrap()
            .status()
            != 401
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), refused)
        .await
        .unwrap();
}

/// Root on the machine itself.
fn local(house: &House) -> reqwest::Client {
    let builder = reqwest::Client::builder().unix_socket(house.unix.clone());
    builder.build().unwrap()
}

#[tokio::test]
async fn no_privilege_makes_a_login_code() {
    let house = House::open().await;
    let me = crate::login::user(&house, "eve").await;
    let all = json!({ "metadata": { "name": "all" }, "spec": { "allow": ["*"] } });
    assert_eq!(house.post("/api/v1/roles", all).await.0, 201);
    let grant = json!({ "metadata": { "name": "eve" }, "spec": { "user": "eve", "role": "all" } });
    assert_eq!(house.post("/api/v1/grants", grant).await.0, 201);
    let token = me["access"].as_str().unwrap();
    let (status, _) = crate::login::get(&house, token, "/api/v1/users").await;
    assert_eq!(status, 200);
    // Over the network, and on the machine as herself.
    for (client, url) in [
        (house.stranger(), house.url("/api/v1/login/code")),
        (local(&house), "http://local/api/v1/login/code".into()),
    ] {
        let asked = client.post(url).bearer_auth(token).json(&Value::Null);
        let (status, said) = told(asked.send().await.unwrap()).await;
        assert_eq!(status, 403, "{said}");
    }
}

#[tokio::test]
async fn the_local_socket_speaks_the_same() {
    let house = House::open().await;
    house.lamp("a").await;
    let local = local(&house);
    let (status, who) = told(
        local
            .get("http://local/api/v1/whoami")
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!((status, who["name"].as_str()), (200, Some("root@unix")));
    let (status, lamp) = told(
        local
            .get(format!("http://local{LAMPS}/a"))
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!((status, lamp["kind"].as_str()), (200, Some("lamp")));
}

#[tokio::test]
async fn the_demo_kind_is_everywhere_without_an_edit() {
    let house = House::open().await;
    let (_, registry) = house.get("/api/v1/registry").await;
    assert!(
        registry["kinds"]
            .as_array()
            .unwrap()
            .iter()
            .any(|k| k["name"] == "lamp")
    );
    let (_, doc) = house.get("/api/openapi.json").await;
    assert!(
        doc["paths"]["/api/v1/projects/{project}/lamps/{name}/actions/dim"]["post"].is_object()
    );
    assert!(doc["components"]["schemas"]["LampSpec"]["properties"]["brightness"].is_object());
    let (status, page) = house.get("/api/docs").await;
    assert_eq!(status, 200);
    assert!(page.as_str().unwrap().contains("A lamp, for tests."));
    let (_, metrics) = house.get("/metrics").await;
    assert!(
        metrics
            .as_str()
            .unwrap()
            .contains("debvisor_objects{kind=\"project\"} 1"),
        "{metrics}"
    );
    let (status, detail) = house.get("/health/detail").await;
    assert_eq!(
        (status, &detail["checks"][0]["name"]),
        (200, &json!("store"))
    );
}

#[tokio::test]
async fn a_shutdown_loses_no_request() {
    let house = House::with(Limits {
        drain: Duration::from_secs(3),
        complete: Duration::from_secs(20),
        ..limits()
    })
    .await;
    house.lamp("a").await;
    let client = house.client.clone();
    let url = house.url("/api/v1/projects/default/lamps/a");
    let ready = house.url("/health/ready");
    let mut asking = tokio::task::JoinSet::new();
    let (first, mut began) = tokio::sync::mpsc::channel(8);
    for _ in 0..8 {
        let (client, url, first) = (client.clone(), url.clone(), first.clone());
        asking.spawn(async move {
            let mut answered = 0u32;
            // Until the door is closed in order: 503, or no new connection.
            loop {
                match client.get(&url).send().await {
                    Ok(response) if response.status() == 200 => {
                        answered += 1;
                        if answered == 1 {
                            first.send(()).await.unwrap();
                        }
                    }
                    Ok(response) => {
                        assert_eq!(response.status(), 503);
                        assert_eq!(response.headers()["retry-after"], "5");
                        return answered;
                    }
                    Err(error) => {
                        assert!(error.is_connect() || error.is_request(), "{error:?}");
                        return answered;
                    }
                }
            }
        });
    }
    for _ in 0..8 {
        began.recv().await.unwrap();
    }
    house.stop.cancel();
    let probed = client.get(&ready).send().await.unwrap();
    assert_eq!(
        probed.status(),
        503,
        "ready fails while requests are still taken"
    );
    while let Some(answered) = asking.join_next().await {
        assert!(answered.unwrap() > 0);
    }
    assert_eq!(
        house.serving.await.unwrap().unwrap(),
        server::Ended::Gracefully
    );
}

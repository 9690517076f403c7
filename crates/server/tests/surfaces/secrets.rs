//! The law of secrets: what a field marked `x-secret` holds is seen in no surface: not in answers, lists, watches,
//! explanations, tasks, events, audit rows, logs and error texts, and not in the store either. Checked for every kind
//! that has such a field, found by walking the registry.

use crate::everything;
use crate::house::{House, limits, told};
use crate::watch::socket;
use futures::{SinkExt, StreamExt};
use model::Scope;
use model::schema::{self, SECRET};
use reqwest::Method;
use runtime::Declared;
use serde_json::{Value, json};
use server::grpc_v1::resources_client::ResourcesClient;
use server::grpc_v1::{GetRequest, Key, ListRequest, WatchRequest};
use std::collections::BTreeSet;
use std::io::Write;
use std::sync::{Arc, Mutex};
use store::{Page, Prefix};
use tokio_tungstenite::tungstenite::Message;

/// Part of every secret of these tests.
const HUSH: &str = "hush-4711";

/// A spec of a kind in which every secret field has a value. A new kind with secrets needs one here.
fn spec(kind: &str) -> Value {
    match kind {
        "secret" => json!({ "value": format!("{HUSH}-value") }),
        "lamp" => json!({ "pin": format!("{HUSH}-pin") }),
        "vm" => json!({
            "memory": "128MiB",
            "cloud_init": {
                "password": format!("{HUSH}-password"),
                "secret_user_data": format!("#cloud-config\n# {HUSH}-data\n"),
            }
        }),
        "acme-account" => json!({
            "eab_key_id": "kid",
            "eab_hmac": format!("{HUSH}-hmac16"),
            "credentials": format!("{HUSH}-credentials"),
            "dns": {
                "provider": "cloudflare",
                "zone": "example.org",
                "secret": format!("{HUSH}-token"),
            },
        }),
        // What stands before the first line of a PEM text is a comment.
        "certificate" => {
            let made = rcgen::generate_simple_self_signed(vec!["a.example.org".into()]).unwrap();
            let key = made.signing_key.serialize_pem();
            json!({
                "issuer": "imported",
                "chain": made.cert.pem(),
                "private_key": format!("{HUSH}-key\n{key}"),
            })
        }
        other => panic!("{other} has secret fields: give this test a spec in which all are set"),
    }
}

/// The dotted paths of the secrets that a schema declares.
fn declared(schema: &Value, path: &str, out: &mut BTreeSet<String>) {
    let join = |name: &str| match path {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    };
    let Value::Object(map) = schema else { return };
    if map.get(SECRET) == Some(&Value::Bool(true)) {
        out.insert(path.to_owned());
    }
    for (name, part) in map
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        declared(part, &join(name), out);
    }
    if let Some(items) = map.get("items") {
        declared(items, &format!("{path}[0]"), out);
    }
    for branch in ["anyOf", "oneOf", "allOf"] {
        for part in map
            .get(branch)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            declared(part, path, out);
        }
    }
}

/// Everything that was said, each with where.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Vec<(String, String)>>>);

impl Heard {
    /// Whether a text was said anywhere.
    pub fn said(&self, text: &str) -> bool {
        self.0
            .lock()
            .unwrap()
            .iter()
            .any(|(_, said)| said.contains(text))
    }

    fn add(&self, place: impl Into<String>, text: impl ToString) {
        self.0
            .lock()
            .unwrap()
            .push((place.into(), text.to_string()));
    }

    /// No secret, neither plain nor sealed (the seal of these tests turns a text round), was said anywhere.
    #[track_caller]
    fn is_silent(&self) {
        let turned: String = HUSH.chars().rev().collect();
        for (place, text) in &*self.0.lock().unwrap() {
            for secret in [HUSH, &turned] {
                if let Some(at) = text.find(secret) {
                    let from = text[..at]
                        .char_indices()
                        .rev()
                        .nth(120)
                        .map_or(0, |(n, _)| n);
                    panic!(
                        "{place} shows a secret: ...{}",
                        &text[from..at + secret.len()]
                    );
                }
            }
        }
    }
}

/// What our own crates log, at every level.
struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        for heard in &*FOLLOWERS.lock().unwrap() {
            heard.add("the log", String::from_utf8_lossy(bytes));
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Everybody who follows the log of this process.
static FOLLOWERS: Mutex<Vec<Heard>> = Mutex::new(Vec::new());

/// From now on, what our own crates log at any level is heard. All tests of one process share the log.
pub fn follow_log(heard: Heard) {
    use tracing_subscriber::prelude::*;
    FOLLOWERS.lock().unwrap().push(heard);
    let ours = tracing_subscriber::EnvFilter::new(
        "off,server=trace,runtime=trace,identity=trace,store=trace,compute=trace,model=trace",
    );
    let written = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(|| Log);
    // The second test of a process finds it there.
    let _ = tracing_subscriber::registry()
        .with(ours)
        .with(written)
        .try_init();
}

#[tokio::test]
async fn no_surface_shows_a_secret() {
    let heard = Heard::default();
    follow_log(heard.clone());
    let house = Arc::new(House::of(everything(), limits()).await);
    let mut kinds = 0;
    // What nobody but DebVisor makes has tests of its own.
    let made = |d: &&Declared| {
        d.has_secrets && d.kind().allows(model::Verb::Create) && d.kind().name != "api-key"
    };
    for kind in everything().iter().filter(made) {
        kinds += 1;
        one_kind(&house, kind, &heard).await;
    }
    assert!(kinds >= 4, "lamp, certificate, secret and vm at least");
    rekey(&house, &heard).await;

    let (_, events) = house.get("/api/v1/events?limit=1000").await;
    heard.add("events", &events);
    assert!(events.to_string().contains("lamp.created"));
    for row in house.trail.last(1000).await {
        heard.add("audit", serde_json::to_string(&row).unwrap());
    }
    let (_, metrics) = house.get("/metrics").await;
    heard.add("metrics", metrics);
    heard.is_silent();
    // The trail is full of rows, the log of lines: silence would prove nothing if nobody had spoken.
    assert!(
        heard.said("\"action\":\"lamp.rekey\""),
        "the audit trail was read"
    );
    // At rest it is sealed; the seal of these tests turns it round.
    let everything = house.store.list(&Prefix::new(""), Page::ALL).await.unwrap();
    let mut sealed = false;
    for entry in everything.entries {
        let text = String::from_utf8_lossy(&entry.value).into_owned();
        assert!(!text.contains(HUSH), "{} is stored in the open", entry.key);
        sealed |= text.contains("$sealed:");
    }
    assert!(sealed, "the secrets are there");
}

/// One object of a kind in every surface.
async fn one_kind(house: &Arc<House>, declaration: &Declared, heard: &Heard) {
    let kind = declaration.kind();
    let project = match kind.scope {
        Scope::Cluster => "",
        _ => "default",
    };
    let (spec, base) = match project {
        "" => (spec(kind.name), format!("/api/v1/{}", kind.plural)),
        project => (
            spec(kind.name),
            format!("/api/v1/projects/{project}/{}", kind.plural),
        ),
    };
    let mut paths = BTreeSet::new();
    declared(&declaration.spec, "", &mut paths);
    let mut set = BTreeSet::new();
    schema::walk(&declaration.spec, SECRET, &spec, &mut |path, _, _| {
        set.insert(path.to_owned());
    });
    assert_eq!(paths, set, "every secret field of {} is set", kind.name);

    let watch = format!("/api/v1/watch?kind={}", kind.name);
    let mut by_socket = socket(house, &watch, None).await.unwrap();
    let sse = house
        .ask(Method::GET, &watch)
        .header("accept", "text/event-stream");
    let mut by_sse = sse.send().await.unwrap().bytes_stream();
    let mut by_grpc = ResourcesClient::new(house.channel().await)
        .watch(WatchRequest {
            kind: kind.name.into(),
            ..WatchRequest::default()
        })
        .await
        .unwrap()
        .into_inner();
    let (camel, camels) = (camel(kind.name), camel(kind.plural));
    let mut by_graph = socket(house, "/graphql", Some("graphql-transport-ws"))
        .await
        .unwrap();
    let query = format!("subscription {{ {camel}Changes {{ type object {{ json }} }} }}");
    for said in [
        json!({ "type": "connection_init" }),
        json!({ "type": "subscribe", "id": "1", "payload": { "query": query } }),
    ] {
        by_graph
            .send(Message::Text(said.to_string().into()))
            .await
            .unwrap();
    }

    let body = json!({ "metadata": { "name": "s1" }, "spec": spec });
    let (status, answer) = house
        .post(&format!("{base}?dry_run=true"), body.clone())
        .await;
    assert_eq!(status, 200, "{answer}");
    heard.add("dry run", answer);
    let (status, answer) = house.post(&base, body.clone()).await;
    assert_eq!(status, 201, "{answer}");
    heard.add("create", answer);
    heard.add(
        "a name that is taken",
        house.post(&base, body.clone()).await.1,
    );
    let one = format!("{base}/s1");
    for (method, kind) in [
        (Method::PUT, "application/json"),
        (Method::PATCH, "application/merge-patch+json"),
    ] {
        let asked = house
            .ask(method.clone(), &one)
            .header("content-type", kind)
            .body(body.to_string());
        let (status, answer) = told(asked.send().await.unwrap()).await;
        assert_eq!(status, 200, "{method} {answer}");
        heard.add(method.to_string(), answer);
    }
    let picked: Vec<String> = paths.iter().map(|p| format!("spec.{p}")).collect();
    for path in [
        one.clone(),
        base.clone(),
        format!("{base}?fields=spec"),
        format!("{base}?fields={}", picked.join(",")),
        format!("{base}?search={HUSH}"),
        match project {
            "" => format!("/api/v1/explain/{}/-/s1", kind.name),
            project => format!("/api/v1/explain/{}/{project}/s1", kind.name),
        },
    ] {
        let (status, answer) = house.get(&path).await;
        // A search for a secret finds nothing; the question itself is not repeated.
        assert!(status == 200 || status == 422, "{path} {answer}");
        heard.add(path, answer);
    }
    let (_, found) = house.get(&format!("{base}?search={HUSH}")).await;
    assert_eq!(found["items"], json!([]), "a secret can be searched for");
    let (whole, room) = match project {
        "" => (String::new(), String::new()),
        project => (
            format!("(project: \"{project}\")"),
            format!("project: \"{project}\", "),
        ),
    };
    let query = format!(
        "{{ {camels}{whole} {{ items {{ json }} }} {camel}({room}name: \"s1\") {{ json }} }}"
    );
    let graph = house.graph(&query).await;
    assert!(graph["errors"].is_null(), "{graph}");
    heard.add("GraphQL", graph);
    let mut grpc = ResourcesClient::new(house.channel().await);
    let key = Some(Key {
        kind: kind.name.into(),
        project: project.into(),
        name: "s1".into(),
    });
    heard.add(
        "gRPC get",
        format!("{:?}", grpc.get(GetRequest { key }).await.unwrap()),
    );
    let list = ListRequest {
        kind: kind.name.into(),
        ..ListRequest::default()
    };
    heard.add("gRPC list", format!("{:?}", grpc.list(list).await.unwrap()));

    for path in &paths {
        wrong(house, &base, &spec, path, heard).await;
    }
    // Every watch has seen the object.
    let seen = async {
        let mut text = String::new();
        while !text.contains("s1") {
            text.push_str(
                &crate::watch::heard(&mut by_socket)
                    .await
                    .unwrap()
                    .to_string(),
            );
        }
        heard.add("WebSocket", text);
        let mut text = String::new();
        while !text.contains("\"s1\"") {
            text.push_str(&String::from_utf8_lossy(
                &by_sse.next().await.unwrap().unwrap(),
            ));
        }
        heard.add("server-sent events", text);
        let mut text = String::new();
        while !text.contains("s1") {
            text.push_str(&format!("{:?}", by_grpc.next().await.unwrap().unwrap()));
        }
        heard.add("gRPC watch", text);
        let mut text = String::new();
        while !text.contains("s1") {
            text.push_str(
                &crate::watch::heard(&mut by_graph)
                    .await
                    .unwrap()
                    .to_string(),
            );
        }
        heard.add("GraphQL subscription", text);
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), seen)
        .await
        .unwrap();
    let dry = house
        .ask(Method::DELETE, &format!("{one}?dry_run=true"))
        .send()
        .await
        .unwrap();
    heard.add("delete", told(dry).await.1);
}

/// A name as GraphQL has it: `acmeAccount`.
fn camel(name: &str) -> String {
    let mut out = String::new();
    for (n, word) in name.split('-').enumerate() {
        match (n, word.split_at_checked(1)) {
            (0, _) | (_, None) => out.push_str(word),
            (_, Some((first, rest))) => {
                out.push_str(&first.to_ascii_uppercase());
                out.push_str(rest);
            }
        }
    }
    out
}

/// Every way to get a secret wrong: the error names the field and not the value.
async fn wrong(house: &House, base: &str, spec: &Value, path: &str, heard: &Heard) {
    let long = format!("{HUSH}{}", "x".repeat(300_000));
    let bad = [
        json!([HUSH]),
        json!({ "inside": HUSH }),
        json!(long),
        json!(format!("$sealed:{HUSH}")),
        json!(format!("{HUSH}\u{0}\u{7}")),
    ];
    let pointer = format!("/{}", path.replace('.', "/"));
    for value in bad {
        let mut spec = spec.clone();
        *spec.pointer_mut(&pointer).unwrap() = value;
        let body = json!({ "metadata": { "name": "s2" }, "spec": spec });
        let (status, answer) = house
            .post(&format!("{base}?dry_run=true"), body.clone())
            .await;
        heard.add(format!("an error about {path}"), &answer);
        if status != 200 {
            assert!(
                answer
                    .to_string()
                    .contains(path.rsplit('.').next().unwrap()),
                "{status} {answer}"
            );
        }
    }
    // Something else where the secret's parent should be.
    let parent = path.split('.').next().unwrap();
    let mut broken = spec.clone();
    broken[parent] = json!([{ "a": HUSH }, HUSH]);
    let body = json!({ "metadata": { "name": "s2" }, "spec": broken });
    heard.add(
        "a wrong parent",
        house.post(&format!("{base}?dry_run=true"), body).await.1,
    );
    let body = format!("{{\"spec\": {{\"{parent}\": \"{HUSH}\" oops");
    let asked = house
        .ask(Method::POST, base)
        .header("content-type", "application/json")
        .body(body);
    heard.add("no JSON", told(asked.send().await.unwrap()).await.1);
    let query = format!("mutation {{ lampCreate(name: \"x\", spec: {{ pin: \"{HUSH}\" }} ");
    heard.add(
        "no GraphQL",
        house.post("/graphql", json!({ "query": query })).await.1,
    );
    let query =
        format!("mutation {{ lampCreate(name: \"x\", spec: {{ pin: [\"{HUSH}\"] }}) {{ json }} }}");
    heard.add(
        "GraphQL of a wrong type",
        house.post("/graphql", json!({ "query": query })).await.1,
    );
    let query = "mutation($s: LampSpecInput) { lampCreate(name: \"x\", spec: $s) { json } }";
    let asked =
        json!({ "query": query, "variables": { "s": { "pin": [HUSH], "brightness": "no" } } });
    heard.add("GraphQL variables", house.post("/graphql", asked).await.1);
}

/// A secret among the parameters of an action: not in its task either.
async fn rekey(house: &House, heard: &Heard) {
    let path = "/api/v1/projects/default/lamps/s1/actions/rekey";
    for (pin, good) in [
        (json!(format!("{HUSH}-new")), 202),
        (json!([HUSH]), 422),
        (json!(format!("{HUSH}{:>50}", "x")), 422),
    ] {
        let (status, answer) = house.post(path, json!({ "pin": pin })).await;
        assert_eq!(status, good, "{answer}");
        heard.add("the task", answer);
    }
    let (_, tasks) = house.get("/api/v1/tasks").await;
    let task = &tasks["items"][0];
    assert_eq!(
        (&task["spec"]["action"], &task["spec"]["params"]),
        (&json!("lamp.rekey"), &json!({ "pin": null }))
    );
    heard.add("tasks", &tasks);
    let name = task["metadata"]["name"].as_str().unwrap();
    heard.add(
        "task",
        house
            .get(&format!("/api/v1/projects/default/tasks/{name}"))
            .await
            .1,
    );
    heard.add(
        "explain task",
        house
            .get(&format!("/api/v1/explain/task/default/{name}"))
            .await
            .1,
    );
    let query = "mutation { lampRekey(project: \"default\", name: \"s1\", input: { pin: \"hush-4711-2\" }) { json } }";
    heard.add("GraphQL action", house.graph(query).await);
}

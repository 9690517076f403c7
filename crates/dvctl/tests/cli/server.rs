//! A small server that speaks the API's contract over a unix socket, with objects in memory.

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts as _, Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// The registry that the tests speak.
pub(crate) const REGISTRY: &str = include_str!("registry.json");

/// What the server holds.
#[derive(Default)]
pub(crate) struct World {
    objects: BTreeMap<String, Value>,
    revision: u64,
    log: Vec<Value>,
    /// `METHOD path` of each request.
    pub asked: Vec<String>,
    /// Bytes that were uploaded.
    pub uploaded: Vec<u8>,
}

#[derive(Clone)]
struct App {
    world: Arc<Mutex<World>>,
    changed: watch::Sender<u64>,
}

/// A running server; it ends with the test's runtime.
pub(crate) struct Server {
    /// What it holds.
    pub world: Arc<Mutex<World>>,
    changed: watch::Sender<u64>,
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    pub fn start(socket: &Path) -> Server {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let world: Arc<Mutex<World>> = Arc::default();
        let (changed, _) = watch::channel(0);
        let app = App {
            world: world.clone(),
            changed: changed.clone(),
        };
        let _entered = runtime.enter();
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        let router = Router::new().fallback(handle).with_state(app);
        drop(runtime.spawn(async move { axum::serve(listener, router).await }));
        drop(_entered);
        Server {
            world,
            changed,
            _runtime: runtime,
        }
    }

    /// Puts an object straight in.
    pub fn put(&self, plural: &str, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let app = App {
            world: self.world.clone(),
            changed: self.changed.clone(),
        };
        app.store(&key(plural, Some("default"), &name), object);
    }

    /// How often a request line was asked.
    pub fn count(&self, line: &str) -> usize {
        let world = self.world.lock().unwrap();
        world.asked.iter().filter(|l| l.starts_with(line)).count()
    }

    /// An object as it is now.
    pub fn object(&self, plural: &str, name: &str) -> Option<Value> {
        let world = self.world.lock().unwrap();
        world
            .objects
            .get(&key(plural, Some("default"), name))
            .cloned()
    }
}

fn key(plural: &str, project: Option<&str>, name: &str) -> String {
    format!("{plural}/{}/{name}", project.unwrap_or("-"))
}

fn kind_of(plural: &str) -> Option<Value> {
    let registry: Value = serde_json::from_str(REGISTRY).unwrap();
    let kinds = registry["kinds"].as_array().unwrap();
    kinds.iter().find(|k| k["plural"] == plural).cloned()
}

fn answer(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    let mut response = (status, body.to_string()).into_response();
    let kind = "application/json".parse().unwrap();
    response.headers_mut().insert("content-type", kind);
    response
}

fn problem(error: model::Error) -> Response {
    let problem = error.problem("req-1");
    answer(problem.status, &json!(problem))
}

impl App {
    fn store(&self, key: &str, mut object: Value) -> Value {
        let mut world = self.world.lock().unwrap();
        world.revision += 1;
        let revision = world.revision;
        object["metadata"]["revision"] = json!(revision.to_string());
        let event = json!({ "type": "put", "kind": object["kind"], "key": { "kind": object["kind"],
            "project": object["metadata"]["project"], "name": object["metadata"]["name"] },
            "revision": revision.to_string(), "object": object });
        world.log.push(event);
        world.objects.insert(key.into(), object.clone());
        drop(world);
        self.changed.send_replace(revision);
        object
    }

    fn remove(&self, key: &str) {
        let mut world = self.world.lock().unwrap();
        world.revision += 1;
        let revision = world.revision;
        if let Some(object) = world.objects.remove(key) {
            let event = json!({ "type": "delete", "kind": object["kind"], "key": { "kind": object["kind"],
                "name": object["metadata"]["name"] }, "revision": revision.to_string(), "object": object });
            world.log.push(event);
        }
        drop(world);
        self.changed.send_replace(revision);
    }

    fn get(&self, key: &str) -> Option<Value> {
        self.world.lock().unwrap().objects.get(key).cloned()
    }
}

async fn handle(State(app): State<App>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let query: HashMap<String, String> =
        url::form_urlencoded::parse(parts.uri.query().unwrap_or("").as_bytes())
            .into_owned()
            .collect();
    let line = match parts.uri.query() {
        Some(query) => format!("{} {path}?{query}", parts.method),
        None => format!("{} {path}", parts.method),
    };
    app.world.lock().unwrap().asked.push(line);
    let socket = WebSocketUpgrade::from_request_parts(&mut parts, &())
        .await
        .ok();
    let body = to_bytes(body, 64 << 20).await.unwrap();
    let dry = query.get("dry_run").is_some_and(|v| v == "true");
    let rest = path.strip_prefix("/api/v1/").unwrap_or("");
    let words: Vec<&str> = rest.split('/').collect();
    match words.as_slice() {
        // As if one surface had lost an action.
        ["surfaces"] => answer(
            200,
            &json!({ "actions": [
                { "action": "vm.start", "sort": "action", "rest": true, "grpc": false, "graphql": true, "watch": null },
                { "action": "vm.explain", "sort": "common", "rest": true, "grpc": false, "graphql": false, "watch": null },
                { "action": "vm.console", "sort": "stream", "rest": true, "grpc": false, "graphql": false, "watch": null },
                { "action": "vm.vanish", "sort": "action", "rest": true, "grpc": true, "graphql": true, "watch": null },
            ] }),
        ),
        ["registry"] => {
            if parts
                .headers
                .get("if-none-match")
                .is_some_and(|v| v == "\"r1\"")
            {
                return StatusCode::NOT_MODIFIED.into_response();
            }
            ([("etag", "\"r1\"")], REGISTRY).into_response()
        }
        ["whoami"] => answer(200, &json!({ "name": "root", "kind": "administrator" })),
        ["events"] => events(&query),
        ["explain", kind, _, name] => answer(
            200,
            &json!({ "kind": kind, "name": name, "intent": { "power": "on" },
                "conditions": [{ "type": "Waiting", "status": "true", "message": "for its disk", "since": "2026-01-01T00:00:00Z" }],
                "events": [{ "time": "2026-01-01T00:00:00Z", "event": "vm.created", "message": "by root" }] }),
        ),
        ["watch"] => match socket {
            Some(socket) => socket.on_upgrade(move |socket| follow(app, query, socket)),
            None => StatusCode::UPGRADE_REQUIRED.into_response(),
        },
        ["projects", project, plural, rest @ ..] => objects(
            &app,
            plural,
            Some(project),
            rest,
            &parts.method,
            &parts.headers,
            body,
            dry,
            socket,
            &query,
        ),
        [plural, rest @ ..] => objects(
            &app,
            plural,
            None,
            rest,
            &parts.method,
            &parts.headers,
            body,
            dry,
            socket,
            &query,
        ),
        [] => StatusCode::NOT_FOUND.into_response(),
    }
}

fn events(query: &HashMap<String, String>) -> Response {
    let since: u64 = query.get("since").and_then(|s| s.parse().ok()).unwrap_or(0);
    let event = |seq: u64, word: &str| {
        json!({ "seq": seq, "time": "2026-01-01T00:00:00.000Z", "event": word, "severity": "info",
            "about": { "kind": "vm", "project": "default", "name": "web1" }, "message": "as asked" })
    };
    let limit: usize = query
        .get("limit")
        .and_then(|l| l.parse().ok())
        .unwrap_or(100);
    let lines: Vec<String> = [event(1, "vm.created"), event(2, "vm.started")]
        .iter()
        .filter(|e| e["seq"].as_u64() > Some(since))
        .take(limit)
        .map(|e| format!("{e}\n"))
        .collect();
    lines.concat().into_response()
}

async fn follow(app: App, query: HashMap<String, String>, mut socket: WebSocket) {
    let mut changed = app.changed.subscribe();
    let after: u64 = query.get("after").and_then(|a| a.parse().ok()).unwrap_or(0);
    let mut sent = after;
    loop {
        let news: Vec<Value> = {
            let world = app.world.lock().unwrap();
            let new = |e: &&Value| e["revision"].as_str().unwrap().parse::<u64>().unwrap() > sent;
            world.log.iter().filter(new).cloned().collect()
        };
        for event in news {
            sent = event["revision"].as_str().unwrap().parse().unwrap();
            let wanted = query
                .get("name")
                .is_none_or(|n| event["key"]["name"] == n.as_str());
            if wanted
                && event["kind"] == query["kind"].as_str()
                && socket
                    .send(Message::Text(event.to_string().into()))
                    .await
                    .is_err()
            {
                return;
            }
        }
        tokio::select! {
            _ = changed.changed() => {}
            message = socket.recv() => match message {
                Some(Ok(Message::Close(_))) | None | Some(Err(_)) => return,
                _ => {}
            },
        }
    }
}

#[allow(clippy::too_many_arguments)]
fn objects(
    app: &App,
    plural: &str,
    project: Option<&str>,
    rest: &[&str],
    method: &Method,
    headers: &HeaderMap,
    body: Bytes,
    dry: bool,
    socket: Option<WebSocketUpgrade>,
    query: &HashMap<String, String>,
) -> Response {
    let Some(kind) = kind_of(plural) else {
        return problem(model::Error::not_found(format!(
            "there is no kind `{plural}`"
        )));
    };
    let kind_name = kind["name"].as_str().unwrap();
    match (method.as_str(), rest) {
        ("GET", []) => list(app, plural, project, kind_name, query),
        ("POST", []) => {
            let body: Value = serde_json::from_slice(&body).unwrap();
            let name = body["metadata"]["name"].as_str().unwrap().to_owned();
            let key = key(plural, project, &name);
            if app.get(&key).is_some() {
                return problem(model::Error::exists(format!("{kind_name} {name} exists")));
            }
            write(app, &kind, &key, project, body, None, dry)
        }
        (method, [name]) => {
            let key = key(plural, project, name);
            let old = app.get(&key);
            if method == "PUT" {
                if let (Some(wanted), Some(old)) = (headers.get("if-match"), &old) {
                    let wanted = wanted.to_str().unwrap().trim_matches('"');
                    if old["metadata"]["revision"] != wanted {
                        let now = old["metadata"]["revision"].as_str().map(str::to_owned);
                        return problem(model::Error::new(
                            model::What::PreconditionFailed(now),
                            format!("{kind_name} {name} is not at revision {wanted}"),
                        ));
                    }
                }
                let body = serde_json::from_slice(&body).unwrap();
                return write(app, &kind, &key, project, body, old, dry);
            }
            let Some(mut old) = old else {
                return problem(model::Error::not_found(format!(
                    "there is no {kind_name} `{name}`"
                )));
            };
            match method {
                "GET" => answer(200, &old),
                "PATCH" => {
                    let before = old.clone();
                    merge(&mut old, &serde_json::from_slice(&body).unwrap());
                    write(app, &kind, &key, project, old, Some(before), dry)
                }
                _ => {
                    old["metadata"]["deletion_requested"] = json!("2026-01-01T00:00:00Z");
                    old["metadata"]["holds"] = json!(["vm-controller"]);
                    let old = app.store(&key, old);
                    let app = app.clone();
                    std::thread::spawn(move || {
                        std::thread::sleep(Duration::from_millis(100));
                        app.remove(&key);
                    });
                    answer(202, &old)
                }
            }
        }
        ("POST", ["actions", verb]) => {
            let body: Value = serde_json::from_slice(&body).unwrap();
            batch(app, &kind, plural, project, verb, &body, dry)
        }
        ("POST", [name, "actions", verb]) => act(app, kind_name, plural, project, name, verb),
        ("POST", [_, "streams", _, "ticket"]) => answer(
            201,
            &json!({ "ticket": "t-1", "expires": "2026-01-01T00:00:00Z" }),
        ),
        ("PUT", [_, "streams", "upload"]) => {
            app.world.lock().unwrap().uploaded = body.to_vec();
            answer(200, &json!({ "received": body.len() }))
        }
        ("GET", [_, "streams", "log"]) => Body::from("one\ntwo\n").into_response(),
        ("GET", [name, "streams", stream]) => {
            let (stream, ticket) = ((*stream).to_owned(), query.get("ticket").cloned());
            let gone = app.get(&key(plural, project, name)).is_none();
            match socket {
                _ if gone => problem(model::Error::not_found(format!(
                    "there is no {kind_name} `{name}`"
                ))),
                Some(socket) => socket.on_upgrade(move |s| bytes(stream, ticket, s)),
                None => StatusCode::UPGRADE_REQUIRED.into_response(),
            }
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

fn list(
    app: &App,
    plural: &str,
    project: Option<&str>,
    kind: &str,
    query: &HashMap<String, String>,
) -> Response {
    let world = app.world.lock().unwrap();
    let start = match project {
        Some(project) => format!("{plural}/{project}/"),
        None => format!("{plural}/"),
    };
    let label = query.get("selector").and_then(|s| s.split_once('='));
    let all: Vec<&Value> = world
        .objects
        .iter()
        .filter(|(k, _)| k.starts_with(&start))
        .map(|(_, v)| v)
        .filter(|v| label.is_none_or(|(k, w)| v["metadata"]["labels"][k] == w))
        .collect();
    let from: usize = query.get("after").and_then(|a| a.parse().ok()).unwrap_or(0);
    let limit: usize = query
        .get("limit")
        .and_then(|l| l.parse().ok())
        .unwrap_or(20);
    let items: Vec<&&Value> = all.iter().skip(from).take(limit).collect();
    let end = from + items.len();
    let next = (end < all.len()).then(|| end.to_string());
    let mut out = json!({ "version": "v1", "kind": format!("{kind}-list"), "revision": world.revision.to_string(),
        "total": all.len(), "items": items });
    if let Some(next) = next {
        out["next"] = json!(next);
    }
    answer(200, &out)
}

fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in patch {
        match value {
            Value::Null => _ = into.as_object_mut().unwrap().remove(key),
            value => merge(&mut into[key], value),
        }
    }
}

fn write(
    app: &App,
    kind: &Value,
    key: &str,
    project: Option<&str>,
    mut body: Value,
    old: Option<Value>,
    dry: bool,
) -> Response {
    let properties = kind["spec"]["properties"].as_object().unwrap();
    let wrong: Vec<model::Violation> = body["spec"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| !properties.contains_key(*name))
        .map(|(name, _)| {
            let near = model::nearest(name, properties.keys().map(String::as_str));
            let violation = model::Violation::new(format!("spec.{name}"), "is not a field");
            match near {
                Some(near) => violation.hint(format!("did you mean `{near}`?")),
                None => violation,
            }
        })
        .collect();
    if !wrong.is_empty() {
        return problem(model::Error::invalid(wrong));
    }
    for (name, schema) in properties {
        if let (None, Some(default)) = (body["spec"].get(name), schema.get("default")) {
            body["spec"][name] = default.clone();
        }
    }
    let status = if old.is_some() { 200 } else { 201 };
    let changed = old.as_ref().is_none_or(|o| o["spec"] != body["spec"]);
    let meta = &mut body["metadata"];
    if let Some(project) = project {
        meta["project"] = json!(project);
    }
    let old_meta = |field: &str, fresh: Value| match &old {
        Some(old) => old["metadata"][field].clone(),
        None => fresh,
    };
    meta["uid"] = old_meta("uid", json!("018f0000-0000-7000-8000-000000000001"));
    meta["created"] = old_meta("created", json!("2026-01-01T00:00:00.000Z"));
    meta["revision"] = old_meta("revision", json!(""));
    let generation = old
        .as_ref()
        .map_or(0, |o| o["metadata"]["generation"].as_u64().unwrap());
    meta["generation"] = json!(generation + u64::from(changed));
    body["status"] = match &old {
        Some(old) => old["status"].clone(),
        None => json!({ "state": "stopped" }),
    };
    if dry {
        return answer(status, &body);
    }
    let same = old.as_ref().is_some_and(|o| {
        o["spec"] == body["spec"] && o["metadata"].get("labels") == body["metadata"].get("labels")
    });
    let stored = if same { body } else { app.store(key, body) };
    answer(status, &stored)
}

fn act(
    app: &App,
    kind: &str,
    plural: &str,
    project: Option<&str>,
    name: &str,
    verb: &str,
) -> Response {
    let object_key = key(plural, project, name);
    let Some(mut object) = app.get(&object_key) else {
        return problem(model::Error::not_found(format!(
            "there is no {kind} `{name}`"
        )));
    };
    if kind == "task" {
        object["status"]["state"] = json!("cancelled");
        return answer(202, &app.store(&object_key, object));
    }
    if verb == "stop" && object["metadata"]["labels"]["busy"] == "yes" {
        return problem(model::Error::busy(
            "backup-1",
            format!("task backup-1 works on {name}"),
        ));
    }
    let task_name = format!("{verb}-{name}-1");
    let task = json!({ "version": "v1", "kind": "task",
        "metadata": { "name": task_name, "project": project, "created": "2026-01-01T00:00:00.000Z", "generation": 1 },
        "spec": { "action": format!("{kind}.{verb}"), "target": { "kind": kind, "project": project, "name": name } },
        "status": { "state": "pending", "progress": 0 } });
    let task_key = key("tasks", project, &task_name);
    let stored = app.store(&task_key, task);
    let (app, verb) = (app.clone(), verb.to_owned());
    std::thread::spawn(move || {
        let set = |patch: Value| {
            std::thread::sleep(Duration::from_millis(50));
            let mut task = app.get(&task_key).unwrap();
            merge(&mut task["status"], &patch);
            app.store(&task_key, task);
        };
        set(json!({ "state": "running", "step": "boot", "progress": 40 }));
        match verb.as_str() {
            "hang" => {}
            "fail" => set(
                json!({ "state": "failed", "message": "the disk is full", "reason": "QUOTA_EXCEEDED" }),
            ),
            _ => {
                object["status"]["state"] = json!("running");
                app.store(&object_key, object);
                set(json!({ "state": "succeeded", "progress": 100 }));
            }
        }
    });
    answer(202, &stored)
}

/// One verb over many: what is busy is refused, the others do it one after the other.
fn batch(
    app: &App,
    kind: &Value,
    plural: &str,
    project: Option<&str>,
    verb: &str,
    body: &Value,
    dry: bool,
) -> Response {
    let label = body["selector"].as_str().and_then(|s| s.split_once('='));
    let names: Vec<String> = {
        let world = app.world.lock().unwrap();
        let start = key(plural, project, "");
        let of = world.objects.iter().filter(|(k, _)| k.starts_with(&start));
        of.filter(|(_, v)| match label {
            Some((k, w)) => v["metadata"]["labels"][k] == w,
            None => body["names"]
                .as_array()
                .unwrap()
                .contains(&v["metadata"]["name"]),
        })
        .map(|(_, v)| v["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
    };
    let busy = |name: &str| {
        let object = app.get(&key(plural, project, name)).unwrap();
        object["metadata"]["labels"]["busy"] == "yes"
    };
    let row = |name: &String| match busy(name) {
        true if dry => json!({ "name": name, "state": "refused", "reason": "BUSY",
            "message": format!("task backup-1 works on {name}") }),
        _ => json!({ "name": name, "state": if dry { "would_run" } else { "pending" } }),
    };
    let task_name = format!("{verb}-batch-1");
    let mut task = json!({ "version": "v1", "kind": "task",
        "metadata": { "name": task_name, "project": project, "created": "2026-01-01T00:00:00.000Z", "generation": 1 },
        "spec": { "action": format!("{}.{verb}", kind["name"].as_str().unwrap()), "batch": body,
            "target": { "kind": kind["name"], "project": project, "name": "*" } },
        "status": { "state": "pending", "targets": names.iter().map(row).collect::<Vec<_>>() } });
    if dry {
        return answer(200, &task);
    }
    let task_key = key("tasks", project, &task_name);
    let stored = app.store(&task_key, task.clone());
    let stop = body["on_error"] != "continue";
    let failing = names.iter().any(|n| busy(n));
    let rows: Vec<(usize, bool)> = names
        .iter()
        .enumerate()
        .map(|(n, name)| (n, busy(name)))
        .collect();
    let app = app.clone();
    std::thread::spawn(move || {
        let mut failed = false;
        for (n, busy) in rows {
            std::thread::sleep(Duration::from_millis(30));
            let row = &mut task["status"]["targets"][n];
            match (busy, failed && stop) {
                (_, true) => row["state"] = json!("skipped"),
                (true, _) => {
                    failed = true;
                    row["state"] = json!("failed");
                    row["reason"] = json!("BUSY");
                    row["message"] = json!("task backup-1 works on it");
                }
                _ => {
                    row["state"] = json!("succeeded");
                    row["task"] = json!("stop-1");
                }
            }
            task["status"]["state"] = json!("running");
            task["status"]["message"] = json!(format!("{} seen", n + 1));
            app.store(&task_key, task.clone());
        }
        task["status"]["state"] = json!(if failing { "failed" } else { "succeeded" });
        task["status"]["message"] = json!("over");
        app.store(&task_key, task);
    });
    answer(202, &stored)
}

async fn bytes(stream: String, ticket: Option<String>, mut socket: WebSocket) {
    let data = |text: &str| Message::Binary(text.to_owned().into());
    let control = |value: Value| Message::Text(value.to_string().into());
    if stream == "receive" {
        _ = socket
            .send(control(json!({ "offset": 3, "size": 10 })))
            .await;
        let mut text = String::new();
        while text.len() < 7 {
            match socket.recv().await {
                Some(Ok(Message::Binary(bytes))) => text.push_str(&String::from_utf8_lossy(&bytes)),
                _ => return,
            }
        }
        _ = socket.send(control(json!({ "received": 10 }))).await;
        let answer = match text.as_str() {
            "defghij" => json!({ "complete": true }),
            _ => json!({ "error": model::Error::refused(format!("got {text}")).problem("r") }),
        };
        _ = socket.send(control(answer)).await;
        return;
    }
    if stream == "run" {
        let Some(Ok(Message::Text(first))) = socket.recv().await else {
            return;
        };
        _ = socket
            .send(control(json!({ "stream": "stderr", "truncated": false })))
            .await;
        _ = socket.send(data(first.as_str())).await;
        _ = socket.send(control(json!({ "exit": 3 }))).await;
        return;
    }
    if stream == "exec" {
        _ = socket.send(data("Linux\n")).await;
        _ = socket
            .send(control(json!({ "stream": "stderr", "data": "careful\n" })))
            .await;
        _ = socket.send(control(json!({ "exit_code": 7 }))).await;
        return;
    }
    if ticket.as_deref() != Some("t-1") {
        let problem = model::Error::denied("no ticket").problem("r");
        _ = socket.send(control(json!({ "error": problem }))).await;
        return;
    }
    while let Some(Ok(message)) = socket.recv().await {
        if let Message::Binary(bytes) = message {
            let text = String::from_utf8_lossy(&bytes).to_uppercase();
            _ = socket.send(data(&format!("> {text}"))).await;
        }
    }
}

//! The law of kinds: a kind that is declared in one place is in every surface, in the table of privileges and in the
//! reference, and each of its actions takes the privilege that the table names.

use crate::everything;
use crate::house::{House, limits, registry, told};
use runtime::{Op, Sort};
use serde_json::{Value, json};
use server::grpc_v1::resources_client::ResourcesClient;
use server::grpc_v1::{ActRequest, Key};
use std::sync::Arc;

#[test]
fn a_declared_kind_is_in_the_tables() {
    let registry = registry();
    let privileges = server::privileges(&registry);
    for line in [
        "| `lamp.read` | list, show, watch, explain |  |",
        "| `lamp.create` | create |  |",
        "| `lamp.update` | update, patch |  |",
        "| `lamp.delete` | delete | destroys |",
        "| `lamp.dim` | Changes its brightness. |  |",
        "| `lamp.echo` | Says what it hears. |  |",
        "| `session.read` |",
    ] {
        assert!(privileges.contains(line), "{line} is not in\n{privileges}");
    }
    let commands = server::commands(&registry);
    for line in [
        "## lamp\n\nA lamp, for tests. (in a project)",
        "| `dvctl lamp list` |",
        "| `dvctl lamp dim NAME` | Changes its brightness. |",
        "| `dvctl lamp light NAME` | Flashes so many times. |",
    ] {
        assert!(commands.contains(line), "{line} is not in\n{commands}");
    }
    let kinds = registry.to_json();
    assert!(
        kinds["kinds"]
            .as_array()
            .unwrap()
            .iter()
            .any(|k| k["name"] == "lamp")
    );
}

#[test]
fn no_surface_lacks_an_action() {
    for row in server::surfaces(&everything()).unwrap() {
        // These two have a reason in `api/parity-exceptions.json`.
        let excused = row.sort == "stream" || row.action.ends_with(".explain");
        assert_ne!(row.rest, Some(false), "{row:?}");
        assert_ne!(row.watch, Some(false), "{row:?}");
        assert!(row.grpc == Some(true) || excused, "{row:?}");
        assert!(row.graphql == Some(true) || excused, "{row:?}");
    }
}

/// Method and path of an offer over REST.
fn by_rest(offer: &runtime::Offer) -> (reqwest::Method, String) {
    let op = offer.op("default", "a");
    let kind = offer.kind;
    let base = match op.project() {
        Some(project) => format!("/api/v1/projects/{project}/{}", kind.plural),
        None => format!("/api/v1/{}", kind.plural),
    };
    let (method, path) = match (&op, offer.sort) {
        (Op::List { .. }, _) => ("GET", base),
        (Op::Create { .. }, _) => ("POST", base),
        (Op::Update { .. }, _) => ("PUT", format!("{base}/a")),
        (Op::Patch { .. }, _) => ("PATCH", format!("{base}/a")),
        (Op::Delete { .. }, _) => ("DELETE", format!("{base}/a")),
        (Op::Watch { .. }, _) => ("GET", format!("/api/v1/watch?kind={}", kind.name)),
        (Op::Act { verb, .. }, _) => ("POST", format!("{base}/a/actions/{verb}")),
        (_, Sort::Stream) => {
            let stream = kind.streams.iter().find(|s| s.name == offer.verb).unwrap();
            let method = match stream.way {
                model::Way::Write => "PUT",
                _ => "GET",
            };
            (method, format!("{base}/a/streams/{}", offer.verb))
        }
        _ => ("GET", format!("{base}/a")),
    };
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    (method, path)
}

/// What the table says is what the gate asks: nobody gets anything, and the decision is about that privilege.
#[tokio::test]
async fn every_action_refuses_who_is_not_known() {
    let house = House::of(everything(), limits()).await;
    house.lamp("a").await;
    let stranger = house.stranger();
    for offer in everything().offers() {
        let op = offer.op("default", "a");
        assert_eq!(
            offer.privilege(),
            format!("{}.{}", op.privilege_kind(), op.privilege_verb())
        );
        let (method, path) = by_rest(&offer);
        let asked = stranger
            .request(method.clone(), house.url(&path))
            .header("content-type", "application/json")
            .body("{}");
        let (status, problem) = told(asked.send().await.unwrap()).await;
        assert_eq!(status, 401, "{method} {path}: {problem}");
    }
    let (_, lamp) = house.get("/api/v1/projects/default/lamps/a").await;
    assert_eq!(lamp["spec"]["brightness"], 100, "nothing was done");
}

/// Who is known and has no grant gets no further: by REST and watch, by gRPC, by GraphQL.
#[tokio::test]
async fn every_action_refuses_who_has_no_right() {
    let house = Arc::new(House::of(everything(), limits()).await);
    house.lamp("a").await;
    let said = crate::login::user(&house, "nobody").await;
    let token = crate::login::text(&said, "access");
    let refused =
        |code: &str| ["PERMISSION_DENIED", "PROJECT_NOT_FOUND", "NOT_FOUND"].contains(&code);

    for offer in everything().offers() {
        let (method, path) = by_rest(&offer);
        let body = (method != reqwest::Method::GET).then(|| json!({}));
        let (status, problem) =
            crate::login::with(&house, token, method.clone(), &path, body).await;
        let code = problem["code"].as_str().unwrap_or_default();
        assert!(
            [403, 404].contains(&status) && refused(code),
            "{method} {path}: {status} {problem}"
        );
    }

    let mut client = ResourcesClient::new(house.channel().await);
    for offer in everything().offers() {
        let op = offer.op("default", "a");
        let Op::Act { target, verb, .. } = &op else {
            continue;
        };
        let mut request = tonic::Request::new(ActRequest {
            key: Some(Key {
                kind: target.kind.clone(),
                project: target.project.clone().unwrap_or_default(),
                name: target.name.clone(),
            }),
            verb: verb.clone(),
            ..ActRequest::default()
        });
        let bearer = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        let status = client.act(request).await.unwrap_err();
        let codes = [tonic::Code::PermissionDenied, tonic::Code::NotFound];
        assert!(codes.contains(&status.code()), "{verb}: {status}");
    }

    let (_, answer) = house.post("/graphql", json!({ "query": SHAPE })).await;
    let shape = &answer["data"]["__schema"];
    let mut open = Vec::new();
    for (root, word) in [("queryType", "query"), ("mutationType", "mutation")] {
        for field in shape[root]["fields"].as_array().unwrap() {
            let (query, variables) = document(shape, word, field);
            let body = json!({ "query": query, "variables": variables });
            let post = reqwest::Method::POST;
            let (_, answer) = crate::login::with(&house, token, post, "/graphql", Some(body)).await;
            let code = answer["errors"][0]["extensions"]["code"].as_str();
            if !code.is_some_and(refused) {
                let text = answer.to_string();
                let text: String = text.chars().take(300).collect();
                open.push((field["name"].as_str().unwrap().to_owned(), text));
            }
        }
    }
    // How to ask may be read by everybody who is known.
    let names: Vec<&str> = open.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["registry"], "{open:#?}");
    let (_, lamp) = house.get("/api/v1/projects/default/lamps/a").await;
    assert_eq!(lamp["spec"]["brightness"], 100, "nothing was done");
}

/// A right on one object opens that object by every way in, and no other.
#[tokio::test]
async fn a_right_on_one_object_is_enough_for_it() {
    let house = House::of(everything(), limits()).await;
    house.lamp("a").await;
    house.lamp("b").await;
    let said = crate::login::user(&house, "dimmer").await;
    let token = crate::login::text(&said, "access");
    let role = json!({ "metadata": { "name": "dimmer" }, "spec": { "allow": ["lamp.read", "lamp.dim", "lamp.light", "task.read"] } });
    assert_eq!(house.post("/api/v1/roles", role).await.0, 201);
    let grant = json!({ "metadata": { "name": "dimmer-a" }, "spec": { "user": "dimmer", "role": "dimmer", "scope": "lamp/default/a" } });
    let (status, grant) = house.post("/api/v1/grants", grant).await;
    assert_eq!(status, 201, "{grant}");
    let lamps = "/api/v1/projects/default/lamps";
    let (get, post) = (reqwest::Method::GET, reqwest::Method::POST);
    for (method, path, wanted) in [
        (&get, format!("{lamps}/a"), 200),
        (&get, format!("{lamps}/b"), 404),
        (&post, format!("{lamps}/a/actions/dim"), 202),
        (&post, format!("{lamps}/b/actions/dim"), 404),
        (&post, format!("{lamps}/a/actions/rekey"), 403),
        (&get, format!("{lamps}/a/streams/light?flashes=1"), 200),
        (&get, format!("{lamps}/b/streams/light?flashes=1"), 404),
        (&get, "/api/v1/explain/lamp/default/a".into(), 200),
        (&get, "/api/v1/explain/lamp/default/b".into(), 404),
    ] {
        let body = (method == post).then(|| match path.ends_with("rekey") {
            true => json!({ "pin": "1234" }),
            false => json!({ "to": 7 }),
        });
        let (status, answer) = crate::login::with(&house, token, method.clone(), &path, body).await;
        assert_eq!(status, wanted, "{method} {path}: {answer}");
    }
    let (_, list) = crate::login::get(&house, token, lamps).await;
    assert_eq!(list["total"], 1, "{list}");
    // The task that works on it is his to see.
    let (_, tasks) = crate::login::get(&house, token, "/api/v1/projects/default/tasks").await;
    assert_eq!(tasks["total"], 1, "{tasks}");
    // Of what happened he is told what is about his.
    let (_, events) = crate::login::get(&house, token, "/api/v1/events?limit=1000").await;
    let events = events.to_string();
    assert!(
        events.contains("lamp") && !events.contains("\\\"b\\\""),
        "{events}"
    );
}

const SHAPE: &str = "{ __schema { queryType { fields { ...F } } mutationType { fields { ...F } }
    types { name kind enumValues { name } inputFields { name defaultValue type { ...T } } } } }
    fragment F on __Field { name args { name defaultValue type { ...T } } type { ...T } }
    fragment T on __Type { kind name ofType { kind name ofType { kind name ofType { kind name } } } }";

/// A document that asks for one field with whatever it needs to be valid.
fn document(shape: &Value, word: &str, field: &Value) -> (String, Value) {
    let mut heads = Vec::new();
    let mut args = Vec::new();
    let mut variables = json!({});
    for arg in field["args"].as_array().unwrap() {
        let name = arg["name"].as_str().unwrap();
        let wanted = arg["type"]["kind"] == "NON_NULL" || name == "project";
        if !wanted {
            continue;
        }
        heads.push(format!("${name}: {}", spelled(&arg["type"])));
        args.push(format!("{name}: ${name}"));
        variables[name] = match name {
            "project" => json!("default"),
            _ => filled(shape, &arg["type"]),
        };
    }
    let in_brackets = |list: Vec<String>| match list.is_empty() {
        true => String::new(),
        false => format!("({})", list.join(", ")),
    };
    let leaf = ["SCALAR", "ENUM"]
        .iter()
        .any(|k| inner(&field["type"])["kind"] == **k);
    let selection = if leaf { "" } else { " { __typename }" };
    let name = field["name"].as_str().unwrap();
    let query = format!(
        "{word}{} {{ {name}{}{selection} }}",
        in_brackets(heads),
        in_brackets(args)
    );
    (query, variables)
}

fn inner(of: &Value) -> &Value {
    match of["ofType"].is_object() {
        true => inner(&of["ofType"]),
        false => of,
    }
}

fn spelled(of: &Value) -> String {
    match of["kind"].as_str().unwrap() {
        "NON_NULL" => format!("{}!", spelled(&of["ofType"])),
        "LIST" => format!("[{}]", spelled(&of["ofType"])),
        _ => of["name"].as_str().unwrap().to_owned(),
    }
}

/// A value of a type, with no more in it than it needs.
fn filled(shape: &Value, of: &Value) -> Value {
    let named = || {
        let types = shape["types"].as_array().unwrap();
        types.iter().find(|t| t["name"] == of["name"]).unwrap()
    };
    match (of["kind"].as_str().unwrap(), of["name"].as_str()) {
        ("NON_NULL", _) => filled(shape, &of["ofType"]),
        ("LIST", _) => json!([]),
        ("ENUM", _) => named()["enumValues"][0]["name"].clone(),
        ("INPUT_OBJECT", _) => {
            let mut out = json!({});
            for part in named()["inputFields"].as_array().unwrap() {
                if part["type"]["kind"] == "NON_NULL" && part["defaultValue"].is_null() {
                    let name = part["name"].as_str().unwrap();
                    out[name] = filled(shape, &part["type"]);
                }
            }
            out
        }
        (_, Some("String" | "ID")) => json!("a"),
        (_, Some("Boolean")) => json!(false),
        (_, Some("Int" | "Int64" | "Float")) => json!(1),
        _ => json!({}),
    }
}

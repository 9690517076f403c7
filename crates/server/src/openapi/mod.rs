//! OpenAPI 3.1 from the registry. The schemas are those that requests are checked with: 3.1 speaks JSON Schema 2020-12.
//!
//! Pure: the same registry gives the same document, byte for byte, so that it can be committed and compared.

mod login;
mod parts;
#[cfg(test)]
mod tests;

use model::{Action, Kind, Scope, StreamKind, Verb, Way};
use parts::{body, content, parameter, query, responses};
use runtime::{Declared, Registry};
use serde_json::{Map, Value, json};

/// The OpenAPI description of everything under `/api/v1`.
pub fn openapi(registry: &Registry) -> Value {
    let mut paths = parts::fixed_paths();
    login::paths(&mut paths);
    let mut schemas = parts::fixed_schemas();
    let mut tags = vec![json!({
        "name": "system",
        "description": "What is there besides objects: versions, registry, login, watch, events."
    })];
    for declared in registry.iter() {
        tags.push(json!({ "name": declared.kind().name, "description": declared.kind().doc }));
        schemas_of(declared, &mut schemas);
        paths_of(declared.kind(), &mut paths);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "DebVisor",
            "version": model::VERSION,
            "description": "Objects with `metadata`, `spec` (what people want) and `status` (what is); actions on them; tasks that carry actions out.",
            "license": { "name": "AGPL-3.0-or-later", "identifier": "AGPL-3.0-or-later" }
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "servers": [{ "url": "/", "description": "This server" }],
        "security": [{ "clientCertificate": [] }],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": parts::fixed_responses(),
            "headers": parts::fixed_headers(),
            "securitySchemes": {
                "clientCertificate": {
                    "type": "mutualTLS",
                    "description": "A client certificate of the internal CA, got by `POST /api/v1/login`. On the local socket the kernel says who calls."
                }
            }
        }
    })
}

/// `security-group` as `SecurityGroup`.
pub(crate) fn camel(name: &str) -> String {
    name.split(['-', '_', ' '])
        .filter(|word| !word.is_empty())
        .map(|word| {
            let mut letters = word.chars();
            letters
                .next()
                .map(|first| first.to_ascii_uppercase().to_string() + letters.as_str())
                .unwrap_or_default()
        })
        .collect()
}

fn schemas_of(declared: &Declared, schemas: &mut Map<String, Value>) {
    let kind = declared.kind();
    let name = camel(kind.name);
    let part = |suffix: &str| json!({ "$ref": format!("#/components/schemas/{name}{suffix}") });
    schemas.insert(format!("{name}Spec"), parts::plain(&declared.spec));
    schemas.insert(format!("{name}Status"), parts::plain(&declared.status));
    schemas.insert(
        name.clone(),
        json!({
            "type": "object",
            "description": kind.doc,
            "required": ["version", "kind", "metadata", "spec"],
            "properties": {
                "version": { "const": model::VERSION },
                "kind": { "const": kind.name },
                "metadata": { "$ref": "#/components/schemas/Metadata" },
                "spec": part("Spec"),
                "status": { "anyOf": [part("Status"), { "type": "null" }] },
            }
        }),
    );
    schemas.insert(
        format!("{name}Input"),
        json!({
            "type": "object",
            "description": format!("A {} as a file has it. `status` and what only the server writes are ignored.", kind.name),
            "additionalProperties": false,
            "properties": {
                "version": { "const": model::VERSION },
                "kind": { "const": kind.name },
                "metadata": { "$ref": "#/components/schemas/MetadataInput" },
                "spec": part("Spec"),
                "status": true,
            }
        }),
    );
    schemas.insert(
        format!("{name}List"),
        json!({
            "type": "object",
            "required": ["version", "kind", "revision", "total", "items"],
            "properties": {
                "version": { "const": model::VERSION },
                "kind": { "const": format!("{}-list", kind.name) },
                "revision": { "type": "string", "description": "The revision at which the list was true; watch from here." },
                "total": { "type": "integer", "minimum": 0, "description": "How many there are without selector and search." },
                "next": { "type": "string", "description": "Send it as `after` to get the next page; absent on the last." },
                "items": {
                    "type": "array",
                    "items": { "anyOf": [
                        { "$ref": format!("#/components/schemas/{name}") },
                        { "type": "object", "description": "With `fields`: only these." }
                    ] }
                },
            }
        }),
    );
}

fn paths_of(kind: &'static Kind, paths: &mut Map<String, Value>) {
    let name = camel(kind.name);
    let inside = format!("/api/v1/projects/{{project}}/{}", kind.plural);
    let outside = format!("/api/v1/{}", kind.plural);
    let project = || vec![parameter("project", "The project.")];
    match kind.scope {
        Scope::Project => {
            let all = json!({ "get": list(kind, &name, "AllProjects") });
            paths.insert(outside, all);
            paths_in(kind, &name, &inside, project(), paths);
        }
        Scope::Cluster => paths_in(kind, &name, &outside, Vec::new(), paths),
        // Such an object lies where its target lies: in a project, or in none.
        Scope::Any => {
            paths_in(kind, &name, &outside, Vec::new(), paths);
            let mut more = Map::new();
            paths_in(kind, &name, &inside, project(), &mut more);
            for (path, mut item) in more {
                for (_, operation) in item.as_object_mut().into_iter().flatten() {
                    let id = operation.get("operationId").and_then(Value::as_str);
                    if let Some(id) = id.map(|id| format!("{id}InProject")) {
                        operation["operationId"] = id.into();
                    }
                }
                paths.insert(path, item);
            }
        }
    }
}

fn paths_in(
    kind: &'static Kind,
    name: &str,
    base: &str,
    scope: Vec<Value>,
    paths: &mut Map<String, Value>,
) {
    let mut collection = Map::new();
    if !scope.is_empty() {
        collection.insert("parameters".into(), scope.clone().into());
    }
    collection.insert("get".into(), list(kind, name, ""));
    if kind.allows(Verb::Create) {
        collection.insert("post".into(), create(kind, name));
    }
    paths.insert(base.to_owned(), collection.into());
    let mut many = Vec::new();
    if kind.allows(Verb::Delete) {
        many.push(("delete", "Delete many as one task.".to_owned(), None));
    }
    for action in kind.actions {
        let doc = format!("Over many as one task: {}", action.doc);
        many.push((action.verb, doc, Some(action)));
    }
    for (verb, doc, action) in many {
        paths.insert(
            format!("{base}/actions/{verb}"),
            json!({ "parameters": scope, "post": batch(kind, name, verb, &doc, action) }),
        );
    }

    let mut with_name = scope;
    with_name.push(parameter("name", "The name of the object."));
    let mut one = Map::new();
    one.insert("parameters".into(), with_name.clone().into());
    one.insert("get".into(), get(kind, name));
    if kind.allows(Verb::Update) {
        one.insert("put".into(), put(kind, name));
        one.insert("patch".into(), patch(kind, name));
    }
    if kind.allows(Verb::Delete) {
        one.insert("delete".into(), delete(kind, name));
    }
    paths.insert(format!("{base}/{{name}}"), one.into());
    for action in kind.actions {
        paths.insert(
            format!("{base}/{{name}}/actions/{}", action.verb),
            json!({ "parameters": with_name, "post": act(kind, name, action) }),
        );
    }
    for stream in kind.streams {
        let mut item = streams(kind, name, stream);
        item.insert("parameters".into(), with_name.clone().into());
        let path = format!("{base}/{{name}}/streams/{}", stream.name);
        if stream.ticketed {
            paths.insert(
                format!("{path}/ticket"),
                json!({ "parameters": with_name, "post": {
                    "operationId": format!("ticket{name}{}", camel(stream.name)),
                    "tags": [kind.name],
                    "summary": format!("Get a ticket that opens `{}` once", stream.name),
                    "responses": responses("201", "The ticket.", content("application/json", &json!({ "$ref": "#/components/schemas/Ticket" })), true),
                } }),
            );
        }
        paths.insert(path, item.into());
    }
}

fn list(kind: &Kind, name: &str, suffix: &str) -> Value {
    let columns: Vec<&str> = kind.columns.iter().map(|c| c.name).collect();
    json!({
        "operationId": format!("list{name}{suffix}"),
        "tags": [kind.name],
        "summary": format!("List {}", kind.plural),
        "parameters": [
            query("limit", json!({ "type": "integer", "minimum": 0, "maximum": 1000, "default": 20 }), "Most objects in the page."),
            query("after", json!({ "type": "string" }), "The `next` of the page before."),
            query("selector", json!({ "type": "string" }), "Labels: `env=prod,tier!=db,backup,!legacy,zone in (a,b)`."),
            query("fields", json!({ "type": "string" }), &format!("Answer only these, joined by commas: dotted paths or columns ({}).", columns.join(", "))),
            query("sort", json!({ "type": "string" }), "A column to order by; `-` in front turns it round."),
            query("search", json!({ "type": "string" }), "A text that name, labels or a column contain."),
        ],
        "responses": responses("200", "A page.", content("application/json", &json!({ "$ref": format!("#/components/schemas/{name}List") })), false),
    })
}

fn object(name: &str) -> Value {
    content(
        "application/json",
        &json!({ "$ref": format!("#/components/schemas/{name}") }),
    )
}

fn input(name: &str) -> Value {
    body(
        "application/json",
        &json!({ "$ref": format!("#/components/schemas/{name}Input") }),
    )
}

fn dry_run() -> Value {
    query(
        "dry_run",
        json!({ "type": "boolean", "default": false }),
        "Check everything, write nothing, answer what would be.",
    )
}

fn if_match() -> Value {
    parts::header("If-Match", "The ETag that the object must still have.")
}

fn idempotency() -> Value {
    parts::header(
        "Idempotency-Key",
        "The same key with the same body gives the same answer for a day.",
    )
}

fn create(kind: &Kind, name: &str) -> Value {
    let mut out = json!({
        "operationId": format!("create{name}"),
        "tags": [kind.name],
        "summary": format!("Create a {}", kind.name),
        "parameters": [dry_run(), idempotency()],
        "requestBody": input(name),
        "responses": responses("201", "It is created.", object(name), true),
    });
    out["responses"]["200"] = json!({ "description": "With dry_run, or with an Idempotency-Key that was used: the object.", "content": object(name) });
    out
}

fn get(kind: &Kind, name: &str) -> Value {
    let mut out = json!({
        "operationId": format!("get{name}"),
        "tags": [kind.name],
        "summary": format!("Show a {}", kind.name),
        "parameters": [parts::header("If-None-Match", "The ETag that is known already.")],
        "responses": responses("200", "The object.", object(name), false),
    });
    out["responses"]["304"] = json!({ "description": "It has not changed." });
    out
}

fn put(kind: &Kind, name: &str) -> Value {
    let mut out = json!({
        "operationId": format!("apply{name}"),
        "tags": [kind.name],
        "summary": format!("Replace the spec of a {}, or create it (apply)", kind.name),
        "parameters": [dry_run(), if_match(), idempotency()],
        "requestBody": input(name),
        "responses": responses("200", "It is replaced.", object(name), true),
    });
    out["responses"]["201"] = json!({ "description": "It is created.", "content": object(name) });
    out
}

fn patch(kind: &Kind, name: &str) -> Value {
    json!({
        "operationId": format!("patch{name}"),
        "tags": [kind.name],
        "summary": format!("Change parts of a {} (RFC 7396)", kind.name),
        "parameters": [dry_run(), if_match(), idempotency()],
        "requestBody": body("application/merge-patch+json", &json!({ "type": "object", "description": "Parts of metadata and spec; null takes a field away." })),
        "responses": responses("200", "It is changed.", object(name), true),
    })
}

fn delete(kind: &Kind, name: &str) -> Value {
    let mut out = json!({
        "operationId": format!("delete{name}"),
        "tags": [kind.name],
        "summary": format!("Delete a {}", kind.name),
        "parameters": [
            dry_run(),
            if_match(),
            force(),
            query("keep", json!({ "type": "string" }), "Kinds of owned objects that stay, joined by commas."),
        ],
        "responses": responses("202", "It is being deleted.", object(name), true),
    });
    out["responses"]["204"] = json!({ "description": "It is deleted." });
    out["responses"]["200"] = json!({ "description": "With dry_run: the object that would go.", "content": object(name) });
    out
}

fn act(kind: &Kind, name: &str, action: &Action) -> Value {
    let task = content(
        "application/json",
        &json!({ "$ref": "#/components/schemas/Accepted" }),
    );
    let mut out = json!({
        "operationId": format!("{}{name}", lower(&camel(action.verb))),
        "tags": [kind.name],
        "summary": action.doc,
        "parameters": [dry_run(), if_match(), idempotency(), force()],
        "requestBody": { "required": false, "content": content("application/json", &parts::plain(&(action.input)().to_value())) },
        "responses": responses("202", "A task carries it out.", task.clone(), true),
        "x-danger": action.danger,
        "x-claims": action.claims,
        "x-deadline-seconds": action.deadline,
    });
    out["responses"]["202"]["headers"] =
        json!({ "Location": { "$ref": "#/components/headers/Location" } });
    out["responses"]["200"] =
        json!({ "description": "With dry_run: what would be.", "content": task });
    out
}

fn batch(kind: &Kind, name: &str, verb: &str, doc: &str, action: Option<&Action>) -> Value {
    let task = content(
        "application/json",
        &json!({ "$ref": "#/components/schemas/Accepted" }),
    );
    let mut out = json!({
        "operationId": format!("{}{name}Batch", lower(&camel(verb))),
        "tags": [kind.name],
        "summary": doc,
        "parameters": [dry_run(), idempotency(), force()],
        "requestBody": body("application/json", &json!({ "$ref": "#/components/schemas/BatchInput" })),
        "responses": responses("202", "A task carries it out, with a child for each object.", task.clone(), true),
        "x-danger": action.map_or(model::Danger::Destroys, |a| a.danger),
    });
    out["responses"]["202"]["headers"] =
        json!({ "Location": { "$ref": "#/components/headers/Location" } });
    out["responses"]["200"] = json!({ "description": "With dry_run: the objects, and what would become of each.", "content": task });
    out
}

/// Cancels what stands in the way.
fn force() -> Value {
    query(
        "force",
        json!({ "type": "boolean", "default": false }),
        "Cancel the task that holds what this needs, and wait until it has let go.",
    )
}

fn streams(kind: &Kind, name: &str, stream: &StreamKind) -> Map<String, Value> {
    let mut parameters = Vec::new();
    let input = (stream.input)().to_value();
    let required = |field: &str| {
        input
            .get("required")
            .and_then(Value::as_array)
            .is_some_and(|list| list.iter().any(|f| f == field))
    };
    for (field, schema) in input
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let doc = schema
            .get("description")
            .and_then(Value::as_str)
            .unwrap_or("A parameter of the stream.");
        let mut one = query(field, parts::plain(schema), doc);
        if required(field) {
            one["required"] = true.into();
        }
        parameters.push(one);
    }
    if stream.ticketed {
        let mut ticket = query(
            "ticket",
            json!({ "type": "string" }),
            "A ticket for this stream.",
        );
        ticket["required"] = true.into();
        parameters.push(ticket);
    }
    let operation = |verb: &str| -> Value {
        json!({
            "operationId": format!("{verb}{name}{}", camel(stream.name)),
            "tags": [kind.name],
            "summary": stream.doc,
            "parameters": parameters,
            "x-way": stream.way,
        })
    };
    let bytes = json!({ "application/octet-stream": {} });
    let mut item = Map::new();
    if stream.way == Way::Write {
        let mut put = operation("write");
        put["requestBody"] = json!({ "required": true, "content": bytes });
        put["responses"] = responses(
            "200",
            "What became of it.",
            content("application/json", &json!(true)),
            true,
        );
        put["responses"]["204"] = json!({ "description": "It is taken." });
        item.insert("put".into(), put);
    } else {
        let mut get = operation("open");
        get["responses"] = responses(
            "101",
            "Switched to WebSocket: binary messages are bytes, text messages are control in JSON.",
            Value::Null,
            true,
        );
        if stream.way == Way::Read {
            get["responses"]["200"] = json!({
                "description": "The bytes, or server-sent events when asked for.",
                "content": { "application/octet-stream": {}, "text/event-stream": {} }
            });
        }
        item.insert("get".into(), get);
    }
    item
}

fn lower(name: &str) -> String {
    let mut letters = name.chars();
    letters
        .next()
        .map(|first| first.to_ascii_lowercase().to_string() + letters.as_str())
        .unwrap_or_default()
}

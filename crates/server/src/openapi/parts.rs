//! What every OpenAPI description of ours has, whatever kinds there are.

use serde_json::{Map, Value, json};

/// A schema without what OpenAPI says elsewhere.
pub(super) fn plain(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(map) = schema.as_object_mut() {
        map.shift_remove("$schema");
        map.shift_remove("title");
    }
    schema
}

/// A parameter in the path.
pub(super) fn parameter(name: &str, doc: &str) -> Value {
    json!({
        "name": name, "in": "path", "required": true, "description": doc,
        "schema": model::schema::of::<model::Name>().to_value().as_object().map(|schema| {
            schema.iter().filter(|(key, _)| !key.starts_with('$') && *key != "title").map(|(k, v)| (k.clone(), v.clone())).collect::<Map<_, _>>()
        }),
    })
}

/// A parameter in the query.
pub(super) fn query(name: &str, schema: Value, doc: &str) -> Value {
    json!({ "name": name, "in": "query", "description": doc, "schema": schema })
}

/// A parameter in a header.
pub(super) fn header(name: &str, doc: &str) -> Value {
    json!({ "name": name, "in": "header", "description": doc, "schema": { "type": "string" } })
}

/// The content of a response.
pub(super) fn content(kind: &str, schema: &Value) -> Value {
    json!({ kind: { "schema": schema } })
}

/// A request body that must be there.
pub(super) fn body(kind: &str, schema: &Value) -> Value {
    json!({ "required": true, "content": content(kind, schema) })
}

/// One good response and all bad ones.
pub(super) fn responses(status: &str, doc: &str, content: Value, writes: bool) -> Value {
    let mut good = json!({ "description": doc });
    if !content.is_null() {
        good["content"] = content;
    }
    let mut out = Map::new();
    out.insert(status.to_owned(), good);
    let bad: &[&str] = match writes {
        true => &[
            "400", "401", "403", "404", "405", "408", "409", "410", "412", "413", "415", "422",
            "426", "429", "500", "503",
        ],
        false => &[
            "400", "401", "403", "404", "405", "410", "422", "429", "500", "503",
        ],
    };
    for code in bad {
        out.insert(
            (*code).to_owned(),
            json!({ "$ref": format!("#/components/responses/{code}") }),
        );
    }
    out.into()
}

/// Every bad response, once.
pub(super) fn fixed_responses() -> Value {
    let all = [
        (
            "400",
            "Cannot be parsed, or asks for a version that there is not.",
        ),
        ("401", "Not logged in."),
        ("403", "Not allowed, or a quota is used up."),
        ("404", "Not found; the hint names what is near."),
        ("405", "The method does nothing here; Allow says which do."),
        ("408", "The body came too slowly."),
        (
            "409",
            "The name is taken, the object changed, its state forbids it, or a task works on it.",
        ),
        ("410", "No longer kept."),
        ("412", "If-Match does not match."),
        ("413", "The body is too large."),
        ("415", "The body has another media type."),
        ("422", "Fields are wrong: `violations` has all of them."),
        ("426", "Spoken over a WebSocket."),
        (
            "429",
            "Too many requests; Retry-After says how long to wait.",
        ),
        (
            "500",
            "Our fault; the cause is in the log under `request_id`.",
        ),
        ("503", "Not now; Retry-After says when."),
    ];
    all.into_iter()
        .map(|(code, doc)| {
            let problem = json!({ "$ref": "#/components/schemas/Problem" });
            let response =
                json!({ "description": doc, "content": content("application/problem+json", &problem) });
            (code.to_owned(), response)
        })
        .collect::<Map<_, _>>()
        .into()
}

/// Headers that responses name.
pub(super) fn fixed_headers() -> Value {
    json!({
        "Location": { "description": "Where the task or the new object is.", "schema": { "type": "string" } }
    })
}

/// Schemas that every kind shares.
pub(super) fn fixed_schemas() -> Map<String, Value> {
    let mut out = Map::new();
    out.insert(
        "Metadata".into(),
        plain(&model::schema::of::<model::Meta>().to_value()),
    );
    let mut batch = plain(&model::schema::of::<runtime::task::BatchInput>().to_value());
    batch["properties"]["params"] = json!({
        "type": "object",
        "description": "Parameters of the action, as for one object; nothing with `delete`.",
    });
    out.insert("BatchInput".into(), batch);
    out.insert(
        "MetadataInput".into(),
        json!({
            "type": "object",
            "description": "What people write. Whatever else an exported file has is ignored.",
            "properties": {
                "name": { "type": "string" },
                "project": { "type": "string" },
                "display_name": { "type": "string", "maxLength": 200 },
                "labels": { "type": "object", "additionalProperties": { "type": "string" } },
                "protection": { "type": "boolean" },
                "owner": { "type": ["object", "null"] },
                "revision": { "type": "string", "description": "When given, the object must still be at it." },
            }
        }),
    );
    out.insert(
        "Problem".into(),
        json!({
            "type": "object",
            "description": "RFC 9457.",
            "required": ["type", "title", "status", "detail", "code", "retryable", "request_id"],
            "properties": {
                "type": { "type": "string" },
                "title": { "type": "string" },
                "status": { "type": "integer" },
                "detail": { "type": "string" },
                "code": { "type": "string", "description": "A stable word for programs." },
                "hint": { "type": "string" },
                "retryable": { "type": "boolean" },
                "request_id": { "type": "string" },
                "violations": { "type": "array", "items": {
                    "type": "object",
                    "required": ["field", "message"],
                    "properties": { "field": { "type": "string" }, "message": { "type": "string" }, "hint": { "type": "string" } }
                } },
                "task": { "type": "string" },
                "revision": { "type": "string" },
                "retry_after": { "type": "integer" },
            }
        }),
    );
    out.insert(
        "Accepted".into(),
        json!({ "type": "object", "description": "The task that carries the action out, as an object." }),
    );
    out.insert(
        "Ticket".into(),
        json!({
            "type": "object",
            "required": ["ticket", "expires"],
            "properties": { "ticket": { "type": "string" }, "expires": { "type": "string", "format": "date-time" } }
        }),
    );
    out.insert(
        "WatchEvent".into(),
        json!({
            "type": "object",
            "required": ["type", "kind"],
            "properties": {
                "type": { "enum": ["put", "delete", "bookmark", "compacted", "error"] },
                "kind": { "type": "string" },
                "key": { "type": "object" },
                "revision": { "type": "string" },
                "object": { "type": "object" },
                "problem": { "$ref": "#/components/schemas/Problem" },
            }
        }),
    );
    out
}

/// Paths that are about no kind.
pub(super) fn fixed_paths() -> Map<String, Value> {
    let any = || content("application/json", &json!({ "type": "object" }));
    let simple = |id: &str, summary: &str, parameters: Value| {
        json!({ "get": {
            "operationId": id, "tags": ["system"], "summary": summary, "parameters": parameters,
            "responses": responses("200", summary, any(), false),
        } })
    };
    let none = || json!([]);
    let text = || json!({ "type": "string" });
    let mut out = Map::new();
    out.insert(
        "/api/v1/registry".into(),
        simple(
            "getRegistry",
            "The declaration of all kinds, as data.",
            none(),
        ),
    );
    out.insert(
        "/api/v1/surfaces".into(),
        simple("getSurfaces", "Which surface offers which action.", none()),
    );
    out.insert(
        "/api/v1/whoami".into(),
        simple("whoami", "Who you are to this server.", none()),
    );
    out.insert("/api/versions".into(), {
        let mut versions = simple("listVersions", "The versions of the API.", none());
        versions["get"]["security"] = json!([{}]);
        versions
    });
    out.insert(
        "/api/v1/watch".into(),
        {
            let mut watch = simple("watch", "Changes as they happen, over WebSocket or server-sent events.", json!([
                query("kind", text(), "Kinds, joined by commas."),
                query("project", text(), "Only of this project."),
                query("name", text(), "Only this object."),
                query("selector", text(), "Only with these labels."),
                query("search", text(), "Only whose name contains this."),
                query("after", text(), "Only what changed after this revision; without it, everything that is there first."),
            ]));
            watch["get"]["responses"]["200"]["content"] = json!({ "text/event-stream": { "schema": { "$ref": "#/components/schemas/WatchEvent" } } });
            watch["get"]["responses"]["101"] = json!({ "description": "Switched to WebSocket: one event a message." });
            watch
        },
    );
    out.insert("/api/v1/events".into(), {
        let mut events = simple(
            "listEvents",
            "What happened, one JSON object a line or as server-sent events.",
            json!([
                query(
                    "since",
                    json!({ "type": "integer", "minimum": 0 }),
                    "Only events with a greater number."
                ),
                query(
                    "limit",
                    json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 100 }),
                    "Most events."
                ),
                query(
                    "follow",
                    json!({ "type": "boolean", "default": false }),
                    "Go on with what happens from now."
                ),
            ]),
        );
        events["get"]["responses"]["200"]["content"] =
            json!({ "application/x-ndjson": {}, "text/event-stream": {} });
        events
    });
    let mut explain = simple(
        "explain",
        "What is wanted of an object, what is, and why.",
        none(),
    );
    explain["parameters"] = json!([
        { "name": "kind", "in": "path", "required": true, "description": "The kind.", "schema": text() },
        { "name": "project", "in": "path", "required": true, "description": "The project, or `-` for cluster-wide kinds.", "schema": text() },
        parameter("name", "The name of the object."),
    ]);
    out.insert("/api/v1/explain/{kind}/{project}/{name}".into(), explain);
    out.insert(
        "/api/v1/login".into(),
        json!({ "post": {
            "operationId": "login", "tags": ["system"], "summary": "Trade a one-time code and a signing request for a client certificate.",
            "security": [{}],
            "requestBody": body("application/json", &json!({
                "type": "object", "required": ["code", "csr"],
                "properties": { "code": text(), "csr": { "type": "string", "description": "PKCS#10, PEM." } }
            })),
            "responses": responses("200", "The certificate.", any(), true),
        } }),
    );
    out.insert(
        "/api/v1/login/code".into(),
        json!({ "post": {
            "operationId": "makeLoginCode", "tags": ["system"], "summary": "Make a one-time login code.",
            "responses": responses("201", "The code, shown once.", any(), true),
        } }),
    );
    out
}

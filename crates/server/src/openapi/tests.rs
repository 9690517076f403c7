//! A small validator of OpenAPI 3.1 documents: what tools stumble over.

use super::*;
use std::collections::BTreeSet;

/// Everything that is wrong with a document.
pub(crate) fn validate(doc: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    if !doc["openapi"]
        .as_str()
        .is_some_and(|v| v.starts_with("3.1."))
    {
        wrong.push("openapi is not 3.1.x".into());
    }
    refs(doc, doc, "#", &mut wrong);
    let mut ids = BTreeSet::new();
    for (path, item) in doc["paths"].as_object().into_iter().flatten() {
        let wanted: BTreeSet<&str> = path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .collect();
        for (method, operation) in item.as_object().into_iter().flatten() {
            if method == "parameters" {
                continue;
            }
            let at = format!("{method} {path}");
            if !["get", "put", "post", "delete", "patch"].contains(&method.as_str()) {
                wrong.push(format!("{at}: unknown method"));
            }
            match operation["operationId"].as_str() {
                Some(id) if ids.insert(id.to_owned()) => {}
                other => wrong.push(format!("{at}: operationId {other:?} is missing or taken")),
            }
            let own = operation["parameters"].as_array();
            let shared = item["parameters"].as_array();
            let all: Vec<&Value> = own.into_iter().chain(shared).flatten().collect();
            let given: BTreeSet<&str> = all
                .iter()
                .filter(|p| p["in"] == "path" && p["required"] == true)
                .filter_map(|p| p["name"].as_str())
                .collect();
            if given != wanted {
                wrong.push(format!(
                    "{at}: path has {wanted:?}, parameters have {given:?}"
                ));
            }
            let names: BTreeSet<String> = all
                .iter()
                .map(|p| format!("{} {}", p["in"], p["name"]))
                .collect();
            if names.len() != all.len() {
                wrong.push(format!("{at}: a parameter is declared twice"));
            }
            let responses = operation["responses"].as_object();
            if responses.is_none_or(Map::is_empty) {
                wrong.push(format!("{at}: no responses"));
            }
            for (code, response) in responses.into_iter().flatten() {
                if response.get("$ref").is_none() && !response["description"].is_string() {
                    wrong.push(format!("{at}: response {code} has no description"));
                }
            }
            for parameter in all {
                compile(
                    &format!("{at} {}", parameter["name"]),
                    doc,
                    &parameter["schema"],
                    &mut wrong,
                );
            }
        }
    }
    for (name, schema) in doc["components"]["schemas"]
        .as_object()
        .into_iter()
        .flatten()
    {
        compile(name, doc, schema, &mut wrong);
    }
    wrong
}

/// Every reference must lead somewhere.
fn refs(doc: &Value, here: &Value, at: &str, wrong: &mut Vec<String>) {
    match here {
        Value::Object(map) => {
            if let Some(Value::String(to)) = map.get("$ref")
                && doc.pointer(to.trim_start_matches('#')).is_none()
            {
                wrong.push(format!("{at}: {to} leads nowhere"));
            }
            for (name, value) in map {
                refs(doc, value, &format!("{at}/{name}"), wrong);
            }
        }
        Value::Array(list) => {
            for (i, value) in list.iter().enumerate() {
                refs(doc, value, &format!("{at}/{i}"), wrong);
            }
        }
        _ => {}
    }
}

/// Every schema must be one.
fn compile(at: &str, doc: &Value, schema: &Value, wrong: &mut Vec<String>) {
    let mut schema = schema.clone();
    if let Some(map) = schema.as_object_mut() {
        map.insert("components".into(), doc["components"].clone());
    }
    if let Err(error) = jsonschema::validator_for(&schema) {
        wrong.push(format!("{at}: not a schema: {error}"));
    }
}

#[test]
fn the_document_is_valid_for_the_kinds_of_the_spine() {
    let registry = Registry::new(&[runtime::SUBSYSTEMS]).unwrap();
    let doc = openapi(&registry);
    assert_eq!(validate(&doc), Vec::<String>::new());
    assert_eq!(
        doc,
        openapi(&registry),
        "the same registry gives the same document"
    );
}

#[test]
fn the_validator_finds_mistakes() {
    let registry = Registry::new(&[runtime::SUBSYSTEMS]).unwrap();
    let mut doc = openapi(&registry);
    doc["paths"]["/api/v1/{x}"] = json!({ "get": { "operationId": "login", "responses": { "200": { "$ref": "#/nowhere" } } } });
    doc["components"]["schemas"]["Broken"] = json!({ "type": "nonsense" });
    let wrong = validate(&doc).join("\n");
    for part in [
        "leads nowhere",
        "missing or taken",
        "path has",
        "not a schema",
    ] {
        assert!(wrong.contains(part), "{part} in {wrong}");
    }
}

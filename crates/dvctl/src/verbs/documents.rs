//! Files of objects: YAML or JSON, one or more documents, lists as the API gives them.

use crate::failure::{Failure, Result};
use crate::session::{Session, Target};
use serde::Deserialize as _;
use serde_json::{Value, json};
use std::io::Read as _;

/// An object of a file.
pub struct Document {
    /// The file and the number of the document in it, for messages.
    pub place: String,
    /// The object.
    pub object: Value,
}

/// Reads files; `-` is standard input.
pub fn read(files: &[&str]) -> Result<Vec<Document>> {
    let mut out = Vec::new();
    for file in files {
        let (name, text) = match *file {
            "-" => {
                let mut text = String::new();
                std::io::stdin()
                    .read_to_string(&mut text)
                    .map_err(|e| Failure::usage(format!("reading standard input: {e}")))?;
                ("standard input", text)
            }
            file => {
                let text = std::fs::read_to_string(file)
                    .map_err(|e| Failure::usage(format!("reading {file}: {e}")))?;
                (file, text)
            }
        };
        out.extend(parse(name, &text)?);
    }
    if out.is_empty() {
        return Err(Failure::usage(format!(
            "{} has no object",
            files.join(", ")
        )));
    }
    Ok(out)
}

fn parse(name: &str, text: &str) -> Result<Vec<Document>> {
    let mut out = Vec::new();
    for (i, part) in serde_yaml_ng::Deserializer::from_str(text).enumerate() {
        let place = format!("{name}, document {}", i + 1);
        let value = Value::deserialize(part)
            .map_err(|e| Failure::usage(format!("{place} cannot be read: {e}")))?;
        let items = match value {
            Value::Null => continue,
            Value::Array(items) => items,
            Value::Object(mut map) if map.get("items").is_some_and(Value::is_array) => {
                match map.remove("items") {
                    Some(Value::Array(items)) => items,
                    _ => Vec::new(),
                }
            }
            value => vec![value],
        };
        for object in items {
            out.push(Document {
                place: place.clone(),
                object,
            });
        }
    }
    Ok(out)
}

/// Which object a document is about.
pub fn target(s: &Session, document: &Document) -> Result<Target> {
    let text = |pointer: &str| document.object.pointer(pointer).and_then(Value::as_str);
    let missing = |field: &str| {
        Failure::usage(format!("{}: `{field}` is missing", document.place))
            .hint("an object has version, kind, metadata.name and spec; `dvctl KIND show NAME -o yaml` shows one")
    };
    if let Some(version) = text("/version").filter(|v| *v != model::VERSION) {
        return Err(Failure::usage(format!(
            "{}: version `{version}` is not known, only `{}`",
            document.place,
            model::VERSION
        )));
    }
    let kind = text("/kind").ok_or_else(|| missing("kind"))?;
    let name = text("/metadata/name").ok_or_else(|| missing("metadata.name"))?;
    let kind = s.registry.must(kind).map_err(|mut failure| {
        failure.message = format!("{}: {}", document.place, failure.message);
        failure
    })?;
    let project = text("/metadata/project").unwrap_or(&s.project);
    let mut target = Target::of(&kind, project, "");
    target.name = name.to_owned();
    Ok(target)
}

/// The body that is sent for a document: what people write. Status and what the server keeps in the metadata are left out.
pub fn body(document: &Document) -> Value {
    let mut meta = serde_json::Map::new();
    for name in ["name", "project", "display_name", "labels", "protection"] {
        if let Some(value) = document.object.get("metadata").and_then(|m| m.get(name)) {
            meta.insert(name.into(), value.clone());
        }
    }
    let mut body =
        json!({ "version": model::VERSION, "kind": document.object.get("kind"), "metadata": meta });
    if let (Value::Object(body), Value::Object(from)) = (&mut body, &document.object) {
        // Any field that is not known goes to the server, which names it and the nearest one.
        for (name, value) in from {
            if !["version", "kind", "metadata", "status"].contains(&name.as_str()) {
                body.insert(name.clone(), value.clone());
            }
        }
    }
    body
}

/// The revision in a document: the object must still be at it.
pub fn revision(document: &Document) -> Option<&str> {
    document
        .object
        .pointer("/metadata/revision")
        .and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_documents_and_lists() {
        let text = "kind: a\n---\n---\nkind: b\n---\n{\"kind\":\"a-list\",\"items\":[{\"kind\":\"c\"},{\"kind\":\"d\"}]}\n";
        let kinds: Vec<String> = parse("x", text)
            .unwrap()
            .iter()
            .map(|d| d.object["kind"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(kinds, ["a", "b", "c", "d"]);
        assert!(parse("x", "a: [").is_err());
    }

    #[test]
    fn only_what_people_write_is_sent() {
        let document = Document {
            place: String::new(),
            object: json!({ "version": "v1", "kind": "vm", "metadata": { "name": "a", "uid": "u", "revision": "7" }, "spec": { "x": 1 }, "status": {}, "spce": 1 }),
        };
        assert_eq!(
            body(&document),
            json!({ "version": "v1", "kind": "vm", "metadata": { "name": "a" }, "spec": { "x": 1 }, "spce": 1 })
        );
        assert_eq!(revision(&document), Some("7"));
    }
}

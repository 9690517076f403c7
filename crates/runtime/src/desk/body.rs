//! What people write in a file or request body: `metadata`, `spec`, and things that are ignored or checked.

use model::{Error, Labels, Result, VERSION, Violation, nearest};
use serde_json::{Map, Value};

/// A body, taken apart.
#[derive(Clone, Debug, Default)]
pub(super) struct Body {
    pub name: Option<String>,
    pub project: Option<String>,
    pub display_name: Option<String>,
    pub labels: Option<Labels>,
    pub protection: Option<bool>,
    pub owner: Option<model::Owner>,
    pub revision: Option<String>,
    pub spec: Value,
}

/// Metadata that an exported file carries and that only we write.
const OURS: &[&str] = &[
    "uid",
    "generation",
    "created",
    "created_by",
    "request_id",
    "deletion_requested",
    "holds",
    "claims",
    "keys",
];
/// Fields of the metadata that are the caller's to say.
pub(crate) const THEIRS: &[&str] = &[
    "name",
    "project",
    "display_name",
    "labels",
    "protection",
    "owner",
    "revision",
];

/// Takes a body apart and refuses what does not belong.
pub(super) fn read(kind: &str, body: &Value) -> Result<Body> {
    let Value::Object(map) = body else {
        return Err(Error::new(
            model::What::Unparseable,
            "the body must be a JSON object with `metadata` and `spec`",
        ));
    };
    let mut wrong = Vec::new();
    for (name, value) in map {
        match name.as_str() {
            "metadata" | "spec" | "status" => {}
            "kind" if value == kind => {}
            "kind" => wrong.push(Violation::new(
                "kind",
                format!("is {value}, but this is about `{kind}`"),
            )),
            "version" if value == VERSION => {}
            "version" => wrong.push(
                Violation::new("version", format!("is {value}")).hint(format!("write `{VERSION}`")),
            ),
            other => wrong.push(unknown(
                other,
                other,
                &["version", "kind", "metadata", "spec"],
            )),
        }
    }
    let mut out = Body {
        spec: map.get("spec").cloned().unwrap_or(Value::Null),
        ..Body::default()
    };
    match map.get("metadata") {
        None | Some(Value::Null) => {}
        Some(Value::Object(meta)) => read_meta(meta, &mut out, &mut wrong),
        Some(_) => wrong.push(Violation::new("metadata", "must be an object")),
    }
    if !(out.spec.is_null() || out.spec.is_object()) {
        wrong.push(Violation::new("spec", "must be an object"));
    }
    if wrong.is_empty() {
        Ok(out)
    } else {
        Err(Error::invalid(wrong))
    }
}

fn read_meta(meta: &Map<String, Value>, out: &mut Body, wrong: &mut Vec<Violation>) {
    let text = |name: &str, wrong: &mut Vec<Violation>| match meta.get(name) {
        None | Some(Value::Null) => None,
        Some(Value::String(s)) => Some(s.clone()),
        Some(_) => {
            wrong.push(Violation::new(format!("metadata.{name}"), "must be a text"));
            None
        }
    };
    out.name = text("name", wrong);
    out.project = text("project", wrong);
    out.display_name = text("display_name", wrong);
    out.revision = text("revision", wrong).filter(|r| !r.is_empty());
    match meta.get("labels") {
        None => {}
        Some(Value::Null) => out.labels = Some(Labels::new()),
        Some(value) => match serde_json::from_value(value.clone()) {
            Ok(labels) => out.labels = Some(labels),
            Err(_) => wrong.push(Violation::new(
                "metadata.labels",
                "must be an object of texts",
            )),
        },
    }
    match meta.get("protection") {
        None | Some(Value::Null) => {}
        Some(Value::Bool(b)) => out.protection = Some(*b),
        Some(_) => wrong.push(Violation::new(
            "metadata.protection",
            "must be true or false",
        )),
    }
    if let Some(owner) = meta.get("owner").filter(|o| !o.is_null()) {
        match serde_json::from_value(owner.clone()) {
            Ok(owner) => out.owner = Some(owner),
            Err(e) => wrong.push(Violation::new("metadata.owner", e.to_string())),
        }
    }
    for name in meta.keys() {
        if !OURS.contains(&name.as_str()) && !THEIRS.contains(&name.as_str()) {
            wrong.push(unknown(&format!("metadata.{name}"), name, THEIRS));
        }
    }
}

fn unknown(path: &str, name: &str, known: &[&str]) -> Violation {
    // A name without a letter must be seen all the same.
    let path = if path.is_empty() { "\"\"" } else { path };
    Violation::new(path, "is not a field here").hint(match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("fields: {}", known.join(", ")),
    })
}

/// JSON merge patch (RFC 7396).
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(map) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            map.shift_remove(name);
        } else {
            merge(map.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Keeps what an update leaves out but must not lose: allocated and secret fields (absent = keep, null = clear).
pub(super) fn keep(schema: &Value, old: &Value, new: &mut Value) {
    let (Some(old), Some(map)) = (old.as_object(), new.as_object_mut()) else {
        return;
    };
    for (name, was) in old {
        let Some(part) = model::schema::property(schema, name) else {
            continue;
        };
        let keeps = carries(part, model::schema::ALLOCATED) || carries(part, model::schema::SECRET);
        match map.get_mut(name) {
            None if keeps => {
                map.insert(name.clone(), was.clone());
            }
            Some(now) if now.is_object() => keep(part, was, now),
            Some(Value::Array(now)) => {
                // Elements keep by position: a NIC that stays in its place keeps its address.
                for (was, now) in was.as_array().into_iter().flatten().zip(now.iter_mut()) {
                    keep(part, was, now);
                }
            }
            _ => {}
        }
    }
}

fn carries(schema: &Value, word: &str) -> bool {
    model::schema::flagged(schema, word)
        || ["anyOf", "oneOf"].iter().any(|w| {
            schema
                .get(*w)
                .and_then(Value::as_array)
                .is_some_and(|l| l.iter().any(|s| carries(s, word)))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn merge_patch_of_rfc_7396() {
        // The test cases of appendix A that apply to objects.
        for (target, patch, result) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (
                json!({"a":{"b":"c"}}),
                json!({"a":{"b":"d","c":null}}),
                json!({"a":{"b":"d"}}),
            ),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (
                json!({}),
                json!({"a":{"bb":{"ccc":null}}}),
                json!({"a":{"bb":{}}}),
            ),
        ] {
            let mut out = target.clone();
            merge(&mut out, &patch);
            assert_eq!(out, result, "{target} {patch}");
        }
    }

    #[test]
    fn allocated_fields_stay() {
        let schema = json!({"properties":{"nics":{"type":"array","items":{"properties":{"mac":{"x-allocated":true},"net":{}}}}}});
        let mut new = json!({"nics":[{"net":"b"}]});
        keep(&schema, &json!({"nics":[{"mac":"x","net":"a"}]}), &mut new);
        assert_eq!(new, json!({"nics":[{"net":"b","mac":"x"}]}));
    }
}

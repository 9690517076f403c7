//! The schema vocabulary: JSON Schema 2020-12 made by `schemars`, with a few words of our own.
//!
//! | word | value | means |
//! |---|---|---|
//! | `x-ref` | kind | the field names an object of that kind |
//! | `x-secret` | true | encrypted at rest, never returned, masked everywhere |
//! | `x-personal` | true | encrypted at rest like a secret, shown to whoever may read the object; in audit rows sealed with the person's own key |
//! | `x-unit` | `bytes`, `seconds`, `millis` | what a number counts |
//! | `x-subject` | true | the person whom an action is all about: on record under his own key, or not at all |
//! | `x-immutable` | true | fixed once the object exists |
//! | `x-allocated` | true | filled in by us when absent; absent in an update keeps it |
//! | `x-hotplug` | true | may change while the guest runs |
//! | `x-index` | true | indexed by the watch cache |
//! | `x-expires` | true | a time after which the object is worth nothing: `dvctl KIND expiring --days N` looks at it |
//! | `x-counts` | word | the project has a limit for it: at the root of a schema objects are counted, at a number or size that, at a list its length |
//! | `x-keeps` | kind | at the root of a schema: its one object, `default`, is for all objects of that kind, and dvctl offers its verbs there |
//! | `x-file` | `size`, `sha256` | filled in by a client that makes the object from a file and then sends that file |

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::Value;

/// `x-ref`: the field names an object of that kind.
pub const REF: &str = "x-ref";
/// `x-secret`: encrypted at rest, never returned.
pub const SECRET: &str = "x-secret";
/// `x-personal`: encrypted at rest, shown to whoever may read the object.
pub const PERSONAL: &str = "x-personal";
/// `x-subject`: names the person whom it is all about; on record under his own key, or not at all.
pub const SUBJECT: &str = "x-subject";
/// `x-unit`: what a number counts.
pub const UNIT: &str = "x-unit";
/// `x-immutable`: fixed once the object exists.
pub const IMMUTABLE: &str = "x-immutable";
/// `x-allocated`: filled in by us when absent; absent in an update keeps the old value.
pub const ALLOCATED: &str = "x-allocated";
/// `x-hotplug`: may change while the guest runs.
pub const HOTPLUG: &str = "x-hotplug";
/// `x-index`: indexed by the watch cache.
pub const INDEX: &str = "x-index";

/// `x-expires`: from that time on the object is worth nothing.
pub const EXPIRES: &str = "x-expires";

/// `x-counts`: what of the limits of a project it takes.
pub const COUNTS: &str = "x-counts";

/// The schema of a type, with all parts inlined, so that every field has its words in place.
pub fn of<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().with(|s| {
        s.inline_subschemas = true;
        s.meta_schema = None;
    });
    settings.into_generator().into_root_schema_for::<T>()
}

/// The schema of "no parameters".
pub fn empty() -> Schema {
    schemars::json_schema!({ "type": "object", "properties": {}, "additionalProperties": false })
}

/// The schema of the field at a dotted path, looking through `anyOf`/`oneOf` of optional fields and array items.
pub fn at<'a>(schema: &'a Value, path: &str) -> Option<&'a Value> {
    let mut here = schema;
    for part in path.split('.').filter(|p| !p.is_empty()) {
        let part = part.split('[').next().unwrap_or(part);
        here = property(here, part)?;
    }
    Some(here)
}

/// One property of an object schema, or of the items of an array schema.
pub fn property<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    if let Some(found) = schema.get("properties").and_then(|p| p.get(name)) {
        return Some(found);
    }
    if let Some(items) = schema.get("items") {
        return property(items, name);
    }
    for word in ["anyOf", "oneOf", "allOf"] {
        for part in schema
            .get(word)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            if let Some(found) = property(part, name) {
                return Some(found);
            }
        }
    }
    None
}

/// The schema of the elements of an array, also in a branch.
pub fn items(schema: &Value) -> Option<&Value> {
    schema.get("items").or_else(|| {
        ["anyOf", "oneOf"]
            .iter()
            .filter_map(|word| schema.get(*word).and_then(Value::as_array))
            .flatten()
            .find_map(|part| part.get("items"))
    })
}

/// Whether a schema, or a branch of it, carries a word of ours as `true`.
pub fn flagged(schema: &Value, word: &str) -> bool {
    schema.get(word).and_then(Value::as_bool).unwrap_or(false)
}

/// Calls `found` for each value of `object` whose schema carries `word`, with its dotted path (`disks[0].volume`).
pub fn walk<'v>(
    schema: &Value,
    word: &str,
    object: &'v Value,
    found: &mut dyn FnMut(&str, &Value, &'v Value),
) {
    walk_at(schema, word, object, &mut String::new(), found);
}

fn walk_at<'v>(
    schema: &Value,
    word: &str,
    object: &'v Value,
    path: &mut String,
    found: &mut dyn FnMut(&str, &Value, &'v Value),
) {
    if let Some(mark) = schema.get(word) {
        found(path, mark, object);
    }
    let keep = path.len();
    match object {
        Value::Object(map) => {
            for (name, value) in map {
                let part = property(schema, name)
                    .or_else(|| schema.get("additionalProperties").filter(|s| s.is_object()));
                if let Some(part) = part {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(name);
                    walk_at(part, word, value, path, found);
                    path.truncate(keep);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = items(schema) {
                for (i, value) in list.iter().enumerate() {
                    path.push_str(&format!("[{i}]"));
                    walk_at(items, word, value, path, found);
                    path.truncate(keep);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(serde::Serialize, serde::Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Part {
        /// Which volume.
        #[schemars(extend("x-ref" = "volume"))]
        volume: Option<String>,
    }

    #[derive(serde::Serialize, serde::Deserialize, JsonSchema)]
    struct Whole {
        parts: Vec<Part>,
        one: Option<Part>,
    }

    #[test]
    fn walks_to_marked_values() {
        let schema = of::<Whole>().to_value();
        let object = json!({ "parts": [{ "volume": "a" }, {}], "one": { "volume": "b" } });
        let mut seen = Vec::new();
        walk(&schema, REF, &object, &mut |path, kind, value| {
            seen.push(format!("{path} {kind} {value}"))
        });
        assert_eq!(
            seen,
            [
                "parts[0].volume \"volume\" \"a\"",
                "one.volume \"volume\" \"b\""
            ]
        );
    }
}

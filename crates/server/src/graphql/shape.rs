//! What a JSON Schema is in GraphQL, and how values go from one to the other. Pure.
//!
//! | schema | GraphQL |
//! |---|---|
//! | texts from a closed list | enum, in upper snake case (`stay-off` is `STAY_OFF`) |
//! | whole number | `Int` when it fits 32 bits, else `Int64` |
//! | object with known fields | type of its own |
//! | free map, tagged union, anything | `JSON` |

use async_graphql::dynamic::FieldValue;
use async_graphql::{Name, Value as Graph};
use model::schema::{REF, SECRET};
use model::{Error, Result};
use serde_json::{Map, Value};
use std::sync::Arc;

/// The scalar for whole numbers beyond 32 bits.
pub(super) const INT64: &str = "Int64";
/// The scalar for anything.
pub(super) const JSON: &str = "JSON";

/// One GraphQL type.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// A scalar, by name.
    Scalar(&'static str),
    /// Words, as JSON and as GraphQL have them.
    Enum(Arc<EnumShape>),
    /// Known fields.
    Object(Arc<ObjectShape>),
    /// A list.
    List(Box<Shape>),
}

#[derive(Debug)]
pub(super) struct EnumShape {
    pub name: String,
    /// GraphQL word, JSON word, what it means.
    pub words: Vec<(String, String, String)>,
}

#[derive(Debug)]
pub(super) struct ObjectShape {
    pub name: String,
    pub fields: Vec<FieldShape>,
}

#[derive(Debug)]
pub(super) struct FieldShape {
    /// As GraphQL has it.
    pub name: String,
    /// As JSON has it.
    pub json: String,
    pub doc: String,
    pub shape: Shape,
    /// Whether a body must have it.
    pub required: bool,
    /// The kind of the object that it names.
    pub refers: Option<String>,
    pub secret: bool,
}

/// A part of an object on its way out: the value, and the project that references in it are in.
#[derive(Clone)]
pub(super) struct Part {
    pub value: Value,
    pub project: Option<String>,
}

/// `security-group` as `securityGroup`.
pub(crate) fn lower_camel(name: &str) -> String {
    let camel = crate::openapi::camel(name);
    let mut letters = camel.chars();
    match letters.next() {
        Some(first) => first.to_ascii_lowercase().to_string() + letters.as_str(),
        None => camel,
    }
}

/// A word of a list as GraphQL has it.
fn upper_snake(word: &str) -> String {
    let mut out = String::new();
    for (at, c) in word.chars().enumerate() {
        if c.is_ascii_alphanumeric() {
            if at == 0 && c.is_ascii_digit() {
                out.push('_');
            }
            out.push(c.to_ascii_uppercase());
        } else {
            out.push('_');
        }
    }
    out
}

impl Shape {
    /// The shape of a schema; `name` is what a type made of it is called.
    pub(super) fn of(schema: &Value, name: &str) -> Result<Shape> {
        let branches: Vec<&Value> = ["anyOf", "oneOf"]
            .iter()
            .filter_map(|word| schema.get(*word).and_then(Value::as_array))
            .flatten()
            .filter(|branch| branch.get("type") != Some(&"null".into()))
            .collect();
        if let Some(words) = words(schema, &branches) {
            return enumeration(name, words);
        }
        if let [only] = branches.as_slice() {
            return Shape::of(only, name);
        }
        if !branches.is_empty() {
            return Ok(Shape::Scalar(JSON));
        }
        let types: Vec<&str> = match schema.get("type") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(list)) => list
                .iter()
                .filter_map(Value::as_str)
                .filter(|one| *one != "null")
                .collect(),
            _ => Vec::new(),
        };
        Ok(match types.as_slice() {
            ["array"] => match schema.get("items") {
                Some(items) => Shape::List(Box::new(Shape::of(items, name)?)),
                None => Shape::Scalar(JSON),
            },
            ["object"] => object(schema, name)?,
            ["string"] => Shape::Scalar("String"),
            ["boolean"] => Shape::Scalar("Boolean"),
            ["number"] => Shape::Scalar("Float"),
            // A quantity may be written as text (`1GiB`) and is read as a number.
            ["integer"] | ["integer", "string"] => whole(schema),
            _ => Shape::Scalar(JSON),
        })
    }

    /// The name of the type, without list.
    #[cfg(test)]
    pub(super) fn type_name(&self) -> &str {
        match self {
            Shape::Scalar(name) => name,
            Shape::Enum(shape) => &shape.name,
            Shape::Object(shape) => &shape.name,
            Shape::List(items) => items.type_name(),
        }
    }

    /// A value on its way out.
    pub(super) fn show(&self, value: &Value, project: Option<&str>) -> Option<FieldValue<'static>> {
        match (self, value) {
            (_, Value::Null) => None,
            (Shape::List(items), Value::Array(list)) => {
                Some(FieldValue::list(list.iter().map(|one| {
                    items
                        .show(one, project)
                        .unwrap_or_else(|| FieldValue::value(Graph::Null))
                })))
            }
            (Shape::Object(_), _) => Some(FieldValue::owned_any(Part {
                value: value.clone(),
                project: project.map(str::to_owned),
            })),
            (Shape::Enum(shape), Value::String(word)) => shape
                .words
                .iter()
                .find(|(_, json, _)| json == word)
                .map(|(name, _, _)| FieldValue::value(Graph::Enum(Name::new(name)))),
            _ => Graph::from_json(value.clone()).ok().map(FieldValue::value),
        }
    }

    /// A value on its way in, as the body of a request has it.
    pub(super) fn take(&self, value: &Graph) -> Value {
        match (self, value) {
            (Shape::List(items), Graph::List(list)) => {
                list.iter().map(|one| items.take(one)).collect()
            }
            (Shape::Object(shape), Graph::Object(map)) => map
                .iter()
                .map(|(name, value)| {
                    let field = shape.fields.iter().find(|f| f.name == name.as_str());
                    match field {
                        Some(field) => (field.json.clone(), field.shape.take(value)),
                        None => (name.to_string(), json(value)),
                    }
                })
                .collect::<Map<_, _>>()
                .into(),
            (Shape::Enum(shape), Graph::Enum(_) | Graph::String(_)) => {
                let word = match value {
                    Graph::Enum(name) => name.as_str(),
                    Graph::String(text) => text,
                    _ => "",
                };
                let found = shape.words.iter().find(|(name, _, _)| name == word);
                found.map_or(word, |(_, json, _)| json).into()
            }
            _ => json(value),
        }
    }
}

/// Any GraphQL value as JSON.
pub(super) fn json(value: &Graph) -> Value {
    value.clone().into_json().unwrap_or(Value::Null)
}

/// The words of a closed list of texts, with their meaning.
fn words(schema: &Value, branches: &[&Value]) -> Option<Vec<(String, String)>> {
    let listed = |schema: &Value| -> Option<Vec<(String, String)>> {
        let doc = schema
            .get("description")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if let Some(word) = schema.get("const").and_then(Value::as_str) {
            return Some(vec![(word.to_owned(), doc.to_owned())]);
        }
        schema
            .get("enum")?
            .as_array()?
            .iter()
            .filter(|one| !one.is_null())
            .map(|one| Some((one.as_str()?.to_owned(), String::new())))
            .collect()
    };
    if branches.is_empty() {
        // A single constant is a tag, not a choice.
        return schema.get("enum").and_then(|_| listed(schema));
    }
    let all: Option<Vec<_>> = branches.iter().map(|branch| listed(branch)).collect();
    all.map(|all| all.concat())
}

fn enumeration(name: &str, words: Vec<(String, String)>) -> Result<Shape> {
    let words: Vec<_> = words
        .into_iter()
        .map(|(json, doc)| (upper_snake(&json), json, doc))
        .collect();
    for (at, (upper, json, _)) in words.iter().enumerate() {
        if let Some((_, other, _)) = words[..at].iter().find(|(u, _, _)| u == upper) {
            return Err(Error::internal(format!(
                "`{other}` and `{json}` of {name} would both be {upper} in GraphQL"
            )));
        }
    }
    Ok(Shape::Enum(Arc::new(EnumShape {
        name: name.to_owned(),
        words,
    })))
}

fn whole(schema: &Value) -> Shape {
    const SMALL: [&str; 5] = ["int8", "int16", "int32", "uint8", "uint16"];
    let small = schema
        .get("format")
        .and_then(Value::as_str)
        .is_some_and(|format| SMALL.contains(&format));
    let bounded = schema
        .get("maximum")
        .and_then(Value::as_f64)
        .is_some_and(|most| most <= f64::from(i32::MAX));
    match small || bounded {
        true => Shape::Scalar("Int"),
        false => Shape::Scalar(INT64),
    }
}

fn object(schema: &Value, name: &str) -> Result<Shape> {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return Ok(Shape::Scalar(JSON));
    };
    let free = schema
        .get("additionalProperties")
        .is_some_and(|more| more.is_object() || *more == Value::Bool(true));
    if properties.is_empty() || free {
        return Ok(Shape::Scalar(JSON));
    }
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut fields: Vec<FieldShape> = Vec::new();
    for (json, part) in properties {
        let graph: String = json
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        if let Some(other) = fields.iter().find(|f| f.name == graph) {
            return Err(Error::internal(format!(
                "`{}` and `{json}` of {name} would both be {graph} in GraphQL",
                other.json
            )));
        }
        fields.push(FieldShape {
            shape: Shape::of(part, &format!("{name}{}", crate::openapi::camel(json)))?,
            name: graph,
            json: json.clone(),
            doc: part
                .get("description")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            required: required.contains(&json.as_str()),
            refers: refers(part),
            secret: model::schema::flagged(part, SECRET),
        });
    }
    Ok(Shape::Object(Arc::new(ObjectShape {
        name: name.to_owned(),
        fields,
    })))
}

fn refers(part: &Value) -> Option<String> {
    let here = part.get(REF).and_then(Value::as_str);
    let is_text = |schema: &Value| match schema.get("type") {
        Some(Value::String(one)) => one == "string",
        Some(Value::Array(list)) => list.iter().any(|one| one == "string"),
        _ => false,
    };
    here.filter(|_| is_text(part)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(schema: Value, expected: &str) {
        let shown = match Shape::of(&schema, "X") {
            Ok(Shape::Enum(shape)) => shape
                .words
                .iter()
                .map(|(upper, _, _)| upper.as_str())
                .collect::<Vec<_>>()
                .join("|"),
            Ok(Shape::List(items)) => format!("[{}]", items.type_name()),
            Ok(shape) => shape.type_name().to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(shown, expected, "{schema}");
    }

    #[test]
    fn schemas_have_shapes() {
        check(json!({ "type": "string" }), "String");
        check(json!({ "type": ["string", "null"] }), "String");
        check(json!({ "type": "integer", "format": "uint64" }), "Int64");
        check(json!({ "type": "integer", "format": "uint8" }), "Int");
        check(
            json!({ "type": "integer", "format": "uint32", "maximum": 100 }),
            "Int",
        );
        check(
            json!({ "type": ["integer", "string"], "x-unit": "bytes" }),
            "Int64",
        );
        check(
            json!({ "type": "array", "items": { "type": "string" } }),
            "[String]",
        );
        check(
            json!({ "type": "object", "additionalProperties": { "type": "string" } }),
            "JSON",
        );
        check(json!({ "type": "object", "properties": {} }), "JSON");
        check(json!({ "enum": ["on", "stay-off"] }), "ON|STAY_OFF");
        check(
            json!({ "oneOf": [{ "const": "a", "description": "A." }, { "const": "1b" }] }),
            "A|_1B",
        );
        check(
            json!({ "anyOf": [{ "enum": ["x"] }, { "type": "null" }] }),
            "X",
        );
        check(
            json!({ "oneOf": [{ "type": "object" }, { "type": "string" }] }),
            "JSON",
        );
        check(json!(true), "JSON");
    }

    #[test]
    fn collisions_are_found() {
        check(
            json!({ "enum": ["stay-off", "stay_off"] }),
            "`stay-off` and `stay_off` of X would both be STAY_OFF in GraphQL",
        );
        check(
            json!({ "type": "object", "properties": { "a-b": {}, "a_b": {} } }),
            "`a-b` and `a_b` of X would both be a_b in GraphQL",
        );
    }
}

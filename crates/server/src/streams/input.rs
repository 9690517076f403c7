//! Parameters of a stream, from the query of its address: texts, read as their schema says.

use crate::rest::Params;
use model::{Error, Result, StreamKind, Violation, nearest};
use serde_json::{Map, Value};

/// The parameters as JSON. `ticket` is ours and not among them.
pub(super) fn read(stream: &StreamKind, params: &Params) -> Result<Value> {
    let schema = (stream.input)().to_value();
    let known = schema.get("properties").and_then(Value::as_object);
    let mut out = Map::new();
    let mut wrong = Vec::new();
    for (name, text) in params.pairs() {
        if name == "ticket" {
            continue;
        }
        match known.and_then(|known| known.get(name)) {
            Some(part) => match typed(part, text) {
                Ok(value) => {
                    // A name that comes again makes a list.
                    match (out.get_mut(name), is(part, "array")) {
                        (Some(Value::Array(list)), true) => list.push(value),
                        (None, true) => {
                            out.insert(name.clone(), Value::Array(vec![value]));
                        }
                        _ => {
                            out.insert(name.clone(), value);
                        }
                    }
                }
                Err(why) => wrong.push(Violation::new(format!("?{name}"), why)),
            },
            None => {
                let names = known.into_iter().flatten().map(|(name, _)| name.as_str());
                let violation = Violation::new(format!("?{name}"), "is not a parameter here");
                wrong.push(match nearest(name, names) {
                    Some(near) => violation.hint(format!("did you mean `{near}`?")),
                    None => violation,
                });
            }
        }
    }
    for name in schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        if let Some(name) = name.as_str()
            && !out.contains_key(name)
        {
            wrong.push(Violation::new(format!("?{name}"), "is required"));
        }
    }
    if wrong.is_empty() {
        Ok(Value::Object(out))
    } else {
        Err(Error::invalid(wrong))
    }
}

/// One text, as its schema says.
fn typed(schema: &Value, text: &str) -> Result<Value, String> {
    let items = schema.get("items").unwrap_or(schema);
    if is(items, "boolean") {
        return match text {
            "" | "true" | "1" => Ok(true.into()),
            "false" | "0" => Ok(false.into()),
            _ => Err(format!("`{text}` is neither true nor false")),
        };
    }
    if is(items, "integer") {
        return match text.parse::<i64>() {
            Ok(n) => Ok(n.into()),
            Err(_) if is(items, "string") => Ok(text.into()),
            Err(_) => Err(format!("`{text}` is not a whole number")),
        };
    }
    if is(items, "number") {
        return text
            .parse::<f64>()
            .ok()
            .and_then(serde_json::Number::from_f64)
            .map(Value::Number)
            .ok_or_else(|| format!("`{text}` is not a number"));
    }
    Ok(text.into())
}

/// Whether a schema, or a branch of it, allows a type.
fn is(schema: &Value, kind: &str) -> bool {
    let here = match schema.get("type") {
        Some(Value::String(one)) => one == kind,
        Some(Value::Array(list)) => list.iter().any(|one| one == kind),
        _ => false,
    };
    here || ["anyOf", "oneOf"].iter().any(|word| {
        schema
            .get(*word)
            .and_then(Value::as_array)
            .is_some_and(|list| list.iter().any(|one| is(one, kind)))
    })
}

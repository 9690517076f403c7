//! Between JSON and `google.protobuf.Struct`, and from errors to gRPC statuses.
//!
//! A number of a Struct is a double: whole ones come back as whole numbers, exact up to 2^53.

use model::{Error, What};
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value as Proto};
use serde_json::{Map, Number, Value};
use tonic::metadata::{BinaryMetadataValue, MetadataMap};
use tonic::{Code, Status};

/// Deepest nesting that is taken; as deep as our JSON reader goes.
const DEEPEST: usize = 100;

/// JSON bytes of an object as a Struct.
pub(super) fn object(json: &[u8]) -> model::Result<Struct> {
    match serde_json::from_slice(json) {
        Ok(Value::Object(map)) => Ok(to_struct(map)),
        Ok(_) => Err(Error::internal("an object was answered that is none")),
        Err(error) => Err(Error::internal("an answer is not JSON").because(error)),
    }
}

fn to_struct(map: Map<String, Value>) -> Struct {
    Struct {
        fields: map
            .into_iter()
            .map(|(name, value)| (name, to_proto(value)))
            .collect(),
    }
}

fn to_proto(value: Value) -> Proto {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(b) => Kind::BoolValue(b),
        Value::Number(n) => Kind::NumberValue(n.as_f64().unwrap_or(f64::NAN)),
        Value::String(s) => Kind::StringValue(s),
        Value::Array(list) => Kind::ListValue(ListValue {
            values: list.into_iter().map(to_proto).collect(),
        }),
        Value::Object(map) => Kind::StructValue(to_struct(map)),
    };
    Proto { kind: Some(kind) }
}

/// A Struct of a client as JSON.
pub(super) fn json(from: Option<Struct>) -> model::Result<Value> {
    match from {
        None => Ok(Value::Null),
        Some(from) => from_struct(from, 0),
    }
}

fn from_struct(from: Struct, depth: usize) -> model::Result<Value> {
    if depth > DEEPEST {
        return Err(Error::new(
            What::Unparseable,
            "the object is nested too deeply",
        ));
    }
    // Sorted, so that the same message is the same body for an Idempotency-Key.
    from.fields
        .into_iter()
        .map(|(name, value)| Ok((name, from_proto(value, depth + 1)?)))
        .collect::<model::Result<Map<_, _>>>()
        .map(Value::Object)
}

fn from_proto(from: Proto, depth: usize) -> model::Result<Value> {
    Ok(match from.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(b)) => Value::Bool(b),
        Some(Kind::NumberValue(n)) => number(n)?,
        Some(Kind::StringValue(s)) => Value::String(s),
        Some(Kind::StructValue(s)) => from_struct(s, depth)?,
        Some(Kind::ListValue(list)) if depth <= DEEPEST => Value::Array(
            list.values
                .into_iter()
                .map(|one| from_proto(one, depth + 1))
                .collect::<model::Result<_>>()?,
        ),
        Some(Kind::ListValue(_)) => {
            return Err(Error::new(
                What::Unparseable,
                "the object is nested too deeply",
            ));
        }
    })
}

fn number(n: f64) -> model::Result<Value> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if n.fract() == 0.0 && n.abs() <= EXACT {
        return Ok(Value::from(n as i64));
    }
    Number::from_f64(n)
        .map(Value::Number)
        .ok_or_else(|| Error::new(What::Unparseable, format!("{n} is not a number of JSON")))
}

/// An error as gRPC says it.
pub(super) fn status(error: &Error, request_id: &str) -> Status {
    let problem = error.problem(request_id);
    if error.what == What::Internal {
        tracing::error!(request_id, ?error, "a request failed by our fault");
    }
    let message = match &problem.hint {
        Some(hint) => format!("{}: {hint}", problem.detail),
        None => problem.detail.clone(),
    };
    let mut metadata = MetadataMap::new();
    let json = serde_json::to_vec(&problem).unwrap_or_default();
    // What is very long would not fit into the trailers of every client.
    if json.len() <= 4096 {
        metadata.insert_bin(
            "debvisor-problem-bin",
            BinaryMetadataValue::from_bytes(&json),
        );
    }
    let short: String = message.chars().take(2000).collect();
    Status::with_metadata(Code::from_i32(error.grpc()), short, metadata)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn there_and_back() {
        let value = json!({ "a": [1, 2.5, null, true, { "b": "c" }], "bytes": 9_007_199_254_740_992i64, "minus": -7 });
        let there = object(&serde_json::to_vec(&value).unwrap()).unwrap();
        assert_eq!(json(Some(there)).unwrap(), value);
        assert_eq!(json(None).unwrap(), Value::Null);
        let mut deep = Proto {
            kind: Some(Kind::BoolValue(true)),
        };
        for _ in 0..200 {
            deep = Proto {
                kind: Some(Kind::ListValue(ListValue { values: vec![deep] })),
            };
        }
        let deep = Struct {
            fields: [("x".to_owned(), deep)].into(),
        };
        assert!(json(Some(deep)).is_err());
        assert!(number(f64::NAN).is_err());
    }
}

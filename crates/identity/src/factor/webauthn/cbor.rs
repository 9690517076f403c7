//! CBOR from outside: bounded in depth, whole, and with each name once.

use super::Wrong;
use ciborium::Value;

/// Nothing that an authenticator says is nested deeper.
const DEPTH: usize = 6;

/// Reads one value from the beginning of some bytes and answers what follows it.
pub fn read(bytes: &[u8]) -> Result<(Value, &[u8]), Wrong> {
    let mut rest = bytes;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, DEPTH)
        .map_err(|_| Wrong("CBOR"))?;
    Ok((value, rest))
}

/// Reads one value that is all there is.
pub fn whole(bytes: &[u8]) -> Result<Value, Wrong> {
    match read(bytes)? {
        (value, []) => Ok(value),
        _ => Err(Wrong("CBOR")),
    }
}

/// What a map has under a name; nothing when it has the name twice.
pub fn get<'a>(map: &'a Value, name: &Value) -> Option<&'a Value> {
    let mut found = map.as_map()?.iter().filter(|(key, _)| key == name);
    match (found.next(), found.next()) {
        (Some((_, value)), None) => Some(value),
        _ => None,
    }
}

/// The same, under a text.
pub fn field<'a>(map: &'a Value, name: &str) -> Option<&'a Value> {
    get(map, &Value::Text(name.into()))
}

/// The number under a number.
pub fn number(map: &Value, label: i64) -> Option<i64> {
    let number = get(map, &Value::Integer(label.into()))?.as_integer()?;
    number.try_into().ok()
}

/// The bytes under a number.
pub fn bytes(map: &Value, label: i64) -> Option<&[u8]> {
    let bytes = get(map, &Value::Integer(label.into()))?.as_bytes()?;
    Some(bytes.as_slice())
}

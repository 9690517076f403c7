//! Paths into an object: `disks[0].size`.

use crate::failure::{Failure, Result};
use serde_json::{Map, Value};

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A field.
    Key(String),
    /// An element of a list.
    At(usize),
}

/// Reads `a.b[0].c`.
pub fn parse_path(text: &str) -> Result<Vec<Step>> {
    let wrong = || {
        Failure::usage(format!("`{text}` is not a path"))
            .hint("fields with dots, elements in brackets: `disks[0].size`")
    };
    let mut steps = Vec::new();
    for part in text.split('.') {
        let (name, mut rest) = match part.find('[') {
            Some(at) => part.split_at(at),
            None => (part, ""),
        };
        if name.is_empty() {
            return Err(wrong());
        }
        steps.push(Step::Key(name.to_owned()));
        while !rest.is_empty() {
            let end = rest.find(']').ok_or_else(wrong)?;
            let number = rest[..end].strip_prefix('[').ok_or_else(wrong)?;
            steps.push(Step::At(number.parse().map_err(|_| wrong())?));
            rest = &rest[end + 1..];
        }
    }
    Ok(steps)
}

/// Puts a value at a path, making objects on the way; a list grows by one element at most. Lists put onto lists are appended
/// when `append`.
pub fn put(into: &mut Value, path: &[Step], value: Value, append: bool) -> Result<()> {
    let Some((step, rest)) = path.split_first() else {
        match (append, &mut *into, value) {
            (true, Value::Array(list), Value::Array(more)) => list.extend(more),
            (true, Value::Object(map), Value::Object(more)) => map.extend(more),
            (_, here, value) => *here = value,
        }
        return Ok(());
    };
    match step {
        Step::Key(key) => {
            if into.is_null() {
                *into = Value::Object(Map::new());
            }
            match into {
                Value::Object(map) => put(
                    map.entry(key.clone()).or_insert(Value::Null),
                    rest,
                    value,
                    append,
                ),
                _ => Err(Failure::usage(format!(
                    "`{key}` is a field, but a list or a single value stands there"
                ))),
            }
        }
        Step::At(at) => {
            if into.is_null() {
                *into = Value::Array(Vec::new());
            }
            match into {
                Value::Array(list) => {
                    if *at == list.len() {
                        list.push(Value::Null);
                    }
                    let count = list.len();
                    let here = list.get_mut(*at).ok_or_else(|| {
                        Failure::usage(format!("there is no element [{at}]: the list has {count}"))
                    })?;
                    put(here, rest, value, append)
                }
                _ => Err(Failure::usage(format!(
                    "[{at}] names an element, but there is no list"
                ))),
            }
        }
    }
}

/// The value at a dotted path, for columns: an index steps into a list, a name over the fields of an object.
pub fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    let mut here = value;
    let steps = parse_path(path).ok()?;
    for step in &steps {
        here = match step {
            // Label keys have dots in them: take the rest of the path as one key when it is one.
            Step::Key(key) => here.get(key)?,
            Step::At(at) => here.get(at)?,
        };
    }
    Some(here)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn puts() {
        let mut v = json!({ "disks": [{ "size": 1 }] });
        let mut set = |path: &str, value| put(&mut v, &parse_path(path).unwrap(), value, false);
        set("disks[0].size", json!(2)).unwrap();
        set("disks[1].size", json!(3)).unwrap();
        set("power.off.graceful", json!(true)).unwrap();
        assert!(set("disks[7].size", json!(3)).is_err());
        assert!(set("disks.size", json!(3)).is_err());
        assert_eq!(
            v.to_string(),
            r#"{"disks":[{"size":2},{"size":3}],"power":{"off":{"graceful":true}}}"#
        );
        assert_eq!(at(&v, "disks[1].size"), Some(&json!(3)));
    }

    #[test]
    fn bad_paths() {
        for bad in ["", "a..b", "a[", "a[x]", "[0]", "a[0]b"] {
            assert!(parse_path(bad).is_err(), "{bad}");
        }
    }
}

//! The shape of a value, read from its schema, and how a text on the command line becomes one.

use serde_json::{Map, Value, json};

/// What a text may become.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// `true` or `false`.
    Switch,
    /// A single value.
    One(Scalar),
    /// A list of such.
    Many(Box<Shape>),
    /// Any keys, such values.
    Map(Box<Shape>),
    /// An object with known fields; `key` is the field that a plain value sets.
    Fields {
        /// Name and shape of each field.
        fields: Vec<(String, Shape)>,
        /// The field that a value without `=` sets.
        key: Option<String>,
    },
    /// Anything: read as YAML.
    Any,
}

/// A single value.
#[derive(Clone, Debug, PartialEq)]
pub struct Scalar {
    /// What it is.
    pub kind: ScalarKind,
    /// Which words it may be; empty when any.
    pub words: Vec<(String, String)>,
    /// The kind whose objects it names.
    pub refers: Option<String>,
}

/// What a single value is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ScalarKind {
    /// A text.
    Text,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// A size with a unit.
    Bytes,
    /// A duration with a unit.
    Seconds,
    /// A share, `500m`.
    Millis,
}

/// The branches of a schema that are not "null"; the schema itself when it has no branches.
fn branches(schema: &Value) -> Vec<&Value> {
    for word in ["anyOf", "oneOf"] {
        if let Some(list) = schema.get(word).and_then(Value::as_array) {
            return list
                .iter()
                .filter(|s| s.get("type") != Some(&json!("null")))
                .flat_map(|s| branches(s))
                .collect();
        }
    }
    vec![schema]
}

fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// A word of the schema itself, or of its only branch.
pub fn word<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    schema
        .get(name)
        .or_else(|| match branches(schema).as_slice() {
            [only] => only.get(name),
            _ => None,
        })
}

impl Shape {
    /// The shape that a schema describes.
    pub fn of(schema: &Value) -> Shape {
        let cli_key = |s: &Value| {
            let marked = word(s, "x-cli")?.get("key")?.as_str()?;
            Some(marked.to_owned())
        };
        let branches = branches(schema);
        let words = enumerated(&branches);
        if !words.is_empty() {
            return Shape::One(Scalar {
                kind: ScalarKind::Text,
                words,
                refers: None,
            });
        }
        let objects: Vec<&Value> = branches
            .iter()
            .copied()
            .filter(|s| s.get("properties").is_some() || s.get("additionalProperties").is_some())
            .collect();
        if objects.len() == branches.len() || (!objects.is_empty() && branches.len() > 1) {
            return object(&objects, cli_key(schema));
        }
        let [one] = branches.as_slice() else {
            return Shape::Any;
        };
        let types = types(one);
        if types.contains(&"array") {
            let Some(items) = one.get("items") else {
                return Shape::Any;
            };
            let mut item = Shape::of(items);
            if let (Shape::Fields { key, .. }, Some(marked)) = (&mut item, cli_key(schema)) {
                *key = Some(marked);
            }
            return Shape::Many(Box::new(item));
        }
        if types.contains(&"boolean") {
            return Shape::Switch;
        }
        let unit = word(schema, model::schema::UNIT).and_then(Value::as_str);
        let kind = match unit {
            Some("bytes") => ScalarKind::Bytes,
            Some("seconds") => ScalarKind::Seconds,
            Some("millis") => ScalarKind::Millis,
            _ if types.contains(&"integer") => ScalarKind::Integer,
            _ if types.contains(&"number") => ScalarKind::Number,
            _ if types.contains(&"string") => ScalarKind::Text,
            _ => return Shape::Any,
        };
        let refers = word(schema, model::schema::REF)
            .and_then(Value::as_str)
            .map(str::to_owned);
        Shape::One(Scalar {
            kind,
            words: Vec::new(),
            refers,
        })
    }

    /// The placeholder in the help: `SIZE`, `KEY=VALUE,...`.
    pub fn placeholder(&self) -> String {
        match self {
            Shape::Switch => "true|false".into(),
            Shape::One(s) => match (&s.refers, s.kind) {
                (Some(kind), _) => kind.to_uppercase(),
                (None, _) if !s.words.is_empty() => s
                    .words
                    .iter()
                    .map(|(w, _)| w.as_str())
                    .collect::<Vec<_>>()
                    .join("|"),
                (None, ScalarKind::Text) => "TEXT".into(),
                (None, ScalarKind::Integer | ScalarKind::Number) => "N".into(),
                (None, ScalarKind::Bytes) => "SIZE".into(),
                (None, ScalarKind::Seconds) => "DURATION".into(),
                (None, ScalarKind::Millis) => "SHARE".into(),
            },
            Shape::Many(item) => item.placeholder(),
            Shape::Map(_) => "KEY=VALUE,...".into(),
            Shape::Fields { key: Some(key), .. } => {
                format!("{}|KEY=VALUE,...", key.to_uppercase())
            }
            Shape::Fields { .. } => "KEY=VALUE,...".into(),
            Shape::Any => "YAML".into(),
        }
    }

    /// Reads a text. The error says what was expected.
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        match self {
            Shape::Switch => match text {
                "true" | "yes" | "on" => Ok(json!(true)),
                "false" | "no" | "off" => Ok(json!(false)),
                _ => Err(format!("`{text}` is neither true nor false")),
            },
            Shape::One(scalar) => scalar.parse(text),
            Shape::Many(item) if text.starts_with('[') => match flow(text)? {
                Value::Array(list) => list
                    .into_iter()
                    .map(|v| item.adopt(v))
                    .collect::<Result<_, _>>()
                    .map(Value::Array),
                _ => Err(format!("`{text}` is not a list")),
            },
            Shape::Many(item) => Ok(json!([item.parse(text)?])),
            Shape::Map(_) | Shape::Fields { .. } if text.starts_with('{') => {
                self.adopt(flow(text)?)
            }
            Shape::Map(value) => {
                let mut map = Map::new();
                for (key, text) in pairs(text)? {
                    let text = text.ok_or_else(|| format!("`{key}` must be KEY=VALUE"))?;
                    map.insert(key, value.parse(&text)?);
                }
                Ok(Value::Object(map))
            }
            Shape::Fields { fields, key } => parse_fields(fields, key.as_deref(), text),
            Shape::Any => serde_yaml_ng::from_str(text).map_err(|e| format!("`{text}`: {e}")),
        }
    }

    /// Takes a value that was already structured: texts in it are read as on the command line, the rest is kept for the server to
    /// judge.
    fn adopt(&self, value: Value) -> Result<Value, String> {
        match (self, value) {
            (Shape::One(_) | Shape::Switch, Value::String(text)) => self.parse(&text),
            (Shape::Many(item), Value::Array(list)) => list
                .into_iter()
                .map(|v| item.adopt(v))
                .collect::<Result<_, _>>()
                .map(Value::Array),
            (Shape::Fields { fields, .. }, Value::Object(map)) => map
                .into_iter()
                .map(|(name, v)| match fields.iter().find(|(n, _)| *n == name) {
                    Some((_, shape)) => Ok((name, shape.adopt(v)?)),
                    None => Ok((name, v)),
                })
                .collect::<Result<Map<_, _>, String>>()
                .map(Value::Object),
            (_, value) => Ok(value),
        }
    }
}

/// The words of a schema whose branches are all constants.
fn enumerated(branches: &[&Value]) -> Vec<(String, String)> {
    let mut words = Vec::new();
    for branch in branches {
        let doc = branch
            .get("description")
            .and_then(Value::as_str)
            .unwrap_or("");
        if let Some(one) = branch.get("const").and_then(Value::as_str) {
            words.push((one.to_owned(), doc.to_owned()));
        } else if let Some(many) = branch.get("enum").and_then(Value::as_array) {
            let texts = many.iter().filter_map(Value::as_str);
            words.extend(texts.map(|w| (w.to_owned(), String::new())));
        } else {
            return Vec::new();
        }
    }
    words
}

fn object(branches: &[&Value], marked: Option<String>) -> Shape {
    let mut fields: Vec<(String, Shape)> = Vec::new();
    let mut key = marked;
    for branch in branches {
        let properties = branch.get("properties").and_then(Value::as_object);
        for (name, schema) in properties.into_iter().flatten() {
            let shape = Shape::of(schema);
            let flagged = word(schema, "x-flag").is_some();
            if key.is_none() && flagged {
                key = Some(name.clone());
            }
            match fields.iter_mut().find(|(n, _)| n == name) {
                Some((_, known)) => join(known, shape),
                None => fields.push((name.clone(), shape)),
            }
        }
    }
    if fields.is_empty() {
        let values = branches
            .iter()
            .find_map(|b| b.get("additionalProperties").filter(|s| s.is_object()));
        return match values {
            Some(schema) => Shape::Map(Box::new(Shape::of(schema))),
            None => Shape::Any,
        };
    }
    if key.is_none() && branches.len() == 1 {
        key = branches[0]
            .get("required")
            .and_then(|r| r.get(0))
            .and_then(Value::as_str)
            .map(str::to_owned);
    }
    Shape::Fields { fields, key }
}

/// Two branches may have the same field with other words (a tag): both are allowed.
fn join(known: &mut Shape, other: Shape) {
    match (known, other) {
        (Shape::One(a), Shape::One(b)) if !a.words.is_empty() => a.words.extend(b.words),
        (known, other) if *known != other => *known = Shape::Any,
        _ => {}
    }
}

fn parse_fields(
    fields: &[(String, Shape)],
    key: Option<&str>,
    text: &str,
) -> Result<Value, String> {
    let names = || {
        let names: Vec<&str> = fields.iter().map(|(n, _)| n.as_str()).collect();
        names.join(", ")
    };
    let mut out = Map::new();
    for (place, (name, value)) in pairs(text)?.into_iter().enumerate() {
        let (name, value) = match (value, key) {
            (Some(value), _) => (name, value),
            (None, Some(key)) if place == 0 => (key.to_owned(), name),
            (None, _) => {
                // A switch among the fields may stand alone: `size=8GiB,read_only`.
                let switch = fields
                    .iter()
                    .any(|(n, s)| *n == name.replace('-', "_") && *s == Shape::Switch);
                if !switch {
                    return Err(format!("`{name}` must be KEY=VALUE; keys: {}", names()));
                }
                (name, "true".to_owned())
            }
        };
        set_field(fields, &mut out, &name, &value).map_err(|why| match why {
            Wrong::Unknown => {
                let known = fields.iter().map(|(n, _)| n.as_str());
                match model::nearest(&name, known) {
                    Some(near) => format!("unknown key `{name}`; did you mean `{near}`?"),
                    None => format!("unknown key `{name}`; keys: {}", names()),
                }
            }
            Wrong::Value(text) => format!("{name}: {text}"),
        })?;
    }
    Ok(Value::Object(out))
}

enum Wrong {
    Unknown,
    Value(String),
}

fn set_field(
    fields: &[(String, Shape)],
    out: &mut Map<String, Value>,
    name: &str,
    text: &str,
) -> Result<(), Wrong> {
    let (head, rest) = match name.split_once('.') {
        Some((head, rest)) => (head, Some(rest)),
        None => (name, None),
    };
    let head = head.replace('-', "_");
    let (_, shape) = fields
        .iter()
        .find(|(n, _)| *n == head)
        .ok_or(Wrong::Unknown)?;
    match (rest, shape) {
        (Some(rest), Shape::Fields { fields, .. }) => {
            let inner = out.entry(head).or_insert_with(|| json!({}));
            match inner {
                Value::Object(inner) => set_field(fields, inner, rest, text),
                _ => Err(Wrong::Value("is set as a whole already".into())),
            }
        }
        (Some(rest), Shape::Map(value)) => {
            let value = value.parse(text).map_err(Wrong::Value)?;
            if let Value::Object(inner) = out.entry(head).or_insert_with(|| json!({})) {
                inner.insert(rest.to_owned(), value);
            }
            Ok(())
        }
        (Some(_), _) => Err(Wrong::Unknown),
        (None, Shape::Many(_)) => {
            let mut more = shape.parse(text).map_err(Wrong::Value)?;
            match (out.get_mut(&head), &mut more) {
                (Some(Value::Array(list)), Value::Array(more)) => list.append(more),
                _ => _ = out.insert(head, more),
            }
            Ok(())
        }
        (None, shape) => {
            out.insert(head, shape.parse(text).map_err(Wrong::Value)?);
            Ok(())
        }
    }
}

fn flow(text: &str) -> Result<Value, String> {
    serde_yaml_ng::from_str(text).map_err(|e| format!("`{text}` cannot be read: {e}"))
}

/// Splits `a=1,b="x,y",c=[1,2]` at the commas outside quotes and brackets.
fn pairs(text: &str) -> Result<Vec<(String, Option<String>)>, String> {
    let mut parts = vec![String::new()];
    let (mut quote, mut depth) = (None, 0usize);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let here = parts.len() - 1;
        match (quote, c) {
            (_, '\\') => parts[here].extend(chars.next()),
            (Some(q), c) if c == q => quote = None,
            (None, '"' | '\'') if depth == 0 => quote = Some(c),
            (None, '[' | '{') => {
                depth += 1;
                parts[here].push(c);
            }
            (None, ']' | '}') => {
                depth = depth.saturating_sub(1);
                parts[here].push(c);
            }
            (None, ',') if depth == 0 => parts.push(String::new()),
            _ => parts[here].push(c),
        }
    }
    if quote.is_some() {
        return Err(format!("`{text}` has a quote that is not closed"));
    }
    Ok(parts
        .into_iter()
        .filter(|p| !p.is_empty())
        .map(|p| match p.split_once('=') {
            Some((k, v)) => (k.to_owned(), Some(v.to_owned())),
            None => (p, None),
        })
        .collect())
}

impl Scalar {
    fn parse(&self, text: &str) -> Result<Value, String> {
        if !self.words.is_empty() {
            let known: Vec<&str> = self.words.iter().map(|(w, _)| w.as_str()).collect();
            if known.contains(&text) {
                return Ok(json!(text));
            }
            return Err(match model::nearest(text, known.iter().copied()) {
                Some(near) => format!(
                    "`{text}` is not one of {}; did you mean `{near}`?",
                    known.join(", ")
                ),
                None => format!("`{text}` is not one of {}", known.join(", ")),
            });
        }
        match self.kind {
            ScalarKind::Text => Ok(json!(text)),
            ScalarKind::Integer => match (text.parse::<i64>(), text.parse::<u64>()) {
                (Ok(n), _) => Ok(json!(n)),
                (_, Ok(n)) => Ok(json!(n)),
                _ => Err(format!("`{text}` is not a whole number")),
            },
            ScalarKind::Number => match text.parse::<f64>() {
                Ok(n) if n.is_finite() => Ok(json!(n)),
                _ => Err(format!("`{text}` is not a number")),
            },
            ScalarKind::Bytes => text.parse::<model::Bytes>().map(|b| json!(b.0)),
            ScalarKind::Seconds => text.parse::<model::Seconds>().map(|s| json!(s.0)),
            ScalarKind::Millis => text.parse::<model::Millis>().map(|m| json!(m.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn disk() -> Value {
        json!({ "type": "array", "x-cli": { "flag": "disk", "key": "size" }, "items": { "type": "object",
            "properties": {
                "size": { "type": ["integer", "string"], "x-unit": "bytes" },
                "image": { "type": ["string", "null"], "x-ref": "image" },
                "bus": { "oneOf": [{ "const": "virtio" }, { "const": "scsi" }] },
                "read_only": { "type": "boolean" },
                "tags": { "type": "array", "items": { "type": "string" } },
                "limit": { "anyOf": [{ "type": "object", "properties": { "iops": { "type": "integer" } } }, { "type": "null" }] },
            }, "required": ["image"] } })
    }

    fn check(schema: &Value, text: &str, expected: Expect) {
        expected.assert_eq(&match Shape::of(schema).parse(text) {
            Ok(value) => value.to_string(),
            Err(e) => format!("error: {e}"),
        });
    }

    #[test]
    fn objects() {
        check(&disk(), "8GiB", expect![[r#"[{"size":8589934592}]"#]]);
        check(
            &disk(),
            "size=1.5GiB,image=debian-12,bus=scsi,read-only",
            expect![[r#"[{"size":1610612736,"image":"debian-12","bus":"scsi","read_only":true}]"#]],
        );
        check(
            &disk(),
            "8GiB,tags=a,tags=\"b,c\",limit.iops=10",
            expect![[r#"[{"size":8589934592,"tags":["a","b,c"],"limit":{"iops":10}}]"#]],
        );
        check(
            &disk(),
            "[{size: 1GiB}, {size: 5, image: x}]",
            expect![[r#"[{"size":1073741824},{"size":5,"image":"x"}]"#]],
        );
        check(
            &disk(),
            "size=8Gib",
            expect![
                "error: size: `8Gib` is not a size: a number with B, KiB, MiB, GiB, TiB, PiB (or kB, MB, ... in powers of 1000), for example `1GiB`"
            ],
        );
        check(
            &disk(),
            "1GiB,imgae=x",
            expect!["error: unknown key `imgae`; did you mean `image`?"],
        );
        check(
            &disk(),
            "bus=virto",
            expect!["error: bus: `virto` is not one of virtio, scsi; did you mean `virtio`?"],
        );
        check(
            &disk(),
            "1GiB,x",
            expect!["error: `x` must be KEY=VALUE; keys: size, image, bus, read_only, tags, limit"],
        );
    }

    #[test]
    fn singles() {
        check(
            &json!({ "type": "integer" }),
            "18446744073709551615",
            expect!["18446744073709551615"],
        );
        check(
            &json!({ "type": "integer" }),
            "2x",
            expect!["error: `2x` is not a whole number"],
        );
        check(
            &json!({ "type": ["integer", "string", "null"], "x-unit": "seconds" }),
            "3m",
            expect!["180"],
        );
        check(
            &json!({ "type": "boolean" }),
            "maybe",
            expect!["error: `maybe` is neither true nor false"],
        );
        check(
            &json!({ "type": "object", "additionalProperties": { "type": "integer" } }),
            "a=1,b=2",
            expect![[r#"{"a":1,"b":2}"#]],
        );
        check(
            &json!({ "anyOf": [{ "enum": ["on", "off"] }, { "type": "null" }] }),
            "of",
            expect!["error: `of` is not one of on, off; did you mean `off`?"],
        );
        check(&json!(true), "{a: [1]}", expect![[r#"{"a":[1]}"#]]);
    }

    #[test]
    fn tagged_union() {
        let schema = json!({ "oneOf": [
            { "type": "object", "properties": { "type": { "const": "url" }, "url": { "type": "string" } }, "required": ["type", "url"] },
            { "type": "object", "properties": { "type": { "const": "file" }, "path": { "type": "string" } }, "required": ["type", "path"] },
        ] });
        check(
            &schema,
            "type=file,path=/a",
            expect![[r#"{"type":"file","path":"/a"}"#]],
        );
    }
}

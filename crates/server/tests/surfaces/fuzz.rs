//! Every operation of the OpenAPI description is asked with good, bad and absurd input, over all kinds: the answer is
//! always one that the description names, never our own failure, and whoever gets a field wrong is told which.

use crate::everything;
use crate::house::{House, limits};
use reqwest::Method;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Times that each operation is asked. The whole takes some seconds.
const ROUNDS: u32 = 24;
/// Where the dice begin; another number tries other inputs.
const SEED: u64 = 0x0deb_0150_4e2b;

/// A small generator (xorshift64*): the same seed asks the same things.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    /// True once in `n` times.
    fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

const TEXTS: &[&str] = &[
    "",
    "a",
    "default",
    "x1",
    "-",
    "..",
    "\u{0}",
    "ä☃",
    "true",
    "1GiB",
    "-1",
    "9999999999999999999999",
    "null",
    "2026-01-01T00:00:00Z",
    "a b",
    "$sealed:x",
    "'; drop table",
    "{{7*7}}",
    "%s%n",
    "10.0.0.0/8",
    "fe80::1",
    "a.b.c",
];

fn absurd(dice: &mut Dice) -> Value {
    match dice.below(9) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(-1),
        3 => json!(u64::MAX),
        4 => json!(1.5e300),
        5 => json!("x".repeat(5000)),
        6 => json!([[], {}, [null]]),
        7 => json!({ "": { "a": [] } }),
        _ => json!(*dice.pick(TEXTS)),
    }
}

/// A value as a schema wants it; in `wild` places as it does not.
fn value(schema: &Value, wild: usize, depth: usize, dice: &mut Dice) -> Value {
    if depth > 8 || (wild > 0 && dice.once_in(wild)) {
        return absurd(dice);
    }
    if let Some(fixed) = schema.get("const") {
        return fixed.clone();
    }
    if let Some(Value::Array(list)) = schema.get("enum") {
        return dice.pick(list).clone();
    }
    for word in ["anyOf", "oneOf"] {
        if let Some(Value::Array(list)) = schema.get(word) {
            let branch = dice.pick(list).clone();
            return value(&branch, wild, depth + 1, dice);
        }
    }
    let kind = match schema.get("type") {
        Some(Value::String(one)) => one.clone(),
        Some(Value::Array(list)) => dice.pick(list).as_str().unwrap_or("null").to_owned(),
        _ if schema.get("properties").is_some() => "object".into(),
        _ => return absurd(dice),
    };
    let number = |name: &str| schema.get(name).and_then(Value::as_i64);
    match kind.as_str() {
        "null" => Value::Null,
        "boolean" => json!(dice.once_in(2)),
        "integer" | "number" => {
            let low = number("minimum").unwrap_or(0);
            let high = number("maximum").unwrap_or(low.saturating_add(100));
            match dice.below(6) {
                0 => json!(low),
                1 => json!(high),
                2 if wild > 0 => json!(low.saturating_sub(1)),
                3 if wild > 0 => json!(high.saturating_add(1)),
                _ => json!(low + dice.below((high - low).clamp(1, 1 << 40) as usize) as i64),
            }
        }
        "string" => json!(*dice.pick(TEXTS)),
        "array" => {
            let items = schema.get("items").cloned().unwrap_or(json!(true));
            let length = dice.below(3);
            (0..length)
                .map(|_| value(&items, wild, depth + 1, dice))
                .collect()
        }
        _ => {
            let mut out = Map::new();
            let required = |name: &String| {
                schema
                    .get("required")
                    .and_then(Value::as_array)
                    .is_some_and(|r| r.iter().any(|n| n == name))
            };
            for (name, part) in schema
                .get("properties")
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
            {
                let leave = match required(name) {
                    true => wild > 0 && dice.once_in(wild),
                    false => dice.once_in(2),
                };
                if !leave {
                    out.insert(name.clone(), value(part, wild, depth + 1, dice));
                }
            }
            if wild > 0 && dice.once_in(wild) {
                out.insert("no_such_field".into(), absurd(dice));
            }
            out.into()
        }
    }
}

/// Follows references, so that a schema says everything in place.
fn resolved(doc: &Value, schema: &Value, depth: usize) -> Value {
    if depth > 12 {
        return json!(true);
    }
    match schema {
        Value::Object(map) => match map.get("$ref").and_then(Value::as_str) {
            Some(to) => {
                let to = doc
                    .pointer(to.trim_start_matches('#'))
                    .cloned()
                    .unwrap_or(json!(true));
                resolved(doc, &to, depth + 1)
            }
            None => map
                .iter()
                .map(|(k, v)| (k.clone(), resolved(doc, v, depth + 1)))
                .collect::<Map<_, _>>()
                .into(),
        },
        Value::Array(list) => list.iter().map(|v| resolved(doc, v, depth + 1)).collect(),
        other => other.clone(),
    }
}

/// A part of a path or query, percent-encoded.
fn encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes()
        .map(|b| {
            if plain(b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

struct Operation {
    method: Method,
    path: String,
    parameters: Vec<Value>,
    /// Media type and schema of the body.
    body: Option<(String, Value)>,
    responses: Map<String, Value>,
}

fn operations(doc: &Value) -> Vec<Operation> {
    let mut out = Vec::new();
    for (path, item) in doc["paths"].as_object().unwrap() {
        let shared = item["parameters"].as_array().cloned().unwrap_or_default();
        for (method, operation) in item.as_object().unwrap() {
            let Some(responses) = operation["responses"].as_object() else {
                continue;
            };
            let mut parameters = shared.clone();
            parameters.extend(
                operation["parameters"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default(),
            );
            let body = operation["requestBody"]["content"]
                .as_object()
                .and_then(|content| {
                    let (kind, media) = content.iter().next()?;
                    Some((kind.clone(), resolved(doc, &media["schema"], 0)))
                });
            out.push(Operation {
                method: Method::from_bytes(method.to_ascii_uppercase().as_bytes()).unwrap(),
                path: path.clone(),
                parameters: parameters.iter().map(|p| resolved(doc, p, 0)).collect(),
                body,
                responses: responses.clone(),
            });
        }
    }
    out
}

/// The address of one request.
fn address(operation: &Operation, wild: usize, dice: &mut Dice) -> (String, Vec<(String, String)>) {
    let mut path = operation.path.clone();
    let (mut query, mut headers) = (Vec::new(), Vec::new());
    for parameter in &operation.parameters {
        let name = parameter["name"].as_str().unwrap();
        let asked = parameter["required"] == true || dice.once_in(3);
        let text = match (parameter["in"].as_str(), name) {
            (Some("path"), "project") if !dice.once_in(8) => "default".into(),
            (Some("path"), "name") if !dice.once_in(8) => {
                (*dice.pick(&["f1", "f2", "default"])).to_owned()
            }
            (Some("path"), "kind") if !dice.once_in(8) => {
                (*dice.pick(&["vm", "lamp", "task", "project"])).to_owned()
            }
            (Some("query"), "kind") if !dice.once_in(4) => "lamp,vm".into(),
            // These would be slow and tell nothing: a follower is never done.
            (Some("query"), "follow") => "false".into(),
            // It waits for what an agent lets go of, and there is none.
            (Some("query"), "force") => "false".into(),
            _ => match value(&parameter["schema"], wild, 0, dice) {
                Value::String(text) => text,
                other => other.to_string(),
            },
        };
        match parameter["in"].as_str() {
            // An empty part would be another path.
            Some("path") => {
                let text = if text.is_empty() {
                    "%20".into()
                } else {
                    encoded(&text)
                };
                path = path.replace(&format!("{{{name}}}"), &text);
            }
            Some("query") if asked => query.push(format!("{name}={}", encoded(&text))),
            Some("header") if asked && text.bytes().all(|b| (32..127).contains(&b)) => {
                headers.push((name.to_owned(), text));
            }
            _ => {}
        }
    }
    if wild > 0 && dice.once_in(12) {
        query.push("no_such_parameter=1".into());
    }
    match query.is_empty() {
        true => (path, headers),
        false => (format!("{path}?{}", query.join("&")), headers),
    }
}

#[tokio::test]
async fn every_operation_answers_as_it_is_described() {
    let house = House::of(everything(), limits()).await;
    let (_, doc) = house.get("/api/openapi.json").await;
    let all = operations(&doc);
    assert!(all.len() > 80, "{} operations", all.len());
    let mut dice = Dice(SEED);
    let mut counted: BTreeMap<u16, usize> = BTreeMap::new();
    let mut unmet: Vec<String> = Vec::new();
    for round in 0..ROUNDS {
        // A third of the rounds as described, the others ever wilder.
        let wild = *dice.pick(&[0, 0, 20, 8, 3]);
        for operation in &all {
            let (path, headers) = address(operation, wild, &mut dice);
            let mut asked = house.ask(operation.method.clone(), &path);
            for (name, value) in headers {
                asked = asked.header(name, value);
            }
            let mut shown = String::new();
            if let Some((kind, schema)) = &operation.body {
                let mut body = value(schema, wild, 0, &mut dice);
                // Most bodies get a name with which they can be stored.
                if let Some(meta) = body.get_mut("metadata").and_then(Value::as_object_mut)
                    && !dice.once_in(4)
                {
                    meta.clear();
                    meta.insert("name".into(), json!(*dice.pick(&["f1", "f2"])));
                }
                let text = match dice.once_in(40) {
                    true => "{\"broken\": ".to_owned(),
                    false => body.to_string(),
                };
                shown = text.chars().take(600).collect();
                let kind = if dice.once_in(40) { "text/plain" } else { kind };
                asked = asked.header("content-type", kind).body(text);
            }
            let what = || {
                format!(
                    "round {round} of seed {SEED:#x}: {} {path} {shown}",
                    operation.method
                )
            };
            // A task that no agent ends holds up who forces it away for half a minute.
            let response = asked
                .timeout(std::time::Duration::from_secs(60))
                .send()
                .await
                .unwrap_or_else(|e| panic!("{}: {e:?}", what()));
            let status = response.status().as_u16();
            *counted.entry(status).or_default() += 1;
            if status >= 500 && status != 503 {
                unmet.push(format!("{status} {}", what()));
                continue;
            }
            let described = operation.responses.contains_key(&status.to_string());
            if !described {
                unmet.push(format!("{status} is not described: {}", what()));
                continue;
            }
            if status < 400 {
                continue;
            }
            let problem: Value = response
                .json()
                .await
                .unwrap_or_else(|e| panic!("{}: {e:?}", what()));
            let has = |field: &str| problem[field].as_str().is_some_and(|text| !text.is_empty());
            if !(has("code") && has("detail") && has("request_id") && problem["status"] == status) {
                unmet.push(format!("{problem}: {}", what()));
            }
            if status == 422 {
                let wrong = problem["violations"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default();
                let told = |v: &Value| {
                    v["field"].as_str().is_some_and(|f| !f.is_empty())
                        && v["message"].as_str().is_some_and(|m| !m.is_empty())
                };
                if wrong.is_empty() || !wrong.iter().all(told) {
                    unmet.push(format!("no field is named: {problem} {}", what()));
                }
            }
        }
    }
    let few: Vec<&String> = unmet.iter().take(12).collect();
    assert!(
        unmet.is_empty(),
        "{} answers are not as described: {few:#?}",
        unmet.len()
    );
    // The input was neither all nonsense nor all good.
    for status in [200, 201, 404, 422] {
        assert!(counted.get(&status).is_some_and(|n| *n > 10), "{counted:?}");
    }
    let (status, _) = house.get("/api/v1/whoami").await;
    assert_eq!(status, 200, "and the server lives");
}

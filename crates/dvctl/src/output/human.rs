//! Values as people read them: sizes, ages, percentages. Only in tables.

use model::Timestamp;
use serde_json::Value;

/// The time now. Ages are the only use of it here.
#[allow(
    clippy::disallowed_methods,
    reason = "the age in a table is of the moment it is printed; nothing decides on it"
)]
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp::from_millis(since.map_or(0, |d| d.as_millis() as i64))
}

/// How long ago: `5s`, `3m`, `4h`, `12d`.
pub fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.since(then).as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A value in a cell, in the column's unit.
pub fn shown(value: Option<&Value>, unit: &str, now: Timestamp) -> String {
    let Some(value) = value else {
        return String::new();
    };
    match (unit, value) {
        (_, Value::Null) => String::new(),
        ("bytes", Value::Number(n)) => match n.as_u64() {
            Some(n) => model::Bytes(n).to_string(),
            None => n.to_string(),
        },
        ("seconds", Value::Number(n)) => match n.as_u64() {
            Some(n) => model::Seconds(n).to_string(),
            None => n.to_string(),
        },
        ("age", Value::String(text)) => match Timestamp::parse(text) {
            Some(then) => age(then, now),
            None => tidy(text),
        },
        ("percent", Value::Number(n)) => format!("{n}%"),
        ("count", Value::Array(list)) => list.len().to_string(),
        ("count", Value::Object(map)) => map.len().to_string(),
        (_, Value::String(text)) => tidy(text),
        (_, Value::Bool(yes)) => if *yes { "yes" } else { "no" }.into(),
        (_, Value::Array(list)) => {
            let parts: Vec<String> = list.iter().map(|v| shown(Some(v), unit, now)).collect();
            parts.join(",")
        }
        (_, Value::Object(map)) => {
            // A reference reads as its name, anything else as its fields.
            if let (Some(Value::String(kind)), Some(Value::String(name))) =
                (map.get("kind"), map.get("name"))
            {
                return format!("{}/{}", tidy(kind), tidy(name));
            }
            let parts: Vec<String> = map
                .iter()
                .map(|(k, v)| format!("{k}={}", shown(Some(v), "", now)))
                .collect();
            parts.join(",")
        }
        (_, other) => other.to_string(),
    }
}

/// Text from elsewhere on one line, without control characters: a guest's name cannot paint the terminal.
pub fn tidy(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => ' ',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells() {
        let now = Timestamp::parse("2026-01-02T00:00:00Z").unwrap();
        let check = |value: Value, unit: &str, text: &str| {
            assert_eq!(shown(Some(&value), unit, now), text);
        };
        check(json!(1u64 << 30), "bytes", "1GiB");
        check(json!("2026-01-01T23:59:01Z"), "age", "59s");
        check(json!("2026-01-01T21:00:00Z"), "age", "3h");
        check(json!([1, 2]), "count", "2");
        check(json!("a\x1b[31m\nb"), "text", "a\u{fffd}[31m b");
        check(
            json!({ "kind": "vm", "project": "default", "name": "web1" }),
            "text",
            "vm/web1",
        );
        check(json!(40), "percent", "40%");
        assert_eq!(shown(None, "text", now), "");
    }
}

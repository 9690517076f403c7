//! `set`: a merge patch from flags and paths.

use super::follow::{self, Patience};
use super::{given, present, target, text, texts};
use crate::connect::Request;
use crate::failure::{Failure, Result};
use crate::grammar::{Shape, Step, flags_of, parse_path, put};
use crate::registry::KindDef;
use crate::session::Session;
use clap::ArgMatches;
use serde_json::{Map, Value, json};

/// Changes an object.
pub async fn run(s: &Session, kind: &KindDef, m: &ArgMatches) -> Result<()> {
    let target = target(s, kind, m).await?;
    let indexed = ["set", "set-file", "unset"]
        .iter()
        .flat_map(|id| texts(m, id))
        .any(|t| t.split('=').next().unwrap_or("").contains('['));
    let mut patch = json!({});
    let mut revision = None;
    let mut spec = json!({});
    if indexed {
        // A merge patch cannot name an element: the list is read, changed and sent whole, at the revision it was read.
        let object = s.client.json(&target.path()).await?;
        revision = super::watch::revision(&object).map(str::to_owned);
        let old = object.get("spec").cloned().unwrap_or_default();
        let mut new = old.clone();
        fields(kind, m, &mut new, false)?;
        spec = difference(&old, &new);
    } else {
        fields(kind, m, &mut spec, false)?;
    }
    let meta = metadata(m)?;
    if let Value::Object(patch) = &mut patch {
        for (name, part) in [("metadata", meta), ("spec", spec)] {
            if part.as_object().is_some_and(|p| !p.is_empty()) {
                patch.insert(name.into(), part);
            }
        }
        if patch.is_empty() {
            return Err(Failure::usage("nothing to change")
                .hint(format!("`dvctl {} set --help` lists the fields", kind.name)));
        }
    }
    let dry = given(m, "dry-run");
    let query = if dry { "?dry_run=true" } else { "" };
    let request = Request::change(http::Method::PATCH, format!("{}{query}", target.path()))
        .merge_patch(&patch)
        .if_match(revision.as_deref());
    let answer = s.client.send(request).await?;
    if dry {
        return present::object(s, &answer, &format!("{} would be changed", target.short()));
    }
    follow::settled(s, &target, &answer.json()?, Patience::of(m)).await?;
    present::object(s, &answer, &format!("{} changed", target.short()))
}

/// Puts flags, `--set`, `--set-file` and `--unset` into a spec.
pub fn fields(kind: &KindDef, m: &ArgMatches, spec: &mut Value, create: bool) -> Result<()> {
    for flag in flags_of(&kind.spec, "spec") {
        flag.take(m, spec)?;
    }
    for (id, from_file) in [("set", false), ("set-file", true)] {
        for text in texts(m, id) {
            let (path, value) = text
                .split_once('=')
                .ok_or_else(|| Failure::usage(format!("--{id} {text}: write PATH=VALUE")))?;
            let path = path.strip_prefix("spec.").unwrap_or(path);
            let schema = known_field(kind, path)?;
            let steps = parse_path(path)?;
            let value = if from_file {
                let text = std::fs::read_to_string(value)
                    .map_err(|e| Failure::usage(format!("--{id} {path}: reading {value}: {e}")))?;
                Value::from(text)
            } else {
                one(&schema, &steps, value)
                    .map_err(|e| Failure::usage(format!("--{id} {path}: {e}")))?
            };
            put(spec, &steps, value, false)?;
        }
    }
    for path in texts(m, "unset") {
        let path = path.strip_prefix("spec.").unwrap_or(path);
        known_field(kind, path)?;
        unset(spec, &parse_path(path)?, create)?;
    }
    Ok(())
}

/// The schema at a path of the spec; a path that leads nowhere is said with the nearest field.
fn known_field(kind: &KindDef, path: &str) -> Result<Value> {
    if kind.spec.get("properties").is_none() {
        return Ok(Value::Null);
    }
    let mut here = &kind.spec;
    for part in path.split('.') {
        let name = part.split('[').next().unwrap_or(part);
        match model::schema::property(here, name) {
            Some(found) => here = found,
            None => {
                let open = here
                    .get("additionalProperties")
                    .is_some_and(|a| a != &Value::Bool(false));
                let properties = here.get("properties").and_then(Value::as_object);
                match properties {
                    Some(map) if !open => {
                        let known: Vec<&str> = map.keys().map(String::as_str).collect();
                        let failure =
                            Failure::usage(format!("{} has no field `{path}`", kind.name));
                        return Err(failure
                            .hint(format!("fields there: {}", known.join(", ")))
                            .nearest(name, &known));
                    }
                    _ => return Ok(Value::Null),
                }
            }
        }
    }
    Ok(here.clone())
}

/// A value for a path: by its schema, else YAML. A path that ends with an element takes the shape of the list's items.
fn one(schema: &Value, steps: &[Step], text: &str) -> std::result::Result<Value, String> {
    if text == "null" {
        return Ok(Value::Null);
    }
    let shape = match (Shape::of(schema), steps.last()) {
        (Shape::Many(item), Some(Step::At(_))) => *item,
        (shape, _) => shape,
    };
    shape.parse(text)
}

/// Takes a field away: in a patch by null, in a whole spec by removal.
fn unset(spec: &mut Value, path: &[Step], whole: bool) -> Result<()> {
    match path {
        [Step::Key(key)] if whole => {
            if let Value::Object(map) = spec {
                map.remove(key);
            }
            Ok(())
        }
        [Step::At(at)] => match spec {
            Value::Array(list) if *at < list.len() => {
                list.remove(*at);
                Ok(())
            }
            _ => Err(Failure::usage(format!(
                "--unset: there is no element [{at}]"
            ))),
        },
        [Step::Key(key), rest @ ..] if !rest.is_empty() => {
            if spec.get(key).is_none() {
                put(spec, &path[..1], json!({}), false)?;
            }
            match spec.get_mut(key) {
                Some(inner) => unset(inner, rest, whole),
                None => Ok(()),
            }
        }
        [Step::At(at), rest @ ..] => match spec.get_mut(*at) {
            Some(inner) => unset(inner, rest, true),
            None => Err(Failure::usage(format!(
                "--unset: there is no element [{at}]"
            ))),
        },
        _ => put(spec, path, Value::Null, false),
    }
}

/// The merge patch (RFC 7396) that makes `new` of `old`.
fn difference(old: &Value, new: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return new.clone();
    };
    let mut patch = Map::new();
    for (key, value) in new {
        match old.get(key) {
            Some(before) if before == value => {}
            Some(before) if before.is_object() && value.is_object() => {
                patch.insert(key.clone(), difference(before, value));
            }
            _ => _ = patch.insert(key.clone(), value.clone()),
        }
    }
    for key in old.keys().filter(|k| !new.contains_key(*k)) {
        patch.insert(key.clone(), Value::Null);
    }
    Value::Object(patch)
}

/// Labels, display name and protection from the command line.
pub fn metadata(m: &ArgMatches) -> Result<Value> {
    let mut meta = Map::new();
    let mut labels = Map::new();
    for label in texts(m, "label") {
        match (label.split_once('='), label.strip_suffix('-')) {
            (Some((key, value)), _) => labels.insert(key.into(), json!(value)),
            (None, Some(key)) => labels.insert(key.into(), Value::Null),
            (None, None) => {
                return Err(Failure::usage(format!(
                    "--label {label}: write KEY=VALUE, or KEY- to take it off"
                )));
            }
        };
    }
    if !labels.is_empty() {
        meta.insert("labels".into(), Value::Object(labels));
    }
    if let Some(name) = text(m, "display-name") {
        meta.insert("display_name".into(), json!(name));
    }
    if let Some(word) = text(m, "protection") {
        let on = Shape::Switch
            .parse(word)
            .map_err(|e| Failure::usage(format!("--protection: {e}")))?;
        meta.insert("protection".into(), on);
    }
    Ok(Value::Object(meta))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::at;

    #[test]
    fn patches() {
        let old = json!({ "a": 1, "b": { "c": 1, "d": 2 }, "l": [1, 2], "gone": 1 });
        let new = json!({ "a": 1, "b": { "c": 1, "d": 3 }, "l": [1, 3] });
        assert_eq!(
            difference(&old, &new),
            json!({ "b": { "d": 3 }, "l": [1, 3], "gone": null })
        );
    }

    #[test]
    fn takes_away() {
        let mut patch = json!({});
        unset(&mut patch, &parse_path("a.b").unwrap(), false).unwrap();
        assert_eq!(patch, json!({ "a": { "b": null } }));
        let mut whole = json!({ "disks": [{ "size": 1 }, { "size": 2, "bus": "x" }] });
        unset(&mut whole, &parse_path("disks[1].bus").unwrap(), false).unwrap();
        unset(&mut whole, &parse_path("disks[0]").unwrap(), false).unwrap();
        assert_eq!(whole, json!({ "disks": [{ "size": 2 }] }));
        assert_eq!(at(&whole, "disks[0].size"), Some(&json!(2)));
    }
}

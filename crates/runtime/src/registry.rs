//! All declared subsystems with their compiled schemas: what every surface interprets.

use crate::{Run, Subsystem, secret};
use model::{Error, Kind, Result, Violation, nearest};
use serde_json::{Value, json};
use std::sync::Arc;

/// A subsystem with its schemas made.
pub struct Declared {
    /// The declaration.
    pub subsystem: &'static Subsystem,
    /// Schema of the spec.
    pub spec: Value,
    /// Schema of the status.
    pub status: Value,
    /// Whether any field of the spec is secret.
    pub has_secrets: bool,
    /// Whether any field of the spec is personal.
    pub has_personal: bool,
    /// Whether objects of it take of what projects have limits for.
    pub counts: bool,
    validator: jsonschema::Validator,
    inputs: Vec<(&'static str, Value, jsonschema::Validator)>,
}

impl Declared {
    /// Its kind.
    pub fn kind(&self) -> &'static Kind {
        self.subsystem.kind
    }

    /// Every way in which a spec breaks its schema, each with its field path.
    pub fn check_spec(&self, spec: &Value) -> Vec<Violation> {
        check(&self.validator, &self.spec, spec, "spec")
    }

    /// The schema of the parameters of an action.
    pub(crate) fn input(&self, verb: &str) -> Option<&Value> {
        let found = self.inputs.iter().find(|(name, _, _)| *name == verb);
        found.map(|(_, schema, _)| schema)
    }

    /// Every way in which the parameters of an action break their schema.
    pub fn check_input(&self, verb: &str, params: &Value) -> Vec<Violation> {
        match self.inputs.iter().find(|(name, _, _)| *name == verb) {
            Some((_, schema, validator)) => check(validator, schema, params, ""),
            None => Vec::new(),
        }
    }
}

impl Declared {
    /// The parameters of an action, without its secrets.
    pub(crate) fn masked_input(&self, verb: &str, params: &Value) -> Value {
        let mut params = params.clone();
        if let Some((_, schema, _)) = self.inputs.iter().find(|(name, _, _)| *name == verb) {
            secret::mask_all(schema, &mut params);
        }
        params
    }
}

impl std::ops::Deref for Declared {
    type Target = Subsystem;
    fn deref(&self) -> &Subsystem {
        self.subsystem
    }
}

/// All subsystems of this program. Cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Vec<Declared>>);

impl Registry {
    /// Compiles the schemas of all subsystems. An error is a mistake in a declaration.
    pub fn new(lists: &[&[&'static Subsystem]]) -> Result<Registry> {
        let mut all: Vec<Declared> = Vec::new();
        for subsystem in lists.iter().copied().flatten().copied() {
            let kind = subsystem.kind;
            if all
                .iter()
                .any(|d| d.kind().name == kind.name || d.kind().plural == kind.plural)
            {
                return Err(Error::internal(format!(
                    "kind `{}` is declared twice",
                    kind.name
                )));
            }
            let spec = (kind.spec)().to_value();
            let compile = |schema: &Value, what: &str| {
                jsonschema::options()
                    .should_validate_formats(true)
                    .build(schema)
                    .map_err(|e| Error::internal(format!("schema of {} {what}: {e}", kind.name)))
            };
            let mut inputs = Vec::new();
            for action in kind.actions {
                if action.verb == crate::gate::DELETE {
                    return Err(Error::internal(format!(
                        "action {}.{} has the name of a common verb",
                        kind.name, action.verb
                    )));
                }
                if subsystem.run(action.verb).is_none() {
                    return Err(Error::internal(format!(
                        "action {}.{} is declared but cannot run",
                        kind.name, action.verb
                    )));
                }
                let schema = (action.input)().to_value();
                let kept = matches!(subsystem.run(action.verb), Some(Run::Procedure(_)));
                if kept && mentions(&schema, model::schema::SECRET) {
                    return Err(Error::internal(format!(
                        "{}.{} takes a secret, and the parameters of a procedure are kept in its task: let it name a \
                         field of the spec or an object that holds the secret",
                        kind.name, action.verb
                    )));
                }
                let validator = compile(&schema, action.verb)?;
                inputs.push((action.verb, schema, validator));
            }
            for stream in kind.streams {
                if mentions(&(stream.input)().to_value(), model::schema::SECRET) {
                    return Err(Error::internal(format!(
                        "stream {}.{} takes a secret, and the parameters of a stream stand in its address",
                        kind.name, stream.name
                    )));
                }
            }
            let validator = compile(&spec, "spec")?;
            let has_secrets = mentions(&spec, model::schema::SECRET);
            let has_personal = mentions(&spec, model::schema::PERSONAL);
            let status = (kind.status)().to_value();
            let counts = [&spec, &status]
                .iter()
                .any(|schema| mentions(schema, model::schema::COUNTS));
            if counts && kind.scope != model::Scope::Project {
                return Err(Error::internal(format!(
                    "{} counts something and lies in no project: only projects have limits",
                    kind.name
                )));
            }
            all.push(Declared {
                subsystem,
                status,
                counts,
                has_secrets,
                has_personal,
                spec,
                validator,
                inputs,
            });
        }
        Ok(Registry(Arc::new(all)))
    }

    /// All of them, in declared order.
    pub fn iter(&self) -> impl Iterator<Item = &Declared> {
        self.0.iter()
    }

    /// By singular name.
    pub fn get(&self, kind: &str) -> Option<&Declared> {
        self.0.iter().find(|d| d.kind().name == kind)
    }

    /// By singular name; the error names the nearest kind.
    pub fn need(&self, kind: &str) -> Result<&Declared> {
        self.get(kind)
            .ok_or_else(|| unknown("kind", kind, self.0.iter().map(|d| d.kind().name)))
    }

    /// By plural name, as in URLs; the error names the nearest one.
    pub fn by_plural(&self, plural: &str) -> Result<&Declared> {
        self.0
            .iter()
            .find(|d| d.kind().plural == plural)
            .ok_or_else(|| unknown("kind", plural, self.0.iter().map(|d| d.kind().plural)))
    }

    /// The whole declaration as data: what `dvctl`, the panel and the docs read.
    pub fn to_json(&self) -> Value {
        let kinds: Vec<Value> = self
            .0
            .iter()
            .map(|d| {
                let k = d.kind();
                json!({
                    "name": k.name,
                    "plural": k.plural,
                    "title": k.title,
                    "scope": k.scope,
                    "doc": k.doc,
                    "verbs": k.verbs,
                    "columns": k.columns.iter().map(|c| json!({"name": c.name, "path": c.path, "wide": c.wide, "unit": c.unit})).collect::<Vec<_>>(),
                    "actions": k.actions.iter().map(|a| json!({
                        "verb": a.verb, "doc": a.doc, "danger": a.danger, "style": a.style, "claims": a.claims,
                        "deadline": a.deadline, "event": a.event, "examples": a.examples,
                        "input": (a.input)().to_value(),
                    })).collect::<Vec<_>>(),
                    "streams": k.streams.iter().map(|s| json!({
                        "name": s.name, "doc": s.doc, "way": s.way, "ticketed": s.ticketed, "input": (s.input)().to_value(),
                    })).collect::<Vec<_>>(),
                    "examples": k.examples,
                    "spec": d.spec,
                    "status": d.status,
                })
            })
            .collect();
        json!({ "version": model::VERSION, "kinds": kinds })
    }
}

fn unknown<'a>(what: &str, word: &str, known: impl Iterator<Item = &'a str>) -> Error {
    let error = Error::not_found(format!("there is no {what} `{word}`"));
    match nearest(word, known) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error,
    }
}

/// Whether a word stands anywhere in a schema.
pub(crate) fn mentions(schema: &Value, word: &str) -> bool {
    match schema {
        Value::Object(map) => map.contains_key(word) || map.values().any(|v| mentions(v, word)),
        Value::Array(list) => list.iter().any(|v| mentions(v, word)),
        _ => false,
    }
}

/// Turns the findings of the validator into violations that name field, value and remedy.
fn check(
    validator: &jsonschema::Validator,
    schema: &Value,
    value: &Value,
    root: &str,
) -> Vec<Violation> {
    use jsonschema::error::ValidationErrorKind as K;
    let mut out: Vec<Violation> = Vec::new();
    for e in validator.iter_errors(value) {
        let field = dotted(root, e.instance_path().as_str());
        match e.kind() {
            K::AdditionalProperties { unexpected } => {
                let here = value.pointer(e.instance_path().as_str());
                let part = model::schema::at(schema, &dotted("", e.instance_path().as_str()))
                    .unwrap_or(schema);
                let known: Vec<&str> = known_fields(part);
                for name in unexpected {
                    // A name without a letter must be seen all the same.
                    let shown = if name.is_empty() { "\"\"" } else { name };
                    let mut v = Violation::new(join(&field, shown), "is not a field here");
                    v.hint = Some(match nearest(name, known.iter().copied()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None if known.is_empty() => "there is none".to_owned(),
                        None => format!("fields: {}", known.join(", ")),
                    });
                    let _ = here;
                    out.push(v);
                }
            }
            K::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                out.push(Violation::new(join(&field, name), "is required"));
            }
            _ => {
                let shown = match hides(schema, e.instance_path().as_str()) {
                    true => "what is given".to_owned(),
                    false => e.instance().to_string(),
                };
                let shown: String = if shown.chars().count() > 80 {
                    shown.chars().take(77).chain("...".chars()).collect()
                } else {
                    shown
                };
                let message = e.masked_with(shown).to_string();
                out.push(Violation::new(
                    if field.is_empty() {
                        "body".into()
                    } else {
                        field
                    },
                    message,
                ));
            }
        }
    }
    out.dedup();
    out
}

/// Whether the value at a JSON pointer is a secret, lies in one, or holds one: then no error may show it.
fn hides(schema: &Value, pointer: &str) -> bool {
    let mut path = String::new();
    for part in pointer.split('/') {
        path = dotted(&path, &format!("/{part}"));
        match model::schema::at(schema, &path) {
            Some(here) if carries(here, model::schema::SECRET) => return true,
            Some(_) => {}
            // Nobody knows what stands there.
            None => return mentions(schema, model::schema::SECRET),
        }
    }
    model::schema::at(schema, &path).is_some_and(|here| mentions(here, model::schema::SECRET))
}

/// Whether a schema, or a branch of it, carries a word of ours.
fn carries(schema: &Value, word: &str) -> bool {
    model::schema::flagged(schema, word)
        || ["anyOf", "oneOf", "allOf"].iter().any(|branch| {
            schema
                .get(*branch)
                .and_then(Value::as_array)
                .is_some_and(|list| list.iter().any(|one| carries(one, word)))
        })
}

fn known_fields(schema: &Value) -> Vec<&str> {
    let mut out: Vec<&str> = Vec::new();
    if let Some(map) = schema.get("properties").and_then(Value::as_object) {
        out.extend(map.keys().map(String::as_str));
    }
    for word in ["anyOf", "oneOf", "allOf"] {
        for part in schema
            .get(word)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            out.extend(known_fields(part));
        }
    }
    if let Some(items) = schema.get("items") {
        out.extend(known_fields(items));
    }
    out
}

/// A JSON pointer as a dotted path below `root`.
fn dotted(root: &str, pointer: &str) -> String {
    let mut out = root.to_owned();
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if !part.is_empty() && part.chars().all(|c| c.is_ascii_digit()) {
            out.push_str(&format!("[{part}]"));
        } else {
            out = join(&out, &part);
        }
    }
    out
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

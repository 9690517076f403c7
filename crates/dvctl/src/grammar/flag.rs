//! Flags from a schema: one per field, so that `memory` becomes `--memory SIZE`.

use super::path::{Step, put};
use super::shape::{Shape, word};
use crate::failure::{Failure, Result};
use clap::{Arg, ArgAction, ArgMatches};
use serde_json::Value;

/// A flag for a field.
#[derive(Clone, Debug)]
pub struct Flag {
    /// `--long`; also its id in clap.
    pub long: String,
    /// From the field's doc comment, with default and keys.
    pub help: String,
    /// Where its value goes.
    pub path: Vec<Step>,
    /// What its value is.
    pub shape: Shape,
    /// A value that names a file stands for the file's content.
    pub from_file: bool,
    /// It must be given.
    pub required: bool,
    /// It may only be given when the object is made.
    pub immutable: bool,
    /// Takes all words after `--`.
    pub trailing: bool,
    /// It is a secret: a private key may go there.
    pub secret: bool,
}

/// Put before the flags of an action or a stream that `dvctl` itself uses.
pub const ACTION: &str = "with";

/// Names that belong to `dvctl` itself.
const TAKEN: &[&str] = &[
    "help",
    "project",
    "output",
    "instance",
    "cluster",
    "color",
    "yes",
    "no-wait",
    "timeout",
    "dry-run",
    "set",
    "set-file",
    "unset",
    "label",
    "display-name",
    "protection",
    "then",
    "selector",
    "parallel",
    "on-error",
    "limit",
    "sort",
    "fields",
];

/// The flags of an object schema. `prefix` is put before a name that `dvctl` itself uses.
pub fn flags_of(schema: &Value, prefix: &str) -> Vec<Flag> {
    let mut flags = Vec::new();
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, field) in properties.into_iter().flatten() {
        let path = vec![Step::Key(name.clone())];
        let mut flag = flag_at(name, field, path.clone(), prefix);
        flag.required = required.contains(&name.as_str()) && word(field, "default").is_none();
        push(&mut flags, flag);
        nested(field, path, prefix, &mut flags);
    }
    flags
}

/// The first flag of a name wins: an outer field before a shorthand inside another.
fn push(flags: &mut Vec<Flag>, flag: Flag) {
    if !flags.iter().any(|f| f.long == flag.long) {
        flags.push(flag);
    }
}

/// Shorthands marked with `x-cli.flag` below the first level; in a list they stand for its first element.
fn nested(field: &Value, path: Vec<Step>, prefix: &str, flags: &mut Vec<Flag>) {
    for branch in ["anyOf", "oneOf"] {
        for part in field
            .get(branch)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            nested(part, path.clone(), prefix, flags);
        }
    }
    if let Some(items) = field.get("items") {
        let mut first = path.clone();
        first.push(Step::At(0));
        nested(items, first, prefix, flags);
    }
    let properties = field.get("properties").and_then(Value::as_object);
    for (name, inner) in properties.into_iter().flatten() {
        let mut path = path.clone();
        path.push(Step::Key(name.clone()));
        if cli(inner, "flag").is_some() {
            push(flags, flag_at(name, inner, path.clone(), prefix));
        }
        nested(inner, path, prefix, flags);
    }
}

fn cli<'a>(field: &'a Value, key: &str) -> Option<&'a Value> {
    word(field, "x-cli")?.get(key)
}

fn flag_at(name: &str, field: &Value, path: Vec<Step>, prefix: &str) -> Flag {
    let shape = Shape::of(field);
    let long = match cli(field, "flag").and_then(Value::as_str) {
        Some(marked) => marked.to_owned(),
        None => {
            let name = name.replace('_', "-");
            let name = match shape {
                // `--name` would be the object's own.
                Shape::Many(_) => Some(singular(&name))
                    .filter(|one| one != "name")
                    .unwrap_or(name),
                _ => name,
            };
            // The timeout of an action is its own; ours steps back.
            let own = prefix == ACTION && name == "timeout";
            if TAKEN.contains(&name.as_str()) && !own {
                format!("{prefix}-{name}")
            } else {
                name
            }
        }
    };
    let yes = |key: &str| cli(field, key).and_then(Value::as_bool) == Some(true);
    Flag {
        help: help(field, &shape),
        path,
        from_file: yes("from_file"),
        required: false,
        immutable: word(field, model::schema::IMMUTABLE) == Some(&Value::Bool(true)),
        trailing: yes("trailing")
            || (matches!(shape, Shape::Many(_))
                && matches!(name, "command" | "argv")
                && cli(field, "flag").is_none()),
        secret: word(field, model::schema::SECRET) == Some(&Value::Bool(true)),
        long,
        shape,
    }
}

/// `disks` is one `disk` at a time.
fn singular(name: &str) -> String {
    if let Some(stem) = name.strip_suffix("ies") {
        return format!("{stem}y");
    }
    for end in ["sses", "xes", "ches", "shes"] {
        if name.ends_with(end) {
            return name[..name.len() - 2].to_owned();
        }
    }
    let keeps = ["ss", "us", "is", "dns", "as"];
    match name.strip_suffix('s') {
        Some(stem) if !keeps.iter().any(|k| name.ends_with(k)) => stem.to_owned(),
        _ => name.to_owned(),
    }
}

fn help(field: &Value, shape: &Shape) -> String {
    let doc = field
        .get("description")
        .or_else(|| word(field, "description"))
        .and_then(Value::as_str)
        .unwrap_or("");
    let mut help = doc.trim().replace('\n', " ");
    let mut add = |text: String| {
        if !help.is_empty() {
            help.push(' ');
        }
        help.push_str(&text);
    };
    match shape {
        Shape::Many(item) => {
            add(match item.as_ref() {
                Shape::Fields { fields, key } => keys(fields, key.as_deref(), "; may be repeated"),
                _ => "[may be repeated]".into(),
            });
        }
        Shape::Fields { fields, key } => add(keys(fields, key.as_deref(), "")),
        Shape::One(s) if s.words.iter().any(|(_, doc)| !doc.is_empty()) => {
            let words: Vec<String> = s
                .words
                .iter()
                .map(|(w, doc)| match doc.lines().next() {
                    Some(line) => format!("{w}: {}", line.trim_end_matches('.')),
                    None => w.clone(),
                })
                .collect();
            add(format!("[{}]", words.join("; ")));
        }
        _ => {}
    }
    let range = match (word(field, "minimum"), word(field, "maximum")) {
        (Some(low), Some(high)) => Some(format!("[{low} to {high}]")),
        (None, Some(high)) => Some(format!("[up to {high}]")),
        _ => None,
    };
    if let Some(range) = range {
        add(range);
    }
    match word(field, "default") {
        None | Some(Value::Null) => {}
        Some(Value::Array(list)) if list.is_empty() => {}
        Some(Value::Object(map)) if !map.is_empty() => {}
        Some(Value::Object(_)) => {}
        Some(Value::String(text)) if text.is_empty() => {}
        Some(default) => {
            let unit = word(field, model::schema::UNIT).and_then(Value::as_str);
            let shown = match (unit, default.as_u64()) {
                // Only when the text means the same number.
                (Some("bytes"), Some(n)) => match model::Bytes(n).to_string() {
                    text if text.parse() == Ok(model::Bytes(n)) => text,
                    _ => n.to_string(),
                },
                (Some("seconds"), Some(n)) => model::Seconds(n).to_string(),
                (Some("millis"), Some(n)) => model::Millis(n).to_string(),
                _ => default.to_string().trim_matches('"').to_owned(),
            };
            add(format!("[default: {shown}]"));
        }
    }
    help
}

fn keys(fields: &[(String, Shape)], key: Option<&str>, more: &str) -> String {
    let names: Vec<String> = fields
        .iter()
        .map(|(n, s)| format!("{n}={}", s.placeholder()))
        .collect();
    let plain = match key {
        Some(key) => format!("; a value alone is {key}"),
        None => String::new(),
    };
    format!("[keys: {}{plain}{more}]", names.join(", "))
}

impl Flag {
    /// As an argument of clap.
    pub fn arg(&self) -> Arg {
        let arg = Arg::new(&self.long).help(&self.help);
        if self.trailing {
            return arg
                .value_name(self.long.to_uppercase())
                .num_args(1..)
                .last(true)
                .required(self.required);
        }
        let arg = arg.long(&self.long).required(self.required);
        match &self.shape {
            Shape::Switch => arg
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .value_name("true|false")
                .action(ArgAction::Set),
            Shape::Many(_) | Shape::Map(_) => arg
                .aliases(self.plural())
                .value_name(self.placeholder())
                .action(ArgAction::Append)
                .allow_hyphen_values(false),
            _ => arg.value_name(self.placeholder()).action(ArgAction::Set),
        }
    }

    /// The field's own name, when the flag is its singular: `--disks` is understood as well.
    fn plural(&self) -> Option<String> {
        match self.path.as_slice() {
            [Step::Key(name)] => Some(name.replace('_', "-")).filter(|n| *n != self.long),
            _ => None,
        }
    }

    fn placeholder(&self) -> String {
        let shown = self.shape.placeholder();
        if self.from_file {
            return format!("{shown}|FILE");
        }
        shown
    }

    /// Puts what was given for it into a body.
    pub fn take(&self, matches: &ArgMatches, into: &mut Value) -> Result<()> {
        let Ok(Some(given)) = matches.try_get_many::<String>(&self.long) else {
            return Ok(());
        };
        let texts: Vec<&String> = given.collect();
        if self.trailing {
            let words: Vec<Value> = texts.into_iter().map(|t| Value::from(t.as_str())).collect();
            return put(into, &self.path, Value::Array(words), false);
        }
        let mut appended = false;
        for text in texts {
            let content;
            let text = if self.from_file {
                content = file_or_text(&self.long, text, self.secret)?;
                let lines = matches!(self.shape, Shape::Many(_));
                if lines { content.trim() } else { &content }
            } else {
                text
            };
            let value = self
                .shape
                .parse(text)
                .map_err(|e| Failure::usage(format!("--{}: {e}", self.long)))?;
            put(into, &self.path, value, appended)?;
            appended = true;
        }
        Ok(())
    }
}

/// The content of the file that a value names, or the value itself when it cannot be the name of a file.
fn file_or_text(flag: &str, text: &str, secret: bool) -> Result<String> {
    let path = match (text.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => std::path::PathBuf::from(home).join(rest),
        _ => text.into(),
    };
    let looks_like_path =
        !text.contains(char::is_whitespace) && (text.contains('/') || text.starts_with('.'));
    if !looks_like_path && !path.is_file() {
        return Ok(text.to_owned());
    }
    // A secret with a `/` in it looks like a path, too.
    let shown = match secret {
        true => "the file that it names".to_owned(),
        false => path.display().to_string(),
    };
    let content = std::fs::read_to_string(&path)
        .map_err(|e| Failure::usage(format!("--{flag}: reading {shown}: {e}")))?;
    if !secret && content.contains("PRIVATE KEY-----") {
        return Err(Failure::usage(format!(
            "--{flag}: {} is a private key; it is not sent anywhere",
            path.display()
        ))
        .hint("give the public key, as a rule the file that ends with `.pub`"));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_looks_like_a_path_is_not_shown() {
        for (secret, shown) in [(true, false), (false, true)] {
            let error = file_or_text("word", "hush/hush", secret).unwrap_err();
            assert_eq!(format!("{error:?}").contains("hush"), shown);
        }
    }

    #[test]
    fn singulars() {
        for (many, one) in [
            ("disks", "disk"),
            ("addresses", "address"),
            ("policies", "policy"),
            ("dns", "dns"),
            ("ssh-keys", "ssh-key"),
            ("boxes", "box"),
            ("status", "status"),
        ] {
            assert_eq!(singular(many), one);
        }
    }
}

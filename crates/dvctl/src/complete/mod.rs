//! Completion: the shells' scripts hand the words to `dvctl`, which answers from the registry and, for names, from the server.
//!
//! An answer is a line per candidate, with a tab and a description when there is one; `:files` alone means "names of files".

use crate::connect::{Client, Logins, Request, query};
use crate::failure::Result;
use crate::grammar::{self, ACTION, Flag, Shape, flags_of};
use crate::output::Screen;
use crate::registry::{KindDef, Registry};
use crate::session::{self, Cache, Target};
use clap::{Arg, ArgMatches, Command};
use serde_json::Value;
use std::time::Duration;

/// The word that the scripts call us with.
pub const WORD: &str = "__complete";
/// Asks the shell to complete names of files.
const FILES: &str = ":files";
/// Nobody waits longer for a name.
const PATIENCE: Duration = Duration::from_secs(2);

/// Prints the script of a shell.
pub fn script(m: &ArgMatches) -> Result<()> {
    let text = match m.get_one::<String>("shell").map(String::as_str) {
        Some("zsh") => include_str!("dvctl.zsh"),
        Some("fish") => include_str!("dvctl.fish"),
        _ => include_str!("dvctl.bash"),
    };
    Screen::look(None).put(text)
}

/// A candidate and what it means.
type Candidate = (String, String);

/// Answers for the words typed so far; the last one is not finished. Whatever goes wrong: no candidates, no message.
pub async fn answer(words: &[String]) -> Result<()> {
    let words = match words.first().map(String::as_str) {
        Some("--") => &words[1..],
        _ => words,
    };
    let found = tokio::time::timeout(PATIENCE, candidates(words)).await;
    let mut out = String::new();
    for (word, about) in found.unwrap_or_default() {
        let about = about.lines().next().unwrap_or("").replace('\t', " ");
        match about.is_empty() {
            true => out.push_str(&format!("{word}\n")),
            false => out.push_str(&format!("{word}\t{about}\n")),
        }
    }
    Screen::look(None).put(&out)
}

/// What is known while completing.
struct Known {
    client: Client,
    registry: Registry,
    project: String,
}

async fn candidates(words: &[String]) -> Vec<Candidate> {
    let Some((current, done)) = words.split_last() else {
        return Vec::new();
    };
    if done.iter().any(|w| w == "--") {
        return vec![(FILES.into(), String::new())];
    }
    let before = grammar::before(done);
    let Ok(place) = session::place(&before) else {
        return Vec::new();
    };
    let client = Client::new(place);
    // What was seen last is good enough here, and quick.
    let registry = match Cache::of(client.place()).registry() {
        Some(registry) => Some(registry),
        None => session::fetch(&client).await.ok(),
    };
    let Some(registry) = registry else {
        return starting(current, top(None));
    };
    let known = Known {
        client,
        registry,
        project: before
            .project
            .clone()
            .unwrap_or_else(|| session::DEFAULT_PROJECT.into()),
    };
    let all = within(&known, &before.words, current, done).await;
    starting(current, all)
}

/// Those that begin with what is typed; the files wish always stays.
fn starting(current: &str, all: Vec<Candidate>) -> Vec<Candidate> {
    all.into_iter()
        .filter(|(word, _)| word == FILES || word.starts_with(current))
        .collect()
}

/// Kinds and commands.
fn top(registry: Option<&Registry>) -> Vec<Candidate> {
    let kinds = registry.into_iter().flat_map(Registry::heads);
    kinds
        .map(|h| (h.name.clone(), h.title.clone()))
        .chain(
            grammar::BUILTINS
                .iter()
                .map(|(n, about)| ((*n).to_owned(), (*about).to_owned())),
        )
        .collect()
}

async fn within(known: &Known, words: &[String], current: &str, done: &[String]) -> Vec<Candidate> {
    let kind = match words.first() {
        Some(word) if !grammar::BUILTINS.iter().any(|(n, _)| n == word) => {
            known.registry.kind(word).ok().flatten()
        }
        _ => None,
    };
    let verb = words.get(1).map(String::as_str);
    let mut root = grammar::root(
        Some(&known.registry),
        kind.as_ref()
            .map(|k| grammar::kind_command(k, Some(verb.unwrap_or("")))),
    );
    root.build();
    // The deepest command that the words name.
    let mut command = &root;
    let mut depth = 0;
    for word in words {
        match command.find_subcommand(word) {
            Some(inner) => command = inner,
            None => break,
        }
        depth += 1;
    }
    let flags = match (&kind, verb) {
        (Some(kind), Some(verb)) => flags_for(kind, verb),
        _ => Vec::new(),
    };
    // `--flag VALUE` and `--flag=VALUE`.
    if let Some(arg) = done.last().and_then(|w| taking_value(command, w)) {
        return values(known, kind.as_ref(), &flags, arg, current).await;
    }
    if let Some((flag, value)) = current.split_once('=')
        && let Some(arg) = find(command, flag)
    {
        let found = values(known, kind.as_ref(), &flags, arg, value).await;
        return found
            .into_iter()
            .map(|(v, about)| (format!("{flag}={v}"), about))
            .collect();
    }
    if current.starts_with('-') {
        return options(command);
    }
    if command.has_subcommands() {
        if depth == 0 {
            return top(Some(&known.registry));
        }
        return command
            .get_subcommands()
            .map(|c| {
                (
                    c.get_name().to_owned(),
                    c.get_about().map(ToString::to_string).unwrap_or_default(),
                )
            })
            .collect();
    }
    let given = words.len().saturating_sub(depth);
    positional(known, kind.as_ref(), command, verb, given, current).await
}

fn flags_for(kind: &KindDef, verb: &str) -> Vec<Flag> {
    match (verb, kind.action(verb), kind.stream(verb)) {
        ("create" | "set", _, _) => flags_of(&kind.spec, "spec"),
        (_, Some(action), _) => flags_of(&action.input, ACTION),
        (_, None, Some(stream)) => flags_of(&stream.input, ACTION),
        _ => Vec::new(),
    }
}

fn find<'a>(command: &'a Command, flag: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|a| {
        let long = a
            .get_long()
            .is_some_and(|l| flag.strip_prefix("--") == Some(l));
        let short = a.get_short().is_some_and(|s| flag == format!("-{s}"));
        long || short
    })
}

/// The option that stands before the cursor and wants its value in the next word.
fn taking_value<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    let arg = find(command, word)?;
    let takes = arg.get_num_args().is_some_and(|n| n.min_values() > 0);
    takes.then_some(arg)
}

fn options(command: &Command) -> Vec<Candidate> {
    command
        .get_arguments()
        .filter(|a| !a.is_hide_set())
        .filter_map(|a| {
            let about = a.get_help().map(ToString::to_string).unwrap_or_default();
            Some((format!("--{}", a.get_long()?), about))
        })
        .collect()
}

/// Names of objects, or files, by what the command wants at this place.
async fn positional(
    known: &Known,
    kind: Option<&KindDef>,
    command: &Command,
    verb: Option<&str>,
    given: usize,
    current: &str,
) -> Vec<Candidate> {
    let args: Vec<&Arg> = command
        .get_positionals()
        .filter(|a| !a.is_last_set())
        .collect();
    let many = args
        .first()
        .is_some_and(|a| a.get_num_args().is_some_and(|n| n.max_values() > 1));
    let Some(arg) = args.get(if many { 0 } else { given }) else {
        return Vec::new();
    };
    match (arg.get_id().as_str(), kind) {
        // A new object has a new name.
        ("name", Some(_)) if verb == Some("create") => Vec::new(),
        ("name", Some(kind)) => names(known, kind, current).await,
        ("login", _) => logins(),
        ("source" | "folder", _) => vec![(FILES.into(), String::new())],
        _ => possible(arg),
    }
}

fn possible(arg: &Arg) -> Vec<Candidate> {
    arg.get_possible_values()
        .iter()
        .map(|v| (v.get_name().to_owned(), String::new()))
        .collect()
}

fn logins() -> Vec<Candidate> {
    let names = Logins::of_user().names();
    names.into_iter().map(|n| (n, String::new())).collect()
}

/// Instances whose folder is there.
fn instances() -> Vec<Candidate> {
    let entries = std::fs::read_dir("/run").into_iter().flatten().flatten();
    entries
        .filter_map(|e| Some(e.file_name().to_str()?.strip_prefix("dv-")?.to_owned()))
        .map(|n| (n, String::new()))
        .collect()
}

async fn values(
    known: &Known,
    kind: Option<&KindDef>,
    flags: &[Flag],
    arg: &Arg,
    current: &str,
) -> Vec<Candidate> {
    let id = arg.get_id().as_str();
    if let Some(flag) = flags.iter().find(|f| f.long == id) {
        if flag.from_file {
            return vec![(FILES.into(), String::new())];
        }
        return of_shape(known, &flag.shape, current).await;
    }
    let columns = || {
        let columns = kind.map(|k| k.columns.as_slice()).unwrap_or_default();
        columns
            .iter()
            .map(|c| (c.name.clone(), String::new()))
            .collect()
    };
    match (id, kind) {
        ("project", _) => match known.registry.kind("project") {
            Ok(Some(project)) => names(known, &project, current).await,
            _ => vec![(session::DEFAULT_PROJECT.into(), String::new())],
        },
        ("cluster", _) => logins(),
        ("instance", _) => instances(),
        ("file" | "into" | "set-file", _) => vec![(FILES.into(), String::new())],
        ("sort" | "fields", _) => columns(),
        ("then", Some(kind)) => kind
            .actions
            .iter()
            .map(|a| (a.verb.clone(), a.doc.clone()))
            .collect(),
        ("set" | "unset", Some(kind)) => {
            let end = if id == "set" { "=" } else { "" };
            let properties = kind.spec.get("properties").and_then(Value::as_object);
            let fields = properties.into_iter().flatten();
            fields
                .map(|(name, _)| (format!("{name}{end}"), String::new()))
                .collect()
        }
        _ => possible(arg),
    }
}

/// Values of a shape. Inside `a=1,b=` the keys and the values of the last pair.
async fn of_shape(known: &Known, shape: &Shape, current: &str) -> Vec<Candidate> {
    match shape {
        Shape::Switch => ["true", "false"]
            .map(|w| (w.to_owned(), String::new()))
            .into(),
        Shape::One(scalar) if !scalar.words.is_empty() => scalar.words.clone(),
        Shape::One(scalar) => match scalar.refers.as_deref().map(|k| known.registry.kind(k)) {
            Some(Ok(Some(kind))) => names(known, &kind, current).await,
            _ => Vec::new(),
        },
        Shape::Many(item) => Box::pin(of_shape(known, item, current)).await,
        Shape::Fields { fields, key } => {
            let (kept, last) = match current.rfind(',') {
                Some(at) => current.split_at(at + 1),
                None => ("", current),
            };
            let (head, inner, value) = match last.split_once('=') {
                Some((name, value)) => {
                    let inner = fields.iter().find(|(n, _)| n == name).map(|(_, s)| s);
                    (format!("{kept}{name}="), inner, value)
                }
                None => {
                    let keys = fields
                        .iter()
                        .map(|(n, s)| (format!("{kept}{n}="), s.placeholder()));
                    let mut all: Vec<Candidate> = keys.collect();
                    // A value alone stands for the key field.
                    let plain = key.as_ref().filter(|_| kept.is_empty());
                    let plain = plain.and_then(|k| fields.iter().find(|(n, _)| n == k));
                    if let Some((_, shape)) = plain {
                        all.extend(Box::pin(of_shape(known, shape, last)).await);
                    }
                    return all;
                }
            };
            match inner {
                Some(shape) => Box::pin(of_shape(known, shape, value))
                    .await
                    .into_iter()
                    .map(|(v, about)| (format!("{head}{v}"), about))
                    .collect(),
                None => Vec::new(),
            }
        }
        Shape::Map(_) | Shape::Any => Vec::new(),
    }
}

/// Names of objects of a kind, from the server.
async fn names(known: &Known, kind: &KindDef, current: &str) -> Vec<Candidate> {
    let (project, prefix) = match current.split_once('/') {
        Some((project, _)) if kind.in_project() => (project, format!("{project}/")),
        _ => (known.project.as_str(), String::new()),
    };
    let path = match kind.scope.as_str() {
        "any" => format!("/{}", kind.plural),
        _ => Target::of(kind, project, "").collection(),
    };
    let pairs = [("limit", "500".to_owned())];
    let answer = known
        .client
        .send(Request::get(format!("{path}{}", query(&pairs))))
        .await;
    let Ok(list) = answer.and_then(|a| a.json()) else {
        return Vec::new();
    };
    let items = list
        .get("items")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    items
        .filter_map(|item| {
            let name = item.pointer("/metadata/name")?.as_str()?;
            let state = item
                .pointer("/status/state")
                .and_then(Value::as_str)
                .unwrap_or("");
            Some((format!("{prefix}{name}"), state.to_owned()))
        })
        .collect()
}

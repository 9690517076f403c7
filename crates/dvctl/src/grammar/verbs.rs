//! The verbs of one kind as commands, with their flags from its schemas.

use super::command::*;
use super::flag::{ACTION, Flag, flags_of};
use crate::registry::{ActionDef, KindDef, StreamDef};
use clap::{Arg, ArgAction, ArgGroup, Command, ValueHint};

pub(super) fn name_arg(kind: &KindDef, many: bool) -> Arg {
    let arg = Arg::new("name").value_name("NAME").required(true);
    let arg = match kind.in_project() {
        true => arg.help("Name, or PROJECT/NAME"),
        false => arg.help("Name"),
    };
    if many { arg.num_args(1..) } else { arg }
}

/// The command of a kind. Only the verb in use (or every one, for `None`) gets its flags.
pub fn kind_command(kind: &KindDef, verb: Option<&str>) -> Command {
    let mut command = Command::new(kind.name.clone())
        .about(kind.title.clone())
        .long_about(kind.doc.clone())
        .visible_alias(kind.plural.clone())
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true);
    if kind.plural == kind.name {
        command = Command::new(kind.name.clone())
            .about(kind.title.clone())
            .long_about(kind.doc.clone())
            .subcommand_required(true)
            .arg_required_else_help(true)
            .disable_help_subcommand(true);
    }
    if let Some(examples) = examples(&kind.examples) {
        command = command.after_help(examples);
    }
    for (name, about) in kind_verbs(kind) {
        let sub = Command::new(name.clone()).about(first_sentence(&about));
        let full = verb.is_none_or(|v| v == name);
        command = command.subcommand(match full {
            true => fill(kind, &name, sub.long_about(about)),
            false => sub,
        });
    }
    command
}

/// Every verb of a kind with its documentation.
pub fn kind_verbs(kind: &KindDef) -> Vec<(String, String)> {
    // "a user", as it is said.
    let vowel = kind.name.starts_with(['a', 'e', 'i', 'o', 'u']) && !kind.name.starts_with("us");
    let article = if vowel { "an" } else { "a" };
    let title = if kind.title.is_empty() {
        kind.name.clone()
    } else {
        // "Virtual machine" reads as "virtual machine", "VM" stays.
        let mut letters = kind.title.chars();
        match (letters.next(), letters.next()) {
            (Some(a), Some(b)) if a.is_uppercase() && b.is_lowercase() => {
                a.to_lowercase().collect::<String>() + &kind.title[a.len_utf8()..]
            }
            _ => kind.title.clone(),
        }
    };
    let mut verbs: Vec<(String, String)> = Vec::new();
    let mut add = |verb: &str, doc: String| verbs.push((verb.to_owned(), doc));
    add("list", format!("List {}", kind.plural));
    add("show", format!("Show {article} {title}"));
    if kind.allows("create") {
        add("create", format!("Create {article} {title}"));
    }
    if kind.allows("update") {
        add("set", format!("Change fields of {article} {title}"));
        add("edit", "Change it in your editor, as YAML".into());
    }
    if kind.allows("delete") {
        add("delete", format!("Delete {article} {title}"));
    }
    add("watch", "Show changes as they happen".into());
    add(
        "explain",
        "Why it is as it is: intent, observation, conditions, claims, tasks, events".into(),
    );
    add("wait", "Wait until something holds".into());
    if kind.ends_at().is_some() {
        add(
            "expiring",
            format!("List {} that end soon, or have ended", kind.plural),
        );
    }
    for action in &kind.actions {
        if !verbs.iter().any(|(v, _)| *v == action.verb) {
            verbs.push((action.verb.clone(), action.doc.clone()));
        }
    }
    for stream in &kind.streams {
        if !verbs.iter().any(|(v, _)| *v == stream.name) {
            verbs.push((stream.name.clone(), stream.doc.clone()));
        }
    }
    verbs
}

pub(super) fn first_sentence(text: &str) -> String {
    let line = text.split("\n\n").next().unwrap_or("").replace('\n', " ");
    match line.split_once(". ") {
        Some((first, _)) => first.to_owned(),
        None => line.trim_end_matches('.').to_owned(),
    }
}

pub(super) fn examples(lines: &[String]) -> Option<String> {
    if lines.is_empty() {
        return None;
    }
    let list: Vec<String> = lines.iter().map(|l| format!("  {l}")).collect();
    Some(format!("Examples:\n{}", list.join("\n")))
}

/// The examples of the kind that show this verb.
pub(super) fn matching(kind: &KindDef, verb: &str) -> Option<String> {
    let start = format!("dvctl {} {verb}", kind.name);
    let found: Vec<String> = kind
        .examples
        .iter()
        .filter(|e| e.starts_with(&start))
        .cloned()
        .collect();
    examples(&found)
}

fn fill(kind: &KindDef, verb: &str, command: Command) -> Command {
    let mut command = match verb {
        "list" => list(kind, command),
        "show" => command.arg(name_arg(kind, true)),
        "create" => create(kind, command),
        "set" => set(kind, command),
        "edit" => command.arg(name_arg(kind, false)).arg(dry_run()),
        "delete" => waiting(
            many(command.arg(name_arg(kind, true)))
                .arg(force())
                .arg(
                    Arg::new("keep")
                        .long("keep")
                        .value_name("WHAT")
                        .help("Keep this part of it, such as `disks`"),
                )
                .arg(
                    Arg::new("keep-disks")
                        .long("keep-disks")
                        .hide(true)
                        .action(ArgAction::SetTrue),
                )
                .arg(dry_run())
                .arg(yes_flag()),
        ),
        "watch" => selecting(command)
            .arg(name_arg(kind, false).required(false))
            .arg(all_projects(kind)),
        "explain" => command.arg(name_arg(kind, false)),
        "wait" => wait(kind, command),
        "expiring" if kind.ends_at().is_some() => expiring(kind, command),
        _ => match (kind.action(verb), kind.stream(verb)) {
            (Some(action), _) => return act(kind, action, command),
            (None, Some(stream)) => stream_command(kind, stream, command),
            (None, None) => command,
        },
    };
    if let Some(examples) = matching(kind, verb) {
        command = command.after_help(examples);
    }
    command
}

fn selecting(command: Command) -> Command {
    command.arg(
        Arg::new("selector")
            .long("selector")
            .short('l')
            .value_name("SELECTOR")
            .help("Only those whose labels match: `app=web,tier!=test`"),
    )
}

/// Flags of one verb over many objects; the names may be absent then.
fn many(command: Command) -> Command {
    selecting(command.next_help_heading("Many at once"))
        .mut_arg("name", |arg| arg.required(false))
        .group(
            ArgGroup::new("targets")
                .args(["name", "selector"])
                .required(true),
        )
        .arg(
            Arg::new("parallel")
                .long("parallel")
                .value_name("N")
                .value_parser(clap::value_parser!(u32).range(1..=100))
                .help("So many at a time [default: 3]"),
        )
        .arg(
            Arg::new("on-error")
                .long("on-error")
                .value_name("WHAT")
                .value_parser(["stop", "continue"])
                .help("When one fails: begin no other, or go on [default: stop]"),
        )
        .next_help_heading("Options")
}

fn force() -> Arg {
    Arg::new("force")
        .long("force")
        .action(ArgAction::SetTrue)
        .help("Cancel the task that holds what this needs, and wait until it has let go")
}

fn all_projects(kind: &KindDef) -> Arg {
    Arg::new("all-projects")
        .long("all-projects")
        .short('A')
        .hide(!kind.in_project())
        .action(ArgAction::SetTrue)
        .help("Of all projects")
}

fn list(kind: &KindDef, command: Command) -> Command {
    let names: Vec<&str> = kind.columns.iter().map(|c| c.name.as_str()).collect();
    selecting(command)
        .arg(
            Arg::new("fields")
                .long("fields")
                .value_name("FIELD,...")
                .value_delimiter(',')
                .action(ArgAction::Append)
                .help(format!(
                    "Only these: columns ({}) or paths such as spec.memory",
                    names.join(", ")
                )),
        )
        .arg(
            Arg::new("sort")
                .long("sort")
                .value_name("COLUMN")
                .allow_hyphen_values(true)
                .help("Sort by a column; `-column` downwards"),
        )
        .arg(
            Arg::new("search")
                .long("search")
                .value_name("TEXT")
                .help("Only those with this text in name or display name"),
        )
        .arg(
            Arg::new("limit")
                .long("limit")
                .value_name("N")
                .value_parser(clap::value_parser!(u64))
                .help("At most so many, 0 for all [default: 20 in tables, else all]"),
        )
        .arg(all_projects(kind))
}

fn expiring(kind: &KindDef, command: Command) -> Command {
    command
        .arg(
            Arg::new("days")
                .long("days")
                .value_name("N")
                .default_value("30")
                .value_parser(clap::value_parser!(u32).range(0..=36_500))
                .help("Within so many days from now"),
        )
        .arg(all_projects(kind))
}

fn meta(command: Command) -> Command {
    command
        .arg(
            Arg::new("label")
                .long("label")
                .value_name("KEY=VALUE")
                .action(ArgAction::Append)
                .help("A label; `KEY-` takes it off; may be repeated"),
        )
        .arg(
            Arg::new("display-name")
                .long("display-name")
                .value_name("TEXT")
                .help("Any text for people"),
        )
        .arg(
            Arg::new("protection")
                .long("protection")
                .value_name("true|false")
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .help("Refuse deletion"),
        )
        .arg(
            Arg::new("set")
                .long("set")
                .value_name("PATH=VALUE")
                .action(ArgAction::Append)
                .help("Any field of the spec: `disks[0].size=9GiB`, also as `--cpu.model=host`"),
        )
        .arg(
            Arg::new("set-file")
                .long("set-file")
                .value_name("PATH=FILE")
                .action(ArgAction::Append)
                .help("Any field of the spec, from a file's text"),
        )
        .arg(dry_run())
}

fn create(kind: &KindDef, command: Command) -> Command {
    let mut command = command
        .arg(name_arg(kind, false))
        .next_help_heading("Fields");
    for flag in flags_of(&kind.spec, "spec") {
        let arg = flag.arg().required(false);
        command = command.arg(match flag.required {
            // A path may have set it, or a part of it.
            true => arg.required_unless_present_any(["set", "set-file"]),
            false => arg,
        });
    }
    command = waiting(meta(command.next_help_heading("Options")));
    command = command.arg(
        Arg::new("then")
            .long("then")
            .hide(kind.actions.is_empty())
            .value_name("ACTION")
            .help("Carry out this action as soon as it exists"),
    );
    if kind.action("start").is_some() && !has_flag(&kind.spec, "start") {
        command = command.arg(
            Arg::new("start")
                .long("start")
                .action(ArgAction::SetTrue)
                .conflicts_with("then")
                .help("Start it as soon as it exists"),
        );
    }
    command
}

fn has_flag(schema: &serde_json::Value, long: &str) -> bool {
    flags_of(schema, "spec").iter().any(|f| f.long == long)
}

fn set(kind: &KindDef, command: Command) -> Command {
    let mut command = command
        .arg(name_arg(kind, false))
        .next_help_heading("Fields");
    for flag in changeable(kind) {
        command = command.arg(flag.arg().required(false));
    }
    waiting(meta(command.next_help_heading("Options"))).arg(
        Arg::new("unset")
            .long("unset")
            .value_name("PATH")
            .action(ArgAction::Append)
            .help("Take a field back to its default"),
    )
}

/// The flags of `set`: those of fields that may change. A list is replaced as a whole.
fn changeable(kind: &KindDef) -> Vec<Flag> {
    let mut flags = flags_of(&kind.spec, "spec");
    flags.retain(|f| !f.immutable && f.path.len() == 1);
    for flag in &mut flags {
        if matches!(flag.shape, super::Shape::Many(_)) {
            flag.help.push_str(" [replaces the whole list]");
        }
    }
    flags
}

fn wait(kind: &KindDef, command: Command) -> Command {
    let task = kind.name == "task";
    let help = match task {
        true => "What: a condition or state, PATH=VALUE, or `deleted` [default: finished]",
        false => {
            "What: a condition (`Running`, `Running=false`) or state, PATH=VALUE, or `deleted`"
        }
    };
    command
        .arg(name_arg(kind, true))
        .arg(
            Arg::new("for")
                .long("for")
                .value_name("WHAT")
                .required(!task)
                .help(help),
        )
        .arg(
            Arg::new("timeout")
                .long("timeout")
                .value_name("DURATION")
                .value_parser(parse_duration)
                .help("Give up after this time, with exit code 3 [default: none]"),
        )
}

fn act(kind: &KindDef, action: &ActionDef, command: Command) -> Command {
    let flags = flags_of(&action.input, ACTION);
    // Words after `--` cannot follow a list of names.
    let trailing = flags.iter().any(|f| f.trailing);
    let mut command = command.arg(name_arg(kind, !trailing));
    if !trailing {
        command = many(command);
    }
    command = command.next_help_heading("Parameters");
    for flag in &flags {
        command = command.arg(flag.arg());
    }
    command = waiting(command.next_help_heading("Options")).arg(dry_run());
    // An action may have a `force` of its own, which means something else.
    if !command.get_arguments().any(|a| a.get_id() == "force") {
        command = command.arg(force());
    }
    if action.danger != "none" {
        command = command.arg(yes_flag());
    }
    let shown: Vec<String> = match action.examples.is_empty() {
        true => kind
            .examples
            .iter()
            .filter(|e| e.starts_with(&format!("dvctl {} {}", kind.name, action.verb)))
            .cloned()
            .collect(),
        false => action.examples.clone(),
    };
    let limit = match action.deadline {
        0 => String::new(),
        seconds => format!(
            "It has failed when it is not done within {}.\n\n",
            model::Seconds(seconds)
        ),
    };
    let shown = examples(&shown).unwrap_or_default();
    match format!("{limit}{shown}").trim_end() {
        "" => command,
        text => command.after_help(text.to_owned()),
    }
}

fn stream_command(kind: &KindDef, stream: &StreamDef, command: Command) -> Command {
    let mut command = command
        .arg(name_arg(kind, false))
        .next_help_heading("Parameters");
    let flags = flags_of(&stream.input, ACTION);
    for flag in &flags {
        command = command.arg(flag.arg());
    }
    command = command.next_help_heading("Options");
    match stream.way.as_str() {
        "write" => command.arg(
            Arg::new("source")
                .value_name("FILE")
                .required(true)
                .value_hint(ValueHint::FilePath)
                .help("What to send; `-` reads standard input"),
        ),
        "duplex" => duplex_flags(command, flags.iter().any(|f| f.trailing)),
        "read" => command.arg(
            Arg::new("into")
                .long("into")
                .value_name("FILE")
                .value_hint(ValueHint::FilePath)
                .help("Write it into this file"),
        ),
        _ => command,
    }
}

/// A stream both ways can be a terminal, a program with words after `--`, or take a file.
fn duplex_flags(command: Command, has_words: bool) -> Command {
    let command = command.arg(
        Arg::new("stdin")
            .long("stdin")
            .short('i')
            .action(ArgAction::SetTrue)
            .help("A program reads our standard input"),
    );
    if has_words {
        return command;
    }
    command
        .arg(
            Arg::new("source")
                .value_name("FILE")
                .value_hint(ValueHint::FilePath)
                .help("Send this file, from where the other side says that it stands"),
        )
        .arg(
            Arg::new("words")
                .value_name("COMMAND")
                .num_args(1..)
                .last(true)
                .help("A program and its arguments, where the stream runs one"),
        )
}

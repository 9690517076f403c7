//! Commands from kinds. Only the kind and the verb in use get their flags; all others are a line in the help.

use super::flag::{ACTION, Flag, flags_of};
use crate::registry::{ActionDef, KindDef, Registry, StreamDef};
use clap::{Arg, ArgAction, Command, ValueHint};

/// Commands that are not kinds, with a line of help each.
pub const BUILTINS: &[(&str, &str)] = &[
    ("apply", "Create or replace the objects of a file"),
    (
        "diff",
        "Show what `apply` would change; exit code 1 when anything",
    ),
    ("delete", "Delete the objects of a file"),
    ("event", "What happened: list or watch"),
    (
        "login",
        "Log in to a server and pin its certificate authority",
    ),
    ("logout", "Forget a saved login"),
    ("whoami", "Who the server takes you for"),
    (
        "api",
        "What the server offers: actions, parity of the surfaces",
    ),
    ("completion", "Print the completion script of a shell"),
    ("man", "Write the manual pages into a folder"),
    ("version", "Print the version"),
];

/// What must be known before the registry is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// `--instance`.
    pub instance: Option<String>,
    /// `--cluster`.
    pub cluster: Option<String>,
    /// `-p`, `--project`.
    pub project: Option<String>,
    /// The words that are not global flags or their values, up to three: kind, verb, name.
    pub words: Vec<String>,
    /// `--help` or `-h` stands before `--`.
    pub help: bool,
}

/// Global flags that take a value.
const GLOBALS: &[(&str, &str)] = &[
    ("--instance", ""),
    ("--cluster", ""),
    ("--project", "-p"),
    ("--output", "-o"),
    ("--color", ""),
];

/// Looks through the arguments (without the program's name).
pub fn before(args: &[String]) -> Before {
    let mut out = Before::default();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if arg == "--" {
            break;
        }
        if arg == "--help" || arg == "-h" {
            out.help = true;
            continue;
        }
        let global = GLOBALS.iter().find_map(|(long, short)| {
            if arg == long || (!short.is_empty() && arg == short) {
                return Some((*long, None));
            }
            let joined = arg.strip_prefix(long).and_then(|r| r.strip_prefix('='));
            let glued = (!short.is_empty())
                .then(|| arg.strip_prefix(short))
                .flatten()
                .filter(|_| !arg.starts_with("--"))
                .map(|r| r.trim_start_matches('='));
            joined.or(glued).map(|v| (*long, Some(v.to_owned())))
        });
        match global {
            Some((long, value)) => {
                let value = value.or_else(|| rest.next().cloned());
                match long {
                    "--instance" => out.instance = value,
                    "--cluster" => out.cluster = value,
                    "--project" => out.project = value,
                    _ => {}
                }
            }
            None if !arg.starts_with('-') && out.words.len() < 3 => out.words.push(arg.clone()),
            None => {}
        }
    }
    out
}

fn globals(command: Command) -> Command {
    command
        .arg(
            Arg::new("instance")
                .long("instance")
                .global(true)
                .value_name("NAME")
                .env("DEBVISOR_INSTANCE")
                .hide_env_values(true)
                .help("Talk to this development instance of this machine")
                .help_heading("Everywhere"),
        )
        .arg(
            Arg::new("cluster")
                .long("cluster")
                .global(true)
                .value_name("NAME")
                .help("Talk to this saved login")
                .help_heading("Everywhere"),
        )
        .arg(
            Arg::new("project")
                .long("project")
                .short('p')
                .global(true)
                .value_name("PROJECT")
                .env("DEBVISOR_PROJECT")
                .hide_env_values(true)
                .help("In this project [default: default]")
                .help_heading("Everywhere"),
        )
        .arg(
            Arg::new("output")
                .long("output")
                .short('o')
                .global(true)
                .value_name("FORMAT")
                .value_parser(["table", "wide", "json", "yaml", "name"])
                .hide_possible_values(true)
                .help("table, wide, json, yaml or name [default: table]")
                .help_heading("Everywhere"),
        )
        .arg(
            Arg::new("color")
                .long("color")
                .global(true)
                .value_name("WHEN")
                .value_parser(["auto", "always", "never"])
                .hide_possible_values(true)
                .help("Colours: auto, always or never [default: auto]")
                .help_heading("Everywhere"),
        )
}

/// The whole command line, with the kind in use worked out. `kinds` may be absent when the server cannot be asked.
pub fn root(kinds: Option<&Registry>, used: Option<Command>) -> Command {
    let mut list = String::new();
    let width = kinds
        .into_iter()
        .flat_map(Registry::heads)
        .map(|h| h.name.len())
        .max()
        .unwrap_or(0)
        .max(10);
    for head in kinds.into_iter().flat_map(Registry::heads) {
        list.push_str(&format!("  {:width$}  {}\n", head.name, head.title));
    }
    let after = match list.is_empty() {
        true => "Kinds are asked from the server, which does not answer now.".to_owned(),
        false => format!(
            "Kinds (dvctl KIND VERB [NAME]; `dvctl KIND --help` for its verbs):\n{list}\n\
             Examples:\n  dvctl task list\n  dvctl api actions\n  dvctl apply -f site.yaml\n  dvctl event watch"
        ),
    };
    let mut command = globals(
        Command::new("dvctl")
            .about("Controls DebVisor: every kind and every action the server knows")
            .version(env!("CARGO_PKG_VERSION"))
            .subcommand_required(true)
            .arg_required_else_help(true)
            .disable_help_subcommand(true)
            .infer_long_args(false)
            .max_term_width(120)
            .after_help(after),
    );
    for (name, about) in BUILTINS {
        command = command.subcommand(builtin(name, about));
    }
    if let Some(used) = used {
        command = command.subcommand(used);
    }
    command
}

fn file_flag() -> Arg {
    Arg::new("file")
        .long("file")
        .short('f')
        .required(true)
        .value_name("FILE")
        .action(ArgAction::Append)
        .value_hint(ValueHint::FilePath)
        .help("YAML or JSON, one or more documents; `-` reads standard input; may be repeated")
}

fn yes_flag() -> Arg {
    Arg::new("yes")
        .long("yes")
        .short('y')
        .action(ArgAction::SetTrue)
        .help("Do not ask")
}

fn waiting(command: Command) -> Command {
    let command = command.arg(
        Arg::new("no-wait")
            .long("no-wait")
            .action(ArgAction::SetTrue)
            .help("Do not wait until it is done"),
    );
    // An action may have a `timeout` of its own, which means more.
    if command.get_arguments().any(|a| a.get_id() == "timeout") {
        return command;
    }
    command.arg(
        Arg::new("timeout")
            .long("timeout")
            .value_name("DURATION")
            .value_parser(parse_duration)
            .help("Stop waiting after this time (what was asked for goes on) [default: none]"),
    )
}

fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    text.parse::<model::Seconds>().map(|s| s.duration())
}

fn dry_run() -> Arg {
    Arg::new("dry-run")
        .long("dry-run")
        .action(ArgAction::SetTrue)
        .help("Only show what would result; nothing is stored")
}

fn builtin(name: &'static str, about: &'static str) -> Command {
    let command = Command::new(name).about(about);
    match name {
        "apply" => waiting(command.arg(file_flag()).arg(dry_run())).after_help("Examples:\n  dvctl vm show web1 -o yaml > web1.yaml\n  dvctl apply -f web1.yaml"),
        "diff" => command
            .arg(file_flag())
            .after_help("Examples:\n  dvctl diff -f web1.yaml"),
        "delete" => waiting(command.arg(file_flag()).arg(yes_flag()).arg(dry_run()))
            .after_help("Examples:\n  dvctl delete -f site.yaml --yes"),
        "event" => command
            .subcommand_required(true)
            .arg_required_else_help(true)
            .subcommand(
                Command::new("list")
                    .about("The latest events")
                    .arg(
                        Arg::new("limit")
                            .long("limit")
                            .value_name("N")
                            .value_parser(clap::value_parser!(u64))
                            .help("At most so many [default: 20]"),
                    )
                    .arg(
                        Arg::new("since")
                            .long("since")
                            .value_name("AGE|TIME")
                            .help("Not older than this: `1h`, or a time as in RFC 3339"),
                    ),
            )
            .subcommand(
                Command::new("watch").about("Events as they happen").arg(
                    Arg::new("since")
                        .long("since")
                        .value_name("AGE|TIME")
                        .help("Begin with those not older than this: `10m`, or a time as in RFC 3339"),
                ),
            )
            .after_help("Examples:\n  dvctl event list --since 1h\n  dvctl event watch"),
        "login" => command
            .arg(Arg::new("url").required(true).value_name("URL"))
            .arg(
                Arg::new("code")
                    .long("code")
                    .value_name("CODE")
                    .help("The one-time code the server printed; asked for when absent"),
            )
            .arg(
                Arg::new("fingerprint")
                    .long("fingerprint")
                    .value_name("SHA256")
                    .help("Fingerprint of the server's CA, as the server printed it; without it you are asked to compare"),
            )
            .arg(
                Arg::new("name")
                    .long("name")
                    .value_name("NAME")
                    .help("What --cluster calls this login [default: made from the host]"),
            )
            .after_help("Examples:\n  dvctl login https://node1.example.org:8443 --code 7K2M-9QXD"),
        "logout" => command.arg(
            Arg::new("login")
                .value_name("LOGIN")
                .help("Which saved login; the current one when absent"),
        ),
        "api" => command
            .subcommand_required(true)
            .arg_required_else_help(true)
            .subcommand(
                Command::new("login-code")
                    .about("Make a one-time code for somebody who logs in from another machine"),
            )
            .subcommand(Command::new("actions").about("Every verb of every kind, with its danger"))
            .subcommand(
                Command::new("parity")
                    .about("Which surface offers which verb; exit code 1 when one misses any"),
            ),
        "completion" => command
            .arg(
                Arg::new("shell")
                    .required(true)
                    .value_name("SHELL")
                    .value_parser(["bash", "zsh", "fish"]),
            )
            .after_help(
                "Examples:\n  source <(dvctl completion bash)\n  dvctl completion zsh > ~/.zfunc/_dvctl\n  \
                 dvctl completion fish > ~/.config/fish/completions/dvctl.fish",
            ),
        "man" => command
            .arg(
                Arg::new("folder")
                    .required(true)
                    .value_name("DIR")
                    .value_hint(ValueHint::DirPath),
            )
            .after_help("Examples:\n  dvctl man /usr/local/share/man/man1"),
        _ => command,
    }
}

fn name_arg(kind: &KindDef, many: bool) -> Arg {
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
    let article = match kind.name.starts_with(['a', 'e', 'i', 'o', 'u']) {
        true => "an",
        false => "a",
    };
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

fn first_sentence(text: &str) -> String {
    let line = text.split("\n\n").next().unwrap_or("").replace('\n', " ");
    match line.split_once(". ") {
        Some((first, _)) => first.to_owned(),
        None => line.trim_end_matches('.').to_owned(),
    }
}

fn examples(lines: &[String]) -> Option<String> {
    if lines.is_empty() {
        return None;
    }
    let list: Vec<String> = lines.iter().map(|l| format!("  {l}")).collect();
    Some(format!("Examples:\n{}", list.join("\n")))
}

/// The examples of the kind that show this verb.
fn matching(kind: &KindDef, verb: &str) -> Option<String> {
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
            command
                .arg(name_arg(kind, true))
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
    let mut command = command
        .arg(name_arg(kind, !trailing))
        .next_help_heading("Parameters");
    for flag in &flags {
        command = command.arg(flag.arg());
    }
    command = waiting(command.next_help_heading("Options")).arg(dry_run());
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

/// `--cpu.model host` is `--set cpu.model=host`.
pub fn dotted(args: Vec<String>) -> Vec<String> {
    let mut out = Vec::with_capacity(args.len());
    let mut rest = args.into_iter();
    while let Some(arg) = rest.next() {
        if arg == "--" {
            out.push(arg);
            out.extend(rest);
            return out;
        }
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (arg.as_str(), None),
        };
        let path = name.strip_prefix("--").filter(|n| n.contains('.'));
        match path.map(|p| p.replace('-', "_")) {
            Some(path) => {
                let value = value.or_else(|| rest.next()).unwrap_or_default();
                out.push("--set".into());
                out.push(format!("{path}={value}"));
            }
            None => out.push(arg),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_as_flags() {
        let given = "vm create a --cpu.model host --source.sha-256=ab -- --a.b c";
        let args = given.split(' ').map(str::to_owned).collect();
        assert_eq!(
            dotted(args).join(" "),
            "vm create a --set cpu.model=host --set source.sha_256=ab -- --a.b c"
        );
    }

    fn words(line: &str) -> Before {
        let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
        before(&args)
    }

    #[test]
    fn looks_past_globals() {
        let b = words("-p lab --instance=blue -ojson vm list --selector a=b");
        assert_eq!(b.words, ["vm", "list", "a=b"]);
        assert_eq!(b.instance.as_deref(), Some("blue"));
        assert_eq!(b.project.as_deref(), Some("lab"));
        let b = words("vm -o yaml show web1 -- --help");
        assert_eq!(b.words, ["vm", "show", "web1"]);
        assert!(!b.help);
    }
}

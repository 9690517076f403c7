//! Commands from kinds. Only the kind and the verb in use get their flags; all others are a line in the help.

use crate::registry::{KindDef, Registry};
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
    ("audit", "Who did what: list, verify, export, keys, anchors"),
    (
        "login",
        "Log in to a server and pin its certificate authority",
    ),
    ("logout", "End a login and forget it"),
    ("passwd", "Change your password"),
    (
        "totp",
        "Enrol an app that makes codes as your second factor",
    ),
    ("recovery-codes", "Make new codes on paper"),
    (
        "mfa",
        "Prove your second factor again, see all of yours, or take one away",
    ),
    (
        "tpm",
        "Prove by its TPM which machine this is, so that keys can be bound to it",
    ),
    ("whoami", "Who the server takes you for"),
    ("access", "May somebody do something, why, and who else may"),
    (
        "api",
        "What the server offers: actions, parity of the surfaces",
    ),
    (
        "health",
        "How the server and what it depends on stand; exit code 6 when it is not ready",
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
    /// Where those words stand among the arguments.
    pub at: Vec<usize>,
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
    let mut rest = args.iter().enumerate();
    while let Some((at, arg)) = rest.next() {
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
                let value = value.or_else(|| rest.next().map(|(_, arg)| arg.clone()));
                match long {
                    "--instance" => out.instance = value,
                    "--cluster" => out.cluster = value,
                    "--project" => out.project = value,
                    _ => {}
                }
            }
            None if !arg.starts_with('-') && out.words.len() < 3 => {
                out.words.push(arg.clone());
                out.at.push(at);
            }
            None => {}
        }
    }
    out
}

pub(super) fn globals(command: Command) -> Command {
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

pub(super) fn file_flag() -> Arg {
    Arg::new("file")
        .long("file")
        .short('f')
        .required(true)
        .value_name("FILE")
        .action(ArgAction::Append)
        .value_hint(ValueHint::FilePath)
        .help("YAML or JSON, one or more documents; `-` reads standard input; may be repeated")
}

fn lines_flag() -> Arg {
    Arg::new("password-stdin")
        .long("password-stdin")
        .action(ArgAction::SetTrue)
        .help("Read passwords and codes from standard input, one in each line, in the order in which they would be asked for")
}

pub(super) fn yes_flag() -> Arg {
    Arg::new("yes")
        .long("yes")
        .short('y')
        .action(ArgAction::SetTrue)
        .help("Do not ask")
}

pub(super) fn waiting(command: Command) -> Command {
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

pub(super) fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    text.parse::<model::Seconds>().map(|s| s.duration())
}

pub(super) fn dry_run() -> Arg {
    Arg::new("dry-run")
        .long("dry-run")
        .action(ArgAction::SetTrue)
        .help("Only show what would result; nothing is stored")
}

fn access(command: Command) -> Command {
    let object = |help: &'static str| {
        Arg::new("object")
            .value_name("OBJECT")
            .default_value("/")
            .help(help)
    };
    let user = Arg::new("user").required(true).value_name("USER");
    let action = Arg::new("action")
        .required(true)
        .value_name("PRIVILEGE")
        .help("KIND.VERB, such as vm.start");
    let from = Arg::new("from")
        .long("from")
        .value_name("ADDRESS")
        .help("As if he came from this address");
    let mfa = Arg::new("mfa")
        .long("mfa")
        .action(ArgAction::SetTrue)
        .help("As if he had just proved a second factor");
    const OBJECT: &str = "/, project/NAME, KIND/NAME or KIND/PROJECT/NAME";
    command
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("check")
                .about("Whether a user may do something, and which grants say so; exit code 5 when not")
                .arg(user.clone())
                .arg(action.clone())
                .arg(object(OBJECT))
                .arg(from.clone())
                .arg(mfa.clone()),
        )
        .subcommand(
            Command::new("who-can")
                .about("Which users may do something, now or under conditions")
                .arg(action)
                .arg(object(OBJECT))
                .arg(from)
                .arg(mfa),
        )
        .subcommand(
            Command::new("matrix")
                .about("Every privilege, and whether a user has it")
                .arg(user)
                .arg(object(OBJECT)),
        )
        .after_help("Examples:\n  dvctl access check alice vm.start vm/shop/web1\n  dvctl access check alice vm.start vm/shop/web1 --from 192.0.2.7\n  dvctl access who-can vm.delete project/shop\n  dvctl access matrix alice project/shop")
}

pub(super) fn builtin(name: &'static str, about: &'static str) -> Command {
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
        "audit" => super::audit::command(command),
        "login" => command
            .arg(Arg::new("url").required(true).value_name("URL"))
            .arg(
                Arg::new("code")
                    .long("code")
                    .value_name("CODE")
                    .help("A one-time code: the one that the first start printed, or one that an administrator gave you"),
            )
            .arg(
                Arg::new("user")
                    .long("user")
                    .value_name("USER")
                    .help("Log in with a password; asked for when absent"),
            )
            .arg(lines_flag())
            .arg(
                Arg::new("realm")
                    .long("realm")
                    .value_name("NAME")
                    .help("The realm whose user you are, when your name alone does not say it; with --sso the default one, or the only one, when absent"),
            )
            .arg(
                Arg::new("remember")
                    .long("remember")
                    .action(ArgAction::SetTrue)
                    .help("Stay logged in for a week, and not for a day"),
            )
            .arg(
                Arg::new("sso")
                    .long("sso")
                    .action(ArgAction::SetTrue)
                    .conflicts_with_all(["code", "user", "forgot"])
                    .help("Log in with the browser, by a provider of OpenID Connect"),
            )
            .arg(
                Arg::new("no-browser")
                    .long("no-browser")
                    .action(ArgAction::SetTrue)
                    .requires("sso")
                    .help("Print an address to open on any machine, and ask for the ticket that it shows"),
            )
            .arg(
                Arg::new("certificate")
                    .long("certificate")
                    .action(ArgAction::SetTrue)
                    .requires("code")
                    .conflicts_with_all(["user", "password-stdin"])
                    .help("Trade the code for a client certificate"),
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
            .arg(
                Arg::new("forgot")
                    .long("forgot")
                    .action(ArgAction::SetTrue)
                    .conflicts_with("code")
                    .help("Have a link for a new password mailed to --user, a name or an e-mail address"),
            )
            .after_help(
                "Examples:\n  dvctl login https://node1.example.org:8443 --user anna\n  \
                 dvctl login https://node1.example.org:8443 --code 7K2M-9QXD\n  \
                 dvctl login https://node1.example.org:8443 --sso --realm corp\n  \
                 printf '%s\\n' \"$PASSWORD\" | dvctl login https://node1.example.org:8443 --user ci --password-stdin --fingerprint AB:CD",
            ),
        "passwd" | "totp" | "recovery-codes" => command.arg(lines_flag()),
        "mfa" => command
            .arg(lines_flag())
            .arg(
                Arg::new("list")
                    .long("list")
                    .action(ArgAction::SetTrue)
                    .conflicts_with("remove")
                    .help("Show your second factors"),
            )
            .arg(
                Arg::new("remove")
                    .long("remove")
                    .value_name("FACTOR")
                    .help("Take one of them away, after proving one"),
            )
            .arg(
                Arg::new("mail")
                    .long("mail")
                    .action(ArgAction::SetTrue)
                    .conflicts_with_all(["list", "remove"])
                    .help("By a code that is mailed to you, when you have no second factor"),
            )
            .after_help("Examples:\n  dvctl mfa\n  dvctl mfa --list\n  dvctl mfa --remove webauthn-0192f0c1a2b34c5d"),
        "tpm" => command
            .subcommand_required(true)
            .arg_required_else_help(true)
            .subcommand(
                Command::new("enrol")
                    .about("Prove that this is a machine that an administrator has made, the first time or again, and save a login that works here only")
                    .arg(
                        Arg::new("machine")
                            .value_name("MACHINE")
                            .help("Which one it is; that of the login when absent"),
                    )
                    .arg(
                        Arg::new("device")
                            .long("device")
                            .value_name("PATH")
                            .value_hint(ValueHint::FilePath)
                            .help("The TPM, or the socket of one in software [default: /dev/tpmrm0]"),
                    )
                    .arg(
                        Arg::new("name")
                            .long("name")
                            .value_name("NAME")
                            .help("What --cluster calls the login [default: the machine]"),
                    )
                    .arg(
                        Arg::new("api-key-stdin")
                            .long("api-key-stdin")
                            .action(ArgAction::SetTrue)
                            .help("Read from standard input an API key that is bound to the machine, and save it with the login"),
                    ),
            )
            .after_help("Examples:\n  dvctl tpm enrol builder1\n  dvctl api-key secret build | dvctl tpm enrol builder1 --api-key-stdin\n  dvctl --cluster builder1 tpm enrol"),
        "logout" => command.arg(
            Arg::new("login")
                .value_name("LOGIN")
                .help("Which saved login; the current one when absent"),
        ),
        "access" => access(command),
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
                    .about("Which surface offers which action")
                    .arg(
                        Arg::new("check")
                            .long("check")
                            .action(ArgAction::SetTrue)
                            .help("Show only gaps; exit code 1 when one is not in the list of exceptions with its reason"),
                    ),
            )
            .subcommand(
                Command::new("stats").about(
                    "Calls, errors and times of every action since the server started; -o wide by surface",
                ),
            )
            .after_help("Examples:\n  dvctl api actions\n  dvctl api parity --check\n  dvctl api stats -o wide"),
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

/// The one object of a kind that is for all of another kind.
const ONLY: &str = "default";

/// What `KIND VERB` stands for when it is about all objects of a kind, and not about one: the verb of the one object that
/// is for all of them. `stats` shows it. The kind, the verb, and the whole line; `None` when it has no such verb.
pub fn of_all(before: &Before, keeper: &KindDef, args: &[String]) -> Option<(String, Vec<String>)> {
    let (kind, verb) = (*before.at.first()?, *before.at.get(1)?);
    let asked = before.words.get(1)?.as_str();
    let meant = match asked {
        "stats" => "show",
        verb if keeper.action(verb).is_some() || keeper.stream(verb).is_some() => verb,
        _ => return None,
    };
    // A name stands there: one is meant, and not all.
    let flags = ["--yes", "-y", "--dry-run", "--wait"];
    let mut at = args.get(verb + 1..)?.iter();
    let named = at.find(|arg| !flags.contains(&arg.as_str()));
    if named.is_some_and(|arg| !arg.starts_with('-')) {
        return None;
    }
    let mut line = args.to_vec();
    keeper.name.clone_into(line.get_mut(kind)?);
    meant.clone_into(line.get_mut(verb)?);
    line.insert(verb + 1, ONLY.to_owned());
    Some((meant.to_owned(), line))
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
    fn what_is_about_all_objects_goes_to_the_one_that_is_for_all() {
        let keeper: KindDef = serde_json::from_value(serde_json::json!({
            "name": "key-policy", "plural": "key-policies", "scope": "cluster",
            "actions": [{ "verb": "cleanup" }], "streams": [{ "name": "soon", "way": "read" }],
        }))
        .unwrap();
        let meant = |line: &str| {
            let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
            of_all(&before(&args), &keeper, &args).map(|(verb, line)| (verb, line.join(" ")))
        };
        let is = |verb: &str, line: &str| Some((verb.to_owned(), line.to_owned()));
        assert_eq!(
            meant("-p key key stats -o yaml"),
            is("show", "-p key key-policy show default -o yaml")
        );
        assert_eq!(
            meant("key cleanup --yes"),
            is("cleanup", "key-policy cleanup default --yes")
        );
        assert_eq!(meant("key soon"), is("soon", "key-policy soon default"));
        // One is named, so not all are meant.
        assert_eq!(meant("key cleanup ci --yes"), None);
        assert_eq!(meant("key cleanup --yes ci"), None);
        assert_eq!(meant("key clean"), None);
        assert_eq!(meant("key"), None);
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

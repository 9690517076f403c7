//! The flags of `audit`.

use super::command::{waiting, yes_flag};
use clap::{Arg, ArgAction, Command, ValueHint};

fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .action(ArgAction::SetTrue)
        .help(help)
}

fn since() -> Arg {
    option(
        "since",
        "AGE|TIME",
        "Not older than this: `1h`, or a time as in RFC 3339",
    )
}

fn until() -> Arg {
    option(
        "until",
        "AGE|TIME",
        "Not younger than this: `10m`, or a time as in RFC 3339",
    )
}

fn chain() -> Arg {
    option(
        "chain",
        "NODE",
        "Whose chain; needed only where several nodes keep one",
    )
}

/// `audit` with its verbs.
pub(super) fn command(command: Command) -> Command {
    let list = Command::new("list")
        .about("Who did what: the newest rows, oldest first")
        .arg(option("actor", "NAME", "Only what this user or key did"))
        .arg(option("address", "IP", "Only what was done from there"))
        .arg(option("object", "KIND/NAME", "Only about this object"))
        .arg(option(
            "action",
            "NAME",
            "Only this action, or all that begin with it: `vm.start`, `auth`",
        ))
        .arg(option("request", "ID", "Only the rows of this request"))
        .arg(switch("failures", "Only what failed or was refused"))
        .arg(since())
        .arg(until())
        .arg(
            option("limit", "N", "At most so many rows [default: 50]")
                .value_parser(clap::value_parser!(u64)),
        )
        .arg(
            switch("follow", "Go on with each row as it comes").short('f'),
        )
        .after_help(
            "Examples:\n  dvctl audit list --since 1h\n  dvctl audit list --actor anna --failures\n  \
             dvctl audit list --object vm/shop/web1 -o json\n  dvctl audit list --action auth --follow",
        );
    let verify = waiting(
        Command::new("verify").about("Look through the chain; names the first row that is broken"),
    )
    .arg(
        option(
            "against",
            "ANCHOR",
            "A file of heads that was kept elsewhere; a tail that was cut off shows only against one",
        )
        .value_hint(ValueHint::FilePath),
    )
    .after_help(
        "The folder of a trail that no daemon has open is looked through with `debvisord audit verify`.\n\n\
         Examples:\n  dvctl audit verify\n  dvctl audit verify --against /mnt/worm/node1.heads",
    );
    let export = Command::new("export")
        .about("All rows of a time as lines of JSON, each with the bytes that were hashed")
        .arg(switch("decrypt", "With what is personal"))
        .arg(since())
        .arg(until())
        .arg(
            option("into", "FILE", "Into this file [default: standard output]")
                .value_hint(ValueHint::FilePath),
        )
        .after_help("Examples:\n  dvctl audit export --since 30d --into audit.jsonl");
    let keys = Command::new("keys")
        .about("The keys that seal what is personal")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(waiting(Command::new("rotate").about(
            "Seal new rows with new keys; older ones still open older rows",
        )))
        .subcommand(Command::new("status").about("How many keys are in which state"));
    let anchor = Command::new("anchor")
        .about("Where the heads of the chain go")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(Command::new("status").about("Where heads go, and how that went"))
        .after_help(
            "Heads go to a file on other storage, or to a log server:\n  \
             dvctl setting set audit-anchor-file --value /mnt/worm\n  \
             dvctl setting set audit-anchor-ca --value /etc/debvisor/log-ca.pem\n  \
             dvctl setting set audit-anchor-syslog --value log.example.org:6514",
        );
    let erase =
        waiting(Command::new("erase").about("Make what rows say of a person unreadable, for ever"))
            .arg(
                Arg::new("subject")
                    .required(true)
                    .value_name("USER")
                    .help("The name of the user"),
            )
            .arg(yes_flag())
            .after_help("Examples:\n  dvctl audit erase anna");
    let with_chain = |command: Command| command.arg(chain());
    command
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_chain(list))
        .subcommand(with_chain(verify))
        .subcommand(with_chain(export))
        .subcommand(keys.mut_subcommand("rotate", with_chain).mut_subcommand("status", with_chain))
        .subcommand(anchor.mut_subcommand("status", with_chain))
        .subcommand(with_chain(erase))
        .after_help(
            "Examples:\n  dvctl audit list --since 1h\n  dvctl audit verify\n  dvctl audit anchor status",
        )
}

//! `dvctl`, the command line of DebVisor. It interprets the registry that the server gives it: kinds, verbs, flags, tables and
//! help are data, and nothing here is written per kind (but for `task`, `event` and `audit`, which are part of the spine).
//!
//! It never touches the host, the store or a guest: all it does is ask the API.

mod complete;
mod connect;
mod failure;
mod grammar;
mod login;
mod man;
mod output;
mod registry;
mod session;
mod verbs;

use failure::{Failure, Result};
use grammar::Before;
use output::Screen;
use session::Session;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("error: starting: {e}");
            return ExitCode::from(1);
        }
    };
    let ended = runtime.block_on(run(args));
    // A thread may still wait for the keyboard: nobody needs it any more.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let screen = Screen::look(None);
            let text = failure.lines(screen.err_tty && screen.color);
            if failure.exit == 0 {
                _ = screen.put(&text);
            } else if !text.is_empty() {
                screen.say(text.trim_end());
            }
            ExitCode::from(failure.exit)
        }
    }
}

async fn run(args: Vec<String>) -> Result<()> {
    if args.first().is_some_and(|a| a == complete::WORD) {
        return complete::answer(&args[1..]).await;
    }
    let args = grammar::dotted(args);
    let before = grammar::before(&args);
    let word = before.words.first().map(String::as_str);
    let line = || std::iter::once("dvctl".to_owned()).chain(args.iter().cloned());
    match word {
        Some(
            "login" | "logout" | "passwd" | "totp" | "recovery-codes" | "mfa" | "completion"
            | "version",
        ) => {
            let matches = grammar::root(None, None).try_get_matches_from(line())?;
            return match matches.subcommand() {
                Some(("login", m)) => login::login(m).await,
                Some(("logout", m)) => login::logout(m, &before).await,
                Some(("passwd", m)) => login::passwd(m, &before).await,
                Some(("totp", m)) => login::totp(m, &before).await,
                Some(("recovery-codes", m)) => login::recovery(m, &before).await,
                Some(("mfa", m)) => login::mfa(m, &before).await,
                Some(("completion", m)) => complete::script(m),
                _ => Screen::look(None).put(concat!("dvctl ", env!("CARGO_PKG_VERSION"), "\n")),
            };
        }
        None => {
            // Help must come even when no server answers; kinds are in it when one does.
            let registry = Session::registry_for_help(&before).await;
            let command = grammar::root(registry.as_ref(), None);
            command.try_get_matches_from(line())?;
            return Err(Failure::usage("nothing to do").hint("`dvctl --help` shows what there is"));
        }
        Some(_) => {}
    }
    with_registry(&before, args).await
}

/// Everything that needs the server's registry to be understood.
async fn with_registry(before: &Before, mut args: Vec<String>) -> Result<()> {
    let line = |args: Vec<String>| std::iter::once("dvctl".to_owned()).chain(args);
    let word = before.words.first().map_or("", String::as_str);
    let mut verb = before.words.get(1).cloned();
    let builtin = grammar::BUILTINS.iter().any(|(name, _)| *name == word);
    if builtin && before.help {
        grammar::root(None, None).try_get_matches_from(line(args))?;
        return Ok(());
    }
    let mut session = Session::open(before).await?;
    // `event list` is ours, unless the server has a kind of that name that can do more.
    let mut kind = match builtin {
        true => None,
        false => Some(find_kind(&session, word)?),
    };
    if let (Some(of), Some(asked)) = (&kind, &verb)
        && let Err(unknown) = known_verb(of, asked)
    {
        let keeper = session.registry.keeper(&of.name)?;
        let all = keeper.and_then(|keeper| {
            let (meant, line) = grammar::of_all(before, &keeper, &args)?;
            Some((keeper, meant, line))
        });
        let Some((keeper, meant, line)) = all else {
            return Err(unknown);
        };
        (kind, verb, args) = (Some(keeper), Some(meant), line);
    }
    let used = kind
        .as_ref()
        .map(|k| grammar::kind_command(k, Some(verb.as_deref().unwrap_or(""))));
    let command = grammar::root(Some(&session.registry), used);
    let matches = command.try_get_matches_from(line(args))?;
    session.settle(&matches);
    match (kind, matches.subcommand()) {
        (Some(kind), Some((_, m))) => match m.subcommand() {
            Some((verb, m)) => verbs::run(&session, &kind, verb, m).await,
            None => Err(Failure::usage("which verb?")),
        },
        (None, Some((name, m))) => verbs::builtin(&session, name, m).await,
        (_, None) => Err(Failure::usage("nothing to do")),
    }
}

fn find_kind(session: &Session, word: &str) -> Result<registry::KindDef> {
    if let Some(kind) = session.registry.kind(word)? {
        return Ok(kind);
    }
    let known: Vec<&str> = session
        .registry
        .heads()
        .iter()
        .map(|h| h.name.as_str())
        .chain(grammar::BUILTINS.iter().map(|(n, _)| *n))
        .collect();
    let mut failure =
        Failure::usage(format!("there is no kind and no command `{word}`")).nearest(word, &known);
    if failure.hint.is_none() {
        failure.hint = Some("`dvctl --help` lists them".into());
    }
    Err(failure)
}

fn known_verb(kind: &registry::KindDef, verb: &str) -> Result<()> {
    let verbs = grammar::kind_verbs(kind);
    if verbs.iter().any(|(v, _)| v == verb) {
        return Ok(());
    }
    let known: Vec<&str> = verbs.iter().map(|(v, _)| v.as_str()).collect();
    let mut failure =
        Failure::usage(format!("{} has no verb `{verb}`", kind.name)).nearest(verb, &known);
    if failure.hint.is_none() {
        failure.hint = Some(format!("verbs: {}", known.join(", ")));
    }
    Err(failure)
}

//! What each verb does. Common verbs have a file each; actions and streams are interpreted from their declaration.

mod access;
mod act;
mod api;
mod apply;
mod audit;
mod batch;
mod change;
mod confirm;
mod create;
mod delete;
mod documents;
mod edit;
mod event;
mod expiring;
mod explain;
mod follow;
mod health;
mod list;
mod present;
mod show;
mod stream;
mod terminal;
mod tpm;
mod wait;
mod watch;

use crate::connect::Request;
use crate::failure::{Failure, Result};
use crate::registry::KindDef;
use crate::session::{Session, Target};
use crate::{login, man};
use clap::ArgMatches;

/// Carries out a verb of a kind.
pub async fn run(s: &Session, kind: &KindDef, verb: &str, m: &ArgMatches) -> Result<()> {
    match verb {
        "list" => list::run(s, kind, m).await,
        "show" => show::run(s, kind, m).await,
        "create" => create::run(s, kind, m).await,
        "set" => change::run(s, kind, m).await,
        "edit" => edit::run(s, kind, m).await,
        "delete" => delete::run(s, kind, m).await,
        "watch" => watch::run(s, kind, m).await,
        "explain" => explain::run(s, kind, m).await,
        "wait" => wait::run(s, kind, m).await,
        "expiring" if kind.ends_at().is_some() => expiring::run(s, kind, m).await,
        _ => match (kind.action(verb), kind.stream(verb)) {
            (Some(action), _) => act::run(s, kind, action, m).await,
            (None, Some(stream)) => stream::run(s, kind, stream, m).await,
            (None, None) => Err(Failure::usage(format!(
                "{} has no verb `{verb}`",
                kind.name
            ))),
        },
    }
}

/// Carries out a command that is not a kind.
pub async fn builtin(s: &Session, name: &str, m: &ArgMatches) -> Result<()> {
    match (name, m.subcommand()) {
        ("apply", _) => apply::apply(s, m).await,
        ("diff", _) => apply::diff(s, m).await,
        ("delete", _) => delete::files(s, m).await,
        ("event", Some(("watch", m))) => event::watch(s, m).await,
        ("event", Some((_, m))) => event::list(s, m).await,
        ("access", Some((what, m))) => access::run(s, what, m).await,
        ("health", _) => health::show(s).await,
        ("audit", _) => audit::run(s, m).await,
        ("tpm", Some((_, m))) => tpm::enrol(s, m).await,
        ("whoami", _) => login::whoami(s).await,
        ("api", Some(("parity", m))) => api::parity(s, given(m, "check")).await,
        ("api", Some(("stats", _))) => api::stats(s).await,
        ("api", Some(("login-code", _))) => api::login_code(s).await,
        ("api", Some((_, _))) => api::actions(s),
        ("man", _) => man::write(s, m),
        _ => Err(Failure::usage(format!("`{name}` is not a command"))),
    }
}

/// The objects named on the command line.
async fn targets(s: &Session, kind: &KindDef, m: &ArgMatches) -> Result<Vec<Target>> {
    let names = m.try_get_many::<String>("name").ok().flatten();
    let mut out = Vec::new();
    for name in names.into_iter().flatten() {
        let mut target = Target::of(kind, &s.project, name);
        // An object of such a kind may be in a project or in none: the project comes first.
        if kind.scope == "any" && !s.project_named && !name.contains('/') {
            let answer = s.client.ask(Request::get(target.path())).await?;
            if answer.status == 404 {
                target.project = None;
            }
        }
        out.push(target);
    }
    Ok(out)
}

/// The one object named on the command line.
async fn target(s: &Session, kind: &KindDef, m: &ArgMatches) -> Result<Target> {
    let target = targets(s, kind, m).await?.into_iter().next();
    target.ok_or_else(|| Failure::usage(format!("which {}? Give its name", kind.name)))
}

/// Whether a switch that this command may not have is given.
fn given(m: &ArgMatches, id: &str) -> bool {
    matches!(m.try_get_one::<bool>(id), Ok(Some(true)))
}

/// The text of an option that this command may not have.
fn text<'a>(m: &'a ArgMatches, id: &str) -> Option<&'a str> {
    m.try_get_one::<String>(id)
        .ok()
        .flatten()
        .map(String::as_str)
}

/// All texts of a repeated option.
fn texts<'a>(m: &'a ArgMatches, id: &str) -> Vec<&'a str> {
    let all = m.try_get_many::<String>(id).ok().flatten();
    all.into_iter().flatten().map(String::as_str).collect()
}

/// `--timeout`.
fn timeout(m: &ArgMatches) -> Option<std::time::Duration> {
    m.try_get_one::<std::time::Duration>("timeout")
        .ok()
        .flatten()
        .copied()
}

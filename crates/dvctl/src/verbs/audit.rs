//! `audit`: who did what, and whether that is still as it was written. A short way to the kind `audit-chain` of the spine.

use super::follow::Patience;
use super::{act, confirm, given, text};
use crate::connect::{Request, query};
use crate::failure::{Failure, INTERRUPTED, Result};
use crate::grammar::at;
use crate::output::{Format, Table, indent, now, shown, tidy, yaml};
use crate::registry::KindDef;
use crate::session::{Session, Target};
use clap::ArgMatches;
use futures::StreamExt as _;
use serde_json::{Value, json};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};

/// The kind of the spine that this is about.
const KIND: &str = "audit-chain";
/// Heads of an anchor that one request carries: the newest ones.
const HEADS: usize = 100;

/// Carries out a verb of `audit`.
pub async fn run(s: &Session, m: &ArgMatches) -> Result<()> {
    match m.subcommand() {
        Some(("list", m)) => list(s, m).await,
        Some(("verify", m)) => verify(s, m).await,
        Some(("export", m)) => export(s, m).await,
        Some(("keys", m)) => match m.subcommand() {
            Some(("rotate", m)) => {
                let chain = chain(s, m).await?;
                action(s, &chain, "rotate-keys", json!({}), m).await
            }
            Some((_, m)) => keys(s, m).await,
            None => Err(Failure::usage("which verb?")),
        },
        Some(("anchor", m)) => match m.subcommand() {
            Some((_, m)) => anchors(s, m).await,
            None => Err(Failure::usage("which verb?")),
        },
        Some(("erase", m)) => erase(s, m).await,
        _ => Err(Failure::usage("which verb?")),
    }
}

fn kind(s: &Session) -> Result<KindDef> {
    s.registry.kind(KIND)?.ok_or_else(|| {
        Failure::usage("this server keeps no audit chain").hint("is it older than this program?")
    })
}

/// The chain that is meant: the one of `--chain`, or the only one.
async fn chain(s: &Session, m: &ArgMatches) -> Result<Target> {
    let kind = kind(s)?;
    if let Some(name) = text(m, "chain") {
        return Ok(Target::of(&kind, &s.project, name));
    }
    let path = Target::of(&kind, &s.project, "").collection();
    let answer = s.client.send(Request::get(path)).await?.json()?;
    let items = answer.get("items").and_then(Value::as_array);
    let names: Vec<&str> = items
        .into_iter()
        .flatten()
        .filter_map(|item| at(item, "metadata.name").and_then(Value::as_str))
        .collect();
    match names.as_slice() {
        [one] => Ok(Target::of(&kind, &s.project, one)),
        [] => Err(Failure::usage("this server keeps no audit chain")),
        many => Err(Failure::usage("several nodes keep a chain")
            .hint(format!("say which: --chain {}", many.join(" | ")))),
    }
}

async fn action(
    s: &Session,
    chain: &Target,
    verb: &str,
    params: Value,
    m: &ArgMatches,
) -> Result<()> {
    let kind = kind(s)?;
    let declared = kind
        .action(verb)
        .ok_or_else(|| Failure::usage(format!("this server's {KIND} has no action `{verb}`")))?;
    let answer = act::submit(s, chain, verb, &params, false, false).await?;
    act::finish(s, chain, declared, &answer, Patience::of(m), false).await
}

/// Reads a stream of the chain line by line.
async fn lines(s: &Session, path: &str, mut see: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut parts = s.client.chunks(path, "*/*").await?;
    let mut held: Vec<u8> = Vec::new();
    loop {
        let part = tokio::select! {
            part = parts.next() => part,
            _ = tokio::signal::ctrl_c() => return Err(Failure::silent(INTERRUPTED)),
        };
        let Some(part) = part else { break };
        held.extend_from_slice(&part?);
        let Some(end) = held.iter().rposition(|b| *b == b'\n') else {
            continue;
        };
        let rest = held.split_off(end + 1);
        for line in held.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            see(line)?;
        }
        held = rest;
    }
    match held.is_empty() {
        true => Ok(()),
        false => Err(Failure::unreachable("the server's answer breaks off")),
    }
}

async fn list(s: &Session, m: &ArgMatches) -> Result<()> {
    let chain = chain(s, m).await?;
    let mut pairs: Vec<(&str, String)> = Vec::new();
    for name in [
        "actor", "address", "object", "action", "request", "since", "until",
    ] {
        pairs.extend(text(m, name).map(|value| (name, value.to_owned())));
    }
    for name in ["failures", "follow"] {
        pairs.extend(given(m, name).then(|| (name, "true".to_owned())));
    }
    if let Some(limit) = m.get_one::<u64>("limit") {
        pairs.push(("limit", limit.to_string()));
    }
    let path = format!("{}/streams/rows{}", chain.path(), query(&pairs));
    let read = |line: &[u8]| -> Result<Value> {
        serde_json::from_slice(line)
            .map_err(|e| Failure::unreachable(format!("a row cannot be read: {e}")))
    };
    let at_once = !s.format.is_table() || given(m, "follow");
    let wide = matches!(s.format, Format::Wide);
    let mut table = Table::new(headings(wide));
    lines(s, &path, |line| {
        let row = read(line)?;
        match at_once {
            true => one(s, &row),
            false => {
                table.row(cells(&row, wide));
                Ok(())
            }
        }
    })
    .await?;
    if at_once {
        return Ok(());
    }
    if table.is_empty() {
        s.screen.say("no rows");
        return Ok(());
    }
    s.screen.put(&table.text(s.screen.color))
}

fn headings(wide: bool) -> Vec<&'static str> {
    let mut out = vec![
        "row", "time", "actor", "action", "object", "phase", "result",
    ];
    if wide {
        out.extend(["address", "via", "program", "ms", "request"]);
    }
    out
}

fn cells(row: &Value, wide: bool) -> Vec<String> {
    let now = now();
    let cell = |name: &str| shown(row.get(name), "", now);
    let object: Vec<String> = ["kind", "project", "name"]
        .into_iter()
        .map(cell)
        .filter(|part| !part.is_empty())
        .collect();
    let mut result = cell("result");
    if let Some(more) = row.get("repeats").and_then(Value::as_u64) {
        result.push_str(&format!(" ({more} more)"));
    }
    let mut out = vec![
        cell("seq"),
        cell("time"),
        cell("actor"),
        cell("action"),
        object.join("/"),
        cell("phase"),
        result,
    ];
    if wide {
        out.extend(
            [
                "address",
                "surface",
                "user_agent",
                "duration_ms",
                "request_id",
            ]
            .map(cell),
        );
    }
    out
}

/// One row on a line of its own.
fn one(s: &Session, row: &Value) -> Result<()> {
    match s.format {
        Format::Yaml => s.screen.put(&format!("---\n{}", yaml(row)?)),
        Format::Json => s.screen.put(&format!("{row}\n")),
        Format::Name => {
            let name = row.get("action").and_then(Value::as_str);
            s.screen.put(&format!("{}\n", tidy(name.unwrap_or(""))))
        }
        Format::Table | Format::Wide => {
            let line = cells(row, matches!(s.format, Format::Wide)).join("  ");
            s.screen.put(&format!("{}\n", line.trim_end()))
        }
    }
}

async fn verify(s: &Session, m: &ArgMatches) -> Result<()> {
    let chain = chain(s, m).await?;
    let mut heads: Vec<String> = Vec::new();
    if let Some(file) = text(m, "against") {
        let read = std::fs::read_to_string(file);
        let all = read.map_err(|e| Failure::io(format!("reading {file}"), e))?;
        heads = all
            .lines()
            .filter(|line| line.contains('{'))
            .map(str::to_owned)
            .collect();
        if heads.is_empty() {
            return Err(Failure::usage(format!("{file} holds no heads of a chain")));
        }
        // The newest say the most: the chain goes through the older ones on its way there.
        heads.drain(..heads.len().saturating_sub(HEADS));
    }
    action(s, &chain, "verify", json!({ "heads": heads }), m).await
}

async fn export(s: &Session, m: &ArgMatches) -> Result<()> {
    let chain = chain(s, m).await?;
    let mut pairs: Vec<(&str, String)> = Vec::new();
    for name in ["since", "until"] {
        pairs.extend(text(m, name).map(|value| (name, value.to_owned())));
    }
    pairs.extend(given(m, "decrypt").then(|| ("decrypt", "true".to_owned())));
    let path = format!("{}/streams/export{}", chain.path(), query(&pairs));
    let Some(into) = text(m, "into") else {
        return lines(s, &path, |line| {
            s.screen.put_bytes(line)?;
            s.screen.put("\n")
        })
        .await;
    };
    let failed = |e| Failure::io(format!("writing {into}"), e);
    // What is personal may be in it: for nobody else's eyes, also where there was a file.
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(into)
        .map_err(failed)?;
    if file.metadata().map_err(failed)?.is_file() {
        let ours = std::fs::Permissions::from_mode(0o600);
        file.set_permissions(ours).map_err(failed)?;
    }
    let mut count = 0_u64;
    lines(s, &path, |line| {
        count += 1;
        file.write_all(line)
            .and_then(|()| file.write_all(b"\n"))
            .map_err(failed)
    })
    .await?;
    // What cannot be synced (a pipe) has taken them.
    if file.metadata().map_err(failed)?.is_file() {
        file.sync_all().map_err(failed)?;
    }
    s.screen.say(&format!("{count} rows are in {into}"));
    Ok(())
}

async fn erase(s: &Session, m: &ArgMatches) -> Result<()> {
    let subject = text(m, "subject").unwrap_or_default();
    let what = format!("this makes what the audit trail says of `{subject}` unreadable for ever");
    confirm::destruction(s, given(m, "yes"), &what)?;
    let chain = chain(s, m).await?;
    action(s, &chain, "erase", json!({ "subject": subject }), m).await
}

/// The object of the chain.
async fn object(s: &Session, m: &ArgMatches) -> Result<Value> {
    let chain = chain(s, m).await?;
    s.client.send(Request::get(chain.path())).await?.json()
}

/// A part of the status; tables as `table` makes them.
fn part(s: &Session, value: &Value, table: impl FnOnce() -> Result<String>) -> Result<()> {
    match s.format {
        Format::Json => s.screen.put_bytes(&indent(value.to_string().as_bytes())),
        Format::Yaml => s.screen.put(&yaml(value)?),
        _ => s.screen.put(&table()?),
    }
}

async fn keys(s: &Session, m: &ArgMatches) -> Result<()> {
    let object = object(s, m).await?;
    let keys = at(&object, "status.keys").cloned().unwrap_or_default();
    part(s, &keys, || {
        let mut table = Table::new(["state", "keys"]);
        for (state, count) in keys.as_object().into_iter().flatten() {
            table.row(vec![state.clone(), count.to_string()]);
        }
        Ok(table.text(s.screen.color))
    })
}

async fn anchors(s: &Session, m: &ArgMatches) -> Result<()> {
    let object = object(s, m).await?;
    let status = object.get("status").cloned().unwrap_or_default();
    let conditions = status.get("conditions").and_then(Value::as_array);
    let alone = conditions.into_iter().flatten().find(|c| {
        c.get("type").and_then(Value::as_str) == Some("AuditUnanchored")
            && matches!(
                c.get("status").and_then(Value::as_str),
                Some("true" | "True")
            )
    });
    let found = json!({
        "sealed_to": status.get("sealed_to"),
        "anchored_to": status.get("anchored_to"),
        "anchors": status.get("anchors"),
        "condition": alone,
    });
    part(s, &found, || {
        let mut table = Table::new(["anchor", "row", "age", "trouble"]);
        let now = now();
        for one in status
            .get("anchors")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            table.row(vec![
                shown(one.get("target"), "", now),
                shown(one.get("seq"), "", now),
                shown(one.get("time"), "age", now),
                shown(one.get("trouble"), "", now),
            ]);
        }
        Ok(match table.is_empty() {
            true => String::new(),
            false => table.text(s.screen.color),
        })
    })?;
    if let Some(alone) = alone
        && s.format.is_table()
    {
        let message = alone.get("message").and_then(Value::as_str);
        s.screen
            .say(&format!("AuditUnanchored: {}", tidy(message.unwrap_or(""))));
    }
    Ok(())
}

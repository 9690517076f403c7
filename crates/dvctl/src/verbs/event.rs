//! `event list` and `event watch`.

use super::text;
use crate::connect::{Request, query};
use crate::failure::{Failure, INTERRUPTED, Result};
use crate::grammar::at;
use crate::output::{Format, Table, now, shown, tidy, yaml};
use crate::session::Session;
use clap::ArgMatches;
use futures::StreamExt as _;
use model::Timestamp;
use serde_json::Value;

const NDJSON: &str = "application/x-ndjson";
/// How long the server may be away.
const AWAY: std::time::Duration = std::time::Duration::from_secs(60);
/// Between two tries to reach it again.
const AGAIN: std::time::Duration = std::time::Duration::from_millis(500);

/// Events are read in pages of this many.
const PAGE: usize = 1000;

/// `--since` as a time.
fn since(m: &ArgMatches) -> Result<Option<Timestamp>> {
    let Some(word) = text(m, "since") else {
        return Ok(None);
    };
    if let Some(time) = Timestamp::parse(word) {
        return Ok(Some(time));
    }
    let ago: model::Seconds = word.parse().map_err(|e| {
        Failure::usage(format!("--since: {e}")).hint("or a time such as 2026-01-31T12:00:00Z")
    })?;
    let then = now()
        .millis()
        .saturating_sub(ago.duration().as_millis() as i64);
    Ok(Some(Timestamp::from_millis(then)))
}

/// The number of an event in the server's stream of them.
fn number(event: &Value) -> u64 {
    event.get("seq").and_then(Value::as_u64).unwrap_or(0)
}

/// The first event after a number.
async fn after(s: &Session, seq: u64) -> Result<Option<Value>> {
    Ok(page(s, seq, 1).await?.into_iter().next())
}

async fn page(s: &Session, seq: u64, limit: usize) -> Result<Vec<Value>> {
    let pairs = [("since", seq.to_string()), ("limit", limit.to_string())];
    let request = Request::get(format!("/events{}", query(&pairs))).header("accept", NDJSON);
    let answer = s.client.send(request).await?;
    let lines = answer.body.split(|b| *b == b'\n');
    lines.filter_map(|line| parse(line).transpose()).collect()
}

/// The smallest number up to `end` after which the events fulfil a wish that no earlier one does. Events are only found by number, so
/// this looks at a few of them instead of reading all.
async fn first(
    s: &Session,
    end: Option<u64>,
    wish: impl Fn(Option<&Value>) -> bool,
) -> Result<u64> {
    let mut high = 256;
    while end.is_none() && !wish(after(s, high).await?.as_ref()) {
        high *= 4;
    }
    let (mut low, mut high) = (0, end.unwrap_or(high));
    while low < high {
        let middle = low + (high - low) / 2;
        match wish(after(s, middle).await?.as_ref()) {
            true => high = middle,
            false => low = middle + 1,
        }
    }
    Ok(low)
}

/// The last `limit` events not older than `since`, and the number of the very last one.
async fn past(s: &Session, since: Option<Timestamp>, limit: usize) -> Result<(Vec<Value>, u64)> {
    let last = first(s, None, |event| event.is_none()).await?;
    let begin = match since {
        None => 0,
        Some(since) => {
            let young = |event: Option<&Value>| {
                let time = event.and_then(|e| e.get("time")?.as_str().and_then(Timestamp::parse));
                event.is_none() || time.is_some_and(|time| time >= since)
            };
            first(s, Some(last), young).await?
        }
    };
    let mut at = begin.max(last.saturating_sub(limit as u64));
    let mut out = Vec::new();
    while at < last {
        let events = page(s, at, PAGE).await?;
        let Some(end) = events.last().map(number).filter(|end| *end > at) else {
            break;
        };
        at = end;
        out.extend(events);
    }
    Ok((out, last.max(at)))
}

/// The cells of an event: when, how grave, what, about which object, in words.
fn cells(event: &Value, exact: bool) -> Vec<String> {
    let now = now();
    let cell = |name: &str, unit: &str| shown(event.get(name), unit, now);
    vec![
        cell("time", if exact { "" } else { "age" }),
        cell("severity", ""),
        cell("event", ""),
        cell("about", ""),
        cell("message", ""),
    ]
}

/// The latest events.
pub async fn list(s: &Session, m: &ArgMatches) -> Result<()> {
    let limit = m.get_one::<u64>("limit").copied().unwrap_or(20);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (events, _) = past(s, since(m)?, limit).await?;
    if !s.format.is_table() {
        return events.iter().try_for_each(|event| one(s, event));
    }
    let mut table = Table::new(["age", "severity", "event", "object", "message"]);
    for event in &events {
        table.row(cells(event, false));
    }
    if table.is_empty() {
        s.screen.say("no events");
        return Ok(());
    }
    s.screen.put(&table.text(s.screen.color))
}

fn parse(line: &[u8]) -> Result<Option<Value>> {
    let line = line.trim_ascii();
    if line.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(line)
        .map(Some)
        .map_err(|e| Failure::unreachable(format!("an event cannot be read: {e}")))
}

/// One event on a line of its own.
fn one(s: &Session, event: &Value) -> Result<()> {
    match s.format {
        Format::Yaml => s.screen.put(&format!("---\n{}", yaml(event)?)),
        Format::Name => {
            let name = at(event, "event").and_then(Value::as_str);
            s.screen.put(&format!("{}\n", tidy(name.unwrap_or(""))))
        }
        Format::Json => s.screen.put(&format!("{event}\n")),
        Format::Table | Format::Wide => {
            let cells = cells(event, true);
            let line = format!(
                "{}  {:<7}  {:<24}  {:<24}  {}",
                cells[0], cells[1], cells[2], cells[3], cells[4]
            );
            s.screen.put(&format!("{}\n", line.trim_end()))
        }
    }
}

/// Events as they happen, until ^C. A server that restarts is waited for, and nothing is missed.
pub async fn watch(s: &Session, m: &ArgMatches) -> Result<()> {
    let since = since(m)?;
    let (events, mut last) = past(s, since, if since.is_some() { usize::MAX } else { 0 }).await?;
    for event in &events {
        one(s, event)?;
    }
    let mut away: Option<std::time::Instant> = None;
    loop {
        let ended = tokio::select! {
            ended = follow(s, &mut last) => ended,
            _ = tokio::signal::ctrl_c() => return Err(Failure::silent(INTERRUPTED)),
        };
        match ended {
            Ok(()) => away = None,
            Err(failure) if failure.exit == 6 => {
                let since = *away.get_or_insert_with(std::time::Instant::now);
                if since.elapsed() > AWAY {
                    return Err(failure);
                }
            }
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Shows events after number `last` until the server ends them.
async fn follow(s: &Session, last: &mut u64) -> Result<()> {
    let pairs = [("follow", "true".to_owned()), ("since", last.to_string())];
    let path = format!("/events{}", query(&pairs));
    let mut parts = s.client.chunks(&path, NDJSON).await?;
    let mut held: Vec<u8> = Vec::new();
    while let Some(part) = parts.next().await {
        held.extend_from_slice(&part?);
        while let Some(end) = held.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = held.drain(..=end).collect();
            if let Some(event) = parse(&line)? {
                *last = number(&event).max(*last);
                one(s, &event)?;
            }
        }
    }
    Ok(())
}

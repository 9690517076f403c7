//! What the gate costs: a `get` by somebody with an API key and with a session, with 1,000 roles and 10,000 grants in the
//! store, beside the same request at the same server without checks; and how long one decision takes.
//!
//! `gate_bench [--json] [--rounds N] [--seconds S] [--roles N] [--grants N]`. The server without checks is made here and
//! nowhere else: it is the same server with parts of this file that look at nothing. A ratio is the median of each
//! round's own ratio, and the rounds go to and fro between the two. Client and server share the machine.

#[path = "../api_bench/client.rs"]
mod client;
#[path = "../api_bench/machine.rs"]
mod machine;
mod open;
mod stand;

use client::Client;
use serde_json::json;
use stand::{Gates, Stand};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Connections of the keep-alive load.
const CONNECTIONS: usize = 16;
/// Objects in the store.
pub const OBJECTS: usize = 1_000;
/// Decisions that are timed.
const DECISIONS: usize = 200_000;

/// Whatever went wrong ends the measurement.
type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Asked {
    json: bool,
    rounds: usize,
    time: Duration,
    roles: usize,
    grants: usize,
}

fn asked() -> Result<Asked, Failure> {
    let mut asked = Asked {
        json: false,
        rounds: 5,
        time: Duration::from_secs(2),
        roles: 1_000,
        grants: 10_000,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} wants a value"));
        match arg.as_str() {
            "--json" => asked.json = true,
            "--rounds" => asked.rounds = value()?.parse::<usize>()?.max(1),
            "--seconds" => asked.time = Duration::from_secs_f64(value()?.parse()?),
            "--roles" => asked.roles = value()?.parse::<usize>()?.max(1),
            "--grants" => asked.grants = value()?.parse()?,
            _ => {
                return Err(format!(
                    "unknown argument {arg}; known: --json --rounds --seconds --roles --grants"
                )
                .into());
            }
        }
    }
    Ok(asked)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let asked = asked()?;
    let begun = Instant::now();
    let checked = Stand::start(Gates::Shut, asked.roles, asked.grants).await?;
    let open = Stand::start(Gates::Open, asked.roles, asked.grants).await?;
    eprintln!(
        "{} roles and {} grants stand after {:.1} s",
        asked.roles,
        asked.grants,
        begun.elapsed().as_secs_f64()
    );
    let path = format!("{}/m{:05}", machine::PATH, OBJECTS / 2);
    for (name, with) in [("API key", &checked.key), ("session", &checked.session)] {
        compare(&asked, (&checked, &open), name, with, &path).await?;
    }
    decide(&asked, &checked)?;
    checked.close().await;
    open.close().await;
    Ok(())
}

/// Requests a second with and without checks.
async fn compare(
    asked: &Asked,
    (checked, open): (&Stand, &Stand),
    name: &str,
    token: &str,
    path: &str,
) -> Result<(), Failure> {
    let (mut with, mut without, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..asked.rounds {
        // Whatever else the machine does hits both: the order changes from round to round.
        let (on, off) = if round % 2 == 0 {
            let on = load(checked, token, path, asked.time).await?;
            (on, load(open, token, path, asked.time).await?)
        } else {
            let off = load(open, token, path, asked.time).await?;
            (load(checked, token, path, asked.time).await?, off)
        };
        with.push(on);
        without.push(off);
        ratios.push(on / off);
    }
    let figure = |what: &str| format!("{name}: {what}");
    print(
        asked.json,
        &figure("checked"),
        median(with),
        "requests/s",
        "",
        None,
    );
    print(
        asked.json,
        &figure("unchecked"),
        median(without),
        "requests/s",
        "",
        None,
    );
    let ratio = median(ratios);
    let met = (">= 0.8".to_owned(), ratio >= 0.8);
    print(
        asked.json,
        &figure("ratio"),
        ratio,
        "",
        "no checks",
        Some(met),
    );
    Ok(())
}

/// Keep-alive load for a while: how many requests a second were answered.
async fn load(stand: &Stand, token: &str, path: &str, time: Duration) -> Result<f64, Failure> {
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = stand.connect(token).await?;
        client.get(path).await?;
        clients.push(client);
    }
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for mut client in clients {
        let path = path.to_owned();
        running.spawn(async move {
            let mut answered = 0u64;
            while begun.elapsed() < time {
                client.skip(&path).await?;
                answered += 1;
            }
            Ok::<u64, Failure>(answered)
        });
    }
    let mut answered = 0;
    while let Some(one) = running.join_next().await {
        answered += one??;
    }
    Ok(answered as f64 / begun.elapsed().as_secs_f64())
}

/// How long the gate thinks about one request, of any user and any object.
fn decide(asked: &Asked, stand: &Stand) -> Result<(), Failure> {
    let mut took = Vec::with_capacity(DECISIONS);
    for n in 0..DECISIONS {
        let (request, allowed) = stand.wish(n);
        let begun = Instant::now();
        let admitted = stand.cx.gate().admit(request).is_ok();
        took.push(begun.elapsed());
        if admitted != allowed {
            return Err(format!("decision {n} was {admitted} and not {allowed}").into());
        }
    }
    took.sort_unstable();
    let at = |share: f64| {
        let index = ((took.len() as f64 * share).ceil() as usize).clamp(1, took.len()) - 1;
        took[index].as_secs_f64() * 1e6
    };
    print(asked.json, "decision: p50", at(0.50), "us", "", None);
    let met = ("<= 50".to_owned(), at(0.99) <= 50.0);
    print(asked.json, "decision: p99", at(0.99), "us", "", Some(met));
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn print(
    as_json: bool,
    figure: &str,
    value: f64,
    unit: &str,
    against: &str,
    wanted: Option<(String, bool)>,
) {
    if as_json {
        let (wanted, met) = wanted.unzip();
        let value = (value * 1000.0).round() / 1000.0;
        println!(
            "{}",
            json!({ "bench": "gate", "figure": figure, "value": value, "unit": unit, "against": against,
                    "wanted": wanted.unwrap_or_default(), "met": met })
        );
    } else {
        let (wanted, met) = wanted.map_or((String::new(), ""), |(wanted, met)| {
            (wanted, if met { "yes" } else { "NO" })
        });
        println!("{figure:<30} {value:>10.2} {unit:<12} {wanted:<9} {met}");
    }
}

//! How fast the REST surface is, measured beside a static axum handler that returns the same bytes over the same TLS.
//!
//! `api_bench [--json] [--rounds N] [--seconds S] [--objects N]`. Objects lie in the memory store, so that what is
//! measured is the surface: gate, cache, HTTP, TLS. Client and server share the machine. A ratio is the median of each
//! round's own ratio; then walks over all objects start on a schedule, whether the one before has ended or not.

mod client;
mod machine;
mod stand;

use client::Client;
use serde_json::json;
use stand::Stand;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Connections of the keep-alive load.
const CONNECTIONS: usize = 16;
/// Objects of a page.
const PAGE: usize = 500;
/// Walks begun each second, and for how long.
const WALKS: u32 = 30;
const WALKING: Duration = Duration::from_secs(20);

/// Whatever went wrong ends the measurement.
type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Asked {
    json: bool,
    rounds: usize,
    time: Duration,
    objects: usize,
}

fn asked() -> Result<Asked, Failure> {
    let mut asked = Asked {
        json: false,
        rounds: 3,
        time: Duration::from_secs(3),
        objects: 10_000,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} wants a value"));
        match arg.as_str() {
            "--json" => asked.json = true,
            "--rounds" => asked.rounds = value()?.parse()?,
            "--seconds" => asked.time = Duration::from_secs_f64(value()?.parse()?),
            "--objects" => asked.objects = value()?.parse()?,
            _ => {
                return Err(format!(
                    "unknown argument {arg}; known: --json --rounds --seconds --objects"
                )
                .into());
            }
        }
    }
    if asked.rounds == 0 || asked.objects == 0 {
        return Err("--rounds and --objects must be at least 1".into());
    }
    Ok(asked)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let asked = asked()?;
    let stand = Arc::new(Stand::open(asked.objects).await?);
    let get = format!("{}/m{:05}", machine::PATH, asked.objects / 2);
    let list = format!("{}?limit={PAGE}", machine::PATH);
    for (name, path, wanted) in [("get", get, 0.4), ("list of 500", list, 0.5)] {
        compare(&asked, &stand, name, &path, wanted).await?;
    }
    walk(&asked, &stand).await?;
    stand.close().await;
    Ok(())
}

/// Requests a second of one path, from us and from the static handler.
async fn compare(
    asked: &Asked,
    stand: &Arc<Stand>,
    name: &str,
    path: &str,
    wanted: f64,
) -> Result<(), Failure> {
    let mut first = stand.connect(stand.ours).await?;
    let bytes = first.get(path).await?;
    stand.show(bytes);
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..asked.rounds {
        let us = load(stand, stand.ours, path, asked.time).await?;
        let them = load(stand, stand.theirs, "/", asked.time).await?;
        ours.push(us);
        theirs.push(them);
        ratios.push(us / them);
    }
    print(
        asked.json,
        &format!("{name}: ours"),
        median(ours),
        "requests/s",
        "",
        None,
    );
    print(
        asked.json,
        &format!("{name}: static"),
        median(theirs),
        "requests/s",
        "",
        None,
    );
    let ratio = median(ratios);
    let met = (format!(">= {wanted}"), ratio >= wanted);
    print(
        asked.json,
        &format!("{name}: ratio"),
        ratio,
        "",
        "a static axum handler",
        Some(met),
    );
    Ok(())
}

/// Keep-alive load for a while: how many requests a second were answered.
async fn load(
    stand: &Arc<Stand>,
    at: std::net::SocketAddr,
    path: &str,
    time: Duration,
) -> Result<f64, Failure> {
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = stand.connect(at).await?;
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

/// Walks over all objects, begun on a schedule.
async fn walk(asked: &Asked, stand: &Arc<Stand>) -> Result<(), Failure> {
    let mut walking = JoinSet::new();
    let count = WALKS * WALKING.as_secs() as u32;
    let begun = tokio::time::Instant::now();
    // Clients stay connected between walks, as a panel would.
    let (give, take) = tokio::sync::mpsc::unbounded_channel::<Client>();
    let take = Arc::new(tokio::sync::Mutex::new(take));
    for n in 0..count {
        let due = begun + Duration::from_secs(1) * n / WALKS;
        tokio::time::sleep_until(due).await;
        let (stand, give, take) = (stand.clone(), give.clone(), take.clone());
        let objects = asked.objects;
        walking.spawn(async move {
            let idle = take.lock().await.try_recv().ok();
            let mut client = match idle {
                Some(client) => client,
                None => stand.connect(stand.ours).await?,
            };
            let (mut after, mut seen) = (String::new(), 0);
            loop {
                let path = format!("{}?limit={PAGE}&fields=name,state{after}", machine::PATH);
                let body = client.get(&path).await?;
                let page: Page = serde_json::from_slice(&body)?;
                seen += page.items.len();
                match page.next {
                    Some(next) => after = format!("&after={next}"),
                    None => break,
                }
            }
            if seen != objects {
                return Err(format!("a walk saw {seen} of {objects} objects").into());
            }
            let took = due.elapsed();
            give.send(client)
                .map_err(|_| "nobody takes the client back")?;
            Ok::<Duration, Failure>(took)
        });
    }
    let mut took = Vec::new();
    while let Some(one) = walking.join_next().await {
        took.push(one??);
    }
    took.sort_unstable();
    let at = |share: f64| {
        let index = ((took.len() as f64 * share).ceil() as usize).clamp(1, took.len()) - 1;
        took[index].as_secs_f64() * 1000.0
    };
    let rate = format!("{WALKS} walks/s over {} objects", asked.objects);
    print(asked.json, "walk: p50", at(0.50), "ms", &rate, None);
    let met = ("<= 150".to_owned(), at(0.99) <= 150.0);
    print(asked.json, "walk: p99", at(0.99), "ms", &rate, Some(met));
    Ok(())
}

#[derive(serde::Deserialize)]
struct Page {
    items: Vec<serde::de::IgnoredAny>,
    next: Option<String>,
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
            json!({ "bench": "api", "figure": figure, "value": value, "unit": unit, "against": against,
                    "wanted": wanted.unwrap_or_default(), "met": met })
        );
    } else {
        let (wanted, met) = wanted.map_or((String::new(), ""), |(wanted, met)| {
            (wanted, if met { "yes" } else { "NO" })
        });
        println!("{figure:<30} {value:>10.2} {unit:<12} {wanted:<9} {met}");
    }
}

//! How fast the SQLite store is, measured beside a plain loop over SQLite that writes the same rows.
//!
//! `store_bench [--json] [--rounds N] [--seconds S] [--dir FOLDER]`. Every round measures everything once, one after
//! the other, in fresh files; a figure is the median over rounds, and a ratio the median of each round's own ratio.
//! All of it is durable: WAL, `synchronous=FULL`, an fsync before anything counts.

use futures::StreamExt;
use rusqlite::{Connection, params};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use store::{Key, Prefix, Revision, Sqlite, Store, Txn};
use tokio::task::JoinSet;

/// Size of a value: about that of a VM object.
const VALUE: usize = 1024;
/// Rows in a transaction of the batched raw loop.
const BATCH: u64 = 64;
/// In-process watchers.
const WATCHERS: usize = 1000;
/// Commits that the watchers see in a round.
const SEEN: u64 = 40;

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Asked {
    json: bool,
    rounds: usize,
    time: Duration,
    dir: Option<String>,
}

fn asked() -> Result<Asked, Failure> {
    let mut asked = Asked {
        json: false,
        rounds: 5,
        time: Duration::from_secs(2),
        dir: None,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} wants a value"));
        match arg.as_str() {
            "--json" => asked.json = true,
            "--rounds" => asked.rounds = value()?.parse()?,
            "--seconds" => asked.time = Duration::from_secs_f64(value()?.parse()?),
            "--dir" => asked.dir = Some(value()?),
            _ => {
                return Err(format!(
                    "unknown argument {arg}; known: --json --rounds --seconds --dir"
                )
                .into());
            }
        }
    }
    if asked.rounds == 0 {
        return Err("--rounds must be at least 1".into());
    }
    Ok(asked)
}

fn key(n: u64) -> String {
    format!("o/vm/default/vm-{n:08}")
}

fn value(n: u64) -> Vec<u8> {
    let mut value = format!("{{\"metadata\":{{\"name\":\"vm-{n:08}\"}},\"spec\":\"").into_bytes();
    value.resize(VALUE, b'x');
    value
}

/// Commits a second of `writers` tasks through the store.
async fn store(dir: &Path, writers: usize, time: Duration) -> Result<f64, Failure> {
    let store = Sqlite::open(dir)?;
    let next = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..writers {
        let (store, next, stop, done) = (store.clone(), next.clone(), stop.clone(), done.clone());
        tasks.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let n = next.fetch_add(1, Ordering::Relaxed);
                store
                    .commit(Txn::new().create(Key::new(key(n)), value(n)))
                    .await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, Failure>(())
        });
    }
    tokio::time::sleep(time / 10).await;
    let (before, began) = (done.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(time).await;
    let rate = (done.load(Ordering::Relaxed) - before) as f64 / began.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    store.close().await;
    Ok(rate)
}

/// Rows a second of a plain loop that writes `batch` rows in a transaction, into the same table.
fn raw(dir: &Path, batch: u64, time: Duration) -> Result<f64, Failure> {
    std::fs::create_dir_all(dir)?;
    let mut db = Connection::open(dir.join("raw.db"))?;
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -8192;
         PRAGMA wal_autocheckpoint = 2000;
         CREATE TABLE entries (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, value BLOB NOT NULL,
             created INTEGER NOT NULL, modified INTEGER NOT NULL, lease INTEGER) STRICT;
         CREATE INDEX entries_by_lease ON entries (lease) WHERE lease IS NOT NULL;",
    )?;
    let mut n = 0;
    let mut write = |until: Duration| -> Result<f64, Failure> {
        let (before, began) = (n, Instant::now());
        while began.elapsed() < until {
            let txn = db.transaction()?;
            {
                let sql = "INSERT INTO entries (key, value, created, modified, lease) VALUES (?1, ?2, ?3, ?3, NULL)";
                let mut insert = txn.prepare_cached(sql)?;
                for _ in 0..batch {
                    insert.execute(params![key(n), value(n), n as i64])?;
                    n += 1;
                }
            }
            txn.commit()?;
        }
        Ok((n - before) as f64 / began.elapsed().as_secs_f64())
    };
    write(time / 10)?;
    write(time)
}

/// Milliseconds until a watcher has a commit, the 99th of 100: from the start of the commit, and from its answer.
async fn watchers(dir: &Path) -> Result<(f64, f64), Failure> {
    let store = Sqlite::open(dir)?;
    let mut tasks = JoinSet::new();
    for _ in 0..WATCHERS {
        let mut watch = store.watch(&Prefix::new("o/"), Revision::ZERO);
        tasks.spawn(async move {
            let mut seen = Vec::new();
            while seen.len() < SEEN as usize {
                let Some(change) = watch.next().await else {
                    break;
                };
                change?;
                seen.push(Instant::now());
            }
            Ok::<_, Failure>(seen)
        });
    }
    let mut commits = Vec::new();
    for n in 0..SEEN {
        tokio::time::sleep(Duration::from_millis(25)).await;
        let began = Instant::now();
        store
            .commit(Txn::new().put(Key::new(key(n)), value(n)))
            .await?;
        commits.push((began, Instant::now()));
    }
    let (mut whole, mut after) = (Vec::new(), Vec::new());
    while let Some(task) = tasks.join_next().await {
        for (seen, (began, answered)) in task??.into_iter().zip(&commits) {
            whole.push(seen - *began);
            after.push(seen.saturating_duration_since(*answered));
        }
    }
    if whole.len() != WATCHERS * SEEN as usize {
        return Err(format!(
            "watchers saw {} changes instead of {}",
            whole.len(),
            WATCHERS * SEEN as usize
        )
        .into());
    }
    store.close().await;
    Ok((p99_ms(whole), p99_ms(after)))
}

fn p99_ms(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() * 99 / 100].as_secs_f64() * 1e3
}

/// What one round measured.
struct Round {
    one: f64,
    sixteen: f64,
    sixty_four: f64,
    batched: f64,
    single: f64,
    seen_ms: f64,
    after_ms: f64,
}

async fn round(dir: &Path, time: Duration) -> Result<Round, Failure> {
    let at = |name: &str| dir.join(name);
    let (batched_at, single_at) = (at("batched"), at("single"));
    let batched = tokio::task::spawn_blocking(move || raw(&batched_at, BATCH, time)).await??;
    let sixty_four = store(&at("64"), 64, time).await?;
    let single = tokio::task::spawn_blocking(move || raw(&single_at, 1, time)).await??;
    let one = store(&at("1"), 1, time).await?;
    let sixteen = store(&at("16"), 16, time).await?;
    let (seen_ms, after_ms) = watchers(&at("watch")).await?;
    Ok(Round {
        one,
        sixteen,
        sixty_four,
        batched,
        single,
        seen_ms,
        after_ms,
    })
}

fn median(rounds: &[Round], of: impl Fn(&Round) -> f64) -> f64 {
    let mut values: Vec<_> = rounds.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<(), Failure> {
    let asked = asked()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut rounds = Vec::new();
    for _ in 0..asked.rounds {
        let dir = match &asked.dir {
            Some(dir) => tempfile::tempdir_in(dir)?,
            None => tempfile::tempdir()?,
        };
        rounds.push(runtime.block_on(round(dir.path(), asked.time))?);
    }

    let batched = median(&rounds, |r| r.batched);
    let single = median(&rounds, |r| r.single);
    // Figure, value, unit, what it is held against, what is wanted, whether that is met.
    type Line = (
        &'static str,
        f64,
        &'static str,
        String,
        &'static str,
        Option<bool>,
    );
    let rate = |figure, value, against: &str| -> Line {
        (figure, value, "per second", against.into(), "", None)
    };
    let to_batched = median(&rounds, |r| r.sixty_four / r.batched);
    let to_single = median(&rounds, |r| r.sixty_four / r.single);
    let seen = median(&rounds, |r| r.seen_ms);
    let after = median(&rounds, |r| r.after_ms);
    let lines = [
        rate("raw rows, 64 in a transaction", batched, ""),
        rate("raw rows, single", single, ""),
        rate(
            "commits, 1 writer",
            median(&rounds, |r| r.one),
            "raw rows, single",
        ),
        rate("commits, 16 writers", median(&rounds, |r| r.sixteen), ""),
        rate(
            "commits, 64 writers",
            median(&rounds, |r| r.sixty_four),
            "raw rows, 64 in a transaction",
        ),
        (
            "64 writers / batched",
            to_batched,
            "ratio",
            format!("{batched:.0}/s"),
            ">= 0.6",
            Some(to_batched >= 0.6),
        ),
        (
            "64 writers / single",
            to_single,
            "ratio",
            format!("{single:.0}/s"),
            ">= 2.5",
            Some(to_single >= 2.5),
        ),
        (
            "1000 watchers see a commit, p99",
            seen,
            "ms",
            String::new(),
            "<= 20",
            Some(seen <= 20.0),
        ),
        (
            "of that, after the commit's answer",
            after,
            "ms",
            String::new(),
            "",
            None,
        ),
    ];
    if !asked.json {
        println!(
            "{:<34} {:>10} {:<11} {:<8} met",
            "figure", "value", "unit", "wanted"
        );
    }
    for (figure, value, unit, against, wanted, met) in lines {
        if asked.json {
            let value = (value * 1000.0).round() / 1000.0;
            let line = serde_json::json!({"bench": "store", "figure": figure, "value": value, "unit": unit, "against": against, "wanted": wanted, "met": met});
            println!("{line}");
        } else {
            let met = met.map_or("", |met| if met { "yes" } else { "NO" });
            let value = if unit == "per second" {
                format!("{value:.0}")
            } else {
                format!("{value:.2}")
            };
            println!("{figure:<34} {value:>10} {unit:<11} {wanted:<8} {met}");
        }
    }
    if !asked.json {
        println!(
            "medians of {} rounds of {:?}; values of {VALUE} bytes",
            asked.rounds, asked.time
        );
    }
    Ok(())
}

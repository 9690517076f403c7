//! What the audit trail costs, and how fast it is looked through.
//!
//! `audit_bench (audit|verify) [--json] [--rounds N] [--seconds S] [--rows N] [--dir FOLDER]`. `audit`: state-changing
//! requests a second through gate, desk and SQLite with the trail durable, beside the same without a trail; a ratio is
//! the median of each round's own. `verify`: rows a second of one core over a trail of a million rows, and the memory
//! that it takes.

use model::{Kind, Resource, Result, Scope, Verb, schema};
use runtime::audit::{self, AuditTrail, FileTrail, Note, TrailOptions};
use runtime::{
    Actor, CxBuilder, Op, Place, Registry, Request, Seal, Seat, Subsystem, Surface, no_controllers,
    normal, nothing_to_admit,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use store::Sqlite;
use tokio::task::JoinSet;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Callers at once.
const CALLERS: usize = 64;

/// Something that can be made.
struct Widget;

impl Resource for Widget {
    const KIND: &'static Kind = &KIND;
    type Spec = WidgetSpec;
    type Status = WidgetStatus;
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct WidgetSpec {
    /// What it is for.
    purpose: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct WidgetStatus {
    /// Generation of its spec that was seen.
    observed_generation: u64,
}

static KIND: Kind = Kind {
    name: "widget",
    plural: "widgets",
    title: "Widget",
    scope: Scope::Cluster,
    doc: "Something that can be made.",
    verbs: &[Verb::Read, Verb::Create],
    spec: schema::of::<WidgetSpec>,
    status: schema::of::<WidgetStatus>,
    columns: &[],
    actions: &[],
    streams: &[],
    examples: &[],
};

static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Api,
    seat: Seat::Api,
    normal: normal::<Widget>,
    admit: nothing_to_admit,
    runs: &[],
    undos: &[],
    streams: &[],
    finalizes: false,
    controllers: no_controllers,
};

/// Wraps keys with nothing: it is not about them.
struct Bare;

impl Seal for Bare {
    fn seal(&self, _: &str, plain: &str) -> Result<String> {
        Ok(plain.to_owned())
    }
    fn open(&self, _: &str, sealed: &str) -> Result<String> {
        Ok(sealed.to_owned())
    }
}

struct Asked {
    verify: bool,
    json: bool,
    rounds: usize,
    time: Duration,
    rows: u64,
    dir: Option<PathBuf>,
}

fn asked() -> std::result::Result<Asked, Failure> {
    let mut args = std::env::args().skip(1);
    let verify = match args.next().as_deref() {
        Some("audit") => false,
        Some("verify") => true,
        _ => return Err("say what: audit or verify".into()),
    };
    let mut asked = Asked {
        verify,
        json: false,
        rounds: 5,
        time: Duration::from_secs(2),
        rows: 1_000_000,
        dir: None,
    };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} wants a value"));
        match arg.as_str() {
            "--json" => asked.json = true,
            "--rounds" => asked.rounds = value()?.parse::<usize>()?.max(1),
            "--seconds" => asked.time = Duration::from_secs_f64(value()?.parse()?),
            "--rows" => asked.rows = value()?.parse()?,
            "--dir" => asked.dir = Some(value()?.into()),
            _ => return Err(format!("unknown argument {arg}").into()),
        }
    }
    Ok(asked)
}

async fn trail(dir: &Path) -> Result<Arc<FileTrail>> {
    let options = TrailOptions::new(&dir.join("rows"), &dir.join("keys"), Arc::new(Bare));
    FileTrail::open(options).await.map(Arc::new)
}

/// Requests a second that make something.
async fn requests(dir: &Path, audited: bool, time: Duration) -> std::result::Result<f64, Failure> {
    let sqlite = Sqlite::open(dir.join("store"))?;
    let registry = Registry::new(&[runtime::SUBSYSTEMS, &[&SUBSYSTEM]])?;
    let mut cx = CxBuilder::new(registry, sqlite.clone()).place(Place::Api);
    let mut kept = None;
    if audited {
        let trail = trail(dir).await?;
        trail.share(&sqlite);
        cx = cx
            .part(trail.clone())
            .part(Arc::new(AuditTrail::new(trail.clone())));
        kept = Some(trail);
    }
    let cx = cx.build().await?;
    let (stop, done) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (cx, stop, done) = (cx.clone(), stop.clone(), done.clone());
        callers.spawn(async move {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                let body = json!({
                    "metadata": { "name": format!("w-{caller}-{n}") },
                    "spec": { "purpose": "to be counted" },
                });
                let op = Op::Create {
                    kind: "widget".into(),
                    project: None,
                    body,
                };
                let actor = Actor::administrator("bench");
                let mut request = Request::new(format!("b-{caller}-{n}"), actor, Surface::Rest, op);
                request.from = Some([192, 0, 2, 7].into());
                request.user_agent = Some("audit_bench/1".into());
                cx.desk().carry_out(cx.gate().admit(request)?).await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, Failure>(())
        });
    }
    tokio::time::sleep(time / 5).await;
    let (before, began) = (done.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(time).await;
    let rate = (done.load(Ordering::Relaxed) - before) as f64 / began.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    cx.life().stop(Duration::from_secs(5)).await;
    if let Some(trail) = kept {
        trail.close().await;
    }
    sqlite.close().await;
    Ok(rate)
}

/// A trail of so many rows, and the heads to verify it against.
async fn filled(dir: &Path, rows: u64) -> std::result::Result<Vec<audit::Head>, Failure> {
    let trail = trail(dir).await?;
    let registry = Registry::new(&[runtime::SUBSYSTEMS])?;
    let cx = CxBuilder::new(registry, store::Memory::new())
        .part(Arc::new(AuditTrail::new(trail.clone())))
        .build()
        .await?;
    let mut writers = JoinSet::new();
    for writer in 0..CALLERS as u64 {
        let cx = cx.clone();
        writers.spawn(async move {
            for _ in (writer..rows).step_by(CALLERS) {
                let actor = Actor::administrator("bench");
                let login = Note::by(&audit::LOGIN_SUCCEEDED, &actor)
                    .from(Some([192, 0, 2, 7].into()))
                    .user_agent(Some("audit_bench/1"));
                audit::note(&cx, login).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended??;
    }
    trail.seal().await?;
    trail.close().await;
    cx.life().stop(Duration::from_secs(5)).await;
    let heads = std::fs::read_to_string(trail.places().1)?;
    Ok(audit::heads_of(&heads, 1000))
}

/// The most memory that this process has had, in MiB, from the kernel.
fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn show(asked: &Asked, figure: &str, value: f64, unit: &str, wanted: Option<f64>) {
    let bench = if asked.verify { "verify" } else { "audit" };
    let met = wanted.map(|least| value >= least);
    if asked.json {
        println!(
            "{}",
            json!({ "bench": bench, "figure": figure, "value": value, "unit": unit, "wanted": wanted.map(|w| format!(">= {w}")), "met": met })
        );
        return;
    }
    let wanted = wanted.map(|w| format!(">= {w}")).unwrap_or_default();
    let met = met.map_or("", |met| if met { "met" } else { "MISSED" });
    println!("{figure:<44} {value:>12.2} {unit:<11} {wanted:<10} {met}");
}

#[tokio::main]
async fn main() -> std::result::Result<(), Failure> {
    let asked = asked()?;
    let folder = || match &asked.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    if asked.verify {
        let dir = folder()?;
        let heads = filled(dir.path(), asked.rows).await?;
        let rows = dir.path().join("rows");
        let before = peak();
        let mut rates = Vec::new();
        for _ in 0..asked.rounds {
            let (rows, heads) = (rows.clone(), heads.clone());
            let began = Instant::now();
            let verdict =
                tokio::task::spawn_blocking(move || audit::verify(&rows, heads)).await??;
            if !verdict.sound {
                return Err(verdict.sentence().into());
            }
            rates.push(verdict.rows as f64 / began.elapsed().as_secs_f64());
        }
        show(
            &asked,
            "rows verified",
            median(rates),
            "rows/s",
            Some(300_000.0),
        );
        show(&asked, "memory that it took", peak() - before, "MiB", None);
        return Ok(());
    }
    let (mut with, mut without, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..asked.rounds {
        // Which comes first changes, so that neither has the warmer disk.
        let mut rates = [0.0; 2];
        for audited in [round % 2 == 0, round % 2 != 0] {
            let dir = folder()?;
            rates[usize::from(audited)] = requests(dir.path(), audited, asked.time).await?;
        }
        without.push(rates[0]);
        with.push(rates[1]);
        ratios.push(rates[1] / rates[0].max(1.0));
    }
    show(
        &asked,
        "changes without a trail",
        median(without),
        "requests/s",
        None,
    );
    show(
        &asked,
        "changes with the trail durable",
        median(with),
        "requests/s",
        None,
    );
    show(
        &asked,
        "with the trail, against without",
        median(ratios),
        "x",
        Some(0.7),
    );
    Ok(())
}

//! The role `api`: owns the store, listens, decides. It needs no privilege beyond its own folders.

use crate::config::Config;
use crate::kinds;
use crate::logs::Levels;
use crate::signals;
use crate::syslog::Syslog;
use anyhow::Context;
use identity::login::People;
use identity::{Ca, CaConfig, Surroundings};
use runtime::audit::{self, AnchorCarrier, AuditTrail, FileTrail, TrailOptions};
use runtime::event::{Events, FileLog};
use runtime::task::{FileLines, TaskLogs};
use runtime::{Clock, Cx, CxBuilder, Engine, Place, SystemClock, link, setting, store_kind};
use server::{Check, Ended, Finding, Listeners, Server};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use store::Sqlite;
use store::seal::Sealer;
use tokio::net::UnixListener;

/// The rows of the audit trail, in the state folder.
pub const TRAIL: &str = "streams/trail";
/// The keys of the audit trail, in the state folder.
pub const AUDIT_KEYS: &str = "keys/audit";

/// Runs until asked to end; answers whether some requests had to be cut off.
pub async fn run(config: Config, levels: Levels) -> anyhow::Result<bool> {
    let state = folder(&config.state_dir, 0o755)?;
    let run_dir = folder(&config.run_dir, 0o755)?;
    let (opened, root) = (state.clone(), config.root_source()?);
    let (sqlite, sealer) = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        let store = Sqlite::open(folder(&opened.join("store"), 0o700)?)?;
        let sealer = Sealer::open(root, folder(&opened.join("keys"), 0o700)?)?;
        Ok((store, Arc::new(sealer)))
    })
    .await??;
    // Ports first: one in use must stop us before anything is written, as whoever we run.
    let (listeners, https) = listeners(&config, &run_dir).await?;
    let agents = agent_socket(&run_dir).await?;
    let streams = folder(&state.join("streams"), 0o700)?;
    let lines = TaskLogs::new(Arc::new(FileLines::new(&streams.join("tasks"))));
    let events = Events::new(Arc::new(FileLog::open(&streams.join("events")).await?));
    let (rules, access) = identity::access::parts();
    let people = People::new();
    let pins = Arc::new(identity::pin::Pins::default());
    let authority = Ca::open_in(
        CaConfig {
            folder: state.join("pki"),
            cluster: config.instance.clone().unwrap_or_else(|| "debvisor".into()),
            names: names(&config)?,
            now: Arc::new(|| SystemClock.now()),
        },
        Surroundings {
            seal: Some(sealer.clone()),
            published_at: published_at(&config)?,
        },
    )?;
    let audit = TrailOptions::new(&state.join(TRAIL), &state.join(AUDIT_KEYS), sealer.clone());
    let trail = Arc::new(FileTrail::open(audit).await?);
    trail.share(&sqlite);
    let cx = CxBuilder::new(kinds::registry()?, sqlite.clone())
        .place(Place::Api)
        .node(config.node_name()?.to_string())
        .seal(sealer)
        .part(authority.clone())
        .events(events)
        .part(Arc::new(lines))
        .part(Arc::new(identity::secret_backend::Backends::default()))
        .part(Arc::new(identity::realm::ldap::Directories::default()))
        .part(Arc::new(identity::realm::oidc::Providers::default()))
        .part(Arc::new(
            runtime::SecretUsers::new(identity::secret_users()),
        ))
        .part(sqlite.clone())
        .part(rules.clone())
        .part(access)
        .part(identity::quota::part())
        .part(crate::rates::part())
        .part(people.part())
        .part(pins.clone())
        .part(Arc::new(identity::acme::ByHand::default()))
        .part(Arc::new(identity::acme::Hook(config.acme.dns_hook.clone())))
        .part(Arc::new(AuditTrail::new(trail.clone())))
        .part(trail.clone())
        .part(Arc::new(AnchorCarrier(Arc::new(Syslog))))
        .build()
        .await?;
    levels.follow(&cx);
    let ending = signals::ending(cx.life())?;
    let stop = cx.shutdown();
    cx.life()
        .spawn("certificates", authority.clone().keep_fresh(stop));
    if identity::project::make_default(&cx).await? {
        tracing::info!("the project `default` was made");
    }
    identity::role::make_built_in(&cx).await?;
    identity::realm::make_local(&cx).await?;
    people.start(&cx, authority.clone());
    cx.life().spawn("pins", pins.follow(cx.clone()));
    cx.life().spawn("access rules", rules.follow(cx.clone()));
    setting::make(&cx).await?;
    let renewed = runtime::renew_secrets(&cx).await;
    if renewed > 0 {
        tracing::info!(renewed, "secrets were sealed anew with the newest keys");
    }
    store_kind::make(&cx).await?;
    identity::ca::kind::make(&cx).await?;
    identity::api_key::policy::make(&cx).await?;
    // Before the first connection, so that nobody is shown another certificate than the one that was chosen.
    if let Err(error) = identity::certificate::panel::apply(&cx) {
        tracing::error!(%error, "the panel shows the internal certificate");
    }
    audit::make(&cx).await?;
    Engine::start(&cx);
    let me = nix::unistd::geteuid().as_raw();
    cx.life()
        .spawn("agents", link::serve(cx.clone(), agents, vec![0, me]));
    cx.life()
        .spawn("copies of the store", copies(cx.clone(), sqlite.clone()));
    cx.life()
        .spawn("slow reads", slow_reads(cx.clone(), sqlite.clone()));
    let server = Server::builder(cx.clone(), authority)
        .owner(me)
        .check(agent_check(&cx))
        .check(disk_check(&state))
        .check(clock_check())
        .build()?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), state = %state.display(), "api is up");
    crate::first_start::tell(&cx, &people, https).await;
    crate::notify::ready();
    let ended = server.serve(listeners, ending).await?;
    crate::notify::stopping();
    cx.life().drain();
    let left = cx.life().stop(Duration::from_secs(5)).await;
    if !left.is_empty() {
        tracing::warn!(tasks = ?left, "some tasks of this process did not end in time");
    }
    trail.close().await;
    sqlite.close().await;
    Ok(ended == Ended::Forced || !left.is_empty())
}

/// A folder with its mode, made when missing.
pub fn folder(path: &Path, mode: u32) -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    if !path.is_dir() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(path)
            .with_context(|| format!("cannot make the folder {}", path.display()))?;
    }
    Ok(path.to_owned())
}

/// What systemd holds for us, else what the configuration says; and where HTTPS is then.
async fn listeners(
    config: &Config,
    run_dir: &Path,
) -> anyhow::Result<(Listeners, Option<SocketAddr>)> {
    let mut listeners = Listeners::systemd()?;
    if !listeners.is_empty() {
        return Ok((listeners, config.listen.https));
    }
    let mut https = None;
    if let Some(at) = config.listen.https {
        let at = listeners.bind_https(at).await?;
        note_port(run_dir, "https", at)?;
        tracing::info!(%at, "listening for HTTPS");
        https = Some(at);
    }
    if let Some(at) = config.listen.grpc {
        let at = listeners.bind_grpc(at).await?;
        note_port(run_dir, "grpc", at)?;
        tracing::info!(%at, "listening for gRPC");
    }
    listeners.bind_unix(&run_dir.join("api.sock")).await?;
    Ok((listeners, https))
}

/// Leaves the bound address in a file, for instances that let the kernel choose their ports.
fn note_port(run_dir: &Path, what: &str, at: SocketAddr) -> anyhow::Result<()> {
    let path = run_dir.join(format!("{what}.address"));
    std::fs::write(&path, format!("{at}\n"))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The socket that agents dial. Whoever is not root or ourselves is refused after connecting.
async fn agent_socket(run_dir: &Path) -> anyhow::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    let path = run_dir.join("agent.sock");
    if path.exists() {
        if tokio::net::UnixStream::connect(&path).await.is_ok() {
            anyhow::bail!(
                "another api process listens on {}: stop it, or give this instance another name",
                path.display()
            );
        }
        std::fs::remove_file(&path)
            .with_context(|| format!("cannot replace {}", path.display()))?;
    }
    let listener =
        UnixListener::bind(&path).with_context(|| format!("cannot bind {}", path.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Where the CA's documents are found: at this host's name, when HTTPS has a port that is known.
fn published_at(config: &Config) -> anyhow::Result<Option<String>> {
    let Some(at) = config.listen.https.filter(|at| at.port() != 0) else {
        return Ok(None);
    };
    let node = config.node_name()?;
    Ok(Some(format!("https://{node}:{}/pki", at.port())))
}

/// What the server's certificate is for.
fn names(config: &Config) -> anyhow::Result<Vec<String>> {
    let mut names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
        config.node_name()?.to_string(),
    ];
    if let Ok(host) = nix::sys::utsname::uname() {
        names.push(host.nodename().to_string_lossy().into_owned());
    }
    if let Some(at) = config.listen.https.filter(|at| !at.ip().is_unspecified()) {
        names.push(at.ip().to_string());
    }
    for address in nix::ifaddrs::getifaddrs().into_iter().flatten() {
        let ip = address.address.and_then(|a| {
            let v4 = a.as_sockaddr_in().map(|a| a.ip().to_string());
            v4.or_else(|| {
                a.as_sockaddr_in6()
                    .map(|a| a.ip())
                    .filter(|ip| !ip.is_unicast_link_local())
                    .map(|ip| ip.to_string())
            })
        });
        names.extend(ip);
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// A copy of the store each day, seven kept.
async fn copies(cx: Cx, store: Arc<Sqlite>) {
    let stop = cx.shutdown();
    let mut timer = tokio::time::interval(Duration::from_secs(3600));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = timer.tick() => {}
        }
        match store.daily_copy().await {
            Ok(Some(path)) => tracing::info!(path = %path.display(), "the store was copied"),
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "the store could not be copied"),
        }
    }
}

/// Follows the setting that says which reads of the store are slow.
async fn slow_reads(cx: Cx, store: Arc<Sqlite>) {
    let stop = cx.shutdown();
    while !stop.is_cancelled() {
        let changed = setting::SLOW_READ.changed(&cx);
        store.set_slow_read(Duration::from_millis(setting::SLOW_READ.number(&cx)));
        changed.await;
    }
}

fn agent_check(cx: &Cx) -> Check {
    let cx = cx.clone();
    Check {
        name: "agent",
        run: Arc::new(move || {
            let connected = cx.links().connected();
            Box::pin(async move {
                if connected {
                    Finding::Ok
                } else {
                    Finding::Error(
                        "the agent of this node is not connected: is debvisord-agent running?"
                            .into(),
                    )
                }
            })
        }),
    }
}

/// A wrong clock stops nobody here: leases do not depend on it. Yet certificates and schedules do, so somebody should look.
fn clock_check() -> Check {
    Check {
        name: "clock",
        run: Arc::new(|| {
            Box::pin(async {
                match host::clock::is_synchronised() {
                    Ok(true) => Finding::Ok,
                    Ok(false) => Finding::Warn(
                        "nothing keeps this machine's clock right: install and start a time service, for example \
                         systemd-timesyncd or chrony"
                            .into(),
                    ),
                    Err(e) => Finding::Skipped(format!("the kernel does not tell: {e}")),
                }
            })
        }),
    }
}

/// So many bytes free are enough, whatever part of the disk they are.
const ENOUGH: u64 = 10 << 30;

fn disk_check(state: &Path) -> Check {
    let state = state.to_owned();
    Check {
        name: "disk",
        run: Arc::new(move || {
            let state = state.clone();
            Box::pin(async move {
                let asked = state.clone();
                let stat =
                    tokio::task::spawn_blocking(move || nix::sys::statvfs::statvfs(&asked)).await;
                match stat {
                    Ok(Ok(stat)) => {
                        let free = stat.blocks_available() * 100 / stat.blocks().max(1);
                        let bytes = stat.blocks_available() * stat.fragment_size();
                        let said = format!("{} has only {free} % free: make room", state.display());
                        match (free, bytes) {
                            (10.., _) => Finding::Ok,
                            // A tenth of a large disk is room enough for what we write there.
                            (_, ENOUGH..) => Finding::Warn(said),
                            _ => Finding::Error(said),
                        }
                    }
                    Ok(Err(e)) => Finding::Error(format!("{}: {e}", state.display())),
                    Err(e) => Finding::Error(e.to_string()),
                }
            })
        }),
    }
}

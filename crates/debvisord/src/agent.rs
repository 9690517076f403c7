//! The role `agent`: runs guests on this machine as root and listens on nothing. All it knows of the cluster comes over
//! its link to the api.

use crate::api::folder;
use crate::config::Config;
use crate::facts;
use crate::kinds;
use crate::logs::Levels;
use crate::signals;
use anyhow::{Context, bail};
use compute::Guests;
use compute::vm::qemu::Qemu;
use host::clock::SystemClock;
use host::net::Netns;
use network::Fabric;
use runtime::event::Events;
use runtime::link::AgentLink;
use runtime::resilience::Retry;
use runtime::task::TaskLogs;
use runtime::{CxBuilder, Engine, Place, node};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use store::remote::RemoteStore;
use store::seal::Sealer;
use tokio_util::sync::CancellationToken;

/// The emulator that guests run in.
const QEMU: &str = "qemu-system-x86_64";

/// Runs until asked to end; answers whether something had to be cut off. Guests go on either way.
pub async fn run(config: Config, levels: Levels) -> anyhow::Result<bool> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the agent makes bridges and gives guests their own users: run it as root");
    }
    let state = folder(&config.state_dir, 0o755)?;
    let run_dir = folder(&config.run_dir, 0o755)?;
    let cache = folder(&config.cache_dir, 0o755)?;
    let _alone = lock(&state)?;
    let clock = Arc::new(SystemClock::new().context("this machine has no boot id")?);
    let link = AgentLink::new(&run_dir.join("agent.sock"));
    let stop = CancellationToken::new();
    let dialling = dial(link.clone(), stop.clone());
    let store = RemoteStore::new(Arc::new(link.clone()));
    wait_for(&store, &run_dir).await?;
    let sealer = tokio::task::spawn_blocking({
        let (root, keys) = (config.root_source()?, state.join("keys"));
        move || Sealer::join(root, keys)
    })
    .await??;
    let namespace = match &config.network.namespace {
        Some(name) => Netns::named(name)?,
        None => Netns::root(),
    };
    let uplink = config
        .network
        .namespace
        .as_ref()
        .and_then(|_| config.instance.clone());
    let fabric = Fabric::new(namespace, run_dir.join("net"), uplink, clock.clone());
    // What is missing here, such as QEMU, stops only what needs it: it is said in the node's conditions.
    let guests = Qemu::open(compute::vm::qemu::Config {
        instance: config.instance.clone(),
        run: run_dir.join("vm"),
        state: state.join("vms"),
        cache: cache.clone(),
        clock: clock.clone(),
        unprivileged: true,
        qemu: QEMU.into(),
    })
    .await?;
    let guests = Arc::new(guests);
    let facts = facts::of_this_machine(&guests.ground().borrow(), &*clock);
    let facts = Arc::new(node::Facts::new(facts));
    let local = storage::Local {
        pools: state.join("pools"),
        cache: cache.clone(),
        fetch: storage::FetchLimits::default(),
    };
    let cx = CxBuilder::new(kinds::registry()?, store)
        .place(Place::Agent)
        .node(config.node_name()?.to_string())
        .seal(Arc::new(sealer))
        .events(Events::new(Arc::new(link.clone())))
        .part(Arc::new(TaskLogs::new(Arc::new(link.clone()))))
        .part(facts.clone())
        .part(Arc::new(link.clone()))
        .part(Arc::new(fabric))
        .part(Arc::new(local))
        .part(Arc::new(Guests::new(guests.clone())))
        .build()
        .await?;
    levels.follow(&cx);
    guests.follow(&cx);
    facts::follow(&cx, facts, guests.ground(), clock);
    let ending = signals::ending(cx.life())?;
    node::attend(&cx).await?;
    link.serve(&cx);
    Engine::start(&cx);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = cx.node(),
        "agent is up"
    );
    crate::notify::ready();
    ending.cancelled().await;
    crate::notify::stopping();
    let left = cx.life().stop(Duration::from_secs(10)).await;
    if !left.is_empty() {
        tracing::warn!(tasks = ?left, "some tasks of this process did not end in time");
    }
    stop.cancel();
    // The dialler ends with its token.
    let _ = dialling.await;
    Ok(!left.is_empty())
}

#[allow(
    clippy::disallowed_methods,
    reason = "the link exists before the process has a life that could own it; the caller awaits it"
)]
fn dial(link: AgentLink, stop: CancellationToken) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move { link.run(stop).await })
}

/// Waits for the api: it may start after us.
async fn wait_for(store: &RemoteStore, run_dir: &Path) -> anyhow::Result<()> {
    let mut linked = store.linked();
    let mut refused = 0;
    loop {
        if !*linked.borrow_and_update() {
            tracing::info!(socket = %run_dir.join("agent.sock").display(), "waiting for the api");
            linked.wait_for(|linked| *linked).await?;
        }
        match store::Store::commit(store, store::Txn::new()).await {
            Ok(_) => return Ok(()),
            Err(error) => {
                refused += 1;
                tracing::info!(%error, "the api refuses");
                tokio::time::sleep(Retry::default().wait(refused, 0.5)).await;
            }
        }
    }
}

/// One agent per state folder, for as long as the file is open.
fn lock(state: &Path) -> anyhow::Result<File> {
    let path = state.join("agent.lock");
    let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    match store::lock_file(&file) {
        Ok(true) => Ok(file),
        Ok(false) => bail!(
            "another agent works on {}: stop it, or give this instance another name",
            state.display()
        ),
        Err(e) => Err(e).with_context(|| format!("cannot lock {}", path.display())),
    }
}

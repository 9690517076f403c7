//! The node's side of all networks: the namespace, what is needed once, and the one ruleset over all networks and NICs.
//!
//! A part of the agent's context ([`runtime::CxBuilder::part`]). It remembers only what saves work, never what is true.

use crate::address::Address;
use crate::network::{Network, layout, subnets};
use anyhow::Context;
use host::clock::SharedClock;
use host::net::dnsmasq::{self, Dnsmasq};
use host::net::nft::guard::{self, GuardedNic};
use host::net::nft::segments::{self, Segment};
use host::net::nft::{self, Family, Nft, Table};
use host::net::{Links, Netns, names, sysctl, uplink};
use model::{Error, Result, What};
use runtime::Cx;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;

/// Name of our nft tables.
const TABLE: &str = "debvisor";
/// How long what is needed once is taken to be there without looking.
const TRUST: Duration = Duration::from_secs(60);

/// How often rules are written that somebody else changes at once.
const TRIES: usize = 5;

/// The networks' place on this node.
pub struct Fabric {
    netns: Netns,
    folder: PathBuf,
    uplink: Option<String>,
    clock: SharedClock,
    /// Something changed outside since we looked.
    links_changed: AtomicBool,
    rules_changed: AtomicBool,
    /// Makes changes of what all networks share one at a time. Held while they are made; nothing else waits inside.
    turn: Mutex<Known>,
}

/// What was seen, to save looking again.
#[derive(Default)]
struct Known {
    links: Option<Arc<Links>>,
    ready_at: Option<Duration>,
    user: String,
    /// Each table that was asked of the kernel, and how it then answered.
    rules: Vec<(Table, String)>,
}

/// What the controller needs for one network.
#[derive(Clone)]
pub(crate) struct Ready {
    pub links: Arc<Links>,
    /// The user dnsmasq becomes.
    pub user: String,
}

impl Fabric {
    /// Networks in this namespace, with files of running services under `folder` (passable for all users, such as `/run/debvisor/net`).
    /// `uplink` names the instance whose namespace needs a way out of its own; a node in the root namespace needs none.
    pub fn new(
        netns: Netns,
        folder: impl Into<PathBuf>,
        uplink: Option<String>,
        clock: SharedClock,
    ) -> Self {
        Fabric {
            netns,
            folder: folder.into(),
            uplink,
            clock,
            links_changed: AtomicBool::new(true),
            rules_changed: AtomicBool::new(true),
            turn: Mutex::default(),
        }
    }

    /// The namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Removes every trace of an instance's namespace: dnsmasq processes, uplink, namespace. Guests must have ended.
    ///
    /// # Errors
    /// When something refuses to go; the rest has been done.
    pub async fn tear_down(&self) -> Result<()> {
        let mut first = Ok(());
        let mut keep = |result: anyhow::Result<()>| {
            if let (Ok(()), Err(error)) = (&first, result) {
                first = Err(trouble(error));
            }
        };
        for entry in std::fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .flatten()
        {
            keep(
                Dnsmasq::new(&self.netns, entry.path(), self.clock.clone())
                    .stop()
                    .await,
            );
        }
        if let Some(instance) = &self.uplink {
            keep(uplink::remove(instance).await);
        }
        if self.netns.is_root() {
            let nft = Nft::new(&self.netns);
            for family in [Family::Bridge, Family::Inet] {
                keep(nft.remove(family, TABLE).await);
            }
        } else {
            keep(self.netns.remove());
        }
        first
    }

    /// Notes that something changed outside.
    pub(crate) fn changed(&self, what: host::net::watch::Changed) {
        match what {
            host::net::watch::Changed::Links => self.links_changed.store(true, Ordering::Relaxed),
            host::net::watch::Changed::Rules => self.rules_changed.store(true, Ordering::Relaxed),
        }
    }

    /// The dnsmasq of the network with this bridge.
    pub(crate) fn dnsmasq(&self, bridge: &str) -> Dnsmasq {
        Dnsmasq::new(&self.netns, self.folder.join(bridge), self.clock.clone())
    }

    /// Whose forwarding this is, for [`host::net::forwarding`].
    pub(crate) fn forwarding_user(bridge: &str) -> String {
        format!("network-{bridge}")
    }

    /// Sees to it that this node can have networks at all, and gives what each of them needs.
    pub(crate) async fn ready(&self) -> Result<Ready> {
        let mut known = self.turn.lock().await;
        let now = self.clock.since_boot();
        let fresh = known
            .ready_at
            .is_some_and(|at| now.saturating_sub(at) < TRUST);
        if !fresh || self.links_changed.swap(false, Ordering::Relaxed) {
            known.ready_at = None;
            self.make_ready(&mut known).await.map_err(trouble)?;
            known.ready_at = Some(now);
        }
        match &known.links {
            Some(links) => Ok(Ready {
                links: links.clone(),
                user: known.user.clone(),
            }),
            None => Err(Error::internal("the fabric is ready and has no links")),
        }
    }

    async fn make_ready(&self, known: &mut Known) -> anyhow::Result<()> {
        if known.user.is_empty() {
            let features = nft::probe().await?;
            anyhow::ensure!(
                features.bridge_sets && features.inet_nat,
                "this kernel's nft lacks what networks need (sets in the bridge family: {}, NAT in the inet family: {}): use a Debian kernel",
                features.bridge_sets,
                features.inet_nat
            );
            known.user = dnsmasq::check_installed().await?;
        }
        let made = self.netns.ensure().await?;
        if made || known.links.is_none() {
            known.links = Some(Arc::new(Links::open(&self.netns).await?));
            known.rules.clear();
        }
        if !self.netns.is_root() {
            // Frames between guests of one network need no detour through the packet filter of routed traffic.
            let off = |what: &str| (format!("net/bridge/bridge-nf-call-{what}"), "0".to_owned());
            sysctl::write(
                &self.netns,
                &[off("iptables"), off("ip6tables"), off("arptables")],
            )
            .await?;
        }
        if let Some(instance) = &self.uplink {
            uplink::ensure(instance, &self.netns).await?;
        }
        Ok(())
    }

    /// Brings the rules of this node to what its networks and NICs are now, unless they are so already.
    ///
    /// # Errors
    /// When nft refuses; then the former rules stand.
    pub(crate) async fn apply_rules(&self, cx: &Cx) -> Result<()> {
        let mut known = self.turn.lock().await;
        // Read inside the turn, so that a later reader never applies an older state.
        let wanted = [
            segments::table(TABLE, &all_segments(cx)),
            guard::table(TABLE, &all_nics(cx)),
        ];
        let nft = Nft::new(&self.netns);
        let meddled = self.rules_changed.swap(false, Ordering::Relaxed);
        let mut stale = Vec::new();
        for table in wanted {
            let stands = match known.rules.iter().find(|(asked, _)| *asked == table) {
                Some((_, seen)) if meddled => {
                    nft.fingerprint(&table).await.map_err(trouble)?.as_ref() == Some(seen)
                }
                found => found.is_some(),
            };
            if !stands {
                known
                    .rules
                    .retain(|(asked, _)| asked.family != table.family);
                stale.push(table);
            }
        }
        for _ in 0..TRIES {
            if stale.is_empty() {
                return Ok(());
            }
            nft.replace(&stale).await.map_err(trouble)?;
            let mut again = Vec::new();
            for table in stale {
                match nft.fingerprint(&table).await.map_err(trouble)? {
                    Some(seen) => known.rules.push((table, seen)),
                    None => again.push(table),
                }
            }
            stale = again;
        }
        Err(Error::unavailable(format!(
            "somebody else changes the nft tables `{TABLE}` as fast as they are written"
        ))
        .hint("find it with `nft monitor`; these tables are DebVisor's own"))
    }
}

fn all_segments(cx: &Cx) -> Vec<Segment> {
    cx.list::<Network>(None)
        .iter()
        .filter(|network| network.metadata.deletion_requested.is_none())
        .filter_map(|network| {
            Some(Segment {
                bridge: names::bridge(&network.metadata.uid.to_string()),
                reach: network.spec.mode.into(),
                subnets: subnets(&layout(&network.spec)?),
            })
        })
        .collect()
}

fn all_nics(cx: &Cx) -> Vec<GuardedNic> {
    cx.list::<Address>(None)
        .iter()
        .filter(|address| address.spec.node == cx.node())
        .filter_map(|address| {
            let spec = &address.spec;
            let project = address.metadata.project.as_deref();
            let network = cx.follow::<Network>(project, &spec.network)?;
            Some(GuardedNic {
                tap: spec.tap.clone(),
                bridge: names::bridge(&network.metadata.uid.to_string()),
                mac: spec.mac.parse().ok()?,
                ipv4: spec.ipv4.iter().filter_map(|ip| ip.parse().ok()).collect(),
                ipv6: spec.ipv6.iter().filter_map(|ip| ip.parse().ok()).collect(),
            })
        })
        .collect()
}

/// Trouble with the host as people read it: the whole chain, because each link says more about what to do.
pub(crate) fn trouble(error: anyhow::Error) -> Error {
    let text = format!("{error:#}");
    Error::new(What::Unavailable(Duration::from_secs(30)), text)
        .because(error.context("network of this node"))
}

/// The same for a step of its own.
pub(crate) fn step<T>(result: anyhow::Result<T>, what: impl FnOnce() -> String) -> Result<T> {
    result.with_context(what).map_err(trouble)
}

//! Brings the bridge, the rules and the dnsmasq of each network to what its object wants, and repairs what others break.

use super::rules::{Layout, layout, own_addresses, subnets};
use super::{Mode, Network, NetworkSpec, State};
use crate::address::Address;
use crate::fabric::{Fabric, Ready, step};
use futures::future::BoxFuture;
use host::net::dnsmasq::{Config, HostEntry, Ipv4, Ipv6};
use host::net::{Links, Mac, forwarding, names, resolv, route, sysctl, watch};
use host::process::Process;
use model::{Error, Kind, Result, Violation};
use parking_lot::Mutex;
use runtime::Key;
use runtime::{Controller, Cx, Next, Obj, Watch, object_key};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How often a network is looked at without a reason, for the number of its leases.
const LOOK: Duration = Duration::from_secs(60);
/// How long a guest may keep its address without asking again.
const LEASE_SECONDS: u32 = 86_400;
/// Changes outside come in bursts: wait for the end of one.
const BURST: Duration = Duration::from_millis(200);

/// The controllers of this subsystem, and the ear for changes outside.
pub(super) fn controllers(cx: &Cx) -> Vec<Arc<dyn Controller>> {
    cx.life().spawn("network changes", listen(cx.clone()));
    vec![Arc::new(NetworkController::default())]
}

#[derive(Default)]
struct NetworkController {
    /// bridge -> pid of the dnsmasq whose end is waited for
    followed: Arc<Mutex<HashMap<String, u32>>>,
}

impl Controller for NetworkController {
    fn name(&self) -> &'static str {
        "network"
    }

    fn owns(&self) -> &'static Kind {
        &super::KIND
    }

    fn watches(&self) -> Vec<Watch> {
        // An address is looked up by its network, which it names.
        vec![Watch::Map("address", network_of)]
    }

    fn reconcile<'a>(&'a self, cx: &'a Cx, key: &'a Key) -> BoxFuture<'a, Result<Next>> {
        Box::pin(async move {
            let Some(network) = cx.get_key::<Network>(key) else {
                return Ok(Next::Settled);
            };
            if network.metadata.deletion_requested.is_some() {
                self.remove(cx, key, &network).await?;
                return Ok(Next::Settled);
            }
            let brought = self.bring(cx, key, &network).await;
            let bridge = names::bridge(&network.metadata.uid.to_string());
            let leases = cx
                .part::<Fabric>()
                .dnsmasq(&bridge)
                .leases()
                .map_or(0, |leases| leases.len());
            cx.set_status::<Network>(key, |status| {
                status.state = if brought.is_ok() {
                    State::Ready
                } else {
                    State::Failed
                };
                status.bridge.clone_from(&bridge);
                status.leases = u32::try_from(leases).unwrap_or(u32::MAX);
            })
            .await?;
            brought.map(|()| Next::Again(LOOK))
        })
    }
}

impl NetworkController {
    async fn bring(&self, cx: &Cx, key: &Key, network: &Obj<Network>) -> Result<()> {
        let fabric = cx.part::<Fabric>();
        let ready = fabric.ready().await?;
        let name = &*network.metadata.name;
        let about = || format!("cannot bring network `{name}` up");
        let bridge = names::bridge(&network.metadata.uid.to_string());
        let Some(layout) = layout(&network.spec) else {
            return Err(Error::internal(format!(
                "network `{name}` was stored without addresses"
            )));
        };
        collide(&ready.links, &bridge, &layout).await?;
        make_bridge(&ready.links, &bridge, &network.spec, &layout)
            .await
            .or_else(|error| step(Err(error), about))?;
        let user = Fabric::forwarding_user(&bridge);
        if network.spec.mode == Mode::Isolated {
            if ready.links.netns().is_root() {
                step(forwarding::leave(&user).await, about)?;
            }
        } else {
            step(forwarding::allow(&ready.links, &user, &bridge).await, about)?;
        }
        let own = addresses(cx, key);
        // The guard stands before a tap comes back into its bridge.
        fabric.apply_rules(cx).await?;
        step(
            take_taps_back(&ready.links, &bridge, &own, cx.node(), network.spec.mtu).await,
            about,
        )?;

        let config = self.config(network, &bridge, &layout, &ready);
        let hosts = hosts(&own, &network.spec.domain);
        let (_, process) = step(fabric.dnsmasq(&bridge).ensure(&config, &hosts).await, about)?;
        self.follow(cx, key, &bridge, process);
        Ok(())
    }

    async fn remove(&self, cx: &Cx, key: &Key, network: &Obj<Network>) -> Result<()> {
        let fabric = cx.part::<Fabric>();
        let bridge = names::bridge(&network.metadata.uid.to_string());
        let about = || format!("cannot remove network `{}`", network.metadata.name);
        step(fabric.dnsmasq(&bridge).stop().await, about)?;
        if fabric.netns().exists() {
            let links = fabric.ready().await?.links;
            step(links.remove(&bridge).await, about)?;
            fabric.apply_rules(cx).await?;
        }
        if fabric.netns().is_root() {
            step(
                forwarding::leave(&Fabric::forwarding_user(&bridge)).await,
                about,
            )?;
        }
        cx.release(key).await
    }

    fn config(
        &self,
        network: &Obj<Network>,
        bridge: &str,
        layout: &Layout,
        ready: &Ready,
    ) -> Config {
        let routes = network.spec.mode != Mode::Isolated;
        let project = network.metadata.project.as_deref().unwrap_or_default();
        let upstreams = if routes {
            resolv::upstreams(ready.links.netns().is_root())
        } else {
            Vec::new()
        };
        Config {
            bridge: bridge.to_owned(),
            ipv4: layout.ipv4.map(|net| Ipv4 {
                subnet: net.subnet,
                gateway: net.gateway,
                routes,
            }),
            ipv6: layout.ipv6.map(|net| Ipv6 {
                subnet: net.subnet,
                gateway: net.gateway,
                routes,
            }),
            mtu: network.spec.mtu,
            zone: network.spec.domain.clone(),
            search: format!("{project}.{}", network.spec.domain),
            upstreams,
            lease_seconds: LEASE_SECONDS,
            user: ready.user.clone(),
        }
    }

    /// Waits for the end of a dnsmasq, once per process, and then looks at its network.
    fn follow(&self, cx: &Cx, key: &Key, bridge: &str, process: Process) {
        let pid = process.pid();
        if self.followed.lock().insert(bridge.to_owned(), pid) == Some(pid) {
            return;
        }
        let (cx, key, bridge, followed, stop) = (
            cx.clone(),
            key.clone(),
            bridge.to_owned(),
            self.followed.clone(),
            cx.shutdown(),
        );
        cx.clone().life().spawn("dnsmasq", async move {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = process.wait() => {}
            }
            let current = {
                let mut followed = followed.lock();
                let current = followed.get(&bridge) == Some(&pid);
                if current {
                    followed.remove(&bridge);
                }
                current
            };
            if current {
                cx.wake(&key);
            }
        });
    }
}

/// Refuses a subnet the host already has a route for.
async fn collide(links: &Links, bridge: &str, layout: &Layout) -> Result<()> {
    let routes = step(links.routes().await, || {
        "cannot compare with the host's routes".to_owned()
    })?;
    let mut wrong = Vec::new();
    for subnet in subnets(layout) {
        if let Some(other) = route::collision(subnet, &routes, bridge) {
            let field = if subnet.addr().is_ipv4() {
                "spec.subnet"
            } else {
                "spec.ipv6_subnet"
            };
            wrong.push(
                Violation::new(
                    field,
                    format!(
                        "`{subnet}` collides with the host's route {other} (interface {})",
                        other.dev
                    ),
                )
                .hint(
                    "make the network anew with another subnet, or remove that route from the host",
                ),
            );
        }
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Error::invalid(wrong))
    }
}

async fn make_bridge(
    links: &Links,
    bridge: &str,
    spec: &NetworkSpec,
    layout: &Layout,
) -> anyhow::Result<()> {
    links
        .ensure_bridge(bridge, Mac::derived(bridge), spec.mtu)
        .await?;
    let set = |key: &str, value: &str| (format!("net/{key}"), value.to_owned());
    let disabled = if layout.ipv6.is_some() { "0" } else { "1" };
    let settings = [
        set(&format!("ipv6/conf/{bridge}/disable_ipv6"), disabled),
        // The host must not take its routes from a guest.
        set(&format!("ipv6/conf/{bridge}/accept_ra"), "0"),
        set(&format!("ipv6/conf/{bridge}/accept_dad"), "0"),
        set(&format!("ipv4/conf/{bridge}/accept_redirects"), "0"),
    ];
    sysctl::write(links.netns(), &settings).await?;
    links.set_addresses(bridge, &own_addresses(layout)).await?;
    links.set_up(bridge, true).await
}

/// A bridge that was made anew has lost its ports: the guests' taps, which still exist, come back.
async fn take_taps_back(
    links: &Links,
    bridge: &str,
    own: &[Arc<Obj<Address>>],
    node: &str,
    mtu: u32,
) -> anyhow::Result<()> {
    let all = links.list().await?;
    let Some(index) = all
        .iter()
        .find(|link| link.name == bridge)
        .map(|link| link.index)
    else {
        return Ok(());
    };
    for address in own.iter().filter(|address| address.spec.node == node) {
        let tap = &address.spec.tap;
        let Some(link) = all.iter().find(|link| link.name == *tap) else {
            continue;
        };
        if link.bridge != Some(index) || link.mtu != mtu || !link.up {
            links.set_mtu(tap, mtu).await?;
            links.set_port(tap, bridge, false).await?;
            links.set_up(tap, true).await?;
        }
    }
    Ok(())
}

/// The addresses in a network.
fn addresses(cx: &Cx, network: &Key) -> Vec<Arc<Obj<Address>>> {
    cx.list::<Address>(None)
        .into_iter()
        .filter(|address| key_of_network(address).as_ref() == Some(network))
        .collect()
}

fn key_of_network(address: &Obj<Address>) -> Option<Key> {
    Some(match address.spec.network.split_once('/') {
        Some((project, name)) => object_key("network", Some(project), name),
        None => object_key(
            "network",
            Some(address.metadata.project.as_deref()?),
            &address.spec.network,
        ),
    })
}

/// Which network a changed address concerns. One that is gone can no longer say: then all are looked at.
fn network_of(cx: &Cx, address: &Key) -> Vec<Key> {
    match cx.get_key::<Address>(address) {
        Some(address) => key_of_network(&address).into_iter().collect(),
        None => all_networks(cx),
    }
}

fn all_networks(cx: &Cx) -> Vec<Key> {
    cx.cache()
        .rows("network", None)
        .iter()
        .map(|row| row.key.clone())
        .collect()
}

fn hosts(own: &[Arc<Obj<Address>>], domain: &str) -> Vec<HostEntry> {
    own.iter()
        .filter_map(|address| {
            let spec = &address.spec;
            let project = address.metadata.project.as_deref().unwrap_or_default();
            Some(HostEntry {
                mac: spec.mac.parse().ok()?,
                name: spec.guest.clone(),
                full_names: vec![format!("{}.{project}.{domain}", spec.guest)],
                ipv4: spec.ipv4.as_deref().and_then(|ip| ip.parse().ok()),
                ipv6: spec.ipv6.as_deref().and_then(|ip| ip.parse().ok()),
            })
        })
        .collect()
}

/// Wakes the networks when something changes outside: a bridge removed, a table flushed, a route that collides.
async fn listen(cx: Cx) {
    let stop = cx.shutdown();
    let work = async {
        let Some(fabric) = cx.try_part::<Fabric>() else {
            return;
        };
        loop {
            if fabric.netns().exists()
                && let Ok(mut ear) = watch::Watch::open(fabric.netns()).await
            {
                // What happened before the ear was open.
                fabric.changed(watch::Changed::Links);
                fabric.changed(watch::Changed::Rules);
                wake_all(&cx);
                follow(&cx, &fabric, &mut ear).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

/// Until the namespace is another one.
async fn follow(cx: &Cx, fabric: &Fabric, ear: &mut watch::Watch) {
    let inode = || {
        std::fs::metadata(fabric.netns().path())
            .map(|meta| std::os::unix::fs::MetadataExt::ino(&meta))
            .ok()
    };
    let began = inode();
    let mut check = tokio::time::interval(Duration::from_secs(10));
    loop {
        tokio::select! {
            what = ear.changed() => fabric.changed(what),
            _ = check.tick() => {
                if inode() == began {
                    continue;
                }
                return;
            }
        }
        let burst = tokio::time::sleep(BURST);
        tokio::pin!(burst);
        loop {
            tokio::select! {
                what = ear.changed() => fabric.changed(what),
                () = &mut burst => break,
            }
        }
        wake_all(cx);
    }
}

fn wake_all(cx: &Cx) {
    for key in all_networks(cx) {
        cx.wake(&key);
    }
}

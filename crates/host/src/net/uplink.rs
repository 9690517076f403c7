//! The way out of an instance's namespace: a veth pair, a small subnet of its own, and NAT in a table of ours.
//!
//! ```text
//! namespace dv-NAME            root namespace
//!   networks -> uplink <-veth-> dvuXXXXXXXX -> masquerade (table dv_NAME_uplink) -> default route
//! ```
//! Addresses come from 100.64.0.0/10 (shared address space, RFC 6598) and avoid every route of the host. [`remove`] leaves no trace.

use super::nft::segments::{self, Reach, Segment};
use super::nft::{Family, Nft};
use super::{Links, Netns, Route, forwarding, names, route, sysctl};
use anyhow::{Context, Result, anyhow};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sha2::{Digest, Sha256};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The name of the inner end.
pub const INSIDE: &str = "uplink";

/// The uplink of one instance, as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// The interface in the root namespace.
    pub outside: String,
    /// Address and prefix of the root namespace's end; the instance's end is the next address.
    pub ipv4: Ipv4Net,
    /// Likewise for IPv6; absent when the host has no IPv6 default route or may not forward IPv6.
    pub ipv6: Option<Ipv6Net>,
    /// Largest packet in bytes: that of the interface with the host's default route.
    pub mtu: u32,
}

/// The nft table in the root namespace that masquerades an instance.
pub fn table_name(instance: &str) -> String {
    format!("dv_{}_uplink", instance.replace('-', "_"))
}

/// Makes or repairs the uplink of an instance's namespace. Nothing changes when all is as it should be.
///
/// # Errors
/// When no subnet is free, or the kernel refuses a step.
pub async fn ensure(instance: &str, netns: &Netns) -> Result<Uplink> {
    let root = Links::open(&Netns::root()).await?;
    let inner = Links::open(netns).await?;
    let outside = names::uplink(instance);
    ensure_pair(&root, &inner, &outside)
        .await
        .with_context(|| format!("cannot make the uplink of instance `{instance}`"))?;

    let routes = root.routes().await?;
    let held = root.addresses(&outside).await?;
    let kept = held.iter().find_map(|net| match net {
        IpNet::V4(net)
            if pool().contains(net)
                && route::collision(IpNet::V4(net.trunc()), &routes, &outside).is_none() =>
        {
            Some(*net)
        }
        _ => None,
    });
    let ipv4 = match kept {
        Some(net) => net,
        None => choose(instance, &routes, &outside).ok_or_else(|| {
            anyhow!("no /30 of {} is free for the uplink of instance `{instance}`: the host's routes take all of it", pool())
        })?,
    };
    let allowed = forwarding::allow(&root, &user(instance), &outside).await?;
    let default = |v4: bool| {
        routes
            .iter()
            .find(|route| route.is_default() && matches!(route.to, IpNet::V4(_)) == v4)
    };
    let ipv6 = (allowed.ipv6 && default(false).is_some()).then(|| unique_local(instance));
    let mtu = match default(true).or(default(false)) {
        Some(route) => root.get(&route.dev).await?.map_or(1500, |link| link.mtu),
        None => 1500,
    };

    let mut outer_addresses = vec![IpNet::V4(ipv4)];
    let mut inner_addresses = vec![IpNet::V4(next4(ipv4)?)];
    if let Some(net) = ipv6 {
        outer_addresses.push(IpNet::V6(net));
        inner_addresses.push(IpNet::V6(next6(net)?));
    }
    for (links, name, addresses) in [
        (&root, outside.as_str(), &outer_addresses),
        (&inner, INSIDE, &inner_addresses),
    ] {
        links.set_mtu(name, mtu).await?;
        links.set_addresses(name, addresses).await?;
        links.set_up(name, true).await?;
    }
    let ways = inner.routes().await?;
    let leads = |via: std::net::IpAddr| {
        ways.iter()
            .any(|route| route.is_default() && route.via == Some(via))
    };
    for router in [Some(ipv4.addr().into()), ipv6.map(|net| net.addr().into())]
        .into_iter()
        .flatten()
    {
        if !leads(router) {
            inner.set_default_route(router).await?;
        }
    }

    let nft = Nft::new(&Netns::root());
    let name = table_name(instance);
    if !nft.tables(Family::Inet).await?.contains(&name) {
        let subnets = [Some(IpNet::V4(ipv4)), ipv6.map(IpNet::V6)]
            .into_iter()
            .flatten()
            .collect();
        let segment = Segment {
            bridge: outside.clone(),
            reach: Reach::Nat,
            subnets,
        };
        nft.replace(&[segments::table(&name, &[segment])]).await?;
    }
    Ok(Uplink {
        outside,
        ipv4,
        ipv6,
        mtu,
    })
}

/// Removes the uplink and everything [`ensure`] did for it.
///
/// # Errors
/// When a step is refused; the rest has been done.
pub async fn remove(instance: &str) -> Result<()> {
    let root = Links::open(&Netns::root()).await?;
    let link = root.remove(&names::uplink(instance)).await.map(|_| ());
    let table = Nft::new(&Netns::root())
        .remove(Family::Inet, &table_name(instance))
        .await;
    let forwarding = forwarding::leave(&user(instance)).await;
    link.and(table).and(forwarding)
}

fn user(instance: &str) -> String {
    format!("uplink-{instance}")
}

/// Both ends or none: a half left by a removed namespace is replaced.
async fn ensure_pair(root: &Links, inner: &Links, outside: &str) -> Result<()> {
    if root.get(outside).await?.is_some() {
        if inner.get(INSIDE).await?.is_some() {
            return Ok(());
        }
        root.remove(outside).await?;
    }
    root.add_veth(outside, INSIDE, inner.netns()).await?;
    let quiet = |dev: &str| vec![(format!("net/ipv6/conf/{dev}/accept_ra"), "0".to_owned())];
    sysctl::write(root.netns(), &quiet(outside)).await?;
    sysctl::write(inner.netns(), &quiet(INSIDE)).await?;
    Ok(())
}

fn pool() -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10)
}

/// A free /30: the search starts at a place derived from the name, so that instances seldom meet.
fn choose(instance: &str, routes: &[Route], own: &str) -> Option<Ipv4Net> {
    let hash = Sha256::digest(instance.as_bytes());
    let start = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    let all = 1_u32 << 20;
    (0..all).find_map(|step| {
        let nth = start.wrapping_add(step) % all;
        let first = Ipv4Addr::from(u32::from(pool().network()) + nth * 4);
        let net = Ipv4Net::new(Ipv4Addr::from(u32::from(first) + 1), 30).ok()?;
        route::collision(IpNet::V4(net.trunc()), routes, own)
            .is_none()
            .then_some(net)
    })
}

/// An address of a unique local /64 (RFC 4193) derived from the name; 2^40 of them make a meeting unlikely.
fn unique_local(instance: &str) -> Ipv6Net {
    let hash = Sha256::digest(format!("uplink {instance}").as_bytes());
    let part = |at: usize| u16::from_be_bytes([hash[at], hash[at + 1]]);
    let net = Ipv6Addr::new(
        0xfd00 | u16::from(hash[6]),
        part(0),
        part(2),
        part(4),
        0,
        0,
        0,
        1,
    );
    Ipv6Net::new_assert(net, 64)
}

fn next4(net: Ipv4Net) -> Result<Ipv4Net> {
    Ok(Ipv4Net::new(
        Ipv4Addr::from(u32::from(net.addr()) + 1),
        net.prefix_len(),
    )?)
}

fn next6(net: Ipv6Net) -> Result<Ipv6Net> {
    Ok(Ipv6Net::new(
        Ipv6Addr::from(u128::from(net.addr()) + 1),
        net.prefix_len(),
    )?)
}

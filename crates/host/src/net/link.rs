//! Interfaces, addresses and routes over rtnetlink.
//!
//! One [`Links`] holds one netlink socket that was made inside its namespace and answers for it from any thread. Every
//! change is idempotent: asking for what is already so does nothing.

use super::{Mac, Netns, Route};
use anyhow::{Context, Result, anyhow, bail};
use futures::{StreamExt, TryStreamExt};
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType,
};
use rtnetlink::{
    LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};
use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use tokio::task::JoinSet;

/// One interface as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it, unique in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `bridge`, `veth`, `tun`, ...; empty for hardware and loopback.
    pub kind: String,
    /// Its Ethernet address.
    pub mac: Option<Mac>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Switched on by an administrator.
    pub up: bool,
    /// Index of the bridge it is a port of.
    pub bridge: Option<u32>,
    /// As a bridge port: may not talk to other isolated ports.
    pub isolated: bool,
}

/// The interfaces of one namespace.
pub struct Links {
    netns: Netns,
    handle: rtnetlink::Handle,
    /// Drives the socket; ends when this is dropped.
    _driver: JoinSet<()>,
}

impl Links {
    /// Opens a netlink socket in the namespace.
    ///
    /// # Errors
    /// When the namespace does not exist.
    pub async fn open(netns: &Netns) -> Result<Self> {
        let (connection, handle, _) = netns
            .run(|| rtnetlink::new_connection().context("cannot open a netlink socket"))
            .await
            .with_context(|| format!("cannot look into network namespace `{}`", netns.name()))?;
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        Ok(Self {
            netns: netns.clone(),
            handle,
            _driver: driver,
        })
    }

    /// The namespace these are the interfaces of.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// All interfaces.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn list(&self) -> Result<Vec<Link>> {
        let messages: Vec<LinkMessage> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .context("cannot list interfaces")?;
        Ok(messages.iter().map(link).collect())
    }

    /// The interface of that name, when there is one.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn get(&self, name: &str) -> Result<Option<Link>> {
        let mut found = self.handle.link().get().match_name(name).execute().boxed();
        match found.try_next().await {
            Ok(message) => Ok(message.as_ref().map(link)),
            Err(error) if is(&error, nix::libc::ENODEV) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot look up interface `{name}`")),
        }
    }

    async fn index(&self, name: &str) -> Result<u32> {
        self.get(name).await?.map(|link| link.index).ok_or_else(|| {
            anyhow!(
                "interface `{name}` does not exist in network namespace `{}`",
                self.netns.name()
            )
        })
    }

    /// Makes the bridge, or brings the one of that name to this address and MTU; says whether it was made now.
    /// It does no spanning tree and no multicast snooping, and its forwarding delay is 0, so a new port passes packets at once.
    ///
    /// # Errors
    /// When another sort of interface has that name, or the kernel refuses.
    pub async fn ensure_bridge(&self, name: &str, mac: Mac, mtu: u32) -> Result<bool> {
        let made = match self.get(name).await? {
            Some(link) if link.kind != "bridge" => {
                bail!(
                    "interface `{name}` exists and is no bridge but `{}`: remove or rename it",
                    link.kind
                )
            }
            Some(link) => {
                if link.mac != Some(mac) {
                    let set = LinkUnspec::new_with_index(link.index)
                        .address(mac.0.to_vec())
                        .build();
                    self.handle
                        .link()
                        .set(set)
                        .execute()
                        .await
                        .with_context(|| format!("cannot give bridge `{name}` address {mac}"))?;
                }
                false
            }
            None => {
                // Snooping without a querier loses multicast (so IPv6 neighbour discovery) after some minutes.
                let bridge = LinkBridge::new(name)
                    .address(mac.0.to_vec())
                    .stp_state(rtnetlink::packet_route::link::BridgeStpState::Disabled)
                    .forward_delay(0)
                    .mcast_snooping(false)
                    .build();
                self.handle
                    .link()
                    .add(bridge)
                    .execute()
                    .await
                    .with_context(|| format!("cannot make bridge `{name}`"))?;
                true
            }
        };
        self.set_mtu(name, mtu).await?;
        Ok(made)
    }

    /// Makes a pair of connected interfaces: one here, its peer in another namespace.
    ///
    /// # Errors
    /// When one of the names is taken, or the kernel refuses.
    pub async fn add_veth(&self, name: &str, peer: &str, peer_in: &Netns) -> Result<()> {
        let other = peer_in.open()?;
        let mut peer_message = LinkMessageBuilder::<LinkUnspec>::new().name(peer).build();
        peer_message
            .attributes
            .push(LinkAttribute::NetNsFd(other.as_raw_fd()));
        let pair = LinkVeth::new(name, peer)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer_message)))
            .build();
        self.handle
            .link()
            .add(pair)
            .execute()
            .await
            .with_context(|| {
                format!(
                    "cannot make veth pair `{name}` and `{peer}` in `{}`",
                    peer_in.name()
                )
            })
    }

    /// Switches an interface on or off.
    ///
    /// # Errors
    /// When it does not exist, or the kernel refuses.
    pub async fn set_up(&self, name: &str, up: bool) -> Result<()> {
        let message = LinkUnspec::new_with_index(self.index(name).await?);
        let message = if up { message.up() } else { message.down() }.build();
        let verb = if up { "on" } else { "off" };
        self.handle
            .link()
            .set(message)
            .execute()
            .await
            .with_context(|| format!("cannot switch interface `{name}` {verb}"))
    }

    /// Sets the largest packet, in bytes (68 to 65,535).
    ///
    /// # Errors
    /// When the interface does not exist, or cannot do that size.
    pub async fn set_mtu(&self, name: &str, mtu: u32) -> Result<()> {
        let Some(link) = self.get(name).await? else {
            bail!("interface `{name}` does not exist")
        };
        if link.mtu == mtu {
            return Ok(());
        }
        let message = LinkUnspec::new_with_index(link.index).mtu(mtu).build();
        self.handle
            .link()
            .set(message)
            .execute()
            .await
            .with_context(|| format!("cannot set the mtu of interface `{name}` to {mtu}"))
    }

    /// Makes an interface a port of the bridge. An isolated port does not reach other isolated ports of the same bridge.
    ///
    /// # Errors
    /// When either does not exist, or the kernel refuses.
    pub async fn set_port(&self, name: &str, bridge: &str, isolated: bool) -> Result<()> {
        let Some(port) = self.get(name).await? else {
            bail!("interface `{name}` does not exist")
        };
        let bridge_index = self.index(bridge).await?;
        if port.bridge != Some(bridge_index) {
            let message = LinkUnspec::new_with_index(port.index)
                .controller(bridge_index)
                .build();
            self.handle
                .link()
                .set(message)
                .execute()
                .await
                .with_context(|| format!("cannot make `{name}` a port of bridge `{bridge}`"))?;
        }
        if port.bridge != Some(bridge_index) || port.isolated != isolated {
            let message = LinkBridgePort::new(port.index)
                .append_info_data(InfoBridgePort::Isolated(isolated))
                .build();
            self.handle
                .link()
                .set_port(message)
                .execute()
                .await
                .with_context(|| {
                    format!("cannot set isolation of port `{name}` of bridge `{bridge}`")
                })?;
        }
        Ok(())
    }

    /// Removes an interface; says whether there was one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove(&self, name: &str) -> Result<bool> {
        let Some(link) = self.get(name).await? else {
            return Ok(false);
        };
        match self.handle.link().del(link.index).execute().await {
            Ok(()) => Ok(true),
            Err(error) if is(&error, nix::libc::ENODEV) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot remove interface `{name}`")),
        }
    }

    /// The addresses of an interface, link-local ones included.
    ///
    /// # Errors
    /// When it does not exist, or the kernel does not answer.
    pub async fn addresses(&self, name: &str) -> Result<Vec<IpNet>> {
        let index = self.index(name).await?;
        let messages: Vec<_> = self
            .handle
            .address()
            .get()
            .set_link_index_filter(index)
            .execute()
            .try_collect()
            .await
            .with_context(|| format!("cannot list addresses of `{name}`"))?;
        Ok(messages
            .iter()
            .filter_map(|message| {
                let pick = |want_local: bool| {
                    message
                        .attributes
                        .iter()
                        .find_map(|attribute| match attribute {
                            AddressAttribute::Local(ip) if want_local => Some(*ip),
                            AddressAttribute::Address(ip) if !want_local => Some(*ip),
                            _ => None,
                        })
                };
                // With a peer, `Address` is the peer's; `Local` is ours whenever it is there.
                IpNet::new(
                    pick(true).or_else(|| pick(false))?,
                    message.header.prefix_len,
                )
                .ok()
            })
            .collect())
    }

    /// Gives an interface exactly these addresses (link-local IPv6 ones apart, which it keeps). Without duplicate
    /// address detection: a bridge without ports has no carrier, so detection would never end.
    ///
    /// # Errors
    /// When it does not exist, or the kernel refuses.
    pub async fn set_addresses(&self, name: &str, wanted: &[IpNet]) -> Result<()> {
        let index = self.index(name).await?;
        let now = self.addresses(name).await?;
        for address in now
            .iter()
            .filter(|address| !wanted.contains(address) && !is_link_local(address))
        {
            let message = match address {
                IpNet::V4(net) => rtnetlink::AddressMessageBuilder::<std::net::Ipv4Addr>::new()
                    .index(index)
                    .address(net.addr(), net.prefix_len())
                    .build(),
                IpNet::V6(net) => rtnetlink::AddressMessageBuilder::<std::net::Ipv6Addr>::new()
                    .index(index)
                    .address(net.addr(), net.prefix_len())
                    .build(),
            };
            self.handle
                .address()
                .del(message)
                .execute()
                .await
                .with_context(|| format!("cannot take address {address} from `{name}`"))?;
        }
        for address in wanted.iter().filter(|address| !now.contains(address)) {
            let mut add = self
                .handle
                .address()
                .add(index, address.addr(), address.prefix_len());
            if matches!(address, IpNet::V6(_)) {
                add.message_mut()
                    .attributes
                    .push(AddressAttribute::Flags(AddressFlags::Nodad));
            }
            add.execute()
                .await
                .with_context(|| format!("cannot give `{name}` address {address}"))?;
        }
        Ok(())
    }

    /// The unicast routes of the main table, in both families.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn routes(&self) -> Result<Vec<Route>> {
        let names: HashMap<u32, String> = self
            .list()
            .await?
            .into_iter()
            .map(|link| (link.index, link.name))
            .collect();
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut ask = RouteMessage::default();
            ask.header.address_family = family;
            let messages: Vec<_> = self
                .handle
                .route()
                .get(ask)
                .execute()
                .try_collect()
                .await
                .context("cannot list routes")?;
            routes.extend(messages.iter().flat_map(|message| route(message, &names)));
        }
        Ok(routes)
    }

    /// Adds a default route, or replaces the one there is.
    ///
    /// # Errors
    /// When the router cannot be reached from any interface.
    pub async fn set_default_route(&self, via: IpAddr) -> Result<()> {
        let message = match via {
            IpAddr::V4(ip) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .gateway(ip)
                .build(),
            IpAddr::V6(ip) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                .gateway(ip)
                .build(),
        };
        self.handle
            .route()
            .add(message)
            .replace()
            .execute()
            .await
            .with_context(|| format!("cannot set the default route via {via}"))
    }
}

fn is_link_local(address: &IpNet) -> bool {
    matches!(address, IpNet::V6(net) if net.addr().is_unicast_link_local())
}

/// True when the kernel answered with this errno.
fn is(error: &rtnetlink::Error, errno: i32) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -errno)
}

fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: String::new(),
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        bridge: None,
        isolated: false,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(index) => link.bridge = Some(*index),
            LinkAttribute::Address(bytes) => {
                link.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac)
            }
            LinkAttribute::LinkInfo(parts) => {
                for part in parts {
                    match part {
                        LinkInfo::Kind(InfoKind::Other(kind)) => link.kind.clone_from(kind),
                        LinkInfo::Kind(kind) => link.kind = kind.to_string(),
                        LinkInfo::PortData(InfoPortData::BridgePort(port)) => {
                            link.isolated = port
                                .iter()
                                .any(|setting| matches!(setting, InfoBridgePort::Isolated(true)));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    link
}

/// One entry per interface a route leaves by; a multipath route has several.
fn route(message: &RouteMessage, names: &HashMap<u32, String>) -> Vec<Route> {
    let header = &message.header;
    let mut table = u32::from(header.table);
    let mut to = match header.address_family {
        AddressFamily::Inet => IpAddr::from([0_u8; 4]),
        _ => IpAddr::from([0_u8; 16]),
    };
    let (mut via, mut devs) = (None, Vec::new());
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(id) => table = *id,
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => to = (*ip).into(),
            RouteAttribute::Destination(RouteAddress::Inet6(ip)) => to = (*ip).into(),
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => via = Some((*ip).into()),
            RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => via = Some((*ip).into()),
            RouteAttribute::Oif(index) => devs.push(*index),
            RouteAttribute::MultiPath(hops) => {
                devs.extend(hops.iter().map(|hop| hop.interface_index))
            }
            _ => {}
        }
    }
    let usable = table == u32::from(rtnetlink::packet_route::route::RouteHeader::RT_TABLE_MAIN)
        && header.kind == RouteType::Unicast;
    let Ok(to) = IpNet::new(to, header.destination_prefix_length) else {
        return Vec::new();
    };
    if !usable || is_link_local(&to) {
        return Vec::new();
    }
    let advertised = header.protocol == RouteProtocol::Ra;
    devs.iter()
        .filter_map(|dev| names.get(dev))
        .map(|dev| Route {
            to,
            via,
            dev: dev.clone(),
            advertised,
        })
        .collect()
}

//! What a network may be, and what is chosen when it is left open. Pure.

use super::types::NetworkSpec;
use host::net::nft::segments::Reach;
use ipnet::{Ipv4Net, Ipv6Net};
use model::{Name, Violation};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses of a network, read from its spec.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Its IPv4 side.
    pub ipv4: Option<Ipv4Layout>,
    /// Its IPv6 side.
    pub ipv6: Option<Ipv6Layout>,
}

/// IPv4 addresses of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Layout {
    /// The subnet.
    pub subnet: Ipv4Net,
    /// The host's own address.
    pub gateway: Ipv4Addr,
    /// First address for guests.
    pub first: Ipv4Addr,
    /// Last address for guests.
    pub last: Ipv4Addr,
}

/// IPv6 addresses of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Layout {
    /// The subnet, a /64.
    pub subnet: Ipv6Net,
    /// The host's own address: the first one.
    pub gateway: Ipv6Addr,
}

/// Another network, to be kept apart from.
#[derive(Clone, Debug)]
pub(super) struct Other {
    /// Its name, unless that is secret.
    pub name: Option<String>,
    /// Its addresses.
    pub layout: Layout,
}

impl From<super::Mode> for Reach {
    fn from(mode: super::Mode) -> Reach {
        match mode {
            super::Mode::Nat => Reach::Nat,
            super::Mode::Routed => Reach::Routed,
            super::Mode::Isolated => Reach::Isolated,
        }
    }
}

/// Reads the addresses of a spec that was admitted; `None` when it was not.
pub(crate) fn layout(spec: &NetworkSpec) -> Option<Layout> {
    let ipv4 = if spec.family.ipv4() {
        let subnet = spec.subnet.as_deref()?.parse::<Ipv4Net>().ok()?;
        let (first, last) = range(spec.range.as_deref()?)?;
        Some(Ipv4Layout {
            subnet,
            gateway: spec.gateway.as_deref()?.parse().ok()?,
            first,
            last,
        })
    } else {
        None
    };
    let ipv6 = if spec.family.ipv6() {
        Some(ipv6_layout(spec.ipv6_subnet.as_deref()?.parse().ok()?))
    } else {
        None
    };
    Some(Layout { ipv4, ipv6 })
}

fn ipv6_layout(subnet: Ipv6Net) -> Ipv6Layout {
    let gateway = Ipv6Addr::from(u128::from(subnet.network()) + 1);
    Ipv6Layout {
        subnet: subnet.trunc(),
        gateway,
    }
}

fn range(text: &str) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let (first, last) = text.split_once('-')?;
    Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
}

/// How many addresses at the start of a subnet are kept from guests: ten, or a quarter of a small one.
fn reserved(subnet: Ipv4Net) -> u32 {
    let hosts = (1_u64 << (32 - subnet.prefix_len())).saturating_sub(2);
    u32::try_from(hosts / 4).unwrap_or(u32::MAX).clamp(1, 10)
}

/// Chooses what the spec leaves open. What cannot be read is left for [`check`] to refuse.
pub(super) fn fill(spec: &mut NetworkSpec, others: &[Other], random: [u8; 32]) {
    spec.domain.make_ascii_lowercase();
    if spec.family.ipv4() {
        let chosen = || free_ipv4(others, random).map(|net| net.to_string());
        let subnet = spec.subnet.take().or_else(chosen);
        // Written the one canonical way: `10.1.2.3/24` means the network it is in.
        let read = subnet
            .as_deref()
            .and_then(|text| text.parse::<Ipv4Net>().ok())
            .map(|net| net.trunc());
        spec.subnet = read.map(|net| net.to_string()).or(subnet);
        if let Some(net) = read.filter(|net| (8..=29).contains(&net.prefix_len())) {
            let at = |n: u32| Ipv4Addr::from(u32::from(net.network()) + n).to_string();
            spec.gateway.get_or_insert_with(|| at(1));
            let last = Ipv4Addr::from(u32::from(net.broadcast()) - 1);
            spec.range
                .get_or_insert_with(|| format!("{}-{last}", at(reserved(net) + 1)));
        }
    }
    if spec.family.ipv6() {
        let subnet = spec
            .ipv6_subnet
            .take()
            .unwrap_or_else(|| unique_local(random).to_string());
        let read = subnet
            .parse::<Ipv6Net>()
            .ok()
            .map(|net| net.trunc().to_string());
        spec.ipv6_subnet = Some(read.unwrap_or(subnet));
    }
}

/// A free /24 of 10.0.0.0/8, from a random place on.
fn free_ipv4(others: &[Other], random: [u8; 32]) -> Option<Ipv4Net> {
    let start = u32::from(u16::from_be_bytes([random[0], random[1]]));
    (0..=u32::from(u16::MAX)).find_map(|step| {
        let [_, _, a, b] = ((start + step) % 0x1_0000).to_be_bytes();
        let net = Ipv4Net::new(Ipv4Addr::new(10, a, b, 0), 24).ok()?;
        let taken = others
            .iter()
            .filter_map(|other| other.layout.ipv4)
            .any(|other| overlap4(other.subnet, net));
        (!taken).then_some(net)
    })
}

/// A random /64 of a random /48 of fd00::/8.
fn unique_local(random: [u8; 32]) -> Ipv6Net {
    let part = |at: usize| u16::from_be_bytes([random[at], random[at + 1]]);
    let net = Ipv6Addr::new(
        0xfd00 | u16::from(random[2]),
        part(3),
        part(5),
        part(7),
        0,
        0,
        0,
        0,
    );
    Ipv6Net::new_assert(net, 64)
}

fn overlap4(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

fn overlap6(a: Ipv6Net, b: Ipv6Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// Everything wrong with a filled spec.
pub(super) fn check(spec: &NetworkSpec, others: &[Other]) -> Vec<Violation> {
    let mut wrong = Vec::new();
    if spec.family.ipv4() {
        check_ipv4(spec, others, &mut wrong);
    } else {
        for (field, value) in [
            ("subnet", &spec.subnet),
            ("gateway", &spec.gateway),
            ("range", &spec.range),
        ] {
            refuse_other_family(field, value.as_deref(), "ipv6", &mut wrong);
        }
    }
    if spec.family.ipv6() {
        check_ipv6(spec, others, &mut wrong);
    } else {
        refuse_other_family(
            "ipv6_subnet",
            spec.ipv6_subnet.as_deref(),
            "ipv4",
            &mut wrong,
        );
    }
    if spec
        .domain
        .split('.')
        .any(|label| Name::parse("spec.domain", label).is_err())
    {
        wrong.push(
            Violation::new(
                "spec.domain",
                format!("`{}` is not a domain name", spec.domain),
            )
            .hint("labels of a-z, 0-9 and - joined by dots, for example `internal`"),
        );
    }
    wrong
}

fn refuse_other_family(field: &str, value: Option<&str>, family: &str, wrong: &mut Vec<Violation>) {
    if let Some(value) = value {
        wrong.push(
            Violation::new(
                format!("spec.{field}"),
                format!("`{value}` is given, but spec.family is `{family}`"),
            )
            .hint("leave it out, or write `family: dual`"),
        );
    }
}

fn check_ipv4(spec: &NetworkSpec, others: &[Other], wrong: &mut Vec<Violation>) {
    let Some(text) = spec.subnet.as_deref() else {
        wrong.push(
            Violation::new("spec.subnet", "no /24 of 10.0.0.0/8 is free any more")
                .hint("give one, for example `172.16.0.0/24`"),
        );
        return;
    };
    let Ok(subnet) = text.parse::<Ipv4Net>() else {
        wrong.push(
            Violation::new("spec.subnet", format!("`{text}` is not an IPv4 subnet"))
                .hint("write address/prefix, for example `10.20.0.0/24`"),
        );
        return;
    };
    if !(8..=29).contains(&subnet.prefix_len()) {
        wrong.push(
            Violation::new(
                "spec.subnet",
                format!("`{text}` has prefix length {}", subnet.prefix_len()),
            )
            .hint("8 to 29 are possible, 24 is usual"),
        );
        return;
    }
    let base = subnet.network();
    if base.is_loopback()
        || base.is_multicast()
        || base.is_link_local()
        || base.octets()[0] == 0
        || base.octets()[0] >= 240
    {
        wrong.push(
            Violation::new(
                "spec.subnet",
                format!("`{text}` is not for hosts on a network"),
            )
            .hint("take a private one: of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"),
        );
    }
    let inside =
        |ip: Ipv4Addr| subnet.contains(&ip) && ip != subnet.network() && ip != subnet.broadcast();
    let gateway = match spec.gateway.as_deref().map(str::parse::<Ipv4Addr>) {
        Some(Ok(ip)) if inside(ip) => Some(ip),
        _ => {
            let value = spec.gateway.as_deref().unwrap_or_default();
            wrong.push(
                Violation::new(
                    "spec.gateway",
                    format!("`{value}` is not a host address of {subnet}"),
                )
                .hint("leave it out for the first address"),
            );
            None
        }
    };
    match spec.range.as_deref().and_then(range) {
        Some((first, last)) if inside(first) && inside(last) && first <= last => {
            if gateway.is_some_and(|ip| first == ip && last == ip) {
                wrong.push(Violation::new(
                    "spec.range",
                    format!("`{first}-{last}` is only the gateway"),
                ));
            }
        }
        _ => {
            let value = spec.range.as_deref().unwrap_or_default();
            wrong.push(
                Violation::new(
                    "spec.range",
                    format!("`{value}` is not a range of host addresses of {subnet}"),
                )
                .hint("write first-last, for example `10.20.0.11-10.20.0.254`"),
            );
        }
    }
    for other in others {
        if let Some(theirs) = other
            .layout
            .ipv4
            .filter(|theirs| overlap4(theirs.subnet, subnet))
        {
            wrong.push(overlapping(
                "spec.subnet",
                text,
                &other.name,
                &theirs.subnet.to_string(),
            ));
        }
    }
}

fn check_ipv6(spec: &NetworkSpec, others: &[Other], wrong: &mut Vec<Violation>) {
    let text = spec.ipv6_subnet.as_deref().unwrap_or_default();
    let Ok(subnet) = text.parse::<Ipv6Net>() else {
        wrong.push(
            Violation::new(
                "spec.ipv6_subnet",
                format!("`{text}` is not an IPv6 subnet"),
            )
            .hint("leave it out for a random one of fd00::/8"),
        );
        return;
    };
    if subnet.prefix_len() != 64 {
        wrong.push(
            Violation::new(
                "spec.ipv6_subnet",
                format!("`{text}` has prefix length {}", subnet.prefix_len()),
            )
            .hint("guests need a /64"),
        );
    }
    let documentation = Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32);
    let base = subnet.network();
    let local = base.segments()[0] & 0xfe00 == 0xfc00;
    let global = base.segments()[0] & 0xe000 == 0x2000 && !documentation.contains(&base);
    if !local && !global {
        wrong.push(
            Violation::new(
                "spec.ipv6_subnet",
                format!("`{text}` is not for hosts on a network"),
            )
            .hint(
                "leave it out for a random one of fd00::/8, or take one that was delegated to you",
            ),
        );
    }
    for other in others {
        if let Some(theirs) = other
            .layout
            .ipv6
            .filter(|theirs| overlap6(theirs.subnet, subnet))
        {
            wrong.push(overlapping(
                "spec.ipv6_subnet",
                text,
                &other.name,
                &theirs.subnet.to_string(),
            ));
        }
    }
}

fn overlapping(field: &str, value: &str, name: &Option<String>, theirs: &str) -> Violation {
    let message = match name {
        Some(name) => format!("`{value}` overlaps {theirs} of network `{name}`"),
        None => format!("`{value}` overlaps a network of another project"),
    };
    Violation::new(field, message).hint("take another subnet, or leave it out for a free one")
}

/// Whether an IPv4 address may be a guest's, asked for by name; the error says why not.
pub(crate) fn may_hold_ipv4(net: &Ipv4Layout, ip: Ipv4Addr) -> Result<(), String> {
    let subnet = net.subnet;
    if !subnet.contains(&ip) {
        return Err(format!("`{ip}` is not in the network's subnet {subnet}"));
    }
    if ip == subnet.network() || ip == subnet.broadcast() {
        return Err(format!("`{ip}` is not a host address of {subnet}"));
    }
    if ip == net.gateway {
        return Err(format!("`{ip}` is the network's gateway"));
    }
    let last_reserved = Ipv4Addr::from(u32::from(subnet.network()) + reserved(subnet));
    if ip <= last_reserved {
        return Err(format!(
            "`{ip}` is one of the first {} addresses of {subnet}, which are reserved",
            reserved(subnet)
        ));
    }
    Ok(())
}

/// Whether an IPv6 address may be a guest's.
pub(crate) fn may_hold_ipv6(net: &Ipv6Layout, ip: Ipv6Addr) -> Result<(), String> {
    if !net.subnet.contains(&ip) {
        return Err(format!(
            "`{ip}` is not in the network's subnet {}",
            net.subnet
        ));
    }
    if u128::from(ip) - u128::from(net.subnet.network()) <= 10 {
        return Err(format!(
            "`{ip}` is one of the first 10 addresses of {}, which are reserved",
            net.subnet
        ));
    }
    Ok(())
}

/// The subnets of a layout.
pub(crate) fn subnets(layout: &Layout) -> Vec<ipnet::IpNet> {
    let v4 = layout.ipv4.map(|net| ipnet::IpNet::V4(net.subnet));
    let v6 = layout.ipv6.map(|net| ipnet::IpNet::V6(net.subnet));
    v4.into_iter().chain(v6).collect()
}

/// The host's own addresses in a layout, with prefix.
pub(crate) fn own_addresses(layout: &Layout) -> Vec<ipnet::IpNet> {
    let pair = |ip: IpAddr, len: u8| ipnet::IpNet::new(ip, len).ok();
    let v4 = layout
        .ipv4
        .and_then(|net| pair(net.gateway.into(), net.subnet.prefix_len()));
    let v6 = layout.ipv6.and_then(|net| pair(net.gateway.into(), 64));
    v4.into_iter().chain(v6).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Family;
    use super::*;
    use expect_test::{Expect, expect};

    fn spec(subnet: &str, ipv6: &str) -> NetworkSpec {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        NetworkSpec {
            subnet: given(subnet),
            ipv6_subnet: given(ipv6),
            ..NetworkSpec::default()
        }
    }

    fn filled(mut spec: NetworkSpec, others: &[Other]) -> String {
        fill(&mut spec, others, [7; 32]);
        let wrong = check(&spec, others);
        if wrong.is_empty() {
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            return format!(
                "{} {} {} {}",
                text(&spec.subnet),
                text(&spec.gateway),
                text(&spec.range),
                text(&spec.ipv6_subnet)
            );
        }
        model::Error::invalid(wrong).to_string()
    }

    fn check_one(spec: NetworkSpec, expect: Expect) {
        expect.assert_eq(&filled(spec, &[]));
    }

    #[test]
    fn what_is_left_open_is_chosen() {
        check_one(
            spec("", ""),
            expect!["10.7.7.0/24 10.7.7.1 10.7.7.11-10.7.7.254 fd07:707:707:707::/64"],
        );
        check_one(
            spec("192.168.7.9/24", "fd00:1:2:3::9/64"),
            expect!["192.168.7.0/24 192.168.7.1 192.168.7.11-192.168.7.254 fd00:1:2:3::/64"],
        );
        check_one(
            spec("10.0.0.0/29", ""),
            expect!["10.0.0.0/29 10.0.0.1 10.0.0.2-10.0.0.6 fd07:707:707:707::/64"],
        );
        check_one(
            NetworkSpec {
                family: Family::Ipv4,
                ..spec("172.16.0.0/12", "")
            },
            expect!["172.16.0.0/12 172.16.0.1 172.16.0.11-172.31.255.254 "],
        );
        check_one(
            NetworkSpec {
                family: Family::Ipv6,
                ..spec("", "")
            },
            expect!["   fd07:707:707:707::/64"],
        );
    }

    #[test]
    fn what_cannot_work_is_refused() {
        check_one(
            spec("10.0.0.0/33", ""),
            expect![
                "spec.subnet: `10.0.0.0/33` is not an IPv4 subnet (write address/prefix, for example `10.20.0.0/24`)"
            ],
        );
        check_one(
            spec("10.0.0.0/30", ""),
            expect![
                "spec.subnet: `10.0.0.0/30` has prefix length 30 (8 to 29 are possible, 24 is usual)"
            ],
        );
        check_one(
            spec("127.0.0.0/8", ""),
            expect![
                "spec.subnet: `127.0.0.0/8` is not for hosts on a network (take a private one: of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16)"
            ],
        );
        check_one(
            spec("10.0.0.0/24", "2001:db8::/64"),
            expect![
                "spec.ipv6_subnet: `2001:db8::/64` is not for hosts on a network (leave it out for a random one of fd00::/8, or take one that was delegated to you)"
            ],
        );
        check_one(
            spec("10.0.0.0/24", "fd00::/48"),
            expect!["spec.ipv6_subnet: `fd00::/48` has prefix length 48 (guests need a /64)"],
        );
        check_one(
            NetworkSpec {
                gateway: Some("10.0.1.1".into()),
                range: Some("10.0.0.9".into()),
                ..spec("10.0.0.0/24", "")
            },
            expect![
                "spec.gateway: `10.0.1.1` is not a host address of 10.0.0.0/24 (leave it out for the first address); spec.range: `10.0.0.9` is not a range of host addresses of 10.0.0.0/24 (write first-last, for example `10.20.0.11-10.20.0.254`)"
            ],
        );
        check_one(
            NetworkSpec {
                family: Family::Ipv6,
                ..spec("10.0.0.0/24", "")
            },
            expect![
                "spec.subnet: `10.0.0.0/24` is given, but spec.family is `ipv6` (leave it out, or write `family: dual`)"
            ],
        );
        check_one(
            NetworkSpec {
                domain: "a_b".into(),
                ..spec("10.0.0.0/24", "fd00::/64")
            },
            expect![
                "spec.domain: `a_b` is not a domain name (labels of a-z, 0-9 and - joined by dots, for example `internal`)"
            ],
        );
    }

    #[test]
    fn networks_keep_apart() {
        let mut first = spec("", "");
        fill(&mut first, &[], [7; 32]);
        let other = |name: Option<&str>| {
            [Other {
                name: name.map(str::to_owned),
                layout: layout(&first).unwrap(),
            }]
        };
        let second = filled(spec("", "fd00::/64"), &other(None));
        assert!(
            !second.starts_with(first.subnet.as_deref().unwrap()),
            "{second}"
        );
        expect!["spec.subnet: `10.0.0.0/8` overlaps 10.7.7.0/24 of network `lab` (take another subnet, or leave it out for a free one)"].assert_eq(&filled(
            spec("10.0.0.0/8", "fd00::/64"),
            &other(Some("lab")),
        ));
        expect!["spec.subnet: `10.0.0.0/8` overlaps a network of another project (take another subnet, or leave it out for a free one)"].assert_eq(&filled(spec("10.0.0.0/8", "fd00::/64"), &other(None)));
    }

    #[test]
    fn which_addresses_a_guest_may_hold() {
        let mut chosen = spec("10.0.0.0/24", "fd00::/64");
        fill(&mut chosen, &[], [7; 32]);
        let layout = layout(&chosen).unwrap();
        let v4 = |ip: &str| may_hold_ipv4(&layout.ipv4.unwrap(), ip.parse().unwrap()).is_ok();
        assert!(v4("10.0.0.11") && v4("10.0.0.254"));
        assert!(!v4("10.0.0.10") && !v4("10.0.0.1") && !v4("10.0.0.255") && !v4("10.0.1.11"));
        let v6 = |ip: &str| may_hold_ipv6(&layout.ipv6.unwrap(), ip.parse().unwrap()).is_ok();
        assert!(v6("fd00::b") && !v6("fd00::a") && !v6("fd00:0:0:1::b"));
    }
}

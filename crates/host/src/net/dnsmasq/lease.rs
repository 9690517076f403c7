//! dnsmasq's lease file: read, and cleared of leases that stand in the way. Pure.

use super::HostEntry;
use crate::net::Mac;
use std::net::IpAddr;

/// One address a guest holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// When it ends, in seconds since 1970; 0 never.
    pub ends: u64,
    /// The address.
    pub ip: IpAddr,
    /// Who holds it. IPv6 leases are kept by another identifier, so it is absent there.
    pub mac: Option<Mac>,
}

/// Reads one line; `None` for the server's own identifier and for what is not understood.
fn read(line: &str) -> Option<Lease> {
    let mut words = line.split_ascii_whitespace();
    let ends = words.next()?.parse().ok()?;
    let holder = words.next()?;
    let ip: IpAddr = words.next()?.parse().ok()?;
    Some(Lease {
        ends,
        ip,
        mac: holder.parse().ok().filter(|_| ip.is_ipv4()),
    })
}

/// The leases in a lease file.
pub(super) fn parse(text: &str) -> Vec<Lease> {
    text.lines().filter_map(read).collect()
}

/// The lease file without leases of addresses that are no longer their holder's; `None` when there are none of those.
///
/// dnsmasq keeps them until they end and would refuse the address to its next owner.
pub(super) fn without_stale(text: &str, hosts: &[HostEntry]) -> Option<String> {
    let stale = |line: &str| {
        read(line).is_some_and(|lease| {
            !hosts.iter().any(|host| match lease.ip {
                IpAddr::V4(ip) => {
                    host.ipv4 == Some(ip) && lease.mac.is_none_or(|mac| mac == host.mac)
                }
                IpAddr::V6(ip) => host.ipv6 == Some(ip),
            })
        })
    };
    if !text.lines().any(stale) {
        return None;
    }
    Some(
        text.lines()
            .filter(|line| !stale(line))
            .flat_map(|line| [line, "\n"])
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
1795000000 52:54:00:00:00:01 10.90.0.10 web1 01:52:54:00:00:00:01
1795000000 52:54:00:00:00:02 10.90.0.11 * *
duid 00:01:00:01:2f:00:00:00:52:54:00:00:00:09
1795000000 1193046 fd12::10 web1 00:03:00:01:52:54:00:00:00:01
";

    fn host(mac: &str, ipv4: &str, ipv6: &str) -> HostEntry {
        HostEntry {
            mac: mac.parse().unwrap(),
            name: "h".to_owned(),
            full_names: vec![],
            ipv4: ipv4.parse().ok(),
            ipv6: ipv6.parse().ok(),
        }
    }

    #[test]
    fn leases_of_both_families_are_read() {
        let leases = parse(FILE);
        assert_eq!(leases.len(), 3);
        assert_eq!(leases[0].mac.unwrap().to_string(), "52:54:00:00:00:01");
        assert_eq!(
            (leases[2].ip.to_string(), leases[2].mac),
            ("fd12::10".to_owned(), None)
        );
    }

    #[test]
    fn only_leases_of_former_owners_go() {
        let one = host("52:54:00:00:00:01", "10.90.0.10", "fd12::10");
        let two = host("52:54:00:00:00:02", "10.90.0.11", "");
        assert_eq!(without_stale(FILE, &[one.clone(), two]), None);
        let other = host("52:54:00:00:00:03", "10.90.0.11", "");
        let kept = without_stale(FILE, &[one, other]).unwrap();
        assert!(
            !kept.contains("10.90.0.11")
                && kept.contains("10.90.0.10")
                && kept.contains("duid")
                && kept.contains("fd12::10"),
            "{kept}"
        );
    }
}

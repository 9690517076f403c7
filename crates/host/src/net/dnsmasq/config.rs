//! The files dnsmasq reads, built from what a network is. Pure.

use crate::net::Mac;
use ipnet::{Ipv4Net, Ipv6Net};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// What one network's dnsmasq serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The bridge it listens on, and nowhere else.
    pub bridge: String,
    /// The IPv4 subnet, when the network has one.
    pub ipv4: Option<Ipv4>,
    /// The IPv6 subnet, when the network has one.
    pub ipv6: Option<Ipv6>,
    /// Largest packet in bytes, told to guests.
    pub mtu: u32,
    /// The zone of guests' names, never asked about outside; for example `internal`.
    pub zone: String,
    /// The domain guests search, inside the zone; for example `default.internal`.
    pub search: String,
    /// Servers asked about all other names; none leaves guests with their own names only.
    pub upstreams: Vec<IpAddr>,
    /// How long a guest may keep its address without asking again, in seconds (at least 120).
    pub lease_seconds: u32,
    /// The user dnsmasq becomes.
    pub user: String,
}

/// The IPv4 side of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    /// The subnet.
    pub subnet: Ipv4Net,
    /// The bridge's own address in it, which answers DNS.
    pub gateway: Ipv4Addr,
    /// Whether guests are told to route by the gateway.
    pub routes: bool,
}

/// The IPv6 side of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6 {
    /// The subnet, a /64.
    pub subnet: Ipv6Net,
    /// The bridge's own address in it, which answers DNS.
    pub gateway: Ipv6Addr,
    /// Whether guests are told to route by the gateway.
    pub routes: bool,
}

/// One NIC of a guest, with the names that lead to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostEntry {
    /// Its Ethernet address, by which DHCP knows it.
    pub mac: Mac,
    /// The guest's name, one DNS label.
    pub name: String,
    /// Further full names, for example `web1.default.internal`.
    pub full_names: Vec<String>,
    /// Its IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
}

impl Config {
    /// The text of `dnsmasq.conf`, for a server whose files stand in `folder`.
    pub fn render(&self, folder: &Path) -> String {
        let mut text =
            String::from("# Written by debvisor, and written again when the network changes.\n");
        let mut line = |words: std::fmt::Arguments<'_>| {
            // Writing to a string cannot fail.
            let _ = text.write_fmt(words);
            text.push('\n');
        };
        let file = |name: &str| folder.join(name).display().to_string();
        line(format_args!("keep-in-foreground"));
        line(format_args!("user={}", self.user));
        line(format_args!("log-facility=-"));
        line(format_args!("pid-file={}", file("pid")));
        // bind-dynamic takes the bridge up again after it was removed and made anew.
        line(format_args!("interface={}", self.bridge));
        line(format_args!("except-interface=lo"));
        line(format_args!("bind-dynamic"));

        line(format_args!("no-hosts"));
        line(format_args!("addn-hosts={}", file("hosts")));
        line(format_args!("no-resolv"));
        for server in &self.upstreams {
            line(format_args!("server={server}"));
        }
        line(format_args!("local=/{}/", self.zone));
        line(format_args!("domain={}", self.search));
        line(format_args!("domain-needed"));

        line(format_args!("dhcp-authoritative"));
        line(format_args!("dhcp-hostsfile={}", file("dhcp-hosts")));
        line(format_args!("dhcp-leasefile={}", file("leases")));
        line(format_args!("dhcp-lease-max=65536"));
        // What a guest calls itself must not become a name others trust.
        line(format_args!("dhcp-ignore-names"));
        line(format_args!("quiet-dhcp"));
        line(format_args!("quiet-dhcp6"));
        line(format_args!("quiet-ra"));
        if let Some(ipv4) = self.ipv4 {
            let net = ipv4.subnet.trunc();
            line(format_args!(
                "dhcp-range={},static,{},{}",
                net.addr(),
                net.netmask(),
                self.lease_seconds
            ));
            if ipv4.routes {
                line(format_args!("dhcp-option=option:router,{}", ipv4.gateway));
            } else {
                line(format_args!("dhcp-option=option:router"));
            }
            line(format_args!(
                "dhcp-option=option:dns-server,{}",
                ipv4.gateway
            ));
            line(format_args!("dhcp-option=option:mtu,{}", self.mtu));
        }
        if let Some(ipv6) = self.ipv6 {
            line(format_args!("enable-ra"));
            // Not "slaac": a guest that made up an address of its own would be stopped by the guard of its NIC.
            line(format_args!(
                "dhcp-range={},static,64,{}",
                ipv6.subnet.trunc().addr(),
                self.lease_seconds
            ));
            line(format_args!(
                "dhcp-option=option6:dns-server,[{}]",
                ipv6.gateway
            ));
            line(format_args!(
                "dhcp-option=option6:domain-search,{}",
                self.search
            ));
            let lifetime = if ipv6.routes { 1800 } else { 0 };
            line(format_args!(
                "ra-param={},mtu:{},60,{lifetime}",
                self.bridge, self.mtu
            ));
        }
        text
    }
}

/// The text of the `hosts` file: names to addresses, for DNS and its reverse.
pub(super) fn hosts(entries: &[HostEntry]) -> String {
    let mut text = String::new();
    for entry in entries {
        let addresses = [entry.ipv4.map(IpAddr::from), entry.ipv6.map(IpAddr::from)];
        for address in addresses.into_iter().flatten() {
            // The first name is the one a reverse lookup answers.
            let mut names = entry.full_names.clone();
            names.push(entry.name.clone());
            let _ = writeln!(text, "{address} {}", names.join(" "));
        }
    }
    text
}

/// The text of the `dhcp-hosts` file: which MAC gets which addresses.
pub(super) fn dhcp_hosts(entries: &[HostEntry]) -> String {
    let mut text = String::new();
    for entry in entries {
        let _ = write!(text, "{}", entry.mac);
        if let Some(ip) = entry.ipv4 {
            let _ = write!(text, ",{ip}");
        }
        if let Some(ip) = entry.ipv6 {
            let _ = write!(text, ",[{ip}]");
        }
        let _ = writeln!(text, ",{}", entry.name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn config() -> Config {
        Config {
            bridge: "dvb01234567".to_owned(),
            ipv4: Some(Ipv4 {
                subnet: "10.90.0.0/24".parse().unwrap(),
                gateway: "10.90.0.1".parse().unwrap(),
                routes: true,
            }),
            ipv6: Some(Ipv6 {
                subnet: "fd12:3456:789a:1::/64".parse().unwrap(),
                gateway: "fd12:3456:789a:1::1".parse().unwrap(),
                routes: true,
            }),
            mtu: 1400,
            zone: "internal".to_owned(),
            search: "default.internal".to_owned(),
            upstreams: vec!["192.0.2.53".parse().unwrap()],
            lease_seconds: 86_400,
            user: "dnsmasq".to_owned(),
        }
    }

    #[test]
    fn a_nat_network_in_both_families() {
        expect![[r#"
            # Written by debvisor, and written again when the network changes.
            keep-in-foreground
            user=dnsmasq
            log-facility=-
            pid-file=/run/x/net/1/pid
            interface=dvb01234567
            except-interface=lo
            bind-dynamic
            no-hosts
            addn-hosts=/run/x/net/1/hosts
            no-resolv
            server=192.0.2.53
            local=/internal/
            domain=default.internal
            domain-needed
            dhcp-authoritative
            dhcp-hostsfile=/run/x/net/1/dhcp-hosts
            dhcp-leasefile=/run/x/net/1/leases
            dhcp-lease-max=65536
            dhcp-ignore-names
            quiet-dhcp
            quiet-dhcp6
            quiet-ra
            dhcp-range=10.90.0.0,static,255.255.255.0,86400
            dhcp-option=option:router,10.90.0.1
            dhcp-option=option:dns-server,10.90.0.1
            dhcp-option=option:mtu,1400
            enable-ra
            dhcp-range=fd12:3456:789a:1::,static,64,86400
            dhcp-option=option6:dns-server,[fd12:3456:789a:1::1]
            dhcp-option=option6:domain-search,default.internal
            ra-param=dvb01234567,mtu:1400,60,1800
        "#]]
        .assert_eq(&config().render(Path::new("/run/x/net/1")));
    }

    #[test]
    fn an_isolated_network_names_no_router_and_asks_nobody() {
        let mut isolated = config();
        isolated.upstreams.clear();
        if let Some(ipv4) = &mut isolated.ipv4 {
            ipv4.routes = false;
        }
        if let Some(ipv6) = &mut isolated.ipv6 {
            ipv6.routes = false;
        }
        let text = isolated.render(Path::new("/x"));
        assert!(!text.contains("server=1"), "{text}");
        assert!(text.contains("\ndhcp-option=option:router\n"), "{text}");
        assert!(
            text.contains("\nra-param=dvb01234567,mtu:1400,60,0\n"),
            "{text}"
        );
    }

    #[test]
    fn hosts_by_mac_and_by_name() {
        let entries = [
            HostEntry {
                mac: "52:54:00:00:00:01".parse().unwrap(),
                name: "web1".to_owned(),
                full_names: vec!["web1.default.internal".to_owned()],
                ipv4: Some("10.90.0.10".parse().unwrap()),
                ipv6: Some("fd12::10".parse().unwrap()),
            },
            HostEntry {
                mac: "52:54:00:00:00:02".parse().unwrap(),
                name: "db".to_owned(),
                full_names: vec![],
                ipv4: None,
                ipv6: Some("fd12::11".parse().unwrap()),
            },
        ];
        expect![[r#"
            10.90.0.10 web1.default.internal web1
            fd12::10 web1.default.internal web1
            fd12::11 db
        "#]]
        .assert_eq(&hosts(&entries));
        expect![[r#"
            52:54:00:00:00:01,10.90.0.10,[fd12::10],web1
            52:54:00:00:00:02,[fd12::11],db
        "#]]
        .assert_eq(&dhcp_hosts(&entries));
    }
}

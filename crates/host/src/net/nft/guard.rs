//! The guard of every NIC: a guest speaks only from its own addresses, and is never a DHCP server or a router.
//!
//! ```text
//! prerouting: from a tap of ours? -> guest
//! guest:      not its MAC                 drop
//!             ARP  -> sender MAC and IPv4 its own (or a probe)   else drop
//!             IPv4 -> a DHCP request, or from its IPv4; never from port 67
//!             IPv6 -> from its IPv6 or link-local, or what a host says before it has one;
//!                     never a router advertisement or redirect, never from port 547;
//!                     a neighbour advertisement only for its own addresses
//!             RARP -> accept (QEMU announces a migrated guest so)
//!             anything else (VLAN tags too)   drop
//! ```
//! Lookups are in sets, so a frame costs the same with one NIC and with thousands. Pure.

use super::json::{
    Contents, accept, any_of, counted_drop, dropping, field, is, is_not, joined, jump, meta,
};
use super::{Family, Table};
use crate::net::Mac;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, Ipv6Addr};

/// What one tap's guest may speak as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardedNic {
    /// The tap.
    pub tap: String,
    /// The guest's Ethernet address. Its link-local IPv6 address follows from it.
    pub mac: Mac,
    /// Its IPv4 addresses; with none, it may only ask DHCP.
    pub ipv4: Vec<Ipv4Addr>,
    /// Its IPv6 addresses, the link-local one apart.
    pub ipv6: Vec<Ipv6Addr>,
}

/// Before any NAT a bridge may do, so that nothing is decided on a forged address.
const PRIORITY: i32 = -300;

/// The bridge table that guards these NICs.
pub fn table(name: &str, nics: &[GuardedNic]) -> Table {
    let mut to = Contents::of(Family::Bridge, name);
    let pairs = |of: &dyn Fn(&GuardedNic) -> Vec<String>| -> Vec<Value> {
        nics.iter()
            .flat_map(|nic| {
                of(nic)
                    .into_iter()
                    .map(|value| json!({"concat": [nic.tap, value]}))
            })
            .collect()
    };
    to.set(
        "nics",
        json!("ifname"),
        &[],
        nics.iter().map(|nic| json!(nic.tap)).collect(),
    );
    to.set(
        "macs",
        json!(["ifname", "ether_addr"]),
        &[],
        pairs(&|nic| vec![nic.mac.to_string()]),
    );
    to.set(
        "own4",
        json!(["ifname", "ipv4_addr"]),
        &[],
        pairs(&|nic| nic.ipv4.iter().map(ToString::to_string).collect()),
    );
    to.set(
        "own6",
        json!(["ifname", "ipv6_addr"]),
        &[],
        pairs(&|nic| own6(nic).iter().map(ToString::to_string).collect()),
    );
    for nic in nics {
        to.chain(&advert_chain(nic));
    }
    to.verdicts(
        "advert",
        "ifname",
        nics.iter()
            .map(|nic| json!([nic.tap, jump(&advert_chain(nic))]))
            .collect(),
    );
    to.hooked("prerouting", "filter", "prerouting", PRIORITY);
    for chain in ["guest", "arp4", "ip4", "ipv6"] {
        to.chain(chain);
    }

    to.rule(
        "prerouting",
        vec![is(meta("iifname"), "@nics"), jump("guest")],
    );

    let from = |what: Value| joined([meta("iifname"), what]);
    to.rule(
        "guest",
        dropping([is_not(from(field("ether", "saddr")), "@macs")]),
    );
    let ether_type = || field("ether", "type");
    to.rule("guest", vec![is(ether_type(), "arp"), jump("arp4")]);
    to.rule("guest", vec![is(ether_type(), "ip"), jump("ip4")]);
    to.rule("guest", vec![is(ether_type(), "ip6"), jump("ipv6")]);
    to.rule("guest", vec![is(ether_type(), 0x8035), accept()]);
    to.rule("guest", counted_drop().into());

    to.rule(
        "arp4",
        dropping([is_not(from(field("arp", "saddr ether")), "@macs")]),
    );
    // RFC 5227: asking whether an address is free, before taking it.
    to.rule(
        "arp4",
        vec![
            is(field("arp", "operation"), "request"),
            is(field("arp", "saddr ip"), "0.0.0.0"),
            accept(),
        ],
    );
    to.rule(
        "arp4",
        dropping([is_not(from(field("arp", "saddr ip")), "@own4")]),
    );
    to.rule("arp4", vec![accept()]);

    to.rule("ip4", dropping([is(field("udp", "sport"), 67)]));
    to.rule(
        "ip4",
        vec![
            is(field("ip", "saddr"), "0.0.0.0"),
            is(field("udp", "sport"), 68),
            is(field("udp", "dport"), 67),
            accept(),
        ],
    );
    to.rule(
        "ip4",
        dropping([is_not(from(field("ip", "saddr")), "@own4")]),
    );
    to.rule("ip4", vec![accept()]);

    let icmpv6 = || field("icmpv6", "type");
    to.rule(
        "ipv6",
        dropping([is(
            icmpv6(),
            any_of([json!("nd-router-advert"), json!("nd-redirect")]),
        )]),
    );
    to.rule("ipv6", dropping([is(field("udp", "sport"), 547)]));
    to.rule(
        "ipv6",
        vec![
            is(field("ip6", "saddr"), "::"),
            is(
                icmpv6(),
                any_of([
                    json!("nd-neighbor-solicit"),
                    json!("nd-router-solicit"),
                    json!("mld2-listener-report"),
                ]),
            ),
            accept(),
        ],
    );
    to.rule(
        "ipv6",
        dropping([is_not(from(field("ip6", "saddr")), "@own6")]),
    );
    to.rule(
        "ipv6",
        vec![
            is(icmpv6(), "nd-neighbor-advert"),
            json!({"vmap": {"key": meta("iifname"), "data": "@advert"}}),
        ],
    );
    to.rule("ipv6", vec![accept()]);

    for nic in nics {
        // The advertised address: bits 64 to 192 of the ICMPv6 message. nft of Debian 12 has no name for it.
        let target = json!({"payload": {"base": "th", "offset": 64, "len": 128}});
        let own: Vec<Value> = own6(nic)
            .iter()
            .map(|ip| json!(format!("0x{:032x}", u128::from(*ip))))
            .collect();
        to.rule(&advert_chain(nic), dropping([is_not(target, any_of(own))]));
    }
    Table {
        family: Family::Bridge,
        name: name.to_owned(),
        contents: to.objects,
    }
}

fn own6(nic: &GuardedNic) -> Vec<Ipv6Addr> {
    let mut own = nic.ipv6.clone();
    own.push(nic.mac.link_local());
    own
}

fn advert_chain(nic: &GuardedNic) -> String {
    format!("advert-{}", nic.tap)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn one_nic() {
        let nic = GuardedNic {
            tap: "dvt01234567".to_owned(),
            mac: "52:54:00:00:00:01".parse().unwrap(),
            ipv4: vec!["10.90.0.10".parse().unwrap()],
            ipv6: vec!["fd12::10".parse().unwrap()],
        };
        let lines: Vec<_> = table("debvisor", &[nic])
            .contents
            .iter()
            .map(Value::to_string)
            .collect();
        expect![[r#"
            {"set":{"family":"bridge","table":"debvisor","name":"nics","type":"ifname","elem":["dvt01234567"]}}
            {"set":{"family":"bridge","table":"debvisor","name":"macs","type":["ifname","ether_addr"],"elem":[{"concat":["dvt01234567","52:54:00:00:00:01"]}]}}
            {"set":{"family":"bridge","table":"debvisor","name":"own4","type":["ifname","ipv4_addr"],"elem":[{"concat":["dvt01234567","10.90.0.10"]}]}}
            {"set":{"family":"bridge","table":"debvisor","name":"own6","type":["ifname","ipv6_addr"],"elem":[{"concat":["dvt01234567","fd12::10"]},{"concat":["dvt01234567","fe80::5054:ff:fe00:1"]}]}}
            {"chain":{"family":"bridge","table":"debvisor","name":"advert-dvt01234567"}}
            {"map":{"family":"bridge","table":"debvisor","name":"advert","type":"ifname","map":"verdict","elem":[["dvt01234567",{"jump":{"target":"advert-dvt01234567"}}]]}}
            {"chain":{"family":"bridge","table":"debvisor","name":"prerouting","type":"filter","hook":"prerouting","prio":-300,"policy":"accept"}}
            {"chain":{"family":"bridge","table":"debvisor","name":"guest"}}
            {"chain":{"family":"bridge","table":"debvisor","name":"arp4"}}
            {"chain":{"family":"bridge","table":"debvisor","name":"ip4"}}
            {"chain":{"family":"bridge","table":"debvisor","name":"ipv6"}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"prerouting","expr":[{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"@nics"}},{"jump":{"target":"guest"}}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"guest","expr":[{"match":{"op":"!=","left":{"concat":[{"meta":{"key":"iifname"}},{"payload":{"protocol":"ether","field":"saddr"}}]},"right":"@macs"}},{"counter":null},{"drop":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"guest","expr":[{"match":{"op":"==","left":{"payload":{"protocol":"ether","field":"type"}},"right":"arp"}},{"jump":{"target":"arp4"}}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"guest","expr":[{"match":{"op":"==","left":{"payload":{"protocol":"ether","field":"type"}},"right":"ip"}},{"jump":{"target":"ip4"}}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"guest","expr":[{"match":{"op":"==","left":{"payload":{"protocol":"ether","field":"type"}},"right":"ip6"}},{"jump":{"target":"ipv6"}}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"guest","expr":[{"match":{"op":"==","left":{"payload":{"protocol":"ether","field":"type"}},"right":32821}},{"accept":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"guest","expr":[{"counter":null},{"drop":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"arp4","expr":[{"match":{"op":"!=","left":{"concat":[{"meta":{"key":"iifname"}},{"payload":{"protocol":"arp","field":"saddr ether"}}]},"right":"@macs"}},{"counter":null},{"drop":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"arp4","expr":[{"match":{"op":"==","left":{"payload":{"protocol":"arp","field":"operation"}},"right":"request"}},{"match":{"op":"==","left":{"payload":{"protocol":"arp","field":"saddr ip"}},"right":"0.0.0.0"}},{"accept":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"arp4","expr":[{"match":{"op":"!=","left":{"concat":[{"meta":{"key":"iifname"}},{"payload":{"protocol":"arp","field":"saddr ip"}}]},"right":"@own4"}},{"counter":null},{"drop":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"arp4","expr":[{"accept":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"ip4","expr":[{"match":{"op":"==","left":{"payload":{"protocol":"udp","field":"sport"}},"right":67}},{"counter":null},{"drop":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"ip4","expr":[{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":"0.0.0.0"}},{"match":{"op":"==","left":{"payload":{"protocol":"udp","field":"sport"}},"right":68}},{"match":{"op":"==","left":{"payload":{"protocol":"udp","field":"dport"}},"right":67}},{"accept":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"ip4","expr":[{"match":{"op":"!=","left":{"concat":[{"meta":{"key":"iifname"}},{"payload":{"protocol":"ip","field":"saddr"}}]},"right":"@own4"}},{"counter":null},{"drop":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"ip4","expr":[{"accept":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"ipv6","expr":[{"match":{"op":"==","left":{"payload":{"protocol":"icmpv6","field":"type"}},"right":{"set":["nd-router-advert","nd-redirect"]}}},{"counter":null},{"drop":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"ipv6","expr":[{"match":{"op":"==","left":{"payload":{"protocol":"udp","field":"sport"}},"right":547}},{"counter":null},{"drop":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"ipv6","expr":[{"match":{"op":"==","left":{"payload":{"protocol":"ip6","field":"saddr"}},"right":"::"}},{"match":{"op":"==","left":{"payload":{"protocol":"icmpv6","field":"type"}},"right":{"set":["nd-neighbor-solicit","nd-router-solicit","mld2-listener-report"]}}},{"accept":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"ipv6","expr":[{"match":{"op":"!=","left":{"concat":[{"meta":{"key":"iifname"}},{"payload":{"protocol":"ip6","field":"saddr"}}]},"right":"@own6"}},{"counter":null},{"drop":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"ipv6","expr":[{"match":{"op":"==","left":{"payload":{"protocol":"icmpv6","field":"type"}},"right":"nd-neighbor-advert"}},{"vmap":{"key":{"meta":{"key":"iifname"}},"data":"@advert"}}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"ipv6","expr":[{"accept":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"advert-dvt01234567","expr":[{"match":{"op":"!=","left":{"payload":{"base":"th","offset":64,"len":128}},"right":{"set":["0xfd120000000000000000000000000010","0xfe80000000000000505400fffe000001"]}}},{"counter":null},{"drop":null}]}}"#]].assert_eq(&lines.join("\n"));
    }
}

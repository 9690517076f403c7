//! The guard of every NIC: a guest speaks only from its own addresses, and is never a DHCP server or a router.
//!
//! ```text
//! prerouting: from a tap of ours? -> guest
//! guest:      not its MAC                 drop
//!             ARP  -> sender MAC and IPv4 its own (or a probe)   else drop
//!             IPv4 -> a DHCP request, or from its IPv4; never from port 67
//!             IPv6 -> from its IPv6 or a link-local of its own, or what a host says before it has one;
//!                     never a router advertisement or redirect, never from port 547;
//!                     a neighbour advertisement only for its own addresses
//!             RARP -> accept (QEMU announces a migrated guest so)
//!             anything else (VLAN tags too)   drop
//! ```
//! Lookups are in sets, so a frame costs the same with one NIC and with thousands. Pure.
//!
//! **Link-local addresses** need not follow from the MAC: NetworkManager (RFC 7217) and Windows make up their own. So the
//! first NIC of a network that asks for one or speaks from one has it ([`LEARNED`] each at most), until it has been silent
//! under it for a day; nobody else on that network may speak from it or advertise it (first come, first served: RFC 6620).
//! The router's address and those that follow from the NICs' MACs are never given away. The kernel learns this by itself,
//! so it goes on while we are away, and what it learned outlives a change of the rules. All other IPv6 addresses are
//! allocated and told by DHCPv6; routers advertise no prefix to make addresses in, so temporary ones (RFC 8981) do not occur.

use super::json::{
    Contents, accept, any_of, back, bits, counted_drop, dropping, field, is, is_not, joined, jump,
    learn, meta, number,
};
use super::{Family, RawSet, Table};
use crate::net::Mac;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, Ipv6Addr};

/// What one tap's guest may speak as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardedNic {
    /// The tap.
    pub tap: String,
    /// The bridge of its network. Its MAC is the one [`Mac::derived`] from its name.
    pub bridge: String,
    /// The guest's Ethernet address. Its link-local IPv6 address follows from it.
    pub mac: Mac,
    /// Its IPv4 addresses; with none, it may only ask DHCP.
    pub ipv4: Vec<Ipv4Addr>,
    /// Its IPv6 addresses, the link-local one apart.
    pub ipv6: Vec<Ipv6Addr>,
}

/// Most link-local addresses a NIC may have besides the one of its MAC.
pub const LEARNED: u32 = 8;
/// How long one stays with its NIC that does not use it, in seconds.
const KEPT: u32 = 24 * 3600;
/// Most NICs of a network: a bridge has at most 1023 ports.
const NICS: u32 = 1024;

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
    for what in ["probe", "source", "advert"] {
        for nic in nics {
            to.chain(&chain(what, nic));
        }
        let jumps = nics
            .iter()
            .map(|nic| json!([nic.tap, jump(&chain(what, nic))]));
        to.verdicts(what, "ifname", jumps.collect());
    }
    let mut bridges: Vec<&str> = nics.iter().map(|nic| nic.bridge.as_str()).collect();
    bridges.sort_unstable();
    bridges.dedup();
    let mut raw_sets = Vec::new();
    for bridge in bridges {
        let reserved = format!("reserved-{bridge}");
        let mut never = vec![number(Mac::derived(bridge).link_local())];
        let own = nics.iter().filter(|nic| nic.bridge == bridge);
        never.extend(own.map(|nic| number(nic.mac.link_local())));
        to.elements(&reserved, never);
        raw_sets.push(RawSet {
            name: reserved,
            size: NICS * 2,
            learned: false,
            parts: None,
        });
        raw_sets.push(RawSet {
            name: format!("taken-{bridge}"),
            size: NICS * LEARNED,
            learned: true,
            parts: Some(format!("own-{bridge}-")),
        });
    }
    raw_sets.extend(nics.iter().map(|nic| RawSet {
        name: learned(nic),
        size: LEARNED,
        learned: true,
        parts: None,
    }));
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
    let unspecified = || is(field("ip6", "saddr"), "::");
    to.rule(
        "ipv6",
        vec![
            unspecified(),
            is(
                icmpv6(),
                any_of([json!("nd-router-solicit"), json!("mld2-listener-report")]),
            ),
            accept(),
        ],
    );
    let for_the_nic =
        |what: &str| json!({"vmap": {"key": meta("iifname"), "data": format!("@{what}")}});
    to.rule(
        "ipv6",
        vec![
            unspecified(),
            is(icmpv6(), "nd-neighbor-solicit"),
            for_the_nic("probe"),
        ],
    );
    to.rule(
        "ipv6",
        vec![
            is_not(from(field("ip6", "saddr")), "@own6"),
            for_the_nic("source"),
        ],
    );
    to.rule(
        "ipv6",
        vec![is(icmpv6(), "nd-neighbor-advert"), for_the_nic("advert")],
    );
    to.rule("ipv6", vec![accept()]);
    for nic in nics {
        one_nic(&mut to, nic);
    }
    Table {
        family: Family::Bridge,
        name: name.to_owned(),
        contents: to.objects,
        raw_sets,
    }
}

/// The chains that know one NIC: they compare with its own sets.
fn one_nic(to: &mut Contents, nic: &GuardedNic) {
    // The source address, and the one a neighbour message is about: bits 64 to 192 of the ICMPv6 message.
    let (source, target) = (|| bits("nh", 64, 128), || bits("th", 64, 128));
    let link_local = |what: Value, yes: bool| {
        let masked = json!({"&": [what, "0xffc00000000000000000000000000000"]});
        let all = "0xfe800000000000000000000000000000";
        if yes {
            is(masked, all)
        } else {
            is_not(masked, all)
        }
    };
    let (mine, taken) = (learned(nic), format!("taken-{}", nic.bridge));
    let (at_mine, at_taken) = (format!("@{mine}"), format!("@{taken}"));
    let reserved = format!("@reserved-{}", nic.bridge);
    // First into its own set, which is full sooner: so that a NIC fills no more of the common one than is due to it.
    let keep = |what: &dyn Fn() -> Value| [learn(what(), &mine, KEPT), learn(what(), &taken, KEPT)];

    // A neighbour solicitation without a source asks whether an address is free (RFC 4862, 5.4). Whoever has it answers.
    let probe = chain("probe", nic);
    let [mark, mark_all] = keep(&target);
    to.rule(&probe, vec![link_local(target(), false), accept()]);
    to.rule(&probe, vec![is(target(), reserved.clone()), accept()]);
    to.rule(
        &probe,
        vec![
            is(target(), at_mine.clone()),
            mark.clone(),
            mark_all.clone(),
            accept(),
        ],
    );
    to.rule(&probe, vec![is(target(), at_taken.clone()), accept()]);
    to.rule(&probe, vec![mark, mark_all, accept()]);
    to.rule(&probe, vec![accept()]);

    // A source address that was not allocated to it.
    let from = chain("source", nic);
    let [mark, mark_all] = keep(&source);
    to.rule(&from, dropping([link_local(source(), false)]));
    to.rule(&from, dropping([is(source(), reserved)]));
    to.rule(
        &from,
        vec![
            is(source(), at_mine.clone()),
            mark.clone(),
            mark_all.clone(),
            back(),
        ],
    );
    to.rule(&from, dropping([is(source(), at_taken)]));
    to.rule(&from, vec![mark, mark_all, back()]);
    to.rule(&from, counted_drop().into());

    let advert = chain("advert", nic);
    let own: Vec<Value> = own6(nic).into_iter().map(number).collect();
    to.rule(&advert, vec![is(target(), any_of(own)), back()]);
    to.rule(&advert, vec![is(target(), at_mine), back()]);
    to.rule(&advert, counted_drop().into());
}

fn own6(nic: &GuardedNic) -> Vec<Ipv6Addr> {
    let mut own = nic.ipv6.clone();
    own.push(nic.mac.link_local());
    own
}

/// Name of a NIC's own chain.
fn chain(what: &str, nic: &GuardedNic) -> String {
    format!("{what}-{}", nic.tap)
}

/// Name of the set of a NIC's own link-local addresses.
fn learned(nic: &GuardedNic) -> String {
    format!("own-{}-{}", nic.bridge, nic.tap)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn one_nic() {
        let nic = GuardedNic {
            tap: "dvt01234567".to_owned(),
            bridge: "dvb01234567".to_owned(),
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
            {"chain":{"family":"bridge","table":"debvisor","name":"probe-dvt01234567"}}
            {"map":{"family":"bridge","table":"debvisor","name":"probe","type":"ifname","map":"verdict","elem":[["dvt01234567",{"jump":{"target":"probe-dvt01234567"}}]]}}
            {"chain":{"family":"bridge","table":"debvisor","name":"source-dvt01234567"}}
            {"map":{"family":"bridge","table":"debvisor","name":"source","type":"ifname","map":"verdict","elem":[["dvt01234567",{"jump":{"target":"source-dvt01234567"}}]]}}
            {"chain":{"family":"bridge","table":"debvisor","name":"advert-dvt01234567"}}
            {"map":{"family":"bridge","table":"debvisor","name":"advert","type":"ifname","map":"verdict","elem":[["dvt01234567",{"jump":{"target":"advert-dvt01234567"}}]]}}
            {"element":{"family":"bridge","table":"debvisor","name":"reserved-dvb01234567","elem":["0xfe80000000000000008be6fffe4cd43d","0xfe80000000000000505400fffe000001"]}}
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
            {"rule":{"family":"bridge","table":"debvisor","chain":"ipv6","expr":[{"match":{"op":"==","left":{"payload":{"protocol":"ip6","field":"saddr"}},"right":"::"}},{"match":{"op":"==","left":{"payload":{"protocol":"icmpv6","field":"type"}},"right":{"set":["nd-router-solicit","mld2-listener-report"]}}},{"accept":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"ipv6","expr":[{"match":{"op":"==","left":{"payload":{"protocol":"ip6","field":"saddr"}},"right":"::"}},{"match":{"op":"==","left":{"payload":{"protocol":"icmpv6","field":"type"}},"right":"nd-neighbor-solicit"}},{"vmap":{"key":{"meta":{"key":"iifname"}},"data":"@probe"}}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"ipv6","expr":[{"match":{"op":"!=","left":{"concat":[{"meta":{"key":"iifname"}},{"payload":{"protocol":"ip6","field":"saddr"}}]},"right":"@own6"}},{"vmap":{"key":{"meta":{"key":"iifname"}},"data":"@source"}}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"ipv6","expr":[{"match":{"op":"==","left":{"payload":{"protocol":"icmpv6","field":"type"}},"right":"nd-neighbor-advert"}},{"vmap":{"key":{"meta":{"key":"iifname"}},"data":"@advert"}}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"ipv6","expr":[{"accept":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"probe-dvt01234567","expr":[{"match":{"op":"!=","left":{"&":[{"payload":{"base":"th","offset":64,"len":128}},"0xffc00000000000000000000000000000"]},"right":"0xfe800000000000000000000000000000"}},{"accept":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"probe-dvt01234567","expr":[{"match":{"op":"==","left":{"payload":{"base":"th","offset":64,"len":128}},"right":"@reserved-dvb01234567"}},{"accept":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"probe-dvt01234567","expr":[{"match":{"op":"==","left":{"payload":{"base":"th","offset":64,"len":128}},"right":"@own-dvb01234567-dvt01234567"}},{"set":{"op":"update","elem":{"elem":{"val":{"payload":{"base":"th","offset":64,"len":128}},"timeout":86400}},"set":"@own-dvb01234567-dvt01234567"}},{"set":{"op":"update","elem":{"elem":{"val":{"payload":{"base":"th","offset":64,"len":128}},"timeout":86400}},"set":"@taken-dvb01234567"}},{"accept":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"probe-dvt01234567","expr":[{"match":{"op":"==","left":{"payload":{"base":"th","offset":64,"len":128}},"right":"@taken-dvb01234567"}},{"accept":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"probe-dvt01234567","expr":[{"set":{"op":"update","elem":{"elem":{"val":{"payload":{"base":"th","offset":64,"len":128}},"timeout":86400}},"set":"@own-dvb01234567-dvt01234567"}},{"set":{"op":"update","elem":{"elem":{"val":{"payload":{"base":"th","offset":64,"len":128}},"timeout":86400}},"set":"@taken-dvb01234567"}},{"accept":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"probe-dvt01234567","expr":[{"accept":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"source-dvt01234567","expr":[{"match":{"op":"!=","left":{"&":[{"payload":{"base":"nh","offset":64,"len":128}},"0xffc00000000000000000000000000000"]},"right":"0xfe800000000000000000000000000000"}},{"counter":null},{"drop":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"source-dvt01234567","expr":[{"match":{"op":"==","left":{"payload":{"base":"nh","offset":64,"len":128}},"right":"@reserved-dvb01234567"}},{"counter":null},{"drop":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"source-dvt01234567","expr":[{"match":{"op":"==","left":{"payload":{"base":"nh","offset":64,"len":128}},"right":"@own-dvb01234567-dvt01234567"}},{"set":{"op":"update","elem":{"elem":{"val":{"payload":{"base":"nh","offset":64,"len":128}},"timeout":86400}},"set":"@own-dvb01234567-dvt01234567"}},{"set":{"op":"update","elem":{"elem":{"val":{"payload":{"base":"nh","offset":64,"len":128}},"timeout":86400}},"set":"@taken-dvb01234567"}},{"return":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"source-dvt01234567","expr":[{"match":{"op":"==","left":{"payload":{"base":"nh","offset":64,"len":128}},"right":"@taken-dvb01234567"}},{"counter":null},{"drop":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"source-dvt01234567","expr":[{"set":{"op":"update","elem":{"elem":{"val":{"payload":{"base":"nh","offset":64,"len":128}},"timeout":86400}},"set":"@own-dvb01234567-dvt01234567"}},{"set":{"op":"update","elem":{"elem":{"val":{"payload":{"base":"nh","offset":64,"len":128}},"timeout":86400}},"set":"@taken-dvb01234567"}},{"return":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"source-dvt01234567","expr":[{"counter":null},{"drop":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"advert-dvt01234567","expr":[{"match":{"op":"==","left":{"payload":{"base":"th","offset":64,"len":128}},"right":{"set":["0xfd120000000000000000000000000010","0xfe80000000000000505400fffe000001"]}}},{"return":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"advert-dvt01234567","expr":[{"match":{"op":"==","left":{"payload":{"base":"th","offset":64,"len":128}},"right":"@own-dvb01234567-dvt01234567"}},{"return":null}]}}
            {"rule":{"family":"bridge","table":"debvisor","chain":"advert-dvt01234567","expr":[{"counter":null},{"drop":null}]}}"#]].assert_eq(&lines.join("\n"));
    }
}

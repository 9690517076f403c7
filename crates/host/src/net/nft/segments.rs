//! What may pass between our networks and the world: isolation, NAT, and packet sizes that fit.
//!
//! | network | out | in | masqueraded |
//! |---|---|---|---|
//! | nat | yes | only answers | yes |
//! | routed | yes | yes | no |
//! | isolated | no, and to the host only DHCP, DNS and ping | no | no |
//!
//! Between two bridges the stricter one decides. What does not touch a bridge of ours is left alone. Pure.

use super::json::{Contents, accept, any_of, dropping, field, is, is_not, joined, meta};
use super::{Family, Table};
use ipnet::IpNet;
use serde_json::{Value, json};

/// How a network meets the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Guests reach out under the host's address; nothing reaches in.
    Nat,
    /// Guests are reached under their own addresses; the world must know the way.
    Routed,
    /// Guests reach each other and the network's own DHCP and DNS, nothing else.
    Isolated,
}

/// One network on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its bridge.
    pub bridge: String,
    /// How it meets the world.
    pub reach: Reach,
    /// Its subnets, of both families.
    pub subnets: Vec<IpNet>,
}

/// The inet table for these networks.
pub fn table(name: &str, segments: &[Segment]) -> Table {
    let mut to = Contents::of(Family::Inet, name);
    let with = |reach: Reach| {
        segments
            .iter()
            .filter(move |segment| segment.reach == reach)
    };
    let bridges = |reach: Reach| {
        with(reach)
            .map(|segment| json!(segment.bridge))
            .collect::<Vec<_>>()
    };
    to.set("natted", json!("ifname"), &[], bridges(Reach::Nat));
    to.set("isolated", json!("ifname"), &[], bridges(Reach::Isolated));
    // Where br_netfilter is on (Docker switches it on), frames inside one bridge come by here too.
    to.set(
        "inside",
        json!(["ifname", "ifname"]),
        &[],
        segments
            .iter()
            .map(|segment| joined([json!(segment.bridge), json!(segment.bridge)]))
            .collect(),
    );
    for (set, kind, v4) in [("nat4", "ipv4_addr", true), ("nat6", "ipv6_addr", false)] {
        let subnets = with(Reach::Nat)
            .flat_map(|segment| &segment.subnets)
            .filter(|net| matches!(net, IpNet::V4(_)) == v4);
        to.set(
            set,
            json!(kind),
            &["interval"],
            subnets.map(prefix).collect(),
        );
    }

    to.hooked("forward", "filter", "forward", 0);
    to.rule(
        "forward",
        vec![
            is(joined([meta("iifname"), meta("oifname")]), "@inside"),
            accept(),
        ],
    );
    for side in ["iifname", "oifname"] {
        to.rule("forward", dropping([is(meta(side), "@isolated")]));
    }
    let answers = json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}});
    to.rule(
        "forward",
        vec![is(meta("oifname"), "@natted"), answers.clone(), accept()],
    );
    to.rule("forward", dropping([is(meta("oifname"), "@natted")]));

    to.hooked("input", "filter", "input", 0);
    let isolated = || is(meta("iifname"), "@isolated");
    to.rule("input", vec![isolated(), answers, accept()]);
    to.rule(
        "input",
        vec![
            isolated(),
            is(meta("l4proto"), any_of([json!("icmp"), json!("ipv6-icmp")])),
            accept(),
        ],
    );
    to.rule(
        "input",
        vec![
            isolated(),
            is(
                field("udp", "dport"),
                any_of([json!(53), json!(67), json!(547)]),
            ),
            accept(),
        ],
    );
    to.rule(
        "input",
        vec![isolated(), is(field("tcp", "dport"), 53), accept()],
    );
    to.rule("input", dropping([isolated()]));

    // The way out may be narrower than the bridge; many networks lose the ICMP messages that would say so.
    to.hooked("clamp", "filter", "forward", -150);
    for side in ["iifname", "oifname"] {
        to.rule(
            "clamp",
            vec![
                is(meta(side), "@natted"),
                is(json!({"&": [field("tcp", "flags"), ["syn", "rst"]]}), "syn"),
                json!({"mangle": {
                    "key": {"tcp option": {"name": "maxseg", "field": "size"}},
                    "value": {"rt": {"key": "mtu"}},
                }}),
            ],
        );
    }

    to.hooked("postrouting", "nat", "postrouting", 100);
    for (ip, set, multicast) in [
        ("ip", "@nat4", ("224.0.0.0", 4)),
        ("ip6", "@nat6", ("ff00::", 8)),
    ] {
        to.rule(
            "postrouting",
            vec![
                is(field(ip, "saddr"), set),
                is_not(field(ip, "daddr"), set),
                is_not(
                    field(ip, "daddr"),
                    json!({"prefix": {"addr": multicast.0, "len": multicast.1}}),
                ),
                json!({"masquerade": null}),
            ],
        );
    }
    Table {
        family: Family::Inet,
        name: name.to_owned(),
        contents: to.objects,
        raw_sets: Vec::new(),
    }
}

fn prefix(net: &IpNet) -> Value {
    let net = net.trunc();
    json!({"prefix": {"addr": net.addr().to_string(), "len": net.prefix_len()}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn one_network_of_each_sort() {
        let segment = |bridge: &str, reach, subnet: &str| Segment {
            bridge: bridge.to_owned(),
            reach,
            subnets: vec![
                subnet.parse().unwrap(),
                format!("fd12:{}::/64", bridge.len()).parse().unwrap(),
            ],
        };
        let all = [
            segment("dvb1", Reach::Nat, "10.90.0.1/24"),
            segment("dvb02", Reach::Isolated, "10.91.0.0/24"),
            segment("dvb003", Reach::Routed, "10.92.0.0/24"),
        ];
        let lines: Vec<_> = table("debvisor", &all)
            .contents
            .iter()
            .map(Value::to_string)
            .collect();
        expect![[r#"
            {"set":{"family":"inet","table":"debvisor","name":"natted","type":"ifname","elem":["dvb1"]}}
            {"set":{"family":"inet","table":"debvisor","name":"isolated","type":"ifname","elem":["dvb02"]}}
            {"set":{"family":"inet","table":"debvisor","name":"inside","type":["ifname","ifname"],"elem":[{"concat":["dvb1","dvb1"]},{"concat":["dvb02","dvb02"]},{"concat":["dvb003","dvb003"]}]}}
            {"set":{"family":"inet","table":"debvisor","name":"nat4","type":"ipv4_addr","flags":["interval"],"elem":[{"prefix":{"addr":"10.90.0.0","len":24}}]}}
            {"set":{"family":"inet","table":"debvisor","name":"nat6","type":"ipv6_addr","flags":["interval"],"elem":[{"prefix":{"addr":"fd12:4::","len":64}}]}}
            {"chain":{"family":"inet","table":"debvisor","name":"forward","type":"filter","hook":"forward","prio":0,"policy":"accept"}}
            {"rule":{"family":"inet","table":"debvisor","chain":"forward","expr":[{"match":{"op":"==","left":{"concat":[{"meta":{"key":"iifname"}},{"meta":{"key":"oifname"}}]},"right":"@inside"}},{"accept":null}]}}
            {"rule":{"family":"inet","table":"debvisor","chain":"forward","expr":[{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"@isolated"}},{"counter":null},{"drop":null}]}}
            {"rule":{"family":"inet","table":"debvisor","chain":"forward","expr":[{"match":{"op":"==","left":{"meta":{"key":"oifname"}},"right":"@isolated"}},{"counter":null},{"drop":null}]}}
            {"rule":{"family":"inet","table":"debvisor","chain":"forward","expr":[{"match":{"op":"==","left":{"meta":{"key":"oifname"}},"right":"@natted"}},{"match":{"op":"in","left":{"ct":{"key":"state"}},"right":["established","related"]}},{"accept":null}]}}
            {"rule":{"family":"inet","table":"debvisor","chain":"forward","expr":[{"match":{"op":"==","left":{"meta":{"key":"oifname"}},"right":"@natted"}},{"counter":null},{"drop":null}]}}
            {"chain":{"family":"inet","table":"debvisor","name":"input","type":"filter","hook":"input","prio":0,"policy":"accept"}}
            {"rule":{"family":"inet","table":"debvisor","chain":"input","expr":[{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"@isolated"}},{"match":{"op":"in","left":{"ct":{"key":"state"}},"right":["established","related"]}},{"accept":null}]}}
            {"rule":{"family":"inet","table":"debvisor","chain":"input","expr":[{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"@isolated"}},{"match":{"op":"==","left":{"meta":{"key":"l4proto"}},"right":{"set":["icmp","ipv6-icmp"]}}},{"accept":null}]}}
            {"rule":{"family":"inet","table":"debvisor","chain":"input","expr":[{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"@isolated"}},{"match":{"op":"==","left":{"payload":{"protocol":"udp","field":"dport"}},"right":{"set":[53,67,547]}}},{"accept":null}]}}
            {"rule":{"family":"inet","table":"debvisor","chain":"input","expr":[{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"@isolated"}},{"match":{"op":"==","left":{"payload":{"protocol":"tcp","field":"dport"}},"right":53}},{"accept":null}]}}
            {"rule":{"family":"inet","table":"debvisor","chain":"input","expr":[{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"@isolated"}},{"counter":null},{"drop":null}]}}
            {"chain":{"family":"inet","table":"debvisor","name":"clamp","type":"filter","hook":"forward","prio":-150,"policy":"accept"}}
            {"rule":{"family":"inet","table":"debvisor","chain":"clamp","expr":[{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"@natted"}},{"match":{"op":"==","left":{"&":[{"payload":{"protocol":"tcp","field":"flags"}},["syn","rst"]]},"right":"syn"}},{"mangle":{"key":{"tcp option":{"name":"maxseg","field":"size"}},"value":{"rt":{"key":"mtu"}}}}]}}
            {"rule":{"family":"inet","table":"debvisor","chain":"clamp","expr":[{"match":{"op":"==","left":{"meta":{"key":"oifname"}},"right":"@natted"}},{"match":{"op":"==","left":{"&":[{"payload":{"protocol":"tcp","field":"flags"}},["syn","rst"]]},"right":"syn"}},{"mangle":{"key":{"tcp option":{"name":"maxseg","field":"size"}},"value":{"rt":{"key":"mtu"}}}}]}}
            {"chain":{"family":"inet","table":"debvisor","name":"postrouting","type":"nat","hook":"postrouting","prio":100,"policy":"accept"}}
            {"rule":{"family":"inet","table":"debvisor","chain":"postrouting","expr":[{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":"@nat4"}},{"match":{"op":"!=","left":{"payload":{"protocol":"ip","field":"daddr"}},"right":"@nat4"}},{"match":{"op":"!=","left":{"payload":{"protocol":"ip","field":"daddr"}},"right":{"prefix":{"addr":"224.0.0.0","len":4}}}},{"masquerade":null}]}}
            {"rule":{"family":"inet","table":"debvisor","chain":"postrouting","expr":[{"match":{"op":"==","left":{"payload":{"protocol":"ip6","field":"saddr"}},"right":"@nat6"}},{"match":{"op":"!=","left":{"payload":{"protocol":"ip6","field":"daddr"}},"right":"@nat6"}},{"match":{"op":"!=","left":{"payload":{"protocol":"ip6","field":"daddr"}},"right":{"prefix":{"addr":"ff00::","len":8}}}},{"masquerade":null}]}}"#]].assert_eq(&lines.join("\n"));
    }
}

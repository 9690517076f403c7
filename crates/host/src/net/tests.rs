//! The real thing: namespaces, bridges, nft, dnsmasq and DHCP clients of this kernel. Guests are namespaces with a veth for a
//! tap. Needs root; says so loudly when skipped.

use super::dnsmasq::{self, Config, Dnsmasq, HostEntry, Outcome};
use super::nft::guard::{self, GuardedNic};
use super::nft::segments::{self, Reach, Segment};
use super::nft::{Family, Nft};
use super::*;
use crate::clock::{SharedClock, SystemClock};
use crate::process::Run;
use nix::sys::signal::Signal;
use std::future::Future;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Namespaces of one test, removed with it.
struct Lab {
    tag: String,
    made: Vec<Netns>,
}

impl Lab {
    /// `None`, said loudly, when this machine cannot do it.
    fn new(test: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: {test} needs root for network namespaces");
            return None;
        }
        let tag = format!(
            "hostn-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        Some(Self {
            tag,
            made: Vec::new(),
        })
    }

    async fn netns(&mut self, name: &str) -> Netns {
        let netns = Netns::named(&format!("{}-{name}", self.tag)).unwrap();
        netns.ensure().await.unwrap();
        self.made.push(netns.clone());
        netns
    }

    /// A guest: its namespace, and a port named like a tap in the host's bridge.
    async fn guest(&mut self, host: &Netns, bridge: &str, name: &str, mac: &str) -> Guest {
        let netns = self.netns(name).await;
        let tap = names::tap(name, "nic0");
        let links = Links::open(host).await.unwrap();
        links.add_veth(&tap, "eth0", &netns).await.unwrap();
        ip(&netns, &format!("link set eth0 address {mac}")).await;
        ip(&netns, "link set eth0 up").await;
        links.set_port(&tap, bridge, false).await.unwrap();
        links.set_up(&tap, true).await.unwrap();
        Guest {
            netns,
            tap,
            bridge: bridge.to_owned(),
            mac: mac.parse().unwrap(),
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for netns in &self.made {
            let _ = netns.remove();
        }
    }
}

struct Guest {
    netns: Netns,
    tap: String,
    bridge: String,
    mac: Mac,
}

impl Guest {
    fn nic(&self, ipv4: &str, ipv6: &str) -> GuardedNic {
        GuardedNic {
            tap: self.tap.clone(),
            bridge: self.bridge.clone(),
            mac: self.mac,
            ipv4: ipv4.parse().into_iter().collect(),
            ipv6: ipv6.parse().into_iter().collect(),
        }
    }

    /// A socket that sends and hears whole frames.
    async fn wire(&self) -> OwnedFd {
        self.netns
            .run(|| {
                let proto = i32::from((nix::libc::ETH_P_ALL as u16).to_be());
                // SAFETY: plain calls; the address is initialised and outlives the bind.
                unsafe {
                    let fd = nix::libc::socket(
                        nix::libc::AF_PACKET,
                        nix::libc::SOCK_RAW | nix::libc::SOCK_CLOEXEC,
                        proto,
                    );
                    assert!(fd >= 0);
                    let fd = OwnedFd::from_raw_fd(fd);
                    let mut at: nix::libc::sockaddr_ll = std::mem::zeroed();
                    at.sll_family = nix::libc::AF_PACKET as u16;
                    at.sll_protocol = (nix::libc::ETH_P_ALL as u16).to_be();
                    at.sll_ifindex = nix::libc::if_nametoindex(c"eth0".as_ptr()) as i32;
                    let bound = nix::libc::bind(
                        fd.as_raw_fd(),
                        (&raw const at).cast(),
                        size_of_val(&at) as u32,
                    );
                    assert_eq!(bound, 0);
                    Ok(fd)
                }
            })
            .await
            .unwrap()
    }
}

/// Runs a program in the namespace; its output, or nothing when it failed.
async fn try_run(netns: &Netns, program: &str, args: &[&str]) -> Option<String> {
    let run = Run::new(program)
        .args(args)
        .netns(netns.path())
        .timeout(Duration::from_secs(20));
    run.output().await.ok().map(|output| output.text())
}

async fn ip(netns: &Netns, command: &str) -> String {
    let args: Vec<&str> = command.split(' ').collect();
    try_run(netns, "ip", &args)
        .await
        .unwrap_or_else(|| panic!("ip {command}"))
}

async fn pings(from: &Netns, to: &str) -> bool {
    try_run(from, "ping", &["-n", "-c", "1", "-W", "1", to])
        .await
        .is_some()
}

/// Asks until it is so, for at most ten seconds.
async fn until<F: Future<Output = bool>>(what: &str, mut so: impl FnMut() -> F) {
    let end = Instant::now() + Duration::from_secs(10);
    while !so().await {
        assert!(Instant::now() < end, "{what}: not within ten seconds");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn bridge(netns: &Netns, name: &str, addresses: &[&str]) -> Links {
    let links = Links::open(netns).await.unwrap();
    links
        .ensure_bridge(name, Mac::derived(name), 1500)
        .await
        .unwrap();
    let addresses: Vec<_> = addresses.iter().map(|net| net.parse().unwrap()).collect();
    links.set_addresses(name, &addresses).await.unwrap();
    links.set_up(name, true).await.unwrap();
    links
}

#[tokio::test]
async fn links_are_made_kept_and_removed_in_a_namespace() {
    let Some(mut lab) = Lab::new("links") else {
        return;
    };
    let netns = lab.netns("a").await;
    assert!(
        !netns.ensure().await.unwrap(),
        "a second time makes nothing"
    );
    let links = bridge(&netns, "dvb1", &["10.90.0.1/24", "fd90::1/64"]).await;
    let first = links.get("dvb1").await.unwrap().unwrap();
    assert_eq!(
        (first.kind.as_str(), first.mac, first.up),
        ("bridge", Some(Mac::derived("dvb1")), true)
    );
    bridge(&netns, "dvb1", &["10.90.0.1/24", "fd90::1/64"]).await;
    assert_eq!(
        links.get("dvb1").await.unwrap().unwrap().index,
        first.index,
        "kept, not made anew"
    );
    links
        .set_addresses("dvb1", &["10.91.0.1/24".parse().unwrap()])
        .await
        .unwrap();
    let now = links.addresses("dvb1").await.unwrap();
    assert!(
        now.contains(&"10.91.0.1/24".parse().unwrap())
            && !now.contains(&"10.90.0.1/24".parse().unwrap()),
        "{now:?}"
    );
    let routes = links.routes().await.unwrap();
    assert!(
        routes
            .iter()
            .any(|route| route.to == "10.91.0.0/24".parse().unwrap() && route.dev == "dvb1"),
        "{routes:?}"
    );

    let refused = links
        .ensure_bridge("lo", Mac::derived("x"), 1500)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("is no bridge"), "{refused}");
    assert!(links.remove("dvb1").await.unwrap());
    assert!(!links.remove("dvb1").await.unwrap());
    assert!(
        Links::open(&Netns::root())
            .await
            .unwrap()
            .get("dvb1")
            .await
            .unwrap()
            .is_none()
    );
    netns.remove().unwrap();
    assert!(!netns.exists());
}

#[tokio::test]
async fn a_tap_outlives_its_holder_and_has_one_at_a_time() {
    let Some(mut lab) = Lab::new("tap") else {
        return;
    };
    let netns = lab.netns("a").await;
    let links = bridge(&netns, "dvb1", &[]).await;
    let fds = tap::open(&netns, "dvt1", 4711, 3).await.unwrap();
    assert_eq!(fds.len(), 3);
    let link = links.get("dvt1").await.unwrap().unwrap();
    assert_eq!(link.kind, "tun");
    links.set_port("dvt1", "dvb1", true).await.unwrap();
    let port = links.get("dvt1").await.unwrap().unwrap();
    assert!(port.isolated && port.bridge.is_some());
    let busy = tap::open(&netns, "dvt1", 4711, 2).await.unwrap_err();
    assert!(busy.to_string().contains("still running"), "{busy}");
    drop(fds);
    assert_eq!(
        links.get("dvt1").await.unwrap().unwrap().index,
        link.index,
        "persistent"
    );
    drop(tap::open(&netns, "dvt1", 4711, 1).await.unwrap());
    let detail = ip(&netns, "-d link show dvt1").await;
    assert!(
        detail.contains("vnet_hdr on") && detail.contains("user 4711"),
        "{detail}"
    );
    let many = tap::open(&netns, "dvt1", 4711, 9).await.unwrap_err();
    assert!(many.to_string().contains("1 to 8"), "{many}");

    // One that is older than queues are is made anew.
    ip(&netns, "tuntap add dev dvt2 mode tap vnet_hdr").await;
    drop(tap::open(&netns, "dvt2", 4711, 2).await.unwrap());
    let detail = ip(&netns, "-d link show dvt2").await;
    assert!(detail.contains("multi_queue"), "{detail}");
}

/// Ethernet header and body, not padded: br_netfilter would cut the padding off again.
fn frame(to: Mac, from: Mac, kind: u16, body: &[u8]) -> Vec<u8> {
    [&to.0[..], &from.0[..], &kind.to_be_bytes(), body].concat()
}

fn arp(op: u8, sender: Mac, sender_ip: [u8; 4], target_ip: [u8; 4]) -> Vec<u8> {
    [
        &[0, 1, 8, 0, 6, 4, 0, op][..],
        &sender.0,
        &sender_ip,
        &[0; 6],
        &target_ip,
    ]
    .concat()
}

fn udp4(from: [u8; 4], to: [u8; 4], sport: u16, dport: u16) -> Vec<u8> {
    let mut header = [&[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0][..], &from, &to].concat();
    // Where br_netfilter is on, a wrong checksum never passes a bridge.
    let sum: u32 = header
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let once = (sum & 0xffff) + (sum >> 16);
    let folded = (once & 0xffff) + (once >> 16);
    header[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    [
        &header[..],
        &sport.to_be_bytes(),
        &dport.to_be_bytes(),
        &[0, 8, 0, 0],
    ]
    .concat()
}

fn ipv6(from: &str, to: &str, next: u8, body: &[u8]) -> Vec<u8> {
    let octets = |ip: &str| ip.parse::<std::net::Ipv6Addr>().unwrap().octets();
    [
        &[0x60, 0, 0, 0][..],
        &(body.len() as u16).to_be_bytes(),
        &[next, 255],
        &octets(from),
        &octets(to),
        body,
    ]
    .concat()
}

/// An ICMPv6 message with an address in its body: neighbour solicitation (135), advertisement (136); or a router's (134).
fn icmp6(kind: u8, target: &str) -> Vec<u8> {
    [
        &[kind, 0, 0, 0, 0, 0, 0, 0][..],
        &target.parse::<std::net::Ipv6Addr>().unwrap().octets(),
    ]
    .concat()
}

/// Sends frames from one guest and checks which of them the other hears. Their IPv4 addresses in 10.90.0.0/24 end as their MACs do.
async fn exchange(a: &Guest, b: &Guest, cases: Vec<(&'static str, bool, Vec<u8>)>) {
    let (out, heard, from, to) = (a.wire().await, b.wire().await, a.mac, b.mac);
    let ip = |mac: Mac| [10, 90, 0, mac.0[5]];
    // A marker that passes follows each frame: whatever comes before it has come, and nothing has to be waited for.
    let heard = tokio::task::spawn_blocking(move || {
        let timeout = nix::sys::time::TimeVal::new(5, 0);
        nix::sys::socket::setsockopt(&heard, nix::sys::socket::sockopt::ReceiveTimeout, &timeout)
            .unwrap();
        let marker = |n: usize| {
            frame(
                to,
                from,
                0x0800,
                &udp4(ip(from), ip(to), 40_000, 30_000 + n as u16),
            )
        };
        for (n, (what, passes, bytes)) in cases.iter().enumerate() {
            let (bytes, marker) = (bytes.clone(), marker(n));
            for sent in [&bytes, &marker] {
                assert_eq!(
                    nix::unistd::write(&out, sent).unwrap(),
                    sent.len(),
                    "{what}"
                );
            }
            let (mut seen, mut buffer) = (false, [0; 2048]);
            loop {
                let length = nix::unistd::read(&heard, &mut buffer)
                    .unwrap_or_else(|error| panic!("{what}: marker not heard: {error}"));
                if buffer[..length] == marker[..] {
                    break;
                }
                seen |= buffer[..length] == bytes[..];
            }
            assert_eq!(seen, *passes, "{what}: passed is {seen}");
        }
    })
    .await;
    heard.unwrap();
}

#[tokio::test]
async fn a_guest_speaks_only_as_itself() {
    let Some(mut lab) = Lab::new("guard") else {
        return;
    };
    let host = lab.netns("h").await;
    bridge(&host, "dvb1", &["10.90.0.1/24", "fd90::1/64"]).await;
    let a = lab.guest(&host, "dvb1", "a", "52:54:00:00:00:0a").await;
    let b = lab.guest(&host, "dvb1", "b", "52:54:00:00:00:0b").await;
    let nics = [
        a.nic("10.90.0.10", "fd90::a"),
        b.nic("10.90.0.11", "fd90::b"),
    ];
    Nft::new(&host)
        .replace(&[guard::table("debvisor", &nics)])
        .await
        .unwrap();

    let (me, you, router) = ([10, 90, 0, 10], [10, 90, 0, 11], [10, 90, 0, 1]);
    let (my_ll, your_ll) = (
        a.mac.link_local().to_string(),
        b.mac.link_local().to_string(),
    );
    let all: Mac = "ff:ff:ff:ff:ff:ff".parse().unwrap();
    let na = |from: &str, target: &str| {
        frame(
            b.mac,
            a.mac,
            0x86dd,
            &ipv6(from, "fd90::b", 58, &icmp6(136, target)),
        )
    };
    let six = |from: &str, next: u8, body: &[u8]| {
        frame(b.mac, a.mac, 0x86dd, &ipv6(from, "fd90::b", next, body))
    };
    let udp_from = |port: u16| [&port.to_be_bytes()[..], &[0, 9, 0, 8, 0, 0]].concat();
    let cases: Vec<(&str, bool, Vec<u8>)> = vec![
        (
            "own IPv4",
            true,
            frame(b.mac, a.mac, 0x0800, &udp4(me, you, 1000, 2000)),
        ),
        (
            "another's MAC",
            false,
            frame(b.mac, b.mac, 0x0800, &udp4(me, you, 1000, 2000)),
        ),
        (
            "another's IPv4",
            false,
            frame(b.mac, a.mac, 0x0800, &udp4(you, you, 1000, 2000)),
        ),
        (
            "a free IPv4 of the subnet",
            false,
            frame(
                b.mac,
                a.mac,
                0x0800,
                &udp4([10, 90, 0, 99], you, 1000, 2000),
            ),
        ),
        (
            "a DHCP request",
            true,
            frame(all, a.mac, 0x0800, &udp4([0; 4], [255; 4], 68, 67)),
        ),
        (
            "a DHCP answer",
            false,
            frame(b.mac, a.mac, 0x0800, &udp4(me, you, 67, 68)),
        ),
        (
            "no source and not DHCP",
            false,
            frame(b.mac, a.mac, 0x0800, &udp4([0; 4], you, 68, 69)),
        ),
        (
            "ARP as itself",
            true,
            frame(all, a.mac, 0x0806, &arp(1, a.mac, me, you)),
        ),
        (
            "ARP probe",
            true,
            frame(all, a.mac, 0x0806, &arp(1, a.mac, [0; 4], me)),
        ),
        (
            "ARP as the router",
            false,
            frame(all, a.mac, 0x0806, &arp(2, a.mac, router, you)),
        ),
        (
            "ARP with another's MAC inside",
            false,
            frame(all, a.mac, 0x0806, &arp(2, b.mac, me, you)),
        ),
        ("own IPv6", true, six("fd90::a", 17, &udp_from(1000))),
        ("own link-local", true, six(&my_ll, 17, &udp_from(1000))),
        ("another's IPv6", false, six("fd90::b", 17, &udp_from(1000))),
        (
            "another's link-local",
            false,
            six(&your_ll, 17, &udp_from(1000)),
        ),
        ("DHCPv6 answer", false, six(&my_ll, 17, &udp_from(547))),
        (
            "router advertisement",
            false,
            six(&my_ll, 58, &icmp6(134, "::")),
        ),
        (
            "duplicate address detection",
            true,
            six("::", 58, &icmp6(135, "fd90::a")),
        ),
        (
            "no source and an echo",
            false,
            six("::", 58, &icmp6(128, "::")),
        ),
        ("advertises its own address", true, na("fd90::a", "fd90::a")),
        ("advertises its link-local", true, na(&my_ll, &my_ll)),
        (
            "advertises the router's address",
            false,
            na(&my_ll, "fd90::1"),
        ),
        (
            "a VLAN tag",
            false,
            frame(
                b.mac,
                a.mac,
                0x8100,
                &[&[0, 5, 8, 0][..], &udp4(you, you, 1, 2)].concat(),
            ),
        ),
        (
            "RARP as itself",
            true,
            frame(all, a.mac, 0x8035, &arp(3, a.mac, me, me)),
        ),
        (
            "an unknown protocol",
            false,
            frame(b.mac, a.mac, 0x88b5, b"x"),
        ),
    ];
    ip(&a.netns, "addr add 10.90.0.10/24 dev eth0").await;
    ip(&b.netns, "addr add 10.90.0.11/24 dev eth0").await;
    // A port forwards some moments after it is up.
    until("the guests reach each other", || {
        pings(&a.netns, "10.90.0.11")
    })
    .await;
    assert!(pings(&a.netns, "10.90.0.1").await);
    exchange(&a, &b, cases).await;

    ip(&a.netns, "addr add 10.90.0.66/24 dev eth0").await;
    assert!(
        try_run(
            &a.netns,
            "ping",
            &["-c", "1", "-W", "1", "-I", "10.90.0.66", "10.90.0.11"]
        )
        .await
        .is_none()
    );
}

#[tokio::test]
async fn a_link_local_address_belongs_to_who_had_it_first() {
    let Some(mut lab) = Lab::new("link-local") else {
        return;
    };
    let host = lab.netns("h").await;
    bridge(&host, "dvb1", &["10.90.0.1/24", "fd90::1/64"]).await;
    let a = lab.guest(&host, "dvb1", "a", "52:54:00:00:00:0a").await;
    let b = lab.guest(&host, "dvb1", "b", "52:54:00:00:00:0b").await;
    for (guest, ipv4) in [(&a, "10.90.0.10/24"), (&b, "10.90.0.11/24")] {
        // Nothing but what this test sends.
        let quiet = ("net/ipv6/conf/eth0/disable_ipv6".into(), "1".into());
        sysctl::write(&guest.netns, &[quiet]).await.unwrap();
        ip(&guest.netns, &format!("addr add {ipv4} dev eth0")).await;
    }
    let nft = Nft::new(&host);
    let table = guard::table(
        "debvisor",
        &[
            a.nic("10.90.0.10", "fd90::a"),
            b.nic("10.90.0.11", "fd90::b"),
        ],
    );
    nft.replace(std::slice::from_ref(&table)).await.unwrap();
    until("the guests reach each other", || {
        pings(&a.netns, "10.90.0.11")
    })
    .await;
    let router = Mac::derived("dvb1").link_local().to_string();
    let (mac_of_a, mac_of_b) = (
        a.mac.link_local().to_string(),
        b.mac.link_local().to_string(),
    );
    // From the first to the second: a solicitation, an advertisement, and a packet.
    let six = |from: &Guest, to: &Guest, body: Vec<u8>| frame(to.mac, from.mac, 0x86dd, &body);
    let probe =
        |from, to, target: &str| six(from, to, ipv6("::", "ff02::1", 58, &icmp6(135, target)));
    let advert = |from, to, source: &str, target: &str| {
        six(from, to, ipv6(source, "ff02::1", 58, &icmp6(136, target)))
    };
    let packet = |from, to, source: &str| {
        let udp = [&1000u16.to_be_bytes()[..], &[0, 9, 0, 8, 0, 0]].concat();
        six(from, to, ipv6(source, "ff02::1", 17, &udp))
    };
    exchange(
        &a,
        &b,
        vec![
            ("asks for an address", true, probe(&a, &b, "fe80::a1")),
            ("has it then", true, packet(&a, &b, "fe80::a1")),
            (
                "and advertises it",
                true,
                advert(&a, &b, "fe80::a1", "fe80::a1"),
            ),
            (
                "one it only uses is its own too",
                true,
                packet(&a, &b, "fe80::a2"),
            ),
            (
                "and is advertised",
                true,
                advert(&a, &b, &mac_of_a, "fe80::a2"),
            ),
            (
                "one it never had",
                false,
                advert(&a, &b, "fe80::a1", "fe80::b1"),
            ),
            ("the router's", false, packet(&a, &b, &router)),
            (
                "the router's, advertised",
                false,
                advert(&a, &b, "fe80::a1", &router),
            ),
            (
                "asks for the router's: it may answer",
                true,
                probe(&a, &b, &router),
            ),
            ("and has it not", false, packet(&a, &b, &router)),
            ("that of another's MAC", false, packet(&a, &b, &mac_of_b)),
            ("asks for that", true, probe(&a, &b, &mac_of_b)),
            (
                "and has it not",
                false,
                advert(&a, &b, "fe80::a1", &mac_of_b),
            ),
            (
                "asks for an address of the subnet",
                true,
                probe(&a, &b, "fd90::77"),
            ),
            (
                "those are allocated only",
                false,
                packet(&a, &b, "fd90::77"),
            ),
            (
                "a router's of elsewhere",
                false,
                packet(&a, &b, "2001:db8::1"),
            ),
        ],
    )
    .await;
    // The other may not take what the first has.
    let mut cases = vec![
        (
            "asks for a taken one: it is answered",
            true,
            probe(&b, &a, "fe80::a1"),
        ),
        ("asks for a free one", true, probe(&b, &a, "fe80::b1")),
    ];
    cases.extend([
        ("and has it not", false, packet(&b, &a, "fe80::a1")),
        (
            "nor advertises it",
            false,
            advert(&b, &a, "fe80::b1", "fe80::a1"),
        ),
        ("nor what was only used", false, packet(&b, &a, "fe80::a2")),
        ("has its own", true, packet(&b, &a, "fe80::b1")),
    ]);
    exchange(&b, &a, cases).await;

    // A change of the rules forgets nothing, and the learned is no change of the rules.
    let print = nft.fingerprint(&table).await.unwrap();
    assert!(print.is_some());
    let third = GuardedNic {
        tap: "dvt9".into(),
        bridge: "dvb2".into(),
        mac: "52:54:00:00:00:0c".parse().unwrap(),
        ipv4: vec![],
        ipv6: vec![],
    };
    let more = guard::table(
        "debvisor",
        &[
            a.nic("10.90.0.10", "fd90::a"),
            b.nic("10.90.0.11", "fd90::b"),
            third,
        ],
    );
    nft.replace(&[more]).await.unwrap();
    nft.replace(std::slice::from_ref(&table)).await.unwrap();
    assert_eq!(nft.fingerprint(&table).await.unwrap(), print);
    exchange(
        &b,
        &a,
        vec![("still taken", false, packet(&b, &a, "fe80::a1"))],
    )
    .await;
    // No more than eight at once: two are there.
    let mut many: Vec<_> = (3..=8)
        .map(|n| ("one more", true, packet(&a, &b, &format!("fe80::a{n}"))))
        .collect();
    many.push(("the ninth", false, packet(&a, &b, "fe80::a9")));
    many.push(("the first", true, packet(&a, &b, "fe80::a1")));
    exchange(&a, &b, many).await;
    exchange(
        &b,
        &a,
        vec![("what was refused is free", true, packet(&b, &a, "fe80::a9"))],
    )
    .await;

    // Unplugged, its addresses are free.
    let alone = guard::table("debvisor", &[b.nic("10.90.0.11", "fd90::b")]);
    nft.replace(std::slice::from_ref(&alone)).await.unwrap();
    assert!(nft.fingerprint(&alone).await.unwrap().is_some());
    exchange(
        &b,
        &a,
        vec![
            ("what was another's", true, packet(&b, &a, "fe80::a1")),
            ("its own still", true, packet(&b, &a, "fe80::b1")),
        ],
    )
    .await;
    // Plugged in again, it takes what is free by then.
    nft.replace(std::slice::from_ref(&table)).await.unwrap();
    exchange(
        &a,
        &b,
        vec![
            ("given away meanwhile", false, packet(&a, &b, "fe80::a1")),
            ("free again", true, packet(&a, &b, "fe80::a2")),
        ],
    )
    .await;
}

#[tokio::test]
async fn tables_are_replaced_whole_and_meddling_is_noticed() {
    let Some(mut lab) = Lab::new("nft") else {
        return;
    };
    let netns = lab.netns("a").await;
    let nft = Nft::new(&netns);
    let meddle = |command: &'static str| {
        let netns = netns.clone();
        async move { try_run(&netns, "nft", &[command]).await.unwrap() }
    };
    meddle("add table inet foreign").await;
    let nic = |n: u8| GuardedNic {
        tap: format!("dvt{n}"),
        bridge: format!("dvb{}", n % 2),
        mac: Mac([2, 0, 0, 0, 0, n]),
        ipv4: vec![[10, 0, 0, n].into()],
        ipv6: vec![],
    };
    let nics: Vec<_> = (1..=9).map(nic).collect();
    let guard = guard::table("debvisor", &nics);
    let neighbour = |n: u8| Segment {
        bridge: format!("dvb{n}"),
        reach: Reach::Nat,
        subnets: vec![
            format!("10.0.{n}.0/24").parse().unwrap(),
            format!("fd00:0:0:{n}::/64").parse().unwrap(),
        ],
    };
    let segments = segments::table("debvisor", &[neighbour(0), neighbour(1), neighbour(2)]);
    nft.replace(&[guard.clone(), segments.clone()])
        .await
        .unwrap();
    assert!(nft.fingerprint(&segments).await.unwrap().is_some());
    let first = nft.fingerprint(&guard).await.unwrap();
    assert!(first.is_some());
    nft.replace(std::slice::from_ref(&guard)).await.unwrap();
    assert_eq!(
        nft.fingerprint(&guard).await.unwrap(),
        first,
        "the same rules, the same print"
    );
    meddle("delete element bridge debvisor own4 { dvt3 . 10.0.0.3 }").await;
    assert_eq!(nft.fingerprint(&guard).await.unwrap(), None);
    meddle("add element bridge debvisor own4 { dvt3 . 10.0.0.33 }").await;
    let meddled = nft.fingerprint(&guard).await.unwrap();
    assert!(meddled.is_some() && meddled != first);

    let mut broken = guard.clone();
    broken.contents.push(serde_json::json!({"rule": {"family": "bridge", "table": "debvisor", "chain": "no-such-chain", "expr": []}}));
    assert!(nft.replace(&[broken]).await.is_err());
    assert_eq!(
        nft.fingerprint(&guard).await.unwrap(),
        meddled,
        "a refused ruleset changes nothing"
    );

    nft.remove(Family::Bridge, "debvisor").await.unwrap();
    nft.remove(Family::Bridge, "debvisor").await.unwrap();
    assert_eq!(nft.fingerprint(&guard).await.unwrap(), None);
    assert_eq!(
        nft.tables(Family::Inet).await.unwrap(),
        ["foreign", "debvisor"]
    );
    let features = nft::probe().await.unwrap();
    assert!(features.bridge_sets && features.inet_nat, "{features:?}");
}

#[tokio::test]
async fn networks_reach_the_world_as_they_should() {
    let Some(mut lab) = Lab::new("segments") else {
        return;
    };
    let (host, world) = (lab.netns("h").await, lab.netns("w").await);
    let links = Links::open(&host).await.unwrap();
    links.add_veth("out", "eth0", &world).await.unwrap();
    ip(&host, "addr add 192.168.77.1/24 dev out").await;
    ip(&host, "link set out up").await;
    ip(&world, "addr add 192.168.77.2/24 dev eth0").await;
    ip(&world, "link set eth0 up").await;
    links
        .set_default_route("192.168.77.2".parse().unwrap())
        .await
        .unwrap();
    let mut guests = Vec::new();
    let mut networks = Vec::new();
    for (n, reach) in [(1, Reach::Nat), (2, Reach::Isolated), (3, Reach::Routed)] {
        let name = format!("dvb{n}");
        bridge(&host, &name, &[&format!("10.9{n}.0.1/24")]).await;
        assert_eq!(
            forwarding::allow(&links, "test", &name).await.unwrap(),
            forwarding::Forwarded {
                ipv4: true,
                ipv6: true
            }
        );
        let guest = lab
            .guest(
                &host,
                &name,
                &format!("g{n}"),
                &format!("52:54:00:00:00:0{n}"),
            )
            .await;
        ip(&guest.netns, &format!("addr add 10.9{n}.0.10/24 dev eth0")).await;
        ip(&guest.netns, &format!("route add default via 10.9{n}.0.1")).await;
        ip(
            &world,
            &format!("route add 10.9{n}.0.0/24 via 192.168.77.1"),
        )
        .await;
        networks.push(Segment {
            bridge: name,
            reach,
            subnets: vec![format!("10.9{n}.0.0/24").parse().unwrap()],
        });
        guests.push(guest.netns);
    }
    Nft::new(&host)
        .replace(&[segments::table("debvisor", &networks)])
        .await
        .unwrap();
    let [nat, isolated, routed] = &guests[..] else {
        unreachable!()
    };
    until("the host answers", || pings(nat, "10.91.0.1")).await;
    assert!(pings(nat, "192.168.77.2").await, "nat reaches out");
    assert!(
        !pings(&world, "10.91.0.10").await,
        "nothing reaches into nat"
    );
    assert!(
        pings(routed, "192.168.77.2").await && pings(&world, "10.93.0.10").await,
        "routed both ways"
    );
    assert!(
        !pings(routed, "10.91.0.10").await,
        "not from a neighbour into nat either"
    );
    assert!(
        !pings(isolated, "192.168.77.2").await && !pings(&world, "10.92.0.10").await,
        "isolated neither way"
    );
    assert!(
        pings(isolated, "10.92.0.1").await,
        "isolated still reaches its gateway"
    );
    // Without the route back, only a masqueraded packet is answered.
    ip(&world, "route del 10.91.0.0/24").await;
    assert!(pings(nat, "192.168.77.2").await, "nat is masqueraded");
    ip(&world, "route del 10.93.0.0/24").await;
    assert!(!pings(routed, "192.168.77.2").await, "routed is not");
}

async fn dhcp(guest: &Guest) -> Option<String> {
    let script = std::env::temp_dir().join(format!("hostn-udhcpc-{}", std::process::id()));
    std::fs::write(
        &script,
        "#!/bin/sh\n[ \"$1\" = bound ] && echo \"$ip $router $dns $domain $mtu\"\nexit 0\n",
    )
    .unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let script = script.to_str().unwrap();
    let args = [
        "udhcpc", "-i", "eth0", "-q", "-n", "-f", "-t", "4", "-T", "1", "-O", "mtu", "-s", script,
    ];
    try_run(&guest.netns, "busybox", &args)
        .await
        .map(|text| text.trim().to_owned())
}

#[tokio::test]
async fn dnsmasq_serves_survives_us_and_is_repaired() {
    let Some(mut lab) = Lab::new("dnsmasq") else {
        return;
    };
    let host = lab.netns("h").await;
    let links = bridge(&host, "dvb1", &["10.90.0.1/24", "fd90::1/64"]).await;
    let a = lab.guest(&host, "dvb1", "a", "52:54:00:00:00:0a").await;
    let b = lab.guest(&host, "dvb1", "b", "52:54:00:00:00:0b").await;
    let folder = tempfile::Builder::new()
        .prefix("hostn-")
        .tempdir_in("/run")
        .unwrap();
    std::fs::set_permissions(
        folder.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let clock: SharedClock = Arc::new(SystemClock::new().unwrap());
    let server = || Dnsmasq::new(&host, folder.path().join("net"), clock.clone());
    let config = Config {
        bridge: "dvb1".to_owned(),
        ipv4: Some(dnsmasq::Ipv4 {
            subnet: "10.90.0.0/24".parse().unwrap(),
            gateway: "10.90.0.1".parse().unwrap(),
            routes: true,
        }),
        ipv6: Some(dnsmasq::Ipv6 {
            subnet: "fd90::/64".parse().unwrap(),
            gateway: "fd90::1".parse().unwrap(),
            routes: true,
        }),
        mtu: 1400,
        zone: "internal".to_owned(),
        search: "default.internal".to_owned(),
        upstreams: vec![],
        lease_seconds: 3600,
        user: dnsmasq::check_installed().await.unwrap(),
    };
    let entry = |guest: &Guest, name: &str, ipv4: &str, ipv6: &str| HostEntry {
        mac: guest.mac,
        name: name.to_owned(),
        full_names: vec![format!("{name}.default.internal")],
        ipv4: ipv4.parse().ok(),
        ipv6: ipv6.parse().ok(),
    };
    let web = entry(&a, "web1", "10.90.0.10", "fd90::10");
    let (outcome, process) = server()
        .ensure(&config, std::slice::from_ref(&web))
        .await
        .unwrap();
    assert_eq!(outcome, Outcome::Started);
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    assert!(!status.contains("Uid:\t0\t"), "it gave up root: {status}");
    assert_eq!(
        dhcp(&a).await.unwrap(),
        "10.90.0.10 10.90.0.1 10.90.0.1 default.internal 1400"
    );
    assert_eq!(dhcp(&b).await, None, "no address that was not allocated");

    // A later life of ours finds it and only tells it of the new host.
    let db = entry(&b, "db", "10.90.0.11", "fd90::11");
    let (outcome, adopted) = server()
        .ensure(&config, &[web.clone(), db.clone()])
        .await
        .unwrap();
    assert_eq!((outcome, adopted.pid()), (Outcome::Reloaded, process.pid()));
    assert_eq!(
        server()
            .ensure(&config, &[db.clone(), web.clone()])
            .await
            .unwrap()
            .0,
        Outcome::Unchanged
    );
    assert!(dhcp(&b).await.unwrap().starts_with("10.90.0.11 "));
    ip(&b.netns, "addr add 10.90.0.11/24 dev eth0").await;
    for name in ["web1", "web1.default.internal"] {
        let answer = try_run(&b.netns, "busybox", &["nslookup", name, "10.90.0.1"])
            .await
            .unwrap_or_default();
        assert!(
            answer.contains("10.90.0.10") && answer.contains("fd90::10"),
            "{name}: {answer}"
        );
    }
    let reverse = try_run(
        &b.netns,
        "busybox",
        &["nslookup", "10.90.0.10", "10.90.0.1"],
    )
    .await
    .unwrap_or_default();
    assert!(reverse.contains("web1.default.internal"), "{reverse}");
    assert_eq!(server().leases().unwrap().len(), 2);

    // Killed: it is seen to be gone, and is started again.
    adopted.signal(Signal::SIGKILL).unwrap();
    process.wait().await.unwrap();
    assert!(server().running().unwrap().is_none());
    let (outcome, process) = server()
        .ensure(&config, &[web.clone(), db.clone()])
        .await
        .unwrap();
    assert_eq!(outcome, Outcome::Started);

    // The bridge is removed and made anew: the same process serves on.
    links.remove("dvb1").await.unwrap();
    bridge(&host, "dvb1", &["10.90.0.1/24", "fd90::1/64"]).await;
    for guest in [&a, &b] {
        links.set_port(&guest.tap, "dvb1", false).await.unwrap();
    }
    until("it serves on the new bridge", || async {
        dhcp(&a).await.is_some()
    })
    .await;
    assert_eq!(server().running().unwrap().unwrap().pid(), process.pid());

    // An address changes hands while its old lease still runs.
    let taken = entry(&b, "db", "10.90.0.10", "fd90::11");
    assert_eq!(
        server()
            .ensure(&config, std::slice::from_ref(&taken))
            .await
            .unwrap()
            .0,
        Outcome::Started
    );
    assert!(dhcp(&b).await.unwrap().starts_with("10.90.0.10 "));

    // Started but not noted: the next life replaces it and does not trip over its ports.
    let old = server().running().unwrap().unwrap();
    std::fs::remove_file(folder.path().join("net/process.json")).unwrap();
    assert_eq!(
        server()
            .ensure(&config, std::slice::from_ref(&taken))
            .await
            .unwrap()
            .0,
        Outcome::Started
    );
    assert!(!old.is_running());

    let last = server().running().unwrap().unwrap();
    server().stop().await.unwrap();
    assert!(!last.is_running() && !folder.path().join("net").exists());
}

#[tokio::test]
async fn dnsmasq_that_cannot_start_says_why() {
    let Some(mut lab) = Lab::new("dnsmasq fails") else {
        return;
    };
    let host = lab.netns("h").await;
    let folder = tempfile::Builder::new()
        .prefix("hostn-")
        .tempdir_in("/run")
        .unwrap();
    let clock: SharedClock = Arc::new(SystemClock::new().unwrap());
    let server = Dnsmasq::new(&host, folder.path().join("net"), clock);
    let config = Config {
        bridge: "dvb1".to_owned(),
        ipv4: None,
        ipv6: None,
        mtu: 1500,
        zone: "internal".to_owned(),
        search: "default.internal".to_owned(),
        upstreams: vec![],
        lease_seconds: 3600,
        user: "no-such-user".to_owned(),
    };
    let close = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(folder.path(), close).unwrap();
    let closed = format!("{:#}", server.ensure(&config, &[]).await.unwrap_err());
    assert!(closed.contains("chmod o+x"), "{closed}");
    std::fs::set_permissions(
        folder.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let unknown = format!("{:#}", server.ensure(&config, &[]).await.unwrap_err());
    assert!(
        unknown.contains("bridge `dvb1`") && unknown.contains("no-such-user"),
        "{unknown}"
    );
}

#[tokio::test]
async fn an_uplink_comes_and_goes_without_a_trace() {
    let Some(mut lab) = Lab::new("uplink") else {
        return;
    };
    let netns = lab.netns("h").await;
    let instance = lab.tag.clone();
    let made = uplink::ensure(&instance, &netns).await.unwrap();
    assert_eq!(
        uplink::ensure(&instance, &netns).await.unwrap(),
        made,
        "a second time changes nothing"
    );
    assert!(pings(&netns, &made.ipv4.addr().to_string()).await);
    let table = uplink::table_name(&instance);
    let nft = Nft::new(&Netns::root());
    assert!(nft.tables(Family::Inet).await.unwrap().contains(&table));
    // The root namespace has no route to the networks behind it, so an answer from its own address proves the way out.
    let root = Links::open(&Netns::root()).await.unwrap();
    if let Some(route) = root
        .routes()
        .await
        .unwrap()
        .iter()
        .find(|route| route.is_default() && route.to.addr().is_ipv4())
    {
        let own = root
            .addresses(&route.dev)
            .await
            .unwrap()
            .into_iter()
            .find(|net| net.addr().is_ipv4())
            .unwrap();
        assert!(pings(&netns, &own.addr().to_string()).await);
    }
    // A namespace that was lost leaves half a pair, which is replaced.
    Links::open(&netns)
        .await
        .unwrap()
        .remove(uplink::INSIDE)
        .await
        .unwrap();
    assert_eq!(
        uplink::ensure(&instance, &netns).await.unwrap().outside,
        made.outside
    );
    uplink::remove(&instance).await.unwrap();
    assert!(root.get(&made.outside).await.unwrap().is_none());
    assert!(!nft.tables(Family::Inet).await.unwrap().contains(&table));
    assert!(
        !std::path::Path::new("/run/debvisor-forwarding/users")
            .join(format!("uplink-{instance}"))
            .exists()
    );
    uplink::remove(&instance).await.unwrap();
}

#[tokio::test]
async fn changes_are_noticed() {
    let Some(mut lab) = Lab::new("watch") else {
        return;
    };
    let netns = lab.netns("a").await;
    let nft = Nft::new(&netns);
    nft.replace(&[segments::table("debvisor", &[])])
        .await
        .unwrap();
    let links = bridge(&netns, "dvb1", &[]).await;
    let mut watch = watch::Watch::open(&netns).await.unwrap();
    // The kernel tells of a new link's state up to a second late.
    let mut noticed = async || {
        let changed = tokio::time::timeout(Duration::from_millis(1100), watch.changed());
        changed.await.is_ok()
    };
    let mut looks = 10;
    while noticed().await {
        looks -= 1;
        assert!(looks > 0, "nothing changes any more");
    }
    links.remove("dvb1").await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), watch.changed())
        .await
        .expect("a removed bridge is noticed");
    let mut watch = watch::Watch::open(&netns).await.unwrap();
    try_run(&netns, "nft", &["flush", "table", "inet", "debvisor"])
        .await
        .unwrap();
    tokio::time::timeout(Duration::from_secs(5), watch.changed())
        .await
        .expect("a flushed table is noticed");
}

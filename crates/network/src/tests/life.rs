//! Networks on a node: made, used, repaired, adopted, removed.

use super::lab::*;
use crate::network::State;
use crate::{plug, unplug};
use host::clock::SystemClock;
use host::net::dnsmasq::Dnsmasq;
use host::net::nft::{Family, Nft};
use host::net::{Links, Netns};
use model::What;
use nix::sys::signal::Signal;
use serde_json::json;
use std::net::Ipv6Addr;
use std::sync::Arc;

const TWO: &str = "10.50.0.0/24";

/// Our rules of a family, without counters and in an order that does not depend on the kernel.
async fn rules(netns: &Netns, family: &str) -> Vec<String> {
    let text = run(netns, "nft", &["-s", "list", "table", family, "debvisor"]).await;
    let mut words: Vec<_> = text
        .unwrap_or_default()
        .replace(',', " ")
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    words.sort();
    words
}

fn server(node: &Node, bridge: &str) -> Dnsmasq {
    Dnsmasq::new(
        &node.netns,
        node.folder().join(bridge),
        Arc::new(SystemClock::new().unwrap()),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_find_one_another() {
    let Some(mut node) = Node::start("guests_find_one_another").await else {
        return;
    };
    let status = node
        .network(
            "lab",
            json!({ "subnet": TWO, "ipv6_subnet": "fd50::/64", "mtu": 1400 }),
        )
        .await;
    let (a, b) = (node.guest("a", "lab").await, node.guest("b", "lab").await);
    let told = format!("{} 10.50.0.1 default.internal 1400", a.ipv4());
    until("a gets its address by DHCP", || async {
        a.dhcp().await.as_deref() == Some(&*told)
    })
    .await;
    a.configure().await;
    b.configure().await;
    until("a reaches b", || pings(&a.netns, b.ipv4())).await;
    until("a finds b by name", || async {
        let answer = run(&a.netns, "busybox", &["nslookup", "b", "10.50.0.1"])
            .await
            .unwrap_or_default();
        answer.contains(b.ipv4()) && answer.contains(b.what.ipv6.as_deref().unwrap())
    })
    .await;
    until("a hears the router", || async {
        ip(&a.netns, "-6 route")
            .await
            .contains("default via fe80::")
    })
    .await;
    // Another's address is no use to it.
    ip(&a.netns, "addr add 10.50.0.200/24 dev eth0").await;
    assert!(
        run(
            &a.netns,
            "ping",
            &["-c", "1", "-W", "1", "-I", "10.50.0.200", b.ipv4()]
        )
        .await
        .is_none()
    );

    // Unplugged, it means nobody any more, and may be plugged in again.
    assert!(
        plug(&node.cx, &a.what)
            .await
            .unwrap_err()
            .to_string()
            .contains("still running")
    );
    unplug(&node.cx, &a.what.guest, a.what.uid, "nic0")
        .await
        .unwrap();
    assert!(node.links().await.get(&a.tap).await.unwrap().is_none());
    unplug(&node.cx, &a.what.guest, a.what.uid, "nic0")
        .await
        .unwrap();
    drop(plug(&node.cx, &a.what).await.unwrap());
    for guest in [&a, &b] {
        unplug(&node.cx, &guest.what.guest, guest.what.uid, "nic0")
            .await
            .unwrap();
        delete(&node.cx, "guest", &guest.what.guest.name)
            .await
            .unwrap();
    }
    let dnsmasq = server(&node, &status.bridge).running().unwrap().unwrap();
    delete(&node.cx, "network", "lab").await.unwrap();
    until("the network is gone", || async {
        node.cx.cache().rows("network", None).is_empty()
    })
    .await;
    assert!(
        node.links()
            .await
            .get(&status.bridge)
            .await
            .unwrap()
            .is_none()
    );
    assert!(!dnsmasq.is_running() && !node.folder().join(&status.bridge).exists());
}

/// What a DHCPv6 server offers a host whose DUID says nothing of its MAC (RFC 8415, 16.2, with a DUID-UUID).
async fn solicit(netns: &Netns, from: Ipv6Addr) -> Option<Vec<u8>> {
    let asking = move || {
        let index = nix::net::if_::if_nametoindex("eth0")?;
        let at = |ip, port| std::net::SocketAddrV6::new(ip, port, 0, index);
        let socket = std::net::UdpSocket::bind(at(from, 546))?;
        socket.set_read_timeout(Some(std::time::Duration::from_secs(2)))?;
        let mut message = vec![1, 0xd, 0xe, 0xb];
        for (option, body) in [
            (1u16, [&[0, 4][..], &[7; 16]].concat()),
            (3, [&[0, 0, 0, 1][..], &[0; 8]].concat()),
            (8, vec![0, 0]),
        ] {
            message.extend(option.to_be_bytes());
            message.extend((body.len() as u16).to_be_bytes());
            message.extend(body);
        }
        socket.send_to(&message, at("ff02::1:2".parse()?, 547))?;
        let mut answer = vec![0; 1500];
        let (length, _) = socket.recv_from(&mut answer)?;
        answer.truncate(length);
        Ok(answer)
    };
    netns.run(asking).await.ok()
}

/// Its link-local address, once it is sure that nobody else has it.
async fn link_local(netns: &Netns) -> Option<Ipv6Addr> {
    let shown = ip(netns, "-6 -o addr show dev eth0 scope link -tentative").await;
    let mut words = shown.split_whitespace();
    words.find(|word| *word == "inet6")?;
    words.next()?.split('/').next()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_link_local_address_gets_its_ipv6() {
    let Some(mut node) = Node::start("a_private_link_local_address_gets_its_ipv6").await else {
        return;
    };
    let spec = json!({ "subnet": TWO, "ipv6_subnet": "fd50::/64" });
    node.network("lab", spec).await;
    let (a, b) = (node.guest("a", "lab").await, node.guest("b", "lab").await);
    for guest in [&a, &b] {
        for word in ["down", "addrgenmode random", "up"] {
            ip(&guest.netns, &format!("link set eth0 {word}")).await;
        }
        let mine: Ipv6Addr = guest.what.ipv6.as_deref().unwrap().parse().unwrap();
        let offered = || async {
            let Some(from) = link_local(&guest.netns).await else {
                return false;
            };
            let of_the_mac = guest
                .what
                .mac
                .parse::<host::net::Mac>()
                .unwrap()
                .link_local();
            assert_ne!(from, of_the_mac, "the kernel made one up");
            let answer = solicit(&guest.netns, from).await.unwrap_or_default();
            answer.first() == Some(&2) && answer.windows(16).any(|at| at == mine.octets())
        };
        until("its address is offered to it", offered).await;
        ip(&guest.netns, &format!("addr add {mine}/64 dev eth0 nodad")).await;
    }
    let of_b = b.what.ipv6.as_deref().unwrap();
    until("a reaches b", || pings(&a.netns, of_b)).await;
    until("a hears the router", || async {
        ip(&a.netns, "-6 route")
            .await
            .contains("default via fe80::")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_restart_costs_no_packet() {
    let Some(mut node) = Node::start("our_restart_costs_no_packet").await else {
        return;
    };
    let status = node.network("lab", json!({ "subnet": TWO })).await;
    let (a, b) = (node.guest("a", "lab").await, node.guest("b", "lab").await);
    a.configure().await;
    b.configure().await;
    until("a reaches b", || pings(&a.netns, b.ipv4())).await;
    let bridge = node.links().await.get(&status.bridge).await.unwrap();
    let dnsmasq = server(&node, &status.bridge).running().unwrap().unwrap();
    let before = rules(&node.netns, "bridge").await;

    // Five seconds of a packet every 20 ms, over two restarts of ours.
    let (from, to) = (a.netns.clone(), b.ipv4().to_owned());
    let mut pinging = tokio::task::JoinSet::new();
    pinging.spawn(async move {
        run(&from, "ping", &["-n", "-q", "-i", "0.02", "-c", "250", &to]).await
    });
    for _ in 0..2 {
        node.restart().await;
        let reconciled = || async {
            let seen = crate::tests::lab::status(&node.cx, "lab");
            seen.state == State::Ready && rules(&node.netns, "bridge").await == before
        };
        until("the network is ready", reconciled).await;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    let report = pinging.join_next().await.unwrap().unwrap().unwrap();
    assert!(report.contains(" 0% packet loss"), "{report}");
    assert_eq!(
        node.links().await.get(&status.bridge).await.unwrap(),
        bridge
    );
    assert_eq!(
        server(&node, &status.bridge)
            .running()
            .unwrap()
            .unwrap()
            .pid(),
        dnsmasq.pid()
    );
    // Still ours to change.
    let c = node.guest("c", "lab").await;
    until("a new guest is served", || async {
        c.dhcp().await.is_some()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_break_is_repaired() {
    let Some(mut node) = Node::start("what_others_break_is_repaired").await else {
        return;
    };
    let status = node.network("lab", json!({ "subnet": TWO })).await;
    let (a, b) = (node.guest("a", "lab").await, node.guest("b", "lab").await);
    a.configure().await;
    b.configure().await;
    until("a reaches b", || pings(&a.netns, b.ipv4())).await;
    let links = node.links().await;

    links.remove(&status.bridge).await.unwrap();
    until("the bridge is back, with its ports", || {
        pings(&a.netns, b.ipv4())
    })
    .await;
    until("and its own address", || pings(&a.netns, "10.50.0.1")).await;

    let nft = Nft::new(&node.netns);
    for family in [Family::Bridge, Family::Inet] {
        let before = rules(&node.netns, family.word()).await;
        run(
            &node.netns,
            "nft",
            &["flush", "table", family.word(), "debvisor"],
        )
        .await
        .unwrap();
        let back = || async { rules(&node.netns, family.word()).await == before };
        until("flushed rules are back", back).await;
        nft.remove(family, "debvisor").await.unwrap();
        until("a removed table is back", back).await;
    }

    let dnsmasq = server(&node, &status.bridge).running().unwrap().unwrap();
    dnsmasq.signal(Signal::SIGKILL).unwrap();
    let again = || async {
        server(&node, &status.bridge)
            .running()
            .unwrap()
            .is_some_and(|now| now.pid() != dnsmasq.pid())
    };
    until("dnsmasq is back", again).await;

    ip(&node.netns, &format!("link set {} nomaster", a.tap)).await;
    until("a tap is back in its bridge", || pings(&a.netns, b.ipv4())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subnet_of_the_host_is_refused() {
    let Some(node) = Node::start("a_subnet_of_the_host_is_refused").await else {
        return;
    };
    node.network("first", json!({ "subnet": TWO })).await;
    ip(&node.netns, "link add other type bridge").await;
    ip(&node.netns, "link set other up").await;
    ip(&node.netns, "addr add 10.99.0.1/16 dev other").await;
    create(
        &node.cx,
        "network",
        "lab",
        json!({ "subnet": "10.99.7.0/24", "family": "ipv4" }),
    )
    .await
    .unwrap();
    until("it failed", || async {
        status(&node.cx, "lab").state == State::Failed
    })
    .await;
    let why = || {
        let all = status(&node.cx, "lab").conditions;
        all.into_iter()
            .find(|c| c.kind == "Reconciled")
            .map(|c| c.message)
            .unwrap_or_default()
    };
    until("it says why", || async { !why().is_empty() }).await;
    expect_test::expect!["spec.subnet: `10.99.7.0/24` collides with the host's route 10.99.0.0/16 dev other (interface other) (make the network anew with another subnet, or remove that route from the host)"].assert_eq(&why());
    assert!(
        node.links()
            .await
            .get(&status(&node.cx, "lab").bridge)
            .await
            .unwrap()
            .is_none(),
        "nothing half-made"
    );

    create(
        &node.cx,
        "guest",
        "a",
        json!({ "nics": [{ "network": "lab" }] }),
    )
    .await
    .unwrap();
    let refused = plug(&node.cx, &node.plug_of("a")).await.unwrap_err();
    assert!(matches!(refused.what, What::Unavailable(_)), "{refused:?}");
    expect_test::expect!["cannot plug `nic0` of guest default/a in: network `lab` is not ready: spec.subnet: `10.99.7.0/24` collides with the host's route 10.99.0.0/16 dev other (interface other) (make the network anew with another subnet, or remove that route from the host)"].assert_eq(&refused.to_string());

    ip(&node.netns, "link del other").await;
    node.ready("lab").await;
    drop(plug(&node.cx, &node.plug_of("a")).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_way_out_comes_and_goes() {
    let Some(mut node) = Node::start_with("a_way_out_comes_and_goes", true).await else {
        return;
    };
    let status = node.network("lab", json!({ "subnet": TWO })).await;
    let a = node.guest("a", "lab").await;
    a.configure().await;
    ip(&a.netns, "route add default via 10.50.0.1").await;
    let instance = node.uplink.clone().unwrap();
    let root = Links::open(&Netns::root()).await.unwrap();
    let outside = host::net::names::uplink(&instance);
    let addresses = root.addresses(&outside).await.unwrap();
    let beyond = addresses
        .iter()
        .find(|net| net.addr().is_ipv4())
        .unwrap()
        .addr()
        .to_string();
    // The root namespace knows no way back to 10.50.0.0/24: an answer proves the NAT.
    until("a reaches the world", || pings(&a.netns, &beyond)).await;

    update(&node.cx, "network", "lab", json!({ "mode": "isolated" }))
        .await
        .unwrap();
    until("a is cut off", || async { !pings(&a.netns, &beyond).await }).await;
    assert!(
        pings(&a.netns, "10.50.0.1").await,
        "but not from its own network"
    );

    let dnsmasq = server(&node, &status.bridge).running().unwrap().unwrap();
    assert_eq!(
        node.cx
            .life()
            .stop(std::time::Duration::from_secs(10))
            .await,
        Vec::<&str>::new()
    );
    node.cx.part::<crate::Fabric>().tear_down().await.unwrap();
    assert!(!dnsmasq.is_running() && !node.netns.exists());
    assert!(root.get(&outside).await.unwrap().is_none());
    let left = Nft::new(&Netns::root()).tables(Family::Inet).await.unwrap();
    assert!(
        !left.contains(&host::net::uplink::table_name(&instance)),
        "{left:?}"
    );
}

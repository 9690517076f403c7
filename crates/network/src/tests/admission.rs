//! What is decided before anything is made.

use super::lab::*;
use expect_test::{Expect, expect};
use model::Result;
use runtime::Answer;
use serde_json::{Value, json};

async fn check(cx: &runtime::Cx, kind: &str, name: &str, spec: Value, expect: Expect) {
    expect.assert_eq(&said(create(cx, kind, name, spec).await));
}

fn said(answer: Result<Answer>) -> String {
    match answer {
        Ok(Answer::Object { json, .. }) => {
            let object: Value = serde_json::from_slice(&json).unwrap();
            object["spec"].to_string()
        }
        Ok(other) => format!("{other:?}"),
        Err(error) => error.to_string(),
    }
}

const NETWORK: &str = "10.50.0.0/29";

async fn lab() -> runtime::Cx {
    let cx = paper().await;
    create(
        &cx,
        "network",
        "lab",
        json!({ "subnet": NETWORK, "ipv6_subnet": "fd50::/64" }),
    )
    .await
    .unwrap();
    cx
}

#[tokio::test]
async fn a_network_is_stored_with_everything_chosen() {
    let cx = paper().await;
    check(
        &cx,
        "network",
        "lab",
        json!({ "subnet": "10.50.0.0/24", "ipv6_subnet": "fd50::/64" }),
        expect![[r#"{"mode":"nat","family":"dual","subnet":"10.50.0.0/24","gateway":"10.50.0.1","range":"10.50.0.11-10.50.0.254","ipv6_subnet":"fd50::/64","domain":"internal","mtu":1500}"#]],
    )
    .await;
    check(
        &cx,
        "network",
        "lab2",
        json!({ "subnet": "10.50.0.128/25", "family": "ipv4" }),
        expect!["spec.subnet: `10.50.0.128/25` overlaps 10.50.0.0/24 of network `lab` (take another subnet, or leave it out for a free one)"],
    )
    .await;
    check(
        &cx,
        "network",
        "lab3",
        json!({ "sub_net": "10.51.0.0/24" }),
        expect!["spec.sub_net: is not a field here (did you mean `subnet`?)"],
    )
    .await;
    check(
        &cx,
        "network",
        "lab4",
        json!({ "mtu": 100 }),
        expect!["spec.mtu: 100 is less than the minimum of 1280"],
    )
    .await;
    let moved = update(&cx, "network", "lab", json!({ "subnet": "10.60.0.0/24" })).await;
    expect![[r#"spec.subnet: is "10.50.0.0/24" and cannot change (make a new object, or leave the field as it is)"#]].assert_eq(&said(moved));
    let kept = update(&cx, "network", "lab", json!({ "mode": "isolated" })).await;
    expect![[r#"{"mode":"isolated","family":"dual","subnet":"10.50.0.0/24","gateway":"10.50.0.1","range":"10.50.0.11-10.50.0.254","ipv6_subnet":"fd50::/64","domain":"internal","mtu":1500}"#]].assert_eq(&said(kept));
}

#[tokio::test]
async fn addresses_are_given_out_once() {
    let cx = lab().await;
    // 10.50.0.2 to 10.50.0.6 are for guests.
    for (guest, ip) in [("a", "10.50.0.2"), ("b", "10.50.0.3")] {
        create(
            &cx,
            "guest",
            guest,
            json!({ "nics": [{ "network": "lab" }] }),
        )
        .await
        .unwrap();
        assert_eq!(get_guest(&cx, guest).spec.nics[0].ipv4.as_deref(), Some(ip));
    }
    let nic = &get_guest(&cx, "a").spec.nics[0];
    let mac: host::net::Mac = nic.mac.parse().unwrap();
    assert_eq!(
        nic.ipv6.as_deref(),
        Some(&*mac.ipv6_in("fd50::".parse().unwrap()).to_string())
    );
    check(
        &cx,
        "guest",
        "c",
        json!({ "nics": [{ "network": "lab", "ipv4": "10.50.0.3" }] }),
        expect!["spec.nics[0].ipv4: `10.50.0.3` is in use in network `lab` (leave it out for a free one)"],
    )
    .await;
    check(
        &cx,
        "guest",
        "c",
        json!({ "nics": [{ "network": "lab", "ipv4": "10.50.0.1" }] }),
        expect![
            "spec.nics[0].ipv4: `10.50.0.1` is the network's gateway (leave it out for a free one)"
        ],
    )
    .await;
    check(
        &cx,
        "guest",
        "c",
        json!({ "nics": [{ "network": "lab", "ipv4": "10.51.0.3", "mac": "01:00:5e:00:00:01" }] }),
        expect!["spec.nics[0].mac: `01:00:5e:00:00:01` is not one station's address (leave it out for a free one); spec.nics[0].ipv4: `10.51.0.3` is not in the network's subnet 10.50.0.0/29 (leave it out for a free one)"],
    )
    .await;
    let body = json!({ "nics": [{ "network": "lab", "mac": nic.mac }] });
    let taken = said(create(&cx, "guest", "c", body).await);
    assert!(
        taken.contains("`52:db:") && taken.contains("is in use in network `lab`"),
        "{taken}"
    );
    check(
        &cx,
        "guest",
        "c",
        json!({ "nics": [{ "network": "lap" }] }),
        expect!["spec.nics[0].network: there is no network `lap` (did you mean `lab`?)"],
    )
    .await;
    // Chosen after those asked for by name, in one request too.
    create(
        &cx,
        "guest",
        "c",
        json!({ "nics": [{ "network": "lab" }, { "network": "lab", "ipv4": "10.50.0.4" }] }),
    )
    .await
    .unwrap();
    assert_eq!(
        get_guest(&cx, "c").spec.nics[0].ipv4.as_deref(),
        Some("10.50.0.5")
    );
    create(&cx, "guest", "d", json!({ "nics": [{ "network": "lab" }] }))
        .await
        .unwrap();
    check(
        &cx,
        "guest",
        "e",
        json!({ "nics": [{ "network": "lab" }] }),
        expect!["spec.nics[0].ipv4: network `lab` has no free address between 10.50.0.2 and 10.50.0.6 (remove guests, widen the network's range, or use another network)"],
    )
    .await;
    // What a guest gives up, by an update or with its life, is free again.
    update(&cx, "guest", "c", json!({ "nics": [] }))
        .await
        .unwrap();
    delete(&cx, "guest", "a").await.unwrap();
    for (guest, ip) in [("e", "10.50.0.2"), ("f", "10.50.0.4"), ("g", "10.50.0.5")] {
        create(
            &cx,
            "guest",
            guest,
            json!({ "nics": [{ "network": "lab" }] }),
        )
        .await
        .unwrap();
        assert_eq!(
            get_guest(&cx, guest).spec.nics[0].ipv4.as_deref(),
            Some(ip),
            "{guest}"
        );
    }
}

#[tokio::test]
async fn an_update_keeps_addresses_and_two_nics_may_change_places() {
    let cx = lab().await;
    create(&cx, "guest", "a", json!({ "nics": [{ "network": "lab" }] }))
        .await
        .unwrap();
    let nic = get_guest(&cx, "a").spec.nics[0].clone();
    let body = json!({ "nics": [{ "network": "lab", "mac": nic.mac, "ipv4": "10.50.0.6", "ipv6": nic.ipv6 }] });
    update(&cx, "guest", "a", body).await.unwrap();
    create(&cx, "guest", "b", json!({ "nics": [{ "network": "lab" }] }))
        .await
        .unwrap();
    let other = get_guest(&cx, "b").spec.nics[0].clone();
    assert_eq!(
        other.ipv4.as_deref(),
        Some("10.50.0.2"),
        "the address that was given up"
    );
    let same = json!({ "nics": [{ "network": "lab", "mac": other.mac.to_uppercase(), "ipv4": other.ipv4, "ipv6": other.ipv6 }] });
    update(&cx, "guest", "b", same).await.unwrap();
    assert_eq!(
        get_guest(&cx, "b").spec.nics[0].mac,
        other.mac,
        "one spelling"
    );
}

#[tokio::test]
async fn guests_made_at_once_share_nothing() {
    let cx = paper().await;
    create(
        &cx,
        "network",
        "lab",
        json!({ "subnet": "10.50.0.0/24", "ipv6_subnet": "fd50::/64" }),
    )
    .await
    .unwrap();
    let made = (0..30).map(|n| {
        let cx = cx.clone();
        async move {
            create(
                &cx,
                "guest",
                &format!("g{n}"),
                json!({ "nics": [{ "network": "lab" }, { "network": "lab" }] }),
            )
            .await
            .unwrap()
        }
    });
    futures::future::join_all(made).await;
    let mut all: Vec<String> = (0..30)
        .flat_map(|n| get_guest(&cx, &format!("g{n}")).spec.nics.clone())
        .flat_map(|nic| [nic.mac, nic.ipv4.unwrap(), nic.ipv6.unwrap()])
        .collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 30 * 2 * 3);
}

#[tokio::test]
async fn a_network_in_use_stays() {
    let cx = lab().await;
    create(&cx, "guest", "a", json!({ "nics": [{ "network": "lab" }] }))
        .await
        .unwrap();
    expect!["network default/lab is used by guest default/a: delete or change these first"]
        .assert_eq(&said(delete(&cx, "network", "lab").await));
}

//! What this kernel's nft can do, found by trying it in an empty namespace that vanishes with the try.

use super::Family;
use super::json::{Contents, accept, is, joined, meta};
use crate::process::{ProcessError, Run};
use anyhow::{Result, bail};
use serde_json::{Value, json};
use std::time::Duration;

/// What was found to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Sets of interface and address in the bridge family: what the guard of a NIC is made of.
    pub bridge_sets: bool,
    /// Masquerading in the inet family: what NAT networks need.
    pub inet_nat: bool,
    /// Connection tracking in the bridge family: what a stateful firewall on a bridge is best made of.
    pub bridge_conntrack: bool,
    /// Matching the name of the bridge a frame came in by.
    pub bridge_name: bool,
}

/// Tries each feature; changes nothing that outlives the try.
///
/// # Errors
/// When `nft` is missing (the error names the Debian package), or cannot make even an empty table: then nft is not in this kernel or we
/// are not root.
pub async fn probe() -> Result<Features> {
    if let Err(said) = attempt(Contents::of(Family::Inet, "probe")).await? {
        bail!(
            "nft cannot make a table on this host: {}: the kernel needs nf_tables, and the agent must run as root",
            said.trim()
        );
    }
    let mut sets = Contents::of(Family::Bridge, "probe");
    sets.set(
        "s",
        json!(["ifname", "ether_addr"]),
        &[],
        vec![joined([json!("probe0"), json!("02:00:00:00:00:01")])],
    );
    sets.hooked("c", "filter", "prerouting", -300);
    sets.rule(
        "c",
        vec![
            is(
                joined([meta("iifname"), super::json::field("ether", "saddr")]),
                "@s",
            ),
            accept(),
        ],
    );

    let mut nat = Contents::of(Family::Inet, "probe");
    nat.hooked("c", "nat", "postrouting", 100);
    nat.rule("c", vec![json!({"masquerade": null})]);

    let mut conntrack = Contents::of(Family::Bridge, "probe");
    conntrack.hooked("c", "filter", "forward", 0);
    conntrack.rule("c", vec![json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established"]}}), accept()]);

    let mut name = Contents::of(Family::Bridge, "probe");
    name.hooked("c", "filter", "forward", 0);
    name.rule("c", vec![is(meta("ibrname"), "probe0"), accept()]);

    Ok(Features {
        bridge_sets: attempt(sets).await?.is_ok(),
        inet_nat: attempt(nat).await?.is_ok(),
        bridge_conntrack: attempt(conntrack).await?.is_ok(),
        bridge_name: attempt(name).await?.is_ok(),
    })
}

/// Runs it in an empty namespace; `Err` inside is what nft said against it.
async fn attempt(contents: Contents) -> Result<Result<(), String>> {
    let table = match contents
        .objects
        .first()
        .and_then(|object| object.as_object()?.values().next()?.get("family"))
    {
        Some(family) => json!({"family": family, "name": "probe"}),
        None => json!({"family": "inet", "name": "probe"}),
    };
    let mut commands: Vec<Value> = vec![json!({"add": {"table": table}})];
    commands.extend(contents.objects.iter().map(|object| json!({"add": object})));
    let run = Run::new("nft")
        .args(["-j", "-f", "-"])
        .stdin_bytes(json!({"nftables": commands}).to_string())
        .no_network()
        .timeout(Duration::from_secs(10));
    match run.output().await {
        Ok(_) => Ok(Ok(())),
        Err(ProcessError::Failed { said, .. }) => Ok(Err(said)),
        Err(other) => Err(other.into()),
    }
}

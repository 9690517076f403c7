//! Connects a guest's NIC to its network: the one thing `compute` asks of us when it starts a guest.
//!
//! The guard of the NIC stands before its tap is switched on, so there is no moment in which a guest could speak as another.

use crate::fabric::{Fabric, step};
use crate::network::{Network, State};
use host::net::{names, tap};
use model::{Error, ObjectRef, Result, Uid, What};
use runtime::{Cx, Op};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// What is plugged in.
#[derive(Clone, Debug)]
pub struct Plug {
    /// The guest: its kind, project and name.
    pub guest: ObjectRef,
    /// The guest's uid.
    pub uid: Uid,
    /// Name of the NIC in the guest.
    pub nic: String,
    /// The network, `name` or `project/name`.
    pub network: String,
    /// The NIC's addresses, as allocated.
    pub mac: String,
    /// Its IPv4 address.
    pub ipv4: Option<String>,
    /// Its IPv6 address.
    pub ipv6: Option<String>,
    /// The numeric user that QEMU runs as.
    pub user: u32,
    /// How many queues its card has, 1 to [`tap::QUEUES_MAX`].
    pub queues: usize,
}

/// A NIC that is plugged in.
#[derive(Debug)]
pub struct Plugged {
    /// The tap's descriptors, one per queue, for QEMU.
    pub fds: Vec<OwnedFd>,
    /// The tap's name.
    pub tap: String,
    /// Largest packet in bytes, for the guest's NIC.
    pub mtu: u32,
}

/// Plugs a NIC in. Doing it again is no harm, unless a QEMU still holds the tap.
///
/// # Errors
/// [`What::Unavailable`] while the network is not ready (try again); else what the host says.
pub async fn plug(cx: &Cx, what: &Plug) -> Result<Plugged> {
    let project = what.guest.project.as_deref();
    let network = cx
        .follow::<Network>(project, &what.network)
        .ok_or_else(|| {
            Error::not_found(format!(
                "cannot plug `{}` of {} in: there is no network `{}`",
                what.nic, what.guest, what.network
            ))
        })?;
    let status = network.status.clone().unwrap_or_default();
    if status.state != State::Ready {
        let why = status
            .conditions
            .iter()
            .find(|c| c.kind == "Reconciled" && !c.message.is_empty());
        let why = why.map(|c| format!(": {}", c.message)).unwrap_or_default();
        let message = format!(
            "cannot plug `{}` of {} in: network `{}` is not ready{why}",
            what.nic, what.guest, what.network
        );
        return Err(Error::new(
            What::Unavailable(Duration::from_secs(2)),
            message,
        ));
    }
    let fabric = cx.part::<Fabric>();
    let ready = fabric.ready().await?;
    let name = names::tap(&what.uid.to_string(), &what.nic);
    record(cx, what, &name).await?;
    fabric.apply_rules(cx).await?;

    let about = || {
        format!(
            "cannot plug `{}` of {} into network `{}`",
            what.nic, what.guest, what.network
        )
    };
    let open = tap::open(fabric.netns(), &name, what.user, what.queues).await;
    let fds = step(open, about)?;
    step(ready.links.set_mtu(&name, network.spec.mtu).await, about)?;
    step(
        ready.links.set_port(&name, &status.bridge, false).await,
        about,
    )?;
    step(ready.links.set_up(&name, true).await, about)?;
    Ok(Plugged {
        fds,
        tap: name,
        mtu: network.spec.mtu,
    })
}

/// Unplugs a NIC: its tap goes, and its addresses mean nobody any more. They stay allocated to the guest. A NIC that was not plugged in
/// is no error.
///
/// # Errors
/// When the host or the store refuses.
pub async fn unplug(cx: &Cx, guest: &ObjectRef, uid: Uid, nic: &str) -> Result<()> {
    let fabric = cx.part::<Fabric>();
    if fabric.netns().exists() {
        let name = names::tap(&uid.to_string(), nic);
        let links = fabric.ready().await?.links;
        step(links.remove(&name).await, || {
            format!("cannot unplug `{nic}` of {guest}")
        })?;
    }
    let target = ObjectRef {
        kind: "address".into(),
        project: guest.project.clone(),
        name: object_name(&guest.name, nic),
    };
    match cx
        .submit(
            Op::Delete {
                target,
                keep: Vec::new(),
            },
            "network",
        )
        .await
    {
        Err(error) if error.what != What::NotFound => return Err(error),
        _ => {}
    }
    fabric.apply_rules(cx).await
}

/// Says to everybody which NIC speaks under which addresses.
async fn record(cx: &Cx, what: &Plug, tap: &str) -> Result<()> {
    let target = ObjectRef {
        kind: "address".into(),
        project: what.guest.project.clone(),
        name: object_name(&what.guest.name, &what.nic),
    };
    let mut spec = json!({
        "network": what.network, "mac": what.mac, "guest": what.guest.name, "nic": what.nic, "node": cx.node(), "tap": tap,
    });
    for (field, value) in [("ipv4", &what.ipv4), ("ipv6", &what.ipv6)] {
        if let Some(value) = value {
            spec[field] = json!(value);
        }
    }
    let body = json!({
        "metadata": {
            "name": target.name,
            "owner": {"kind": what.guest.kind, "name": what.guest.name, "uid": what.uid},
        },
        "spec": spec,
    });
    cx.submit(
        Op::Update {
            target,
            body,
            create: true,
        },
        "network",
    )
    .await?;
    Ok(())
}

/// `web1-nic0`, or a shortened one with a hash when that is too long for a name.
fn object_name(guest: &str, nic: &str) -> String {
    let name = format!("{guest}-{nic}");
    if name.len() <= 63 {
        return name;
    }
    let hash = Sha256::digest(name.as_bytes());
    format!(
        "{}-{}",
        name[..54].trim_end_matches('-'),
        hex::encode(&hash[..4])
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_names() {
        assert_eq!(object_name("web1", "nic0"), "web1-nic0");
        let long = object_name(&"a".repeat(63), "nic0");
        assert!(
            long.len() <= 63 && model::Name::parse("name", &long).is_ok(),
            "{long}"
        );
        assert_ne!(long, object_name(&"a".repeat(63), "nic1"));
    }
}

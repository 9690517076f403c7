//! The network interfaces of a VM: plugged into their networks, and described to cloud-init.

use super::Vm;
use super::hypervisor::{NicSource, VmId};
use super::seed::NicFacts;
use super::types::{Nic, NicModel, VmSpec};
use host::net::tap;
use model::{Result, What};
use network::network::{Network, State};
use network::{Plug, plug, unplug};
use runtime::{Cx, Obj};
use std::net::IpAddr;

/// For which network a VM still waits.
pub fn wait(cx: &Cx, vm: &Obj<Vm>) -> Option<String> {
    vm.spec.nics.iter().find_map(|nic| {
        let project = vm.metadata.project.as_deref();
        match cx.follow::<Network>(project, &nic.network) {
            None => Some(format!("there is no network `{}`", nic.network)),
            Some(network) => {
                let ready = network
                    .status
                    .as_ref()
                    .is_some_and(|s| s.state == State::Ready);
                let said = network.status.iter().flat_map(|s| &s.conditions);
                let why = said
                    .filter(|c| c.kind == "Reconciled")
                    .find_map(|c| (!c.message.is_empty()).then(|| format!(": {}", c.message)))
                    .unwrap_or_default();
                (!ready).then(|| format!("network `{}` is not ready{why}", nic.network))
            }
        }
    })
}

/// How many queues a card has: one per CPU that the guest may come to have, so that each sends and receives by itself.
fn queues(nic: &Nic, vm: &VmSpec) -> usize {
    let cpus = vm.cpu.max.unwrap_or(vm.vcpus);
    match nic.model {
        NicModel::Virtio => {
            usize::try_from(cpus).map_or(tap::QUEUES_MAX, |n| n.clamp(1, tap::QUEUES_MAX))
        }
        NicModel::E1000e => 1,
    }
}

/// Plugs an interface in, for a QEMU that runs as `user`.
pub async fn open(cx: &Cx, id: &VmId, vm: &VmSpec, nic: &Nic, user: u32) -> Result<NicSource> {
    let what = Plug {
        guest: id.object.clone(),
        uid: id.uid,
        nic: nic.name.clone(),
        network: nic.network.clone(),
        mac: nic.mac.clone(),
        ipv4: nic.ipv4.clone(),
        ipv6: nic.ipv6.clone(),
        user,
        queues: queues(nic, vm),
    };
    let plugged = plug(cx, &what).await?;
    Ok(NicSource {
        nic: nic.clone(),
        taps: plugged.fds,
        device: plugged.tap,
        mtu: plugged.mtu,
    })
}

/// Unplugs an interface; one that is not plugged in is no error.
pub async fn close(cx: &Cx, id: &VmId, nic: &str) -> Result<()> {
    match unplug(cx, &id.object, id.uid, nic).await {
        Err(error) if error.what == What::NotFound => Ok(()),
        done => done,
    }
}

/// What cloud-init is told about the interfaces: the addresses that were allocated, and where to route and ask names.
pub fn facts(cx: &Cx, vm: &Obj<Vm>) -> Vec<NicFacts> {
    let project = vm.metadata.project.as_deref();
    let of = |nic: &Nic| {
        let mut facts = NicFacts {
            name: nic.name.clone(),
            mac: nic.mac.clone(),
            ..NicFacts::default()
        };
        let Some(network) = cx.follow::<Network>(project, &nic.network) else {
            return facts;
        };
        let spec = &network.spec;
        let prefix = |subnet: &Option<String>| {
            let (_, prefix) = subnet.as_deref()?.split_once('/')?;
            prefix.parse::<u8>().ok()
        };
        let four = nic.ipv4.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok());
        if let (Some(ip), Some(prefix)) = (four, prefix(&spec.subnet)) {
            facts.addresses.push((ip, prefix));
            let gateway = spec
                .gateway
                .as_deref()
                .and_then(|g| g.parse::<IpAddr>().ok());
            facts.gateways.extend(gateway);
            facts.dns.extend(gateway);
        }
        // IPv6 routes and name servers come by router advertisement.
        let six = nic.ipv6.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok());
        if let (Some(ip), Some(prefix)) = (six, prefix(&spec.ipv6_subnet)) {
            facts.addresses.push((ip, prefix));
        }
        let domain = &spec.domain;
        facts.search = Some(match project {
            Some(project) => format!("{project}.{domain}"),
            None => domain.clone(),
        });
        facts.mtu = (spec.mtu != 1500).then_some(spec.mtu);
        facts
    };
    vm.spec.nics.iter().map(of).collect()
}

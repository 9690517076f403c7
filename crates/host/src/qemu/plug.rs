//! Changing a running guest: disks, cards, processors, memory, and looking at its screen.
//!
//! Every function leaves nothing half-plugged when it fails, except an unplug the guest did not answer in time: that one may
//! still happen, and asking again is right.

use super::disk::Disk;
use super::driver::DriverError;
use super::handle::Handle;
use super::nic::Nic;
use crate::qmp::{HotpluggableCpu, Qmp, QmpError};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// How long the guest has to let go of a device.
const UNPLUG: Duration = Duration::from_secs(30);
/// What memory modules must be a multiple of, in MiB: Linux takes memory in blocks of this size.
const MODULE: u64 = 128;

impl Handle {
    fn refused(&self, why: String) -> DriverError {
        DriverError::Refused {
            guest: self.name().to_owned(),
            why,
        }
    }

    /// Plugs a disk (virtio, SCSI or NVMe) at its free place. `fds` are the files its layers name.
    ///
    /// # Errors
    /// When QEMU refuses, as for a place that is taken.
    pub async fn plug_disk(
        &self,
        disk: &Disk,
        mut fds: BTreeMap<String, OwnedFd>,
    ) -> Result<(), DriverError> {
        let qmp = self.qmp().await?;
        let mut sets = BTreeMap::new();
        let mut nodes = Vec::new();
        let plug = async {
            for layer in &disk.layers {
                let Some(fd) = fds.remove(&layer.fd) else {
                    return Err(DriverError::Descriptor {
                        guest: self.name().to_owned(),
                        name: layer.fd.clone(),
                        why: "is named by the disk but not given",
                    });
                };
                let set = qmp.add_fd(fd, &layer.fd).await;
                sets.insert(layer.fd.clone(), set.map_err(|e| self.qmp_error(e))?);
            }
            let set_of = |name: &str| sets.get(name).copied().unwrap_or(0);
            for node in disk.blockdevs(&set_of) {
                let name = node.get("node-name").and_then(Value::as_str);
                let name = name.unwrap_or_default().to_owned();
                let added = qmp.blockdev_add(node).await;
                added.map_err(|e| self.qmp_error(e))?;
                nodes.insert(0, name);
            }
            let added = qmp.device_add(disk.device(self.record().express)).await;
            added.map_err(|e| self.qmp_error(e))
        };
        let plugged = plug.await;
        if plugged.is_err() {
            // Only what this call has opened: the name may belong to a disk that is there.
            self.close_nodes(&qmp, &nodes).await;
            for set in sets.into_values() {
                self.close_set(&qmp, set).await;
            }
        }
        plugged
    }

    /// Unplugs a disk, plugged or there from the start, and closes its files. Waits for the guest to let go, 30 s at most.
    /// One that is not there is success.
    ///
    /// # Errors
    /// [`QmpError::Timeout`] within when the guest does not let go.
    pub async fn unplug_disk(&self, disk: &Disk) -> Result<(), DriverError> {
        let qmp = self.qmp().await?;
        let gone = qmp.unplug(&disk.device_id(), UNPLUG).await;
        gone.map_err(|e| self.qmp_error(e))?;
        self.close_nodes(&qmp, &disk.node_names()).await;
        let sets = qmp.execute("query-fdsets", Value::Null).await;
        for set in sets.ok().iter().filter_map(Value::as_array).flatten() {
            let ours = |fd: &Value| {
                let opaque = fd.get("opaque").and_then(Value::as_str);
                disk.layers.iter().any(|layer| opaque == Some(&layer.fd))
            };
            let fds = set.get("fds").and_then(Value::as_array);
            if fds.is_some_and(|fds| fds.iter().any(ours))
                && let Some(id) = set.get("fdset-id").and_then(Value::as_u64)
            {
                self.close_set(&qmp, id).await;
            }
        }
        Ok(())
    }

    async fn close_nodes(&self, qmp: &Qmp, nodes: &[String]) {
        for node in nodes {
            match qmp.blockdev_del(node).await {
                // Not there is what is wanted.
                Ok(()) | Err(QmpError::Refused { .. }) => {}
                Err(error) => {
                    tracing::warn!(vm = %self.name(), node, %error, "a disk's file stays open in QEMU");
                }
            }
        }
    }

    async fn close_set(&self, qmp: &Qmp, set: u64) {
        if let Err(error) = qmp.remove_fd(set).await {
            tracing::warn!(vm = %self.name(), %error, "a disk's descriptor stays open in QEMU");
        }
    }

    /// Tells a disk's device that its file or block device has grown to `bytes`; QEMU grows a file itself.
    ///
    /// # Errors
    /// When QEMU refuses.
    pub async fn resize_disk(&self, disk: &Disk, bytes: u64) -> Result<(), DriverError> {
        let qmp = self.qmp().await?;
        let resized = qmp.block_resize(&disk.node_name(), bytes).await;
        resized.map_err(|e| self.qmp_error(e))
    }

    /// Plugs a network card at its free port. `fds` are the taps (and vhost descriptors) it names.
    ///
    /// # Errors
    /// When QEMU refuses.
    pub async fn plug_nic(
        &self,
        nic: &Nic,
        mut fds: BTreeMap<String, OwnedFd>,
    ) -> Result<(), DriverError> {
        let qmp = self.qmp().await?;
        let mut names = BTreeMap::new();
        for (at, name) in nic.tap_fds.iter().chain(&nic.vhost_fds).enumerate() {
            names.insert(name.clone(), format!("{}-{at}", nic.netdev_id()));
        }
        let plug = async {
            for (name, handed) in &names {
                let Some(fd) = fds.remove(name) else {
                    return Err(DriverError::Descriptor {
                        guest: self.name().to_owned(),
                        name: name.clone(),
                        why: "is named by the card but not given",
                    });
                };
                qmp.getfd(fd, handed).await.map_err(|e| self.qmp_error(e))?;
            }
            let name_of = |name: &str| names.get(name).cloned().unwrap_or_default();
            let added = qmp.netdev_add(nic.netdev(&name_of)).await;
            added.map_err(|e| self.qmp_error(e))?;
            let added = qmp.device_add(nic.device(self.record().express)).await;
            added.map_err(|e| self.qmp_error(e))
        };
        let plugged = plug.await;
        if plugged.is_err() {
            // What was not reached is not there: that is no failure.
            let _ = qmp.netdev_del(&nic.netdev_id()).await;
            for handed in names.values() {
                let _ = qmp.closefd(handed).await;
            }
        }
        plugged
    }

    /// Unplugs a network card and closes its tap. Waits for the guest to let go, 30 s at most. One that is not there is
    /// success.
    ///
    /// # Errors
    /// [`QmpError::Timeout`] within when the guest does not let go.
    pub async fn unplug_nic(&self, nic: &Nic) -> Result<(), DriverError> {
        let qmp = self.qmp().await?;
        let gone = qmp.unplug(&nic.device_id(), UNPLUG).await;
        gone.map_err(|e| self.qmp_error(e))?;
        match qmp.netdev_del(&nic.netdev_id()).await {
            Ok(()) | Err(QmpError::Refused { .. }) => Ok(()),
            Err(error) => Err(self.qmp_error(error)),
        }
    }

    /// Plugs or unplugs processors until there are `vcpus`. Those from the start stay: only plugged ones can go, and only when
    /// the guest lets them (30 s each).
    ///
    /// # Errors
    /// [`DriverError::Refused`] when `vcpus` is out of reach.
    pub async fn set_vcpus(&self, vcpus: u32) -> Result<(), DriverError> {
        let qmp = self.qmp().await?;
        let mut places = qmp
            .hotpluggable_cpus()
            .await
            .map_err(|e| self.qmp_error(e))?;
        let order = |place: &HotpluggableCpu| {
            let number = |key: &str| place.props.get(key).and_then(Value::as_u64);
            (number("socket-id"), number("core-id"), number("thread-id"))
        };
        places.sort_by_key(order);
        let count = places
            .iter()
            .filter(|place| place.qom_path.is_some())
            .count();
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if vcpus as usize > places.len() {
            let most = places.len();
            return Err(self.refused(format!("{vcpus} processors are asked for, and there are places for {most}: the rest comes with the next start")));
        }
        for place in places
            .iter()
            .filter(|p| p.qom_path.is_none())
            .take(vcpus.saturating_sub(count) as usize)
        {
            let mut device = place.props.clone();
            let (socket, core, thread) = order(place);
            let part = |n: Option<u64>| n.unwrap_or(0);
            device["driver"] = json!(place.kind);
            device["id"] = json!(format!(
                "cpu-{}-{}-{}",
                part(socket),
                part(core),
                part(thread)
            ));
            qmp.device_add(device)
                .await
                .map_err(|e| self.qmp_error(e))?;
        }
        let plugged = places.iter().rev().filter_map(|place| {
            let path = place.qom_path.as_deref()?;
            path.strip_prefix("/machine/peripheral/")
        });
        let surplus = count.saturating_sub(vcpus) as usize;
        let leaving: Vec<&str> = plugged.take(surplus).collect();
        if leaving.len() < surplus {
            let least = count as usize - leaving.len();
            return Err(self.refused(format!("{vcpus} processors are asked for, and {least} are there since the start: fewer comes with the next start")));
        }
        for id in leaving {
            let gone = qmp.unplug(id, UNPLUG).await;
            gone.map_err(|e| self.qmp_error(e))?;
        }
        Ok(())
    }

    /// Plugs one memory module of `mib`, a multiple of 128, into the first free place.
    ///
    /// # Errors
    /// [`DriverError::Refused`] for another size; QEMU's words when no place or no room is left.
    pub async fn plug_memory(&self, mib: u64) -> Result<(), DriverError> {
        if mib == 0 || !mib.is_multiple_of(MODULE) {
            return Err(self.refused(format!(
                "a memory module of {mib} MiB is asked for: take a multiple of {MODULE}"
            )));
        }
        let qmp = self.qmp().await?;
        let there = qmp.memory_devices().await.map_err(|e| self.qmp_error(e))?;
        let taken = |slot: &u64| {
            let id = json!(format!("dimm-{slot}"));
            there
                .iter()
                .any(|device| device.data.get("id") == Some(&id))
        };
        let slot = (0_u64..256).find(|slot| !taken(slot)).unwrap_or(256);
        let backend = format!("module-{slot}");
        let object = json!({ "qom-type": "memory-backend-ram", "id": backend, "size": mib.saturating_mul(1 << 20) });
        qmp.object_add(object)
            .await
            .map_err(|e| self.qmp_error(e))?;
        let device =
            json!({ "driver": "pc-dimm", "id": format!("dimm-{slot}"), "memdev": backend });
        let plugged = qmp.device_add(device).await;
        if plugged.is_err() {
            let _ = qmp.object_del(&backend).await;
        }
        plugged.map_err(|e| self.qmp_error(e))
    }

    /// A picture of the screen, as PNG.
    ///
    /// # Errors
    /// [`DriverError::Qmp`] when the guest has no screen.
    pub async fn screenshot(&self) -> Result<Vec<u8>, DriverError> {
        let qmp = self.qmp().await?;
        let memory =
            super::driver::dir_error("making a memory file for", Path::new("a screenshot"));
        let (mut picture, for_qemu) = memory_file().map_err(memory)?;
        let set = qmp
            .add_fd(for_qemu, "screenshot")
            .await
            .map_err(|e| self.qmp_error(e))?;
        let shot = qmp
            .screendump(Path::new(&format!("/dev/fdset/{set}")))
            .await;
        // Without effect when the connection is gone, and then needless.
        let _ = qmp.remove_fd(set).await;
        shot.map_err(|e| self.qmp_error(e))?;
        let mut bytes = Vec::new();
        let reading = super::driver::dir_error("reading", Path::new("a screenshot"));
        picture.read_to_end(&mut bytes).map_err(reading)?;
        Ok(bytes)
    }
}

/// A file in memory: our end, and one that can only be written, as QEMU opens it.
fn memory_file() -> io::Result<(File, OwnedFd)> {
    let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
    let ours = File::from(nix::sys::memfd::memfd_create(c"screenshot", flags)?);
    // QEMU takes a descriptor from a set only when its access mode is exactly the one asked for.
    let path = format!("/proc/self/fd/{}", ours.as_raw_fd());
    let theirs = File::options().write(true).open(path)?;
    Ok((ours, theirs.into()))
}

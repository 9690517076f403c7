//! The volumes behind a VM's disks: made and grown by requests to `storage`, and opened for QEMU.

use super::Vm;
use super::hypervisor::{DiskSource, LayerFile};
use super::types::Disk;
use model::{Bytes, Error, ObjectRef, Resource, Result, What};
use runtime::{Cx, Obj, Op};
use serde_json::json;
use storage::volume::{Volume, VolumeFormat, VolumeState};

/// Has the volumes of inline disks made and grown. Answers for which disk the VM still waits.
pub async fn ensure(cx: &Cx, vm: &Obj<Vm>) -> Result<Option<String>> {
    let mut missing = None;
    for disk in &vm.spec.disks {
        if disk.inline() {
            make(cx, vm, disk).await?;
        }
        missing = missing.or_else(|| wait_for(cx, vm, disk));
    }
    Ok(missing)
}

fn project(vm: &Obj<Vm>) -> Option<&str> {
    vm.metadata.project.as_deref()
}

fn find(cx: &Cx, vm: &Obj<Vm>, disk: &Disk) -> Option<std::sync::Arc<Obj<Volume>>> {
    cx.follow::<Volume>(project(vm), &disk.volume_name(&vm.metadata.name))
}

async fn make(cx: &Cx, vm: &Obj<Vm>, disk: &Disk) -> Result<()> {
    let name = disk.volume_name(&vm.metadata.name);
    let target = ObjectRef {
        kind: Volume::KIND.name.into(),
        project: vm.metadata.project.as_ref().map(ToString::to_string),
        name: name.clone(),
    };
    if let Some(volume) = find(cx, vm, disk) {
        let ours = volume
            .metadata
            .owner
            .as_ref()
            .is_some_and(|o| o.uid == vm.metadata.uid);
        if !ours {
            return Err(Error::refused(format!(
                "disk `{}` of VM `{}` would be volume `{name}`, which exists and belongs to something else",
                disk.name, vm.metadata.name
            ))
            .hint(format!("delete volume `{name}`, or use it by `volume: {name}`")));
        }
        let have = volume.spec.size.unwrap_or(Bytes(0));
        if let Some(size) = disk.size
            && size > have
            && volume.metadata.deletion_requested.is_none()
        {
            let body = json!({ "spec": { "size": size } });
            cx.submit(Op::Patch { target, body }, "vm").await?;
        }
        return Ok(());
    }
    let mut spec = json!({});
    if let Some(size) = disk.size {
        spec["size"] = json!(size);
    }
    if let Some(image) = &disk.image {
        spec["image"] = json!(image);
    }
    if let Some(pool) = &disk.pool {
        spec["pool"] = json!(pool);
    }
    if let Some(format) = &disk.format {
        spec["format"] = json!(format);
    }
    let body = json!({
        "metadata": { "name": name, "owner": { "kind": Vm::KIND.name, "name": vm.metadata.name, "uid": vm.metadata.uid } },
        "spec": spec,
    });
    let op = Op::Create {
        kind: Volume::KIND.name.into(),
        project: target.project.clone(),
        body,
    };
    match cx.submit(op, "vm").await {
        // Made by an earlier try that we did not see the end of: looked at again soon.
        Err(error) if error.what == What::Exists => Ok(()),
        done => done.map(drop),
    }
}

/// For which disk a VM still waits, as things are now.
pub fn wait(cx: &Cx, vm: &Obj<Vm>) -> Option<String> {
    vm.spec.disks.iter().find_map(|disk| wait_for(cx, vm, disk))
}

/// Why a disk cannot be used yet.
fn wait_for(cx: &Cx, vm: &Obj<Vm>, disk: &Disk) -> Option<String> {
    let name = disk.volume_name(&vm.metadata.name);
    let Some(volume) = find(cx, vm, disk) else {
        return Some(format!("volume `{name}` of disk `{}` is made", disk.name));
    };
    let status = volume.status.clone().unwrap_or_default();
    let more = match status.message.as_str() {
        "" => String::new(),
        message => format!(": {message}"),
    };
    match status.state {
        VolumeState::Available | VolumeState::Resizing => None,
        VolumeState::Creating => Some(format!("volume `{name}` is being made{more}")),
        VolumeState::Error => Some(format!("volume `{name}` is in error{more}")),
        VolumeState::Deleting => Some(format!("volume `{name}` is being deleted")),
    }
}

/// Opens a disk for QEMU, its topmost file first.
pub async fn open(cx: &Cx, vm: &Obj<Vm>, disk: &Disk) -> Result<DiskSource> {
    let name = disk.volume_name(&vm.metadata.name);
    let volume = find(cx, vm, disk)
        .ok_or_else(|| Error::unavailable(format!("there is no volume `{name}` yet")))?;
    let layers = storage::volume::open(cx, &volume).await?;
    Ok(DiskSource {
        disk: disk.clone(),
        layers: layers
            .into_iter()
            .map(|layer| LayerFile {
                fd: layer.file.into(),
                qcow2: layer.format == VolumeFormat::Qcow2,
            })
            .collect(),
    })
}

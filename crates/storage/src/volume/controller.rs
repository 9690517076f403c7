//! Makes, grows and removes the files of volumes.

use super::types::{KIND, Volume, VolumeState, VolumeStatus};
use crate::image::{Image, ImageState};
use crate::pool::{self, Content, Driver, Layer, Make, Origin, Pool, Seen};
use futures::future::BoxFuture;
use model::{Bytes, Error, Kind, Name, Result, What};
use runtime::Key;
use runtime::{Controller, Cx, Next, Obj, Watch};
use std::os::unix::fs::MetadataExt;

/// A volume's used space is written anew when it has changed by this much.
const NEWS: u64 = 16 << 20;

/// Sole writer of the status of volumes.
pub(super) struct Volumes;

/// Opens a volume for QEMU: its layers from the topmost down, to be handed over as descriptors.
///
/// # Errors
/// `Unavailable` when the volume or its pool is not ready on this node.
pub async fn open(cx: &Cx, volume: &Obj<Volume>) -> Result<Vec<Layer>> {
    let name = &volume.metadata.name;
    match volume.status.as_ref().map(|status| status.state) {
        Some(VolumeState::Available | VolumeState::Resizing) => {}
        _ => {
            return Err(Error::unavailable(format!(
                "volume `{name}` is not available yet"
            )));
        }
    }
    let (_, driver) = pool::usable(cx, &volume.spec.pool)?;
    driver.open(volume.metadata.uid).await
}

impl Controller for Volumes {
    fn name(&self) -> &'static str {
        "volume"
    }

    fn owns(&self) -> &'static Kind {
        &KIND
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::Referrers("pool"), Watch::Referrers("image")]
    }

    fn reconcile<'a>(&'a self, cx: &'a Cx, key: &'a Key) -> BoxFuture<'a, Result<Next>> {
        Box::pin(async move {
            let Some(volume) = cx.get_key::<Volume>(key) else {
                return Ok(Next::Settled);
            };
            let before = volume.status.clone().unwrap_or_default();
            if volume.metadata.deletion_requested.is_some() {
                return remove(cx, key, &volume).await;
            }
            if let Some(next) = unchanged(cx, key, &volume, &before).await? {
                return Ok(next);
            }
            let (pool, driver) = match pool::usable(cx, &volume.spec.pool) {
                Ok(found) => found,
                Err(error) => return wait(cx, key, before.state, error.to_string()).await,
            };
            let seen = driver.look(volume.metadata.uid).await?;
            let result = match seen {
                None => make(cx, key, &volume, &before, &pool, &*driver).await,
                Some(seen) => grow(cx, key, &volume, seen, &*driver).await,
            };
            if let Err(error) = &result {
                let message = error.to_string();
                cx.set_status::<Volume>(key, move |status| {
                    status.state = VolumeState::Error;
                    status.message.clone_from(&message);
                })
                .await?;
            }
            result
        })
    }
}

/// The quick look: nothing that the spec says has changed, and the file is there. It asks no tool, so that hundreds of
/// volumes cost nothing.
async fn unchanged(
    cx: &Cx,
    key: &Key,
    volume: &Obj<Volume>,
    before: &VolumeStatus,
) -> Result<Option<Next>> {
    let settled = before.state == VolumeState::Available
        && volume.spec.size.is_none_or(|size| size == before.size);
    if !settled {
        return Ok(None);
    }
    let Ok(file) = tokio::fs::metadata(&before.path).await else {
        return Ok(None);
    };
    let allocated = file.blocks() * 512;
    if allocated.abs_diff(before.allocated.0) >= NEWS {
        cx.set_status::<Volume>(key, |status| status.allocated = Bytes(allocated))
            .await?;
    }
    Ok(Some(Next::Settled))
}

async fn wait(cx: &Cx, key: &Key, state: VolumeState, message: String) -> Result<Next> {
    let written = message.clone();
    cx.set_status::<Volume>(key, move |status| {
        status.state = state;
        status.message.clone_from(&written);
    })
    .await?;
    Ok(Next::WaitingFor(message))
}

async fn remove(cx: &Cx, key: &Key, volume: &Obj<Volume>) -> Result<Next> {
    cx.set_status::<Volume>(key, |status| status.state = VolumeState::Deleting)
        .await?;
    // A pool that is gone took its volumes along; one that is offline comes back.
    if cx.get::<Pool>(None, &volume.spec.pool).is_some() {
        match pool::usable(cx, &volume.spec.pool) {
            Ok((_, driver)) => driver.delete(volume.metadata.uid).await?,
            Err(error) => return Ok(Next::WaitingFor(error.to_string())),
        }
    }
    cx.release(key).await?;
    Ok(Next::Settled)
}

async fn make(
    cx: &Cx,
    key: &Key,
    volume: &Obj<Volume>,
    before: &VolumeStatus,
    pool: &Obj<Pool>,
    driver: &dyn Driver,
) -> Result<Next> {
    // Once it had content, an empty one in its place would be worse than none.
    if !before.path.is_empty() {
        return Err(Error::refused(format!(
            "the file of volume `{}` is gone: {}",
            volume.metadata.name, before.path
        ))
        .hint("restore it there, or delete the volume"));
    }
    if let Some(why) = pool::refuses(pool, Content::Volumes) {
        return wait(cx, key, VolumeState::Creating, why).await;
    }
    let project = volume.metadata.project.as_ref().map(Name::as_str);
    let mut size = volume.spec.size;
    let mut from = None;
    if let Some(name) = &volume.spec.image {
        let Some(image) = cx.follow::<Image>(project, name) else {
            return Err(Error::not_found(format!("there is no image `{name}`")));
        };
        let status = image.status.clone().unwrap_or_default();
        if status.state != ImageState::Ready {
            let why = match status.message.as_str() {
                "" => format!("image `{name}` is being imported"),
                message => format!("image `{name}` is not ready: {message}"),
            };
            return wait(cx, key, VolumeState::Creating, why).await;
        }
        if size.is_some_and(|size| size < status.virtual_size) {
            return Err(Error::refused(format!(
                "a volume of {} is smaller than its image of {}",
                size.unwrap_or_default(),
                status.virtual_size
            ))
            .hint(format!("set its size to at least {}", status.virtual_size)));
        }
        size = size.or(Some(status.virtual_size));
        from = Some(if image.spec.pool == volume.spec.pool {
            Origin::Image(image.metadata.uid)
        } else {
            let (_, other) = match pool::usable(cx, &image.spec.pool) {
                Ok(found) => found,
                Err(error) => return wait(cx, key, VolumeState::Creating, error.to_string()).await,
            };
            let found = other.image(image.metadata.uid).await?;
            let (_, path, _) = found
                .ok_or_else(|| Error::unavailable(format!("the file of image `{name}` is gone")))?;
            Origin::File(path)
        });
    }
    let make = Make {
        size: size.unwrap_or_default().0,
        format: volume.spec.format,
        provisioned: volume.spec.provisioned,
        from,
    };
    cx.set_status::<Volume>(key, |status| {
        status.state = VolumeState::Creating;
        status.message.clear();
    })
    .await?;
    driver.create(volume.metadata.uid, &make).await?;
    match driver.look(volume.metadata.uid).await? {
        Some(seen) => available(cx, key, seen).await,
        None => Err(Error::internal(format!(
            "volume `{}` was made and is not there",
            volume.metadata.name
        ))),
    }
}

async fn grow(
    cx: &Cx,
    key: &Key,
    volume: &Obj<Volume>,
    seen: Seen,
    driver: &dyn Driver,
) -> Result<Next> {
    let wanted = volume.spec.size.map_or(seen.size, |size| size.0);
    if wanted <= seen.size {
        return available(cx, key, seen).await;
    }
    cx.set_status::<Volume>(key, |status| {
        status.state = VolumeState::Resizing;
        status.message.clear();
    })
    .await?;
    match driver
        .grow(volume.metadata.uid, wanted, volume.spec.provisioned)
        .await
    {
        Ok(()) => {}
        Err(error) if matches!(error.what, What::Unavailable(_)) => {
            let why = "the guest that has it open is to grow it".to_owned();
            return wait(cx, key, VolumeState::Resizing, why).await;
        }
        Err(error) => return Err(error),
    }
    match driver.look(volume.metadata.uid).await? {
        Some(seen) => available(cx, key, seen).await,
        None => Err(Error::internal(format!(
            "volume `{}` was grown and is not there",
            volume.metadata.name
        ))),
    }
}

async fn available(cx: &Cx, key: &Key, seen: Seen) -> Result<Next> {
    let node = cx.node().to_owned();
    cx.set_status::<Volume>(key, move |status| {
        status.state = VolumeState::Available;
        status.node.clone_from(&node);
        status.path = seen.path.display().to_string();
        status.size = Bytes(seen.size);
        status.allocated = Bytes(seen.allocated);
        status.layer_on = seen.layer_on.map(|image| image.to_string());
        status.message.clear();
    })
    .await?;
    Ok(Next::Settled)
}

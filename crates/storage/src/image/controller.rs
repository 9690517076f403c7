//! Sees to it that every image is imported once, and says how it stands. The work is the procedure's.

use super::types::{Image, ImageState, ImageStatus, KIND};
use super::{import, upload};
use crate::pool::{self, Driver, Pool};
use futures::future::BoxFuture;
use model::{Bytes, Kind, Name, Result};
use runtime::Key;
use runtime::task::{Task, TaskState, TaskStatus};
use runtime::{Controller, Cx, Next, Obj, Op, Watch};
use serde_json::json;
use std::sync::Arc;

/// Sole writer of the status of images.
pub(super) struct Images;

impl Controller for Images {
    fn name(&self) -> &'static str {
        "image"
    }

    fn owns(&self) -> &'static Kind {
        &KIND
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::Referrers("pool"),
            Watch::Map("task", |cx, key| {
                let task = cx.get_key::<Task>(key);
                let target = task
                    .iter()
                    .map(|task| &task.spec)
                    .filter(|spec| spec.action == "image.import")
                    .map(|spec| &spec.target);
                target
                    .map(|t| cx.key::<Image>(t.project.as_deref(), &t.name))
                    .collect()
            }),
        ]
    }

    fn reconcile<'a>(&'a self, cx: &'a Cx, key: &'a Key) -> BoxFuture<'a, Result<Next>> {
        Box::pin(async move {
            let Some(image) = cx.get_key::<Image>(key) else {
                return Ok(Next::Settled);
            };
            let before = image.status.clone().unwrap_or_default();
            let found = pool::usable(cx, &image.spec.pool);
            if image.metadata.deletion_requested.is_some() {
                return match found {
                    Ok((_, driver)) => remove(cx, key, &image, &*driver).await,
                    Err(_) if cx.get::<Pool>(None, &image.spec.pool).is_none() => {
                        cx.release(key).await?;
                        Ok(Next::Settled)
                    }
                    Err(error) => Ok(Next::WaitingFor(error.to_string())),
                };
            }
            let (_, driver) = match found {
                Ok(found) => found,
                Err(error) => {
                    let why = error.to_string();
                    let state = before.state;
                    return say(cx, key, state, &why)
                        .await
                        .map(|()| Next::WaitingFor(why));
                }
            };
            if let Some((record, path, allocated)) = driver.image(image.metadata.uid).await? {
                let node = cx.node().to_owned();
                cx.set_status::<Image>(key, move |status| {
                    status.state = ImageState::Ready;
                    status.node.clone_from(&node);
                    status.path = path.display().to_string();
                    status.virtual_size = Bytes(record.virtual_size);
                    status.allocated = Bytes(allocated);
                    status.sha256.clone_from(&record.sha256);
                    status.imported_as = Some(record.imported_as);
                    status.uploaded = None;
                    status.message.clear();
                })
                .await?;
                return Ok(Next::Settled);
            }
            match last_task(cx, &image) {
                Some((name, status)) if !status.state.ended() => {
                    cx.set_status::<Image>(key, move |image| {
                        image.state = ImageState::Importing;
                        image.task.clone_from(&name);
                        image.message.clear();
                    })
                    .await?;
                    Ok(Next::Settled)
                }
                Some((name, status)) => {
                    let message = match status.state {
                        TaskState::Succeeded => "its file is gone from the pool".to_owned(),
                        TaskState::Cancelled => "the import was cancelled".to_owned(),
                        _ => status.message,
                    };
                    failed(cx, key, &image, &*driver, Some(name), message).await
                }
                // Its task may be forgotten by now; what it left is not tried again without being asked.
                None if before.state == ImageState::Failed => Ok(Next::Settled),
                None if before.state == ImageState::Ready => {
                    failed(
                        cx,
                        key,
                        &image,
                        &*driver,
                        None,
                        "its file is gone from the pool".to_owned(),
                    )
                    .await
                }
                None => begin(cx, key, &image, &before, &*driver).await,
            }
        })
    }
}

/// The newest import of this very image.
fn last_task(cx: &Cx, image: &Obj<Image>) -> Option<(String, TaskStatus)> {
    let project = image.metadata.project.as_ref().map(Name::as_str);
    let tasks = cx.list::<Task>(project);
    let ours = |task: &&Arc<Obj<Task>>| {
        task.spec.target_uid == image.metadata.uid && task.spec.action == "image.import"
    };
    let last = tasks
        .iter()
        .filter(ours)
        .max_by_key(|task| task.metadata.uid)?;
    Some((
        last.metadata.name.to_string(),
        last.status.clone().unwrap_or_default(),
    ))
}

async fn say(cx: &Cx, key: &Key, state: ImageState, message: &str) -> Result<()> {
    cx.set_status::<Image>(key, |status| {
        status.state = state;
        message.clone_into(&mut status.message);
    })
    .await
    .map(|_| ())
}

async fn failed(
    cx: &Cx,
    key: &Key,
    image: &Obj<Image>,
    driver: &dyn Driver,
    task: Option<String>,
    message: String,
) -> Result<Next> {
    let uploaded = uploaded(image, driver).await;
    cx.set_status::<Image>(key, move |status: &mut ImageStatus| {
        status.state = ImageState::Failed;
        status.message.clone_from(&message);
        status.uploaded = uploaded;
        if let Some(task) = &task {
            status.task.clone_from(task);
        }
    })
    .await?;
    Ok(Next::Settled)
}

async fn uploaded(image: &Obj<Image>, driver: &dyn Driver) -> Option<Bytes> {
    image.spec.source.upload.as_ref()?;
    Some(Bytes(upload::progress(driver, image.metadata.uid).await.0))
}

async fn begin(
    cx: &Cx,
    key: &Key,
    image: &Obj<Image>,
    before: &ImageStatus,
    driver: &dyn Driver,
) -> Result<Next> {
    if let Some(wanted) = &image.spec.source.upload {
        let (done, whole) = upload::progress(driver, image.metadata.uid).await;
        if !whole {
            let message = format!("{} of {} are uploaded", Bytes(done), wanted.size);
            cx.set_status::<Image>(key, |status| {
                status.state = ImageState::Waiting;
                status.uploaded = Some(Bytes(done));
                status.message.clone_from(&message);
            })
            .await?;
            return Ok(Next::WaitingFor(message));
        }
    }
    let Some(target) = runtime::object_ref(key) else {
        return Ok(Next::Settled);
    };
    tracing::info!(image = %target, state = ?before.state, "image import begins");
    cx.submit(
        Op::Act {
            target,
            verb: "import".to_owned(),
            params: json!({}),
        },
        "image",
    )
    .await?;
    say(cx, key, ImageState::Importing, "").await?;
    Ok(Next::Settled)
}

async fn remove(cx: &Cx, key: &Key, image: &Obj<Image>, driver: &dyn Driver) -> Result<Next> {
    cx.set_status::<Image>(key, |status| status.state = ImageState::Deleting)
        .await?;
    driver.delete_image(image.metadata.uid).await?;
    import::remove_folder(&driver.staging(image.metadata.uid)).await?;
    cx.release(key).await?;
    Ok(Next::Settled)
}

//! The stream `upload`: takes an image's file from a client, and goes on where a cut connection left it.
//!
//! ```text
//! us      {"offset": 0}                 what is there already; the client sends the file from there on
//! client  bytes ...
//! us      {"received": n}               n bytes are on disk, and will be there after a crash
//! us      {"complete": true, "task": …} all have arrived, and the image is being imported
//! ```

use super::fetch::file_failed;
use super::types::{Image, ImageState};
use crate::pool::{self, Content, Driver};
use model::{Error, Result, Uid};
use runtime::Key;
use runtime::{Cx, Msg, Op, StreamIo, StreamRequest};
use serde_json::json;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncSeekExt, AsyncWriteExt, SeekFrom};

/// After so many bytes the client is told what is safe.
const ACKNOWLEDGED: u64 = 8 << 20;

/// The file of a complete upload.
pub(super) fn complete(driver: &dyn Driver, image: Uid) -> PathBuf {
    driver.staging(image).join("upload")
}

fn partial(driver: &dyn Driver, image: Uid) -> PathBuf {
    driver.staging(image).join("upload.part")
}

/// How many bytes of an upload are there, and whether that is all of it.
pub(super) async fn progress(driver: &dyn Driver, image: Uid) -> (u64, bool) {
    if let Ok(about) = tokio::fs::metadata(complete(driver, image)).await {
        return (about.len(), true);
    }
    let about = tokio::fs::metadata(partial(driver, image)).await;
    (about.map_or(0, |about| about.len()), false)
}

/// The images that a client is sending now: two at once would write over one another.
#[derive(Default)]
struct Sending(Mutex<HashSet<Uid>>);

static SENDING: std::sync::LazyLock<Arc<Sending>> = std::sync::LazyLock::new(Arc::default);

struct Turn(Uid);

impl Turn {
    fn take(image: Uid) -> Result<Turn> {
        let taken = SENDING
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(image);
        if taken {
            Ok(Turn(image))
        } else {
            Err(Error::unavailable(
                "another client is uploading this image now",
            ))
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        SENDING
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.0);
    }
}

/// Opens the stream.
pub(super) async fn open(cx: Cx, request: StreamRequest, mut io: StreamIo) -> Result<()> {
    let target = &request.target;
    let image = cx
        .get::<Image>(target.project.as_deref(), &target.name)
        .ok_or_else(|| Error::not_found(format!("there is no {target}")))?;
    let uid = image.metadata.uid;
    let Some(upload) = &image.spec.source.upload else {
        return Err(
            Error::refused(format!("{target} is not uploaded: it has another source"))
                .hint("make an image whose source is `upload`"),
        );
    };
    let status = image.status.clone().unwrap_or_default();
    if matches!(
        status.state,
        ImageState::Ready | ImageState::Importing | ImageState::Deleting
    ) {
        return Err(Error::refused(format!(
            "{target} takes no upload: it is {}",
            if status.state == ImageState::Ready {
                "ready"
            } else {
                "busy"
            }
        )));
    }
    let _turn = Turn::take(uid)?;
    let (pool, driver) = pool::usable(&cx, &image.spec.pool)?;
    if let Some(why) = pool::refuses(&pool, Content::Images) {
        return Err(Error::refused(why));
    }
    let size = upload.size.0;
    let folder = driver.staging(uid);
    tokio::fs::create_dir_all(&folder)
        .await
        .map_err(|error| file_failed("making", &folder, error))?;
    let (mut done, whole) = progress(&*driver, uid).await;
    if whole {
        // It was imported and refused: the next try is a new file.
        let path = complete(&*driver, uid);
        tokio::fs::remove_file(&path)
            .await
            .map_err(|error| file_failed("removing", &path, error))?;
        done = 0;
    }
    let path = partial(&*driver, uid);
    let mut file = tokio::fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .await
        .map_err(|error| file_failed("writing", &path, error))?;
    if done > size {
        file.set_len(0)
            .await
            .map_err(|error| file_failed("writing", &path, error))?;
        done = 0;
    }
    super::fetch::fits(size - done, driver.usage().await?.free)?;
    file.seek(SeekFrom::Start(done))
        .await
        .map_err(|error| file_failed("writing", &path, error))?;
    io.send(Msg::Control(json!({ "offset": done, "size": size })))
        .await?;
    let mut told = done;
    while done < size {
        match io.recv().await {
            Some(Msg::Data(bytes)) => {
                if done + bytes.len() as u64 > size {
                    return Err(Error::refused(format!(
                        "more than the {size} bytes that were announced"
                    ))
                    .hint("the file has changed; make the image anew"));
                }
                file.write_all(&bytes)
                    .await
                    .map_err(|error| file_failed("writing", &path, error))?;
                done += bytes.len() as u64;
                if done - told >= ACKNOWLEDGED {
                    file.sync_data()
                        .await
                        .map_err(|error| file_failed("writing", &path, error))?;
                    told = done;
                    io.send(Msg::Control(json!({ "received": done }))).await?;
                }
            }
            Some(Msg::Control(_)) => {}
            None => {
                // What has come stays for the next try.
                file.sync_data()
                    .await
                    .map_err(|error| file_failed("writing", &path, error))?;
                return Ok(());
            }
        }
    }
    file.sync_all()
        .await
        .map_err(|error| file_failed("writing", &path, error))?;
    drop(file);
    tokio::fs::rename(&path, complete(&*driver, uid))
        .await
        .map_err(|error| file_failed("finishing", &path, error))?;
    let op = Op::Act {
        target: target.clone(),
        verb: "import".to_owned(),
        params: json!({}),
    };
    cx.submit(op, "upload complete").await?;
    cx.wake(&key(&cx, &request));
    io.send(Msg::Control(json!({ "complete": true, "received": done })))
        .await
}

fn key(cx: &Cx, request: &StreamRequest) -> Key {
    cx.key::<Image>(request.target.project.as_deref(), &request.target.name)
}

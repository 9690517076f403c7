//! The procedure `import`: brings an image into its pool. Steps: make room, fetch or build, verify, convert, publish.
//! Every step may be cut off and is made again from its start; until the image is published whole, nothing but the
//! staging folder of the task exists, and the undo removes that.

use super::fetch::{self, Fetched};
use super::recipe::{self, Recipe};
use super::types::{Format, Image, RecipeName, Source};
use super::upload;
use crate::Local;
use crate::pool::{self, Content, Driver, ImageRecord, Pool};
use crate::qemu_img::NOBODY;
use host::img::{ImageFormat, ImgError, Qcow2Options, Tool};
use host::process::ProcessError;
use model::{Error, Result, Uid};
use runtime::{Cx, Obj, Proc, Undo};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;

/// The largest disk that is imported, in bytes: what a volume may have.
const LARGEST: u64 = 10_000 << 30;

/// The converter in its cage; when we are not root ourselves, as in some tests, it runs as we do.
fn tool() -> Tool {
    let root = nix::unistd::geteuid().is_root();
    Tool::new(root.then_some((NOBODY, NOBODY))).most(LARGEST)
}

/// Why a file is not taken, in words that do not name our own paths.
fn unfit(error: ImgError) -> Error {
    match &error {
        ImgError::Refused { why, .. } => Error::refused(format!("the image is refused: {why}")),
        ImgError::TooLarge { bytes, most, .. } => Error::refused(format!(
            "the image's disk has {bytes} bytes, and at most {most} are allowed"
        )),
        ImgError::Tool {
            source: ProcessError::Missing { .. } | ProcessError::Start { .. },
            ..
        } => Error::internal(error.to_string()),
        ImgError::Tool { source, .. } => {
            let said = source.said().unwrap_or_default();
            if said.contains("No space left") {
                return Error::refused("converting the image: the disk is full")
                    .hint("free some space in the pool, or use another pool");
            }
            let last = said.lines().last().unwrap_or_default();
            let last = last.rsplit("': ").next().unwrap_or(last);
            Error::refused(format!(
                "the image cannot be read, it may be damaged or cut short: {last}"
            ))
        }
        ImgError::File { source, file, .. } => {
            fetch::file_failed("opening", file, std::io::Error::from(source.kind()))
        }
        ImgError::Shrinks { .. } | ImgError::Answer { .. } => Error::internal(error.to_string()),
    }
    .because(error)
}

/// Removes the staging folder of a task.
pub(super) static UNSTAGE: Undo = Undo {
    name: "image.unstage",
    run: |cx, args| Box::pin(unstage(cx, args)),
};

#[derive(Serialize, Deserialize)]
struct Staged {
    pool: String,
    owner: Uid,
}

/// What the step `verify` found.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Verified {
    format: Format,
    virtual_size: u64,
}

async fn unstage(cx: Cx, args: Value) -> Result<()> {
    let staged: Staged = serde_json::from_value(args)
        .map_err(|error| Error::internal("arguments of image.unstage").because(error))?;
    // A pool that is gone took the folder along.
    if cx.get::<Pool>(None, &staged.pool).is_none() {
        return Ok(());
    }
    let (_, driver) = pool::usable(&cx, &staged.pool)?;
    remove_folder(&driver.staging(staged.owner)).await
}

/// Removes a folder and what is in it; one that is not there is fine.
pub(super) async fn remove_folder(folder: &Path) -> Result<()> {
    match tokio::fs::remove_dir_all(folder).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(fetch::file_failed("removing", folder, error))
        }
        _ => Ok(()),
    }
}

/// Shows a step's progress while `work` runs. The work only leaves a number; it is told from here, because telling
/// waits for the store.
async fn told<T>(
    proc: &Proc,
    mut numbers: watch::Receiver<(u64, u64)>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let tell = async {
        while numbers.changed().await.is_ok() {
            let (done, total) = *numbers.borrow_and_update();
            proc.progress(done, total).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        done = work => done,
        () = tell => Err(Error::internal("telling the progress ended before the work")),
    }
}

struct Import {
    proc: Proc,
    image: Arc<Obj<Image>>,
    driver: Arc<dyn Driver>,
    staging: PathBuf,
}

/// Carries out the action.
pub(super) async fn import(proc: Proc) -> Result<Value> {
    let target = proc.target().clone();
    let image = proc
        .cx()
        .get::<Image>(target.project.as_deref(), &target.name);
    let image = image
        .filter(|image| image.metadata.uid == proc.target_uid())
        .ok_or_else(|| Error::not_found(format!("{target} is gone")))?;
    let (pool, driver) = pool::usable(proc.cx(), &image.spec.pool)?;
    let staging = driver.staging(proc.uid());
    let undo = UNSTAGE.with(&Staged {
        pool: image.spec.pool.clone(),
        owner: proc.uid(),
    });
    let this = Import {
        proc,
        image,
        driver,
        staging,
    };
    this.proc
        .undoable("make room", undo, || this.make_room(&pool))
        .await?;
    let fetched: Fetched = this.proc.step("fetch", || this.fetch()).await?;
    let verified: Verified = this.proc.step("verify", || this.verify(&fetched)).await?;
    this.proc
        .step("convert", || this.convert(&verified))
        .await?;
    this.proc.point_of_no_return().await?;
    this.proc
        .step("publish", || this.publish(&fetched, &verified))
        .await?;
    this.proc.step("clean up", || this.clean_up()).await?;
    this.proc.progress(1, 1).await;
    Ok(
        json!({ "virtual_size": verified.virtual_size, "sha256": fetched.sha256, "format": verified.format }),
    )
}

impl Import {
    fn source(&self) -> &Source {
        &self.image.spec.source
    }

    fn fetched(&self) -> PathBuf {
        match self.source().upload {
            Some(_) => upload::complete(&*self.driver, self.image.metadata.uid),
            None => self.staging.join("source"),
        }
    }

    fn converted(&self) -> PathBuf {
        self.staging.join("disk.qcow2")
    }

    async fn make_room(&self, pool: &Obj<Pool>) -> Result<()> {
        if let Some(why) = pool::refuses(pool, Content::Images) {
            return Err(Error::refused(why).hint("free some space in it, or use another pool"));
        }
        tokio::fs::create_dir_all(&self.staging)
            .await
            .map_err(|error| fetch::file_failed("making", &self.staging, error))
    }

    async fn fetch(&self) -> Result<Fetched> {
        let local = self.proc.cx().part::<Local>();
        let free = self.driver.usage().await?.free;
        let cancel = self.proc.token();
        let (tell, numbers) = watch::channel((0, 0));
        // Half of the way: the other half is the conversion.
        let seen = move |done: u64, total: u64| {
            tell.send_replace((done, total.max(done) * 2));
        };
        let to = self.fetched();
        let source = self.source();
        let work = async {
            if let Some(url) = &source.url {
                // Getting a file may be repeated: it is written from its start each time.
                let host = fetch::host_of(url);
                let host = self
                    .proc
                    .cx()
                    .dependencies()
                    .named(&format!("image host {host}"));
                return host
                    .call(|| fetch::url(url, &to, free, &local.fetch, &seen, &cancel))
                    .await;
            }
            if let Some(file) = &source.file {
                return fetch::local(Path::new(file), &to, free, &seen, &cancel).await;
            }
            if source.upload.is_some() {
                if !to.exists() {
                    return Err(Error::refused("the upload is not complete").hint(format!(
                        "send it: dvctl image upload {} FILE",
                        self.image.metadata.name
                    )));
                }
                return fetch::sum(&to, &seen, &cancel).await;
            }
            let recipe = match source.recipe {
                Some(RecipeName::Debian12) => Recipe::Debian {
                    release: recipe::Release::Bookworm,
                },
                Some(RecipeName::Debian13) => Recipe::Debian {
                    release: recipe::Release::Trixie,
                },
                Some(RecipeName::Tiny) => Recipe::Tiny,
                None => return Err(Error::refused("the image has no source")),
            };
            self.build(recipe, &local.cache, &to, &seen).await?;
            fetch::sum(&to, &|_, _| (), &cancel).await
        };
        told(&self.proc, numbers, work).await
    }

    async fn build(
        &self,
        recipe: Recipe,
        cache: &Path,
        to: &Path,
        seen: fetch::Seen<'_>,
    ) -> Result<()> {
        let (say, mut said) = tokio::sync::mpsc::unbounded_channel::<String>();
        let progress = move |step: &str, percent: u8| {
            seen(u64::from(percent), 100);
            let _ = say.send(step.to_owned());
        };
        let cancel = self.proc.token();
        let build = async {
            let built = recipe.build(cache, to, &progress, &cancel).await;
            drop(progress);
            built
        };
        let log = async {
            let mut last = String::new();
            while let Some(step) = said.recv().await {
                if step != last {
                    self.proc.log(step.clone()).await;
                    last = step;
                }
            }
        };
        let (built, ()) = tokio::join!(build, log);
        built.map_err(|error| {
            let full = error
                .chain()
                .any(|cause| cause.to_string().contains("No space left"));
            let hint = if full {
                "free some space, or point DEBVISOR_CACHE to another disk"
            } else {
                "the task's log has the steps; `dvctl image import` tries again"
            };
            Error::refused(format!("{error:#}")).hint(hint)
        })
    }

    async fn verify(&self, fetched: &Fetched) -> Result<Verified> {
        let source = self.source();
        for (name, wanted, found) in [
            ("SHA-256", &source.sha256, &fetched.sha256),
            ("SHA-512", &source.sha512, &fetched.sha512),
        ] {
            if let Some(wanted) = wanted
                .as_ref()
                .filter(|wanted| !wanted.eq_ignore_ascii_case(found))
            {
                return Err(Error::refused(format!("the file's {name} is {found}, and {wanted} was expected"))
                    .hint("the file was changed or damaged on the way, or the checksum is of another file"));
            }
        }
        let (foreign, info) = tool().inspect(&self.fetched()).await.map_err(unfit)?;
        let found = Format::found(foreign.format);
        match source.format {
            Some(said) if said != found => {
                return Err(Error::refused(format!(
                    "the file was given out as {} but is {}",
                    said.tool(),
                    foreign.format
                )));
            }
            None if found == Format::Raw && !foreign.looks_bootable => {
                return Err(Error::refused("the file is no disk image: it has no header that we know, no partitions and no file system")
                    .hint("when it is a disk all the same, say `format: raw`"));
            }
            _ => {}
        }
        // A file that is cut short opens all the same, and reads as zeros where it ends.
        let check = tool()
            .check(&self.fetched(), foreign.format, false)
            .await
            .map_err(unfit)?;
        if info.corrupt || !check.is_sound() {
            return Err(Error::refused(format!(
                "the {} image is damaged or cut short: {} errors in its tables",
                foreign.format,
                check.corruptions + check.check_errors
            ))
            .hint("fetch it again; `qemu-img check` tells more"));
        }
        if info.virtual_size == 0 {
            return Err(Error::refused("the image's disk has no bytes"));
        }
        Ok(Verified {
            format: found,
            virtual_size: info.virtual_size,
        })
    }

    async fn convert(&self, verified: &Verified) -> Result<()> {
        let (from, to) = (self.fetched(), self.converted());
        if self.source().recipe.is_some() {
            // We made it ourselves, and it is qcow2 already. After a crash it may have been renamed.
            if from.exists() {
                tokio::fs::rename(&from, &to)
                    .await
                    .map_err(|error| fetch::file_failed("renaming", &from, error))?;
            }
            return Ok(());
        }
        // What a cut-off conversion left; and the converter makes its file itself.
        match tokio::fs::remove_file(&to).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(fetch::file_failed("removing", &to, error));
            }
            _ => {}
        }
        let (tell, numbers) = watch::channel((0, 0));
        let each = move |percent: f64| {
            // The second half of the way.
            tell.send_replace((100 + percent as u64, 200));
        };
        let cancel = self.proc.token();
        let tool = tool();
        let work = async {
            let convert = tool.convert(
                &from,
                verified.format.tool(),
                &to,
                ImageFormat::Qcow2,
                Qcow2Options::default(),
                each,
            );
            tokio::select! {
                () = cancel.cancelled() => Err(Error::refused("the import was cancelled")),
                done = convert => done.map_err(unfit),
            }
        };
        told(&self.proc, numbers, work).await?;
        // A hostile image may have taken the converter over: what it wrote is looked at like any foreign file.
        let (written, info) = tool.inspect(&to).await.map_err(unfit)?;
        if written.format != ImageFormat::Qcow2 || info.virtual_size < verified.virtual_size {
            return Err(Error::refused(
                "the converted image is not what was to be made: the source is damaged or hostile",
            ));
        }
        Ok(())
    }

    async fn publish(&self, fetched: &Fetched, verified: &Verified) -> Result<()> {
        let record = ImageRecord {
            virtual_size: verified.virtual_size,
            sha256: fetched.sha256.clone(),
            imported_as: verified.format,
        };
        self.driver
            .publish(self.image.metadata.uid, &self.converted(), &record)
            .await
    }

    async fn clean_up(&self) -> Result<()> {
        remove_folder(&self.staging).await?;
        remove_folder(&self.driver.staging(self.image.metadata.uid)).await
    }
}

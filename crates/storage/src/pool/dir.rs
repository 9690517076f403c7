//! The driver `dir`: disks as files in a folder.
//!
//! ```text
//! .debvisor-pool        whose folder this is
//! images/UID.qcow2      an image; UID.json beside it says what it is, and is written last
//! volumes/UID.qcow2     a volume; UID.raw when it is raw; .new-UID.* while it is being made
//! staging/UID/          intermediate files of a task or an upload
//! ```
//! A volume made from an image of the same pool is a qcow2 layer upon it: it is there within milliseconds and shares
//! the page cache with its sisters, on every file system. In exchange an image stays as long as volumes are made of
//! it, which the references between the objects see to. Everything belongs to root alone; a guest's QEMU gets its
//! files by descriptor.

use super::driver::{Driver, ImageRecord, Layer, Make, Origin, Seen, Usage};
use crate::qemu_img;
use crate::volume::{Provisioned, VolumeFormat};
use futures::future::BoxFuture;
use model::{Error, Result, Uid};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

const MARKER: &str = ".debvisor-pool";
const FOLDERS: [&str; 3] = ["images", "volumes", "staging"];
const FORMATS: [VolumeFormat; 2] = [VolumeFormat::Qcow2, VolumeFormat::Raw];

/// What the marker file says.
#[derive(Serialize, Deserialize)]
struct Marker {
    pool: Uid,
    layout: u32,
}

/// Disks as files in a folder.
pub struct Dir {
    path: PathBuf,
    pool: Uid,
}

/// Runs file work where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::internal("file work ended early").because(error))?
}

fn io_failed(what: &str, path: &Path, error: std::io::Error) -> Error {
    if error.raw_os_error() == Some(nix::libc::ENOSPC) {
        return Error::refused(format!("{what} {}: the disk is full", path.display()))
            .hint("free some space in the pool, or use another pool");
    }
    Error::internal(format!("{what} {}: {error}", path.display())).because(error)
}

fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(io_failed("removing", path, error))
        }
        _ => Ok(()),
    }
}

/// Makes renames and removals below `folder` durable.
fn sync(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|f| f.sync_all())
        .map_err(|error| io_failed("syncing", folder, error))
}

impl Dir {
    /// The pool `pool` in the folder `path`.
    pub fn new(path: impl Into<PathBuf>, pool: Uid) -> Self {
        Self {
            path: path.into(),
            pool,
        }
    }

    fn volume(&self, volume: Uid, format: VolumeFormat) -> PathBuf {
        self.path
            .join("volumes")
            .join(format!("{volume}.{}", format.word()))
    }

    fn unfinished(&self, volume: Uid, format: VolumeFormat) -> PathBuf {
        self.path
            .join("volumes")
            .join(format!(".new-{volume}.{}", format.word()))
    }

    fn image_file(&self, image: Uid) -> PathBuf {
        self.path.join("images").join(format!("{image}.qcow2"))
    }

    fn image_record(&self, image: Uid) -> PathBuf {
        self.path.join("images").join(format!("{image}.json"))
    }

    fn find(&self, volume: Uid) -> Option<(PathBuf, VolumeFormat)> {
        FORMATS
            .into_iter()
            .map(|format| (self.volume(volume, format), format))
            .find(|(path, _)| path.exists())
    }

    fn need(&self, volume: Uid) -> Result<(PathBuf, VolumeFormat)> {
        self.find(volume).ok_or_else(|| {
            Error::not_found(format!("volume {volume} is not in {}", self.path.display()))
        })
    }

    fn marker(&self) -> Result<Option<Marker>> {
        let path = self.path.join(MARKER);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
                Error::refused(format!("{} is damaged", path.display()))
                    .hint("restore it, or use another folder")
                    .because(error)
            }),
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                Ok(None)
            }
            Err(error) => Err(io_failed("reading", &path, error)),
        }
    }

    fn prepare_now(&self, first: bool) -> Result<()> {
        let folder = &self.path;
        match self.marker()? {
            Some(marker) if marker.pool != self.pool => {
                return Err(Error::refused(format!(
                    "{} belongs to another pool",
                    folder.display()
                ))
                .hint("use another folder"));
            }
            Some(marker) if marker.layout != 1 => {
                return Err(Error::refused(format!(
                    "{} was written by a newer DebVisor",
                    folder.display()
                ))
                .hint("upgrade DebVisor on this node"));
            }
            Some(_) => {}
            None if !first => {
                return Err(Error::refused(format!(
                    "{} is not there, or is not the pool's: is its disk mounted?",
                    folder.display()
                ))
                .hint("mount it; the pool comes back by itself"));
            }
            None => {
                make_folder(folder)?;
                let mut entries = std::fs::read_dir(folder)
                    .map_err(|error| io_failed("reading", folder, error))?;
                if entries.any(|entry| entry.is_ok_and(|e| e.file_name() != "lost+found")) {
                    return Err(Error::refused(format!("{} is not empty", folder.display()))
                        .hint("give the pool an empty folder of its own"));
                }
                let marker = serde_json::to_vec(&Marker {
                    pool: self.pool,
                    layout: 1,
                })
                .map_err(|error| Error::internal("the pool's marker as JSON").because(error))?;
                write_durably(&folder.join(MARKER), &marker)?;
            }
        }
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o700))
            .map_err(|error| io_failed("closing", folder, error))?;
        for name in FOLDERS {
            make_folder(&folder.join(name))?;
        }
        Ok(())
    }
}

/// Size of the disk in a file, in bytes.
fn size_of(path: &Path, format: VolumeFormat) -> std::io::Result<u64> {
    let mut file = File::open(path)?;
    match format {
        VolumeFormat::Qcow2 => Ok(qemu_img::header(&mut file)?.0),
        VolumeFormat::Raw => Ok(file.metadata()?.len()),
    }
}

fn make_folder(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| io_failed("making the folder", path, error))
}

/// Writes a small file so that it is there whole or not at all.
fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(".new-")
            .tempfile_in(folder)?;
        std::io::Write::write_all(&mut file, bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(|error| io_failed("writing", path, error))?;
    sync(folder)
}

impl Driver for Dir {
    fn prepare(&self, first: bool) -> BoxFuture<'_, Result<()>> {
        let dir = Dir {
            path: self.path.clone(),
            pool: self.pool,
        };
        Box::pin(blocking(move || dir.prepare_now(first)))
    }

    fn usage(&self) -> BoxFuture<'_, Result<Usage>> {
        let path = self.path.clone();
        Box::pin(blocking(move || {
            let seen = nix::sys::statvfs::statvfs(&path)
                .map_err(|error| io_failed("asking for the space of", &path, error.into()))?;
            let unit = seen.fragment_size();
            let used = (seen.blocks() - seen.blocks_free()) * unit;
            Ok(Usage {
                used,
                free: seen.blocks_available() * unit,
            })
        }))
    }

    fn create<'a>(&'a self, volume: Uid, make: &'a Make) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if self.find(volume).is_some() {
                return Ok(());
            }
            let thick = make.provisioned == Provisioned::Thick;
            let free = self.usage().await?.free;
            if thick && make.size > free {
                return Err(Error::refused(format!(
                    "a thick volume of {} bytes does not fit: the pool has {free} free",
                    make.size
                ))
                .hint("make it thin, or free some space"));
            }
            let fresh = self.unfinished(volume, make.format);
            remove_file(&fresh)?;
            match &make.from {
                None => qemu_img::create(&fresh, make.format.word(), make.size, thick).await?,
                Some(Origin::Image(image)) if make.format == VolumeFormat::Qcow2 && !thick => {
                    qemu_img::layer(&fresh, &format!("../images/{image}.qcow2"), make.size).await?;
                }
                Some(origin) => {
                    let from = match origin {
                        Origin::Image(image) => self.image_file(*image),
                        Origin::File(path) => path.clone(),
                    };
                    qemu_img::copy(&from, &fresh, make.format.word()).await?;
                    let now = size_of(&fresh, make.format)
                        .map_err(|error| io_failed("looking at", &fresh, error))?;
                    if now < make.size {
                        qemu_img::grow(&fresh, make.format.word(), make.size, thick).await?;
                    }
                }
            }
            let done = self.volume(volume, make.format);
            blocking(move || {
                let publish = || -> std::io::Result<()> {
                    std::fs::set_permissions(&fresh, PermissionsExt::from_mode(0o600))?;
                    File::open(&fresh)?.sync_all()?;
                    std::fs::rename(&fresh, &done)
                };
                publish().map_err(|error| io_failed("finishing", &done, error))?;
                sync(done.parent().unwrap_or(Path::new("/")))
            })
            .await
        })
    }

    fn look(&self, volume: Uid) -> BoxFuture<'_, Result<Option<Seen>>> {
        let found = self.find(volume);
        Box::pin(blocking(move || {
            let Some((path, format)) = found else {
                return Ok(None);
            };
            let look = || -> std::io::Result<_> {
                let mut file = File::open(&path)?;
                let about = file.metadata()?;
                let (size, below) = match format {
                    VolumeFormat::Qcow2 => qemu_img::header(&mut file)?,
                    VolumeFormat::Raw => (about.len(), None),
                };
                Ok((size, below, about.blocks() * 512))
            };
            let (size, below, allocated) = match look() {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                other => other.map_err(|error| io_failed("looking at", &path, error))?,
            };
            let layer_on = match below {
                None => None,
                Some(name) => Some(image_of(&name).ok_or_else(|| {
                    Error::internal(format!(
                        "{} is a layer upon `{name}`, which is no image of this pool",
                        path.display()
                    ))
                })?),
            };
            Ok(Some(Seen {
                path,
                size,
                allocated,
                format,
                layer_on,
            }))
        }))
    }

    fn grow(&self, volume: Uid, size: u64, provisioned: Provisioned) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let (path, format) = self.need(volume)?;
            let now =
                size_of(&path, format).map_err(|error| io_failed("looking at", &path, error))?;
            if now >= size {
                return Ok(());
            }
            qemu_img::grow(
                &path,
                format.word(),
                size,
                provisioned == Provisioned::Thick,
            )
            .await
        })
    }

    fn open(&self, volume: Uid) -> BoxFuture<'_, Result<Vec<Layer>>> {
        Box::pin(async move {
            let seen = self.look(volume).await?;
            let seen = seen.ok_or_else(|| {
                Error::not_found(format!("volume {volume} is not in {}", self.path.display()))
            })?;
            let below = seen.layer_on.map(|image| self.image_file(image));
            blocking(move || {
                let open = |path: &Path, writable: bool| {
                    File::options()
                        .read(true)
                        .write(writable)
                        .open(path)
                        .map_err(|error| io_failed("opening", path, error))
                };
                let mut layers = vec![Layer {
                    file: open(&seen.path, true)?,
                    format: seen.format,
                    writable: true,
                }];
                if let Some(image) = below {
                    layers.push(Layer {
                        file: open(&image, false)?,
                        format: VolumeFormat::Qcow2,
                        writable: false,
                    });
                }
                Ok(layers)
            })
            .await
        })
    }

    fn delete(&self, volume: Uid) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            for format in FORMATS {
                remove_file(&self.unfinished(volume, format))?;
                remove_file(&self.volume(volume, format))?;
            }
            let folder = self.path.join("volumes");
            if folder.exists() {
                blocking(move || sync(&folder)).await
            } else {
                Ok(())
            }
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Uid>>> {
        let folder = self.path.join("volumes");
        Box::pin(blocking(move || {
            let mut found = Vec::new();
            for entry in
                std::fs::read_dir(&folder).map_err(|error| io_failed("reading", &folder, error))?
            {
                let name = entry
                    .map_err(|error| io_failed("reading", &folder, error))?
                    .file_name();
                let stem = name
                    .to_str()
                    .and_then(|n| n.rsplit_once('.'))
                    .filter(|(_, e)| FORMATS.iter().any(|f| f.word() == *e));
                found.extend(stem.and_then(|(stem, _)| Uid::parse(stem)));
            }
            found.sort();
            Ok(found)
        }))
    }

    fn staging(&self, owner: Uid) -> PathBuf {
        self.path.join("staging").join(owner.to_string())
    }

    fn publish<'a>(
        &'a self,
        image: Uid,
        staged: &'a Path,
        record: &'a ImageRecord,
    ) -> BoxFuture<'a, Result<()>> {
        let (file, beside, staged, record) = (
            self.image_file(image),
            self.image_record(image),
            staged.to_owned(),
            record.clone(),
        );
        Box::pin(blocking(move || {
            // After a crash between the two writes the staged file is already gone: only the record is missing.
            if staged.exists() {
                let publish = || -> std::io::Result<()> {
                    if nix::unistd::geteuid().is_root() {
                        std::os::unix::fs::chown(&staged, Some(0), Some(0))?;
                    }
                    std::fs::set_permissions(&staged, PermissionsExt::from_mode(0o400))?;
                    File::open(&staged)?.sync_all()?;
                    std::fs::rename(&staged, &file)
                };
                publish().map_err(|error| io_failed("publishing", &file, error))?;
            } else if !file.exists() {
                return Err(Error::internal(format!(
                    "{} is gone, and was not published",
                    staged.display()
                )));
            }
            let json = serde_json::to_vec_pretty(&record)
                .map_err(|error| Error::internal("an image's record as JSON").because(error))?;
            write_durably(&beside, &json)
        }))
    }

    fn image(&self, image: Uid) -> BoxFuture<'_, Result<Option<(ImageRecord, PathBuf, u64)>>> {
        let (file, beside) = (self.image_file(image), self.image_record(image));
        Box::pin(blocking(move || {
            let bytes = match std::fs::read(&beside) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(io_failed("reading", &beside, error)),
            };
            let record = serde_json::from_slice(&bytes).map_err(|error| {
                Error::internal(format!("{} is damaged", beside.display())).because(error)
            })?;
            match std::fs::metadata(&file) {
                Ok(seen) => Ok(Some((record, file, seen.blocks() * 512))),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(io_failed("looking at", &file, error)),
            }
        }))
    }

    fn delete_image(&self, image: Uid) -> BoxFuture<'_, Result<()>> {
        let (file, beside) = (self.image_file(image), self.image_record(image));
        Box::pin(blocking(move || {
            remove_file(&beside)?;
            remove_file(&file)
        }))
    }

    fn abandon(&self) -> BoxFuture<'_, Result<()>> {
        let dir = Dir {
            path: self.path.clone(),
            pool: self.pool,
        };
        Box::pin(blocking(move || {
            if dir.marker()?.is_none_or(|marker| marker.pool != dir.pool) {
                return Ok(());
            }
            let staging = dir.path.join("staging");
            match std::fs::remove_dir_all(&staging) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(io_failed("removing", &staging, error));
                }
                _ => {}
            }
            for name in ["images", "volumes"] {
                let folder = dir.path.join(name);
                match std::fs::remove_dir(&folder) {
                    Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
                        return Err(Error::refused(format!("{} is not empty", folder.display()))
                            .hint("something in it is not DebVisor's, or was left by a crash: look at it and remove it"));
                    }
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        return Err(io_failed("removing", &folder, error));
                    }
                    _ => {}
                }
            }
            remove_file(&dir.path.join(MARKER))?;
            // The folder itself may hold things of others, or be a mount point: then it stays.
            let _ = std::fs::remove_dir(&dir.path);
            Ok(())
        }))
    }
}

/// The image that a layer's header names, when it is written as we write it.
fn image_of(backing: &str) -> Option<Uid> {
    Uid::parse(backing.strip_prefix("../images/")?.strip_suffix(".qcow2")?)
}

#[cfg(test)]
mod tests {
    use super::super::conformance;
    use super::*;

    fn uid(n: u64) -> Uid {
        Uid::from_parts(n, [7; 10])
    }

    #[tokio::test]
    async fn conforms() {
        let Some(folder) = conformance::folder() else {
            return;
        };
        let path = folder.path().join("pool");
        conformance::run(|| Box::new(Dir::new(&path, uid(1)))).await;
        assert!(!path.exists(), "an abandoned pool leaves nothing");
    }

    #[tokio::test]
    async fn a_folder_in_use_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("mine"), "x").unwrap();
        let error = Dir::new(folder.path(), uid(1))
            .prepare(true)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("is not empty"), "{error}");

        let own = tempfile::tempdir().unwrap();
        Dir::new(own.path(), uid(1)).prepare(true).await.unwrap();
        let error = Dir::new(own.path(), uid(2))
            .prepare(true)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("another pool"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_disk_is_no_reason_to_make_the_folder_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pool");
        let dir = Dir::new(&path, uid(1));
        dir.prepare(true).await.unwrap();
        std::fs::rename(&path, folder.path().join("away")).unwrap();
        let error = dir.prepare(false).await.unwrap_err().to_string();
        assert!(error.contains("is its disk mounted?"), "{error}");
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_layer_upon_anything_but_an_image_is_refused() {
        let Some(folder) = conformance::folder() else {
            return;
        };
        let dir = Dir::new(folder.path().join("pool"), uid(1));
        dir.prepare(true).await.unwrap();
        let path = dir.volume(uid(5), VolumeFormat::Qcow2);
        qemu_img::create(&folder.path().join("other.qcow2"), "qcow2", 1 << 20, false)
            .await
            .unwrap();
        qemu_img::layer(
            &path,
            &folder.path().join("other.qcow2").display().to_string(),
            1 << 20,
        )
        .await
        .unwrap();
        let error = dir.open(uid(5)).await.unwrap_err().to_string();
        assert!(error.contains("no image of this pool"), "{error}");
    }
}

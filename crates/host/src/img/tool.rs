//! `qemu-img` in its cage.

use super::ImageFormat;
use super::sniff::{Foreign, Refusal, sniff};
use crate::process::{Limits, Output, ProcessError, Run};
use serde::Deserialize;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why an image was not looked at, made or changed.
#[derive(Debug, thiserror::Error)]
pub enum ImgError {
    /// The file from outside is not taken.
    #[error("image {file} is refused: {why}")]
    Refused {
        /// The file.
        file: PathBuf,
        /// Why.
        why: Refusal,
    },
    /// The image is larger than allowed.
    #[error("image {file} is {bytes} bytes for its guest, more than the {most} allowed")]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// The size its guest would see, in bytes.
        bytes: u64,
        /// The most allowed, in bytes.
        most: u64,
    },
    /// A new size below the present one: data would be cut off.
    #[error("image {file} has {now} bytes and cannot shrink to {asked}")]
    Shrinks {
        /// The file.
        file: PathBuf,
        /// Its size now.
        now: u64,
        /// The size asked for.
        asked: u64,
    },
    /// The file itself cannot be opened or made.
    #[error("{doing} image {file}: {source}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// The file.
        file: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// `qemu-img` failed.
    #[error("image {file}: {source}")]
    Tool {
        /// The file.
        file: PathBuf,
        /// Its failure.
        source: ProcessError,
    },
    /// `qemu-img` said something that cannot be read.
    #[error("image {file}: the answer of qemu-img cannot be read: {cause}")]
    Answer {
        /// The file.
        file: PathBuf,
        /// What did not fit.
        cause: String,
    },
}

/// What `qemu-img info` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Its format.
    pub format: ImageFormat,
    /// Bytes the guest sees.
    pub virtual_size: u64,
    /// Bytes it takes on the host.
    pub actual_size: u64,
    /// Whether it was open when its writer died, so that it should be checked.
    pub dirty: bool,
    /// Whether QEMU has marked it as damaged.
    pub corrupt: bool,
}

/// What `qemu-img check` found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Check {
    /// Damages: data is or may be wrong.
    pub corruptions: u64,
    /// Clusters nobody uses: lost space, no lost data.
    pub leaks: u64,
    /// Errors while checking.
    pub check_errors: u64,
    /// Damages repaired.
    pub corruptions_fixed: u64,
    /// Leaks repaired.
    pub leaks_fixed: u64,
}

impl Check {
    /// Whether all data is right.
    pub fn is_sound(&self) -> bool {
        self.corruptions == 0 && self.check_errors == 0
    }
}

/// How a qcow2 file is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Qcow2Options {
    /// Bytes of a cluster, a power of two from 512 to 2 MiB.
    pub cluster_size: u32,
    /// Whether clusters are split in 32 parts, which makes small writes cheap with large clusters.
    pub extended_l2: bool,
    /// Whether reference counts are written late; a crash then needs a check.
    pub lazy_refcounts: bool,
}

impl Default for Qcow2Options {
    /// QEMU's own: 64 KiB clusters.
    fn default() -> Self {
        Self {
            cluster_size: 65_536,
            extended_l2: false,
            lazy_refcounts: false,
        }
    }
}

/// `qemu-img` with the user and the limits it runs under.
///
/// Files it works on are given to that user (their owner changes), because it opens them itself by descriptor. What keeps
/// others of that user out is the directory they lie in, which should be closed to all but us.
#[derive(Debug, Clone)]
pub struct Tool {
    program: PathBuf,
    user: Option<(u32, u32)>,
    /// Most bytes a guest may see in one image.
    most: u64,
    convert_limit: Duration,
}

impl Tool {
    /// The system's `qemu-img`, run as this numeric user and group, which should own nothing else. `None` runs it as ours
    /// and without network isolation: for development without root.
    pub fn new(user: Option<(u32, u32)>) -> Self {
        Self {
            program: "qemu-img".into(),
            user,
            most: 64 << 40,
            convert_limit: Duration::from_secs(4 * 3600),
        }
    }

    /// Another program, for tests of what happens without it.
    #[must_use]
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = program.into();
        self
    }

    /// The most bytes a guest may see in one image (default 64 TiB).
    #[must_use]
    pub fn most(mut self, bytes: u64) -> Self {
        self.most = bytes;
        self
    }

    /// How long a conversion may take (default four hours).
    #[must_use]
    pub fn convert_limit(mut self, limit: Duration) -> Self {
        self.convert_limit = limit;
        self
    }

    /// Looks at a file from outside: refused are files that are no image, refer to other files, are encrypted, or are larger
    /// than allowed. The file is checked by ourselves first and then by `qemu-img`.
    ///
    /// # Errors
    /// See [`ImgError`].
    pub async fn inspect(&self, file: &Path) -> Result<(Foreign, Info), ImgError> {
        let path = file.to_owned();
        let sniffed = blocking(move || sniff(&mut open(&path, false)?)).await;
        let sniffed = sniffed.map_err(in_file("reading", file))?;
        let refused = |why| ImgError::Refused {
            file: file.to_owned(),
            why,
        };
        let foreign = sniffed.map_err(refused)?;
        let (info, answer) = self.ask_info(file, foreign.format).await?;
        // Said twice on purpose: our reading of a header and QEMU's could differ.
        for key in ["backing-filename", "full-backing-filename"] {
            if let Some(name) = answer.get(key) {
                return Err(refused(Refusal::Refers(format!("backing file {name}"))));
            }
        }
        if let Some(name) = answer.pointer("/format-specific/data/data-file") {
            return Err(refused(Refusal::Refers(format!("data file {name}"))));
        }
        if answer.get("encrypted") == Some(&serde_json::Value::Bool(true)) {
            return Err(refused(Refusal::Encrypted("by its format")));
        }
        if info.virtual_size > self.most {
            return Err(ImgError::TooLarge {
                file: file.to_owned(),
                bytes: info.virtual_size,
                most: self.most,
            });
        }
        Ok((foreign, info))
    }

    /// Looks at an image of our own, whose format is known.
    ///
    /// # Errors
    /// See [`ImgError`].
    pub async fn info(&self, file: &Path, format: ImageFormat) -> Result<Info, ImgError> {
        Ok(self.ask_info(file, format).await?.0)
    }

    async fn ask_info(
        &self,
        file: &Path,
        format: ImageFormat,
    ) -> Result<(Info, serde_json::Value), ImgError> {
        let mut run = self.short();
        let path = self.lend(&mut run, file, false).await?;
        // A guest may have it open: then the answer is a moment's view.
        let run = run.args(["info", "--output=json", "-U", "-f", format.as_str(), &path]);
        let output = run.output().await.map_err(failed(file))?;
        let answer = |cause: String| ImgError::Answer {
            file: file.to_owned(),
            cause,
        };
        let value: serde_json::Value =
            serde_json::from_slice(&output.stdout).map_err(|error| answer(error.to_string()))?;
        let number = |key: &str| {
            let found = value.get(key).and_then(serde_json::Value::as_u64);
            found.ok_or_else(|| answer(format!("it has no {key}")))
        };
        let flag = |pointer: &str| {
            value
                .pointer(pointer)
                .and_then(serde_json::Value::as_bool)
                .unwrap_or(false)
        };
        let info = Info {
            format,
            virtual_size: number("virtual-size")?,
            actual_size: number("actual-size")?,
            dirty: flag("/dirty-flag"),
            corrupt: flag("/format-specific/data/corrupt"),
        };
        Ok((info, value))
    }

    /// Makes a new, empty image of `bytes`, thin in both formats. The file must not exist; on failure none is left.
    ///
    /// # Errors
    /// See [`ImgError`].
    pub async fn create(
        &self,
        file: &Path,
        format: ImageFormat,
        bytes: u64,
        options: Qcow2Options,
    ) -> Result<(), ImgError> {
        let made = Made::new(file)?;
        if format == ImageFormat::Raw {
            let sized = made.file.set_len(bytes);
            sized.map_err(in_file("sizing", file))?;
            made.keep();
            return Ok(());
        }
        let mut run = self.short();
        let path = self.lend(&mut run, file, true).await?;
        run = run.args(["create", "-q", "-f", format.as_str()]);
        if format == ImageFormat::Qcow2 {
            run = run.args(["-o".to_owned(), qcow2_options(options)]);
        }
        let run = run.args([path, bytes.to_string()]);
        run.output().await.map_err(failed(file))?;
        made.keep();
        Ok(())
    }

    /// Copies an image into a new file of another (or the same) format, leaving out zeroes. `progress` gets percents.
    /// Cancel by dropping the future. On failure no target is left; on success it is on disk.
    ///
    /// # Errors
    /// See [`ImgError`].
    pub async fn convert(
        &self,
        from: &Path,
        from_format: ImageFormat,
        to: &Path,
        to_format: ImageFormat,
        options: Qcow2Options,
        mut progress: impl FnMut(f64) + Send,
    ) -> Result<(), ImgError> {
        let made = Made::new(to)?;
        let prepare = async |source_cache: &str| {
            let mut run = self.caged(self.convert_limit);
            let source = self.lend(&mut run, from, false).await?;
            let target = self.lend(&mut run, to, true).await?;
            run = run.args([
                "convert",
                "-p",
                "-T",
                source_cache,
                "-f",
                from_format.as_str(),
            ]);
            run = run.args(["-O", to_format.as_str()]);
            if to_format == ImageFormat::Qcow2 {
                run = run.args(["-o".to_owned(), qcow2_options(options)]);
            }
            Ok::<_, ImgError>(run.args([source, target]))
        };
        // The source is read once: it need not push what guests use out of the page cache.
        let mut done = prepare("none")
            .await?
            .lines(|line| report(line, &mut progress))
            .await;
        if let Err(ProcessError::Failed { said, .. }) = &done
            && said.contains("O_DIRECT")
        {
            // A file system that cannot, such as an older tmpfs.
            done = prepare("writeback")
                .await?
                .lines(|line| report(line, &mut progress))
                .await;
        }
        done.map_err(failed(from))?;
        let written = made.file.try_clone().map_err(in_file("writing", to))?;
        let synced = blocking(move || written.sync_all()).await;
        synced.map_err(in_file("writing", to))?;
        made.keep();
        Ok(())
    }

    /// Grows an image that no guest has open. The same size is success.
    ///
    /// # Errors
    /// [`ImgError::Shrinks`] for a smaller size; else see [`ImgError`].
    pub async fn grow(&self, file: &Path, format: ImageFormat, bytes: u64) -> Result<(), ImgError> {
        let now = self.info(file, format).await?.virtual_size;
        if bytes < now {
            return Err(ImgError::Shrinks {
                file: file.to_owned(),
                now,
                asked: bytes,
            });
        }
        if bytes == now {
            return Ok(());
        }
        let mut run = self.short();
        let path = self.lend(&mut run, file, true).await?;
        let run = run.args([
            "resize",
            "-q",
            "-f",
            format.as_str(),
            &path,
            &bytes.to_string(),
        ]);
        run.output().await.map(drop).map_err(failed(file))
    }

    /// Checks an image's own structure (qcow2, vmdk, vhdx, vdi); raw has none and is sound. With `repair`, leaks and
    /// damages are repaired where that loses nothing more. No guest may have it open.
    ///
    /// # Errors
    /// See [`ImgError`]. Damages found are no error: see [`Check`].
    pub async fn check(
        &self,
        file: &Path,
        format: ImageFormat,
        repair: bool,
    ) -> Result<Check, ImgError> {
        if format == ImageFormat::Raw {
            return Ok(Check::default());
        }
        let mut run = self.caged(self.convert_limit).accept([0, 2, 3, 63]);
        let path = self.lend(&mut run, file, repair).await?;
        run = run.args(["check", "--output=json", "-f", format.as_str()]);
        if repair {
            run = run.args(["-r", "all"]);
        }
        let output: Output = run.arg(path).output().await.map_err(failed(file))?;
        if output.code == 63 {
            // The format has no check.
            return Ok(Check::default());
        }
        serde_json::from_slice(&output.stdout).map_err(|error| ImgError::Answer {
            file: file.to_owned(),
            cause: error.to_string(),
        })
    }

    fn short(&self) -> Run {
        self.caged(Duration::from_secs(60))
    }

    fn caged(&self, limit: Duration) -> Run {
        let run = Run::new(&self.program)
            .timeout(limit)
            .nice(5)
            .max_output(1 << 20)
            .limits(Limits {
                cpu_seconds: Some(limit.as_secs().max(1)),
                address_space: Some(4 << 30),
                // A file is a little more than what it holds.
                file_size: Some(self.most.saturating_add(self.most / 64)),
                open_files: Some(64),
            });
        match self.user {
            Some((uid, gid)) => run.uid_gid(uid, gid).no_network().private_mounts(),
            None => run,
        }
    }

    /// Hands a file to the run, and returns the path by which it opens it.
    async fn lend(&self, run: &mut Run, file: &Path, write: bool) -> Result<String, ImgError> {
        let (path, user) = (file.to_owned(), self.user);
        let lent = blocking(move || {
            let opened = open(&path, write)?;
            if let Some((uid, gid)) = user {
                std::os::unix::fs::fchown(&opened, Some(uid), Some(gid))?;
            }
            Ok(opened)
        });
        let opened = lent.await.map_err(in_file("opening", file))?;
        let number = run.fd(OwnedFd::from(opened));
        Ok(format!("/dev/fd/{number}"))
    }
}

/// Runs what waits for a disk on a thread that may wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // A panic goes on where it would have gone; else the runtime is shutting down.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(io::Error::other(error)),
        },
    }
}

/// A file being made, removed again unless kept.
struct Made {
    file: File,
    path: Option<PathBuf>,
}

impl Made {
    fn new(path: &Path) -> Result<Self, ImgError> {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(in_file("creating", path))?;
        Ok(Self {
            file,
            path: Some(path.to_owned()),
        })
    }

    fn keep(mut self) {
        self.path = None;
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if let Some(path) = &self.path
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "a half-made image cannot be removed");
        }
    }
}

fn open(file: &Path, write: bool) -> io::Result<File> {
    File::options()
        .read(true)
        .write(write)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(file)
}

fn qcow2_options(options: Qcow2Options) -> String {
    let on = |flag| if flag { "on" } else { "off" };
    format!(
        "compat=1.1,cluster_size={},extended_l2={},lazy_refcounts={}",
        options.cluster_size,
        on(options.extended_l2),
        on(options.lazy_refcounts)
    )
}

/// Reads a progress line such as `    (12.50/100%)`.
fn report(line: &str, progress: &mut impl FnMut(f64)) {
    let percent = line
        .trim()
        .strip_prefix('(')
        .and_then(|line| line.split_once('/'));
    if let Some(percent) = percent.and_then(|(percent, _)| percent.parse().ok()) {
        progress(percent);
    }
}

fn in_file(doing: &'static str, file: &Path) -> impl Fn(io::Error) -> ImgError {
    let file = file.to_owned();
    move |source| ImgError::File {
        doing,
        file: file.clone(),
        source,
    }
}

fn failed(file: &Path) -> impl Fn(ProcessError) -> ImgError {
    let file = file.to_owned();
    move |source| ImgError::Tool {
        file: file.clone(),
        source,
    }
}

//! What a QEMU program can do, asked of itself: it is started without a machine and questioned by QMP.
//!
//! Never guessed from a version: distributions build with and without parts, and carry some back. The answer is kept in a
//! file until the program or the kernel changes.

use crate::process::{Output, ProcessError, Run};
use crate::qmp::{Machine, Qmp, QmpError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long QEMU may take to tell all.
const LIMIT: Duration = Duration::from_secs(60);

/// One program file as it is now; another file or another build of it differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binary {
    /// Where it is.
    pub path: PathBuf,
    /// When it was written, in seconds since 1970.
    pub modified: i64,
    /// Its size in bytes.
    pub size: u64,
}

impl Binary {
    /// Where a program is looked for: the path, or the name in the system's directories.
    pub fn places(program: &Path) -> Vec<PathBuf> {
        let dirs = [
            "",
            "/usr/local/sbin",
            "/usr/local/bin",
            "/usr/sbin",
            "/usr/bin",
            "/sbin",
            "/bin",
        ];
        // Joining an absolute path gives that path.
        let places = dirs.iter().map(|dir| Path::new(dir).join(program));
        places.filter(|path| path.is_absolute()).collect()
    }

    /// Looks at a program: a path, or a name in the system's directories.
    ///
    /// # Errors
    /// When it is not there.
    pub fn of(program: &Path) -> io::Result<Self> {
        let mut places = Self::places(program).into_iter();
        let found = places.find_map(|path| Some((fs::metadata(&path).ok()?, path)));
        let Some((meta, path)) = found else {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        };
        Ok(Self {
            path,
            modified: meta.mtime(),
            size: meta.len(),
        })
    }
}

/// What one QEMU can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    /// Its version, for people.
    pub version: String,
    /// Versioned machine types with the most processors each takes.
    pub machines: Vec<(String, u32)>,
    /// What the short name `q35` stands for now: what new guests are pinned to.
    pub newest_q35: Option<String>,
    /// Processor models it knows.
    pub cpu_models: Vec<String>,
    /// Device types.
    pub devices: BTreeSet<String>,
    /// Other object types: backends, iothreads.
    pub objects: BTreeSet<String>,
    /// QMP commands.
    pub commands: BTreeSet<String>,
    /// Whether `aio=io_uring` works, under the filters guests run with.
    pub io_uring: bool,
}

/// Why features could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum FeaturesError {
    /// The program is missing.
    #[error("{program} cannot be looked at: {source}{}", remedy(.program))]
    Missing {
        /// The program.
        program: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It does not run as expected.
    #[error("{program} without a machine: {why}")]
    Run {
        /// The program.
        program: PathBuf,
        /// What happened.
        why: String,
    },
    /// It does not answer as expected.
    #[error(transparent)]
    Qmp(#[from] QmpError),
}

fn remedy(program: &Path) -> String {
    crate::process::debian_package(&program.to_string_lossy())
        .map(|package| format!(": install the Debian package `{package}`"))
        .unwrap_or_default()
}

#[derive(Serialize, Deserialize)]
struct Cached {
    binary: Binary,
    kernel: String,
    features: Features,
}

impl Features {
    /// Whether it has this device type.
    pub fn has_device(&self, name: &str) -> bool {
        self.devices.contains(name)
    }

    /// Whether it has this machine type.
    pub fn has_machine(&self, name: &str) -> bool {
        self.machines.iter().any(|(machine, _)| machine == name)
    }

    /// Asks the program, or the file `cache` when neither program nor kernel has changed.
    ///
    /// # Errors
    /// When the program is missing or does not answer.
    pub async fn of(program: &Path, cache: &Path) -> Result<Self, FeaturesError> {
        let binary = Binary::of(program).map_err(|source| FeaturesError::Missing {
            program: program.to_owned(),
            source,
        })?;
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        if let Ok(bytes) = fs::read(cache)
            && let Ok(cached) = serde_json::from_slice::<Cached>(&bytes)
            && cached.binary == binary
            && cached.kernel == kernel
        {
            return Ok(cached.features);
        }
        let features = ask(&binary.path).await?;
        let cached = Cached {
            binary,
            kernel,
            features: features.clone(),
        };
        let written = serde_json::to_vec(&cached)
            .map_err(io::Error::from)
            .and_then(|bytes| fs::write(cache, bytes));
        if let Err(error) = written {
            tracing::warn!(path = %cache.display(), %error, "QEMU's features are not kept");
        }
        Ok(features)
    }
}

async fn ask(program: &Path) -> Result<Features, FeaturesError> {
    let failed = |why: String| FeaturesError::Run {
        program: program.to_owned(),
        why,
    };
    let pair = std::os::unix::net::UnixStream::pair().and_then(|(ours, theirs)| {
        ours.set_nonblocking(true)?;
        Ok((tokio::net::UnixStream::from_std(ours)?, theirs))
    });
    let (ours, theirs) = pair.map_err(|error| failed(error.to_string()))?;
    let mut run = Run::new(program).timeout(LIMIT).no_network();
    let number = run.fd(OwnedFd::from(theirs));
    let run = run
        .args([
            "-machine",
            "none",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
        ])
        .args([
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        ])
        .arg("-chardev")
        .arg(format!("socket,id=qmp,fd={number}"))
        .args(["-mon", "chardev=qmp,mode=control"]);
    let questions = async {
        let qmp = Qmp::negotiate(ours).await?;
        let version = qmp.query_version().await?;
        let machines: Vec<Machine> = qmp.machines().await?;
        let names = |types: Vec<crate::qmp::QomType>| types.into_iter().map(|t| t.name).collect();
        let newest = machines.iter().find(|m| m.alias.as_deref() == Some("q35"));
        let features = Features {
            version: format!("{}.{}.{}", version.major, version.minor, version.micro),
            newest_q35: newest.map(|m| m.name.clone()),
            cpu_models: qmp.cpu_models().await?,
            devices: names(qmp.types("device").await?),
            objects: names(qmp.types("user-creatable").await?),
            commands: qmp.commands().await?.into_iter().collect(),
            io_uring: io_uring_works(&qmp).await,
            machines: machines.into_iter().map(|m| (m.name, m.cpu_max)).collect(),
        };
        qmp.quit().await?;
        Ok::<_, QmpError>(features)
    };
    let mut ended = std::pin::pin!(run.output());
    let early = |ended: Result<Output, ProcessError>| {
        failed(match ended {
            Ok(output) => format!("it ended before it was asked: {}", output.said().trim()),
            Err(error) => error.to_string(),
        })
    };
    // Whichever ends first; an error drops the run, which ends QEMU.
    let mut features = tokio::select! {
        biased;
        features = questions => features?,
        ended = &mut ended => return Err(early(ended)),
    };
    let output = ended.await.map_err(|error| failed(error.to_string()))?;
    // Newer versions go on with threads when the ring fails, and only say so.
    features.io_uring &= !output.said().contains("io_uring");
    Ok(features)
}

/// Opens a file in memory by the ring. A build without it, a kernel without it, one where it is switched off, and a seccomp
/// filter that forbids it all show here.
async fn io_uring_works(qmp: &Qmp) -> bool {
    let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
    let Ok(file) = nix::sys::memfd::memfd_create(c"probe", flags).map(File::from) else {
        return false;
    };
    let work = async {
        file.set_len(4096).ok()?;
        let set = qmp.add_fd(file.into(), "probe").await.ok()?;
        let node = json!({
            "driver": "file",
            "node-name": "probe",
            "filename": format!("/dev/fdset/{set}"),
            "aio": "io_uring",
            "auto-read-only": false,
        });
        qmp.blockdev_add(node).await.ok()?;
        // The ring is made with the first use at the latest, so it is used: a qcow2 header is written through it.
        let options = json!({ "driver": "qcow2", "file": "probe", "size": 65536 });
        let create = json!({ "job-id": "probe", "options": options });
        qmp.execute("blockdev-create", create).await.ok()?;
        loop {
            let jobs = qmp.execute("query-jobs", Value::Null).await.ok()?;
            let job = jobs.get(0)?;
            match job.get("status").and_then(Value::as_str)? {
                "concluded" => return job.get("error").is_none().then_some(()),
                _ => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    };
    work.await.is_some()
}

/// Whether files in `dir` can be opened past the page cache, which `cache=none` and `aio=native` need.
///
/// # Errors
/// When nothing can be created there.
pub fn supports_direct_io(dir: &Path) -> io::Result<bool> {
    let path = dir.join(format!(".direct-io-probe-{}", std::process::id()));
    let made = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path);
    made?;
    let direct = File::options()
        .read(true)
        .custom_flags(nix::libc::O_DIRECT)
        .open(&path);
    fs::remove_file(&path)?;
    match direct {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_installed_qemu_tells_what_it_can_and_is_asked_once() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("features.json");
        let program = Path::new("qemu-system-x86_64");
        let features = Features::of(program, &cache).await.unwrap();
        let newest = features.newest_q35.clone().unwrap();
        assert!(newest.starts_with("pc-q35-"), "{newest}");
        assert!(features.has_machine(&newest) && !features.has_machine("pc-q35-0.1"));
        for device in [
            "virtio-blk-pci",
            "virtio-net-pci",
            "pcie-root-port",
            "pvpanic-pci",
            "tpm-crb",
        ] {
            assert!(features.has_device(device), "{device}");
        }
        assert!(features.objects.contains("iothread"));
        assert!(features.cpu_models.iter().any(|model| model == "Nehalem"));
        assert!(features.commands.contains("blockdev-add"));
        eprintln!("QEMU {}, io_uring {}", features.version, features.io_uring);

        let text = fs::read_to_string(&cache).unwrap();
        fs::write(&cache, text.replace(&features.version, "kept")).unwrap();
        assert_eq!(Features::of(program, &cache).await.unwrap().version, "kept");
        // Another build of the program is asked again.
        let text = fs::read_to_string(&cache)
            .unwrap()
            .replace("\"size\":", "\"size\":1");
        fs::write(&cache, text).unwrap();
        assert_eq!(Features::of(program, &cache).await.unwrap(), features);
    }

    #[tokio::test]
    async fn a_program_that_is_no_qemu_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("features.json");
        let error = Features::of(Path::new("false"), &cache).await.unwrap_err();
        assert!(
            matches!(error, FeaturesError::Run { .. } | FeaturesError::Qmp(_)),
            "{error}"
        );
        let error = Features::of(Path::new("/nowhere/qemu-system-x86_64"), &cache)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("`qemu-system-x86`"), "{error}");
        assert!(!cache.exists());
    }

    #[test]
    fn direct_io_is_found_out_where_the_files_are() {
        let dir = tempfile::tempdir().unwrap();
        supports_direct_io(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(supports_direct_io(Path::new("/nowhere")).is_err());
    }
}

//! Image recipes: bootable cloud images made on this machine from Debian's packages, so that nobody has to be trusted
//! but Debian. A recipe never downloads an image, never touches what the machine has installed, and needs neither
//! loop devices nor kernel support for the file systems it writes.
//!
//! Each image has the same layout: GPT, a BIOS boot partition, an EFI system partition with Debian's signed shim and
//! GRUB (Secure Boot works), and an ext4 root; screen and serial line are both consoles. Builds are cached by the
//! hash of all that decides their content. The folder of the cache is locked while one recipe is being built, and a
//! build that was killed is swept away by the next one.

mod apt;
mod boot;
mod command;
mod cpio;
mod debian;
mod disk;
mod kmod;
mod mirror;
mod tiny;
mod tree;

pub use command::Progress;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A release of Debian that images are built of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Release {
    /// Debian 12.
    Bookworm,
    /// Debian 13.
    Trixie,
}

impl Release {
    /// The name of its suite in the archive.
    pub fn suite(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Bookworm => "Debian 12",
            Self::Trixie => "Debian 13",
        }
    }
}

/// An image that can be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Recipe {
    /// A Debian cloud image with cloud-init and guest agent.
    Debian {
        /// Which Debian.
        release: Release,
    },
    /// A guest that boots within seconds: busybox, DHCP, guest agent, an HTTP echo, and a shell on the serial line.
    Tiny,
}

/// What makes an image's file systems tell themselves apart from those of other images.
struct Identity {
    root_uuid: String,
    esp_serial: u32,
}

impl Identity {
    fn of(hash: &[u8; 32]) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        // Version 8 of RFC 9562: made of something of our own.
        id[6] = 0x80 | (id[6] & 0x0f);
        id[8] = 0x80 | (id[8] & 0x3f);
        let hex = hex::encode(id);
        let root_uuid = [
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..],
        ]
        .join("-");
        Self {
            root_uuid,
            esp_serial: u32::from_be_bytes([hash[16], hash[17], hash[18], hash[19]]),
        }
    }
}

fn digest(inputs: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for input in inputs {
        hash.update((input.len() as u64).to_le_bytes());
        hash.update(input);
    }
    hash.finalize().into()
}

fn hash_of(inputs: &[&str]) -> String {
    hex::encode(digest(inputs))
}

/// Where builds are cached when nothing else is said: `DEBVISOR_CACHE`, else the system's cache folder for root, else
/// the user's.
pub fn default_cache() -> PathBuf {
    let folder = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    if let Some(cache) = folder("DEBVISOR_CACHE") {
        return cache;
    }
    let user = || {
        folder("XDG_CACHE_HOME")
            .or_else(|| Some(folder("HOME")?.join(".cache")))
            .map(|c| c.join("debvisor"))
    };
    let root = nix::unistd::geteuid().is_root();
    (if root { None } else { user() }).unwrap_or_else(|| PathBuf::from("/var/cache/debvisor"))
}

impl Recipe {
    /// Every recipe.
    pub const ALL: [Self; 3] = [
        Self::Debian {
            release: Release::Bookworm,
        },
        Self::Debian {
            release: Release::Trixie,
        },
        Self::Tiny,
    ];

    /// The name by which people ask for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debian {
                release: Release::Bookworm,
            } => "debian-12",
            Self::Debian {
                release: Release::Trixie,
            } => "debian-13",
            Self::Tiny => "tiny",
        }
    }

    /// The recipe with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|recipe| recipe.name() == name)
    }

    fn digest(self) -> [u8; 32] {
        let mut inputs = vec![self.name()];
        inputs.extend([
            include_str!("boot.rs"),
            include_str!("disk.rs"),
            include_str!("cpio.rs"),
            include_str!("kmod.rs"),
        ]);
        match self {
            Self::Debian { .. } => inputs.extend(debian::inputs()),
            Self::Tiny => inputs.extend(tiny::inputs()),
        }
        digest(&inputs)
    }

    /// The hash of all that decides the image, apart from the packages' versions in Debian's archive: 64 hex digits.
    pub fn hash(self) -> String {
        hex::encode(self.digest())
    }

    /// Where the image lies in `cache` once it is built.
    pub fn cached_at(self, cache: &Path) -> PathBuf {
        cache.join(format!("{}-{}.qcow2", self.name(), &self.hash()[..16]))
    }

    /// Free space that a build takes for a while, in bytes.
    fn space(self) -> u64 {
        match self {
            Self::Debian { .. } => 4 << 30,
            Self::Tiny => 512 << 20,
        }
    }

    /// The image in `cache`, built when it is not there yet. The file must not be changed.
    ///
    /// # Errors
    /// When a program is missing (the Debian package is named) or fails, the archive cannot be reached, the disk is
    /// full, or `cancel` was pulled. Nothing half-made is left then.
    pub async fn image(
        self,
        cache: &Path,
        progress: Progress<'_>,
        cancel: &CancellationToken,
    ) -> Result<PathBuf> {
        let image = self.cached_at(cache);
        if image.exists() {
            progress("found in the cache", 100);
            return Ok(image);
        }
        self.make(cache, &image, progress, cancel)
            .await
            .with_context(|| format!("building the image `{}`", self.name()))?;
        Ok(image)
    }

    /// Puts the image at `out`, building it in `cache` when it is not there yet.
    ///
    /// # Errors
    /// As [`Recipe::image`].
    pub async fn build(
        self,
        cache: &Path,
        out: &Path,
        progress: Progress<'_>,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let image = self.image(cache, progress, cancel).await?;
        let to = out.to_owned();
        tokio::task::spawn_blocking(move || {
            let folder = to
                .parent()
                .with_context(|| format!("{} has no folder", to.display()))?;
            let fresh = tempfile::Builder::new()
                .prefix(".image-")
                .tempfile_in(folder)?;
            std::fs::copy(&image, fresh.path())?;
            fresh.as_file().sync_all()?;
            fresh.persist(&to)?;
            anyhow::Ok(())
        })
        .await?
        .with_context(|| format!("copying the image `{}` to {}", self.name(), out.display()))
    }

    async fn make(
        self,
        cache: &Path,
        image: &Path,
        progress: Progress<'_>,
        cancel: &CancellationToken,
    ) -> Result<()> {
        if !nix::unistd::geteuid().is_root() {
            bail!("images can only be built as root: run this as root, or as the DebVisor agent");
        }
        std::fs::create_dir_all(cache)
            .with_context(|| format!("making the cache folder {}", cache.display()))?;
        progress("waiting for another build", 0);
        let _lock = self.lock(cache, cancel).await?;
        if image.exists() {
            progress("found in the cache", 100);
            return Ok(());
        }
        let work = Work::fresh(&cache.join(format!(".work-{}", self.name())))?;
        enough_space(cache, self.space())?;
        let fresh = work.0.join("image.qcow2");
        let id = Identity::of(&self.digest());
        match self {
            Self::Debian { release } => {
                debian::build(release, &id, cache, &work.0, &fresh, progress, cancel).await?
            }
            Self::Tiny => tiny::build(&id, &work.0, &fresh, progress, cancel).await?,
        }
        let (from, to) = (fresh, image.to_owned());
        tokio::task::spawn_blocking(move || {
            File::open(&from)?.sync_all()?;
            std::fs::rename(&from, &to)
        })
        .await?
        .with_context(|| format!("putting the image at {}", image.display()))?;
        self.forget_older(cache, image);
        progress("built", 100);
        Ok(())
    }

    /// One build of a recipe at a time, across processes. The kernel gives the lock back when its holder dies.
    async fn lock(self, cache: &Path, cancel: &CancellationToken) -> Result<File> {
        let path = cache.join(format!(".{}.lock", self.name()));
        let file =
            File::create(&path).with_context(|| format!("making the lock {}", path.display()))?;
        let wait = async {
            loop {
                match file.try_lock() {
                    Ok(()) => return Ok(()),
                    Err(TryLockError::WouldBlock) => {
                        tokio::time::sleep(Duration::from_millis(200)).await
                    }
                    Err(TryLockError::Error(error)) => {
                        return Err(error)
                            .with_context(|| format!("taking the lock {}", path.display()));
                    }
                }
            }
        };
        command::until_cancelled(wait, cancel).await?;
        Ok(file)
    }

    /// Removes what older versions of this recipe have built: images but for the two newest, since a volume or an
    /// import may just be reading one, and root file systems but for the newest.
    fn forget_older(self, cache: &Path, newest: &Path) {
        for (path, _) in builds(cache, &format!("{}-", self.name()), ".qcow2")
            .iter()
            .filter(|(p, _)| p != newest)
            .skip(2)
        {
            forget(path);
        }
        if let Self::Debian { release } = self {
            for (path, _) in builds(cache, &format!("rootfs-{}-", release.suite()), ".tar")
                .iter()
                .skip(1)
            {
                forget(path);
            }
        }
    }
}

/// Files in the cache called `prefix`, 16 hex digits, `suffix`; the newest first.
fn builds(cache: &Path, prefix: &str, suffix: &str) -> Vec<(PathBuf, std::time::SystemTime)> {
    let Ok(entries) = std::fs::read_dir(cache) else {
        return Vec::new();
    };
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            let hash = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
            let ours = hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit());
            ours.then_some((entry.path(), entry.metadata().ok()?.modified().ok()?))
        })
        .collect();
    found.sort_by_key(|(_, made)| std::cmp::Reverse(*made));
    found
}

fn forget(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "an old build stays in the cache");
    }
}

fn enough_space(folder: &Path, bytes: u64) -> Result<()> {
    let free = nix::sys::statvfs::statvfs(folder)
        .with_context(|| format!("asking for the free space of {}", folder.display()))?;
    let free = free.blocks_available() * free.fragment_size();
    if free < bytes {
        bail!(
            "{} has {} MiB free and the build takes {} MiB: free some, or point DEBVISOR_CACHE to another disk",
            folder.display(),
            free >> 20,
            bytes >> 20
        );
    }
    Ok(())
}

/// The folder of a build that is under way; it goes when the build ends, however it ends.
struct Work(PathBuf);

impl Work {
    /// An empty folder, after sweeping away what a killed build left.
    fn fresh(path: &Path) -> Result<Self> {
        sweep(path)?;
        std::fs::create_dir(path)
            .with_context(|| format!("making the work folder {}", path.display()))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Err(error) = sweep(&self.0) {
            tracing::warn!(error = %format!("{error:#}"), "a build's work folder stays until the next build");
        }
    }
}

/// Removes a work folder; never while something is mounted below it, because that would empty what is mounted.
fn sweep(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("reading the mounts")?;
    let below: Vec<_> = mounts
        .lines()
        .filter_map(|l| l.split(' ').nth(1))
        .filter(|m| Path::new(m).starts_with(path))
        .collect();
    for mount in below.iter().rev() {
        nix::mount::umount2(Path::new(mount), nix::mount::MntFlags::MNT_DETACH)
            .with_context(|| format!("unmounting {mount}"))?;
    }
    std::fs::remove_dir_all(path)
        .with_context(|| format!("removing the work folder {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_and_hashes_differ() {
        for recipe in Recipe::ALL {
            assert_eq!(Recipe::named(recipe.name()), Some(recipe));
            assert_eq!(recipe.hash().len(), 64);
        }
        assert_eq!(Recipe::named("debian-11"), None);
        let mut hashes = Recipe::ALL.map(Recipe::hash).to_vec();
        hashes.dedup();
        assert_eq!(hashes.len(), 3);
    }

    #[test]
    fn the_identity_is_a_well_formed_uuid() {
        let id = Identity::of(&[0xff; 32]);
        assert_eq!(id.root_uuid, "ffffffff-ffff-8fff-bfff-ffffffffffff");
    }

    #[test]
    fn what_a_killed_build_left_is_swept_away() {
        let cache = tempfile::tempdir().unwrap();
        let path = cache.path().join(".work-tiny");
        std::fs::create_dir_all(path.join("deep/er")).unwrap();
        std::fs::write(path.join("deep/half"), "half").unwrap();
        let work = Work::fresh(&path).unwrap();
        assert_eq!(std::fs::read_dir(&work.0).unwrap().count(), 0);
        drop(work);
        assert!(!path.exists());
    }

    #[test]
    fn old_builds_are_forgotten_and_nothing_else() {
        let cache = tempfile::tempdir().unwrap();
        let path = |name: &str| cache.path().join(name);
        let hash = |n: u64| format!("{n:016x}");
        for n in 0..5 {
            for name in [
                format!("debian-12-{}.qcow2", hash(n)),
                format!("rootfs-bookworm-{}.tar", hash(n)),
            ] {
                let file = File::create(path(&name)).unwrap();
                file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(n))
                    .unwrap();
            }
        }
        for other in [
            "debian-12-mine.qcow2",
            "debian-13-0000000000000000.qcow2",
            "rootfs-trixie-0000000000000000.tar",
        ] {
            File::create(path(other)).unwrap();
        }
        let newest = path(&format!("debian-12-{}.qcow2", hash(4)));
        Recipe::Debian {
            release: Release::Bookworm,
        }
        .forget_older(cache.path(), &newest);
        let mut left: Vec<_> = std::fs::read_dir(cache.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(
            left,
            [
                format!("debian-12-{}.qcow2", hash(2)),
                format!("debian-12-{}.qcow2", hash(3)),
                format!("debian-12-{}.qcow2", hash(4)),
                "debian-12-mine.qcow2".to_owned(),
                "debian-13-0000000000000000.qcow2".to_owned(),
                format!("rootfs-bookworm-{}.tar", hash(4)),
                "rootfs-trixie-0000000000000000.tar".to_owned(),
            ]
        );
    }

    #[test]
    fn too_little_space_is_said_before_anything_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let error = enough_space(folder.path(), u64::MAX)
            .unwrap_err()
            .to_string();
        assert!(error.contains("MiB free"), "{error}");
    }
}

//! Whether guests can run on the processor itself.
//!
//! A device node says little: it exists where the processor cannot, and on some machines a guest started under KVM never
//! gets anywhere. So a guest is really started: the usual firmware, and a boot sector that ends QEMU with a known code.
//! (A guest without firmware proves too little: it ran on a machine where the firmware hangs.) Where that takes more
//! than three seconds the answer is [`Accel::Tcg`], with the reason.
//!
//! The answer is kept in a file, for one boot, one kernel and one QEMU: asking costs up to three seconds, once. Nothing
//! else is decided here, and no guest of anybody is touched.

use crate::clock::Clock;
use crate::process::{ProcessError, Run};
use crate::qemu::{Accel, Binary, boot_sector};
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the guest has; a working KVM needs less than a tenth of it.
const LIMIT: Duration = Duration::from_secs(3);
/// The model that every x86-64 processor can be, and that QEMU translates fastest.
const PLAIN: &str = "qemu64";
/// What the guest writes to which port, and the exit code QEMU makes of it: twice that plus one.
const EXIT_PORT: u8 = 0xf4;
const WRITTEN: u8 = 0x21;
const EXPECTED: i32 = 0x43;

/// What executes guests on this node, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceleration {
    /// What executes them.
    pub accel: Accel,
    /// Why, as a sentence for the node's condition; with the remedy where there is one.
    pub because: String,
    /// The processor model to give guests by default.
    pub cpu: String,
}

/// How the question is asked.
#[derive(Debug, Clone)]
pub struct AccelProbe {
    qemu: PathBuf,
    device: PathBuf,
    cache: PathBuf,
    unprivileged: bool,
    limit: Duration,
}

#[derive(Serialize, Deserialize)]
struct Cached {
    boot: crate::clock::BootId,
    kernel: String,
    qemu: Binary,
    /// Rights, group and number of the device node; `None` when there was none.
    device: Option<(u32, u32, u64)>,
    unprivileged: bool,
    answer: Acceleration,
}

impl AccelProbe {
    /// A probe of this QEMU program (a name or a path), whose answer is kept in `cache`, a file. `unprivileged` says that
    /// guests run as other users than ours, which then must be able to open `/dev/kvm` by its group.
    pub fn new(qemu: &Path, cache: &Path, unprivileged: bool) -> Self {
        Self {
            qemu: qemu.to_owned(),
            device: "/dev/kvm".into(),
            cache: cache.to_owned(),
            unprivileged,
            limit: LIMIT,
        }
    }

    /// Another device node than `/dev/kvm`, for tests.
    #[must_use]
    pub fn device(mut self, device: &Path) -> Self {
        self.device = device.to_owned();
        self
    }

    /// The answer for this boot: the kept one, or a new one. Always answers; what fails is a reason for TCG.
    pub async fn ask(&self, clock: &dyn Clock) -> Acceleration {
        let kernel = kernel_release();
        let Ok(qemu) = Binary::of(&self.qemu) else {
            let program = self.qemu.display().to_string();
            return tcg(ProcessError::Missing { program }.to_string());
        };
        let device = fs::metadata(&self.device)
            .map(|node| (node.mode(), node.gid(), node.rdev()))
            .ok();
        if let Ok(bytes) = fs::read(&self.cache)
            && let Ok(cached) = serde_json::from_slice::<Cached>(&bytes)
            && cached.boot == clock.boot_id()
            && cached.kernel == kernel
            && cached.qemu == qemu
            && cached.device == device
            && cached.unprivileged == self.unprivileged
        {
            return cached.answer;
        }
        let answer = self.try_it().await;
        let cached = Cached {
            boot: clock.boot_id(),
            kernel,
            qemu,
            device,
            unprivileged: self.unprivileged,
            answer: answer.clone(),
        };
        let written = serde_json::to_vec(&cached)
            .map_err(std::io::Error::from)
            .and_then(|bytes| fs::write(&self.cache, bytes));
        if let Err(error) = written {
            tracing::warn!(path = %self.cache.display(), %error, "the answer of the KVM probe is not kept");
        }
        answer
    }

    async fn try_it(&self) -> Acceleration {
        let name = self.device.display();
        let device = match fs::metadata(&self.device) {
            Ok(device) if device.file_type().is_char_device() => device,
            Ok(_) => return tcg(format!("{name} is no device")),
            Err(_) => {
                return tcg(format!(
                    "{name} does not exist: enable virtualisation in the machine's firmware and load kvm_intel or kvm_amd"
                ));
            }
        };
        let began = Instant::now();
        let mut cpu = "host";
        let mut tried = self.run_guest(cpu, self.limit).await;
        if let Err(why) = &tried
            && *why != self.too_late()
        {
            // Nested and unusual hosts may not give all of themselves to a guest, yet run a plain one.
            cpu = PLAIN;
            let left = self.limit.saturating_sub(began.elapsed());
            tried = self.run_guest(cpu, left).await;
        }
        if let Err(why) = tried {
            return tcg(why);
        }
        let mode = device.mode();
        let by_group = mode & 0o060 == 0o060 && device.gid() != 0;
        if self.unprivileged && !by_group && mode & 0o006 != 0o006 {
            return tcg(format!(
                "KVM works, but only root may open {name}: `chgrp kvm {name} && chmod 660 {name}` (udev does it where it runs)"
            ));
        }
        Acceleration {
            accel: Accel::Kvm,
            because: "a probe guest ran under KVM".to_owned(),
            cpu: cpu.to_owned(),
        }
    }

    fn too_late(&self) -> String {
        let seconds = self.limit.as_secs();
        format!("the probe guest did not answer in {seconds} s under KVM")
    }

    /// Runs the probe guest with this processor model. An error is why it did not answer.
    async fn run_guest(&self, cpu: &str, limit: Duration) -> Result<(), String> {
        let made = Run::new(&self.qemu).secret(&disk());
        let (run, path) =
            made.map_err(|error| format!("the probe guest cannot be made: {error}"))?;
        let run = run
            .args([
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-no-reboot",
            ])
            .args(["-machine", "q35", "-accel", "kvm", "-cpu", cpu, "-m", "32"])
            .args([
                "-device",
                &format!("isa-debug-exit,iobase={EXIT_PORT},iosize=1"),
            ])
            .args(["-drive", &format!("if=virtio,format=raw,file={path}")])
            .accept([EXPECTED])
            .timeout(limit)
            .no_network();
        match run.output().await {
            Ok(_) => Ok(()),
            Err(ProcessError::Timeout { .. }) => Err(self.too_late()),
            Err(ProcessError::Failed { exit, said, .. }) => {
                let said = said.trim();
                Err(format!("the probe guest failed under KVM ({exit}): {said}"))
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The probe guest's disk. The firmware does not look at one much smaller.
fn disk() -> Vec<u8> {
    let mut disk = boot_sector::ends_with(EXIT_PORT, WRITTEN);
    disk.resize(1 << 20, 0);
    disk
}

fn tcg(because: String) -> Acceleration {
    Acceleration {
        accel: Accel::Tcg,
        because,
        cpu: PLAIN.to_owned(),
    }
}

fn kernel_release() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease");
    release.unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests;

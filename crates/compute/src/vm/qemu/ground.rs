//! What guests stand on: QEMU, KVM, and the device by which they get network cards. Looked at when the agent starts and
//! whenever one of them comes or goes; what is missing stops nothing but what needs it.

use super::super::Vm;
use super::super::types::VmSpec;
use super::{Config, Qemu};
use host::accel::{AccelProbe, Acceleration};
use host::net::tap;
use host::notice::Notice;
use host::qemu::{Accel, Binary, Features};
use runtime::Cx;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where KVM is asked for.
const KVM: &str = "/dev/kvm";
/// A package brings a program in several steps: it is looked at when it has been quiet for this long.
const SETTLED: Duration = Duration::from_millis(500);

/// What guests stand on.
#[derive(Clone, Debug, PartialEq)]
pub struct Ground {
    /// What QEMU can do, or why there is none, with the remedy.
    pub features: Result<Features, String>,
    /// What executes guests, and why.
    pub acceleration: Acceleration,
    /// Why guests can have no network cards, with the remedy.
    pub no_tap: Option<String>,
}

impl Ground {
    /// Looks at this machine.
    pub(super) async fn look(config: &Config) -> Ground {
        let features = Features::of(&config.qemu, &config.cache.join("qemu.json"))
            .await
            .map_err(|e| {
                format!(
                    "no guest can be started: {e} (QEMU 8.2 or newer; on Debian 12 from backports)"
                )
            });
        let kept = config.cache.join("kvm.json");
        let probe = AccelProbe::new(&config.qemu, &kept, config.unprivileged);
        Ground {
            features,
            acceleration: probe.ask(&*config.clock).await,
            no_tap: tap::check_device().err().map(|e| e.to_string()),
        }
    }

    /// Version of QEMU; empty when there is none.
    pub fn version(&self) -> &str {
        self.features.as_ref().map_or("", |f| &f.version)
    }

    /// `kvm` or `tcg`.
    pub fn accelerated(&self) -> &'static str {
        match self.acceleration.accel {
            Accel::Kvm => "kvm",
            Accel::Tcg => "tcg",
        }
    }

    /// What is missing to start such a guest.
    pub(super) fn lacks(&self, spec: &VmSpec) -> Option<String> {
        let no_tap = self.no_tap.as_ref().filter(|_| !spec.nics.is_empty());
        let lacks = self.features.as_ref().err().or(no_tap).cloned();
        lacks.or_else(|| no_huge_pages(spec))
    }
}

/// How many huge pages the host is short of. QEMU would end at once, with words that name no remedy.
fn no_huge_pages(spec: &VmSpec) -> Option<String> {
    let size = spec.hugepages.bytes()?;
    let kib = size >> 10;
    let folder = format!("/sys/kernel/mm/hugepages/hugepages-{kib}kB");
    let free = std::fs::read_to_string(format!("{folder}/free_hugepages")).ok();
    let free: u64 = free.and_then(|n| n.trim().parse().ok()).unwrap_or(0);
    let wanted = spec.memory.0.div_ceil(size);
    (free < wanted).then(|| {
        format!(
            "it needs {wanted} free huge pages of {}, this host has {free}: write more into {folder}/nr_hugepages",
            model::Bytes(size)
        )
    })
}

/// Looks again whenever a program or a device comes or goes. Ends when the kernel gives no watches.
pub(super) async fn follow(it: &Arc<Qemu>, cx: &Cx) {
    let files = Binary::places(&it.config.qemu)
        .into_iter()
        .chain([KVM, tap::DEVICE].map(PathBuf::from));
    let mut notice = match Notice::of(files) {
        Ok(notice) => notice,
        Err(error) => {
            tracing::warn!(%error, "what comes or goes on this machine is not noticed until a restart");
            return;
        }
    };
    loop {
        // What came between the first look and the watch is seen now.
        let now = Ground::look(&it.config).await;
        let changed = it.ground.send_if_modified(|ground| {
            let changed = **ground != now;
            if changed {
                *ground = Arc::new(now);
            }
            changed
        });
        if changed {
            let ground = it.now();
            tracing::info!(qemu = ground.version(), accel = ground.accelerated(), because = %ground.acceleration.because, no_tap = ground.no_tap, "what guests stand on has changed");
            for vm in cx.list::<Vm>(None) {
                cx.wake(&cx.key::<Vm>(vm.metadata.project.as_deref(), &vm.metadata.name));
            }
        }
        if let Err(error) = notice.changed().await {
            tracing::warn!(%error, "what comes or goes on this machine is not noticed any more");
            return;
        }
        while let Ok(Ok(())) = tokio::time::timeout(SETTLED, notice.changed()).await {}
    }
}

//! Starts a guest: seed, disks, network interfaces, QEMU. A failure is remembered in the status, and leaves nothing behind.

use super::super::hypervisor::Launch;
use super::super::seed::{self, Facts};
use super::super::types::{Exit, ExitReason, State};
use super::super::{disks, nics};
use super::{Pass, crashes_after};
use model::{Error, Result, What};
use runtime::Bearing;
use runtime::event::Severity;

impl Pass<'_> {
    pub(super) async fn start(&mut self, paused: bool) -> Result<()> {
        let incarnation = self.status.incarnation + 1;
        let host = self.hypervisor.host();
        let (spec, boot) = (self.vm.spec.clone(), host.boot.clone());
        let tried = self.attempt(paused, incarnation).await;
        let now = self.cx.clock().now();
        match tried {
            Ok(()) => {
                self.edit(|s| {
                    s.incarnation = incarnation;
                    s.starts = spec.starts;
                    s.boot.clone_from(&boot);
                    s.started = Some(now);
                    s.last_exit = None;
                    s.stopping_since = None;
                    s.shutdown_asked = None;
                    s.stopping_bearing = Bearing::default();
                })
                .await?;
                let object = &self.id.object;
                self.cx
                    .event(
                        object,
                        "vm.started",
                        "the guest was started",
                        Severity::Info,
                    )
                    .await;
                Ok(())
            }
            // Something else is not ready; no fault of this VM.
            Err(error) if matches!(error.what, What::Unavailable(_) | What::Conflict(_)) => {
                self.undo().await;
                Err(error)
            }
            Err(error) => {
                self.undo().await;
                self.failed(error, boot).await
            }
        }
    }

    async fn attempt(&self, paused: bool, incarnation: u64) -> Result<()> {
        let spec = self.vm.spec.clone();
        let seed = match &spec.cloud_init {
            None => None,
            Some(cloud_init) => {
                let facts = Facts {
                    instance_id: self.id.uid.to_string(),
                    name: self.vm.metadata.name.to_string(),
                    nics: nics::facts(self.cx, &self.vm),
                };
                Some(seed::iso(&seed::documents(cloud_init, &facts)?)?)
            }
        };
        let mut opened = Vec::new();
        for disk in &spec.disks {
            opened.push(disks::open(self.cx, &self.vm, disk).await?);
        }
        let user = self.hypervisor.user(&self.id);
        let mut plugged = Vec::new();
        for nic in &spec.nics {
            plugged.push(nics::open(self.cx, &self.id, &spec, nic, user).await?);
        }
        let launch = Launch {
            vm: self.id.clone(),
            spec,
            incarnation,
            paused,
            disks: opened,
            nics: plugged,
            seed,
        };
        self.hypervisor.launch(self.cx, launch).await
    }

    /// Takes back what a start that failed had plugged in.
    async fn undo(&self) {
        for nic in &self.vm.spec.nics {
            if let Err(error) = nics::close(self.cx, &self.id, &nic.name).await {
                tracing::warn!(vm = %self.id.object, nic = nic.name, ?error, "a network interface of a failed start remains");
            }
        }
    }

    async fn failed(&mut self, error: Error, boot: String) -> Result<()> {
        tracing::warn!(vm = %self.id.object, ?error, "VM cannot be started");
        let now = self.cx.clock().now();
        let message = error.to_string();
        let exit = Exit {
            reason: ExitReason::StartFailed,
            at: now,
            boot,
            message: message.clone(),
        };
        let crashes = crashes_after(self.status.crashes, None, now);
        let starts = self.vm.spec.starts;
        self.edit(|s| {
            s.state = State::Crashed;
            s.last_exit = Some(exit.clone());
            s.crashes = crashes;
            s.starts = starts;
        })
        .await?;
        let object = &self.id.object;
        self.cx
            .event(object, "vm.start-failed", &message, Severity::Error)
            .await;
        Ok(())
    }
}

//! Says in the status what is. Written only when something changed, so that watchers see no noise.

use super::super::Vm;
use super::super::hypervisor::View;
use super::super::rules::{Guest, Seen, Step, difference, phase};
use super::super::types::{DiskStatus, NicStatus, Power, State, VmSpec, VmStatus};
use super::Pass;
use model::{Condition, ConditionStatus, Result, Timestamp};
use runtime::Bearing;

impl Pass<'_> {
    pub(super) async fn report(&mut self, view: &View, seen: &Seen, steps: &[Step]) -> Result<()> {
        let now = self.cx.clock().now();
        let mut state = phase(&self.vm.spec, seen);
        if steps.iter().any(|s| matches!(s, Step::Launch { .. })) {
            state = State::Starting;
        }
        let mut wanted = self.status.clone();
        self.fill(&mut wanted, view, seen, state, now);
        self.conditions(&mut wanted, view, seen, steps, now);
        if wanted == self.status {
            return Ok(());
        }
        let vm = self.vm.metadata.name.as_str();
        let (from, to) = (self.status.state, state);
        if from != to {
            tracing::info!(vm, ?from, ?to, "VM changed its state");
        }
        self.cx
            .set_status::<Vm>(self.key, |s| {
                // The engine writes these two beside us.
                let observed = s.observed_generation;
                let engine: Vec<Condition> = s
                    .conditions
                    .iter()
                    .filter(|c| matches!(c.kind.as_str(), "Reconciled" | "Waiting"))
                    .cloned()
                    .collect();
                *s = wanted.clone();
                s.observed_generation = observed;
                s.conditions
                    .retain(|c| !matches!(c.kind.as_str(), "Reconciled" | "Waiting"));
                s.conditions.extend(engine);
            })
            .await?;
        self.status = wanted;
        Ok(())
    }

    fn fill(&self, s: &mut VmStatus, view: &View, seen: &Seen, state: State, now: Timestamp) {
        if s.state != state || s.since.is_none() {
            s.since = Some(now);
        }
        s.state = state;
        s.node = Some(self.cx.node().to_owned());
        let Some(runs) = view.runs.as_deref().filter(|_| alive(&view.guest)) else {
            s.started = None;
            s.vcpus = None;
            s.memory = None;
            s.acceleration = None;
            s.qemu = None;
            s.disks.clear();
            s.nics.clear();
            s.hostname = None;
            s.os = None;
            s.addresses = allocated(&self.vm.spec);
            return;
        };
        s.incarnation = s.incarnation.max(view.incarnation);
        s.started = view.started;
        // A guest that runs has answered every request to start.
        s.starts = s.starts.max(self.vm.spec.starts);
        s.last_exit = None;
        // Asked to shut down and then wanted on again: if it has not followed by now, it will not.
        let timeout = self.vm.spec.power_off.timeout.duration();
        let stale = seen
            .stopping_since
            .is_some_and(|since| now.since(since) > timeout);
        if self.vm.spec.power != Power::Off && stale {
            s.stopping_since = None;
            s.shutdown_asked = None;
            s.stopping_bearing = Bearing::default();
        }
        if s.boot.is_empty() {
            s.boot = self.hypervisor.host().boot;
        }
        s.vcpus = Some(runs.vcpus);
        s.memory = Some(runs.memory.0);
        s.acceleration = Some(view.acceleration.clone());
        s.qemu = Some(view.qemu.clone());
        s.hostname.clone_from(&view.agent.hostname);
        s.os.clone_from(&view.agent.os);
        let vm = &self.vm.metadata.name;
        s.disks = runs
            .disks
            .iter()
            .map(|d| DiskStatus {
                name: d.name.clone(),
                volume: d.volume_name(vm),
            })
            .collect();
        let told = |mac: &str| {
            let found = view.agent.nics.iter();
            found
                .filter(|(m, _)| m.eq_ignore_ascii_case(mac))
                .flat_map(|(_, a)| a.clone())
                .collect::<Vec<_>>()
        };
        s.nics = runs
            .nics
            .iter()
            .map(|n| NicStatus {
                name: n.name.clone(),
                mac: n.mac.clone(),
                addresses: told(&n.mac),
            })
            .collect();
        let addresses: Vec<String> = s.nics.iter().flat_map(|n| n.addresses.clone()).collect();
        s.addresses = if addresses.is_empty() {
            allocated(runs)
        } else {
            addresses
        };
    }

    fn conditions(
        &self,
        s: &mut VmStatus,
        view: &View,
        seen: &Seen,
        steps: &[Step],
        now: Timestamp,
    ) {
        use ConditionStatus::{False, True};
        let mut set = |kind: &str, status: ConditionStatus, reason: &str, message: &str| {
            Condition::set(&mut s.conditions, kind, status, reason, message, now);
        };
        let waiting = steps.iter().find_map(|step| match step {
            Step::Wait(why) | Step::WaitUntil(_, why) => Some(why.as_str()),
            _ => None,
        });
        match (&view.guest, waiting) {
            // It is being asked once more: what was said stays.
            (Guest::Running, None) if seen.stopping_since.is_some() => {}
            (Guest::Running, None) => set("Running", True, "Running", ""),
            (Guest::Running, Some(why)) => set("Running", True, "Stopping", why),
            (Guest::Paused, _) => set("Running", False, "Paused", "it stands still as asked"),
            (Guest::Stuck { why, .. }, _) => set("Running", False, "DiskError", why),
            (Guest::Crashed(crash), _) => set("Running", False, "Crashed", &crash.message),
            (Guest::Unreachable(why), _) => {
                set("Running", ConditionStatus::Unknown, "Unreachable", why)
            }
            (Guest::Absent | Guest::Ended(_), Some(why)) => set("Running", False, "Waiting", why),
            (Guest::Absent | Guest::Ended(_), None) => {
                let message = seen.last_exit.as_ref().map_or("", |e| e.message.as_str());
                set("Running", False, "Off", message);
            }
        }
        let live = alive(&view.guest);
        if live && self.vm.spec.guest_agent {
            match view.agent.connected {
                true => set("AgentConnected", True, "Answers", ""),
                false => set(
                    "AgentConnected",
                    False,
                    "Silent",
                    "the guest agent does not answer: it may not be installed, or the guest still boots",
                ),
            }
        } else {
            Condition::clear(&mut s.conditions, "AgentConnected");
        }
        let host = self.hypervisor.host();
        let mut toggle = |kind: &str, on: bool, reason: &str, message: &str| {
            if on {
                Condition::set(&mut s.conditions, kind, True, reason, message, now);
            } else {
                Condition::clear(&mut s.conditions, kind);
            }
        };
        let cold = view
            .runs
            .as_deref()
            .filter(|_| live)
            .map(|runs| difference(runs, &self.vm.spec.masked()).cold)
            .unwrap_or_default();
        toggle(
            "NeedsRestart",
            !cold.is_empty(),
            "Changed",
            &format!(
                "{} take effect when the VM is stopped and started",
                cold.join(", ")
            ),
        );
        let old =
            live && ![&view.qemu, &host.qemu].contains(&&String::new()) && view.qemu != host.qemu;
        toggle(
            "RunsOldQemu",
            old,
            "Upgraded",
            &format!(
                "it runs on QEMU {}, {} is installed: stop and start it to use that",
                view.qemu, host.qemu
            ),
        );
        let slow = live && view.acceleration == "tcg";
        toggle("Emulated", slow, "NoKvm", &host.why);
    }
}

fn alive(guest: &Guest) -> bool {
    !matches!(guest, Guest::Absent | Guest::Ended(_))
}

/// The addresses that were given to a VM.
fn allocated(spec: &VmSpec) -> Vec<String> {
    spec.nics
        .iter()
        .flat_map(|n| [n.ipv4.clone(), n.ipv6.clone()])
        .flatten()
        .collect()
}

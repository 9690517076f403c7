//! Brings each VM of this node to what its spec wants: looks, asks [`super::rules::plan`], carries the steps out, and says in the
//! status what is. Takes no hint, and nothing it does is lost when it is killed half-way.

mod report;
mod start;

use super::hypervisor::{Ask, Guests, Hypervisor, View, VmId, crashes_after};
use super::rules::{Change, Guest, Other, Seen, Step, difference, plan, turn};
use super::types::{Exit, ExitReason, Power, VmStatus};
use super::{KIND, Vm, disks, nics};
use crate::assignment::Assignment;
use futures::future::BoxFuture;
use model::{Kind, Resource, Result, Timestamp};
use parking_lot::Mutex;
use runtime::Key;
use runtime::event::Severity;
use runtime::{Bearing, Controller, Cx, Next, Obj, Watch, object_ref};
use std::sync::Arc;
use std::time::Duration;
use storage::volume::Volume;

/// Most steps in one go; a VM that needs more is looked at again at once.
const STEPS: usize = 8;

/// Runs the VMs of this node.
#[derive(Default)]
pub(super) struct Driver {
    /// When the first VM was looked at after this process started.
    since: Mutex<Option<Timestamp>>,
}

/// What one pass works with.
struct Pass<'a> {
    cx: &'a Cx,
    key: &'a Key,
    id: VmId,
    vm: Arc<Obj<Vm>>,
    status: VmStatus,
    hypervisor: Arc<dyn Hypervisor>,
}

impl Controller for Driver {
    fn name(&self) -> &'static str {
        "vm"
    }

    fn owns(&self) -> &'static Kind {
        &KIND
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::Owners(Volume::KIND.name),
            Watch::Referrers(Volume::KIND.name),
            Watch::Referrers(network::network::KIND.name),
            Watch::Twin(Assignment::KIND.name),
        ]
    }

    fn resync(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn parallel(&self) -> usize {
        8
    }

    fn reconcile<'a>(&'a self, cx: &'a Cx, key: &'a Key) -> BoxFuture<'a, Result<Next>> {
        Box::pin(async move {
            let Some(vm) = cx.get_key::<Vm>(key) else {
                return Ok(Next::Settled);
            };
            let Some(object) = object_ref(key) else {
                return Ok(Next::Settled);
            };
            let leaving = vm.metadata.deletion_requested.is_some();
            match assigned(cx, &vm) {
                Place::Here => {}
                // A VM that was never placed has nothing anywhere.
                Place::Nowhere(_) if leaving => {}
                Place::Nowhere(why) => return Ok(Next::WaitingFor(why)),
                Place::There => return Ok(Next::Settled),
            }
            let id = VmId {
                uid: vm.metadata.uid,
                object,
            };
            let status = vm.status.clone().unwrap_or_default();
            let hypervisor = Guests::of(cx)?;
            let mut pass = Pass {
                cx,
                key,
                id,
                vm,
                status,
                hypervisor,
            };
            let waited = {
                let now = cx.clock().now();
                now.since(*self.since.lock().get_or_insert(now))
            };
            pass.run(waited).await
        })
    }
}

enum Place {
    Here,
    There,
    Nowhere(String),
}

fn assigned(cx: &Cx, vm: &Obj<Vm>) -> Place {
    let project = vm.metadata.project.as_deref();
    match cx.get::<Assignment>(project, &vm.metadata.name) {
        Some(it) if it.spec.vm == vm.metadata.uid => match &it.spec.node {
            Some(node) if node == cx.node() => Place::Here,
            Some(_) => Place::There,
            None => {
                let why = it.status.iter().flat_map(|s| &s.conditions);
                let mut why = why.filter(|c| c.kind == "Placed").map(|c| &c.message);
                Place::Nowhere(
                    why.next_back()
                        .map_or("a node".into(), |m| format!("a node: {m}")),
                )
            }
        },
        _ => Place::Nowhere("a node to be chosen".into()),
    }
}

impl Pass<'_> {
    async fn run(&mut self, waited: Duration) -> Result<Next> {
        let missing = match self.leaving() {
            true => None,
            false => {
                let disks = disks::ensure(self.cx, &self.vm).await?;
                let lacks = self.hypervisor.lacks(&self.vm.spec);
                lacks.or(disks).or_else(|| nics::wait(self.cx, &self.vm))
            }
        };
        for _ in 0..STEPS {
            let view = self.hypervisor.look(self.cx, &self.id).await?;
            let now = self.cx.clock().now();
            let seen = self.seen(&view, missing.clone(), waited, now);
            let steps = plan(&self.vm.spec, &seen, now);
            self.report(&view, &seen, &steps).await?;
            let Some(step) = steps.into_iter().next() else {
                return Ok(Next::Settled);
            };
            match step {
                Step::Wait(why) => return Ok(Next::WaitingFor(why)),
                Step::WaitUntil(at, _) => {
                    return Ok(Next::Again(at.since(now).max(Duration::from_millis(100))));
                }
                Step::Release => return self.release().await,
                step => self.carry_out(step, &view).await?,
            }
        }
        Ok(Next::Again(Duration::from_millis(200)))
    }

    fn leaving(&self) -> bool {
        self.vm.metadata.deletion_requested.is_some()
    }

    fn seen(&self, view: &View, missing: Option<String>, waited: Duration, now: Timestamp) -> Seen {
        let host = self.hypervisor.host();
        let changes = match &view.runs {
            Some(runs) => difference(runs, &self.vm.spec.masked()).hot,
            None => Vec::new(),
        };
        // Only a VM that ran before this boot of the host waits for others.
        let again = !self.status.boot.is_empty() && self.status.boot != host.boot;
        let turn = again
            .then(|| {
                let order = self.vm.spec.auto_start.order;
                turn(order, &others(self.cx, &host.boot), waited, now)
            })
            .flatten();
        let guest = match &view.guest {
            // A boot leaves nothing in /run: a guest without a trace that never ended went down with the host.
            Guest::Absent if again && self.status.last_exit.is_none() => Guest::Ended(Exit {
                reason: ExitReason::HostReboot,
                at: now,
                boot: self.status.boot.clone(),
                message: "the host went down with it".into(),
            }),
            seen => seen.clone(),
        };
        let (bearing, clock) = (&self.status.stopping_bearing, self.cx.clock().bearing());
        let asked = |at: Option<Timestamp>| at.map(|at| bearing.restate(at, &clock));
        Seen {
            guest,
            missing,
            turn,
            boot: host.boot,
            last_exit: self.status.last_exit.clone(),
            crashes: self.status.crashes,
            starts: self.status.starts,
            stopping_since: asked(self.status.stopping_since),
            shutdown_asked: asked(self.status.shutdown_asked),
            changes,
            deleting: self.leaving(),
        }
    }

    async fn carry_out(&mut self, step: Step, view: &View) -> Result<()> {
        tracing::info!(vm = %self.id.object, ?step, "a step is carried out");
        match step {
            Step::Launch { paused } => self.start(paused).await,
            Step::Continue => self.ask(Ask::Continue).await,
            Step::Pause => self.ask(Ask::Pause).await,
            Step::AskShutdown => {
                // Written first: the time-out runs also when the guest cannot be asked, and after a crash of ours it
                // is asked again.
                let (now, bearing) = (self.cx.clock().now(), self.cx.clock().bearing());
                self.edit(|s| {
                    let since = s
                        .stopping_since
                        .map(|at| s.stopping_bearing.restate(at, &bearing));
                    s.stopping_since = since.or(Some(now));
                    s.shutdown_asked = Some(now);
                    s.stopping_bearing = bearing.clone();
                })
                .await?;
                self.ask(Ask::Shutdown).await
            }
            Step::PowerOff(reason, message) => self.ask(Ask::PowerOff(reason, message)).await,
            Step::Apply(change) => self.apply(change).await,
            Step::Clean(exit) => self.clean(exit, view).await,
            Step::Wait(_) | Step::WaitUntil(..) | Step::Release => Ok(()),
        }
    }

    async fn ask(&self, ask: Ask) -> Result<()> {
        self.hypervisor.ask(&self.id, ask).await.map(drop)
    }

    async fn apply(&self, change: Change) -> Result<()> {
        let ask = match change {
            Change::Vcpus(n) => Ask::Vcpus(n),
            Change::Memory(bytes) => Ask::Memory(bytes.0),
            Change::Attach(disk) => Ask::Attach(disks::open(self.cx, &self.vm, &disk).await?),
            Change::Detach(name) => Ask::Detach(name),
            Change::Grow(name, size) => Ask::Grow(name, size.0),
            Change::Plug(nic) => {
                let user = self.hypervisor.user(&self.id);
                Ask::Plug(nics::open(self.cx, &self.id, &self.vm.spec, &nic, user).await?)
            }
            Change::Unplug(name) => {
                self.ask(Ask::Unplug(name.clone())).await?;
                return nics::close(self.cx, &self.id, &name).await;
            }
            Change::Link(name, up) => Ask::Link(name, up),
        };
        self.ask(ask).await
    }

    /// Takes the traces of an ended guest away. Its end is written first: a crash in between only cleans twice.
    async fn clean(&mut self, mut exit: Exit, view: &View) -> Result<()> {
        let now = self.cx.clock().now();
        if self.status.stopping_since.is_some() && exit.reason == ExitReason::GuestShutdown {
            exit.reason = ExitReason::Asked;
            exit.message = "it shut down as asked".into();
        }
        let crashed = matches!(exit.reason, ExitReason::Crash | ExitReason::StartFailed);
        let known = self.status.last_exit.as_ref() == Some(&exit);
        let crashes = match (crashed, known) {
            (_, true) => self.status.crashes,
            (true, false) => crashes_after(self.status.crashes, view.started, now),
            (false, false) => 0,
        };
        let ended = exit.clone();
        self.edit(|s| {
            s.last_exit = Some(ended.clone());
            s.crashes = crashes;
            s.stopping_since = None;
            s.shutdown_asked = None;
            s.stopping_bearing = Bearing::default();
        })
        .await?;
        let spec = view.runs.as_deref().unwrap_or(&self.vm.spec);
        for nic in &spec.nics {
            nics::close(self.cx, &self.id, &nic.name).await?;
        }
        self.hypervisor.clean(&self.id).await?;
        if !known {
            let (event, severity) = match exit.reason {
                ExitReason::Asked => ("vm.stopped", Severity::Info),
                ExitReason::GuestShutdown => ("vm.shut-down", Severity::Info),
                ExitReason::Reboot => ("vm.rebooted", Severity::Info),
                ExitReason::HostReboot => ("vm.lost", Severity::Warning),
                ExitReason::Crash | ExitReason::StartFailed => ("vm.crashed", Severity::Error),
            };
            let object = &self.id.object;
            self.cx.event(object, event, &exit.message, severity).await;
        }
        Ok(())
    }

    /// Nothing of the guest is left: its interfaces, firmware variables and TPM go, then we let go of the VM. What belongs
    /// to it, its disks among it, the engine deletes before the VM itself goes.
    async fn release(&self) -> Result<Next> {
        for nic in &self.vm.spec.nics {
            nics::close(self.cx, &self.id, &nic.name).await?;
        }
        self.hypervisor.forget(&self.id).await?;
        self.cx.release(self.key).await?;
        Ok(Next::Settled)
    }

    /// Writes the status and keeps our copy of it the same.
    async fn edit(&mut self, edit: impl Fn(&mut VmStatus)) -> Result<()> {
        edit(&mut self.status);
        self.cx.set_status::<Vm>(self.key, |s| edit(s)).await?;
        Ok(())
    }
}

/// The other VMs of this node that ran before the host's boot and shall run again.
fn others(cx: &Cx, boot: &str) -> Vec<Other> {
    let ours = |vm: &Obj<Vm>| {
        let status = vm.status.as_ref()?;
        let again = vm.spec.power != Power::Off
            && vm.metadata.deletion_requested.is_none()
            && status.node.as_deref() == Some(cx.node())
            && !status.boot.is_empty();
        let failed = status.last_exit.as_ref().is_some_and(|e| e.boot == boot);
        again.then(|| Other {
            name: vm.metadata.name.to_string(),
            order: vm.spec.auto_start.order,
            delay: vm.spec.auto_start.delay.duration(),
            tried: status.boot == boot || failed,
            started: (status.boot == boot).then_some(status.started).flatten(),
        })
    };
    cx.list::<Vm>(None)
        .iter()
        .filter_map(|vm| ours(vm))
        .collect()
}

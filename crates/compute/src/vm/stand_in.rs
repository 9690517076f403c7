//! A hypervisor without QEMU, for tests: guests are entries in a table, which outlive our processes as real ones do.

use crate::vm::Vm;
use crate::vm::hypervisor::{
    AgentView, Ask, Console, Host, Hypervisor, Launch, Reply, Screen, View, VmId,
};
use crate::vm::rules::{Crashed, Guest};
use crate::vm::types::{Exit, ExitReason, VmSpec};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::BoxFuture;
use model::{Bytes, Error, Result, Timestamp, Uid};
use parking_lot::Mutex;
use runtime::Cx;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone)]
struct Fake {
    id: VmId,
    guest: Guest,
    spec: VmSpec,
    incarnation: u64,
    started: Timestamp,
    ignores_shutdown: bool,
    /// Until when its kernel does not listen.
    boots_until: Option<Timestamp>,
    inside: Inside,
}

/// What its agent has done inside.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inside {
    /// Files by path.
    pub files: HashMap<String, Vec<u8>>,
    /// Open files: their path.
    pub open: HashMap<i64, String>,
    /// Whether its file systems hold.
    pub frozen: bool,
    /// Which boot of it this is.
    pub boot: u64,
}

#[derive(Default)]
struct Table {
    /// What the host lacks to start guests.
    lacks: Option<String>,
    /// Whether guests refuse what procedures ask.
    refuses: bool,
    guests: HashMap<Uid, Fake>,
    asked: HashMap<String, Vec<String>>,
    boots: u32,
    /// The process that looked last: it is woken, and its clock is ours.
    cx: Option<Cx>,
}

/// All guests of one host.
#[derive(Default)]
pub struct World(Mutex<Table>);

impl World {
    /// The host goes down and comes up again.
    pub fn reboot(&self) {
        let mut table = self.0.lock();
        table.guests.clear();
        table.boots += 1;
    }

    /// Has the host lack something, or nothing; its VMs are looked at again.
    pub fn lack(&self, what: Option<String>) {
        let mut table = self.0.lock();
        table.lacks = what;
        let cx = table.cx.clone();
        drop(table);
        for vm in cx.iter().flat_map(|cx| cx.list::<Vm>(None)) {
            if let Some(cx) = &cx {
                cx.wake(&cx.key::<Vm>(vm.metadata.project.as_deref(), &vm.metadata.name));
            }
        }
    }

    /// Has guests refuse, or not, what procedures ask of them.
    pub fn refuse(&self, refuse: bool) {
        self.0.lock().refuses = refuse;
    }

    /// What is inside a VM's guest, when it has one.
    pub fn inside(&self, name: &str) -> Option<Inside> {
        let table = self.0.lock();
        let mut fakes = table.guests.values();
        let fake = fakes.find(|f| f.id.object.name == name)?;
        let mut inside = fake.inside.clone();
        inside.boot = fake.incarnation;
        Some(inside)
    }

    /// What was asked of a VM's guest since the last call.
    pub fn asked(&self, name: &str) -> String {
        let asked = self.0.lock().asked.remove(name);
        asked.unwrap_or_default().join(" ")
    }

    /// Something happens inside a guest.
    pub fn happens(&self, cx: &Cx, name: &str, event: &str) {
        let mut table = self.0.lock();
        let boot = table.boots.to_string();
        let fake = table.guests.values_mut().find(|f| f.id.object.name == name);
        let fake = fake.unwrap_or_else(|| panic!("{name} has no guest"));
        let now = cx.clock().now();
        let ended = |reason, message: &str| {
            Guest::Ended(Exit {
                reason,
                at: now,
                boot: boot.clone(),
                message: message.into(),
            })
        };
        fake.guest = match event {
            "shuts-down" => ended(ExitReason::GuestShutdown, "the guest shut itself down"),
            "dies" => ended(ExitReason::Crash, "QEMU was killed"),
            "panics" => Guest::Crashed(Crashed {
                message: "the guest panicked".into(),
            }),
            "disk-full" => Guest::Stuck {
                since: now,
                why: "the disk is full".into(),
            },
            "resets" => {
                fake.incarnation += 1;
                fake.started = now;
                Guest::Running
            }
            "ignores-shutdown" => {
                fake.ignores_shutdown = true;
                fake.guest.clone()
            }
            "boots-for-25s" => {
                fake.boots_until = Some(now.plus(Duration::from_secs(25)));
                fake.guest.clone()
            }
            other => panic!("{other:?} does not happen"),
        };
        let key = fake.id.key();
        drop(table);
        cx.wake(&key);
    }

    fn note(&self, vm: &VmId, what: &str) {
        let name = vm.object.name.clone();
        self.0
            .lock()
            .asked
            .entry(name)
            .or_default()
            .push(what.into());
    }

    fn answer(&self, vm: &VmId, ask: Ask) -> Result<Reply> {
        let mut table = self.0.lock();
        let refuses = table.refuses;
        let cx = table.cx.clone();
        let now = cx.as_ref().map(|cx| cx.clock().now());
        let boot = table.boots.to_string();
        let Some(fake) = table.guests.get_mut(&vm.uid) else {
            return Err(Error::refused("it does not run"));
        };
        let ended = |reason, message: String| {
            Guest::Ended(Exit {
                reason,
                at: now.unwrap_or(fake.started),
                boot: boot.clone(),
                message,
            })
        };
        let mut reply = json!(null);
        match ask {
            Ask::Reset(_) | Ask::Reboot | Ask::Keys(_) | Ask::Agent { .. } if refuses => {
                return Err(Error::refused("the guest does not want to"));
            }
            Ask::Keys(_) => {}
            Ask::Agent { command, arguments } => {
                reply = fake.inside.answer(command, &arguments)?;
            }
            Ask::Continue => fake.guest = Guest::Running,
            Ask::Pause => fake.guest = Guest::Paused,
            Ask::Shutdown if fake.ignores_shutdown => {}
            Ask::Shutdown if fake.boots_until > now => {}
            Ask::Shutdown => fake.guest = ended(ExitReason::GuestShutdown, "it shut down".into()),
            Ask::Reboot => fake.guest = ended(ExitReason::Reboot, "it reboots".into()),
            Ask::PowerOff(reason, message) => fake.guest = ended(reason, message),
            Ask::Reset(boot) if boot != fake.incarnation => {}
            Ask::Reset(_) => {
                fake.incarnation += 1;
                fake.inside = Inside::default();
                fake.guest = Guest::Running;
            }
            Ask::Vcpus(n) => fake.spec.vcpus = n,
            Ask::Memory(n) => fake.spec.memory = Bytes(n),
            other => return Err(Error::refused(format!("the stand-in cannot {other:?}"))),
        }
        let key = vm.key();
        drop(table);
        if let Some(cx) = cx {
            cx.wake(&key);
        }
        Ok(Reply::Json(reply))
    }
}

impl Inside {
    fn answer(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let handle = arguments["handle"].as_i64().unwrap_or(0);
        let path = self.open.get(&handle).cloned().unwrap_or_default();
        Ok(match command {
            "guest-file-open" => {
                let path = arguments["path"].as_str().unwrap_or_default().to_owned();
                if arguments["mode"] == "w" {
                    self.files.insert(path.clone(), Vec::new());
                }
                let free = (1..).find(|n| !self.open.contains_key(n)).unwrap_or(0);
                self.open.insert(free, path);
                json!(free)
            }
            "guest-file-read" => {
                let bytes = self.files.get(&path).cloned().unwrap_or_default();
                json!({ "buf-b64": STANDARD.encode(bytes), "eof": true })
            }
            "guest-file-write" => {
                let text = arguments["buf-b64"].as_str().unwrap_or_default();
                let bytes = STANDARD
                    .decode(text)
                    .map_err(|_| Error::refused("no base64"))?;
                self.files.entry(path).or_default().extend(bytes);
                json!({})
            }
            "guest-file-close" => {
                self.open.remove(&handle);
                json!({})
            }
            "guest-fsfreeze-freeze" => {
                self.frozen = true;
                json!(1)
            }
            "guest-fsfreeze-thaw" => {
                self.frozen = false;
                json!(1)
            }
            "guest-get-osinfo" => json!({ "pretty-name": "stand-in" }),
            "guest-get-users" => json!([]),
            other => return Err(Error::refused(format!("the stand-in cannot {other}"))),
        })
    }
}

/// The first word of what is asked.
fn word(ask: &Ask) -> String {
    let text = format!("{ask:?}");
    let end = text.find(|c: char| !c.is_alphanumeric());
    text[..end.unwrap_or(text.len())].to_lowercase()
}

impl Hypervisor for World {
    fn host(&self) -> Host {
        Host {
            boot: self.0.lock().boots.to_string(),
            qemu: "10.0.2".into(),
            acceleration: "tcg".into(),
            why: "this is a stand-in".into(),
        }
    }

    fn lacks(&self, _: &VmSpec) -> Option<String> {
        self.0.lock().lacks.clone()
    }

    fn user(&self, _: &VmId) -> u32 {
        0
    }

    fn look<'a>(&'a self, cx: &'a Cx, vm: &'a VmId) -> BoxFuture<'a, Result<View>> {
        Box::pin(async move {
            let mut table = self.0.lock();
            table.cx = Some(cx.clone());
            let Some(fake) = table.guests.get(&vm.uid) else {
                return Ok(View::absent());
            };
            Ok(View {
                guest: fake.guest.clone(),
                runs: Some(Arc::new(fake.spec.clone())),
                incarnation: fake.incarnation,
                started: Some(fake.started),
                acceleration: "tcg".into(),
                qemu: "10.0.2".into(),
                agent: AgentView::default(),
            })
        })
    }

    fn launch<'a>(&'a self, cx: &'a Cx, launch: Launch) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.note(&launch.vm, "launch");
            if launch.spec.description == "cannot start" {
                return Err(Error::refused("QEMU ended at once"));
            }
            let fake = Fake {
                id: launch.vm.clone(),
                guest: match launch.paused {
                    true => Guest::Paused,
                    false => Guest::Running,
                },
                spec: launch.spec.masked(),
                incarnation: launch.incarnation,
                started: cx.clock().now(),
                ignores_shutdown: false,
                boots_until: None,
                inside: Inside::default(),
            };
            self.0.lock().guests.insert(launch.vm.uid, fake);
            Ok(())
        })
    }

    fn ask<'a>(&'a self, vm: &'a VmId, ask: Ask) -> BoxFuture<'a, Result<Reply>> {
        Box::pin(async move {
            self.note(vm, &word(&ask));
            self.answer(vm, ask)
        })
    }

    fn clean<'a>(&'a self, vm: &'a VmId) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.0.lock().guests.remove(&vm.uid);
            Ok(())
        })
    }

    fn forget<'a>(&'a self, vm: &'a VmId) -> BoxFuture<'a, Result<()>> {
        self.clean(vm)
    }

    fn console<'a>(&'a self, _: &'a VmId) -> BoxFuture<'a, Result<Console>> {
        Box::pin(async { Err(Error::refused("the stand-in has no serial line")) })
    }

    fn screen<'a>(&'a self, _: &'a VmId) -> BoxFuture<'a, Result<Screen>> {
        Box::pin(async { Err(Error::refused("the stand-in has no screen")) })
    }
}

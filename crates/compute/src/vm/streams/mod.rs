//! Byte streams of a VM: its serial line, its screen, commands in the guest. Consoles (the first two) are open at most so
//! many times at once per VM as the setting `consoles-per-vm` says, and who opened and closed one is an event.

mod console;
mod exec;
mod screen;
mod viewer;

use model::{StreamKind, Way, schema};
use runtime::OpenFn;

/// The declarations.
pub static DECLARED: &[StreamKind] = &[
    StreamKind {
        name: "console",
        doc: "The serial line, shared by all who have it open. It begins with what the guest said last.",
        way: Way::Duplex,
        ticketed: true,
        input: schema::empty,
    },
    StreamKind {
        name: "vnc",
        doc: "The screen, as the bytes of the RFB protocol.",
        way: Way::Duplex,
        ticketed: true,
        input: schema::empty,
    },
    StreamKind {
        name: "exec",
        doc: "Runs a command in the guest through its agent. The client sends `{\"command\": [..], \"stdin\": \"..\"}`; the \
              answer is `{\"stream\": \"stdout\"}` or `{\"stream\": \"stderr\"}` before bytes of it, and `{\"exit\": n}` at the end.",
        way: Way::Duplex,
        ticketed: false,
        input: schema::empty,
    },
    StreamKind {
        name: "screenshot",
        doc: "What the screen shows now, as PNG.",
        way: Way::Read,
        ticketed: false,
        input: schema::empty,
    },
];

/// How they open.
pub static OPEN: &[(&str, OpenFn)] = &[
    ("console", |cx, request, io| {
        Box::pin(console::open(cx, request, io))
    }),
    ("vnc", |cx, request, io| {
        Box::pin(screen::vnc(cx, request, io))
    }),
    ("exec", |cx, request, io| {
        Box::pin(exec::open(cx, request, io))
    }),
    ("screenshot", |cx, request, io| {
        Box::pin(screen::shot(cx, request, io))
    }),
];

use super::Vm;
use super::hypervisor::{Guests, Hypervisor, VmId};
use super::rules::allowed;
use model::{Error, Result};
use runtime::{Cx, StreamRequest};
use std::sync::Arc;

/// The guest that a stream is about, when its state allows this.
async fn guest(
    cx: &Cx,
    request: &StreamRequest,
    verb: &str,
) -> Result<(VmId, Arc<dyn Hypervisor>)> {
    let object = request.target.clone();
    let vm = cx
        .get::<Vm>(object.project.as_deref(), &object.name)
        .ok_or_else(|| Error::not_found(format!("there is no VM `{}`", object.name)))?;
    let state = vm.status.as_ref().map(|s| s.state).unwrap_or_default();
    allowed(verb, &object.name, state)?;
    let id = VmId {
        uid: vm.metadata.uid,
        object,
    };
    let hypervisor = Guests::of(cx)?;
    // After a restart of ours the guest may not have been taken up yet.
    hypervisor.look(cx, &id).await?;
    Ok((id, hypervisor))
}

//! Who has a console of a VM open: counted, bounded, and told.

use super::super::hypervisor::{Guests, VmId};
use model::{Error, Result, Uid};
use parking_lot::Mutex;
use runtime::event::Severity;
use runtime::setting::CONSOLES_PER_VM;
use runtime::{Cx, StreamRequest};
use std::collections::HashMap;
use std::sync::Arc;

/// One open console; closed when it is dropped, however the stream ends.
pub(super) struct Viewer {
    cx: Cx,
    vm: VmId,
    said: String,
    open: Arc<Mutex<HashMap<Uid, u64>>>,
}

impl Viewer {
    /// Takes a place, or refuses when all are taken. `what` is opened, in words.
    pub(super) async fn enter(
        cx: &Cx,
        request: &StreamRequest,
        vm: &VmId,
        what: &str,
    ) -> Result<Viewer> {
        let open = Guests::part(cx)?.viewers.clone();
        let most = CONSOLES_PER_VM.number(cx);
        {
            let mut open = open.lock();
            let count = open.entry(vm.uid).or_default();
            if *count >= most {
                let name = &vm.object.name;
                return Err(Error::refused(format!(
                    "VM `{name}` has {most} consoles open already"
                ))
                .hint("close one of them, or raise the setting `consoles-per-vm`"));
            }
            *count += 1;
        }
        let viewer = Viewer {
            cx: cx.clone(),
            vm: vm.clone(),
            said: format!("the {what} by {}", request.actor.name),
            open,
        };
        let message = format!("{} was opened", viewer.said);
        let object = &vm.object;
        cx.event(object, "vm.console-opened", &message, Severity::Info)
            .await;
        Ok(viewer)
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        {
            let mut open = self.open.lock();
            if let Some(count) = open.get_mut(&self.vm.uid) {
                *count -= 1;
                if *count == 0 {
                    open.remove(&self.vm.uid);
                }
            }
        }
        // The stream may have been cut: the event is written beside it.
        let (cx, object) = (self.cx.clone(), self.vm.object.clone());
        let message = format!("{} was closed", self.said);
        self.cx.life().spawn("console event", async move {
            cx.event(&object, "vm.console-closed", &message, Severity::Info)
                .await;
        });
    }
}

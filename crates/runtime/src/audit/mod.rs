//! Who did what: a row before every change (`intent`, on disk before the change begins) and one after it (`outcome`).
//!
//! A change whose intent cannot be kept is refused. Each commit leaves the name of its attempt in the store, so that after
//! a crash the outcomes that are missing can be written and are true. No secret is in a row. What happens to security
//! without a change of an object ([`CATALOGUE`]) comes in by [`note`](fn@note).
//!
//! Rows are chained by their hashes (`format`), the chain is signed by a key that is then erased (`signer`), its heads
//! leave the machine, and what is personal can be read with the key of its person only (`subjects`). `verify` needs
//! none of the keys.

mod anchors;
mod catalogue;
mod chain;
mod encode;
mod files;
mod format;
mod head;
mod kind;
mod note;
mod pair;
mod reading;
mod recover;
mod row;
mod signer;
mod stamp;
mod subjects;
mod trail;
mod verify;

pub(crate) use anchors::address;
pub(crate) use anchors::stamper;
pub use anchors::{Anchor, AnchorCarrier, Carrier};
pub use catalogue::*;
pub use head::{ChainId, Head, PublicKey};
pub use kind::{AuditChain, ChainSpec, ChainStatus, SUBSYSTEM, make};
pub use note::{Note, note, refusal};
pub(crate) use note::{lacks, refused};
pub(crate) use pair::{Open, intent, outcome};
pub use row::{Phase, Row};
pub use subjects::{KeyCounts, KeyState};
pub use trail::{
    Durable, FileTrail, HEADS, SEAL_AFTER, SEAL_ROWS, Standing, Trail, TrailOptions, own_heads,
};
pub use verify::{Broken, Verdict, Verifier, heads_of, verify};

use crate::{ActorKind, Cx};
use model::Result;
use parking_lot::Mutex;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use store::Key;
use tokio::sync::mpsc;

/// Longest params that a row holds, in bytes.
const PARAMS: usize = 4096;
/// Keys in which commits leave the names of their attempts: enough for all that can be under way at once.
const SLOTS: u64 = 1024;
/// Where the slots lie in the store.
const PREFIX: &str = "a/";
/// Where those of changes lie whose intent must be on disk before.
const ANNOUNCED: &str = "a/i/";

/// The key in which a commit leaves the name of its attempt.
pub(crate) fn slot(n: u64, actor: ActorKind) -> Key {
    match actor {
        ActorKind::System => Key::new(format!("{PREFIX}l/{:04}", n % SLOTS)),
        _ => Key::new(format!("{ANNOUNCED}{:04}", n % SLOTS)),
    }
}

/// SHA-256 of what was asked, in hexadecimal.
fn digest(params: &Value) -> String {
    hex::encode(Sha256::digest(format::canonical(params).as_bytes()))
}

/// The trail of this process, as a part: `CxBuilder::part(Arc::new(AuditTrail::new(..)))`.
pub struct AuditTrail {
    trail: Arc<dyn Trail>,
    repeats: note::Repeats,
    refusals: mpsc::Sender<Note>,
    to_write: Mutex<Option<mpsc::Receiver<Note>>>,
    anchors: Mutex<Vec<Anchor>>,
}

impl AuditTrail {
    /// Over what keeps the rows.
    pub fn new(trail: Arc<dyn Trail>) -> AuditTrail {
        let (refusals, to_write) = note::queue();
        AuditTrail {
            trail,
            repeats: note::Repeats::default(),
            refusals,
            to_write: Mutex::new(Some(to_write)),
            anchors: Mutex::default(),
        }
    }

    fn anchors(&self) -> Vec<Anchor> {
        self.anchors.lock().clone()
    }

    fn set_anchors(&self, anchors: Vec<Anchor>) {
        *self.anchors.lock() = anchors;
    }

    /// What keeps the rows.
    pub fn trail(&self) -> &Arc<dyn Trail> {
        &self.trail
    }
}

/// Ends what the last run of this process has begun, and begins to write what the gate refuses.
pub(crate) async fn start(cx: &Cx) -> Result<()> {
    let Some(part) = cx.try_part::<AuditTrail>() else {
        return Ok(());
    };
    recover::recover(cx).await?;
    if let Some(trail) = cx.try_part::<FileTrail>() {
        if let Some(why) = trail.is_cut() {
            let found = Note::by(&BROKEN, &crate::Actor::system("audit"));
            note(cx, found.with("found", why)).await?;
        }
        let seals = seal_in_time(cx.clone(), trail.clone());
        cx.life().spawn("audit seals", seals);
        let heads = anchors::deliver(cx.clone(), part.clone(), trail);
        cx.life().spawn("audit anchors", heads);
    }
    let to_write = part.to_write.lock().take();
    if let Some(to_write) = to_write {
        let work = note::write_refusals(cx.clone(), part, to_write);
        cx.life().spawn("audit of refusals", work);
    }
    Ok(())
}

/// Signs the chain when a row has waited a minute for it, and at the end of the process.
async fn seal_in_time(cx: Cx, trail: Arc<FileTrail>) {
    let stop = cx.shutdown();
    let mut standing = trail.standing();
    let mut people = trail.subjects().came();
    let mut shown = None;
    loop {
        let since = standing.borrow_and_update().unsealed_since;
        let sealed = standing.borrow().sealed.as_ref().map(|head| head.seq);
        if sealed != shown {
            shown = sealed;
            cx.wake(&crate::object_key(kind::KIND.name, None, cx.node()));
        }
        let due = async {
            match since {
                Some(since) => {
                    let waited = cx.clock().now().since(since);
                    tokio::time::sleep(SEAL_AFTER.saturating_sub(waited)).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => break,
            _ = standing.wait_for(|now| now.unsealed_since != since) => continue,
            Ok(()) = people.changed() => {
                cx.wake(&crate::object_key(kind::KIND.name, None, cx.node()));
                continue;
            }
            () = due => {}
        }
        if let Err(error) = trail.seal().await {
            tracing::error!(?error, "the audit trail could not be sealed");
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(SEAL_AFTER) => {}
            }
        }
    }
    if let Err(error) = trail.seal().await {
        tracing::error!(?error, "the audit trail could not be sealed");
    }
}

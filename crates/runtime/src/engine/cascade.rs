//! What belongs to an object goes with it, whatever the two kinds are.
//!
//! An object that owns others is deleted in this order: its own controllers let go of it, then what it owns is deleted,
//! then it goes itself. Until then the hold `owned` keeps it, so that its name is not free while parts of it are left.
//! What is found without its owner (it was removed by an older version, or replaced) is deleted as well.

use crate::{Cx, Op, object_ref};
use model::{Result, What};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;
use store::Key;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

/// The hold of an object that others belong to.
pub(crate) const OWNED: &str = "owned";
/// When a deletion that was refused is asked for again.
const AGAIN: Duration = Duration::from_secs(5);

pub(super) async fn run(cx: Cx) {
    let stop = cx.shutdown();
    let mut deltas = cx.cache().subscribe();
    let mut due: BTreeSet<Key> = owners(&cx);
    let mut later: HashMap<Key, Instant> = HashMap::new();
    loop {
        for owner in std::mem::take(&mut due) {
            later.remove(&owner);
            if let Err(error) = look(&cx, &owner).await {
                tracing::warn!(%owner, ?error, "what belongs to an object cannot be deleted yet");
                later.insert(owner, Instant::now() + AGAIN);
            }
        }
        let next = later.values().min().copied();
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                let now = Instant::now();
                due.extend(later.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()));
            }
            delta = deltas.recv() => match delta {
                Ok(delta) => {
                    let leaves = delta.new.as_ref().is_none_or(|row| row.deleting);
                    if leaves {
                        due.insert(delta.key.clone());
                    }
                    // One that has come late, or has gone: its owner may be waiting for it, or be gone already.
                    let moved = delta.new.as_ref().map(|r| &r.owner) != delta.old.as_ref().map(|r| &r.owner);
                    if leaves || moved {
                        let rows = [&delta.new, &delta.old];
                        due.extend(rows.into_iter().flatten().filter_map(|row| row.owner.clone()));
                    }
                }
                Err(RecvError::Lagged(_)) => due = owners(&cx),
                Err(RecvError::Closed) => return,
            },
        }
    }
}

/// Every object that others say they belong to, and every one that is leaving.
fn owners(cx: &Cx) -> BTreeSet<Key> {
    let mut out = BTreeSet::new();
    for declared in cx.registry().iter() {
        for row in cx.cache().rows(declared.kind().name, None) {
            if row.deleting {
                out.insert(row.key.clone());
            }
            out.extend(row.owner.clone());
        }
    }
    out
}

/// Deletes what belongs to an object that is leaving or gone, and lets it go when nothing is left.
async fn look(cx: &Cx, owner: &Key) -> Result<()> {
    let Some(target) = object_ref(owner) else {
        return Ok(());
    };
    // An owner of a kind that this program does not know cannot be seen to be gone.
    if cx.registry().get(&target.kind).is_none() {
        return Ok(());
    }
    let row = cx.cache().row(&target.kind, owner);
    let mut waits = false;
    let mut last = false;
    if let Some(row) = row.as_ref().filter(|row| row.deleting) {
        let object = row.value()?;
        let holds = object["metadata"]["holds"].as_array();
        waits = holds.is_some_and(|h| h.iter().any(|h| h == OWNED));
        last = waits && holds.is_some_and(|h| h.len() == 1);
    }
    let mut left = 0;
    for key in cx.cache().owned(owner) {
        let Some(it) = object_ref(&key) else { continue };
        let Some(owned) = cx.cache().row(&it.kind, &key) else {
            continue;
        };
        let ours = row
            .as_ref()
            .is_some_and(|row| Some(row.uid) == owned.owner_uid);
        left += usize::from(ours);
        // While its owner's controllers still work on it, it stays: a guest must be off before its disks go.
        if owned.deleting || ours && !last {
            continue;
        }
        let op = Op::Delete {
            target: it,
            keep: Vec::new(),
        };
        match cx.submit(op, "owner is gone").await {
            Err(error) if error.what != What::NotFound => return Err(error),
            _ => {}
        }
    }
    if waits && left == 0 {
        cx.release_hold(owner, OWNED).await?;
    }
    Ok(())
}

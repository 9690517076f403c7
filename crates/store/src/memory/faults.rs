//! Failures a test orders: "the third commit is done, but its caller never learns of it".

use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::watch;

/// What happens to one commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The commit is refused as `Unavailable` and not done; the store goes on.
    Fail,
    /// The commit is done, yet its caller is told `Unavailable`; the store goes on.
    FailAfter,
    /// The process dies before the commit is done: it and everything after it is `Unavailable`.
    CrashBefore,
    /// The process dies right after the commit is done: its caller and everything after it get `Unavailable`.
    CrashAfter,
}

impl Fault {
    pub(super) fn commits(self) -> bool {
        matches!(self, Fault::FailAfter | Fault::CrashAfter)
    }

    pub(super) fn crashes(self) -> bool {
        matches!(self, Fault::CrashBefore | Fault::CrashAfter)
    }
}

/// The faults ordered for a store. Clones share their orders. Commits that change nothing are not counted, nor are
/// the deletions of leases that end.
#[derive(Clone, Debug)]
pub struct Faults(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    plan: Mutex<Plan>,
    crashed: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Plan {
    commits: u64,
    orders: Vec<(u64, Fault)>,
}

impl Default for Faults {
    fn default() -> Self {
        Faults(Arc::new(Inner {
            plan: Mutex::default(),
            crashed: watch::Sender::new(false),
        }))
    }
}

impl Faults {
    /// No fault until one is ordered.
    pub fn new() -> Self {
        Faults::default()
    }

    /// Orders `fault` for the `nth` commit of this store, counted from 1 at its start.
    pub fn at(self, nth: u64, fault: Fault) -> Self {
        self.order(nth, fault);
        self
    }

    /// As [`Faults::at`], on a store that runs already.
    pub fn order(&self, nth: u64, fault: Fault) {
        self.0.plan.lock().orders.push((nth, fault));
    }

    /// How many commits the store was asked for so far, failed ones included.
    pub fn commits(&self) -> u64 {
        self.0.plan.lock().commits
    }

    /// Whether a crash has happened.
    pub fn has_crashed(&self) -> bool {
        *self.0.crashed.borrow()
    }

    /// Waits until a crash has happened.
    pub async fn crashed(&self) {
        // The sender lives in `self`, so waiting can only end because the value is true.
        let _ = self
            .0
            .crashed
            .subscribe()
            .wait_for(|crashed| *crashed)
            .await;
    }

    pub(super) fn next_commit(&self) -> Option<Fault> {
        let mut plan = self.0.plan.lock();
        plan.commits += 1;
        let nth = plan.commits;
        let at = plan.orders.iter().position(|(n, _)| *n == nth)?;
        Some(plan.orders.swap_remove(at).1)
    }

    pub(super) fn tell_crashed(&self) {
        self.0.crashed.send_replace(true);
    }
}

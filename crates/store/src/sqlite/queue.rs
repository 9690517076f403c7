//! The bounded queue between callers and the one writer thread.
//!
//! The writer takes everything that waits in one go, so that what piles up during one fsync shares the next.

use crate::{LeaseId, Result, Revision, StoreError, Txn};
use parking_lot::{Condvar, Mutex};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};

/// Most requests that wait; more callers wait for a place.
const PLACES: usize = 4096;

/// What the writer is asked.
pub(super) enum Request {
    Commit(Txn, oneshot::Sender<Result<Revision>>),
    Grant(Duration, oneshot::Sender<Result<LeaseId>>),
    Revoke(LeaseId, oneshot::Sender<Result<()>>),
}

pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    places: Semaphore,
}

#[derive(Default)]
struct Waiting {
    requests: Vec<Request>,
    closed: bool,
    /// The writer sleeps until at least so many requests wait; 0 while it works.
    wakes_at: usize,
}

/// What the writer finds when it looks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Requests,
    Nothing,
    Closed,
}

impl Queue {
    pub(super) fn new() -> Self {
        Queue {
            waiting: Mutex::default(),
            wake: Condvar::new(),
            places: Semaphore::new(PLACES),
        }
    }

    /// Puts a request in line; waits for a place when the queue is full.
    pub(super) async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T>>) -> Request,
    ) -> Result<T> {
        let place = self.places.acquire().await.map_err(|_| closed())?;
        let (answer, answered) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            if waiting.closed {
                return Err(closed());
            }
            // The writer gives the place back when it takes the request.
            place.forget();
            waiting.requests.push(request(answer));
            if waiting.wakes_at != 0 && waiting.requests.len() >= waiting.wakes_at {
                waiting.wakes_at = 0;
                self.wake.notify_one();
            }
        }
        answered.await.map_err(|_| closed())?
    }

    /// Moves all that waits into `into`. Sleeps until something comes, at most `patience`; then, when callers are
    /// known to come in numbers, up to `gather` longer until `expected` wait.
    pub(super) fn take(
        &self,
        into: &mut Vec<Request>,
        patience: Option<Duration>,
        expected: usize,
        gather: Duration,
    ) -> Found {
        let mut waiting = self.waiting.lock();
        if waiting.requests.is_empty() && !waiting.closed {
            waiting.wakes_at = 1;
            match patience {
                Some(patience) => _ = self.wake.wait_for(&mut waiting, patience),
                None => self.wake.wait(&mut waiting),
            }
        }
        if !waiting.requests.is_empty() && waiting.requests.len() < expected && !waiting.closed {
            waiting.wakes_at = expected;
            self.wake.wait_for(&mut waiting, gather);
        }
        waiting.wakes_at = 0;
        if waiting.requests.is_empty() {
            return if waiting.closed {
                Found::Closed
            } else {
                Found::Nothing
            };
        }
        std::mem::swap(&mut waiting.requests, into);
        drop(waiting);
        self.places.add_permits(into.len());
        Found::Requests
    }

    /// Fails when the queue takes no more requests.
    pub(super) fn is_open(&self) -> Result<()> {
        if self.places.is_closed() {
            Err(closed())
        } else {
            Ok(())
        }
    }

    /// The writer is gone: nobody will answer what waits.
    pub(super) fn abandon(&self) {
        self.close();
        let orphans = std::mem::take(&mut self.waiting.lock().requests);
        drop(orphans);
    }

    /// Takes no more requests; the writer finishes those that wait.
    pub(super) fn close(&self) {
        self.waiting.lock().closed = true;
        self.places.close();
        self.wake.notify_one();
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable(
        "the store has been closed; what was asked may or may not have been done".into(),
    )
}

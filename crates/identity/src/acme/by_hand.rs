//! dns-01 by hand: an order that waits until a person has made its TXT records. It goes on when the zone's name server
//! shows them, or when somebody says so.

use super::dns;
use super::dns01::Record;
use model::Uid;
use parking_lot::Mutex;
use runtime::resilience::Dependency;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Time between two looks: no name server tells us when a record is made.
const LOOK: Duration = Duration::from_secs(5);

/// Orders that wait for people, by the certificate that they are for. A part of the process.
#[derive(Default)]
pub struct ByHand(Mutex<HashMap<Uid, Waiting>>);

#[derive(Clone)]
struct Waiting {
    records: Vec<Record>,
    go_on: Arc<Notify>,
}

/// Ends the waiting when dropped, also when its task is cancelled.
pub(super) struct Place {
    all: Arc<ByHand>,
    certificate: Uid,
    go_on: Arc<Notify>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.0.lock().remove(&self.certificate);
    }
}

impl ByHand {
    /// Lets people see what is wanted.
    pub(super) fn wait(self: &Arc<Self>, certificate: Uid, records: &[Record]) -> Place {
        let go_on = Arc::new(Notify::new());
        let waiting = Waiting {
            records: records.to_vec(),
            go_on: go_on.clone(),
        };
        self.0.lock().insert(certificate, waiting);
        Place {
            all: self.clone(),
            certificate,
            go_on,
        }
    }

    /// The records that are waited for, as lines of a zone; empty: nothing waits.
    pub(crate) fn wanted(&self, certificate: Uid) -> Vec<String> {
        let all = self.0.lock();
        let records = all.get(&certificate).map(|w| w.records.as_slice());
        records
            .unwrap_or_default()
            .iter()
            .map(Record::line)
            .collect()
    }

    /// Lets the order go on without looking; whether one has waited.
    pub(crate) fn go_on(&self, certificate: Uid) -> bool {
        let waiting = self.0.lock().get(&certificate).cloned();
        if let Some(waiting) = &waiting {
            waiting.go_on.notify_one();
        }
        waiting.is_some()
    }
}

impl Place {
    /// Waits until the server shows every record, or somebody says that it goes on. A server that does not answer is
    /// asked again: the time limit is the task's.
    pub(super) async fn over(&self, known: &Dependency, at: SocketAddr, records: &[Record]) {
        let look = async {
            for record in records {
                while !matches!(
                    known
                        .once(dns::shows(at, &record.name, &record.value))
                        .await,
                    Ok(true)
                ) {
                    tokio::time::sleep(LOOK).await;
                }
            }
        };
        tokio::select! {
            () = look => {}
            () = self.go_on.notified() => {}
        }
    }
}

//! The one thread that keeps rows: it numbers, seals, chains and writes what waits in one go, and signs the chain every so
//! many rows.

use super::encode::encode;
use super::format::{Hash, Link, Sort};
use super::head::Head;
use super::row::Row;
use super::signer::Signer;
use super::subjects::Subjects;
use super::trail::{Standing, WAITING, of_stream, unwritable};
use super::{SEAL_ROWS, files};
use crate::Clock;
use bytes::Bytes;
use model::{Error, Result, Timestamp};
use parking_lot::{Condvar, Mutex};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use store::streams::Stream;
use tokio::sync::{mpsc, oneshot, watch};

/// Rows that are written in one go at most.
const AT_ONCE: usize = 512;
/// How long rows that nobody waits for lie before they are written: those that come together then cost one write.
const LINGER: Duration = Duration::from_millis(5);
/// How far back the trail is read at its start, at least: further when the last seal lies behind that.
const BACK: u64 = 2 * SEAL_ROWS + (WAITING + 2 * AT_ONCE) as u64 + 2;
/// How long nothing is signed after it failed.
const AGAIN: Duration = Duration::from_secs(1);
/// At least so far apart are the heads that are kept beside the keys.
const HEADS_APART: Duration = Duration::from_secs(24 * 3600);

/// What the thread is given.
pub(super) enum Work {
    /// A row, and who waits for it.
    Keep(Box<Row>, Waits),
    /// Makes all before it durable, for the thread of a store that waits.
    Sync(std::sync::mpsc::SyncSender<std::result::Result<(), String>>),
    /// Answers once all before it is written.
    Flush(oneshot::Sender<()>),
    /// Signs the chain, if there is anything new.
    Seal(oneshot::Sender<Result<()>>),
}

impl Work {
    /// Whether somebody waits for it.
    pub fn is_urgent(&self) -> bool {
        !matches!(self, Work::Keep(_, Waits::Nobody | Waits::Change))
    }
}

/// Who waits for a row.
pub(super) enum Waits {
    /// Nobody: it may be lost.
    Nobody,
    /// The change that it announces, when that is made durable. It is tried again until it is written.
    Change,
    /// The caller, until it is written, or durable.
    Caller {
        durable: bool,
        kept: oneshot::Sender<Result<()>>,
    },
}

/// Wakes the thread while it lingers.
#[derive(Default)]
pub(super) struct Bell {
    rung: Mutex<bool>,
    bell: Condvar,
}

impl Bell {
    /// Somebody waits for what was given.
    pub fn ring(&self) {
        *self.rung.lock() = true;
        self.bell.notify_one();
    }

    fn linger(&self) {
        let mut rung = self.rung.lock();
        if !*rung {
            let _ = self.bell.wait_for(&mut rung, LINGER);
        }
        *rung = false;
    }
}

/// The end of the chain, in the hands of its thread.
pub(super) struct Chain {
    stream: Stream,
    signer: Signer,
    subjects: Arc<Subjects>,
    clock: Arc<dyn Clock>,
    heads: PathBuf,
    /// When a head was last kept there.
    head_kept: Option<Timestamp>,
    next: u64,
    hash: Hash,
    /// Rows since the last seal.
    unsealed: u64,
    unsealed_since: Option<Timestamp>,
    pub seal_rows: u64,
    /// Not before then, after it could not be signed.
    sign_again: Option<Instant>,
    /// Rows of changes that could not be written yet.
    waiting: Vec<Row>,
    pub failing: Arc<AtomicBool>,
    pub bell: Arc<Bell>,
    /// A seal whose key is gone already and that is not in the stream yet.
    owed: Option<(Vec<u8>, Hash)>,
    /// Why the rows do not go on where the key stands.
    pub cut: Option<String>,
    pub standing: watch::Sender<Standing>,
}

impl Chain {
    pub fn open(
        stream: Stream,
        signer: Signer,
        subjects: Arc<Subjects>,
        clock: Arc<dyn Clock>,
        heads: PathBuf,
    ) -> Result<Chain> {
        let (first, next) = stream.range();
        let chain = signer.chain();
        let mut out = Chain {
            standing: watch::Sender::new(Standing {
                seq: 0,
                hash: Hash::default(),
                first,
                sealed: signer.last().cloned(),
                unsealed_since: None,
            }),
            head_kept: last_head(&heads)?.map(|head| head.time),
            stream,
            signer,
            subjects,
            clock,
            heads,
            next,
            hash: Hash::default(),
            unsealed: 0,
            unsealed_since: None,
            seal_rows: SEAL_ROWS,
            sign_again: None,
            waiting: Vec::new(),
            failing: Arc::default(),
            bell: Arc::default(),
            owed: None,
            cut: None,
        };
        out.hash = first_head(&out.heads)?.hash;
        let mut sealed = None;
        // The last seal lies behind the rows that it signs, however long ago a key could be replaced last.
        let signed = out.signer.last().map_or(next, |head| head.seq + 1);
        let mut at = next.saturating_sub(BACK).min(signed).max(first);
        while at < next {
            let records = out.stream.read_here(at, 1000).map_err(of_stream)?;
            let Some(last) = records.last() else { break };
            at = last.seq + 1;
            for record in records {
                let Some(link) = Link::read(&record.payload) else {
                    return Err(Error::unavailable(format!(
                        "row {} of the audit trail is none of ours",
                        record.seq
                    ))
                    .hint("move the folder of the trail away, so that a new one begins"));
                };
                out.hash = link.hash;
                if link.sort == Sort::Seal {
                    sealed = Head::of(chain, &link);
                    (out.unsealed, out.unsealed_since) = (0, None);
                } else {
                    out.unsealed += 1;
                    let time = Timestamp::from_millis(link.time);
                    out.unsealed_since.get_or_insert(time);
                }
            }
        }
        let last = out.signer.last();
        // The key was used and erased, and then the process died.
        if last.is_some() && last != sealed.as_ref() {
            let last = last.cloned();
            match last {
                Some(head) if head.seq + 1 == out.next && head.hash == out.hash => {
                    out.owed = Some(head.row().end());
                }
                last => {
                    let to = last.map_or(0, |head| head.seq);
                    let why = format!(
                        "the audit trail does not go on where its key stands, after row {to}: rows were removed, or another trail was put in its place"
                    );
                    tracing::error!("{why}; run `audit verify`");
                    out.cut = Some(why);
                }
            }
        }
        out.write(&mut Vec::new())?;
        Ok(out)
    }

    pub fn run(mut self, mut work: mpsc::Receiver<Work>) {
        let mut batch = Vec::with_capacity(AT_ONCE);
        while work.blocking_recv_many(&mut batch, AT_ONCE) > 0 {
            if !batch.iter().any(Work::is_urgent) {
                self.bell.linger();
                while let (true, Ok(more)) = (batch.len() < AT_ONCE, work.try_recv()) {
                    batch.push(more);
                }
            }
            self.carry_out(&mut batch);
        }
        if !self.waiting.is_empty() {
            let rows = self.waiting.len();
            tracing::error!(rows, "intents of changes that were refused are lost");
        }
    }

    fn carry_out(&mut self, batch: &mut Vec<Work>) {
        // What could not be written before comes first, so that everybody's rows stay in order.
        let mut rows = std::mem::take(&mut self.waiting);
        let must = rows.len();
        let (mut waits, mut syncs, mut then) = (Vec::new(), Vec::new(), Vec::new());
        for work in batch.drain(..) {
            match work {
                Work::Keep(row, who) => {
                    rows.push(*row);
                    waits.push(who);
                }
                Work::Sync(answer) => syncs.push(answer),
                Work::Flush(_) | Work::Seal(_) => then.push(work),
            }
        }
        let durable = |who: &Waits| matches!(who, Waits::Caller { durable: true, .. });
        let sync = !syncs.is_empty() || waits.iter().any(durable);
        let mut plain: Vec<&mut Row> = rows.iter_mut().collect();
        let tried = !plain.is_empty();
        let written = self.write(&mut plain);
        if tried {
            self.failing.store(written.is_err(), Ordering::Release);
        }
        if written.is_err() {
            let mut who = waits.iter();
            let mut n = 0;
            rows.retain(|_| {
                n += 1;
                n <= must || matches!(who.next(), Some(Waits::Change))
            });
            self.waiting = rows;
        }
        let result = match sync {
            true => written.and_then(|()| self.stream.sync_here().map_err(of_stream)),
            false => written,
        };
        if let Err(error) = &result {
            tracing::error!(?error, "the audit trail cannot be written");
        }
        for answer in syncs {
            let _ = answer.send(result.as_ref().map(|_| ()).map_err(|e| e.message.clone()));
        }
        for who in waits {
            if let Waits::Caller { kept, .. } = who {
                let _ = kept.send(result.as_ref().map(|_| ()).map_err(unwritable));
            }
        }
        // Callers have their answers: a seal takes the time of some syncs.
        let may = self.sign_again.is_none_or(|at| at <= Instant::now());
        if self.unsealed >= self.seal_rows && may {
            self.sign_again = None;
            if let Err(error) = self.sign() {
                self.sign_again = Some(Instant::now() + AGAIN);
                tracing::error!(?error, "the audit trail could not be sealed");
            }
        }
        for work in then {
            match work {
                Work::Flush(answer) => _ = answer.send(()),
                Work::Seal(answer) => _ = answer.send(self.sign()),
                Work::Keep(..) | Work::Sync(_) => {}
            }
        }
    }

    /// Writes rows at the end, after the seal that is owed. All of them or none.
    fn write(&mut self, rows: &mut [&mut Row]) -> Result<()> {
        if let Some(head) = self.signer.settle()? {
            self.owed = Some(head.row().end());
        }
        let (mut next, mut hash) = (self.next, self.hash);
        let mut payloads = Vec::with_capacity(rows.len() + 1);
        if let Some((payload, sealed)) = &self.owed {
            payloads.push(Bytes::from(payload.clone()));
            (next, hash) = (next + 1, *sealed);
        }
        for row in rows.iter_mut() {
            row.seq = next;
            let (payload, made) = encode(&self.subjects, row, &hash)?;
            payloads.push(payload.into());
            (next, hash) = (next + 1, made);
        }
        if !payloads.is_empty() {
            let last = self.stream.append_here(&payloads).map_err(of_stream)?;
            // Only we append, so it has the numbers that the rows were chained with.
            debug_assert_eq!(last + 1, next);
        }
        if self.owed.take().is_some() {
            (self.unsealed, self.unsealed_since) = (0, None);
        }
        self.unsealed += rows.len() as u64;
        if let Some(first) = rows.first() {
            self.unsealed_since.get_or_insert(first.time);
        }
        (self.next, self.hash) = (next, hash);
        self.tell();
        Ok(())
    }

    fn tell(&self) {
        let first = self.stream.range().0;
        self.standing.send_modify(|standing| {
            standing.seq = self.next - 1;
            standing.hash = self.hash;
            standing.first = first;
            standing.sealed = self.signer.last().cloned();
            standing.unsealed_since = self.unsealed_since;
        });
    }

    /// Signs the chain where it stands.
    fn sign(&mut self) -> Result<()> {
        if self.unsealed == 0 && self.owed.is_none() {
            return Ok(());
        }
        if let Some(head) = self.signer.settle()? {
            self.owed = Some(head.row().end());
        }
        if self.owed.is_none() {
            // What is signed must not be lost any more: its key will not come again.
            self.stream.sync_here().map_err(of_stream)?;
            let (clock, now) = (self.clock.clone(), self.clock.now());
            let head = self
                .signer
                .sign(self.next - 1, self.hash, now, |bytes| clock.fill(bytes))?;
            self.owed = Some(head.row().end());
        }
        self.write(&mut [])?;
        self.stream.sync_here().map_err(of_stream)?;
        self.keep_head()
    }

    /// Now and then a head is kept beside the keys: from there on a trail can be verified whose beginning was removed by
    /// its age.
    fn keep_head(&mut self) -> Result<()> {
        let Some(head) = self.signer.last() else {
            return Ok(());
        };
        let fresh = |kept: &Timestamp| head.time.since(*kept) < HEADS_APART;
        if self.head_kept.as_ref().is_some_and(fresh) {
            return Ok(());
        }
        files::append(&self.heads, &head.line())?;
        self.head_kept = Some(head.time);
        Ok(())
    }
}

/// The first line of a chain's heads.
pub(super) fn first_head(heads: &Path) -> Result<Head> {
    let text = files::read(heads)?.unwrap_or_default();
    text.lines().next().and_then(Head::parse).ok_or_else(|| {
        Error::unavailable(format!(
            "{} does not begin with the first line of an audit chain",
            heads.display()
        ))
        .hint("restore the keys folder from your backup")
    })
}

fn last_head(heads: &Path) -> Result<Option<Head>> {
    let text = files::read(heads)?.unwrap_or_default();
    Ok(text.lines().rev().find_map(Head::parse))
}

//! The state of one stream: its segments, and the end where it grows. Blocks; the async face is in [`super`].

use super::record::{self, Record};
use super::segment::{self, BLOCK, Closed, HEAD, Head, Scan};
use super::{Limits, StreamError};
use crate::Clock;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow::{self, Break, Continue};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Most bytes of payload that one read returns (but always one record).
const MOST: usize = 4 << 20;

/// How much of the open segment is read at once.
const CHUNK: usize = 4 * BLOCK;

pub(super) struct Log {
    dir: PathBuf,
    limits: Limits,
    clock: Arc<dyn Clock>,
    tail: Mutex<Tail>,
    closed: RwLock<Vec<Shut>>,
    /// Only one thread closes segments and removes old ones.
    upkeep: Mutex<()>,
    /// How far the stream is durable: numbers below are. An error once the disk has failed to sync.
    synced: Mutex<Result<u64, ()>>,
    pub(super) next: watch::Sender<u64>,
    /// A lock on the folder, so that no second process appends.
    _lock: File,
}

/// The open segment.
struct Tail {
    file: Arc<File>,
    path: PathBuf,
    head: Head,
    end: u64,
    next: u64,
    latest: u64,
    /// Whether something stands behind the end that a write left there which failed.
    torn: bool,
    /// First number and offset of every `BLOCK` bytes or so.
    index: Vec<(u64, u64)>,
}

/// A segment that no longer grows.
#[derive(Clone, Debug)]
struct Shut {
    path: PathBuf,
    first: u64,
    last: u64,
    latest: u64,
    bytes: u64,
    /// It waits to be compressed.
    plain: bool,
}

/// The first number, by its name, and the file of a segment that was open.
type Unclosed = (u64, PathBuf);

/// A view of the open segment for a reader.
struct View {
    file: Arc<File>,
    path: PathBuf,
    head: Head,
    from: u64,
    end: u64,
}

/// How long a stream has grown since its oldest full segment was. From one segment to the next no more counts than a
/// segment may span, however far the clock has jumped.
fn grown(closed: &[Shut], tail: u64, segment: Duration) -> Duration {
    let latest: Vec<u64> = closed.iter().map(|s| s.latest).chain([tail]).collect();
    let step = |pair: &[u64]| Duration::from_micros(pair[1].saturating_sub(pair[0])).min(segment);
    latest.windows(2).map(step).sum()
}

impl Log {
    pub(super) fn open(
        dir: &Path,
        limits: Limits,
        clock: Arc<dyn Clock>,
    ) -> Result<Log, StreamError> {
        let failed = |error| StreamError::io("opening", dir, error);
        fs::create_dir_all(dir).map_err(failed)?;
        let lock = File::open(dir).map_err(failed)?;
        if !crate::lock_file(&lock).map_err(failed)? {
            return Err(StreamError::InUse(dir.to_owned()));
        }
        let (mut closed, open) = survey(dir)?;
        let known = closed.last().map_or(1, |s: &Shut| s.last + 1);
        let tail = open_tail(dir, open, known, &mut closed, clock.wall())?;
        let next = tail.next;
        let log = Log {
            dir: dir.to_owned(),
            limits,
            clock,
            tail: Mutex::new(tail),
            closed: RwLock::new(closed),
            upkeep: Mutex::new(()),
            synced: Mutex::new(Ok(0)),
            next: watch::Sender::new(next),
            _lock: lock,
        };
        log.upkeep()?;
        Ok(log)
    }

    /// Writes records at the end. Returns the number of the last. Nothing is written when this fails.
    pub(super) fn append(&self, batch: &[Bytes]) -> Result<u64, StreamError> {
        if let Some(large) = batch.iter().find(|p| p.len() > self.limits.record) {
            return Err(StreamError::TooLarge {
                bytes: large.len(),
                most: self.limits.record,
            });
        }
        let micros = u64::try_from(self.clock.wall().as_micros()).unwrap_or(u64::MAX);
        let mut rotated = false;
        let last = {
            let mut tail = self.tail.lock();
            if batch.is_empty() {
                return Ok(tail.next - 1);
            }
            if tail.end > HEAD as u64 && self.is_full(&tail, micros) {
                self.rotate(&mut tail, micros)?;
                rotated = true;
            }
            let mut bytes = Vec::with_capacity(batch.iter().map(|p| p.len() + record::HEAD).sum());
            for (seq, payload) in (tail.next..).zip(batch) {
                record::encode(&mut bytes, tail.head.salt, seq, micros, payload);
            }
            tail.cut()?;
            let written = tail.file.write_all_at(&bytes, tail.end);
            if let Err(error) = written {
                // Whole records may stand there by now. They would be taken for ours when the stream is opened again.
                tail.torn = true;
                let _ = tail.cut();
                return Err(StreamError::io("appending to", &tail.path, error));
            }
            if tail
                .index
                .last()
                .is_none_or(|(_, at)| tail.end - at >= BLOCK as u64)
            {
                let place = (tail.next, tail.end);
                tail.index.push(place);
            }
            tail.end += bytes.len() as u64;
            tail.next += batch.len() as u64;
            tail.latest = tail.latest.max(micros);
            self.next.send_replace(tail.next);
            tail.next - 1
        };
        if rotated && let Err(error) = self.upkeep() {
            // The records are in; what was left undone is done at the next turn.
            tracing::warn!(dir = %self.dir.display(), %error, "Stream upkeep failed");
        }
        Ok(last)
    }

    fn is_full(&self, tail: &Tail, micros: u64) -> bool {
        let age = Duration::from_micros(micros.saturating_sub(tail.head.micros));
        tail.end >= self.limits.segment_bytes || age >= self.limits.segment_age
    }

    fn rotate(&self, tail: &mut Tail, micros: u64) -> Result<(), StreamError> {
        tail.cut()?;
        tail.file
            .sync_data()
            .map_err(|e| StreamError::io("syncing", &tail.path, e))?;
        let fresh = Tail::create(&self.dir, tail.next, micros)?;
        let full = std::mem::replace(tail, fresh);
        self.closed.write().push(Shut {
            first: full.head.first,
            last: full.next - 1,
            latest: full.latest,
            bytes: full.end,
            plain: true,
            path: full.path,
        });
        Ok(())
    }

    /// Makes everything up to `seq` durable. Callers that come while one syncs share the next sync.
    pub(super) fn sync(&self, seq: u64) -> Result<(), StreamError> {
        let mut synced = self.synced.lock();
        match *synced {
            Ok(below) if below > seq => return Ok(()),
            Ok(_) => {}
            // The kernel tells of pages it could not write only once: a later sync would claim what is not so.
            Err(()) => return Err(StreamError::SyncFailed(self.dir.clone())),
        }
        let (file, path, next) = {
            let tail = self.tail.lock();
            (tail.file.clone(), tail.path.clone(), tail.next)
        };
        // What lies in earlier segments was synced when they were full.
        let done = file.sync_data();
        *synced = if done.is_ok() { Ok(next) } else { Err(()) };
        done.map_err(|e| StreamError::io("syncing", &path, e))
    }

    /// Compresses full segments and removes what is too old or too much.
    pub(super) fn upkeep(&self) -> Result<(), StreamError> {
        let _one = self.upkeep.lock();
        let waiting: Vec<_> = self
            .closed
            .read()
            .iter()
            .filter(|s| s.plain)
            .cloned()
            .collect();
        for plain in waiting {
            let (shut, damaged) = compress(&self.dir, &plain.path)?;
            {
                let mut closed = self.closed.write();
                let at = closed.iter().position(|s| s.path == plain.path);
                match (at, shut) {
                    (Some(at), Some(shut)) => closed[at] = shut,
                    (Some(at), None) => _ = closed.remove(at),
                    (None, _) => {}
                }
            }
            // Only now: a reader that still has the old list looks again and finds the closed form.
            if damaged {
                set_aside(&plain.path)?;
            } else {
                fs::remove_file(&plain.path)
                    .map_err(|e| StreamError::io("removing the compressed", &plain.path, e))?;
            }
        }
        self.remove_old()
    }

    fn remove_old(&self) -> Result<(), StreamError> {
        let now = self.clock.wall();
        let tail = self.tail.lock().latest;
        loop {
            let old = {
                let mut closed = self.closed.write();
                let total: u64 = closed.iter().map(|s| s.bytes).sum();
                let Some(oldest) = closed.first() else {
                    return Ok(());
                };
                let age = match self.limits.by_growth {
                    true => grown(&closed, tail, self.limits.segment_age),
                    false => now.saturating_sub(Duration::from_micros(oldest.latest)),
                };
                if total <= self.limits.keep_bytes && age <= self.limits.keep_age {
                    return Ok(());
                }
                closed.remove(0)
            };
            match fs::remove_file(&old.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StreamError::io(
                        "removing the old segment",
                        &old.path,
                        error,
                    ));
                }
                _ => {}
            }
        }
    }

    /// The lowest number that is kept, and the next that will be given.
    pub(super) fn range(&self) -> (u64, u64) {
        let tail = self.tail.lock();
        let first = self
            .closed
            .read()
            .first()
            .map_or(tail.head.first, |s| s.first);
        (first, tail.next)
    }

    /// Up to `limit` records from `from` on; 0 is the oldest kept.
    pub(super) fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, StreamError> {
        let mut out = Vec::new();
        let mut bytes = 0;
        if limit > 0 {
            self.each(from, 0, &mut |record| {
                bytes += record.payload.len();
                out.push(record);
                if out.len() < limit && bytes < MOST {
                    Continue(())
                } else {
                    Break(())
                }
            })?;
        }
        Ok(out)
    }

    /// The number of the first record with at least this time; the next number when there is none.
    pub(super) fn since(&self, time: Duration) -> Result<u64, StreamError> {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let mut found = None;
        let (_, next) = self.range();
        self.each(0, micros, &mut |record| {
            if record.time < time {
                return Continue(());
            }
            found = Some(record.seq);
            Break(())
        })?;
        Ok(found.unwrap_or(next))
    }

    /// Shows records from number `from` on to `see`, in order. Parts with no time of at least `micros` are left out.
    fn each(&self, from: u64, micros: u64, see: &mut See<'_>) -> Result<(), StreamError> {
        let mut at = from;
        // A segment may be compressed or removed between looking and reading: then look again.
        for _ in 0..10 {
            // The tail is looked at first: what is rotated in between is found among the closed ones.
            let tail = self.view(at);
            let closed = self.closed.read().clone();
            let oldest = closed
                .first()
                .map_or(tail.head.first, |s| s.first)
                .min(tail.head.first);
            if at == 0 {
                at = oldest;
            }
            if at < oldest {
                return Err(StreamError::Gone { asked: at, oldest });
            }
            match show_closed(&closed, &mut at, tail.head.first, micros, see) {
                Ok(Continue(())) => return tail.show(at, see).map(drop),
                Ok(Break(())) => return Ok(()),
                Err(StreamError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                }
                Err(error) => return Err(error),
            }
        }
        Err(StreamError::Gone {
            asked: at,
            oldest: self.range().0,
        })
    }

    fn view(&self, from: u64) -> View {
        let tail = self.tail.lock();
        let at = tail
            .index
            .partition_point(|(seq, _)| *seq <= from)
            .saturating_sub(1);
        let start = tail.index.get(at).map_or(HEAD as u64, |(_, at)| *at);
        View {
            file: tail.file.clone(),
            path: tail.path.clone(),
            head: tail.head,
            from: start,
            end: tail.end,
        }
    }
}

/// Takes a record and says whether to go on.
type See<'s> = dyn FnMut(Record) -> ControlFlow<()> + 's;

/// Shows what closed segments before number `until` hold from `at` on, which moves behind what was shown.
fn show_closed(
    closed: &[Shut],
    at: &mut u64,
    until: u64,
    micros: u64,
    see: &mut See<'_>,
) -> Result<ControlFlow<()>, StreamError> {
    for shut in closed {
        if shut.last < *at || shut.first >= until {
            continue;
        }
        if shut.latest >= micros {
            let shown = if shut.plain {
                show_plain(&shut.path, at, see)
            } else {
                show_packed(&shut.path, at, micros, see)
            };
            match shown {
                Ok(Continue(())) => {}
                Err(StreamError::Damaged(path)) => {
                    tracing::warn!(file = %path.display(), "Stream segment is damaged, records are missing");
                }
                other => return other,
            }
        }
        *at = (*at).max(shut.last + 1);
    }
    Ok(Continue(()))
}

impl View {
    /// Shows the records from number `from` on.
    fn show(&self, from: u64, see: &mut See<'_>) -> Result<ControlFlow<()>, StreamError> {
        let mut offset = self.from;
        let mut want = CHUNK;
        while offset < self.end {
            let len = (self.end - offset).min(want as u64);
            let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
            let read = self.file.read_exact_at(&mut bytes, offset);
            read.map_err(|e| StreamError::io("reading", &self.path, e))?;
            let bytes = Bytes::from(bytes);
            let mut at = 0;
            while let Some(place) = record::decode(&bytes[at..], self.head.salt) {
                if place.seq >= from && see(place.record(&bytes, at)).is_break() {
                    return Ok(Break(()));
                }
                at += place.len;
            }
            // Nothing sound, though the whole record was there to be read.
            let need = record::len(&bytes[at..]).unwrap_or(record::HEAD);
            if at == 0 && (need as u64 > self.end - offset || need <= bytes.len()) {
                tracing::warn!(file = %self.path.display(), offset, "Stream segment is damaged, records are missing");
                break;
            }
            offset += at as u64;
            want = CHUNK.max(need);
        }
        Ok(Continue(()))
    }
}

impl Tail {
    fn create(dir: &Path, first: u64, micros: u64) -> Result<Tail, StreamError> {
        let head = Head {
            closed: false,
            salt: rand::random(),
            first,
            last: 0,
            micros,
        };
        let (file, path) = segment::create(dir, &head)?;
        let file = Arc::new(file);
        Ok(Tail {
            file,
            path,
            head,
            end: HEAD as u64,
            next: first,
            latest: 0,
            torn: false,
            index: Vec::new(),
        })
    }

    /// Takes away what a failed write left behind the end.
    fn cut(&mut self) -> Result<(), StreamError> {
        if self.torn {
            let cut = self.file.set_len(self.end);
            cut.map_err(|e| StreamError::io("cutting", &self.path, e))?;
            self.torn = false;
        }
        Ok(())
    }
}

/// The closed segments of a folder, in order, and the open ones (more than one only after a crash).
fn survey(dir: &Path) -> Result<(Vec<Shut>, Vec<Unclosed>), StreamError> {
    let failed = |error| StreamError::io("listing", dir, error);
    let (mut closed, mut open) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let end = path.extension().and_then(|e| e.to_str());
        let first = path
            .file_stem()
            .and_then(|s| s.to_str())
            .and_then(|s| s.parse::<u64>().ok());
        match (end, first) {
            (Some("part"), Some(_)) => fs::remove_file(&path).map_err(failed)?,
            (Some("seg"), Some(first)) => open.push((first, path)),
            (Some("zst"), Some(_)) => {
                let file = File::open(&path).map_err(failed)?;
                match Head::read(&file, &path)? {
                    Some(head) if head.closed => closed.push(Shut {
                        first: head.first,
                        last: head.last,
                        latest: head.micros,
                        bytes: file.metadata().map_err(failed)?.len(),
                        plain: false,
                        path,
                    }),
                    _ => set_aside(&path)?,
                }
            }
            _ => {}
        }
    }
    closed.sort_by_key(|s| s.first);
    open.sort();
    Ok((closed, open))
}

/// Makes the end of the stream: the last open segment with its torn tail cut, or a fresh one.
fn open_tail(
    dir: &Path,
    open: Vec<Unclosed>,
    known: u64,
    closed: &mut Vec<Shut>,
    wall: Duration,
) -> Result<Tail, StreamError> {
    let micros = u64::try_from(wall.as_micros()).unwrap_or(u64::MAX);
    let mut next = known;
    let count = open.len();
    for (i, (first, path)) in open.into_iter().enumerate() {
        let failed = |error| StreamError::io("opening", &path, error);
        // A crash between writing the closed form and removing this one.
        if closed
            .iter()
            .any(|s| !s.plain && s.path == segment::closed_path(dir, first))
        {
            fs::remove_file(&path).map_err(failed)?;
            continue;
        }
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let Some(head) = Head::read(&file, &path)?.filter(|h| !h.closed && h.first == first) else {
            // Nobody knows how many records it held; their numbers are not given again.
            next = next.max(first + size / record::HEAD as u64);
            set_aside(&path)?;
            continue;
        };
        let bytes = segment::slurp(&file, &path)?;
        let scan = segment::scan(&bytes, &head);
        let last = scan
            .places
            .last()
            .map_or(first.saturating_sub(1), |(_, p)| p.seq);
        let latest = scan.places.iter().map(|(_, p)| p.micros).max().unwrap_or(0);
        next = next.max(last + 1);
        if i + 1 == count && !scan.damaged && head.first + scan.places.len() as u64 == next {
            file.set_len(scan.end as u64).map_err(failed)?;
            return Ok(tail_of(file, path, head, &scan, latest, next));
        }
        if scan.damaged {
            tracing::warn!(file = %path.display(), kept = scan.places.len(), "Stream segment is damaged, sound records are kept");
            // Whatever was lost at its end had numbers too.
            next = next.max(last + 1 + (size - scan.end as u64) / record::HEAD as u64);
        }
        closed.push(Shut {
            path,
            first,
            last,
            latest,
            bytes: size,
            plain: true,
        });
    }
    closed.sort_by_key(|s| s.first);
    Tail::create(dir, next, micros)
}

fn tail_of(file: File, path: PathBuf, head: Head, scan: &Scan, latest: u64, next: u64) -> Tail {
    let mut index: Vec<(u64, u64)> = Vec::new();
    for (at, place) in &scan.places {
        let at = *at as u64;
        if index
            .last()
            .is_none_or(|(_, before)| at - before >= BLOCK as u64)
        {
            index.push((place.seq, at));
        }
    }
    Tail {
        file: Arc::new(file),
        path,
        head,
        end: scan.end as u64,
        next,
        latest,
        torn: false,
        index,
    }
}

/// Makes the closed form of a full open segment, which stays where it is. Says too whether it was damaged.
fn compress(dir: &Path, path: &Path) -> Result<(Option<Shut>, bool), StreamError> {
    let failed = |error| StreamError::io("reading", path, error);
    let file = File::open(path).map_err(failed)?;
    let Some(head) = Head::read(&file, path)? else {
        return Ok((None, true));
    };
    let bytes = segment::slurp(&file, path)?;
    let scan = segment::scan(&bytes, &head);
    let made = segment::close(dir, &bytes, &head, &scan.places)?;
    let shut = made.map(|(closed, bytes)| Shut {
        path: segment::closed_path(dir, head.first),
        first: closed.first,
        last: closed.last,
        latest: closed.micros,
        bytes,
        plain: false,
    });
    Ok((shut, scan.damaged))
}

fn set_aside(path: &Path) -> Result<(), StreamError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    tracing::warn!(file = %path.display(), "Stream segment cannot be read, it is set aside");
    fs::rename(path, &aside).map_err(|e| StreamError::io("setting aside", path, e))
}

/// Shows the records of a full segment that is not compressed yet.
fn show_plain(
    path: &Path,
    at: &mut u64,
    see: &mut See<'_>,
) -> Result<ControlFlow<()>, StreamError> {
    let file = File::open(path).map_err(|e| StreamError::io("reading", path, e))?;
    let head = Head::read(&file, path)?.ok_or_else(|| StreamError::Damaged(path.to_owned()))?;
    let bytes = Bytes::from(segment::slurp(&file, path)?);
    for (offset, place) in segment::scan(&bytes, &head).places {
        if place.seq >= *at {
            *at = place.seq + 1;
            if see(place.record(&bytes, offset)).is_break() {
                return Ok(Break(()));
            }
        }
    }
    Ok(Continue(()))
}

/// Shows the records of a compressed segment, block by block.
fn show_packed(
    path: &Path,
    at: &mut u64,
    micros: u64,
    see: &mut See<'_>,
) -> Result<ControlFlow<()>, StreamError> {
    let closed = Closed::open(path)?;
    for block in closed
        .blocks_from(*at)
        .iter()
        .filter(|b| b.micros >= micros)
    {
        for record in closed.records(block)? {
            if record.seq >= *at {
                *at = record.seq + 1;
                if see(record).is_break() {
                    return Ok(Break(()));
                }
            }
        }
    }
    Ok(Continue(()))
}

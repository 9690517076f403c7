//! Streams: logs that only grow, on the disk of the node that writes them. Audit, task logs, events, usage.
//!
//! A stream is a folder of segments. Records are appended to the last one, each with a number, a time and a
//! checksum; full segments are compressed; old ones are removed by age and size. An append that a crash cut short
//! is cut off at the next open, and damaged bytes never come back as a record: readers see a gap in the numbers.
//!
//! It never interprets what is in a record, and never changes one.

mod log;
mod look;
mod record;
mod segment;

pub use look::look;
pub use record::Record;

use crate::Clock;
use crate::clock::SystemClock;
use bytes::Bytes;
use futures::stream::BoxStream;
use log::Log;
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How large and how old a stream becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of payload in one record. At most 64 MiB.
    pub record: usize,
    /// A segment of this many bytes is full.
    pub segment_bytes: u64,
    /// A segment that began so long ago is full.
    pub segment_age: Duration,
    /// Full segments are removed, oldest first, while they have more bytes than this together.
    pub keep_bytes: u64,
    /// Full segments whose newest record is older than this are removed.
    pub keep_age: Duration,
    /// What counts as age is only how long the stream has grown since, not what the clock says: a clock that jumps ahead
    /// then removes nothing before its time. Time in which nothing came counts less than it took.
    pub by_growth: bool,
}

impl Default for Limits {
    /// Records to 1 MiB, segments of 8 MiB or a day, kept up to 256 MiB or 30 days.
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Limits {
            record: 1 << 20,
            segment_bytes: 8 << 20,
            segment_age: DAY,
            keep_bytes: 256 << 20,
            keep_age: DAY * 30,
            by_growth: false,
        }
    }
}

/// Why a stream did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// A file could not be read or written.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The record is larger than this stream takes.
    #[error("a record has {bytes} bytes, this stream takes at most {most}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// The record was removed, as it is too old.
    #[error("record {asked} was removed by age or size; the oldest kept is {oldest}")]
    Gone {
        /// The number that was asked for.
        asked: u64,
        /// The lowest number that is kept.
        oldest: u64,
    },
    /// Another process, or another [`Stream`] of this one, has the folder open.
    #[error("the stream in {} is open already; only one may append to it", .0.display())]
    InUse(PathBuf),
    /// A newer program wrote the file.
    #[error("{} has stream version {version}, this program knows {knows}; use the newer program", path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its version.
        version: u16,
        /// The newest version known.
        knows: u16,
    },
    /// A closed segment whose head is damaged.
    #[error("the stream segment {} is damaged", .0.display())]
    Damaged(PathBuf),
    /// The disk failed to sync earlier, so nothing can be promised to be durable until the stream is opened again.
    #[error("the disk failed to sync the stream in {}; look at the disk, then restart the daemon", .0.display())]
    SyncFailed(PathBuf),
    /// The thread that worked on the stream ended.
    #[error("the stream's thread ended: {0}")]
    Thread(String),
}

impl StreamError {
    fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        StreamError::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}

/// An append-only log in a folder. Clones are the same stream.
#[derive(Clone)]
pub struct Stream(Arc<Log>);

impl Stream {
    /// Opens the stream of a folder, making it when it is not there. Repairs what a crash left. Blocks.
    pub fn open(dir: impl AsRef<Path>, limits: Limits) -> Result<Stream, StreamError> {
        Self::open_with(dir, limits, Arc::new(SystemClock))
    }

    /// As [`Stream::open`], with the clock that stamps records.
    pub fn open_with(
        dir: impl AsRef<Path>,
        limits: Limits,
        clock: Arc<dyn Clock>,
    ) -> Result<Stream, StreamError> {
        let limits = Limits {
            record: limits.record.min(64 << 20),
            ..limits
        };
        Ok(Stream(Arc::new(Log::open(dir.as_ref(), limits, clock)?)))
    }

    /// Appends records in order and answers the number of the last (0 for the first append of nothing). Survives a
    /// crash of this process, not one of the machine. All are appended or none.
    pub async fn append(&self, batch: Vec<Bytes>) -> Result<u64, StreamError> {
        self.blocking(move |log| log.append(&batch)).await
    }

    /// As [`Stream::append`], and on disk when it returns. Calls at the same time share an fsync.
    pub async fn append_durable(&self, batch: Vec<Bytes>) -> Result<u64, StreamError> {
        self.blocking(move |log| {
            let last = log.append(&batch)?;
            log.sync(last)?;
            Ok(last)
        })
        .await
    }

    /// As [`Stream::append`], for a thread of its own. Blocks.
    pub fn append_here(&self, batch: &[Bytes]) -> Result<u64, StreamError> {
        self.0.append(batch)
    }

    /// As [`Stream::read`], for a thread of its own. Blocks.
    pub fn read_here(&self, from: u64, limit: usize) -> Result<Vec<Record>, StreamError> {
        self.0.read(from, limit)
    }

    /// As [`Stream::sync`], for a thread of its own. Blocks. Calls at the same time share an fsync.
    pub fn sync_here(&self) -> Result<(), StreamError> {
        self.0.sync(self.0.range().1.saturating_sub(1))
    }

    /// Makes everything appended so far durable.
    pub async fn sync(&self) -> Result<(), StreamError> {
        self.blocking(|log| log.sync(log.range().1.saturating_sub(1)))
            .await
    }

    /// Up to `limit` records from number `from` on, and at most about 4 MiB; `from` 0 is the oldest kept. Empty at
    /// the end of the stream. A gap in the numbers is damage.
    pub async fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, StreamError> {
        self.blocking(move |log| log.read(from, limit)).await
    }

    /// The number of the first record stamped with `time` (since 1970, UTC) or later; the number that the next
    /// record will get when there is none.
    pub async fn since(&self, time: Duration) -> Result<u64, StreamError> {
        self.blocking(move |log| log.since(time)).await
    }

    /// The lowest number that is kept and the number that the next record will get.
    pub fn range(&self) -> (u64, u64) {
        self.0.range()
    }

    /// Every record from number `from` on (0: the oldest kept), then each as it is appended, without end. Ends with
    /// [`StreamError::Gone`] when it is overtaken by the removal of old records.
    pub fn follow(&self, from: u64) -> BoxStream<'static, Result<Record, StreamError>> {
        let stream = self.clone();
        let mut next = stream.0.next.subscribe();
        Box::pin(async_stream::stream! {
            let mut ready = VecDeque::new();
            let mut from = from;
            loop {
                let appended = *next.borrow_and_update();
                while from < appended {
                    match stream.read(from, 1000).await {
                        Ok(records) => ready.extend(records),
                        Err(error) => {
                            yield Err(error);
                            return;
                        }
                    }
                    // What is damaged at the end will not come any more.
                    from = ready.back().map_or(appended, |r: &Record| r.seq + 1);
                    while let Some(record) = ready.pop_front() {
                        yield Ok(record);
                    }
                }
                // The sender lives as long as `stream`.
                if next.changed().await.is_err() {
                    return;
                }
            }
        })
    }

    /// The last `count` records and what comes after them, as [`Stream::follow`].
    pub fn tail(&self, count: u64) -> BoxStream<'static, Result<Record, StreamError>> {
        let (first, next) = self.range();
        self.follow(next.saturating_sub(count).max(first))
    }

    /// Compresses full segments and removes old ones. Appending does so too; for streams that are silent the daemon
    /// calls it every hour.
    pub async fn upkeep(&self) -> Result<(), StreamError> {
        self.blocking(Log::upkeep).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Log) -> Result<T, StreamError> + Send + 'static,
    ) -> Result<T, StreamError> {
        let log = self.0.clone();
        let done = tokio::task::spawn_blocking(move || work(&log)).await;
        done.map_err(|e| StreamError::Thread(e.to_string()))?
    }
}

#[cfg(test)]
mod tests;

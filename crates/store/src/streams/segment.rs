//! The files of a stream. The last one is open and holds plain records; those before are closed: blocks of records,
//! each compressed on its own, so that a reader finds its place by the heads of blocks alone.

use super::StreamError;
use super::record::{self, Place, Record};
use bytes::Bytes;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const MAGIC: [u8; 8] = *b"DVSTREAM";
const VERSION: u16 = 1;
const OPEN: u16 = 0;
const CLOSED: u16 = 1;

/// Length of the head of a segment file.
pub(super) const HEAD: usize = 64;
/// Length of the head of a block.
const BLOCK_HEAD: usize = 48;
/// A block is compressed when it has so many bytes of records; also the grain of the index of an open segment.
pub(super) const BLOCK: usize = 64 * 1024;

/// The head of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) closed: bool,
    pub(super) salt: u32,
    pub(super) first: u64,
    /// Closed: the last number. Open: 0.
    pub(super) last: u64,
    /// Closed: the latest time. Open: when it was made.
    pub(super) micros: u64,
}

impl Head {
    pub(super) fn encode(&self) -> [u8; HEAD] {
        let mut out = [0; HEAD];
        out[..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10..12].copy_from_slice(&(if self.closed { CLOSED } else { OPEN }).to_le_bytes());
        out[12..16].copy_from_slice(&self.salt.to_le_bytes());
        out[16..24].copy_from_slice(&self.first.to_le_bytes());
        out[24..32].copy_from_slice(&self.last.to_le_bytes());
        out[32..40].copy_from_slice(&self.micros.to_le_bytes());
        let sum = crc32c::crc32c(&out[..HEAD - 4]);
        out[HEAD - 4..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// The head of a file; `None` when it is damaged. A newer version is an error, not damage.
    pub(super) fn read(file: &File, path: &Path) -> Result<Option<Head>, StreamError> {
        let mut bytes = [0; HEAD];
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(StreamError::io("reading", path, error)),
        }
        let sum = u32::from_le_bytes(le(&bytes[HEAD - 4..]));
        if bytes[..8] != MAGIC || crc32c::crc32c(&bytes[..HEAD - 4]) != sum {
            return Ok(None);
        }
        let version = u16::from_le_bytes(le(&bytes[8..10]));
        if version > VERSION {
            return Err(StreamError::Newer {
                path: path.to_owned(),
                version,
                knows: VERSION,
            });
        }
        Ok(Some(Head {
            closed: u16::from_le_bytes(le(&bytes[10..12])) == CLOSED,
            salt: u32::from_le_bytes(le(&bytes[12..16])),
            first: u64::from_le_bytes(le(&bytes[16..24])),
            last: u64::from_le_bytes(le(&bytes[24..32])),
            micros: u64::from_le_bytes(le(&bytes[32..40])),
        }))
    }
}

/// A fixed number of bytes of a slice that is exactly so long (callers slice by constants).
fn le<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(bytes);
    out
}

/// The name of the open segment that begins with `first`.
pub(super) fn open_path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.seg"))
}

/// The name of the closed segment that begins with `first`.
pub(super) fn closed_path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.zst"))
}

/// What an open segment holds.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Every sound record: where it is and its offset. Numbers rise.
    pub(super) places: Vec<(usize, Place)>,
    /// Where the sound beginning of the file ends.
    pub(super) end: usize,
    /// Sound records lie behind unsound bytes: damage, not an append that was cut short.
    pub(super) damaged: bool,
}

/// How hard blocks are compressed. Much of them is sealed or hashes: what higher levels gain there is not worth their time.
const LEVEL: i32 = 1;

/// Looks through the bytes of an open segment.
pub(super) fn scan(bytes: &[u8], head: &Head) -> Scan {
    let mut scan = Scan {
        end: HEAD,
        ..Scan::default()
    };
    let mut at = HEAD;
    let mut next = head.first;
    let mut lost = false;
    while at < bytes.len() {
        // Behind damage numbers may be missing, but no more than would have fitted.
        let most = if lost {
            next + (bytes.len() / record::HEAD) as u64
        } else {
            next
        };
        match record::decode_of(&bytes[at..], head.salt, next..=most) {
            Some(place) => {
                scan.damaged |= lost;
                scan.places.push((at, place));
                next = place.seq + 1;
                at += place.len;
                if !lost {
                    scan.end = at;
                }
            }
            _ => {
                lost = true;
                at += 1;
            }
        }
    }
    scan
}

/// Where a block lies in a closed segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    at: u64,
    packed: u32,
    sum: u32,
    raw: u32,
    pub(super) first: u64,
    pub(super) last: u64,
    /// Its latest time.
    pub(super) micros: u64,
}

impl Block {
    fn encode(&self) -> [u8; BLOCK_HEAD] {
        let mut out = [0; BLOCK_HEAD];
        out[..4].copy_from_slice(&self.packed.to_le_bytes());
        out[4..8].copy_from_slice(&self.sum.to_le_bytes());
        out[8..12].copy_from_slice(&self.raw.to_le_bytes());
        out[16..24].copy_from_slice(&self.first.to_le_bytes());
        out[24..32].copy_from_slice(&self.last.to_le_bytes());
        out[32..40].copy_from_slice(&self.micros.to_le_bytes());
        let sum = crc32c::crc32c(&out[..BLOCK_HEAD - 4]);
        out[BLOCK_HEAD - 4..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8; BLOCK_HEAD], at: u64) -> Option<Block> {
        let sum = u32::from_le_bytes(le(&bytes[BLOCK_HEAD - 4..]));
        (crc32c::crc32c(&bytes[..BLOCK_HEAD - 4]) == sum).then(|| Block {
            at,
            packed: u32::from_le_bytes(le(&bytes[..4])),
            sum: u32::from_le_bytes(le(&bytes[4..8])),
            raw: u32::from_le_bytes(le(&bytes[8..12])),
            first: u64::from_le_bytes(le(&bytes[16..24])),
            last: u64::from_le_bytes(le(&bytes[24..32])),
            micros: u64::from_le_bytes(le(&bytes[32..40])),
        })
    }
}

/// Writes a closed segment from the sound records of an open one, all or nothing. Returns its head and size; `None`
/// when there is no record to keep.
pub(super) fn close(
    dir: &Path,
    bytes: &[u8],
    head: &Head,
    places: &[(usize, Place)],
) -> Result<Option<(Head, u64)>, StreamError> {
    let (Some((_, first)), Some((_, last))) = (places.first(), places.last()) else {
        return Ok(None);
    };
    let path = closed_path(dir, head.first);
    let part = path.with_extension("part");
    let failed = |error| StreamError::io("closing a segment into", &path, error);
    let micros = places.iter().map(|(_, p)| p.micros).max().unwrap_or(0);
    let closed = Head {
        closed: true,
        first: first.seq,
        last: last.seq,
        micros,
        ..*head
    };
    let mut out = closed.encode().to_vec();
    let mut packer = zstd::bulk::Compressor::new(LEVEL).map_err(failed)?;
    let mut left = places;
    while !left.is_empty() {
        let mut raw = Vec::with_capacity(BLOCK + 4096);
        let mut count = 0;
        for (at, place) in left {
            if count > 0 && raw.len() + place.len > BLOCK {
                break;
            }
            raw.extend_from_slice(&bytes[*at..*at + place.len]);
            count += 1;
        }
        let (these, rest) = left.split_at(count);
        left = rest;
        let packed = packer.compress(&raw).map_err(failed)?;
        let block = Block {
            at: 0,
            packed: u32::try_from(packed.len()).map_err(|e| failed(io::Error::other(e)))?,
            sum: crc32c::crc32c(&packed),
            raw: u32::try_from(raw.len()).map_err(|e| failed(io::Error::other(e)))?,
            first: these[0].1.seq,
            last: these[count - 1].1.seq,
            micros: these.iter().map(|(_, p)| p.micros).max().unwrap_or(0),
        };
        out.extend_from_slice(&block.encode());
        out.extend_from_slice(&packed);
    }
    let write = || {
        let mut file = File::create(&part)?;
        file.write_all(&out)?;
        file.sync_all()?;
        fs::rename(&part, &path)?;
        File::open(dir)?.sync_all()
    };
    if let Err(error) = write() {
        let _ = fs::remove_file(&part);
        return Err(failed(error));
    }
    Ok(Some((closed, out.len() as u64)))
}

/// A closed segment, opened for reading.
pub(super) struct Closed {
    file: File,
    path: PathBuf,
    head: Head,
    blocks: Vec<Block>,
}

impl Closed {
    pub(super) fn open(path: &Path) -> Result<Closed, StreamError> {
        let failed = |error| StreamError::io("reading", path, error);
        let file = File::open(path).map_err(failed)?;
        let head = Head::read(&file, path)?.ok_or_else(|| StreamError::Damaged(path.to_owned()))?;
        let size = file.metadata().map_err(failed)?.len();
        let mut blocks: Vec<Block> = Vec::new();
        let mut at = HEAD as u64;
        while at + BLOCK_HEAD as u64 <= size {
            let mut bytes = [0; BLOCK_HEAD];
            file.read_exact_at(&mut bytes, at).map_err(failed)?;
            // Without the head of a block the next cannot be found: what is behind is lost to readers.
            let Some(block) = Block::decode(&bytes, at + BLOCK_HEAD as u64) else {
                tracing::warn!(file = %path.display(), at, "Stream segment is damaged, records are missing");
                break;
            };
            at = block.at + u64::from(block.packed);
            blocks.push(block);
        }
        Ok(Closed {
            file,
            path: path.to_owned(),
            head,
            blocks,
        })
    }

    /// The blocks with records of at least `from`, in order.
    pub(super) fn blocks_from(&self, from: u64) -> &[Block] {
        &self.blocks[self.blocks.partition_point(|b| b.last < from)..]
    }

    /// The records of a block. Of a damaged block those that are sound, and a line in the log.
    pub(super) fn records(&self, block: &Block) -> Result<Vec<Record>, StreamError> {
        let lost = || {
            tracing::warn!(file = %self.path.display(), first = block.first, last = block.last, "Stream block is damaged, records are missing");
        };
        // A head whose checksum holds was written by us, so its lengths are true; the file may still be cut.
        let mut packed = vec![0; block.packed as usize];
        match self.file.read_exact_at(&mut packed, block.at) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                lost();
                return Ok(Vec::new());
            }
            Err(error) => return Err(StreamError::io("reading", &self.path, error)),
        }
        let raw = if crc32c::crc32c(&packed) == block.sum {
            zstd::bulk::decompress(&packed, block.raw as usize).ok()
        } else {
            None
        };
        let Some(raw) = raw.map(Bytes::from) else {
            lost();
            return Ok(Vec::new());
        };
        let mut records = Vec::new();
        let mut at = 0;
        while at < raw.len() {
            let Some(place) = record::decode(&raw[at..], self.head.salt) else {
                lost();
                break;
            };
            records.push(place.record(&raw, at));
            at += place.len;
        }
        Ok(records)
    }
}

/// Makes an open segment with nothing but its head, durable in its folder.
pub(super) fn create(dir: &Path, head: &Head) -> Result<(File, PathBuf), StreamError> {
    let path = open_path(dir, head.first);
    let part = path.with_extension("part");
    let make = || {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&part)?;
        file.write_all(&head.encode())?;
        file.sync_all()?;
        fs::rename(&part, &path)?;
        File::open(dir)?.sync_all()?;
        Ok(file)
    };
    match make() {
        Ok(file) => Ok((file, path)),
        Err(error) => {
            let _ = fs::remove_file(&part);
            Err(StreamError::io("making the segment", &path, error))
        }
    }
}

/// All bytes of a file.
pub(super) fn slurp(file: &File, path: &Path) -> Result<Vec<u8>, StreamError> {
    let mut bytes = Vec::new();
    let mut from = file;
    let read = io::Seek::rewind(&mut from).and_then(|()| from.read_to_end(&mut bytes));
    read.map_err(|error| StreamError::io("reading", path, error))?;
    Ok(bytes)
}

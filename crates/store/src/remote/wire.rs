//! What goes over the wire: protobuf messages in frames with a length before them.
//!
//! Fields are only ever added: the two ends may be of neighbouring versions.

use crate::{
    Change, ChangeKind, Entry, Expect, Key, LeaseId, Listing, Page, Prefix, Revision, StoreError,
    Txn, Write,
};
use bytes::Bytes;
use prost::{Message, Oneof};
use tokio_util::codec::LengthDelimitedCodec;

/// The version of the conversation. Raised only when an old peer would do harm.
pub(super) const VERSION: u32 = 1;

/// Largest frame: a full transaction with its keys and expectations fits twice.
pub(super) const MAX_FRAME: usize = 2 * 1024 * 1024;

/// Bytes after which a listing or a run of changes goes on in the next frame.
pub(super) const PART: usize = 256 * 1024;

/// A message as the content of a frame.
pub(super) fn pack(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

pub(super) fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .max_frame_length(MAX_FRAME)
        .new_codec()
}

/// The first frame of every stream.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Open {
    #[prost(uint32, tag = "1")]
    pub(super) version: u32,
    /// Present: the stream is this watch. Absent: it is for calls.
    #[prost(message, optional, tag = "2")]
    pub(super) watch: Option<WatchAsk>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WatchAsk {
    #[prost(string, tag = "1")]
    pub(super) under: String,
    #[prost(uint64, tag = "2")]
    pub(super) after: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Call {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(oneof = "Ask", tags = "2, 3, 4, 5, 6, 7")]
    pub(super) ask: Option<Ask>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Ask {
    #[prost(string, tag = "2")]
    Get(String),
    #[prost(message, tag = "3")]
    List(ListAsk),
    #[prost(message, tag = "4")]
    Commit(TxnMessage),
    /// Milliseconds.
    #[prost(uint64, tag = "5")]
    Lease(u64),
    #[prost(uint64, tag = "6")]
    KeepAlive(u64),
    #[prost(uint64, tag = "7")]
    Revoke(u64),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListAsk {
    #[prost(string, tag = "1")]
    pub(super) under: String,
    #[prost(uint64, tag = "2")]
    pub(super) limit: u64,
    #[prost(string, optional, tag = "3")]
    pub(super) after: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TxnMessage {
    #[prost(message, repeated, tag = "1")]
    pub(super) expect: Vec<ExpectMessage>,
    #[prost(message, repeated, tag = "2")]
    pub(super) writes: Vec<WriteMessage>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExpectMessage {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    /// Absent: the key does not exist. 0: it exists. Else: it is at this revision.
    #[prost(uint64, optional, tag = "2")]
    pub(super) at: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WriteMessage {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    /// Absent: delete.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub(super) value: Option<Bytes>,
    #[prost(uint64, optional, tag = "3")]
    pub(super) lease: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Reply {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(oneof = "Answer", tags = "2, 3, 4, 5, 6, 7")]
    pub(super) answer: Option<Answer>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Answer {
    #[prost(message, tag = "2")]
    Entry(Found),
    #[prost(message, tag = "3")]
    Listing(Part),
    #[prost(uint64, tag = "4")]
    Revision(u64),
    #[prost(uint64, tag = "5")]
    Lease(u64),
    #[prost(bool, tag = "6")]
    Done(bool),
    #[prost(message, tag = "7")]
    Failure(Failure),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Found {
    #[prost(message, optional, tag = "1")]
    pub(super) entry: Option<EntryMessage>,
}

/// A part of a listing.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Part {
    #[prost(message, repeated, tag = "1")]
    pub(super) entries: Vec<EntryMessage>,
    #[prost(uint64, tag = "2")]
    pub(super) revision: u64,
    #[prost(bool, tag = "3")]
    pub(super) more: bool,
    /// Parts of the same listing follow.
    #[prost(bool, tag = "4")]
    pub(super) goes_on: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct EntryMessage {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) value: Bytes,
    #[prost(uint64, tag = "3")]
    pub(super) created: u64,
    #[prost(uint64, tag = "4")]
    pub(super) modified: u64,
    #[prost(uint64, optional, tag = "5")]
    pub(super) lease: Option<u64>,
}

/// A run of changes that a watch has seen, or its end.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Seen {
    #[prost(message, repeated, tag = "1")]
    pub(super) changes: Vec<ChangeMessage>,
    #[prost(message, optional, tag = "2")]
    pub(super) failure: Option<Failure>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ChangeMessage {
    #[prost(uint64, tag = "1")]
    pub(super) revision: u64,
    #[prost(bool, tag = "2")]
    pub(super) last: bool,
    /// A put.
    #[prost(message, optional, tag = "3")]
    pub(super) put: Option<EntryMessage>,
    /// A deletion, when there is no put.
    #[prost(string, tag = "4")]
    pub(super) deleted: String,
}

/// A [`StoreError`].
#[derive(Clone, PartialEq, Message)]
pub(super) struct Failure {
    #[prost(enumeration = "Sort", tag = "1")]
    pub(super) sort: i32,
    /// The key of a conflict, or what is to be read.
    #[prost(string, tag = "2")]
    pub(super) text: String,
    /// Revision found, revision asked for, or lease.
    #[prost(uint64, tag = "3")]
    pub(super) number: u64,
    /// The oldest revision.
    #[prost(uint64, tag = "4")]
    pub(super) oldest: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Sort {
    Unavailable = 0,
    Conflict = 1,
    Compacted = 2,
    LeaseEnded = 3,
    TooLarge = 4,
    Denied = 5,
    Unusable = 6,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let of = |sort: Sort, text: String, number, oldest| Failure {
            sort: sort as i32,
            text,
            number,
            oldest,
        };
        match error {
            StoreError::Conflict { key, found } => of(Sort::Conflict, key.to_string(), found.0, 0),
            StoreError::Compacted { asked, oldest } => {
                of(Sort::Compacted, String::new(), asked.0, oldest.0)
            }
            StoreError::LeaseEnded(lease) => of(Sort::LeaseEnded, String::new(), lease.0, 0),
            StoreError::TooLarge(text) => of(Sort::TooLarge, text, 0, 0),
            StoreError::Denied(text) => of(Sort::Denied, text, 0, 0),
            StoreError::Unusable(text) => of(Sort::Unusable, text, 0, 0),
            StoreError::Unavailable(text) => of(Sort::Unavailable, text, 0, 0),
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure.sort() {
            Sort::Conflict => StoreError::Conflict {
                key: Key::new(failure.text),
                found: Revision(failure.number),
            },
            Sort::Compacted => StoreError::Compacted {
                asked: Revision(failure.number),
                oldest: Revision(failure.oldest),
            },
            Sort::LeaseEnded => StoreError::LeaseEnded(LeaseId(failure.number)),
            Sort::TooLarge => StoreError::TooLarge(failure.text),
            Sort::Denied => StoreError::Denied(failure.text),
            Sort::Unusable => StoreError::Unusable(failure.text),
            Sort::Unavailable => StoreError::Unavailable(failure.text),
        }
    }
}

impl From<Entry> for EntryMessage {
    fn from(entry: Entry) -> Self {
        EntryMessage {
            key: entry.key.as_str().to_owned(),
            value: entry.value,
            created: entry.created.0,
            modified: entry.modified.0,
            lease: entry.lease.map(|l| l.0),
        }
    }
}

impl From<EntryMessage> for Entry {
    fn from(entry: EntryMessage) -> Self {
        Entry {
            key: Key::new(entry.key),
            value: entry.value,
            created: Revision(entry.created),
            modified: Revision(entry.modified),
            lease: entry.lease.map(LeaseId),
        }
    }
}

impl From<Change> for ChangeMessage {
    fn from(change: Change) -> Self {
        let (revision, last) = (change.revision.0, change.last);
        match change.kind {
            ChangeKind::Put(entry) => ChangeMessage {
                revision,
                last,
                put: Some(entry.into()),
                deleted: String::new(),
            },
            ChangeKind::Delete(key) => ChangeMessage {
                revision,
                last,
                put: None,
                deleted: key.as_str().to_owned(),
            },
        }
    }
}

impl From<ChangeMessage> for Change {
    fn from(change: ChangeMessage) -> Self {
        let kind = match change.put {
            Some(entry) => ChangeKind::Put(entry.into()),
            None => ChangeKind::Delete(Key::new(change.deleted)),
        };
        Change {
            revision: Revision(change.revision),
            kind,
            last: change.last,
        }
    }
}

impl From<Txn> for TxnMessage {
    fn from(txn: Txn) -> Self {
        let expect = txn.expect.into_iter().map(|expect| {
            let at = match &expect {
                Expect::Absent(_) => None,
                Expect::Present(_) => Some(0),
                Expect::At(_, revision) => Some(revision.0),
            };
            ExpectMessage {
                key: expect.key().to_string(),
                at,
            }
        });
        let writes = txn.writes.into_iter().map(|write| match write {
            Write::Put { key, value, lease } => WriteMessage {
                key: key.to_string(),
                value: Some(value),
                lease: lease.map(|l| l.0),
            },
            Write::Delete(key) => WriteMessage {
                key: key.to_string(),
                value: None,
                lease: None,
            },
        });
        TxnMessage {
            expect: expect.collect(),
            writes: writes.collect(),
        }
    }
}

impl From<TxnMessage> for Txn {
    fn from(txn: TxnMessage) -> Self {
        let expect = txn.expect.into_iter().map(|expect| {
            let key = Key::new(expect.key);
            match expect.at {
                None => Expect::Absent(key),
                Some(0) => Expect::Present(key),
                Some(at) => Expect::At(key, Revision(at)),
            }
        });
        let writes = txn.writes.into_iter().map(|write| {
            let key = Key::new(write.key);
            match write.value {
                Some(value) => Write::Put {
                    key,
                    value,
                    lease: write.lease.map(LeaseId),
                },
                None => Write::Delete(key),
            }
        });
        Txn {
            expect: expect.collect(),
            writes: writes.collect(),
        }
    }
}

impl ListAsk {
    pub(super) fn new(under: &Prefix, page: Page) -> Self {
        ListAsk {
            under: under.as_str().to_owned(),
            limit: page.limit as u64,
            after: page.after.map(|k| k.to_string()),
        }
    }

    pub(super) fn page(&self) -> Page {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        Page {
            limit,
            after: self.after.as_deref().map(Key::new),
        }
    }
}

/// A listing in frames of a good size. At least one.
pub(super) fn parts(listing: Listing) -> Vec<Part> {
    let Listing {
        revision,
        entries,
        more,
    } = listing;
    let part = |entries| Part {
        entries,
        revision: revision.0,
        more,
        goes_on: true,
    };
    let mut parts = Vec::new();
    let (mut here, mut bytes) = (Vec::new(), 0);
    for entry in entries {
        bytes += entry.value.len() + entry.key.as_str().len() + 40;
        here.push(EntryMessage::from(entry));
        if bytes >= PART {
            parts.push(part(std::mem::take(&mut here)));
            bytes = 0;
        }
    }
    let last = Part {
        goes_on: false,
        ..part(here)
    };
    parts.push(last);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_survives_the_wire() {
        let txn = Txn::new()
            .create(Key::new("a"), "1")
            .replace(Key::new("b"), Revision(7), "")
            .expect(Expect::Present(Key::new("c")))
            .put_leased(Key::new("d"), vec![0, 255], LeaseId(9))
            .delete(Key::new("e"));
        let bytes = TxnMessage::from(txn.clone()).encode_to_vec();
        let back = Txn::from(TxnMessage::decode(&bytes[..]).unwrap());
        assert_eq!(format!("{txn:?}"), format!("{back:?}"));
        let errors = [
            StoreError::Conflict {
                key: Key::new("k"),
                found: Revision::ZERO,
            },
            StoreError::Compacted {
                asked: Revision(1),
                oldest: Revision(2),
            },
            StoreError::LeaseEnded(LeaseId(3)),
            StoreError::TooLarge("t".into()),
            StoreError::Denied("d".into()),
            StoreError::Unusable("u".into()),
            StoreError::Unavailable("v".into()),
        ];
        for error in errors {
            let text = format!("{error:?}");
            assert_eq!(
                format!("{:?}", StoreError::from(Failure::from(error))),
                text
            );
        }
    }

    #[test]
    fn a_long_listing_goes_in_parts() {
        let entry = |n: usize| Entry {
            key: Key::new(format!("{n:04}")),
            value: vec![1; 100_000].into(),
            created: Revision(1),
            modified: Revision(1),
            lease: None,
        };
        let listing = Listing {
            revision: Revision(5),
            entries: (0..20).map(entry).collect(),
            more: true,
        };
        let parts = parts(listing);
        assert!(parts.len() > 5 && parts.iter().all(|p| p.encoded_len() < MAX_FRAME && p.more));
        assert_eq!(parts.iter().filter(|p| !p.goes_on).count(), 1);
        assert_eq!(parts.iter().map(|p| p.entries.len()).sum::<usize>(), 20);
        assert_eq!(super::parts(Listing::default()).len(), 1);
    }
}

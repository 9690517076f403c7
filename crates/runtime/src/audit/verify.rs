//! Looks through a chain: every row is as it was written, none is missing, each seal is signed by the key that the seal
//! before it has named, and the chain goes through every head that somebody kept elsewhere. In one pass, in constant
//! memory, over the files as they lie there; no key that opens anything is needed.

use super::format::{Hash, Link, Sort};
use super::head::{ChainId, Head, PublicKey};
use super::trail::SEAL_ROWS;
use model::{Error, Result, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow::{self, Break, Continue};
use std::path::Path;
use std::time::Duration;
use store::streams::{Record, look};

/// Rows are kept at least so long.
const KEPT: Duration = Duration::from_secs(365 * 24 * 3600);
/// So many rows may wait for a seal ...
const UNSEALED: u64 = 2 * SEAL_ROWS;
/// ... and so long, where a process died and was started again.
const UNSEALED_FOR: Duration = Duration::from_secs(600);

/// The first thing that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Broken {
    /// The first broken row.
    pub row: u64,
    /// The last row that may be broken with it, when it cannot be told which one it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// What is wrong.
    pub why: String,
}

/// What a look through a chain has found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Verdict {
    /// Whether everything is as it was written.
    pub sound: bool,
    /// Rows that were looked at, seals among them.
    pub rows: u64,
    /// The oldest of them. Rows before it were removed by their age.
    pub first: u64,
    /// The last of them.
    pub last: u64,
    /// Seals whose signature holds.
    pub seals: u64,
    /// The last row that a seal covers: what comes after it is chained, and not signed yet.
    pub sealed_to: u64,
    /// Heads from elsewhere that the chain goes through.
    pub heads: u64,
    /// The first broken row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<Broken>,
}

impl Verdict {
    /// For people, in a sentence.
    pub fn sentence(&self) -> String {
        match &self.broken {
            Some(Broken { row, to: None, why }) => format!("row {row} is broken: {why}"),
            Some(Broken {
                row,
                to: Some(to),
                why,
            }) => format!("rows {row} to {to} are broken: {why}"),
            None if self.heads == 0 && self.seals == 0 => format!(
                "{} rows fit together ({} to {}); nothing proves that they are the ones that were written: no head was given to compare them with",
                self.rows, self.first, self.last
            ),
            None => format!(
                "{} rows are as they were written ({} to {}), {} seals and {} anchored heads hold, signed up to row {}",
                self.rows, self.first, self.last, self.seals, self.heads, self.sealed_to
            ),
        }
    }
}

/// One pass over a chain.
pub struct Verifier<H: Iterator<Item = Head>> {
    chain: Option<ChainId>,
    /// The key that must sign the next seal; unknown until a head names it.
    key: Option<PublicKey>,
    genesis: Option<Head>,
    heads: std::iter::Peekable<H>,
    prev: Option<Hash>,
    /// A head that the last row was compared with.
    matched: Option<Head>,
    /// The youngest head of a row that is not kept any more: its number, and when.
    gone: Option<(u64, Timestamp)>,
    /// The first row that no seal covers, and when it was written.
    unsealed: Option<(u64, Timestamp)>,
    /// When the last row was written.
    time: Timestamp,
    verdict: Verdict,
}

impl<H: Iterator<Item = Head>> Verifier<H> {
    /// Against heads in order of their numbers; the first one may be the first line of the chain.
    pub fn new(heads: H) -> Verifier<H> {
        let mut heads = heads.peekable();
        let genesis = heads.next_if(|head| head.seq == 0);
        let first = genesis.as_ref().or_else(|| heads.peek());
        Verifier {
            chain: first.map(|head| head.chain),
            key: None,
            genesis,
            heads,
            prev: None,
            matched: None,
            gone: None,
            unsealed: None,
            time: Timestamp::from_millis(0),
            verdict: Verdict::default(),
        }
    }

    fn broken(&mut self, row: u64, to: u64, why: impl Into<String>) -> ControlFlow<()> {
        self.verdict.broken = Some(Broken {
            row,
            to: (to > row).then_some(to),
            why: why.into(),
        });
        Break(())
    }

    /// Looks at the next record of the stream.
    pub fn see(&mut self, seq: u64, payload: &[u8]) -> ControlFlow<()> {
        let Some(link) = Link::read(payload) else {
            return self.broken(seq, seq, "it is no row of an audit trail");
        };
        let before = self.verdict.last;
        if self.verdict.rows == 0 {
            self.verdict.first = seq;
            self.verdict.sealed_to = seq - 1;
        } else if seq != before + 1 {
            return self.broken(before + 1, seq - 1, "deleted, or damaged beyond reading");
        }
        if !link.is_whole() {
            return self.broken(seq, seq, "it was edited: its contents do not fit its hash");
        }
        if link.seq != seq {
            let why = format!("row {} stands in its place: rows were reordered", link.seq);
            return self.broken(seq, seq, why);
        }
        match (self.prev, &self.genesis) {
            (Some(prev), _) if prev != link.prev => {
                let why = format!("it was rewritten: row {seq} was written after another one");
                return self.broken(before, before, why);
            }
            (None, Some(genesis)) if seq == 1 => {
                if genesis.hash != link.prev {
                    return self.broken(1, 1, "it does not begin the chain that is pinned");
                }
                self.key = Some(genesis.next_key);
            }
            _ => {}
        }
        self.time = Timestamp::from_millis(link.time);
        if link.sort == Sort::Seal {
            self.seal(seq, &link)?;
            self.unsealed = None;
        } else {
            self.unsealed.get_or_insert((seq, self.time));
        }
        if let (0, true, Some(genesis)) = (self.verdict.rows, seq > 1, &self.genesis) {
            self.gone = Some((0, genesis.time));
        }
        self.prev = Some(link.hash);
        self.verdict.last = seq;
        self.verdict.rows += 1;
        // Heads of rows that are not kept any more say when those were written.
        while let Some(head) = self.heads.next_if(|head| head.seq < seq) {
            if (1..self.verdict.first).contains(&head.seq) {
                self.gone = Some((head.seq, head.time));
            }
        }
        while let Some(head) = self.heads.next_if(|head| head.seq == seq) {
            if head.hash != link.hash || self.chain.is_some_and(|chain| chain != head.chain) {
                let from = self.verdict.sealed_to + 1;
                return self.broken(
                    from.min(seq),
                    seq,
                    format!("rewritten: row {seq} is not the one that was anchored"),
                );
            }
            self.verdict.heads += 1;
            self.matched = Some(head);
        }
        Continue(())
    }

    fn seal(&mut self, seq: u64, link: &Link<'_>) -> ControlFlow<()> {
        let from = (self.verdict.sealed_to + 1).min(seq);
        let Some(chain) = self.chain else {
            return Continue(());
        };
        let Some(head) = Head::of(chain, link) else {
            return self.broken(seq, seq, "it is a seal without a signature");
        };
        match self.key {
            Some(key) if !head.is_signed_by(&key) => {
                let why =
                    "rewritten: the seal after them is not signed by the key that was named for it";
                return self.broken(from, seq, why);
            }
            Some(_) => {
                self.verdict.seals += 1;
                self.verdict.sealed_to = head.seq;
            }
            // The beginning was removed: the first head that was kept elsewhere vouches for the seal that it stands for.
            None if self.matched.as_ref() == Some(&head) => {
                self.verdict.seals += 1;
                self.verdict.sealed_to = head.seq;
            }
            None => return Continue(()),
        }
        self.key = Some(head.next_key);
        Continue(())
    }

    /// Rows are removed by their age. What was younger, somebody else has removed.
    fn too_young(&self) -> Option<Broken> {
        let (row, time) = self.gone?;
        let last = self.verdict.first - 1;
        (self.time.since(time) < KEPT).then(|| Broken {
            row: (row + 1).min(last),
            to: (row + 1 < last).then_some(last),
            why: format!(
                "deleted: the rows before row {} were kept until {time} at least, and nothing is removed before it is a year old",
                self.verdict.first
            ),
        })
    }

    /// A trail is sealed again and again; a long tail without a seal was written without its key.
    fn unsigned(&self) -> Option<Broken> {
        let (row, time) = self.unsealed?;
        let last = self.verdict.last;
        let many = last - row >= UNSEALED;
        (many || self.time.since(time) > UNSEALED_FOR).then(|| Broken {
            row,
            to: (row < last).then_some(last),
            why: "no seal covers them: they were written by somebody who has not the key, or the trail could not be sealed"
                .into(),
        })
    }

    /// After the last row.
    pub fn end(mut self) -> Verdict {
        if self.verdict.broken.is_none() {
            let last = self.verdict.last;
            let cut = self.heads.by_ref().filter(|head| head.seq > last).last();
            self.verdict.broken = cut.map(|head| Broken {
                row: last + 1,
                to: (head.seq > last + 1).then_some(head.seq),
                why: format!(
                    "cut off: the chain had reached row {} by {}",
                    head.seq, head.time
                ),
            });
        }
        if self.verdict.broken.is_none() {
            self.verdict.broken = self.too_young().or_else(|| self.unsigned());
        }
        self.verdict.sound = self.verdict.broken.is_none();
        self.verdict
    }
}

/// Looks through the folder of a trail, while it is in use or as a copy. `heads` as for [`Verifier::new`]. Blocks.
///
/// # Errors
/// When the folder cannot be read.
pub fn verify(rows: &Path, heads: Vec<Head>) -> Result<Verdict> {
    let mut heads = heads;
    heads.sort_by_key(|head| head.seq);
    let mut verifier = Verifier::new(heads.into_iter());
    look(rows, &mut |record: Record| {
        verifier.see(record.seq, &record.payload)
    })
    .map_err(|e| Error::unavailable(format!("the audit trail cannot be read: {e}")).because(e))?;
    Ok(verifier.end())
}

/// The heads of an anchor: a file of lines, in any order, other lines between them. At most `most` of them: of a longer
/// file the first and the last ones.
pub fn heads_of(text: &str, most: usize) -> Vec<Head> {
    let mut heads: Vec<Head> = text.lines().filter_map(Head::parse).collect();
    heads.sort_by_key(|head| head.seq);
    heads.dedup();
    if heads.len() > most {
        let surplus = heads.len() - most;
        heads.drain(1..=surplus);
    }
    heads
}

#[cfg(test)]
mod tests {
    use super::super::format::Writer;
    use super::*;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    const DAY: i64 = 24 * 3600;

    fn key(n: u8) -> (Ed25519KeyPair, PublicKey) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[n; 32]).unwrap();
        let public = pair.public_key().as_ref().try_into().unwrap();
        (pair, public)
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + seconds * 1000)
    }

    /// A chain that began so long before its first row, with rows at these seconds and a seal after three of them; from
    /// the row `from` on, against the heads that its own folder has.
    fn seen(age: i64, from: u64, times: &[i64]) -> Verdict {
        let genesis = Head::genesis([7; 16], key(1).1, at(-age));
        let (mut prev, mut seq) = (genesis.hash, 0);
        let mut heads = vec![genesis];
        let mut payloads = Vec::new();
        for (n, time) in (1..).zip(times) {
            seq += 1;
            let (row, hash) = Writer::new(Sort::Row, seq, &prev, at(*time).millis()).end();
            prev = hash;
            payloads.push(row);
            if n == 3 {
                let mut head = Head {
                    chain: [7; 16],
                    epoch: 1,
                    seq,
                    hash: prev,
                    time: at(*time),
                    next_key: key(2).1,
                    signature: String::new(),
                };
                head.sign(&key(1).0);
                let (row, hash) = head.row().end();
                (prev, seq) = (hash, seq + 1);
                payloads.push(row);
                heads.push(head);
            }
        }
        let mut verifier = Verifier::new(heads.into_iter());
        for (seq, payload) in (1..).zip(&payloads) {
            if seq >= from && verifier.see(seq, payload).is_break() {
                break;
            }
        }
        verifier.end()
    }

    #[test]
    fn a_beginning_that_is_too_young_to_be_gone_and_a_long_tail_without_a_seal_are_found() {
        let many: Vec<i64> = (0..2100).map(|n| n / 100).collect();
        for (age, from, times, broken) in [
            (0, 1, &[0, 1, 2][..], None),
            (0, 1, &[0, 1, 2, 60, 61], None),
            // Whoever has not the key goes on without a seal for hours, or for thousands of rows.
            (0, 1, &[0, 1, 2, 60, 3660], Some((5, Some(6)))),
            (0, 1, &many, Some((5, Some(2101)))),
            // The first rows are gone: by their age ...
            (400 * DAY, 5, &[0, 1, 2, 400 * DAY, 400 * DAY + 1], None),
            // ... and by somebody who says so.
            (2 * DAY, 3, &[0, 1, 2, 60], Some((1, Some(2)))),
            (2 * DAY, 5, &[0, 1, 2, 60], Some((4, None))),
        ] {
            let verdict = seen(age, from, times);
            let found = verdict.broken.as_ref().map(|b| (b.row, b.to));
            assert_eq!(found, broken, "{age} {from}: {}", verdict.sentence());
        }
    }

    #[test]
    fn without_a_head_nothing_is_proven_and_that_is_said() {
        let mut verifier = Verifier::new(std::iter::empty());
        let (row, _) = Writer::new(Sort::Row, 1, &[0; 32], 0).end();
        assert!(verifier.see(1, &row).is_continue());
        let said = verifier.end().sentence();
        assert!(said.contains("nothing proves"), "{said}");
    }
}

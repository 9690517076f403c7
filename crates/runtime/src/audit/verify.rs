//! Looks through a chain: every row is as it was written, none is missing, each seal is signed by the key that the seal
//! before it has named, and the chain goes through every head that somebody kept elsewhere. In one pass, in constant
//! memory, over the files as they lie there; no key that opens anything is needed.

use super::format::{Hash, Link, Sort};
use super::head::{ChainId, Head, PublicKey};
use model::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow::{self, Break, Continue};
use std::path::Path;
use store::streams::{Record, look};

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
        if link.sort == Sort::Seal {
            self.seal(seq, &link)?;
        }
        self.prev = Some(link.hash);
        self.verdict.last = seq;
        self.verdict.rows += 1;
        // Heads of rows that are not kept any more say nothing.
        while self.heads.next_if(|head| head.seq < seq).is_some() {}
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

    /// After the last row.
    pub fn end(mut self) -> Verdict {
        if self.verdict.broken.is_none() {
            let last = self.verdict.last;
            let cut = self.heads.filter(|head| head.seq > last).last();
            self.verdict.broken = cut.map(|head| Broken {
                row: last + 1,
                to: (head.seq > last + 1).then_some(head.seq),
                why: format!(
                    "cut off: the chain had reached row {} by {}",
                    head.seq, head.time
                ),
            });
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

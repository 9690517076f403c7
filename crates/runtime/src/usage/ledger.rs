//! Room that writes of this process have taken and that is not in the store yet, and the guard that makes this process
//! the only one that hands out room.
//!
//! ```text
//! reserved ─► stored at a revision ─► forgotten, once the cache is there
//!     ├─────► refused by the store: forgotten at once
//!     └─────► nobody knows: counted until the guard was taken anew, which settles whether it is stored
//! ```
//!
//! What is reserved and not yet decided gives no room to others, but is no reason to refuse them either: they wait the
//! moment until it is decided. Otherwise the last place of a project could stay empty though two had asked for it, and an
//! object that the cache has before its writer heard of it would count twice.

use super::{Amounts, Counted, LimitRules};
use crate::Cx;
use crate::cx::store_error;
use model::{Error, Result, Uid};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;
use store::{Expect, Key, Revision, StoreError, Txn};
use tokio::sync::Notify;

/// Prefix of the guards.
const GUARDS: &str = "q";
/// How often the guard is tried for.
const TRIES: usize = 100;
/// How long a change waits for one that is under way before it.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is reserved in this process.
#[derive(Default)]
pub(crate) struct Ledger {
    books: Mutex<HashMap<Box<str>, Book>>,
    /// Told whenever it is decided what became of a reservation.
    decided: Notify,
}

/// Of one project.
#[derive(Default)]
struct Book {
    /// The revision of the guard that this process took last, unless somebody else has it now.
    guard: Option<Revision>,
    /// The newest one that it ever had: an older one is somebody else's by now.
    newest: Revision,
    taken: Vec<Taken>,
    next: u64,
}

struct Taken {
    id: u64,
    /// The guard under which it is written.
    guard: Revision,
    /// With what it counts together.
    group: (Key, Uid),
    amounts: Amounts,
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Stored(Revision),
    Unknown,
}

/// Room that a write has reserved. Dropped without a word after its transaction was made, it is counted on until it is
/// certain what became of that.
pub(crate) struct Held {
    cx: Cx,
    project: Box<str>,
    id: u64,
    guard: Revision,
    /// Whether a transaction was made of it, which may have been stored.
    given: bool,
    settled: bool,
}

fn guard_key(project: &str) -> Key {
    Key::from_parts(&[GUARDS, project])
}

impl Ledger {
    /// Reserves by how much an object raises the sums of its project. `None` when it changes nothing that is limited.
    ///
    /// # Errors
    ///
    /// `Quota`, naming every limit that it does not fit under.
    pub async fn reserve(cx: &Cx, it: &Counted) -> Result<Option<Held>> {
        let Some(rules) = cx.try_part::<LimitRules>() else {
            return Ok(None);
        };
        if !cx.cache().counts_anew(it) && !cx.ledger().has_kin(it) {
            return Ok(None);
        }
        let project = &*it.project;
        let words = it.amounts.keys();
        let limits: Vec<(Box<str>, u64)> = words
            .filter_map(|word| Some((word.clone(), rules.0.limit(cx, project, word)?)))
            .collect();
        if limits.is_empty() {
            return Ok(None);
        }
        let mut guards = 0;
        while guards < TRIES {
            // Made before the look, so that nothing is decided unheard between the two.
            let decided = cx.ledger().decided.notified();
            match cx.ledger().take(cx, it, &limits) {
                Took::Room(held) => return Ok(Some(held)),
                Took::NoGuard => {
                    guards += 1;
                    take_guard(cx, project).await?;
                }
                Took::Undecided => {
                    let heard = tokio::time::timeout(PATIENCE, decided).await;
                    heard.map_err(|_| {
                        Error::unavailable(format!(
                            "another change of project `{project}` does not come to its end"
                        ))
                        .hint("try again")
                    })?;
                }
                Took::Behind(at) => cx.cache().reach(at).await?,
                Took::Full(over) => return Err(too_much(cx, &rules, project, &over)),
            }
        }
        Err(Error::unavailable(
            "other processes write into the project again and again; try again",
        ))
    }

    /// Whether something under way counts together with this object.
    fn has_kin(&self, it: &Counted) -> bool {
        let books = self.books.lock();
        let book = books.get(&it.project);
        book.is_some_and(|book| book.taken.iter().any(|taken| taken.group == it.group))
    }

    fn take(&self, cx: &Cx, it: &Counted, limits: &[(Box<str>, u64)]) -> Took {
        let mut books = self.books.lock();
        let book = books.entry(it.project.clone()).or_default();
        let Some(guard) = book.guard else {
            return Took::NoGuard;
        };
        let (seen, total, raise) = cx.cache().room(it);
        book.taken
            .retain(|taken| !matches!(taken.fate, Fate::Stored(at) if at <= seen));
        // Of what counts together only the most counts, so a write can be measured only when those before it are there.
        let kin = |taken: &&Taken| taken.group == it.group;
        if let Some(before) = book.taken.iter().find(kin) {
            return match before.fate {
                Fate::Stored(at) => Took::Behind(at),
                Fate::Open => Took::Undecided,
                Fate::Unknown => {
                    book.guard = None;
                    Took::NoGuard
                }
            };
        }
        let mut over = Vec::new();
        let mut fits = true;
        for (word, limit) in limits {
            let of = |amounts: &Amounts| amounts.get(word).copied().unwrap_or(0);
            let more = of(&raise);
            if more == 0 {
                continue;
            }
            let (mut certain, mut at_most) = (of(&total), of(&total));
            for taken in &book.taken {
                at_most = at_most.saturating_add(of(&taken.amounts));
                if taken.fate != Fate::Open {
                    certain = certain.saturating_add(of(&taken.amounts));
                }
            }
            fits &= at_most.saturating_add(more) <= *limit;
            if certain.saturating_add(more) > *limit {
                over.push(Over {
                    word: word.clone(),
                    limit: *limit,
                    used: certain,
                    more,
                });
            }
        }
        if !over.is_empty() {
            return Took::Full(over);
        }
        if !fits {
            return Took::Undecided;
        }
        book.next += 1;
        let id = book.next;
        book.taken.push(Taken {
            id,
            guard,
            group: it.group.clone(),
            amounts: raise,
            fate: Fate::Open,
        });
        Took::Room(Held {
            cx: cx.clone(),
            project: it.project.clone(),
            id,
            guard,
            given: false,
            settled: false,
        })
    }

    fn settle(&self, held: &Held, how: Settled) {
        let mut books = self.books.lock();
        let Some(book) = books.get_mut(&held.project) else {
            return;
        };
        let mut lost = false;
        match how {
            Settled::Stored(at) => {
                if let Some(taken) = book.taken.iter_mut().find(|taken| taken.id == held.id) {
                    taken.fate = Fate::Stored(at);
                }
            }
            Settled::Refused { guard } => {
                book.taken.retain(|taken| taken.id != held.id);
                lost = guard;
            }
            Settled::Unknown => {
                if let Some(taken) = book.taken.iter_mut().find(|taken| taken.id == held.id) {
                    taken.fate = Fate::Unknown;
                }
                // Whatever guard is held now: taking it anew settles this one too.
                book.guard = None;
            }
        }
        if lost && book.guard == Some(held.guard) {
            book.guard = None;
        }
        drop(books);
        self.decided.notify_waiters();
    }
}

enum Took {
    Room(Held),
    NoGuard,
    /// It fits only if something under way comes to nothing, or counts together with that.
    Undecided,
    /// What it counts together with is stored at this revision, which the cache does not have yet.
    Behind(Revision),
    Full(Vec<Over>),
}

struct Over {
    word: Box<str>,
    limit: u64,
    used: u64,
    more: u64,
}

enum Settled {
    Stored(Revision),
    Refused { guard: bool },
    Unknown,
}

impl Held {
    /// Adds to a transaction what makes it fail when another process hands out the project's room.
    pub fn guarded(&mut self, txn: Txn) -> Txn {
        self.given = true;
        txn.expect(Expect::At(guard_key(&self.project), self.guard))
    }

    /// Says what became of the transaction.
    pub fn settle(mut self, result: &Result<Revision, StoreError>) {
        let how = match result {
            Ok(at) => Settled::Stored(*at),
            Err(StoreError::Conflict { key, .. }) => Settled::Refused {
                guard: *key == guard_key(&self.project),
            },
            Err(StoreError::TooLarge(_) | StoreError::Denied(_)) => {
                Settled::Refused { guard: false }
            }
            Err(_) => Settled::Unknown,
        };
        self.end(how);
    }

    /// Gives the room back: nothing is written.
    pub fn give_back(mut self) {
        self.end(Settled::Refused { guard: false });
    }

    fn end(&mut self, how: Settled) {
        self.settled = true;
        self.cx.ledger().settle(self, how);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.settled {
            self.end(match self.given {
                true => Settled::Unknown,
                false => Settled::Refused { guard: false },
            });
        }
    }
}

/// Makes this process the one that hands out a project's room, having seen all that was written before.
async fn take_guard(cx: &Cx, project: &str) -> Result<()> {
    let key = guard_key(project);
    let there = |cx: &Cx| {
        let books = cx.ledger().books.lock();
        books.get(project).is_some_and(|book| book.guard.is_some())
    };
    for _ in 0..TRIES {
        if there(cx) {
            return Ok(());
        }
        let old = cx.store().get(&key).await.map_err(store_error)?;
        let txn = match &old {
            None => Txn::new().create(key.clone(), cx.node().to_owned()),
            Some(entry) => Txn::new().replace(key.clone(), entry.modified, cx.node().to_owned()),
        };
        match cx.store().commit(txn).await {
            Ok(at) => {
                cx.cache().reach(at).await?;
                let mut books = cx.ledger().books.lock();
                let book = books.entry(project.into()).or_default();
                if book.newest < at {
                    (book.guard, book.newest) = (Some(at), at);
                    // What was written under an earlier guard is in the cache by now, or never will be.
                    book.taken
                        .retain(|taken| taken.fate != Fate::Unknown || taken.guard >= at);
                }
                return Ok(());
            }
            Err(StoreError::Conflict { found, .. }) => cx.cache().reach(found).await?,
            Err(error) => return Err(store_error(error)),
        }
    }
    Err(Error::unavailable(
        "other processes write into the project again and again; try again",
    ))
}

fn too_much(cx: &Cx, rules: &LimitRules, project: &str, over: &[Over]) -> Error {
    let known = cx.registry().countables();
    let mut why = Vec::new();
    let mut remedy = Vec::new();
    for one in over {
        let Some(what) = known.iter().find(|what| what.word == one.word) else {
            continue;
        };
        why.push(format!(
            "{} of {} {} are used, and this needs {} more",
            what.shown(one.used),
            what.shown(one.limit),
            what.word,
            what.shown(one.more)
        ));
        let needed = one.used.saturating_add(one.more);
        remedy.push(rules.0.remedy(project, what, needed));
    }
    Error::quota(format!(
        "project `{project}` has no room for it: {}",
        why.join("; ")
    ))
    .hint(format!(
        "delete or shrink something, or have the limit raised: {}",
        remedy.join("; ")
    ))
}

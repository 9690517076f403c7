//! The journal of a procedure: what it has begun, finished and undone, one key per entry.

use crate::Cx;
use crate::cx::store_error;
use futures::future::BoxFuture;
use model::{Error, Result, Uid};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{Key, Page, Prefix, Txn};

/// How a step is undone: a registered name with arguments, so that it survives a restart and an upgrade.
pub struct Undo {
    /// Its name, part of the contract: `compute.release`.
    pub name: &'static str,
    /// Does it; idempotent.
    pub run: fn(Cx, Value) -> BoxFuture<'static, Result<()>>,
}

impl Undo {
    /// A call of this undo with its arguments.
    pub fn with(&self, args: &impl Serialize) -> UndoCall {
        UndoCall {
            name: self.name.into(),
            args: serde_json::to_value(args).unwrap_or(Value::Null),
        }
    }
}

/// An undo with its arguments, as the journal holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UndoCall {
    /// Name of the undo.
    pub name: String,
    /// Its arguments.
    pub args: Value,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub(super) enum Entry {
    /// An undoable step is about to begin.
    Begun { step: String, undo: UndoCall },
    /// A step has ended well.
    Done { step: String, result: Value },
    /// A step has failed and cleaned up after itself.
    Failed { step: String },
    /// From here on only forward.
    PointOfNoReturn,
    /// The procedure is being undone, and why.
    Unwinding {
        cancelled: bool,
        code: String,
        message: String,
    },
    /// The undo of a step has run.
    Undone { step: String, error: Option<String> },
}

/// The journal of one task, read once and appended to.
#[derive(Debug)]
pub(super) struct Journal {
    uid: Uid,
    pub entries: Vec<Entry>,
}

const PREFIX: &str = "j/";

fn prefix(uid: Uid) -> String {
    format!("{PREFIX}{uid}/")
}

/// The task whose journal a key is part of.
pub(crate) fn journal_of(key: &Key) -> Option<Uid> {
    Uid::parse(key.as_str().strip_prefix(PREFIX)?.split_once('/')?.0)
}

impl Journal {
    pub(super) async fn read(cx: &Cx, uid: Uid) -> Result<Journal> {
        let listing = cx
            .store()
            .list(&Prefix::new(prefix(uid)), Page::ALL)
            .await
            .map_err(store_error)?;
        let entries = listing
            .entries
            .iter()
            .map(|e| serde_json::from_slice(&e.value))
            .collect::<Result<Vec<Entry>, _>>()
            .map_err(|e| Error::internal(format!("journal of task {uid}")).because(e))?;
        Ok(Journal { uid, entries })
    }

    /// Appends an entry durably.
    pub(super) async fn append(&mut self, cx: &Cx, entry: Entry) -> Result<()> {
        let key = Key::new(format!("{}{:06}", prefix(self.uid), self.entries.len()));
        let bytes =
            serde_json::to_vec(&entry).map_err(|e| Error::internal("journal entry").because(e))?;
        cx.store()
            .commit(Txn::new().create(key, bytes))
            .await
            .map_err(store_error)?;
        self.entries.push(entry);
        Ok(())
    }

    /// The result of a finished step.
    pub(super) fn done(&self, step: &str) -> Option<&Value> {
        self.entries.iter().find_map(|e| match e {
            Entry::Done { step: s, result } if s == step => Some(result),
            _ => None,
        })
    }

    /// Whether an undoable step was begun and neither finished nor failed since.
    pub(super) fn open_step(&self, step: &str) -> bool {
        let mut open = false;
        for entry in &self.entries {
            match entry {
                Entry::Begun { step: s, .. } if s == step => open = true,
                Entry::Done { step: s, .. } | Entry::Failed { step: s } if s == step => {
                    open = false
                }
                _ => {}
            }
        }
        open
    }

    /// Whether any undoable step is open.
    pub(super) fn any_open(&self) -> bool {
        self.entries
            .iter()
            .any(|e| matches!(e, Entry::Begun { step, .. } if self.open_step(step)))
    }

    pub(super) fn committed(&self) -> bool {
        self.entries.contains(&Entry::PointOfNoReturn)
    }

    pub(super) fn unwinding(&self) -> Option<(bool, String, String)> {
        self.entries.iter().find_map(|e| match e {
            Entry::Unwinding {
                cancelled,
                code,
                message,
            } => Some((*cancelled, code.clone(), message.clone())),
            _ => None,
        })
    }

    /// Finished undoable steps whose undo has not run, last first.
    pub(super) fn to_undo(&self) -> Vec<(String, UndoCall)> {
        let mut out: Vec<(String, UndoCall)> = Vec::new();
        for entry in &self.entries {
            if let Entry::Begun { step, undo } = entry
                && self.done(step).is_some()
                && !out.iter().any(|(s, _)| s == step)
                && !self
                    .entries
                    .iter()
                    .any(|e| matches!(e, Entry::Undone { step: s, .. } if s == step))
            {
                out.push((step.clone(), undo.clone()));
            }
        }
        out.reverse();
        out
    }

    /// How many undos there were and how many of them failed.
    pub(super) fn undone(&self) -> (usize, usize) {
        let all = self
            .entries
            .iter()
            .filter(|e| matches!(e, Entry::Undone { .. }))
            .count();
        let failed = self
            .entries
            .iter()
            .filter(|e| matches!(e, Entry::Undone { error: Some(_), .. }))
            .count();
        (all, failed)
    }

    /// Deletes the journal of an ended task.
    pub(super) async fn forget(&self, cx: &Cx) -> Result<()> {
        let keys: Vec<Key> = (0..self.entries.len())
            .map(|n| Key::new(format!("{}{n:06}", prefix(self.uid))))
            .collect();
        for chunk in keys.chunks(store::MAX_WRITES) {
            let txn = chunk.iter().cloned().fold(Txn::new(), Txn::delete);
            cx.store().commit(txn).await.map_err(store_error)?;
        }
        Ok(())
    }
}

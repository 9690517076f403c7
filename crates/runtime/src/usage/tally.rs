//! The sums of what projects use, kept up by each change of an object.

use super::Amounts;
use crate::{Row, object_ref};
use model::Uid;
use std::collections::{BTreeMap, HashMap};
use store::Key;

/// One object as it counts.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    pub project: Box<str>,
    /// With which object it counts: its owner in the same project, or itself.
    pub group: (Key, Uid),
    key: Key,
    pub amounts: Amounts,
}

impl Counted {
    /// An object with what it takes; `None` when it lies in no project.
    pub fn new(
        key: &Key,
        uid: Uid,
        owner: Option<(&Key, Uid)>,
        amounts: Amounts,
    ) -> Option<Counted> {
        let project = object_ref(key)?.project?;
        let within = |owner: &(&Key, Uid)| {
            object_ref(owner.0).is_some_and(|it| it.project.as_deref() == Some(&*project))
        };
        let group = match owner.filter(within) {
            Some((owner, uid)) => (owner.clone(), uid),
            None => (key.clone(), uid),
        };
        Some(Counted {
            project: project.into(),
            group,
            key: key.clone(),
            amounts,
        })
    }

    /// A row of the cache; `None` when it takes nothing.
    pub fn of(row: &Row) -> Option<Counted> {
        if row.amounts.is_empty() {
            return None;
        }
        let owner = row.owner.as_ref().zip(row.owner_uid);
        Counted::new(&row.key, row.uid, owner, row.amounts.clone())
    }
}

/// What belongs together: an object and what is its own.
#[derive(Debug, Default)]
struct Group {
    parts: BTreeMap<Key, Amounts>,
}

impl Group {
    /// Of what the first object says and what the others take together, the larger, for each word.
    fn sum(&self, first: &Key) -> Amounts {
        let mut out = Amounts::new();
        for (_, amounts) in self.parts.iter().filter(|(key, _)| *key != first) {
            for (word, amount) in amounts {
                let so_far = out.entry(word.clone()).or_default();
                *so_far = so_far.saturating_add(*amount);
            }
        }
        for (word, amount) in self.parts.get(first).into_iter().flatten() {
            let most = out.entry(word.clone()).or_default();
            *most = (*most).max(*amount);
        }
        out
    }
}

/// All sums.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    groups: HashMap<(Key, Uid), Group>,
    totals: HashMap<Box<str>, Amounts>,
}

impl Tally {
    /// Takes an object in, or anew.
    pub fn put(&mut self, it: Counted) {
        self.change(&it, |group| {
            group.parts.insert(it.key.clone(), it.amounts.clone());
        });
    }

    /// An object is gone, or counts otherwise from now on.
    pub fn remove(&mut self, it: &Counted) {
        self.change(it, |group| {
            group.parts.remove(&it.key);
        });
    }

    fn change(&mut self, it: &Counted, with: impl FnOnce(&mut Group)) {
        let group = self.groups.entry(it.group.clone()).or_default();
        let before = group.sum(&it.group.0);
        with(group);
        let after = group.sum(&it.group.0);
        if group.parts.is_empty() {
            self.groups.remove(&it.group);
        }
        let total = self.totals.entry(it.project.clone()).or_default();
        for (word, amount) in after {
            let so_far = total.entry(word).or_default();
            *so_far = so_far.saturating_add(amount);
        }
        for (word, amount) in before {
            if let Some(so_far) = total.get_mut(&word) {
                *so_far = so_far.saturating_sub(amount);
            }
        }
        total.retain(|_, amount| *amount > 0);
        if total.is_empty() {
            self.totals.remove(&it.project);
        }
    }

    /// What a project uses.
    pub fn total(&self, project: &str) -> Amounts {
        self.totals.get(project).cloned().unwrap_or_default()
    }

    /// The projects whose sums differ.
    pub fn differs(&self, other: &Tally) -> Vec<Box<str>> {
        let mut out: Vec<Box<str>> = self
            .totals
            .keys()
            .chain(other.totals.keys())
            .filter(|project| self.totals.get(*project) != other.totals.get(*project))
            .cloned()
            .collect();
        out.sort();
        out.dedup();
        out
    }

    /// Whether others count together with this object, and it is to take something else than it does now.
    pub fn shifts(&self, it: &Counted) -> bool {
        self.groups.get(&it.group).is_some_and(|group| {
            group.parts.keys().any(|key| *key != it.key)
                && group
                    .parts
                    .get(&it.key)
                    .is_none_or(|now| *now != it.amounts)
        })
    }

    /// By how much each sum of the project would grow if this object were so.
    pub fn raise(&self, it: &Counted) -> Amounts {
        let none = Group::default();
        let group = self.groups.get(&it.group).unwrap_or(&none);
        let before = group.sum(&it.group.0);
        let mut then = Group {
            parts: group.parts.clone(),
        };
        then.parts.insert(it.key.clone(), it.amounts.clone());
        let mut out = then.sum(&it.group.0);
        for (word, amount) in &mut out {
            *amount = amount.saturating_sub(before.get(word).copied().unwrap_or(0));
        }
        out.retain(|_, amount| *amount > 0);
        out
    }
}

//! The border between the gate, which asks, and `identity`, which knows roles and grants.
//!
//! Deny unless allowed: without an [`Access`] nobody but the machine's own administrator and our own loops may do anything.

use super::Actor;
use crate::{Cx, Row};
use model::{Labels, ObjectRef, Result, Timestamp};
use std::net::IpAddr;
use std::sync::Arc;
use store::Key;
use tokio::sync::watch;

/// One thing that somebody wants to do.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Kind of the privilege: `vm`.
    pub kind: &'a str,
    /// Verb of the privilege: `read`, `create`, `update`, `delete`, an action or a stream.
    pub verb: &'a str,
    /// Project of the object; `None` for what is cluster-wide.
    pub project: Option<&'a str>,
    /// Name of the object; `None` when it is about the kind as a whole.
    pub name: Option<&'a str>,
    /// Its labels, when it is there.
    pub labels: Option<&'a Labels>,
    /// What it is a part of: its owner, or what a task works on.
    pub part_of: Option<&'a Key>,
    /// From which address; `None` on the local socket and for what a task does in his name.
    pub from: Option<IpAddr>,
    /// When.
    pub now: Timestamp,
}

/// Knows what actors may do. Called for each request: answers from memory.
pub trait Access: Send + Sync {
    /// Whether he may. Asked only for actors that are neither anonymous nor trusted.
    fn may(&self, cx: &Cx, actor: &Actor, wish: &Wish<'_>) -> bool;
    /// What he may do this with, of all objects of the wish's kind (and project, when it has one).
    fn view(&self, cx: &Cx, actor: &Actor, wish: &Wish<'_>) -> View;
    /// Whether he has any right on or inside a project, so that he may know that it is there.
    fn enters(&self, cx: &Cx, actor: &Actor, from: Option<IpAddr>, project: &str) -> bool;
    /// Refuses to let go of an object that must stay so that nobody is locked out, or that is above who asks.
    fn lets_go(&self, cx: &Cx, actor: &Actor, target: &ObjectRef) -> Result<()>;
    /// Refuses to change the labels of an object (as they are, as they would be) where rights hang on them that who asks
    /// does not have.
    fn relabels(
        &self,
        cx: &Cx,
        actor: &Actor,
        from: Option<IpAddr>,
        target: &ObjectRef,
        labels: (&Labels, &Labels),
    ) -> Result<()>;
    /// Whether who writes an object of a kind may name objects of another kind in it that he cannot see.
    fn names(&self, kind: &str, referred: &str) -> bool;
    /// Changes whenever somebody's rights may have changed.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// Which objects of one kind.
#[derive(Clone)]
pub enum View {
    /// Every one.
    All,
    /// None, and none that could come.
    Nothing,
    /// Those for which it answers yes.
    Some(Arc<dyn Fn(&Row) -> bool + Send + Sync>),
}

impl View {
    /// Whether an object is in it.
    pub fn shows(&self, row: &Row) -> bool {
        match self {
            View::All => true,
            View::Nothing => false,
            View::Some(shows) => shows(row),
        }
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            View::All => "All",
            View::Nothing => "Nothing",
            View::Some(_) => "Some",
        })
    }
}

/// The access rules of this process, as a part: `CxBuilder::part(Arc::new(AccessRules(..)))`.
pub struct AccessRules(pub Arc<dyn Access>);

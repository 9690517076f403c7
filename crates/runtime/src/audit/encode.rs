//! A row as the bytes that lie in the trail.

use super::format::{self, Clear, Hash, Personal, canonical, mask, tag};
use super::row::Row;
use super::subjects::{STRANGER, Subjects};
use crate::ActorKind;
use model::Result;

/// A row as bytes: personal fields sealed, each with the key of its subject.
pub(super) fn encode(subjects: &Subjects, row: &Row, prev: &Hash) -> Result<(Vec<u8>, Hash)> {
    let mut sealed = Vec::new();
    let mut put = |tag: u8, subject: &str, plain: String| -> Result<()> {
        let field = Personal { tag, plain };
        sealed.push((tag, subjects.seal(subject, row.seq, &field)?));
        Ok(())
    };
    let is_ours = row.actor_kind == ActorKind::System;
    let claimed = row.user.as_deref().unwrap_or(&row.actor);
    // A name that a stranger gives himself gets no key: he could make as many as he likes.
    let actor = match row.actor_kind {
        ActorKind::Anonymous if !subjects.knows(claimed) => STRANGER,
        _ => claimed,
    };
    if !is_ours {
        put(tag::SEALED_ACTOR, actor, row.actor.clone())?;
    }
    if let Some(user) = &row.user {
        put(tag::SEALED_USER, actor, user.clone())?;
    }
    if let Some(address) = &row.address {
        put(tag::SEALED_ADDRESS, actor, address.clone())?;
    }
    if let Some(agent) = &row.user_agent {
        put(tag::SEALED_AGENT, actor, agent.clone())?;
    }
    let object = match (row.is_person, &row.name) {
        // Nor does a name that somebody only asked about, in vain.
        (true, Some(name)) if row.change.is_none() && !subjects.knows(name) => {
            Some(STRANGER.to_owned())
        }
        (true, Some(name)) => Some(name.clone()),
        _ => None,
    };
    if let (Some(subject), Some(name)) = (&object, &row.name) {
        put(tag::SEALED_NAME, subject, name.clone())?;
    }
    let mut own = None;
    let masked = match row.personal.is_empty() {
        true => None,
        false => {
            let mut masked = row.clone();
            let values = mask(&mut masked.params, &row.personal);
            let of = row.about.as_deref();
            let plain = canonical(&values.into());
            match (of, row.only_his) {
                (Some(his), true) => {
                    let tag = tag::SEALED_PARAMS;
                    let field = Personal { tag, plain };
                    let kept = subjects.seal_known(his, row.seq, &field)?;
                    own = kept.map(|kept| (tag, kept));
                }
                _ => {
                    let of = of.filter(|name| is_ours || subjects.knows(name));
                    let subject = object.as_deref().or(of).unwrap_or(actor);
                    put(tag::SEALED_PARAMS, subject, plain)?;
                }
            }
            Some(masked)
        }
    };
    sealed.extend(own);
    let clear = Clear {
        actor: is_ours,
        name: !row.is_person,
    };
    Ok(format::encode(masked.as_ref().unwrap_or(row), prev, clear, &sealed).end())
}

//! Tickets: let one actor open one stream of one object once, within five minutes.
//!
//! HMAC-SHA256 over who, what and until when, with a key of this process that changes every hour (the one before is
//! still taken). What was redeemed is remembered until it would have ended.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use model::{Error, ObjectRef, Result, Timestamp, Uid};
use parking_lot::Mutex;
use ring::hmac;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::time::Duration;

const LIFE: Duration = Duration::from_secs(300);
const KEY_LIFE: Duration = Duration::from_secs(3600);
/// Most redeemed tickets remembered; more within five minutes are refused rather than forgotten.
const MOST: usize = 100_000;

/// What a ticket says. It is readable by who has it, and cannot be changed.
#[derive(Serialize, Deserialize)]
struct Claim {
    id: String,
    actor: String,
    target: ObjectRef,
    uid: Uid,
    stream: String,
    expires: Timestamp,
}

/// The tickets of one process.
pub(crate) struct Tickets(Mutex<State>);

struct State {
    keys: Vec<(Timestamp, hmac::Key)>,
    redeemed: HashMap<String, Timestamp>,
}

impl Tickets {
    pub(crate) fn new() -> Tickets {
        Tickets(Mutex::new(State {
            keys: Vec::new(),
            redeemed: HashMap::new(),
        }))
    }

    /// A ticket and when it ends.
    pub(crate) fn issue(
        &self,
        actor: &str,
        target: &ObjectRef,
        uid: Uid,
        stream: &str,
        now: Timestamp,
    ) -> (String, Timestamp) {
        let mut state = self.0.lock();
        let fresh = state
            .keys
            .last()
            .is_some_and(|(made, _)| *made <= now && now.since(*made) < KEY_LIFE);
        if !fresh {
            let random: [u8; 32] = rand::random();
            state
                .keys
                .push((now, hmac::Key::new(hmac::HMAC_SHA256, &random)));
            let old = state.keys.len().saturating_sub(2);
            state.keys.drain(..old);
        }
        let expires = now.plus(LIFE);
        let claim = Claim {
            id: hex::encode(rand::random::<[u8; 16]>()),
            actor: actor.to_owned(),
            target: target.clone(),
            uid,
            stream: stream.to_owned(),
            expires,
        };
        let text = serde_json::to_vec(&claim).unwrap_or_default();
        let (_, key) = &state.keys[state.keys.len() - 1];
        let tag = hmac::sign(key, &text);
        let ticket = format!("{}.{}", BASE64.encode(&text), BASE64.encode(tag.as_ref()));
        (ticket, expires)
    }

    /// Uses a ticket up. What is wrong with a bad one is not said.
    pub(crate) fn redeem(
        &self,
        ticket: Option<&str>,
        actor: &str,
        target: &ObjectRef,
        uid: Uid,
        stream: &str,
        now: Timestamp,
    ) -> Result<()> {
        let refused = |message: &str| {
            Error::denied(message).hint("get one with POST .../ticket; it opens this stream once, within five minutes, for who asked for it")
        };
        let ticket = ticket.ok_or_else(|| refused("this stream opens only with a ticket"))?;
        let mut state = self.0.lock();
        let claim = state
            .read(ticket)
            .filter(|claim| {
                claim.actor == actor
                    && claim.target == *target
                    && claim.uid == uid
                    && claim.stream == stream
                    && now < claim.expires
                    // A clock that went back must not make tickets live longer.
                    && claim.expires.since(now) <= LIFE
            })
            .ok_or_else(|| refused("this ticket does not open this stream"))?;
        state.redeemed.retain(|_, expires| now < *expires);
        if state.redeemed.contains_key(&claim.id) || state.redeemed.len() >= MOST {
            return Err(refused("this ticket does not open this stream"));
        }
        state.redeemed.insert(claim.id, claim.expires);
        Ok(())
    }
}

impl State {
    /// The claim of a ticket that one of our keys signed.
    fn read(&self, ticket: &str) -> Option<Claim> {
        let (text, tag) = ticket.split_once('.')?;
        let (text, tag) = (BASE64.decode(text).ok()?, BASE64.decode(tag).ok()?);
        self.keys
            .iter()
            .any(|(_, key)| hmac::verify(key, &text, &tag).is_ok())
            .then(|| serde_json::from_slice(&text).ok())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_once_for_one_actor_one_object_one_stream() {
        let tickets = Tickets::new();
        let now = Timestamp::from_millis(1_800_000_000_000);
        let uid = Uid::from_parts(1, [7; 10]);
        let target = |name: &str| ObjectRef {
            kind: "demo".into(),
            project: Some("default".into()),
            name: name.into(),
        };
        let (ticket, expires) = tickets.issue("ann", &target("a"), uid, "console", now);
        assert_eq!(expires.since(now).as_secs(), 300);
        let redeem = |ticket: &str, actor: &str, name: &str, stream: &str, at: Timestamp| {
            tickets
                .redeem(Some(ticket), actor, &target(name), uid, stream, at)
                .is_ok()
        };
        let later = now.plus(Duration::from_secs(301));
        let forged = format!("{}x", &ticket[..ticket.len() - 1]);
        assert!(!redeem(&ticket, "bob", "a", "console", now));
        assert!(!redeem(&ticket, "ann", "b", "console", now));
        assert!(!redeem(&ticket, "ann", "a", "log", now));
        assert!(!redeem(&ticket, "ann", "a", "console", later));
        assert!(!redeem(&forged, "ann", "a", "console", now));
        assert!(!redeem("nonsense", "ann", "a", "console", now));
        let reborn = Uid::from_parts(1, [8; 10]);
        assert!(
            tickets
                .redeem(Some(&ticket), "ann", &target("a"), reborn, "console", now)
                .is_err()
        );
        assert!(
            tickets
                .redeem(None, "ann", &target("a"), uid, "console", now)
                .is_err()
        );
        assert!(redeem(&ticket, "ann", "a", "console", now));
        assert!(!redeem(&ticket, "ann", "a", "console", now), "used");
        // The key changes; a ticket of the one before still works, of the one before that no more.
        let hour = Duration::from_secs(3600);
        let (ticket, _) = tickets.issue("ann", &target("a"), uid, "console", now.plus(hour));
        tickets.issue("ann", &target("a"), uid, "console", now.plus(hour * 2));
        assert!(redeem(
            &ticket,
            "ann",
            "a",
            "console",
            now.plus(hour + LIFE / 2)
        ));
    }
}

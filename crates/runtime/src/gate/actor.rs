//! Who asks: proven by a surface, judged by the gate.

use model::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What sort of caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    /// Nobody that we know.
    Anonymous,
    /// Who the machine itself vouches for, with all rights: root or the owner of the instance on the local socket. The way
    /// back in when everybody else is locked out.
    Administrator,
    /// A person who has logged in.
    User,
    /// A program with an API key.
    Key,
    /// One of our own controllers or procedures.
    System,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Actor {
    /// What sort.
    pub kind: ActorKind,
    /// How logs, audit and objects call him: `root@unix`, `alice`, `key:1a2b3c4d`, `system:vm`.
    pub name: String,
    /// The user whose rights count: himself, or the owner of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The object that must stand for him to stay in: `session/NAME`, `api-key/NAME/SECRET`, where the last part is what may
    /// be known of the key's secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// When he last proved a second factor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mfa: Option<Timestamp>,
}

impl Actor {
    fn new(kind: ActorKind, name: impl Into<String>) -> Actor {
        Actor {
            kind,
            name: name.into(),
            user: None,
            credential: None,
            mfa: None,
        }
    }

    /// Nobody.
    pub fn anonymous() -> Actor {
        Actor::new(ActorKind::Anonymous, "anonymous")
    }

    /// Who the machine vouches for, under this name.
    pub fn administrator(name: impl Into<String>) -> Actor {
        Actor::new(ActorKind::Administrator, name)
    }

    /// A user who has logged in; `credential` is the object that his login stands on.
    pub fn user(user: &str, credential: Option<String>, mfa: Option<Timestamp>) -> Actor {
        Actor {
            user: Some(user.to_owned()),
            credential,
            mfa,
            ..Actor::new(ActorKind::User, user)
        }
    }

    /// A program with the API key of a user; the key's object is named `key`, and `secret` is what may be known of the one
    /// of its secrets that was shown.
    pub fn key(key: &str, secret: &str, owner: &str) -> Actor {
        Actor {
            user: Some(owner.to_owned()),
            credential: Some(format!("api-key/{key}/{secret}")),
            ..Actor::new(ActorKind::Key, format!("key:{key}"))
        }
    }

    /// One of our own loops.
    pub(crate) fn system(name: &str) -> Actor {
        Actor::new(ActorKind::System, format!("system:{name}"))
    }

    /// Whether everything is his: no rule of anybody's making holds for him.
    pub fn is_trusted(&self) -> bool {
        matches!(self.kind, ActorKind::Administrator | ActorKind::System)
    }
}

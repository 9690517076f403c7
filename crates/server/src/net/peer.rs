//! Who is on the other end of a connection, as the transport proves it, and which actor that is.

use model::Result;
use parking_lot::Mutex;
use runtime::{Actor, Authority};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A certificate is looked at again after this, so that a revoked one is refused within seconds also on an open
/// connection.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The other end of a connection. Cheap to clone; every request carries it.
#[derive(Clone)]
pub(crate) enum Peer {
    /// A local process, with the uid that the kernel vouches for.
    Local {
        /// Its user id.
        uid: u32,
    },
    /// A TLS peer, with the leaf of a verified chain when it sent one.
    Remote {
        /// Its address.
        at: SocketAddr,
        /// Its certificate.
        leaf: Option<Arc<Leaf>>,
    },
}

/// A client certificate with what the authority last said about it.
pub(crate) struct Leaf {
    der: Box<[u8]>,
    said: Mutex<Option<(Instant, Result<Actor>)>>,
}

impl Leaf {
    pub(crate) fn new(der: &[u8]) -> Arc<Leaf> {
        Arc::new(Leaf {
            der: der.into(),
            said: Mutex::new(None),
        })
    }

    fn actor(&self, authority: &dyn Authority) -> Result<Actor> {
        let mut said = self.said.lock();
        match &*said {
            Some((when, actor)) if when.elapsed() < LOOK_AGAIN => actor.clone(),
            _ => {
                let actor = authority
                    .holder(&self.der)
                    .map(|holder| Actor::administrator(holder.account));
                *said = Some((Instant::now(), actor.clone()));
                actor
            }
        }
    }
}

impl Peer {
    /// Its address, when it came over the network.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        match self {
            Peer::Local { .. } => None,
            Peer::Remote { at, .. } => Some(at.ip().to_canonical()),
        }
    }

    /// Who it is. Root and the owner of the instance are the administrator on the local socket; over the network the
    /// certificate says. Everybody else is anonymous; a certificate that is not accepted is an error.
    pub(crate) fn actor(&self, authority: &dyn Authority, owner: u32) -> Result<Actor> {
        match self {
            Peer::Local { uid: 0 } => Ok(Actor::administrator("root@unix")),
            Peer::Local { uid } if *uid == owner => {
                Ok(Actor::administrator(format!("uid{uid}@unix")))
            }
            Peer::Local { .. } | Peer::Remote { leaf: None, .. } => Ok(Actor::anonymous()),
            Peer::Remote {
                leaf: Some(leaf), ..
            } => leaf.actor(authority),
        }
    }
}

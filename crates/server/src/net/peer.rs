//! Who is on the other end of a connection, as the transport proves it, and which actor that is.

use model::{Error, Result};
use parking_lot::Mutex;
use runtime::{Actor, Authority, Cx, Known, Proof, Whence};
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
    said: Mutex<Option<(Instant, Result<Option<String>>)>>,
}

impl Leaf {
    pub(crate) fn new(der: &[u8]) -> Arc<Leaf> {
        Arc::new(Leaf {
            der: der.into(),
            said: Mutex::new(None),
        })
    }

    /// The account that it lets in; `None` when it only proves a machine.
    fn account(&self, authority: &dyn Authority) -> Result<Option<String>> {
        let mut said = self.said.lock();
        match &*said {
            Some((when, account)) if when.elapsed() < LOOK_AGAIN => account.clone(),
            _ => {
                let account = authority.holder(&self.der).map(|holder| holder.account);
                *said = Some((Instant::now(), account.clone()));
                account
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

    /// Whether it came with a client certificate.
    pub(crate) fn shows_certificate(&self) -> bool {
        matches!(self, Peer::Remote { leaf: Some(_), .. })
    }

    /// Where it comes from, as far as that still holds.
    pub(crate) fn whence(&self, authority: &dyn Authority) -> Whence<'_> {
        let certificate = match self {
            Peer::Remote {
                leaf: Some(leaf), ..
            } if leaf.account(authority).is_ok() => Some(&*leaf.der),
            _ => None,
        };
        Whence {
            ip: self.ip(),
            certificate,
        }
    }

    /// Whether what the transport proved still holds.
    pub(crate) fn stands(&self, authority: &dyn Authority) -> bool {
        match self {
            Peer::Remote {
                leaf: Some(leaf), ..
            } => leaf.account(authority).is_ok(),
            _ => true,
        }
    }

    /// Who sends a request over it: whom it shows a proof of, else whom the transport proves. Root and the owner of the instance are the administrator on the local socket; over the network the
    /// certificate says. Everybody else is anonymous; a proof or certificate that is not accepted is an error.
    pub(crate) fn actor(
        &self,
        cx: &Cx,
        authority: &dyn Authority,
        owner: u32,
        proof: Option<Proof<'_>>,
    ) -> Result<Actor> {
        let known = cx.try_part::<Known>();
        if let (Some(proof), Some(known)) = (proof, &known) {
            return known.0.who(cx, proof, self.whence(authority));
        }
        match self {
            Peer::Local { uid: 0 } => Ok(Actor::administrator("root@unix")),
            Peer::Local { uid } if *uid == owner => {
                Ok(Actor::administrator(format!("uid{uid}@unix")))
            }
            Peer::Local { .. } | Peer::Remote { leaf: None, .. } => Ok(Actor::anonymous()),
            Peer::Remote {
                leaf: Some(leaf), ..
            } => {
                let Some(account) = leaf.account(authority)? else {
                    return Err(Error::unauthenticated(
                        "this certificate proves which machine you are, and is no login",
                    )
                    .hint("send an API key that is bound to this machine, too"));
                };
                let from = self.whence(authority);
                match known {
                    Some(known) => known.0.who(cx, Proof::Certificate(&account), from),
                    None => Ok(Actor::administrator(account)),
                }
            }
        }
    }
}

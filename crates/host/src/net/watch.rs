//! Tells when something changed in a namespace: a link, an address, a route, an nft rule.
//!
//! It says only *that* something changed. Whoever is told looks at the world again, so a lost message costs nothing but time.

use super::Netns;
use anyhow::{Context, Result};
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

/// Links, addresses and routes of both families: RTNLGRP_* of linux/rtnetlink.h.
const ROUTE_GROUPS: [u32; 5] = [1, 5, 7, 9, 11];
/// NFNLGRP_NFTABLES of linux/netfilter/nfnetlink.h.
const NFTABLES_GROUP: u32 = 7;

/// What sort of thing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// A link, an address or a route.
    Links,
    /// An nft table, set, chain or rule.
    Rules,
}

/// An open ear for changes in one namespace.
pub struct Watch {
    route: TokioSocket,
    nft: TokioSocket,
}

impl Watch {
    /// Starts listening; changes from now on are noticed.
    ///
    /// # Errors
    /// When the namespace does not exist or the kernel gives no socket.
    pub async fn open(netns: &Netns) -> Result<Self> {
        netns
            .run(|| {
                let route = listen(NETLINK_ROUTE, &ROUTE_GROUPS)
                    .context("cannot listen for changes of interfaces")?;
                let nft = listen(NETLINK_NETFILTER, &[NFTABLES_GROUP])
                    .context("cannot listen for changes of nft rules")?;
                Ok(Self { route, nft })
            })
            .await
    }

    /// Waits for a change and says of which sort. Cancelling it loses no change.
    pub async fn changed(&mut self) -> Changed {
        let (mut a, mut b) = (Vec::with_capacity(16), Vec::with_capacity(16));
        // An error is a full buffer: messages were lost, so something has changed. The bodies are cut off: nobody reads them.
        tokio::select! {
            _ = self.route.recv_from(&mut a) => Changed::Links,
            _ = self.nft.recv_from(&mut b) => Changed::Rules,
        }
    }
}

fn listen(protocol: isize, groups: &[u32]) -> std::io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(protocol)?;
    socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
    for group in groups {
        socket.socket_mut().add_membership(*group)?;
    }
    Ok(socket)
}

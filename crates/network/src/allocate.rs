//! Gives NICs their addresses: unique keys in the transaction of whoever owns the NIC.
//!
//! MACs and IP addresses are unique in their network. Nothing here waits or writes: a race with another allocation makes the whole
//! request run again.

use crate::network::{Ipv4Layout, Ipv6Layout, Network, layout, may_hold_ipv4, may_hold_ipv6};
use host::net::Mac;
use model::{Error, Result, Violation};
use runtime::Draft;
use std::net::{Ipv4Addr, Ipv6Addr};

/// First byte of the MACs we choose: locally administered, unicast. The second is the same for all of ours, so that they are known on sight.
const OURS: [u8; 2] = [0x52, 0xdb];

/// A NIC as it should be; what is absent is chosen and written back.
pub struct Wish<'a> {
    /// Where it stands in the spec, for messages: `spec.nics[0]`.
    pub field: String,
    /// The network, `name` or `project/name`.
    pub network: &'a str,
    /// Its MAC; empty to have one chosen.
    pub mac: &'a mut String,
    /// Its IPv4 address; absent to have one chosen when the network has IPv4.
    pub ipv4: &'a mut Option<String>,
    /// Its IPv6 address; absent to have one chosen when the network has IPv6.
    pub ipv6: &'a mut Option<String>,
}

/// A NIC as it was before this request, whose addresses are held.
#[derive(Clone, Debug)]
pub struct Held {
    /// The network, `name` or `project/name`.
    pub network: String,
    /// Its MAC.
    pub mac: String,
    /// Its IPv4 address.
    pub ipv4: Option<String>,
    /// Its IPv6 address.
    pub ipv6: Option<String>,
}

/// Chooses and claims the addresses of all NICs of a draft, and gives back those of NICs that are no longer wanted. A network
/// that does not exist is passed over: the reference check names it better.
///
/// # Errors
/// Every address that is malformed, outside of its network, reserved or taken, with its field; or a network without a free address.
pub fn allocate(draft: &mut Draft<'_>, held: &[Held], wishes: &mut [Wish<'_>]) -> Result<()> {
    let project = draft.project().map(str::to_owned);
    let spaces = |draft: &Draft<'_>, network: &str| {
        let found = draft.cx().follow::<Network>(project.as_deref(), network)?;
        Some(Spaces::of(&found.metadata.uid.to_string()))
    };
    // Given back first, so that two NICs may change places.
    for was in held {
        let Some(space) = spaces(draft, &was.network) else {
            continue;
        };
        let kept = |of: &dyn Fn(&Wish<'_>) -> bool| {
            wishes
                .iter()
                .any(|wish| wish.network == was.network && of(wish))
        };
        if !kept(&|wish| same_mac(wish.mac, &was.mac)) {
            draft.release_key(&space.mac, &was.mac);
        }
        if let Some(ip) = was
            .ipv4
            .as_ref()
            .filter(|ip| !kept(&|wish| wish.ipv4.as_ref() == Some(*ip)))
        {
            draft.release_key(&space.ip, ip);
        }
        if let Some(ip) = was
            .ipv6
            .as_ref()
            .filter(|ip| !kept(&|wish| wish.ipv6.as_ref() == Some(*ip)))
        {
            draft.release_key(&space.ip, ip);
        }
    }
    let mut wrong = Vec::new();
    // What is asked for by name comes before what is chosen, or a choice could take it.
    for named in [true, false] {
        for wish in wishes.iter_mut() {
            let Some(network) = draft
                .cx()
                .follow::<Network>(project.as_deref(), wish.network)
            else {
                continue;
            };
            let space = Spaces::of(&network.metadata.uid.to_string());
            let Some(layout) = layout(&network.spec) else {
                continue;
            };
            let mut nic = Nic {
                draft,
                wish,
                space: &space,
                named,
                wrong: &mut wrong,
            };
            nic.mac();
            nic.ipv4(layout.ipv4.as_ref());
            nic.ipv6(layout.ipv6.as_ref());
        }
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Error::invalid(wrong))
    }
}

/// The spaces of unique keys of one network.
struct Spaces {
    mac: String,
    ip: String,
}

impl Spaces {
    fn of(network_uid: &str) -> Self {
        Spaces {
            mac: format!("mac/{network_uid}"),
            ip: format!("ip/{network_uid}"),
        }
    }
}

fn same_mac(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

/// One NIC in one of the two passes.
struct Nic<'n, 'w, 'd> {
    draft: &'n mut Draft<'d>,
    wish: &'n mut Wish<'w>,
    space: &'n Spaces,
    /// Whether this pass claims what was asked for by name, or chooses the rest.
    named: bool,
    wrong: &'n mut Vec<Violation>,
}

impl Nic<'_, '_, '_> {
    fn refuse(&mut self, field: &str, message: impl Into<String>, hint: &str) {
        self.wrong
            .push(Violation::new(format!("{}.{field}", self.wish.field), message).hint(hint));
    }

    /// Claims a value unless this object holds it already.
    fn claim(&mut self, field: &str, space: &str, value: &str) {
        if self.draft.holds_key(space, value) {
            return;
        }
        if self.draft.key_taken(space, value) {
            let network = self.wish.network;
            self.refuse(
                field,
                format!("`{value}` is in use in network `{network}`"),
                "leave it out for a free one",
            );
        } else {
            self.draft.claim_key(space, value);
        }
    }

    fn mac(&mut self) {
        let space = &self.space.mac;
        if self.named == self.wish.mac.is_empty() {
            return;
        }
        if !self.named {
            // Four random bytes: with thousands in a network a repetition is rare, and then another is tried.
            for _ in 0..100 {
                let [a, b, c, d] = self.draft.random_bytes();
                let mac = Mac([OURS[0], OURS[1], a, b, c, d]).to_string();
                if !self.draft.key_taken(space, &mac) {
                    self.draft.claim_key(space, &mac);
                    *self.wish.mac = mac;
                    return;
                }
            }
            self.refuse("mac", "no free MAC address was found", "give one");
            return;
        }
        match self.wish.mac.parse::<Mac>() {
            Ok(mac) if mac.is_unicast() => {
                let text = mac.to_string();
                self.wish.mac.clone_from(&text);
                self.claim("mac", space, &text);
            }
            Ok(mac) => self.refuse(
                "mac",
                format!("`{mac}` is not one station's address"),
                "leave it out for a free one",
            ),
            Err(error) => self.refuse("mac", error.to_string(), "leave it out for a free one"),
        }
    }

    fn ipv4(&mut self, net: Option<&Ipv4Layout>) {
        let Some(text) = self.wish.ipv4.clone() else {
            if let (Some(net), false) = (net, self.named) {
                self.choose_ipv4(net);
            }
            return;
        };
        if !self.named {
            return;
        }
        let Some(net) = net else {
            let network = self.wish.network;
            return self.refuse(
                "ipv4",
                format!("`{text}` is given, but network `{network}` has no IPv4"),
                "leave it out",
            );
        };
        let held = self.draft.holds_key(&self.space.ip, &text);
        match text.parse::<Ipv4Addr>() {
            Err(_) => self.refuse(
                "ipv4",
                format!("`{text}` is not an IPv4 address"),
                "leave it out for a free one",
            ),
            Ok(ip) => match may_hold_ipv4(net, ip) {
                Err(why) if !held => self.refuse("ipv4", why, "leave it out for a free one"),
                _ => self.claim("ipv4", &self.space.ip, &text),
            },
        }
    }

    fn choose_ipv4(&mut self, net: &Ipv4Layout) {
        let free = (u32::from(net.first)..=u32::from(net.last))
            .map(Ipv4Addr::from)
            .find(|ip| {
                may_hold_ipv4(net, *ip).is_ok()
                    && !self.draft.key_taken(&self.space.ip, &ip.to_string())
            });
        match free {
            Some(ip) => {
                let text = ip.to_string();
                self.draft.claim_key(&self.space.ip, &text);
                *self.wish.ipv4 = Some(text);
            }
            None => {
                let message = format!(
                    "network `{}` has no free address between {} and {}",
                    self.wish.network, net.first, net.last
                );
                self.refuse(
                    "ipv4",
                    message,
                    "remove guests, widen the network's range, or use another network",
                );
            }
        }
    }

    fn ipv6(&mut self, net: Option<&Ipv6Layout>) {
        let Some(text) = self.wish.ipv6.clone() else {
            if let (Some(net), false) = (net, self.named) {
                self.choose_ipv6(net);
            }
            return;
        };
        if !self.named {
            return;
        }
        let Some(net) = net else {
            let network = self.wish.network;
            return self.refuse(
                "ipv6",
                format!("`{text}` is given, but network `{network}` has no IPv6"),
                "leave it out",
            );
        };
        match text.parse::<Ipv6Addr>() {
            Err(_) => self.refuse(
                "ipv6",
                format!("`{text}` is not an IPv6 address"),
                "leave it out for a free one",
            ),
            Ok(ip) => match may_hold_ipv6(net, ip) {
                Err(why) => self.refuse("ipv6", why, "leave it out for a free one"),
                Ok(()) => {
                    // One spelling, or the same address could be claimed twice.
                    let text = ip.to_string();
                    *self.wish.ipv6 = Some(text.clone());
                    self.claim("ipv6", &self.space.ip, &text);
                }
            },
        }
    }

    /// The address that follows from the MAC, which is free whenever the MAC was; else a random one.
    fn choose_ipv6(&mut self, net: &Ipv6Layout) {
        let Ok(mac) = self.wish.mac.parse::<Mac>() else {
            return;
        };
        let mut ip = mac.ipv6_in(net.subnet.network());
        for _ in 0..100 {
            if may_hold_ipv6(net, ip).is_ok()
                && !self.draft.key_taken(&self.space.ip, &ip.to_string())
            {
                let text = ip.to_string();
                self.draft.claim_key(&self.space.ip, &text);
                *self.wish.ipv6 = Some(text);
                return;
            }
            let host = u64::from_be_bytes(self.draft.random_bytes());
            ip = Ipv6Addr::from(u128::from(net.subnet.network()) | u128::from(host));
        }
        self.refuse("ipv6", "no free IPv6 address was found", "give one");
    }
}

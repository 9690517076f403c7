//! Names and addresses derived from identities: interface names, MAC addresses, IPv6 interface identifiers.
//!
//! Pure. Linux allows 15 bytes for an interface name, too few for a uid, so ours carry eight hex digits of its hash; the
//! full identity stands in the interface's alias, where a collision is noticed.

use sha2::{Digest, Sha256};
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// Longest interface name that Linux accepts, in bytes.
pub const IFNAME_MAX: usize = 15;

/// The bridge of a network, from the network's uid: `dvb` and eight hex digits.
pub fn bridge(network_uid: &str) -> String {
    format!("dvb{}", digest(network_uid))
}

/// The tap of one NIC, from the VM's uid and the NIC's name in it: `dvt` and eight hex digits.
pub fn tap(vm_uid: &str, nic: &str) -> String {
    format!("dvt{}", digest(&format!("{vm_uid}/{nic}")))
}

/// The root namespace's end of an instance's uplink: `dvu` and eight hex digits.
pub fn uplink(instance: &str) -> String {
    format!("dvu{}", digest(instance))
}

/// The first eight hex digits of a SHA-256.
fn digest(of: &str) -> String {
    hex::encode(&Sha256::digest(of.as_bytes())[..4])
}

/// An Ethernet address, written `52:54:00:12:34:56`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// A locally administered unicast address derived from an identity: `02` and five bytes of its hash.
    ///
    /// Stable, so that a bridge that is made again keeps its address and no guest has to learn a new one.
    pub fn derived(from: &str) -> Self {
        let hash = Sha256::digest(from.as_bytes());
        Self([0x02, hash[0], hash[1], hash[2], hash[3], hash[4]])
    }

    /// True for an address that one station may own: not multicast, not all zeros.
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }

    /// The modified EUI-64 interface identifier (RFC 4291, appendix A).
    pub fn interface_id(self) -> u64 {
        let m = self.0;
        u64::from_be_bytes([m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]])
    }

    /// The link-local IPv6 address a station with this MAC gives itself.
    pub fn link_local(self) -> Ipv6Addr {
        self.ipv6_in(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0))
    }

    /// The address with this MAC's interface identifier in a /64.
    pub fn ipv6_in(self, prefix: Ipv6Addr) -> Ipv6Addr {
        Ipv6Addr::from(
            (u128::from(prefix) & !u128::from(u64::MAX)) | u128::from(self.interface_id()),
        )
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is wrong with a text that should be a MAC address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` is not a MAC address: write six pairs of hex digits joined by colons, like 52:54:00:12:34:56"
)]
pub struct NotAMac(String);

impl FromStr for Mac {
    type Err = NotAMac;

    fn from_str(text: &str) -> Result<Self, NotAMac> {
        let wrong = || NotAMac(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(wrong)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() {
            return Err(wrong());
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_into_an_interface_name() {
        for name in [
            bridge("018f3c1e-0000-7000-8000-000000000000"),
            tap("018f", "a-nic-with-a-long-name"),
            uplink("a-very-long-instance-name"),
        ] {
            assert_eq!(name.len(), 11, "{name}");
            assert!(name.len() <= IFNAME_MAX);
        }
        assert_ne!(tap("a", "nic0"), tap("a", "nic1"));
    }

    #[test]
    fn macs_read_back_and_derive_ipv6() {
        let mac: Mac = "52:54:00:12:34:56".parse().unwrap();
        assert_eq!(mac.to_string(), "52:54:00:12:34:56");
        assert_eq!(mac.link_local().to_string(), "fe80::5054:ff:fe12:3456");
        assert_eq!(
            mac.ipv6_in("fd12:3456:789a:1::1".parse().unwrap())
                .to_string(),
            "fd12:3456:789a:1:5054:ff:fe12:3456"
        );
        for wrong in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "52:54:00:12:34:5",
            "52:54:00:12:34:+5",
            "52-54-00-12-34-56",
        ] {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
        assert!(Mac::derived("x").is_unicast());
        assert!(!"01:00:5e:00:00:01".parse::<Mac>().unwrap().is_unicast());
    }
}

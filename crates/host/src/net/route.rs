//! Routes as the kernel has them, and the question whether a subnet collides with one.

use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;

/// One unicast route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it leads; `0.0.0.0/0` or `::/0` for a default route.
    pub to: IpNet,
    /// The router, when there is one.
    pub via: Option<IpAddr>,
    /// The interface it leaves by.
    pub dev: String,
    /// True when learned from a router advertisement.
    pub advertised: bool,
}

impl Route {
    /// True for a default route.
    pub fn is_default(&self) -> bool {
        self.to.prefix_len() == 0
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to)?;
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        write!(f, " dev {}", self.dev)
    }
}

/// The first route that shares addresses with the subnet, leaving out default routes and those by interface `own`.
///
/// An overlap in either direction counts: a wider route would lose part of its hosts, a narrower one would take part of the subnet.
pub fn collision<'a>(subnet: IpNet, routes: &'a [Route], own: &str) -> Option<&'a Route> {
    routes.iter().find(|route| {
        !route.is_default()
            && route.dev != own
            && (subnet.contains(&route.to) || route.to.contains(&subnet))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(to: &str, dev: &str) -> Route {
        Route {
            to: to.parse().unwrap(),
            via: None,
            dev: dev.to_owned(),
            advertised: false,
        }
    }

    #[test]
    fn overlaps_are_found_in_both_directions_and_families() {
        let routes = [
            route("0.0.0.0/0", "eth0"),
            route("10.1.0.0/16", "eth0"),
            route("fd00:1::/64", "eth0"),
            route("10.9.0.0/24", "dvb1"),
        ];
        let hit = |subnet: &str, own: &str| {
            collision(subnet.parse().unwrap(), &routes, own).map(ToString::to_string)
        };
        assert_eq!(
            hit("10.1.2.0/24", ""),
            Some("10.1.0.0/16 dev eth0".to_owned())
        );
        assert_eq!(
            hit("10.0.0.0/8", ""),
            Some("10.1.0.0/16 dev eth0".to_owned())
        );
        assert_eq!(
            hit("fd00:1::/48", ""),
            Some("fd00:1::/64 dev eth0".to_owned())
        );
        assert_eq!(hit("10.2.0.0/24", ""), None);
        assert_eq!(
            hit("10.9.0.0/24", "dvb1"),
            None,
            "our own bridge's route is no collision"
        );
        assert_eq!(
            hit("10.9.0.0/24", "dvb2"),
            Some("10.9.0.0/24 dev dvb1".to_owned())
        );
    }
}

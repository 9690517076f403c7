//! The host's own DNS servers, for dnsmasq to ask.

use std::net::IpAddr;
use std::path::Path;

/// The addresses of the `nameserver` lines of a resolv.conf, in order; lines that are not understood are passed over.
pub fn parse(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.split_whitespace().next())
        // A scope id (`fe80::1%eth0`) means nothing in another namespace.
        .filter_map(|address| address.parse().ok())
        .collect()
}

/// The servers to forward to. A stub on loopback answers only in the host's own namespace, so from another one
/// systemd-resolved's list of real servers is taken instead.
pub fn upstreams(in_root_namespace: bool) -> Vec<IpAddr> {
    let read = |path: &str| {
        std::fs::read_to_string(Path::new(path))
            .map(|text| parse(&text))
            .unwrap_or_default()
    };
    let servers = read("/etc/resolv.conf");
    if in_root_namespace || servers.iter().any(|server| !server.is_loopback()) {
        return servers
            .into_iter()
            .filter(|server| in_root_namespace || !server.is_loopback())
            .collect();
    }
    read("/run/systemd/resolve/resolv.conf")
        .into_iter()
        .filter(|server| !server.is_loopback())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameservers_are_read_and_noise_is_not() {
        let text = "# nameserver 1.1.1.1\nsearch lan\nnameserver 192.0.2.53\n nameserver fd00::53 # comment\nnameserver fe80::1%eth0\nnameserver\n";
        assert_eq!(
            parse(text),
            [
                "192.0.2.53".parse::<IpAddr>().unwrap(),
                "fd00::53".parse().unwrap()
            ]
        );
    }
}

//! Networks of the host: links, addresses, packet filter, DHCP and names.

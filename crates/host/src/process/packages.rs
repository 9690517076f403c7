//! Which Debian package has which program, so that "not found" comes with its remedy.

/// The Debian package that has `program` (a name or a path), when it is one of those we use.
pub fn debian_package(program: &str) -> Option<&'static str> {
    let name = program.rsplit('/').next().unwrap_or(program);
    Some(match name {
        "qemu-system-x86_64" => "qemu-system-x86",
        "qemu-img" | "qemu-nbd" | "qemu-io" => "qemu-utils",
        "qemu-storage-daemon" => "qemu-system-common",
        "swtpm" => "swtpm",
        "swtpm_setup" => "swtpm-tools",
        "nft" => "nftables",
        "dnsmasq" => "dnsmasq-base",
        "ip" | "bridge" | "tc" => "iproute2",
        "sysctl" => "procps",
        "genisoimage" => "genisoimage",
        "mmdebstrap" => "mmdebstrap",
        "mke2fs" | "mkfs.ext4" | "resize2fs" => "e2fsprogs",
        "mcopy" | "mformat" | "mmd" => "mtools",
        "sgdisk" => "gdisk",
        "zstd" => "zstd",
        "systemd-run" | "systemctl" | "busctl" => "systemd",
        "nsenter" | "unshare" | "mount" | "setpriv" => "util-linux",
        _ => return None,
    })
}

/// The remedy sentence for a missing program, or nothing when we do not know its package.
pub(super) fn remedy(program: &str) -> String {
    debian_package(program)
        .map(|package| format!(": install the Debian package `{package}`"))
        .unwrap_or_default()
}

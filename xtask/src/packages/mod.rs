//! The Debian packages this tree needs, each with its reason, and their installation.
//!
//! Looks only for files, so that asking costs milliseconds when nothing is missing. Never starts a service and names no mirror: what must be added is derived from the machine's own apt sources.

mod apt;
mod node;
mod python;
mod sources;

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::sh;

/// What a package is needed for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    /// Running the daemons and guests.
    Run,
    /// Compiling.
    Build,
    /// The tests, beyond what running needs.
    Test,
    /// The lab guest and the Debian package.
    Lab,
}

/// How to see that a package is there without asking dpkg.
enum Seen {
    Program(&'static str),
    File(&'static str),
}

struct Need {
    package: &'static str,
    why: &'static str,
    group: Group,
    seen: Seen,
}

const fn program(
    package: &'static str,
    program: &'static str,
    group: Group,
    why: &'static str,
) -> Need {
    Need {
        package,
        why,
        group,
        seen: Seen::Program(program),
    }
}

const fn file(package: &'static str, file: &'static str, group: Group, why: &'static str) -> Need {
    Need {
        package,
        why,
        group,
        seen: Seen::File(file),
    }
}

use Group::{Build, Lab, Run, Test};

const NEEDS: &[Need] = &[
    program("gcc", "cc", Build, "compiles SQLite and ring, and links"),
    file(
        "libc6-dev",
        "/usr/include/stdio.h",
        Build,
        "C headers for SQLite and ring",
    ),
    program(
        "protobuf-compiler",
        "protoc",
        Build,
        "compiles the gRPC service definition",
    ),
    program(
        "qemu-system-x86",
        "qemu-system-x86_64",
        Run,
        "runs guests (8.2 or newer)",
    ),
    program(
        "qemu-utils",
        "qemu-img",
        Run,
        "makes, converts and checks disks",
    ),
    file(
        "ovmf",
        "/usr/share/OVMF/OVMF_CODE_4M.fd",
        Run,
        "UEFI firmware for guests",
    ),
    program("swtpm", "swtpm", Run, "gives guests a TPM 2.0"),
    program(
        "swtpm-tools",
        "swtpm_setup",
        Run,
        "makes the state of a guest's TPM, and the TPMs of the tests of machines",
    ),
    program(
        "dnsmasq-base",
        "dnsmasq",
        Run,
        "DHCP, DNS and router advertisements for networks",
    ),
    program("nftables", "nft", Run, "NAT and anti-spoofing"),
    program(
        "iproute2",
        "ip",
        Run,
        "the network namespace of a development instance",
    ),
    program("genisoimage", "genisoimage", Run, "makes cloud-init seeds"),
    program("pebble", "pebble", Test, "the ACME provider of the tests"),
    program(
        "bind9",
        "named",
        Test,
        "the name server of the tests of ACME",
    ),
    program(
        "nginx-light",
        "nginx",
        Test,
        "reads the configuration that we print for it; it is never started",
    ),
    program(
        "apache2-bin",
        "apache2",
        Test,
        "reads the configuration that we print for it",
    ),
    program("openssl", "openssl", Test, "reads our OCSP and lists"),
    program(
        "slapd",
        "slapd",
        Test,
        "the directory of the tests of realms; they run it on their own configuration",
    ),
    program(
        "ldap-utils",
        "ldapmodify",
        Test,
        "changes the directory in the middle of a test",
    ),
    program(
        "samba-ad-dc",
        "samba",
        Test,
        "the Active Directory of the tests of realms",
    ),
    file(
        "samba-ad-provision",
        "/var/lib/dpkg/info/samba-ad-provision.list",
        Test,
        "makes the domain of that Active Directory",
    ),
    program(
        "mmdebstrap",
        "mmdebstrap",
        Run,
        "builds Debian cloud images from a mirror",
    ),
    program(
        "python3-pip",
        "pip3",
        Test,
        "installs the key server that tests run against",
    ),
    program(
        "npm",
        "npm",
        Test,
        "installs the provider of OpenID Connect that tests log in by",
    ),
    program(
        "gdisk",
        "sgdisk",
        Run,
        "partitions the image that a recipe builds",
    ),
    program(
        "mtools",
        "mformat",
        Run,
        "fills the EFI partition of an image",
    ),
    program(
        "e2fsprogs",
        "mke2fs",
        Run,
        "fills the root file system of an image",
    ),
    // Not by its program: Debian's other busybox has the same one, but not static.
    file(
        "busybox-static",
        "/var/lib/dpkg/info/busybox-static.list",
        Run,
        "is the tiny guest",
    ),
    program("cpio", "cpio", Run, "packs the initramfs of the tiny guest"),
    program("zstd", "zstd", Run, "packs cached images"),
    program(
        "util-linux",
        "setpriv",
        Run,
        "drops rights when a daemon is started",
    ),
    program(
        "openssh-client",
        "ssh-keygen",
        Test,
        "makes the keys that guests are given",
    ),
    program(
        "iputils-ping",
        "ping",
        Test,
        "shows that guests reach one another",
    ),
    program("sslscan", "sslscan", Test, "looks at our TLS from outside"),
    program(
        "python3-venv",
        "python3",
        Test,
        "holds schemathesis, which asks the API what its description allows",
    ),
    program(
        "chromium",
        "chromium",
        Test,
        "holds security keys, as a browser does",
    ),
    program(
        "libnss3-tools",
        "certutil",
        Test,
        "has that browser trust our CA",
    ),
    file(
        "python3-aiosmtpd",
        "/usr/lib/python3/dist-packages/aiosmtpd/smtp.py",
        Test,
        "is the mail server of the tests",
    ),
    program(
        "socat",
        "socat",
        Test,
        "speaks to sockets in end-to-end tests",
    ),
    program(
        "zsh",
        "zsh",
        Test,
        "reads the completion script that it is given",
    ),
    program(
        "fish",
        "fish",
        Test,
        "reads the completion script that it is given",
    ),
    program(
        "dpkg-dev",
        "dpkg-shlibdeps",
        Lab,
        "finds what the Debian package depends on",
    ),
];

/// The oldest QEMU that guests run on.
const QEMU_FLOOR: (u32, u32) = (8, 2);
/// Packages that must come from one suite, else apt removes one to install another.
const QEMU_SET: &[&str] = &["qemu-system-x86", "qemu-utils"];

/// `cargo xtask packages`.
pub fn command(check: bool) -> Result<()> {
    let all = [Build, Run, Test, Lab];
    if !check {
        ensure(&all)?;
        println!("all {} packages are here", NEEDS.len());
        return Ok(());
    }
    let missing = missing(&all);
    for need in &missing {
        println!("missing  {:<20} {}", need.package, need.why);
    }
    if !missing.is_empty() {
        bail!(
            "{} packages are missing: `cargo xtask packages` installs them",
            missing.len()
        );
    }
    Ok(())
}

/// Installs what the groups lack; does nothing, and says nothing, when nothing is missing.
pub fn ensure(groups: &[Group]) -> Result<()> {
    let lacking = missing(groups);
    if lacking.is_empty() {
        return others(groups);
    }
    eprintln!("Debian packages that are missing here:");
    for need in &lacking {
        eprintln!("  {:<20} {}", need.package, need.why);
    }
    let names: Vec<_> = lacking.iter().map(|need| need.package).collect();
    apt::install(&names)?;
    let left: Vec<_> = missing(groups).iter().map(|need| need.package).collect();
    if !left.is_empty() {
        bail!("installed, but still not usable: {}", left.join(", "));
    }
    others(groups)
}

/// What does not come from Debian.
fn others(groups: &[Group]) -> Result<()> {
    if groups.contains(&Test) {
        python::ensure()?;
        node::ensure()?;
    }
    Ok(())
}

/// The archive line of another Debian suite, on the mirror that this machine's apt uses.
pub fn mirror_line(suite: &str) -> Result<String> {
    let codename = apt::debian_codename()?;
    sources::line_for_suite(&sources::read()?, &codename, suite).with_context(|| {
        format!("no apt source for {codename} was found to take the mirror of {suite} from")
    })
}

fn missing(groups: &[Group]) -> Vec<&'static Need> {
    let wanted = NEEDS.iter().filter(|need| groups.contains(&need.group));
    let absent = |need: &&Need| match need.seen {
        Seen::Program("qemu-system-x86_64") => qemu_version().is_none_or(|is| is < QEMU_FLOOR),
        Seen::Program(program) => sh::find(program).is_none(),
        Seen::File(file) => !Path::new(file).exists(),
    };
    wanted.filter(absent).collect()
}

/// Major and minor of the QEMU in `PATH`.
fn qemu_version() -> Option<(u32, u32)> {
    let program = sh::find("qemu-system-x86_64")?;
    let text = sh::output(Command::new(program).arg("--version")).ok()?;
    version_in(text.split("version ").nth(1)?)
}

/// `(10, 0)` of `10.0.2 (Debian ...)` and of `1:10.0.2+ds-2`.
fn version_in(text: &str) -> Option<(u32, u32)> {
    let text = text.split_once(':').map_or(text, |(epoch, rest)| {
        if epoch.bytes().all(|byte| byte.is_ascii_digit()) {
            rest
        } else {
            text
        }
    });
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_qemu_and_from_apt() {
        assert_eq!(version_in("10.0.2 (Debian 1:10.0.2+ds-2)"), Some((10, 0)));
        assert_eq!(version_in("1:7.2+dfsg-7+deb12u13"), Some((7, 2)));
        assert_eq!(version_in("none"), None);
        assert!((7, 2) < QEMU_FLOOR && (8, 2) >= QEMU_FLOOR && (10, 0) > QEMU_FLOOR);
    }

    #[test]
    fn every_package_is_named_once_with_a_reason() {
        let mut names: Vec<_> = NEEDS.iter().map(|need| need.package).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), NEEDS.len());
        assert!(NEEDS.iter().all(|need| !need.why.is_empty()));
        assert!(QEMU_SET.iter().all(|name| names.contains(name)));
    }
}

//! Tap devices: the host's end of a guest's network card.
//!
//! A tap is persistent: it stays in its bridge when QEMU ends, so a restarted guest comes back to the same port, and it is
//! removed only when its NIC goes. The file descriptor is what QEMU gets; QEMU needs no right to open anything.

use super::Netns;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

/// The device through which the kernel makes taps.
pub const DEVICE: &str = "/dev/net/tun";

/// The kernel's calls, from linux/if_tun.h; each size is that of an `int`, whatever is really passed.
#[allow(missing_docs, reason = "the macro leaves no place for one")]
mod call {
    nix::ioctl_write_ptr_bad!(
        set_iff,
        nix::request_code_write!(b'T', 202, 4),
        nix::libc::ifreq
    );
    nix::ioctl_write_int_bad!(set_persist, nix::request_code_write!(b'T', 203, 4));
    nix::ioctl_write_int_bad!(set_owner, nix::request_code_write!(b'T', 204, 4));
}

/// Whether taps can be made here; the error says what is missing and what to do.
///
/// # Errors
/// When `/dev/net/tun` is missing or cannot be opened.
pub fn check_device() -> Result<()> {
    match File::options().read(true).write(true).open(DEVICE) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("{DEVICE} is missing, so guests cannot have network cards: load the kernel module with `modprobe tun`, or allow the device in this container")
        }
        Err(error) => Err(error).with_context(|| format!("cannot open {DEVICE}, so guests cannot have network cards: the agent must run as root")),
    }
}

/// Opens the tap of that name inside the namespace, making it when it does not exist: single queue, with virtio-net headers,
/// persistent, and attachable afterwards by `owner` only.
///
/// # Errors
/// When another process holds the tap already (its guest runs), or the kernel refuses.
pub async fn open(netns: &Netns, name: &str, owner: u32) -> Result<OwnedFd> {
    check_device()?;
    let name = name.to_owned();
    netns.run(move || open_here(&name, owner)).await
}

fn open_here(name: &str, owner: u32) -> Result<OwnedFd> {
    if name.is_empty() || name.len() > super::names::IFNAME_MAX {
        bail!(
            "`{name}` cannot name a tap: 1 to {} bytes",
            super::names::IFNAME_MAX
        );
    }
    let tun = File::options()
        .read(true)
        .write(true)
        .open(DEVICE)
        .with_context(|| format!("cannot open {DEVICE}"))?;
    // SAFETY: `ifreq` is plain data for which all zeros is a value.
    let mut request: nix::libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as nix::libc::c_char;
    }
    request.ifr_ifru.ifru_flags =
        (nix::libc::IFF_TAP | nix::libc::IFF_NO_PI | nix::libc::IFF_VNET_HDR) as nix::libc::c_short;
    let fd = tun.as_raw_fd();
    // SAFETY: the descriptor is open for all three calls, and the request outlives the first, which only reads it.
    unsafe {
        call::set_iff(fd, &request).map_err(|errno| match errno {
            nix::errno::Errno::EBUSY => anyhow::anyhow!(
                "tap `{name}` is held by another process: its guest is still running"
            ),
            nix::errno::Errno::EINVAL => anyhow::anyhow!(
                "`{name}` exists and is not a single-queue tap: remove it with `ip link del {name}`"
            ),
            other => anyhow::Error::new(other).context(format!("cannot make tap `{name}`")),
        })?;
        call::set_owner(fd, owner as nix::libc::c_int)
            .with_context(|| format!("cannot give tap `{name}` to user {owner}"))?;
        call::set_persist(fd, 1).with_context(|| format!("cannot make tap `{name}` persistent"))?;
    }
    // The host itself has nothing to say on a guest's wire.
    super::sysctl::set_here(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1")?;
    Ok(tun.into())
}

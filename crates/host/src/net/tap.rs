//! Tap devices: the host's end of a guest's network card.
//!
//! A tap is persistent: it stays in its bridge when QEMU ends, so a restarted guest comes back to the same port, and it is
//! removed only when its NIC goes. The file descriptors, one per queue, are what QEMU gets; QEMU needs no right to open anything.

use super::Netns;
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::libc::c_short;
use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
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
    nix::ioctl_readwrite_bad!(ethtool, nix::libc::SIOCETHTOOL, nix::libc::ifreq);
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

/// The most queues of a tap that we open, as many as a virtual network card gets.
pub const QUEUES_MAX: usize = 8;

/// Opens so many queues (1 to [`QUEUES_MAX`]) of the tap of that name inside the namespace, making it when it does not exist: with
/// virtio-net headers, persistent, and attachable afterwards by `owner` only.
///
/// # Errors
/// When another process holds the tap already (its guest runs), or the kernel refuses.
pub async fn open(netns: &Netns, name: &str, owner: u32, queues: usize) -> Result<Vec<OwnedFd>> {
    check_device()?;
    if name.is_empty() || name.len() > super::names::IFNAME_MAX {
        bail!(
            "`{name}` cannot name a tap: 1 to {} bytes",
            super::names::IFNAME_MAX
        );
    }
    if !(1..=QUEUES_MAX).contains(&queues) {
        bail!("tap `{name}` cannot have {queues} queues: 1 to {QUEUES_MAX}");
    }
    let name = name.to_owned();
    netns.run(move || open_here(&name, owner, queues)).await
}

fn open_here(name: &str, owner: u32, queues: usize) -> Result<Vec<OwnedFd>> {
    let first = match attach(name, nix::libc::IFF_MULTI_QUEUE) {
        Err(Errno::EINVAL) => {
            remove_single(name)?;
            attach(name, nix::libc::IFF_MULTI_QUEUE)
        }
        other => other,
    };
    let mut held = vec![first.map_err(|errno| refused(name, errno))?];
    for _ in 1..queues {
        let queue = attach(name, nix::libc::IFF_MULTI_QUEUE);
        held.push(queue.map_err(|errno| refused(name, errno))?);
    }
    // The kernel gives queues to as many processes as ask; a second QEMU on one tap would take half of the first one's packets.
    let open = usize::try_from(channels(name)?)?;
    if open != queues {
        bail!("tap `{name}` is held by another process: its guest is still running");
    }
    let fd = held[0].as_raw_fd();
    // SAFETY: the descriptor is open for both calls.
    unsafe {
        call::set_owner(fd, owner as nix::libc::c_int)
            .with_context(|| format!("cannot give tap `{name}` to user {owner}"))?;
        call::set_persist(fd, 1).with_context(|| format!("cannot make tap `{name}` persistent"))?;
    }
    // The host itself has nothing to say on a guest's wire.
    super::sysctl::set_here(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1")?;
    Ok(held.into_iter().map(OwnedFd::from).collect())
}

fn refused(name: &str, errno: Errno) -> anyhow::Error {
    anyhow::Error::new(errno).context(format!("cannot make tap `{name}`"))
}

/// One queue of the tap, which is made when it does not exist.
fn attach(name: &str, mode: nix::libc::c_int) -> Result<File, Errno> {
    let tun = File::options().read(true).write(true).open(DEVICE);
    let tun = tun.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))?;
    let mut request = request(name);
    request.ifr_ifru.ifru_flags =
        (nix::libc::IFF_TAP | nix::libc::IFF_NO_PI | nix::libc::IFF_VNET_HDR | mode) as c_short;
    // SAFETY: the descriptor is open, and the request outlives the call, which only reads it.
    unsafe { call::set_iff(tun.as_raw_fd(), &raw const request) }?;
    Ok(tun)
}

/// Removes a tap that was made for one queue only: the kernel does not change the mode of one that exists.
fn remove_single(name: &str) -> Result<()> {
    let tap = attach(name, 0).map_err(|errno| match errno {
        Errno::EBUSY => {
            anyhow::anyhow!("tap `{name}` is held by another process: its guest is still running")
        }
        other => anyhow::Error::new(other).context(format!(
            "`{name}` exists and is no tap of ours: remove it with `ip link del {name}`"
        )),
    })?;
    // SAFETY: the descriptor is open.
    unsafe { call::set_persist(tap.as_raw_fd(), 0) }
        .with_context(|| format!("cannot remove tap `{name}`"))?;
    Ok(())
}

/// How many queues of the tap are open, by whomever (`ETHTOOL_GCHANNELS`, linux/ethtool.h).
fn channels(name: &str) -> Result<u32> {
    const ETHTOOL_GCHANNELS: u32 = 0x3c;
    /// Where `combined_count` stands in `struct ethtool_channels`, which is nine words with the command first.
    const COMBINED: usize = 8;
    let mut channels = [0_u32; 9];
    channels[0] = ETHTOOL_GCHANNELS;
    let mut request = request(name);
    request.ifr_ifru.ifru_data = channels.as_mut_ptr().cast();
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot open a socket")?;
    // SAFETY: the request and the nine words that it points to outlive the call, which writes no more than those.
    unsafe { call::ethtool(socket.as_raw_fd(), &raw mut request) }
        .with_context(|| format!("cannot ask for the queues of tap `{name}`"))?;
    Ok(channels[COMBINED])
}

/// A request about the interface of that name.
fn request(name: &str) -> nix::libc::ifreq {
    // SAFETY: `ifreq` is plain data for which all zeros is a value.
    let mut request: nix::libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as nix::libc::c_char;
    }
    request
}

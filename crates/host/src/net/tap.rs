//! Tap devices: the host's end of a guest's network card.
//!
//! A tap is persistent: it stays in its bridge when QEMU ends, so a restarted guest comes back to the same port, and it is
//! removed only when its NIC goes. The file descriptor is what QEMU gets; QEMU needs no right to open anything.

use super::Netns;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

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
    nix::ioctl_write_int_bad!(set_offload, nix::request_code_write!(b'T', 208, 4));
    nix::ioctl_write_ptr_bad!(
        set_header,
        nix::request_code_write!(b'T', 216, 4),
        nix::libc::c_int
    );
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

/// The taps that a process holds: one that was deleted meanwhile is not among them, though its descriptor is still open.
///
/// # Errors
/// When the process is gone, or is not ours to look at.
pub async fn held_by(pid: u32) -> Result<Vec<String>> {
    let look = move || -> std::io::Result<Vec<String>> {
        let mut held = Vec::new();
        for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
            // A descriptor that is closed while we look is none.
            let info = std::fs::read_to_string(entry?.path()).unwrap_or_default();
            let named = info.lines().filter_map(|line| line.strip_prefix("iff:"));
            held.extend(
                named
                    .map(str::trim)
                    .filter(|n| !n.is_empty())
                    .map(str::to_owned),
            );
        }
        Ok(held)
    };
    let held = tokio::task::spawn_blocking(look).await?;
    held.with_context(|| format!("cannot see which taps process {pid} holds"))
}

/// What a guest's driver and its QEMU have agreed on, which the kernel forgets with a tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wire {
    /// Length of the virtio-net header before each packet.
    pub header: u8,
    /// What the guest takes unfinished: `TUN_F_*` of linux/if_tun.h.
    pub offload: u32,
}

/// Makes a tap that was deleted while a process holds its descriptor anew, for that same descriptor: the process notices
/// nothing. (A QEMU left with a dead one reads from it without end, and aborts when the guest's card is reset.)
///
/// # Errors
/// When the process has no such descriptor or is not ours to touch, or the kernel refuses.
pub async fn mend(
    netns: &Netns,
    pid: u32,
    fd: u32,
    name: &str,
    owner: u32,
    wire: Wire,
) -> Result<()> {
    let name = name.to_owned();
    netns
        .run(move || mend_here(pid, fd, &name, owner, wire))
        .await
}

fn mend_here(pid: u32, fd: u32, name: &str, owner: u32, wire: Wire) -> Result<()> {
    let ours =
        taken(pid, fd).with_context(|| format!("cannot take descriptor {fd} of process {pid}"))?;
    make(&ours, name, owner)?;
    let header = nix::libc::c_int::from(wire.header);
    // SAFETY: the descriptor is open for both calls, and the first only reads the number.
    unsafe {
        call::set_header(ours.as_raw_fd(), &header)
            .with_context(|| format!("cannot set the header of tap `{name}`"))?;
        call::set_offload(ours.as_raw_fd(), wire.offload as nix::libc::c_int)
            .with_context(|| format!("cannot set what tap `{name}` may leave to the guest"))?;
    }
    Ok(())
}

/// A descriptor of our own for the file that another process has open as `fd`.
fn taken(pid: u32, fd: u32) -> std::io::Result<OwnedFd> {
    let opened = |got: nix::libc::c_long| match i32::try_from(got) {
        Ok(raw) if raw >= 0 => {
            // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
            Ok(unsafe { OwnedFd::from_raw_fd(raw) })
        }
        _ => Err(std::io::Error::last_os_error()),
    };
    // SAFETY: both calls take numbers only.
    let process = opened(unsafe { nix::libc::syscall(nix::libc::SYS_pidfd_open, pid, 0) })?;
    let raw = process.as_raw_fd();
    opened(unsafe { nix::libc::syscall(nix::libc::SYS_pidfd_getfd, raw, fd, 0) })
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
    make(&tun, name, owner)?;
    Ok(tun.into())
}

/// Has an open descriptor be the tap of that name.
fn make(tun: &impl AsRawFd, name: &str, owner: u32) -> Result<()> {
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
    super::sysctl::set_here(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1").map(drop)
}

//! Runs guests under QEMU: what to start, starting it, following it, and finding it again.
//!
//! [`Launch`] says what one guest is, as data; [`Launch::args`] makes the command line from it and does nothing else.
//! [`Driver`] starts it, adopts it after our own restart, and ends it; a [`Handle`] is one running guest, with its QMP
//! connection and a [`RunState`] that can be watched. Dropping a handle never stops a guest.
//!
//! # The default machine, and why
//! | choice | reason |
//! |---|---|
//! | `pc-q35-X.Y`, named in full | PCIe and hot-plug; a QEMU upgrade never changes a guest's hardware |
//! | virtio for disk, net, serial, random, balloon | the fewest exits per operation that every Linux has drivers for |
//! | `virtio-blk` over `virtio-scsi` | one layer less; SCSI only for many disks, or for a CD drive |
//! | one iothread for the disks | disk work does not wait for the main loop, which also serves QMP and VNC |
//! | `aio=io_uring` where the kernel has it, else `native` with `cache=none`, else `threads` | fewest system calls per request; probed by really opening a file |
//! | `cache=none` (`O_DIRECT`) | a page is cached once, in the guest; host memory stays for guests; survives a host crash as a disk does |
//! | `discard=unmap`, `detect-zeroes=unmap` | what a guest deletes is given back to the pool |
//! | NIC by tap descriptor with `vhost` where the kernel has it | packets do not pass QEMU; one queue per processor, up to eight |
//! | no option ROM unless the NIC is a boot device | saves its load time at each boot |
//! | processor `host` under KVM; under TCG a plain named model | `max` under TCG emulates features slowly that no guest asked for |
//! | `hpet=off`, `vmport=off`, `smm=off` without Secure Boot | devices nobody uses that cost timer work and exits |
//! | `pcie-root-port`s kept free, each at a fixed address | a device can be plugged later, and never moves others |
//! | `-action shutdown=pause,panic=pause` | a guest that powers off or panics while nobody watches is still there to tell so |
//!
//! # What it never does
//! QEMU opens no TCP port, runs as a numeric user of its own, with seccomp on, without default devices, and is handed its
//! disks and NICs as open descriptors: it needs no right to any path. No part of its environment or arguments is secret.

mod args;
pub(crate) mod boot_sector;
mod disk;
mod driver;
mod features;
mod handle;
mod launch;
mod nic;
mod placement;
mod plug;
mod record;
mod state;
mod tpm;

pub use disk::{Aio, Bus, Cache, DetectZeroes, Disk, Format, Layer, bypass_page_cache};
pub use driver::{Driver, DriverConfig, DriverError};
pub use features::{Binary, Features, FeaturesError, supports_direct_io};
pub use handle::Handle;
pub use launch::{
    Accel, DirectKernel, Firmware, InvalidLaunch, Launch, Memory, OnReboot, Sockets, Topology,
    Video,
};
pub use nic::{Nic, NicModel};
pub use placement::Placement;
pub use record::LaunchRecord;
pub use state::{CrashReason, PauseReason, RunState, ShutdownReason};

#[cfg(test)]
mod args_tests;
#[cfg(test)]
mod driver_hardware_tests;
#[cfg(test)]
mod driver_tests;

//! Disk images: what a file is, and making, converting, growing and checking them with `qemu-img` in a cage.
//!
//! Image formats are parsed by C code, and images come from strangers. So:
//! - [`sniff()`] looks at the first bytes itself, refuses what points to other files (backing files, data files, parent
//!   disks, extents by name) or is encrypted, and names the format; `qemu-img` is never left to guess.
//! - `qemu-img` runs as an unprivileged user without network, under limits of time, memory and file size, and reaches
//!   exactly the files given to it: they are handed over as open descriptors, and it may enter no directory of ours.
//!
//! It never follows a symbolic link, and never changes an image in place except to grow or repair it.

mod sniff;
mod tool;

pub use sniff::{Foreign, Refusal, sniff};
pub use tool::{Check, ImgError, Info, Qcow2Options, Tool};

use serde::{Deserialize, Serialize};
use std::fmt;

/// The formats that are read. Only the first two are written and given to guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// Byte for byte.
    Raw,
    /// QEMU's.
    Qcow2,
    /// VMware's, in one file.
    Vmdk,
    /// Hyper-V's newer one.
    Vhdx,
    /// VirtualBox's.
    Vdi,
    /// Virtual PC's and Hyper-V's older one (VHD).
    Vpc,
}

impl ImageFormat {
    /// Its name for `qemu-img`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vhdx => "vhdx",
            Self::Vdi => "vdi",
            Self::Vpc => "vpc",
        }
    }
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests;

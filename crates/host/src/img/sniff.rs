//! What a file is, by its own bytes. Never panics, whatever they are.

use super::ImageFormat;
use std::io::{self, Read, Seek, SeekFrom};

/// How much of an embedded VMDK descriptor is read, in bytes; real ones have a few hundred.
const DESCRIPTOR: u64 = 64 * 1024;

/// An image from outside that may be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foreign {
    /// Its format.
    pub format: ImageFormat,
    /// For raw: whether the first sector has a boot signature or a partition table or file system is seen. A raw file
    /// without any is more likely no image at all.
    pub looks_bootable: bool,
}

/// Why a file from outside is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not a disk image.
    #[error("it is no disk image: {0}")]
    NotAnImage(String),
    /// It needs another file, which would be read from this host.
    #[error(
        "it refers to another file ({0}); flatten it first, for instance with `qemu-img convert`"
    )]
    Refers(String),
    /// Its content is encrypted.
    #[error("it is encrypted ({0}); decrypt it first")]
    Encrypted(&'static str),
    /// A format or a part of one that is not read.
    #[error("{0} is not supported; convert it to qcow2 or raw first")]
    Unsupported(String),
    /// Its header contradicts itself.
    #[error("its header is damaged: {0}")]
    Damaged(&'static str),
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_be_bytes)
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from(be32(bytes, at)) << 32 | u64::from(be32(bytes, at + 4))
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 8)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

/// Looks at a file from outside: its format, and whether it may be opened at all.
///
/// # Errors
/// When it cannot be read. The inner result says whether it is taken.
pub fn sniff(file: &mut (impl Read + Seek)) -> io::Result<Result<Foreign, Refusal>> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut head = Vec::new();
    file.rewind()?;
    file.take(40 * 1024).read_to_end(&mut head)?;
    let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|h| h.starts_with(magic));
    let known = |format| {
        Ok(Ok(Foreign {
            format,
            looks_bootable: true,
        }))
    };
    if head.is_empty() {
        return Ok(Err(Refusal::NotAnImage("it is empty".to_owned())));
    }
    if at(0, b"QFI\xfb") {
        return Ok(qcow2(&head, file)?.map(|()| Foreign {
            format: ImageFormat::Qcow2,
            looks_bootable: true,
        }));
    }
    if at(0, b"KDMV") {
        return Ok(vmdk(&head, file)?.map(|()| Foreign {
            format: ImageFormat::Vmdk,
            looks_bootable: true,
        }));
    }
    if at(0, b"vhdxfile") {
        return known(ImageFormat::Vhdx);
    }
    if at(0x40, &[0x7f, 0x10, 0xda, 0xbe]) {
        return known(ImageFormat::Vdi);
    }
    if at(0, b"conectix") {
        return Ok(vpc(&head));
    }
    for (magic, name) in [(&b"LUKS\xba\xbe"[..], "LUKS"), (b"-FVE-FS-", "BitLocker")] {
        if at(0, magic) || (magic.starts_with(b"-") && at(3, magic)) {
            return Ok(Err(Refusal::Encrypted(name)));
        }
    }
    for (magic, what) in [
        (
            &b"\x1f\x8b"[..],
            "it is compressed with gzip: unpack it first",
        ),
        (b"\xfd7zXZ\0", "it is compressed with xz: unpack it first"),
        (
            b"\x28\xb5\x2f\xfd",
            "it is compressed with zstd: unpack it first",
        ),
        (b"BZh", "it is compressed with bzip2: unpack it first"),
        (b"PK\x03\x04", "it is a zip archive: unpack it first"),
        (b"7z\xbc\xaf", "it is a 7z archive: unpack it first"),
        (b"\x7fELF", "it is a program"),
        (b"%PDF", "it is a PDF document"),
    ] {
        if at(0, magic) {
            return Ok(Err(Refusal::NotAnImage(what.to_owned())));
        }
    }
    for (magic, what) in [
        (&b"QED\0"[..], "QED"),
        (b"COWD", "an ESX sparse disk"),
        (b"WithoutFreeSpace", "Parallels"),
        (b"WithouFreSpacExt", "Parallels"),
        (b"Bochs Virtual HD", "Bochs"),
        (b"OOOM", "UML COW"),
    ] {
        if at(0, magic) {
            return Ok(Err(Refusal::Unsupported(what.to_owned())));
        }
    }
    if at(257, b"ustar") {
        let what = "it is a tar archive (an OVA?): unpack it first";
        return Ok(Err(Refusal::NotAnImage(what.to_owned())));
    }
    let text = String::from_utf8_lossy(&head[..head.len().min(512)]).to_ascii_lowercase();
    if text.starts_with("# disk descriptorfile") {
        let what = "a VMDK descriptor names its data file";
        return Ok(Err(Refusal::Refers(what.to_owned())));
    }
    if ["<!doctype", "<html", "<?xml", "{"]
        .iter()
        .any(|start| text.trim_start().starts_with(start))
    {
        let what = "it is text, perhaps an error page of the web server";
        return Ok(Err(Refusal::NotAnImage(what.to_owned())));
    }
    if length >= 512 {
        let mut foot = vec![0; 512];
        file.seek(SeekFrom::End(-512))?;
        file.read_exact(&mut foot)?;
        if foot.starts_with(b"conectix") {
            return Ok(vpc(&foot));
        }
    }
    let boots = at(510, &[0x55, 0xaa]) // partition table or boot sector
        || at(512, b"EFI PART")
        || at(0x8001, b"CD001") // ISO 9660
        || at(0x438, &[0x53, 0xef]) // ext2 to ext4
        || at(0, b"XFSB")
        || at(0, b"hsqs");
    Ok(Ok(Foreign {
        format: ImageFormat::Raw,
        looks_bootable: boots,
    }))
}

fn qcow2(head: &[u8], file: &mut (impl Read + Seek)) -> io::Result<Result<(), Refusal>> {
    let version = be32(head, 4);
    if !(2..=3).contains(&version) {
        return Ok(Err(Refusal::Unsupported(format!("qcow version {version}"))));
    }
    if be64(head, 8) != 0 {
        let length = u64::from(be32(head, 16)).min(1023);
        let mut name = Vec::new();
        file.seek(SeekFrom::Start(be64(head, 8)))?;
        file.take(length).read_to_end(&mut name)?;
        let name = String::from_utf8_lossy(&name).into_owned();
        return Ok(Err(Refusal::Refers(format!("backing file {name:?}"))));
    }
    if be32(head, 32) != 0 {
        return Ok(Err(Refusal::Encrypted("qcow2 encryption")));
    }
    const DATA_FILE: u64 = 1 << 2;
    if version == 3 && be64(head, 72) & DATA_FILE != 0 {
        let what = "an external data file".to_owned();
        return Ok(Err(Refusal::Refers(what)));
    }
    Ok(Ok(()))
}

/// A sparse VMDK has its descriptor within. It must have one extent, which is this file, and no parent.
fn vmdk(head: &[u8], file: &mut (impl Read + Seek)) -> io::Result<Result<(), Refusal>> {
    let (offset, sectors) = (le64(head, 28), le64(head, 36));
    if offset == 0 || sectors == 0 {
        // A bare extent of a split disk: it says nothing about itself, so it refers to nothing either.
        return Ok(Ok(()));
    }
    let Some(start) = offset.checked_mul(512) else {
        return Ok(Err(Refusal::Damaged("the place of its descriptor")));
    };
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    let length = sectors.saturating_mul(512).min(DESCRIPTOR);
    file.take(length).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let mut extents = 0;
    for line in text
        .lines()
        .map(|line| line.trim_matches(['\0', ' ', '\t', '\r']))
    {
        let lower = line.to_ascii_lowercase();
        if let Some(parent) = lower.strip_prefix("parentcid=") {
            if parent != "ffffffff" {
                return Ok(Err(Refusal::Refers("a parent disk".to_owned())));
            }
        } else if lower.starts_with("parentfilenamehint") {
            return Ok(Err(Refusal::Refers(line.to_owned())));
        } else if ["rw ", "rdonly ", "noaccess "]
            .iter()
            .any(|access| lower.starts_with(access))
        {
            extents += 1;
            let mut words = lower.split_ascii_whitespace();
            if words.nth(2) != Some("sparse") {
                return Ok(Err(Refusal::Refers(format!("extent {line}"))));
            }
        }
    }
    match extents {
        1 => Ok(Ok(())),
        0 => Ok(Err(Refusal::Damaged("its descriptor names no extent"))),
        n => Ok(Err(Refusal::Refers(format!("{n} extents")))),
    }
}

fn vpc(footer: &[u8]) -> Result<Foreign, Refusal> {
    match be32(footer, 60) {
        2 | 3 => Ok(Foreign {
            format: ImageFormat::Vpc,
            looks_bootable: true,
        }),
        4 => Err(Refusal::Refers("a parent disk".to_owned())),
        other => Err(Refusal::Unsupported(format!("VHD of type {other}"))),
    }
}

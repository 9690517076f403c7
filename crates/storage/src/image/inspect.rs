//! Says what a file is and refuses what would reach outside of it, by reading its header alone. It runs before any
//! tool opens the file: `qemu-img` follows backing files, external data files and extent lists, also when it is only
//! asked for information, so a hostile header must never get that far.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};

/// Formats of disk images that can be imported. All are stored as qcow2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// QEMU's own.
    Qcow2,
    /// The bytes of the disk, nothing else.
    Raw,
    /// VMware, in one file (monolithicSparse or streamOptimized).
    Vmdk,
    /// Hyper-V.
    Vhdx,
    /// VirtualBox.
    Vdi,
}

impl Format {
    /// Its name for `qemu-img`, and for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
            Self::Vmdk => "vmdk",
            Self::Vhdx => "vhdx",
            Self::Vdi => "vdi",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Why a file is no image that we take.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// It has no bytes.
    #[error("the file is empty")]
    Empty,
    /// It is something else.
    #[error("the file is not a disk image: it looks like {found}")]
    NotAnImage {
        /// What it looks like.
        found: String,
    },
    /// It says it is another format than it was given out for.
    #[error("the file was given out as {said} but is {found}")]
    OtherFormat {
        /// What was said.
        said: Format,
        /// What it is.
        found: Format,
    },
    /// It needs another file.
    #[error(
        "the {format} image refers to another file ({reference}): flatten it first with `qemu-img convert`"
    )]
    Foreign {
        /// Its format.
        format: Format,
        /// What it refers to: never opened.
        reference: String,
    },
    /// Its content is encrypted.
    #[error("the {format} image is encrypted: decrypt it first with `qemu-img convert`")]
    Encrypted {
        /// Its format.
        format: Format,
    },
    /// Its header does not make sense, or it is cut short.
    #[error("the {format} image is damaged: {why}")]
    Damaged {
        /// Its format.
        format: Format,
        /// What does not make sense.
        why: String,
    },
    /// Its disk is larger than allowed.
    #[error("the image's disk has {size} bytes, and at most {limit} are allowed")]
    TooLarge {
        /// Virtual size, in bytes.
        size: u64,
        /// The most, in bytes.
        limit: u64,
    },
    /// It cannot be read.
    #[error("the file cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}

/// What a file's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspected {
    /// Its format.
    pub format: Format,
    /// Size of the disk in it, in bytes, when the header is one that we read it from.
    pub virtual_size: Option<u64>,
}

/// Reads the header of `file`. `said` is the format it was given out as, if any; only with `raw` is a file without any
/// known header taken.
///
/// # Errors
/// See [`Unfit`].
pub fn inspect(
    file: &mut (impl Read + Seek),
    said: Option<Format>,
    limit: u64,
) -> Result<Inspected, Unfit> {
    let length = file.seek(SeekFrom::End(0))?;
    if length == 0 {
        return Err(Unfit::Empty);
    }
    let head = read_at(file, 0, 64 * 1024)?;
    let found = match magic(&head) {
        Some(format) => {
            if let Some(said) = said.filter(|&said| said != format) {
                return Err(Unfit::OtherFormat {
                    said,
                    found: format,
                });
            }
            let virtual_size = match format {
                Format::Qcow2 => Some(qcow2(file, &head, length)?),
                Format::Vmdk => Some(vmdk(file, &head, length)?),
                Format::Vdi => Some(vdi(&head)?),
                Format::Vhdx | Format::Raw => None,
            };
            Inspected {
                format,
                virtual_size,
            }
        }
        None if said.is_none_or(|s| s == Format::Raw)
            && !head.starts_with(b"# Disk DescriptorFile") =>
        {
            if head.starts_with(b"LUKS\xba\xbe") {
                return Err(Unfit::Encrypted {
                    format: Format::Raw,
                });
            }
            let partitioned = head.get(510..512) == Some(&[0x55, 0xaa])
                || head.get(512..520) == Some(b"EFI PART");
            if said != Some(Format::Raw) && !partitioned {
                return Err(Unfit::NotAnImage {
                    found: looks_like(&head),
                });
            }
            Inspected {
                format: Format::Raw,
                virtual_size: Some(length.next_multiple_of(512)),
            }
        }
        None => {
            return Err(Unfit::NotAnImage {
                found: looks_like(&head),
            });
        }
    };
    match found.virtual_size {
        Some(0) => Err(damaged(found.format, "its disk has no bytes")),
        Some(size) if size > limit => Err(Unfit::TooLarge { size, limit }),
        _ => Ok(found),
    }
}

fn damaged(format: Format, why: &str) -> Unfit {
    Unfit::Damaged {
        format,
        why: why.to_owned(),
    }
}

fn magic(head: &[u8]) -> Option<Format> {
    if head.starts_with(b"QFI\xfb") {
        Some(Format::Qcow2)
    } else if head.starts_with(b"KDMV") {
        Some(Format::Vmdk)
    } else if head.starts_with(b"vhdxfile") {
        Some(Format::Vhdx)
    } else if head.get(0x40..0x44) == Some(&0xbeda_107f_u32.to_le_bytes()) {
        Some(Format::Vdi)
    } else {
        None
    }
}

fn read_at(file: &mut (impl Read + Seek), at: u64, most: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn field<const N: usize>(bytes: &[u8], at: usize, format: Format) -> Result<[u8; N], Unfit> {
    bytes
        .get(at..at + N)
        .and_then(|b| b.try_into().ok())
        .ok_or_else(|| damaged(format, "its header is cut short"))
}

fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .filter(|c| !c.is_control())
        .take(200)
        .collect()
}

fn qcow2(file: &mut (impl Read + Seek), head: &[u8], length: u64) -> Result<u64, Unfit> {
    const FORMAT: Format = Format::Qcow2;
    let u32_at = |at| field::<4>(head, at, FORMAT).map(u32::from_be_bytes);
    let u64_at = |at| field::<8>(head, at, FORMAT).map(u64::from_be_bytes);
    let version = u32_at(4)?;
    if !matches!(version, 2 | 3) {
        return Err(damaged(
            FORMAT,
            &format!("its version is {version}, known are 2 and 3"),
        ));
    }
    let backing = u64_at(8)?;
    if backing != 0 {
        let most = u64::from(u32_at(16)?.min(1023));
        let reference = printable(&read_at(file, backing, most)?);
        return Err(Unfit::Foreign {
            format: FORMAT,
            reference: format!("the backing file `{reference}`"),
        });
    }
    if u32_at(32)? != 0 {
        return Err(Unfit::Encrypted { format: FORMAT });
    }
    let cluster_bits = u32_at(20)?;
    if !(9..=21).contains(&cluster_bits) {
        return Err(damaged(
            FORMAT,
            &format!("its cluster size is 2^{cluster_bits}"),
        ));
    }
    if version == 3 {
        let incompatible = u64_at(72)?;
        if incompatible & 4 != 0 {
            return Err(Unfit::Foreign {
                format: FORMAT,
                reference: "an external data file".to_owned(),
            });
        }
        if incompatible & 2 != 0 {
            return Err(damaged(FORMAT, "it is marked as corrupt"));
        }
    }
    // The header extension that names an external data file has no use without the feature bit: it is hostile.
    if has_extension(head, version, 0x4441_5441)? {
        return Err(Unfit::Foreign {
            format: FORMAT,
            reference: "an external data file".to_owned(),
        });
    }
    let l1 = u64_at(40)?;
    let l1_entries = u64::from(u32_at(36)?);
    if l1 == 0 || l1_entries > 4 << 20 || l1.saturating_add(l1_entries * 8) > length {
        return Err(damaged(
            FORMAT,
            "its first table lies beyond the end of the file, which may be cut short",
        ));
    }
    u64_at(24)
}

fn has_extension(head: &[u8], version: u32, wanted: u32) -> Result<bool, Unfit> {
    let u32_at = |at| field::<4>(head, at, Format::Qcow2).map(u32::from_be_bytes);
    let mut at = if version == 3 {
        u32_at(100)? as usize
    } else {
        72
    };
    if version == 3 && at < 104 {
        return Err(damaged(
            Format::Qcow2,
            "its header is too short for its version",
        ));
    }
    while at + 8 <= head.len() {
        let (kind, length) = (u32_at(at)?, u32_at(at + 4)? as usize);
        match kind {
            0 => break,
            kind if kind == wanted => return Ok(true),
            _ => {
                at = at
                    .saturating_add(8)
                    .saturating_add(length.next_multiple_of(8))
            }
        }
    }
    Ok(false)
}

fn vmdk(file: &mut (impl Read + Seek), head: &[u8], length: u64) -> Result<u64, Unfit> {
    const FORMAT: Format = Format::Vmdk;
    let u64_at = |at| field::<8>(head, at, FORMAT).map(u64::from_le_bytes);
    let sectors = u64_at(12)?;
    // Without a capacity of its own, it is only a list of other files.
    if sectors == 0 {
        return Err(Unfit::Foreign {
            format: FORMAT,
            reference: "a list of extents".to_owned(),
        });
    }
    let named = u64_at(28)?.saturating_mul(512);
    if named > length {
        return Err(damaged(
            FORMAT,
            "its descriptor lies beyond the end of the file, which may be cut short",
        ));
    }
    // QEMU looks for a parent in the second sector, wherever the header says that the descriptor is.
    for at in [512, named] {
        let descriptor = read_at(file, at, 1 << 20)?;
        let text =
            String::from_utf8_lossy(&descriptor[..descriptor.len().min(20 * 512)]).into_owned();
        if let Some(parent) = parent_in(&text) {
            return Err(Unfit::Foreign {
                format: FORMAT,
                reference: format!("the parent `{parent}`"),
            });
        }
    }
    sectors
        .checked_mul(512)
        .ok_or_else(|| damaged(FORMAT, "its size overflows"))
}

fn parent_in(descriptor: &str) -> Option<String> {
    let lower = descriptor.to_ascii_lowercase();
    if let Some(at) = lower.find("parentfilenamehint") {
        let value = descriptor[at..]
            .lines()
            .next()
            .and_then(|l| l.split_once('='))
            .map_or("", |(_, v)| v.trim());
        return Some(printable(value.trim_matches('"').as_bytes()));
    }
    let id = lower
        .lines()
        .filter_map(|l| l.trim().strip_prefix("parentcid"))
        .find_map(|l| l.trim_start().strip_prefix('='));
    id.map(str::trim)
        .filter(|id| *id != "ffffffff")
        .map(|id| printable(id.as_bytes()))
}

fn vdi(head: &[u8]) -> Result<u64, Unfit> {
    const FORMAT: Format = Format::Vdi;
    match u32::from_le_bytes(field(head, 0x4c, FORMAT)?) {
        1 | 2 => {}
        4 => {
            return Err(Unfit::Foreign {
                format: FORMAT,
                reference: "a parent image".to_owned(),
            });
        }
        other => {
            return Err(damaged(
                FORMAT,
                &format!("its type is {other}, known are 1 and 2"),
            ));
        }
    }
    Ok(u64::from_le_bytes(field(head, 0x170, FORMAT)?))
}

fn looks_like(head: &[u8]) -> String {
    let known: [(&[u8], &str); 12] = [
        (b"\x1f\x8b", "a gzip archive; unpack it first"),
        (b"\xfd7zXZ", "an xz archive; unpack it first"),
        (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it first"),
        (b"BZh", "a bzip2 archive; unpack it first"),
        (b"PK\x03\x04", "a zip archive; unpack it first"),
        (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
        (b"\x7fELF", "a program"),
        (
            b"# Disk DescriptorFile",
            "a vmdk descriptor, which only lists other files; import the disk itself, or flatten it with `qemu-img convert`",
        ),
        (
            b"COWD",
            "an old VMware sparse extent; convert it with `qemu-img convert`",
        ),
        (
            b"conectix",
            "a VHD (VPC) image; convert it with `qemu-img convert`",
        ),
        (b"%PDF", "a PDF document"),
        (b"\x89PNG", "a PNG picture"),
    ];
    if let Some((_, what)) = known.iter().find(|(magic, _)| head.starts_with(magic)) {
        return (*what).to_owned();
    }
    if head.get(257..262) == Some(b"ustar") {
        return "a tar archive; import the disk inside it".to_owned();
    }
    if head.get(0x8001..0x8006) == Some(b"CD001") {
        return "a CD image; if it is meant as a disk, say `format: raw`".to_owned();
    }
    let start = String::from_utf8_lossy(&head[..head.len().min(512)])
        .trim_start()
        .to_ascii_lowercase();
    if start.starts_with("<!doctype html") || start.starts_with("<html") {
        return "a web page; check the address".to_owned();
    }
    if head.iter().all(|&b| b == 0) {
        return "nothing but zeros; if it is meant as an empty disk, say `format: raw`".to_owned();
    }
    if std::str::from_utf8(&head[..head.len().min(512)]).is_ok() {
        return format!(
            "a text that begins with `{}`",
            printable(&head[..head.len().min(40)])
        );
    }
    "bytes without a header that we know; if it is a disk without partitions, say `format: raw`"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    const LIMIT: u64 = 1 << 40;

    fn verdict(bytes: &[u8], said: Option<Format>) -> String {
        match inspect(&mut Cursor::new(bytes), said, LIMIT) {
            Ok(ok) => format!("{} {:?}", ok.format, ok.virtual_size),
            Err(error) => error.to_string(),
        }
    }

    fn header(edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = vec![0; 256 * 1024];
        bytes[..4].copy_from_slice(b"QFI\xfb");
        bytes[4..8].copy_from_slice(&3u32.to_be_bytes());
        bytes[20..24].copy_from_slice(&16u32.to_be_bytes());
        bytes[24..32].copy_from_slice(&(1u64 << 30).to_be_bytes());
        bytes[36..40].copy_from_slice(&2u32.to_be_bytes());
        bytes[40..48].copy_from_slice(&0x30000u64.to_be_bytes());
        bytes[100..104].copy_from_slice(&104u32.to_be_bytes());
        edit(&mut bytes);
        bytes
    }

    #[test]
    fn qcow2_that_stands_alone_is_taken() {
        assert_eq!(verdict(&header(|_| ()), None), "qcow2 Some(1073741824)");
        assert_eq!(
            verdict(&header(|_| ()), Some(Format::Vdi)),
            "the file was given out as vdi but is qcow2"
        );
    }

    #[test]
    fn qcow2_that_reaches_outside_is_refused() {
        let backing = header(|b| {
            b[8..16].copy_from_slice(&512u64.to_be_bytes());
            b[16..20].copy_from_slice(&11u32.to_be_bytes());
            b[512..523].copy_from_slice(b"/etc/passwd");
        });
        assert!(verdict(&backing, None).contains("the backing file `/etc/passwd`"));
        let data_file = header(|b| b[79] = 4);
        assert!(verdict(&data_file, None).contains("an external data file"));
        let extension = header(|b| {
            b[104..108].copy_from_slice(&0x6803_f857u32.to_be_bytes());
            b[108..112].copy_from_slice(&5u32.to_be_bytes());
            b[120..124].copy_from_slice(&0x4441_5441u32.to_be_bytes());
        });
        assert!(verdict(&extension, None).contains("an external data file"));
        assert!(verdict(&header(|b| b[35] = 2), None).contains("encrypted"));
    }

    #[test]
    fn damaged_and_huge_headers_are_refused() {
        assert!(verdict(&header(|_| ())[..60], None).contains("cut short"));
        assert!(verdict(&header(|_| ())[..1024], None).contains("cut short"));
        assert!(verdict(&header(|b| b[23] = 63), None).contains("cluster size"));
        assert!(verdict(&header(|b| b[24] = 0x7f), None).contains("at most"));
        assert!(verdict(&header(|b| b[24..32].fill(0)), None).contains("no bytes"));
    }

    #[test]
    fn no_header_makes_the_reader_panic() {
        for magic in [&b"QFI\xfb"[..], b"KDMV", b"vhdxfile"] {
            for fill in [0u8, 1, 0x7f, 0xff] {
                for length in [magic.len(), 70, 110, 600, 70_000] {
                    let mut bytes = vec![fill; length];
                    bytes[..magic.len()].copy_from_slice(magic);
                    let _ = verdict(&bytes, None);
                }
            }
        }
    }

    #[test]
    fn what_is_no_image_is_named() {
        assert_eq!(verdict(b"", None), "the file is empty");
        assert!(verdict(b"\x1f\x8b\x08aaaa", None).contains("gzip"));
        assert!(verdict(b"<!DOCTYPE html><p>404", None).contains("web page"));
        assert!(
            verdict(
                b"# Disk DescriptorFile\nRW 9 FLAT \"/etc/passwd\" 0\n",
                None
            )
            .contains("vmdk descriptor")
        );
        assert!(
            verdict(
                b"# Disk DescriptorFile\nRW 9 FLAT \"/etc/passwd\" 0\n",
                Some(Format::Raw)
            )
            .contains("vmdk descriptor")
        );
        assert!(verdict(b"hello", None).contains("`hello`"));
        assert_eq!(verdict(b"hello", Some(Format::Raw)), "raw Some(512)");
        assert!(verdict(b"LUKS\xba\xbe and more", Some(Format::Raw)).contains("encrypted"));
    }

    #[test]
    fn vmdk_with_a_parent_or_only_extents_is_refused() {
        let vmdk = |sectors: u64, text: &str| {
            let mut bytes = vec![0; 2048];
            bytes[..4].copy_from_slice(b"KDMV");
            bytes[12..20].copy_from_slice(&sectors.to_le_bytes());
            bytes[28..36].copy_from_slice(&1u64.to_le_bytes());
            bytes[36..44].copy_from_slice(&2u64.to_le_bytes());
            bytes[512..512 + text.len()].copy_from_slice(text.as_bytes());
            bytes
        };
        assert_eq!(
            verdict(&vmdk(8, "parentCID=ffffffff\nRW 8 SPARSE \"a.vmdk\""), None),
            "vmdk Some(4096)"
        );
        assert!(verdict(&vmdk(8, "parentCID=12345678\n"), None).contains("the parent"));
        assert!(
            verdict(&vmdk(8, "parentFileNameHint=\"/etc/passwd\"\n"), None).contains("/etc/passwd")
        );
        assert!(verdict(&vmdk(0, "RW 8 FLAT \"/etc/passwd\" 0"), None).contains("list of extents"));
    }
}

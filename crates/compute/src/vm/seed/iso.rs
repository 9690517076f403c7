//! Writes an ISO 9660 file system with Joliet names (ECMA-119 and its second volume descriptor): one folder, a few small
//! files, nothing else. Linux, the BSDs and Windows read it.

use super::{MAX, Seed};
use model::{Error, Result};

const SECTOR: usize = 2048;
/// Where the descriptors end: 16 unused sectors, three descriptors, four path tables, two folders.
const FIRST_FILE: usize = 16 + 3 + 4 + 2;

/// The seed as a disk.
pub fn iso(seed: &Seed) -> Result<Vec<u8>> {
    let mut files = vec![
        ("meta-data", seed.meta_data.as_bytes()),
        ("network-config", seed.network_config.as_bytes()),
        ("user-data", seed.user_data.as_bytes()),
    ];
    if let Some(vendor) = &seed.vendor_data {
        files.push(("vendor-data", vendor.as_bytes()));
    }
    let total: usize = files.iter().map(|(_, d)| d.len()).sum();
    if total > MAX - (FIRST_FILE + files.len() + 1) * SECTOR {
        return Err(Error::field(
            "spec.cloud_init",
            format!("its documents have {total} bytes; a seed has at most 10 MiB"),
        )
        .hint("fetch large things from the guest instead"));
    }
    Ok(write(&files))
}

struct Placed<'a> {
    /// Level-1 name: 8.3, upper case.
    short: String,
    long: &'a str,
    sector: u32,
    data: &'a [u8],
}

fn write(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut next = FIRST_FILE;
    let mut placed = Vec::new();
    for (i, (name, data)) in files.iter().enumerate() {
        let head: String = name
            .chars()
            .filter(char::is_ascii_alphabetic)
            .take(6)
            .collect();
        placed.push(Placed {
            short: format!("{}{i}.;1", head.to_ascii_uppercase()),
            long: name,
            sector: next as u32,
            data,
        });
        next += data.len().div_ceil(SECTOR).max(1);
    }
    let sectors = next as u32;
    // Sectors: 16 primary, 17 Joliet, 18 end, 19/20 path tables of the primary, 21/22 of Joliet, 23/24 folders.
    let mut out = vec![0; sectors as usize * SECTOR];
    let mut put = |sector: usize, bytes: &[u8]| {
        let at = sector * SECTOR;
        out[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(16, &descriptor(false, sectors, 19, 20, 23));
    put(17, &descriptor(true, sectors, 21, 22, 24));
    put(18, b"\xffCD001\x01");
    put(19, &path_table(23, u32::to_le_bytes, u16::to_le_bytes));
    put(20, &path_table(23, u32::to_be_bytes, u16::to_be_bytes));
    put(21, &path_table(24, u32::to_le_bytes, u16::to_le_bytes));
    put(22, &path_table(24, u32::to_be_bytes, u16::to_be_bytes));
    let short = |p: &Placed<'_>| p.short.clone().into_bytes();
    let long = |p: &Placed<'_>| utf16(p.long);
    put(23, &folder(23, &placed, &short));
    put(24, &folder(24, &placed, &long));
    for file in &placed {
        put(file.sector as usize, file.data);
    }
    out
}

/// A number in both byte orders.
fn both16(n: u16) -> Vec<u8> {
    [n.to_le_bytes(), n.to_be_bytes()].concat()
}

/// A number in both byte orders.
fn both32(n: u32) -> Vec<u8> {
    [n.to_le_bytes(), n.to_be_bytes()].concat()
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

fn descriptor(joliet: bool, sectors: u32, table_le: u32, table_be: u32, root: u32) -> Vec<u8> {
    let text = |text: &str, len: usize| -> Vec<u8> {
        let mut bytes = if joliet {
            utf16(text)
        } else {
            text.as_bytes().to_vec()
        };
        while bytes.len() < len {
            bytes.extend_from_slice(if joliet { b"\0 " } else { b" " });
        }
        bytes.truncate(len);
        bytes
    };
    let mut d = vec![if joliet { 2 } else { 1 }];
    d.extend(b"CD001\x01\0");
    d.extend(text("", 32));
    d.extend(text("cidata", 32));
    d.extend([0; 8]);
    d.extend(both32(sectors));
    let mut escape = [0; 32];
    if joliet {
        // UCS-2 level 3.
        escape[..3].copy_from_slice(b"%/E");
    }
    d.extend(escape);
    d.extend(both16(1));
    d.extend(both16(1));
    d.extend(both16(SECTOR as u16));
    d.extend(both32(10));
    d.extend(table_le.to_le_bytes());
    d.extend([0; 4]);
    d.extend(table_be.to_be_bytes());
    d.extend([0; 4]);
    d.extend(record(root, SECTOR as u32, true, &[0]));
    // Volume set, publisher, preparer and application; copyright, abstract and bibliography files.
    for _ in 0..4 {
        d.extend(text("", 128));
    }
    for _ in 0..3 {
        d.extend(text("", 37));
    }
    // Four dates of the volume, all unset.
    for _ in 0..4 {
        d.extend(b"0000000000000000\0");
    }
    d.extend([1, 0]);
    d.resize(SECTOR, 0);
    d
}

/// The path table: only the root folder.
fn path_table(root: u32, four: fn(u32) -> [u8; 4], two: fn(u16) -> [u8; 2]) -> Vec<u8> {
    let mut t = vec![1, 0];
    t.extend(four(root));
    t.extend(two(1));
    t.extend([0, 0]);
    t
}

fn record(sector: u32, len: u32, folder: bool, name: &[u8]) -> Vec<u8> {
    let pad = usize::from(name.len().is_multiple_of(2));
    let mut r = vec![(33 + name.len() + pad) as u8, 0];
    r.extend(both32(sector));
    r.extend(both32(len));
    // 1 January 2026, so that the same seed has the same bytes.
    r.extend([126, 1, 1, 0, 0, 0, 0]);
    r.extend([if folder { 2 } else { 0 }, 0, 0]);
    r.extend(both16(1));
    r.push(name.len() as u8);
    r.extend(name);
    r.extend(vec![0; pad]);
    r
}

fn folder(own: u32, files: &[Placed<'_>], name: &dyn Fn(&Placed<'_>) -> Vec<u8>) -> Vec<u8> {
    let mut out = record(own, SECTOR as u32, true, &[0]);
    out.extend(record(own, SECTOR as u32, true, &[1]));
    for file in files {
        out.extend(record(
            file.sector,
            file.data.len() as u32,
            false,
            &name(file),
        ));
    }
    out
}

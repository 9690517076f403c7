//! A made-up database of places, for tests here and of the surfaces.

/// A database with one place for each first byte of an IPv4 address, in MaxMind's format, version 2.
pub fn made(places: &[(u8, f64, f64)]) -> Vec<u8> {
    const BITS: u32 = 8;
    // A whole tree of eight levels: each node is two records of 24 bits.
    let nodes = (1u32 << BITS) - 1;
    let mut data = Vec::new();
    let mut at = [None; 256];
    for (first, latitude, longitude) in places {
        at[usize::from(*first)] = Some(data.len() as u32);
        // {"location": {"latitude": d, "longitude": d}}
        data.push(0xe1);
        text(&mut data, "location");
        data.push(0xe2);
        for (name, value) in [("latitude", latitude), ("longitude", longitude)] {
            text(&mut data, name);
            data.push(0x68);
            data.extend(value.to_be_bytes());
        }
    }
    let mut out = Vec::new();
    for node in 0..nodes {
        for side in 0..2 {
            let child = 2 * node + 1 + side;
            let record = match child.checked_sub(nodes) {
                None => child,
                Some(leaf) => at[leaf as usize].map_or(nodes, |at| nodes + 16 + at),
            };
            out.extend(&record.to_be_bytes()[1..]);
        }
    }
    out.extend([0; 16]);
    out.extend(data);
    out.extend(b"\xab\xcd\xefMaxMind.com");
    out.push(0xe9);
    let mut number = |name: &str, kind: &[u8], bytes: &[u8]| {
        text(&mut out, name);
        out.extend(kind);
        out.extend(bytes);
    };
    number("node_count", &[0xc4], &nodes.to_be_bytes());
    number("record_size", &[0xa2], &24u16.to_be_bytes());
    number("ip_version", &[0xa2], &4u16.to_be_bytes());
    number("binary_format_major_version", &[0xa2], &2u16.to_be_bytes());
    number("binary_format_minor_version", &[0xa2], &0u16.to_be_bytes());
    number(
        "build_epoch",
        &[0x08, 0x02],
        &1_800_000_000u64.to_be_bytes(),
    );
    text(&mut out, "database_type");
    text(&mut out, "Made-Up-City");
    text(&mut out, "languages");
    out.extend([0x00, 0x04]);
    text(&mut out, "description");
    out.push(0xe0);
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(0x40 | text.len() as u8);
    out.extend(text.as_bytes());
}

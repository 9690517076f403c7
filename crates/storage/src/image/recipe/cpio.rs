//! Writes a `newc` cpio archive, the only format that the kernel unpacks as an initramfs. It never reads one, and
//! never looks at the file system: what goes in is given as bytes, owned by root and dated at the epoch, so that the
//! same input gives the same archive.

use std::io::{self, Write};

const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;

/// An archive being written to `out`.
pub(super) struct Cpio<W> {
    out: W,
    next_inode: u32,
}

impl<W: Write> Cpio<W> {
    /// An empty archive.
    pub(super) fn new(out: W) -> Self {
        Self { out, next_inode: 1 }
    }

    /// A folder; its parents must have been added before it.
    pub(super) fn folder(&mut self, path: &str) -> io::Result<()> {
        self.entry(path, DIRECTORY | 0o755, &[])
    }

    /// A file with the permission bits `mode` (e.g. `0o755`).
    pub(super) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.entry(path, REGULAR | mode, content)
    }

    /// A symbolic link at `path` that points to `target`.
    pub(super) fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.entry(path, SYMLINK | 0o777, target.as_bytes())
    }

    /// Writes the trailer and gives back the writer.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.next_inode = 0;
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.out)
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let too_long = |_| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("`{path}` is over 4 GiB, which cpio cannot hold"),
            )
        };
        let size = u32::try_from(content.len()).map_err(too_long)?;
        let name_size = u32::try_from(path.len() + 1).map_err(too_long)?;
        let inode = self.next_inode;
        self.next_inode += 1;
        write!(self.out, "070701")?;
        // inode, mode, uid, gid, links, mtime, size, device major and minor (twice), name size, checksum (unused)
        for field in [inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0] {
            write!(self.out, "{field:08x}")?;
        }
        self.out.write_all(path.as_bytes())?;
        self.out.write_all(b"\0")?;
        self.pad(110 + path.len() + 1)?;
        self.out.write_all(content)?;
        self.pad(content.len())
    }

    fn pad(&mut self, written: usize) -> io::Result<()> {
        self.out.write_all(&[0; 3][..(4 - written % 4) % 4])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_aligned_and_the_trailer_closes_it() {
        let mut cpio = Cpio::new(Vec::new());
        cpio.folder("bin").unwrap();
        cpio.file("bin/a", 0o755, b"12345").unwrap();
        cpio.link("bin/b", "a").unwrap();
        let bytes = cpio.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 4);
        assert!(text.starts_with("07070100000001000041ed"));
        assert!(text.contains("bin/a\0"));
        assert!(text.trim_end_matches('\0').ends_with("TRAILER!!!"));
    }
}

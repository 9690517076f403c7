//! The boot loader of an image: GRUB's core for BIOS, put in place by hand as `grub-bios-setup` would, and Debian's
//! signed shim and GRUB for UEFI, so that Secure Boot works. It never runs `grub-install`, which wants a real disk.

use super::tree::Tree;
use anyhow::{Context, Result, bail};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

/// Where GRUB for BIOS has its modules, in a Debian system.
pub(super) const BIOS_MODULES: &str = "usr/lib/grub/i386-pc";
/// Where GRUB for UEFI has its modules.
pub(super) const UEFI_MODULES: &str = "usr/lib/grub/x86_64-efi";
/// The packages that [`Loader::make`] takes its parts from.
pub(super) const PACKAGES: [&str; 4] = [
    "grub-pc-bin",
    "shim-signed",
    "shim-helpers-amd64-signed",
    "grub-efi-amd64-signed",
];

/// Both consoles: the screen, and last the serial line, which becomes `/dev/console`.
pub(super) const CONSOLES: &str = "console=tty0 console=ttyS0,115200";

const SECTOR: usize = 512;

/// The parts of the boot loader.
pub(super) struct Loader {
    /// First sector of the disk.
    boot: Vec<u8>,
    /// What it loads, from the BIOS boot partition.
    core: Vec<u8>,
    /// Files of the EFI system partition: path in it, and content.
    pub(super) efi: Vec<(&'static str, Vec<u8>)>,
}

/// GRUB's menu: one entry that boots at once, on both consoles.
pub(super) fn menu(title: &str, root: &str, arguments: &str) -> String {
    format!(
        "set timeout=0\nserial --unit=0 --speed=115200\nterminal_input console serial\nterminal_output console serial\n\
         search --no-floppy --fs-uuid --set=root {root}\n\
         menuentry '{title}' {{\n  linux /vmlinuz {arguments} {CONSOLES}\n  initrd /initrd.img\n}}\n"
    )
}

impl Loader {
    /// Makes the parts from the GRUB and shim packages in `tree`. `root` is the UUID of the file system that has
    /// `/boot/grub/grub.cfg`; `work` is a folder for intermediate files.
    pub(super) async fn make(
        tree: &Tree,
        root: &str,
        work: &Path,
        cancel: &CancellationToken,
    ) -> Result<Self> {
        let find = format!("search.fs_uuid {root} root\nset prefix=($root)/boot/grub\n");
        let early = work.join("early.cfg");
        std::fs::write(&early, &find).context("writing GRUB's early configuration")?;
        let core = work.join("core.img");
        let modules = tree.path(BIOS_MODULES);
        let mut arguments: Vec<PathBuf> = ["-O", "i386-pc", "-p", "/boot/grub", "-d"]
            .map(PathBuf::from)
            .into();
        arguments.extend([
            modules.clone(),
            "-c".into(),
            early,
            "-o".into(),
            core.clone(),
        ]);
        let parts = [
            "biosdisk",
            "part_gpt",
            "ext2",
            "search",
            "search_fs_uuid",
            "normal",
            "configfile",
            "linux",
            "serial",
            "terminal",
            "echo",
            "test",
        ];
        arguments.extend(parts.map(PathBuf::from));
        let arguments: Vec<_> = arguments.iter().map(PathBuf::as_path).collect();
        tree.run("usr/bin/grub-mkimage", &arguments, cancel).await?;

        let read = |path: PathBuf| {
            std::fs::read(&path)
                .with_context(|| format!("reading the boot loader part {}", path.display()))
        };
        let shim = read(tree.path("usr/lib/shim/shimx64.efi.signed"))?;
        let grub = read(tree.path("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"))?;
        let keys = read(tree.path("usr/lib/shim/mmx64.efi.signed"))?;
        let configuration = find + "configfile $prefix/grub.cfg\n";
        Ok(Self {
            boot: read(modules.join("boot.img"))?,
            core: read(core)?,
            efi: vec![
                // The signed GRUB has the prefix /EFI/debian built in, wherever it was loaded from.
                ("EFI/BOOT/BOOTX64.EFI", shim),
                ("EFI/BOOT/grubx64.efi", grub),
                ("EFI/BOOT/mmx64.efi", keys),
                ("EFI/debian/grub.cfg", configuration.into_bytes()),
            ],
        })
    }

    /// Writes the BIOS parts into `disk`, whose BIOS boot partition starts at sector `at` and has `sectors` sectors.
    /// The partition table in the first sector is kept.
    pub(super) fn install(
        &self,
        disk: &mut (impl Read + Write + Seek),
        at: u64,
        sectors: u64,
    ) -> Result<()> {
        let mut boot = self.boot.clone();
        let mut core = self.core.clone();
        if boot.len() != SECTOR || core.len() < SECTOR {
            bail!(
                "GRUB's boot.img has {} bytes and core.img {}: not what this was written for",
                boot.len(),
                core.len()
            );
        }
        core.resize(core.len().next_multiple_of(SECTOR), 0);
        let length = core.len() / SECTOR;
        if length as u64 > sectors {
            bail!(
                "GRUB's core of {length} sectors does not fit into the BIOS boot partition of {sectors}"
            );
        }
        let rest =
            u16::try_from(length - 1).context("GRUB's core is too long for its block list")?;
        let mut first = [0; SECTOR];
        disk.seek(SeekFrom::Start(0))?;
        disk.read_exact(&mut first)?;
        // The disk's own BIOS parameter block, signature and partition table stay.
        boot[0x03..0x5a].copy_from_slice(&first[0x03..0x5a]);
        boot[0x1b8..0x200].copy_from_slice(&first[0x1b8..0x200]);
        // Where the core starts; and no check of the drive number, as grub-bios-setup does for a hard disk.
        boot[0x5c..0x64].copy_from_slice(&at.to_le_bytes());
        boot[0x66..0x68].copy_from_slice(&[0x90, 0x90]);
        // The core's first sector loads the rest: start, length, segment.
        core[0x1f4..0x1fc].copy_from_slice(&(at + 1).to_le_bytes());
        core[0x1fc..0x1fe].copy_from_slice(&rest.to_le_bytes());
        core[0x1fe..0x200].copy_from_slice(&0x0820u16.to_le_bytes());
        disk.seek(SeekFrom::Start(0))?;
        disk.write_all(&boot)?;
        disk.seek(SeekFrom::Start(at * SECTOR as u64))?;
        disk.write_all(&core)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn loader(core: usize) -> Loader {
        Loader {
            boot: vec![0xbb; SECTOR],
            core: vec![0xcc; core],
            efi: Vec::new(),
        }
    }

    #[test]
    fn the_partition_table_survives_and_the_block_list_is_right() {
        let mut disk = Cursor::new(vec![0x11; SECTOR * 8]);
        loader(1000).install(&mut disk, 2, 4).unwrap();
        let disk = disk.into_inner();
        assert_eq!(disk[0x1b8..0x200], [0x11; 0x48]);
        assert_eq!(disk[0x5c..0x64], 2u64.to_le_bytes());
        assert_eq!(disk[0], 0xbb);
        let core = &disk[1024..];
        assert_eq!(core[0x1f4..0x1fc], 3u64.to_le_bytes());
        assert_eq!(core[0x1fc..0x200], [1, 0, 0x20, 0x08]);
        assert_eq!(core[999], 0xcc);
        assert_eq!(core[1000], 0);
        assert_eq!(disk[SECTOR..1024], [0x11; SECTOR]);
    }

    #[test]
    fn a_core_that_does_not_fit_is_refused() {
        let mut disk = Cursor::new(vec![0; SECTOR * 8]);
        let error = loader(SECTOR * 5)
            .install(&mut disk, 2, 4)
            .unwrap_err()
            .to_string();
        assert!(error.contains("does not fit"), "{error}");
    }
}

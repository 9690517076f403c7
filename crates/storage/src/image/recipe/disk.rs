//! Turns a folder and a boot loader into a bootable disk: GPT with a BIOS boot partition, an EFI system partition and
//! an ext4 root. It never needs a loop device, a mount, or a kernel that knows these file systems.

use super::boot::Loader;
use super::command::run;
use anyhow::{Context, Result};
use host::process::Run;
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

const SECTORS_PER_MIB: u64 = 2048;

/// What the disk is made of.
pub(super) struct Disk<'a> {
    /// Size of the whole disk, in MiB.
    pub(super) size: u64,
    /// Size of the EFI system partition, in MiB.
    pub(super) esp: u64,
    /// What the root file system holds.
    pub(super) root: &'a Path,
    /// UUID of the root file system.
    pub(super) root_uuid: &'a str,
    /// Serial number of the EFI system partition's file system.
    pub(super) esp_serial: u32,
    /// How it boots.
    pub(super) loader: Loader,
}

impl Disk<'_> {
    /// Writes the disk as a qcow2 file at `out`. `work` is a folder for intermediate files, which are left there.
    pub(super) async fn write(
        self,
        work: &Path,
        out: &Path,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let raw = work.join("disk.raw");
        let file = std::fs::File::create(&raw)
            .with_context(|| format!("making the raw disk {}", raw.display()))?;
        file.set_len(self.size * 1024 * 1024)
            .context("sizing the raw disk")?;
        drop(file);
        // One MiB for the BIOS boot partition, and one left at the end for the second partition table.
        let esp = 2 * SECTORS_PER_MIB;
        let root = esp + self.esp * SECTORS_PER_MIB;
        let end = (self.size - 1) * SECTORS_PER_MIB;
        let table = Run::new("sgdisk")
            .args(["-a", "2048"])
            .arg(format!("--new=1:{SECTORS_PER_MIB}:{}", esp - 1))
            .args(["--typecode=1:ef02", "--change-name=1:bios"])
            .arg(format!("--new=2:{esp}:{}", root - 1))
            .args(["--typecode=2:ef00", "--change-name=2:esp"])
            .arg(format!("--new=3:{root}:{}", end - 1))
            .args(["--typecode=3:8304", "--change-name=3:root"])
            .arg(&raw);
        run("writing the partition table", table, cancel).await?;

        // The features that GRUB 2.06 cannot read are left out; the file is all zeros, so nothing need be cleared
        // now or later by the guest.
        let format = Run::new("mke2fs")
            .args([
                "-q",
                "-t",
                "ext4",
                "-L",
                "root",
                "-U",
                self.root_uuid,
                "-O",
                "^metadata_csum_seed,^orphan_file",
            ])
            .arg("-E")
            .arg(format!(
                "offset={},assume_storage_prezeroed=1,nodiscard",
                root * 512
            ))
            .arg("-d")
            .arg(self.root)
            .arg(&raw)
            .arg(format!("{}k", (end - root) / 2));
        run("writing the root file system", format, cancel).await?;
        self.write_esp(&raw, esp, work, cancel).await?;

        let loader = self.loader;
        let disk = raw.clone();
        tokio::task::spawn_blocking(move || {
            let mut file = std::fs::File::options()
                .read(true)
                .write(true)
                .open(&disk)?;
            loader.install(&mut file, SECTORS_PER_MIB, SECTORS_PER_MIB)
        })
        .await?
        .context("writing the boot loader")?;

        let convert = Run::new("qemu-img")
            .args(["convert", "-f", "raw", "-O", "qcow2"])
            .arg(&raw)
            .arg(out);
        run("converting the disk to qcow2", convert, cancel).await?;
        Ok(())
    }

    async fn write_esp(
        &self,
        raw: &Path,
        start: u64,
        work: &Path,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let device = format!("{}@@{}", raw.display(), start * 512);
        let mut format = Run::new("mformat").args([
            "-i",
            &device,
            "-v",
            "ESP",
            "-N",
            &format!("{:08x}", self.esp_serial),
        ]);
        format = format.args([
            "-T",
            &(self.esp * SECTORS_PER_MIB).to_string(),
            "-h",
            "64",
            "-s",
            "32",
        ]);
        // Below 33 MiB a FAT32 would have fewer clusters than firmware accepts.
        if self.esp >= 33 {
            format = format.arg("-F");
        }
        run(
            "formatting the EFI system partition",
            format.arg("::"),
            cancel,
        )
        .await?;
        let mut folders: Vec<&str> = Vec::new();
        for (path, content) in &self.loader.efi {
            for (at, _) in path.match_indices('/') {
                if !folders.contains(&&path[..at]) {
                    folders.push(&path[..at]);
                    run(
                        "making an EFI folder",
                        Run::new("mmd").args(["-i", &device, &format!("::/{}", &path[..at])]),
                        cancel,
                    )
                    .await?;
                }
            }
            let source: PathBuf = work.join("esp-file");
            std::fs::write(&source, content).context("writing a boot loader part")?;
            let copy = Run::new("mcopy")
                .args(["-i", &device])
                .arg(&source)
                .arg(format!("::/{path}"));
            run("copying a boot loader part", copy, cancel).await?;
        }
        Ok(())
    }
}

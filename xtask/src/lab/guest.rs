//! Boots the lab guest from an overlay, shows what its script says, and counts it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::image::Image;
use crate::sh;

/// What the guest's script said.
pub struct Report {
    pub passed: usize,
    pub failed: Vec<String>,
    pub console: PathBuf,
}

/// Ended whenever the run ends, also by an error.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the guest until it powers off. An end that the script did not announce is a failure.
pub fn run(image: &Image, payload: &Path, folder: &Path, limit: Duration) -> Result<Report> {
    let overlay = folder.join("disk.qcow2");
    let console = folder.join("console.log");
    let words = folder.join("words.log");
    for stale in [&overlay, &console, &words] {
        let _ = fs::remove_file(stale);
    }
    sh::output(
        Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
            .arg(&image.disk)
            .arg(&overlay),
    )?;
    let disk = |file: &Path, format: &str| {
        format!(
            "file={},format={format},if=virtio,cache=unsafe",
            file.display()
        )
    };
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args([
            "-name",
            "debvisor-lab",
            "-M",
            "q35",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "3072",
        ])
        // Software emulation everywhere: it offers the guest a virtualization extension that works, wherever we run.
        .args([
            "-accel",
            "tcg,thread=multi,tb-size=512",
            "-nodefaults",
            "-display",
            "none",
        ])
        .args(["-device", "virtio-rng-pci"])
        .arg("-kernel")
        .arg(&image.kernel)
        .arg("-initrd")
        .arg(&image.initrd)
        .args([
            "-append",
            "root=/dev/vda rw console=ttyS0 quiet systemd.show_status=no",
        ])
        .args([
            "-drive",
            &disk(&overlay, "qcow2"),
            "-drive",
            &disk(payload, "raw"),
        ])
        .args([
            "-serial",
            &format!("file:{}", console.display()),
            "-serial",
            &format!("file:{}", words.display()),
        ])
        .stdin(Stdio::null());
    let mut machine = Machine(command.spawn().context("cannot start the lab guest")?);
    let end = Instant::now() + limit;
    let mut shown = 0;
    loop {
        let gone = machine.0.try_wait()?.is_some();
        shown = show(&words, shown);
        if gone {
            break;
        }
        if Instant::now() > end {
            bail!(
                "the lab guest did not end within {} s; its console is {}",
                limit.as_secs(),
                console.display()
            );
        }
        thread::sleep(Duration::from_millis(200));
    }
    let text = fs::read_to_string(&words).unwrap_or_default();
    Ok(count(&text, console))
}

/// Prints what is new in whole lines, and answers how far that is.
fn show(words: &Path, from: usize) -> usize {
    let text = fs::read(words).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let end = text.rfind('\n').map_or(from, |at| at + 1);
    if end > from && text.is_char_boundary(from) {
        print!("{}", &text[from..end]);
    }
    end.max(from)
}

fn count(text: &str, console: PathBuf) -> Report {
    let lines = || text.lines().map(str::trim);
    let mut failed: Vec<_> = lines()
        .filter_map(|line| line.strip_prefix("LAB FAILED "))
        .map(str::to_owned)
        .collect();
    if !lines().any(|line| line == "LAB end") {
        failed.push("the script did not come to its end".to_owned());
    }
    let passed = lines().filter(|line| line.starts_with("LAB ok ")).count();
    Report {
        passed,
        failed,
        console,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_stops_early_has_failed() {
        let whole = count("LAB ok a 1s\r\nLAB ok b 2s\r\nLAB end\r\n", PathBuf::new());
        assert_eq!((whole.passed, whole.failed.len()), (2, 0));
        let cut = count("LAB ok a 1s\nLAB FAILED b: no\n", PathBuf::new());
        assert_eq!(cut.failed, ["b: no", "the script did not come to its end"]);
    }
}

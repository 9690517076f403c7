//! Starts QEMU by hand with the command line of a guest that DebVisor runs: what our own work is measured beside.
//!
//! Files that our QEMU got as open descriptors are opened again at the same numbers; its sockets and logs go to a folder of the benchmark.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::sh;

/// The command line of a running QEMU, to be started again elsewhere.
pub struct Line {
    words: Vec<String>,
    /// Descriptor, file, flags of open(2): the access mode and O_DIRECT.
    files: Vec<(u32, PathBuf, u32)>,
    run_dir: PathBuf,
}

impl Line {
    /// Taken from a process.
    pub fn of(pid: u32) -> Result<Line> {
        let bytes = fs::read(format!("/proc/{pid}/cmdline"))
            .with_context(|| format!("process {pid} is gone"))?;
        let words: Vec<_> = bytes
            .split(|&byte| byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        // Our QEMU is started standing still and told to go on over QMP; by hand it goes at once.
        let words: Vec<_> = words
            .into_iter()
            .filter(|word| !word.is_empty() && word != "-S")
            .collect();
        // QEMU has duplicated what it was handed and closed the numbers: found again by what they are.
        let held = disks_of(pid)?;
        let mut files = Vec::new();
        for word in words.iter().filter(|word| word.starts_with("fd=")) {
            let number = word[3..].split(',').next().unwrap_or_default().parse()?;
            let written = word.ends_with("-0");
            let (path, flags) = held
                .iter()
                .find(|(_, flags)| (flags & 3 != 0) == written)
                .with_context(|| format!("no open file for `{word}`"))?;
            files.push((number, path.clone(), *flags));
        }
        if let Some(word) = words
            .iter()
            .find(|word| word.contains("tapfd") || word.contains("\"tap\""))
        {
            bail!(
                "the guest to be started by hand has a network interface, whose tap cannot be opened twice: {word}"
            );
        }
        let socket = words
            .iter()
            .find_map(|word| word.strip_prefix("socket,id=qmp,path="))
            .context("no QMP socket in the command line")?;
        let socket = socket.split(',').next().unwrap_or_default();
        let run_dir = Path::new(socket)
            .parent()
            .context("a QMP socket without a folder")?
            .to_owned();
        Ok(Line {
            words,
            files,
            run_dir,
        })
    }

    /// Files the guest writes, which a guest by hand needs copies of.
    pub fn written(&self) -> impl Iterator<Item = &Path> {
        self.files
            .iter()
            .filter(|(_, _, flags)| flags & 3 != 0)
            .map(|(_, path, _)| path.as_path())
    }

    /// Makes one ready with its sockets in `folder`: its files are open and only [`Ready::go`] is left, so that our way of
    /// preparing it is on nobody's clock. `disk_of` names the copy of each file that is written; `paused` leaves its CPUs standing still.
    pub fn ready(
        &self,
        folder: &Path,
        name: &str,
        paused: bool,
        disk_of: impl Fn(&Path) -> PathBuf,
    ) -> Result<Ready> {
        // A shell cannot open with O_DIRECT, which QEMU wants to find on what it is handed; perl is on every Debian.
        // A session of its own, as ours have and as `-daemonize` gives: Linux shares the CPU out by session (sched(7), autogroup).
        const OPEN: &str = "for (1..shift) { my ($to, $flags, $path) = splice(@ARGV, 0, 3); my $fd = POSIX::open($path, $flags) // die \"$path: $!\"; POSIX::dup2($fd, $to); POSIX::close($fd) } POSIX::setsid(); POSIX::write(1, \"\\n\", 1); POSIX::read(0, my $go, 1); exec @ARGV";
        let mut opened = vec![self.files.len().to_string()];
        for (number, path, flags) in &self.files {
            let path = match flags & 3 {
                0 => path.clone(),
                _ => disk_of(path),
            };
            opened.extend([
                number.to_string(),
                flags.to_string(),
                path.display().to_string(),
            ]);
        }
        let from = self.run_dir.display().to_string();
        let to = folder.display().to_string();
        let words = self.words.iter().enumerate().map(|(at, word)| {
            let names = at > 0 && self.words[at - 1] == "-name";
            if names {
                format!("guest={name}")
            } else if word.starts_with("socket,id=serial") {
                // What our console writes down, QEMU itself does here.
                let log = folder.join("console.log");
                format!("{},logfile={}", word.replace(&from, &to), log.display())
            } else {
                word.replace(&from, &to)
            }
        });
        let mut child = Command::new("perl")
            .args(["-MPOSIX", "-e", OPEN])
            .args(opened)
            .args(words)
            .args(paused.then_some("-S"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(folder.join("qemu.log"))?)
            .spawn()
            .context("cannot start QEMU by hand")?;
        let stdin = child.stdin.take().context("a child without stdin")?;
        let mut stdout = child.stdout.take().context("a child without stdout")?;
        let guest = Guest(child);
        stdout
            .read_exact(&mut [0])
            .with_context(|| format!("QEMU by hand was not made ready: see {to}/qemu.log"))?;
        Ok(Ready { guest, stdin })
    }
}

/// A QEMU by hand that is one exec(2) away from starting.
pub struct Ready {
    guest: Guest,
    stdin: ChildStdin,
}

impl Ready {
    /// Starts it.
    pub fn go(mut self) -> Result<Guest> {
        self.stdin.write_all(b"\n")?;
        Ok(self.guest)
    }
}

/// The disks that a process has open, with the flags it holds them by: the one with `O_DIRECT` where there are several.
fn disks_of(pid: u32) -> Result<Vec<(PathBuf, u32)>> {
    let mut disks = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        let (Ok(path), Some(number)) = (
            fs::read_link(entry.path()),
            entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok()),
        ) else {
            continue;
        };
        if path.extension().is_some_and(|end| end == "qcow2") {
            disks.push((path, flags(pid, number)?));
        }
    }
    disks.sort_by_key(|(_, flags)| std::cmp::Reverse(*flags & !3));
    Ok(disks)
}

fn flags(pid: u32, number: u32) -> Result<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}"))?;
    let flags = text
        .lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .context("no flags of a descriptor")?;
    let flags = u32::from_str_radix(flags.trim(), 8)?;
    const DIRECT: u32 = 0o40000;
    Ok(flags & (3 | DIRECT))
}

/// A folder of the benchmark that goes with it.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Result<Folder> {
        let path = PathBuf::from(format!("/run/dv-bench-hand/{name}"));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A QEMU by hand that ends with its owner.
pub struct Guest(pub Child);

impl Drop for Guest {
    fn drop(&mut self) {
        sh::kill_tree(self.0.id());
        let _ = self.0.wait();
    }
}

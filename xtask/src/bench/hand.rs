//! Starts QEMU by hand with the command line of a guest that DebVisor runs: what our own work is measured beside.
//!
//! Files that our QEMU got as open descriptors are opened again by a shell at the same numbers; its sockets and logs go to a folder of the benchmark.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::sh;

/// The command line of a running QEMU, to be started again elsewhere.
pub struct Line {
    words: Vec<String>,
    /// Descriptor, file, whether it is only read.
    files: Vec<(u32, PathBuf, bool)>,
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
        let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let mut files = Vec::new();
        for word in &words {
            let Some(number) = word
                .strip_prefix("fd=")
                .and_then(|rest| rest.split(',').next()?.parse().ok())
            else {
                continue;
            };
            let path = fs::read_link(format!("/proc/{pid}/fd/{number}"))?;
            files.push((number, path, read_only(pid, number)?));
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
            .filter(|(_, _, read_only)| !read_only)
            .map(|(_, path, _)| path.as_path())
    }

    /// Starts it with its sockets in `folder`; `disk_of` names the copy of each file that is written.
    pub fn start(
        &self,
        folder: &Path,
        name: &str,
        disk_of: impl Fn(&Path) -> PathBuf,
    ) -> Result<Child> {
        self.start_with(folder, name, false, disk_of)
    }

    /// Likewise; `paused` leaves its CPUs standing still.
    pub fn start_with(
        &self,
        folder: &Path,
        name: &str,
        paused: bool,
        disk_of: impl Fn(&Path) -> PathBuf,
    ) -> Result<Child> {
        let mut script = String::from("exec \"$@\"");
        for (number, path, read_only) in &self.files {
            let (path, sign) = if *read_only {
                (path.clone(), "<")
            } else {
                (disk_of(path), "<>")
            };
            script.push_str(&format!(" {number}{sign}'{}'", path.display()));
        }
        let from = self.run_dir.display().to_string();
        let to = folder.display().to_string();
        let words = self.words.iter().enumerate().map(|(at, word)| {
            let names = at > 0 && self.words[at - 1] == "-name";
            if names {
                format!("guest={name}")
            } else {
                word.replace(&from, &to)
            }
        });
        Command::new("bash")
            .args(["-c", &script, "bash"])
            .args(words)
            .args(paused.then_some("-S"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("qemu.log"))?)
            .spawn()
            .context("cannot start QEMU by hand")
    }
}

fn read_only(pid: u32, number: u32) -> Result<bool> {
    let text = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}"))?;
    let flags = text
        .lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .context("no flags of a descriptor")?;
    let flags = u32::from_str_radix(flags.trim(), 8)?;
    Ok(flags & 3 == 0)
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

//! Starts other programs, says which one failed, and ends those that take too long with everything they started.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// The command line as a person would type it, for messages.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

/// Runs to the end with our own output; an exit other than 0 is an error that names the command.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs to the end and answers what it printed; an exit other than 0 is an error with its last words.
pub fn output(command: &mut Command) -> Result<String> {
    let answer = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !answer.status.success() {
        let words = String::from_utf8_lossy(&answer.stderr);
        let tail: Vec<_> = words.trim().lines().rev().take(6).collect();
        let tail: Vec<_> = tail.into_iter().rev().collect();
        bail!(
            "`{}` failed: {}: {}",
            shown(command),
            answer.status,
            tail.join(" / ")
        );
    }
    Ok(String::from_utf8_lossy(&answer.stdout).into_owned())
}

/// As [`run`], but ends the command and all its descendants when `limit` is over.
pub fn run_within(command: &mut Command, limit: Duration) -> Result<()> {
    let line = shown(command);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start `{line}`"))?;
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            if status.success() {
                return Ok(());
            }
            bail!("`{line}` failed: {status}");
        }
        if Instant::now() >= end {
            kill_tree(child.id());
            let _ = child.wait();
            bail!("`{line}` was ended after {} s", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Sends SIGKILL to a process and all its descendants. No process group is used, so that ^C on the terminal still reaches them all.
pub fn kill_tree(root: u32) {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for pid in pids() {
        if let Some(parent) = parent_of(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut doomed = vec![root];
    let mut at = 0;
    while at < doomed.len() {
        doomed.extend(children.get(&doomed[at]).into_iter().flatten());
        at += 1;
    }
    let _ = Command::new("kill")
        .arg("-KILL")
        .args(doomed.iter().map(u32::to_string))
        .stderr(Stdio::null())
        .status();
}

/// Every process id that is there now.
pub fn pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The process that started this one, as the kernel says.
pub fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses and may hold spaces: count from its last one.
    let rest = &stat[stat.rfind(')')? + 1..];
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// Where a program is found: in `PATH`, or in the `sbin` folders that an ordinary user's `PATH` lacks.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let known = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"];
    std::env::split_paths(&path)
        .chain(known.iter().map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Whether we are root (by the owner of our own `/proc` entry).
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// A command that runs as root: itself when we are root, else through `sudo`.
pub fn as_root(program: &str) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    if find("sudo").is_none() {
        bail!("`{program}` must run as root: be root, or install and allow sudo");
    }
    let mut command = Command::new("sudo");
    command.arg("--").arg(program);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_over_its_time_is_ended_with_its_children() {
        let mark = format!("{}", 100_000 + std::process::id());
        let mut command = Command::new("sh");
        command.args(["-c", &format!("sleep {mark} & wait")]);
        let error = run_within(&mut command, Duration::from_millis(300)).unwrap_err();
        assert!(error.to_string().contains("ended after"), "{error}");
        let alive = || {
            pids().into_iter().any(|pid| {
                fs::read_to_string(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| line.starts_with(&format!("sleep\0{mark}")))
            })
        };
        // A signal is sent, and the process gone a moment later.
        let end = Instant::now() + Duration::from_secs(10);
        while alive() {
            assert!(Instant::now() < end, "the grandchild outlived its deadline");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_failed_command_is_named() {
        let error = output(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        assert!(error.to_string().contains("why"), "{error}");
    }
}

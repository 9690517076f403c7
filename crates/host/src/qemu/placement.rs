//! Where a guest's processes live, so that the end of our own does not reach them: a systemd scope where systemd runs,
//! else a cgroup of their own where the version 2 hierarchy is mounted, else only their own session.

use crate::process::Run;
use nix::unistd::{AccessFlags, access};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How guests are kept apart from us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// A transient scope of systemd per guest.
    Scope,
    /// A directory per guest below this one of the cgroup 2 hierarchy.
    Cgroup(PathBuf),
    /// Only their own session.
    Session,
}

impl Placement {
    /// What this machine offers. `group` names our part of the hierarchy, such as `debvisor`.
    pub fn detect(group: &str) -> Self {
        if Path::new("/run/systemd/system").is_dir() {
            return Self::Scope;
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        match cgroup2_mount(&mounts) {
            Some(mount) if access(&mount, AccessFlags::W_OK).is_ok() => {
                Self::Cgroup(mount.join(group))
            }
            _ => Self::Session,
        }
    }

    /// The cgroup to start the guest in, made if needed.
    pub(super) fn cgroup(&self, name: &str) -> io::Result<Option<PathBuf>> {
        let Self::Cgroup(parent) = self else {
            return Ok(None);
        };
        let dir = parent.join(name);
        fs::create_dir_all(&dir)?;
        Ok(Some(dir))
    }

    /// Moves a started process into its scope. It is asked of the system bus, which knows the process as it is, so the
    /// process needs no rights of its own.
    pub(super) async fn adopt_into_scope(&self, name: &str, pids: &[u32]) -> Result<(), String> {
        if *self != Self::Scope {
            return Ok(());
        }
        let count = pids.len().to_string();
        let mut args: Vec<String> = [
            "call",
            "org.freedesktop.systemd1",
            "/org/freedesktop/systemd1",
            "org.freedesktop.systemd1.Manager",
            "StartTransientUnit",
            "ssa(sv)a(sa(sv))",
            &format!("{name}.scope"),
            "replace",
            "3",
            "PIDs",
            "au",
            &count,
        ]
        .map(str::to_owned)
        .to_vec();
        args.extend(pids.iter().map(u32::to_string));
        let rest = [
            "Delegate",
            "b",
            "true",
            "CollectMode",
            "s",
            "inactive-or-failed",
            "0",
        ];
        args.extend(rest.map(str::to_owned));
        let run = Run::new("busctl")
            .args(args)
            .timeout(Duration::from_secs(10));
        run.output()
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    }
}

/// Where the version 2 hierarchy is mounted, read from `mountinfo`.
fn cgroup2_mount(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        if after.split(' ').next()? != "cgroup2" {
            return None;
        }
        before.split(' ').nth(4).map(PathBuf::from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_2_hierarchy_is_found_wherever_it_is() {
        let text = "31 29 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                    41 29 0:37 / /sys/fs/cgroup/unified rw,nosuid shared:5 - cgroup2 cgroup2 rw\n";
        let found = cgroup2_mount(text);
        assert_eq!(found, Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(cgroup2_mount("junk\n1 2 - ext4"), None);
    }
}

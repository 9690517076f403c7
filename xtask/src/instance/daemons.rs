//! The two daemons of an instance: finding them, starting them detached, ending them.
//!
//! They are found by what the kernel says runs, not by a pid that a file remembers: a recycled pid is never taken for a daemon.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::Instance;
use crate::{sh, tree};

/// A role of `debvisord`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Api,
    Agent,
}

impl Role {
    pub const BOTH: [Role; 2] = [Role::Api, Role::Agent];

    pub fn name(self) -> &'static str {
        match self {
            Role::Api => "api",
            Role::Agent => "agent",
        }
    }
}

/// The uid of the api role when we are root: reserved for nobody in Debian's ranges, and the owner of nothing else.
const API_UID: u32 = 64997;
/// How long a daemon may take to stop by itself: what its unit allows, and a little.
const GRACE: Duration = Duration::from_secs(35);

/// How long a daemon may not be found among the processes before it counts as ended.
const BECOMING: Duration = Duration::from_secs(2);

/// Pids of a role's daemons of this instance: one, or none.
pub fn pids(instance: &Instance, role: Role) -> Vec<u32> {
    let config = instance.config();
    let wanted = |pid: &u32| {
        let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else {
            return false;
        };
        let words: Vec<_> = line
            .split(|&byte| byte == 0)
            .map(String::from_utf8_lossy)
            .collect();
        let follows = |flag: &str, value: &str| {
            words
                .windows(2)
                .any(|pair| pair[0] == flag && pair[1] == value)
        };
        // Also as a word of setsid, setpriv or sudo, which are about to become it or wait for it.
        words.iter().any(|word| {
            Path::new(word.as_ref())
                .file_name()
                .is_some_and(|name| name == "debvisord")
        }) && follows("--role", role.name())
            && follows("--config", &config.to_string_lossy())
    };
    sh::pids().into_iter().filter(wanted).collect()
}

/// Who the api role runs as, and so who owns the instance's state.
pub fn api_uid() -> Result<u32> {
    let owner = fs::metadata(tree::root())?.uid();
    Ok(if sh::is_root() && passable(&super::home()) {
        API_UID
    } else {
        owner
    })
}

/// Whether a user without rights can enter the folder.
fn passable(folder: &Path) -> bool {
    folder
        .ancestors()
        .all(|part| fs::metadata(part).is_ok_and(|meta| meta.mode() & 0o001 != 0))
}

/// Starts a role, detached from our terminal, with its words in its log.
pub fn start(instance: &Instance, role: Role, program: &Path) -> Result<()> {
    let log = instance.log(role.name());
    let mut words: Vec<String> = Vec::new();
    let uid = api_uid()?;
    // The agent is always root; the api is root's to start, as somebody else.
    let mut command = if role == Role::Agent {
        sh::as_root("sh")?
    } else {
        Command::new("sh")
    };
    if role == Role::Api && sh::is_root() && uid != 0 {
        let id = |flag: &str| format!("--{flag}={uid}");
        words.extend([
            "setpriv".into(),
            id("reuid"),
            id("regid"),
            "--clear-groups".into(),
            "--no-new-privs".into(),
        ]);
    }
    words.push(program.display().to_string());
    words.extend(
        [
            "--role",
            role.name(),
            "--instance",
            &instance.name,
            "--config",
        ]
        .map(str::to_owned),
    );
    words.push(instance.config().display().to_string());
    command
        .args([
            "-c",
            r#"log=$1; shift; setsid "$@" </dev/null >>"$log" 2>&1 &"#,
            "start",
        ])
        .arg(&log)
        .args(&words)
        .current_dir("/");
    sh::run(&mut command).with_context(|| {
        format!(
            "cannot start the {} of instance `{}`",
            role.name(),
            instance.name
        )
    })
}

/// Asks a role to stop, and ends it when it does not. True when one was there.
pub fn stop(instance: &Instance, role: Role) -> Result<bool> {
    let found = pids(instance, role);
    if found.is_empty() {
        return Ok(false);
    }
    signal("-TERM", &found)?;
    let end = Instant::now() + GRACE;
    while !pids(instance, role).is_empty() {
        if Instant::now() > end {
            eprintln!(
                "the {} did not stop within {} s: killing it",
                role.name(),
                GRACE.as_secs()
            );
            signal("-KILL", &pids(instance, role))?;
            thread::sleep(Duration::from_millis(200));
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(true)
}

/// Sends a signal as root, because the agent and guests are not ours.
pub fn signal(which: &str, pids: &[u32]) -> Result<()> {
    if pids.is_empty() {
        return Ok(());
    }
    let mut command = sh::as_root("kill")?;
    command.arg(which).args(pids.iter().map(u32::to_string));
    // One that is gone already is what we want.
    let _ = sh::output(&mut command);
    Ok(())
}

/// Waits until `/health/ready` on the instance's socket says so; an end of a daemon before that is an error with its last words.
pub fn wait_ready(instance: &Instance, limit: Duration) -> Result<()> {
    let end = Instant::now() + limit;
    let mut seen = Role::BOTH.map(|role| (role, Instant::now()));
    loop {
        let last = match super::http::ready(&instance.api_socket()) {
            Ok(true) => return Ok(()),
            Ok(false) => match super::http::complaints(&instance.api_socket()) {
                Ok(why) => format!("it answers that it is not ready: {why}"),
                Err(error) => format!("it answers that it is not ready: {error:#}"),
            },
            Err(error) => format!("{error:#}"),
        };
        for (role, seen) in &mut seen {
            let role = *role;
            if !pids(instance, role).is_empty() {
                *seen = Instant::now();
                continue;
            }
            // Just started, it may still be the shell that becomes it.
            if seen.elapsed() > BECOMING {
                bail!(
                    "the {} ended at once:\n{}",
                    role.name(),
                    last_words(instance, role)
                );
            }
        }
        if Instant::now() > end {
            bail!(
                "instance `{}` is not ready after {} s ({last}); its logs are {}",
                instance.name,
                limit.as_secs(),
                instance.dir().join("log").display()
            );
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn last_words(instance: &Instance, role: Role) -> String {
    let text = fs::read(instance.log(role.name())).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().rev().take(15).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

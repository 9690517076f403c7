//! dns-01 by a program of the administrator's: it makes and takes away TXT records where nothing else here can.
//!
//! **Invariants.** Which program it is stands in the configuration file, which root alone writes: nobody chooses it through
//! the API. It is started without a shell; what it works on comes by standard input, never as an argument. One that
//! somebody else than root could have changed is not started.

use super::dns01::{Record, TTL};
use super::types::Dns;
use host::process::Run;
use model::{Error, Result};
use runtime::Cx;
use serde_json::json;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time that it has.
const PATIENCE: Duration = Duration::from_secs(120);
/// Most that is read of what it says.
const LONGEST: usize = 64 * 1024;

/// The program, as the configuration names it. A part of the process.
#[derive(Clone, Debug, Default)]
pub struct Hook(pub Option<PathBuf>);

/// What it is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Make,
    Remove,
}

impl Wish {
    fn word(self) -> &'static str {
        match self {
            Wish::Make => "make",
            Wish::Remove => "remove",
        }
    }
}

/// Has the program make or take away records.
pub(super) async fn run(cx: &Cx, dns: &Dns, wish: Wish, records: &[Record]) -> Result<()> {
    let hook = cx.try_part::<Hook>().and_then(|hook| hook.0.clone());
    let Some(program) = hook else {
        return Err(
            Error::refused("no program for TXT records is named on this node").hint(
                "name one in the configuration file, as root: `[acme] dns_hook = \"/usr/local/sbin/make-txt\"`",
            ),
        );
    };
    let looked = program.clone();
    crate::ca::kind::off(move || whose(&looked)).await?;
    let asked = json!({
        "wish": wish.word(),
        "zone": dns.zone,
        "records": records.iter().map(|r| json!({ "name": r.name, "type": "TXT", "value": r.value, "ttl": TTL })).collect::<Vec<_>>(),
        "secret": dns.secret,
    });
    let said = Run::new(&program)
        .arg(wish.word())
        .stdin_bytes(format!("{asked}\n"))
        .timeout(PATIENCE)
        .max_output(LONGEST)
        .output()
        .await;
    match said {
        Ok(_) => Ok(()),
        Err(error) => {
            let mut text = error.to_string();
            // It may repeat what it was given.
            if let Some(secret) = dns.secret.as_deref().filter(|s| !s.is_empty()) {
                text = text.replace(secret, "***");
            }
            Err(Error::unavailable(format!(
                "the program for TXT records did not {} them: {text}",
                wish.word()
            )))
        }
    }
}

/// Refuses a program that somebody else than root could have put there or changed.
fn whose(program: &Path) -> Result<()> {
    let refused = |why: String| {
        Err(Error::refused(format!(
            "the program for TXT records, {}, is not started: {why}",
            program.display()
        ))
        .hint("it must be a file of root's, in folders of root's, that nobody else may write"))
    };
    if !program.is_absolute() {
        return refused("its path does not begin with `/`".into());
    }
    // Where links lead to: all of that must be root's.
    let real = match std::fs::canonicalize(program) {
        Ok(real) => real,
        Err(error) => return refused(error.to_string()),
    };
    for part in real.ancestors() {
        let found = match std::fs::metadata(part) {
            Ok(found) => found,
            Err(error) => return refused(format!("{}: {error}", part.display())),
        };
        // In a folder such as /tmp others may write, but not take the place of what is root's.
        let sticky = found.is_dir() && found.mode() & 0o1000 != 0;
        if found.uid() != 0 || (found.mode() & 0o022 != 0 && !sticky) {
            return refused(format!("others than root may change {}", part.display()));
        }
        if part == real && (!found.is_file() || found.mode() & 0o111 == 0) {
            return refused("it is no program".into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown};

    #[test]
    fn only_what_root_alone_can_change_is_started() {
        if !nix_is_root() {
            eprintln!("SKIPPED: who a file belongs to can be changed by root alone");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("hook");
        std::fs::write(&program, "#!/bin/sh\n").unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(&program, 0o755);
        whose(&program).unwrap();
        let says = |path: &Path, wanted: &str| {
            let error = whose(path).unwrap_err();
            assert!(error.message.contains(wanted), "{error}");
        };
        says(Path::new("hook"), "does not begin with");
        says(&folder.path().join("none"), "No such file");
        says(folder.path(), "is no program");
        for bad in [0o775, 0o757] {
            mode(&program, bad);
            says(&program, "others than root");
        }
        mode(&program, 0o644);
        says(&program, "is no program");
        mode(&program, 0o755);
        chown(&program, Some(65534), None).unwrap();
        says(&program, "others than root");
        chown(&program, Some(0), None).unwrap();
        // A link is as good as what it leads to.
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&program, &link).unwrap();
        whose(&link).unwrap();
        mode(folder.path(), 0o777);
        says(&link, "others than root");
    }

    fn nix_is_root() -> bool {
        std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
    }
}

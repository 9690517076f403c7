//! People log in with the real program to the real server: the first administrator, his second factor, tokens that are
//! renewed by themselves, and the end of it.

use crate::house::House;
use identity::factor::totp;
use runtime::Authority;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

/// A machine of somebody far from the server.
pub(crate) struct Far {
    pub house: House,
    pub home: tempfile::TempDir,
}

pub(crate) struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Far {
    pub async fn open() -> Far {
        Far {
            house: House::open().await,
            home: tempfile::tempdir().unwrap(),
        }
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.house.https)
    }

    fn file(&self) -> std::path::PathBuf {
        self.home.path().join(".config/debvisor/logins/lab.json")
    }

    fn saved(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.file()).unwrap()).unwrap()
    }

    /// Runs it; `lines` go to its standard input, and what it prints on its first line may add one more.
    fn run(&self, words: &[&str], lines: &[&str], more: impl Fn(&str) -> Option<String>) -> Ended {
        let mut child = Command::new(env!("CARGO_BIN_EXE_dvctl"))
            .args(words)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        tokio::task::block_in_place(|| {
            let mut stdin = child.stdin.take().unwrap();
            for line in lines {
                // It may have ended without reading them.
                _ = writeln!(stdin, "{line}");
            }
            let mut out = BufReader::new(child.stdout.take().unwrap());
            let mut said = String::new();
            out.read_line(&mut said).unwrap();
            if let Some(line) = more(&said) {
                writeln!(stdin, "{line}").unwrap();
            }
            drop(stdin);
            out.read_to_string(&mut said).unwrap();
            let ended = child.wait_with_output().unwrap();
            Ended {
                code: ended.status.code().unwrap_or(-1),
                out: said,
                err: String::from_utf8_lossy(&ended.stderr).into_owned(),
            }
        })
    }

    pub fn plain(&self, words: &[&str]) -> Ended {
        self.run(words, &[], |_| None)
    }

    fn login(&self, more: &[&str], lines: &[&str]) -> Ended {
        let (url, print) = (self.url(), self.house.ca.ca().fingerprint);
        let mut words = vec!["login", &url, "--name", "lab", "--fingerprint", &print];
        words.extend(more);
        self.run(&words, lines, |said| app(said, 0))
    }
}

impl Ended {
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert_eq!(self.code, 0, "{} {}", self.out, self.err);
        &self.out
    }
}

fn key(uri: &str) -> Option<Vec<u8>> {
    let secret = uri.trim().split("secret=").nth(1)?.split('&').next()?;
    let bits: String = secret
        .chars()
        .map(|c| {
            let at = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".find(c).unwrap();
            format!("{at:05b}")
        })
        .collect();
    let bytes = bits.as_bytes().chunks_exact(8);
    Some(
        bytes
            .map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap())
            .collect(),
    )
}

/// What an app shows for what it has read.
fn app(uri: &str, later: u64) -> Option<String> {
    let key = key(uri)?;
    let now = runtime::Clock::now(&runtime::SystemClock).millis();
    Some(totp::code(&key, totp::step(now) + later))
}

const PASSWORD: &str = "correct horse battery";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_administrator_and_those_whom_he_makes() {
    let far = Far::open().await;
    let code = far
        .house
        .ca
        .make_code(&far.house.ca.account())
        .unwrap()
        .code;
    let first = far.login(
        &["--code", &code, "--user", "anna", "--password-stdin"],
        &[PASSWORD],
    );
    let out = first.ok();
    assert!(
        out.contains("otpauth://totp/") && out.contains("logged in to"),
        "{out}"
    );
    let codes: Vec<&str> = out
        .lines()
        .filter(|l| l.len() == 11 && l.contains('-'))
        .collect();
    assert_eq!(codes.len(), 10, "{out}");
    let mode = std::fs::metadata(far.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!far.saved().to_string().contains(PASSWORD));
    assert!(far.plain(&["whoami"]).ok().contains("anna"));
    // He makes somebody, and gives him a code.
    far.plain(&[
        "user",
        "create",
        "bob",
        "--full-name",
        "Bob",
        "--email",
        "bob@example.org",
    ])
    .ok();
    let code = far.plain(&["user", "reset", "bob"]).ok().trim().to_owned();
    assert_eq!(code.len(), 34, "{code}");
    far.plain(&["logout"]).ok();
    assert!(!far.file().exists());
    let bob = far.login(
        &["--code", &code, "--password-stdin"],
        &["another password"],
    );
    assert!(bob.ok().contains("as bob"), "{}", bob.out);
    assert!(bob.err.contains("dvctl totp"), "{}", bob.err);
    // The code is dead; without a grant he may nothing.
    let again = far.login(
        &["--code", &code, "--password-stdin"],
        &["another password"],
    );
    assert_eq!(again.code, 5, "{}", again.err);
    assert_eq!(far.plain(&["user", "list"]).code, 5);
    far.run(
        &["passwd", "--password-stdin"],
        &["another password", "a third password"],
        |_| None,
    )
    .ok();
    let wrong = far.login(
        &["--user", "bob", "--password-stdin"],
        &["another password"],
    );
    assert_eq!(wrong.code, 5, "{}", wrong.err);
    // Anna needs what she has enrolled: a code on paper stands in for the app.
    let anna = far.login(
        &["--user", "anna", "--password-stdin"],
        &[PASSWORD, codes[0]],
    );
    assert!(anna.ok().contains("as anna"));
    let used = far.login(
        &["--user", "anna", "--password-stdin"],
        &[PASSWORD, codes[0]],
    );
    assert_eq!(used.code, 5, "{}", used.err);
    far.plain(&["user", "disable", "bob", "--yes"]).ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_renewed_by_themselves_by_one_of_many() {
    let far = Far::open().await;
    let code = far
        .house
        .ca
        .make_code(&far.house.ca.account())
        .unwrap()
        .code;
    far.login(
        &["--code", &code, "--user", "anna", "--password-stdin"],
        &[PASSWORD],
    )
    .ok();
    let before = far.saved();
    // As if an hour had passed.
    let mut old = before.clone();
    old["tokens"]["access_expires"] = "2020-01-01T00:00:00Z".into();
    std::fs::write(far.file(), old.to_string()).unwrap();
    std::thread::scope(|threads| {
        let far = &far;
        let runs: Vec<_> = (0..4)
            .map(|_| {
                threads.spawn(|| {
                    let said = Command::new(env!("CARGO_BIN_EXE_dvctl"))
                        .arg("whoami")
                        .env_clear()
                        .env("HOME", far.home.path())
                        .output()
                        .unwrap();
                    assert!(said.status.success(), "{said:?}");
                })
            })
            .collect();
        tokio::task::block_in_place(|| runs.into_iter().for_each(|run| run.join().unwrap()));
    });
    let after = far.saved();
    assert_ne!(before["tokens"]["refresh"], after["tokens"]["refresh"]);
    // Somebody who copied the file before uses his copy: nobody is in any more.
    std::fs::write(far.file(), old.to_string()).unwrap();
    let copied = far.plain(&["whoami"]);
    assert_eq!(copied.code, 5, "{}", copied.err);
    std::fs::write(far.file(), after.to_string()).unwrap();
    let owner = far.plain(&["whoami"]);
    assert_eq!(owner.code, 5, "{}", owner.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_gets_a_certificate_for_a_code_as_ever() {
    let far = Far::open().await;
    let code = far
        .house
        .ca
        .make_code(&far.house.ca.account())
        .unwrap()
        .code;
    assert!(
        far.login(&["--code", &code], &[])
            .ok()
            .contains("as administrator")
    );
    assert!(far.saved().get("tokens").is_none());
    assert!(far.plain(&["whoami"]).ok().contains("administrator"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_that_the_pinned_one_vouches_for_takes_its_place_and_no_other() {
    let far = Far::open().await;
    let code = far
        .house
        .ca
        .make_code(&far.house.ca.account())
        .unwrap()
        .code;
    far.login(&["--code", &code], &[]).ok();
    let before = far.saved();
    // In the year 2096.
    let until = model::Timestamp::from_millis(4_000_000_000_000);
    far.house.ca.prepare("test").unwrap();
    far.house.ca.switch("test", until).unwrap();
    // The login goes on and its owner is told, once.
    let told = far.plain(&["whoami"]);
    assert!(told.ok().contains("administrator"));
    assert!(
        told.err.contains("which is pinned now") && told.err.contains("log in again"),
        "{}",
        told.err
    );
    assert_eq!(far.saved()["ca"], far.house.ca.ca().pem);
    let again = far.plain(&["whoami"]);
    assert!(
        again.ok().contains("administrator") && again.err.is_empty(),
        "{}",
        again.err
    );
    // Retired, it takes its certificates along.
    far.house.ca.retire(false).unwrap();
    assert_ne!(far.plain(&["whoami"]).code, 0);
    // Who was away all the time finds nobody who vouches.
    std::fs::write(far.file(), before.to_string()).unwrap();
    let away = far.plain(&["whoami"]);
    assert!(
        away.code != 0 && away.err.contains("pinned CA"),
        "{}",
        away.err
    );
    assert_eq!(far.saved()["ca"], before["ca"]);
}

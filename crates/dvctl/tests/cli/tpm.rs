//! Two hosts with a TPM each, the real program and the real server: a credential that is bound to the TPM of host A is
//! refused from host B, in whatever way it got there.

use crate::Said;
use crate::house::House;
use runtime::Authority;
use serde_json::{Value, json};
use software::{Machine, Maker, is_there};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

#[path = "../../../tpm/src/software.rs"]
mod software;

/// A host: somebody's home on it, and its TPM.
struct Host {
    home: TempDir,
    machine: Machine,
}

impl Host {
    fn run(&self, line: &str, input: &str) -> Said {
        let mut child = Command::new(env!("CARGO_BIN_EXE_dvctl"))
            .args(line.split_whitespace())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        tokio::task::block_in_place(|| {
            // It may have ended without reading them.
            _ = child.stdin.take().unwrap().write_all(input.as_bytes());
            Said::of(child.wait_with_output().unwrap())
        })
    }

    /// Logs in as the administrator, as whoever sets a host up does.
    fn set_up(&self, house: &House) {
        let code = house.ca.make_code(&house.ca.account()).unwrap().code;
        let print = house.ca.ca().fingerprint;
        let line = format!(
            "login https://{} --name lab --code {code} --certificate --fingerprint {print}",
            house.https
        );
        self.run(&line, "").ok();
    }

    fn enrol(&self, more: &str, input: &str) -> Said {
        let device = self.machine.socket.display();
        let line = format!("--cluster lab tpm enrol {more} --device {device}");
        self.run(&line, input)
    }

    fn file(&self, login: &str) -> PathBuf {
        let folder = self.home.path().join(".config/debvisor/logins");
        folder.join(format!("{login}.json"))
    }

    fn saved(&self, login: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.file(login)).unwrap()).unwrap()
    }
}

fn hosts(folder: &Path) -> (Host, Host, String) {
    let maker = Maker::new(folder);
    let host = |name: &str| Host {
        home: tempfile::tempdir().unwrap(),
        machine: maker.machine(name),
    };
    let (a, b) = (host("a"), host("b"));
    (a, b, maker.roots())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_bound_to_the_tpm_of_host_a_is_refused_from_host_b() {
    if !is_there() {
        return;
    }
    let house = House::open().await;
    let folder = tempfile::tempdir().unwrap();
    let (a, b, makers) = hosts(folder.path());
    for (path, body) in [
        (
            "users",
            json!({ "metadata": { "name": "anna" }, "spec": {} }),
        ),
        (
            "grants",
            json!({ "metadata": { "name": "anna" }, "spec": { "user": "anna", "role": "admin" } }),
        ),
        (
            "machines",
            json!({ "metadata": { "name": "a" }, "spec": { "makers": makers } }),
        ),
        (
            "machines",
            json!({ "metadata": { "name": "b" }, "spec": { "makers": makers } }),
        ),
        (
            "api-keys",
            json!({ "metadata": { "name": "build" }, "spec": { "owner": "anna", "machine": "a" } }),
        ),
    ] {
        let (status, made) = house.post(&format!("/api/v1/{path}"), body).await;
        assert_eq!(status, 201, "{made}");
    }
    a.set_up(&house);
    b.set_up(&house);
    let said = a.enrol("a", "");
    assert!(
        said.ok().contains("machine a has proven itself"),
        "{said:?}"
    );
    b.enrol("b", "").ok();
    // Without a key it proves the machine and is nobody.
    let nobody = a.run("--cluster a whoami", "");
    assert!(
        nobody.code != 0 && nobody.err.contains("no login"),
        "{nobody:?}"
    );

    let secret = a.run("--cluster lab api-key secret build", "");
    let secret = secret.ok().to_owned();
    a.enrol("a --api-key-stdin", &secret).ok();
    let said = a.run("--cluster a whoami", "");
    assert!(said.ok().contains("key:build"), "{said:?}");
    // It proves itself again with what it has.
    let before = a.saved("a");
    a.run("--cluster a tpm enrol", "").ok();
    let after = a.saved("a");
    assert_eq!(
        (&before["tpm"], &before["api_key"]),
        (&after["tpm"], &after["api_key"])
    );
    assert_ne!(before["certificate"], after["certificate"]);

    // From B, which is a machine of the cluster, too.
    b.enrol("b --api-key-stdin", &secret).ok();
    let copied = b.run("--cluster b whoami", "");
    assert_eq!(copied.code, 5, "{copied:?}");
    // From B with all that A has saved: its TPM does not take the key of another one.
    let mut stolen = a.saved("a");
    stolen["name"] = "stolen".into();
    stolen["tpm"]["device"] = b.machine.socket.to_str().unwrap().into();
    std::fs::write(b.file("stolen"), stolen.to_string()).unwrap();
    let stolen = b.run("--cluster stolen whoami", "");
    assert!(
        stolen.code != 0 && stolen.err.contains("the TPM refuses"),
        "{stolen:?}"
    );
    assert!(stolen.err.contains("on that machine only"), "{stolen:?}");
    // The key alone, without a certificate and with the administrator's.
    for client in [&house.stranger(), &house.client] {
        let request = client.get(house.url("/api/v1/whoami"));
        let answer = request.bearer_auth(secret.trim()).send().await.unwrap();
        assert_eq!(answer.status(), 401);
    }
    let noted = async {
        loop {
            let rows = house.trail.last(1000).await;
            let why = Some("ON_ANOTHER_MACHINE");
            if rows
                .iter()
                .any(|row| row.actor == "key:build" && row.result.as_deref() == why)
            {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let limit = std::time::Duration::from_secs(20);
    tokio::time::timeout(limit, noted).await.unwrap();
    // B cannot take the place of A, and what has booted something else is told what to do.
    let swapped = b.enrol("a --name taken", "");
    assert!(swapped.err.contains("has another TPM"), "{swapped:?}");
    a.machine.extend(7);
    let changed = a.run("--cluster a tpm enrol", "");
    assert!(
        changed.err.contains("dvctl machine remeasure a"),
        "{changed:?}"
    );
    a.run("--cluster a whoami", "").ok();
    a.run("--cluster lab machine revoke a --reason stolen --yes", "")
        .ok();
    assert_eq!(a.run("--cluster a whoami", "").code, 5);
    // Deleting what a key is bound to is refused; nothing is left that a key of the same name could be bound to.
    let held = a.run("--cluster lab machine delete a --yes", "");
    assert_eq!(held.code, 3, "{held:?}");
}

//! TPMs in software for tests: each a real one with state of its own, made by `swtpm_setup` with certificates of a maker of
//! ours. Included by the tests of other crates too.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_types,
    dead_code,
    reason = "tests start swtpm, and not each test uses all of this"
)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Somebody who makes TPMs: a CA that signs endorsement certificates.
pub struct Maker(PathBuf);

/// A machine with a TPM of its own.
pub struct Machine {
    swtpm: Child,
    /// Where its TPM listens.
    pub socket: PathBuf,
}

/// Whether the programs are there; says so loudly when they are not.
pub fn is_there() -> bool {
    let found = |name: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
    };
    let there = ["swtpm", "swtpm_setup", "swtpm_localca"]
        .into_iter()
        .all(found);
    if !there {
        eprintln!("SKIPPED: swtpm and swtpm-tools are not installed");
    }
    there
}

impl Maker {
    /// A new one, in a folder of its own.
    pub fn new(folder: &Path) -> Maker {
        fs::create_dir_all(folder).unwrap();
        let path = |name: &str| folder.join(name).display().to_string();
        let conf = format!(
            "statedir = {}\nsigningkey = {}\nissuercert = {}\ncertserial = {}\n",
            folder.display(),
            path("signkey.pem"),
            path("issuercert.pem"),
            path("certserial")
        );
        fs::write(folder.join("localca.conf"), conf).unwrap();
        fs::write(folder.join("localca.options"), "").unwrap();
        let setup = format!(
            "create_certs_tool = swtpm_localca\ncreate_certs_tool_config = {}\ncreate_certs_tool_options = {}\nactive_pcr_banks = sha256\n",
            path("localca.conf"),
            path("localca.options")
        );
        fs::write(folder.join("setup.conf"), setup).unwrap();
        Maker(folder.to_owned())
    }

    /// Its CA certificates, PEM: what an administrator trusts. There once it has made a TPM.
    pub fn roots(&self) -> String {
        ["swtpm-localca-rootca-cert.pem", "issuercert.pem"]
            .map(|name| fs::read_to_string(self.0.join(name)).unwrap())
            .concat()
    }

    /// A machine with a TPM of its making.
    pub fn machine(&self, name: &str) -> Machine {
        let state = self.0.join(name);
        fs::create_dir(&state).unwrap();
        let made = Command::new("swtpm_setup")
            .args(["--tpm2", "--create-ek-cert", "--overwrite", "--tpmstate"])
            .arg(&state)
            .arg("--config")
            .arg(self.0.join("setup.conf"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&made.stdout).into_owned();
        assert!(made.status.success(), "{said}");
        let socket = state.join("tpm.sock");
        let mut swtpm = Command::new("swtpm");
        swtpm.args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"]);
        swtpm
            .arg("--tpmstate")
            .arg(format!("dir={}", state.display()));
        swtpm.arg("--server");
        swtpm.arg(format!("type=unixio,path={}", socket.display()));
        let swtpm = swtpm.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let swtpm = swtpm.unwrap();
        let begun = Instant::now();
        while !socket.exists() {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "swtpm does not start"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Machine { swtpm, socket }
    }
}

impl Machine {
    /// Puts something into a register, as booting another thing does.
    pub fn extend(&self, register: u8) {
        let mut command = vec![0x80, 0x02, 0, 0, 0, 65, 0, 0, 0x01, 0x82, 0, 0, 0, register];
        // The empty password; one SHA-256 digest.
        command.extend([0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0]);
        command.extend([0, 0, 0, 1, 0, 0x0b]);
        command.extend([0x11; 32]);
        let mut wire = UnixStream::connect(&self.socket).unwrap();
        wire.write_all(&command).unwrap();
        let mut answer = [0; 10];
        wire.read_exact(&mut answer).unwrap();
        assert_eq!(answer[6..], [0; 4], "the TPM refuses");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        _ = self.swtpm.kill();
        _ = self.swtpm.wait();
    }
}

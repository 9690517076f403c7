//! A real Active Directory for tests: Samba's domain controller, only its LDAP, in a folder and on an address of its own.

#![allow(
    clippy::disallowed_types,
    reason = "a server that is killed in the middle"
)]

use super::slapd::{certificates, there, wait_for};
use std::process::{Child, Command, Stdio};

pub(super) const BASE: &str = "DC=ad,DC=test";

/// The controller.
pub(super) struct Samba {
    child: Option<Child>,
    folder: tempfile::TempDir,
    address: String,
    pub ca: String,
}

impl Drop for Samba {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

impl Samba {
    /// Makes a domain and starts it. It must have the ports 389 and 636, so it has an address of the loopback network.
    pub(super) fn start() -> Option<Samba> {
        if !there("/usr/sbin/samba") || !there("/usr/bin/samba-tool") {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let pid = std::process::id();
        let address = format!("127.{}.{}.77", 64 + (pid >> 8) % 64, pid & 0xff);
        let ca = certificates(folder.path(), &address);
        let mut samba = Samba {
            child: None,
            folder,
            address,
            ca,
        };
        samba.tool(&[
            "domain",
            "provision",
            "--realm=AD.TEST",
            "--domain=ADT",
            "--adminpass=Admin.password.1",
            "--server-role=dc",
            "--dns-backend=NONE",
            "--host-ip=127.0.0.1",
            &format!("--targetdir={}", samba.folder.path().join("ad").display()),
        ]);
        samba.child = Some(samba.run());
        wait_for(&format!("{}:636", samba.address));
        Some(samba)
    }

    fn run(&self) -> Child {
        let here = self.folder.path().display();
        let mut command = Command::new("/usr/sbin/samba");
        command.args(["-F", "-M", "single", "--debug-stdout"]);
        command.arg(format!("--configfile={here}/ad/etc/smb.conf"));
        for option in [
            "server services=ldap".to_owned(),
            format!("interfaces={}/8", self.address),
            "bind interfaces only=yes".to_owned(),
            "server role check:inhibit=yes".to_owned(),
            format!("tls certfile={here}/cert.pem"),
            format!("tls keyfile={here}/key.pem"),
            format!("tls cafile={here}/ca.pem"),
        ] {
            command.arg(format!("--option={option}"));
        }
        let child = command.stdout(Stdio::null()).stderr(Stdio::null());
        child.spawn().unwrap()
    }

    fn tool(&self, words: &[&str]) {
        let done = Command::new("/usr/bin/samba-tool")
            .args(words)
            .env("HOME", self.folder.path())
            .output()
            .unwrap();
        assert!(
            done.status.success(),
            "{words:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    }

    /// Changes the domain, as its administrator.
    pub(super) fn change(&self, words: &[&str]) {
        let ad = self.folder.path().join("ad");
        let config = format!("--configfile={}", ad.join("etc/smb.conf").display());
        let base = ad.join("private/sam.ldb").display().to_string();
        self.tool(&[words, &["-H", &base, &config]].concat());
    }

    pub(super) fn ldaps(&self) -> String {
        format!("ldaps://{}", self.address)
    }
}

//! A real slapd for tests: in a folder of its own, with its own configuration and a certificate made for it, never as the
//! package sets it up.

#![allow(
    clippy::disallowed_types,
    reason = "a server that is killed in the middle"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(super) const BASE: &str = "dc=example,dc=org";
pub(super) const SEARCHER: &str = "cn=searcher,dc=example,dc=org";
pub(super) const SEARCHER_PASSWORD: &str = "finds-people-7";
const ROOT: &str = "cn=root,dc=example,dc=org";

/// An authority and a certificate for this machine's own address: `ca.pem`, `cert.pem`, `key.pem`. Answers the first.
pub(super) fn certificates(folder: &Path, address: &str) -> String {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.distinguished_name
        .push(rcgen::DnType::CommonName, format!("test {address}"));
    ca.key_usages = vec![
        rcgen::KeyUsagePurpose::KeyCertSign,
        rcgen::KeyUsagePurpose::CrlSign,
    ];
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::from_params(&ca, &ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![address.to_owned()]).unwrap();
    params.use_authority_key_identifier_extension = true;
    let cert = params.signed_by(&key, &issuer).unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    write("ca.pem", &ca_cert.pem());
    write("cert.pem", &cert.pem());
    write("key.pem", &key.serialize_pem());
    ca_cert.pem()
}

/// Whether a program is there that a test needs.
pub(super) fn there(program: &str) -> bool {
    let found = Path::new(program).exists();
    if !found {
        eprintln!("SKIPPED: no {program}: `cargo xtask packages`");
    }
    found
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The server.
pub(super) struct Slapd {
    child: Option<Child>,
    folder: tempfile::TempDir,
    ldaps: u16,
    ldap: u16,
    pub ca: String,
}

impl Drop for Slapd {
    fn drop(&mut self) {
        self.kill();
    }
}

const PEOPLE: &str = "\
dn: dc=example,dc=org
objectClass: dcObject
objectClass: organization
o: Example
dc: example

dn: ou=people,dc=example,dc=org
objectClass: organizationalUnit
ou: people

dn: ou=groups,dc=example,dc=org
objectClass: organizationalUnit
ou: groups

dn: cn=searcher,dc=example,dc=org
objectClass: person
cn: searcher
sn: searcher
userPassword: finds-people-7

dn: uid=anna,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: anna
cn: Anna Huber
sn: Huber
mail: anna@example.org
userPassword: anna's password 1

dn: uid=bert,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: bert
cn: Bert Moser
sn: Moser
userPassword: bert's password 1

dn: uid=twin,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: twin
cn: Twin One
sn: One
userPassword: twin's password 1

dn: cn=twin,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: twin
cn: twin
sn: Two
userPassword: twin's password 1

dn: cn=night shift,ou=groups,dc=example,dc=org
objectClass: groupOfNames
cn: night shift
member: uid=anna,ou=people,dc=example,dc=org

dn: cn=shifts,ou=groups,dc=example,dc=org
objectClass: groupOfNames
cn: shifts
member: cn=night shift,ou=groups,dc=example,dc=org

dn: cn=operators,ou=groups,dc=example,dc=org
objectClass: groupOfNames
cn: operators
member: cn=shifts,ou=groups,dc=example,dc=org
member: cn=ring,ou=groups,dc=example,dc=org

dn: cn=ring,ou=groups,dc=example,dc=org
objectClass: groupOfNames
cn: ring
member: cn=operators,ou=groups,dc=example,dc=org

dn: ou=elsewhere,dc=example,dc=org
objectClass: referral
objectClass: extensibleObject
ou: elsewhere
ref: ldap://127.0.0.1:1/ou=elsewhere,dc=example,dc=org
";

impl Slapd {
    /// Starts one with people, groups in groups (two of them in one another), a referral, and an account that searches.
    pub(super) fn start() -> Option<Slapd> {
        if !there("/usr/sbin/slapd") || !there("/usr/bin/ldapmodify") {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        std::fs::create_dir(at.join("data")).unwrap();
        let ca = certificates(at, "127.0.0.1");
        let here = at.display();
        let config = format!(
            "include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload ppolicy
pidfile {here}/slapd.pid
TLSCACertificateFile {here}/ca.pem
TLSCertificateFile {here}/cert.pem
TLSCertificateKeyFile {here}/key.pem
security tls=1
database mdb
suffix \"{BASE}\"
rootdn \"{ROOT}\"
rootpw root-password-1
directory {here}/data
maxsize 16777216
overlay ppolicy
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact=\"{SEARCHER}\" read by * none
"
        );
        std::fs::write(at.join("slapd.conf"), config).unwrap();
        std::fs::write(at.join("people.ldif"), PEOPLE).unwrap();
        let loaded = Command::new("/usr/sbin/slapadd")
            .arg("-f")
            .arg(at.join("slapd.conf"))
            .arg("-l")
            .arg(at.join("people.ldif"))
            .output()
            .unwrap();
        assert!(
            loaded.status.success(),
            "{}",
            String::from_utf8_lossy(&loaded.stderr)
        );
        let mut slapd = Slapd {
            child: None,
            folder,
            ldaps: free_port(),
            ldap: free_port(),
            ca,
        };
        slapd.go();
        Some(slapd)
    }

    /// Starts it, also again.
    pub(super) fn go(&mut self) {
        let both = format!("{} {}", self.ldaps(), self.ldap());
        let child = Command::new("/usr/sbin/slapd")
            .args(["-d", "0", "-h", &both, "-f"])
            .arg(self.path("slapd.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        for port in [self.ldaps, self.ldap] {
            wait_for(&format!("127.0.0.1:{port}"));
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn ldaps(&self) -> String {
        format!("ldaps://127.0.0.1:{}", self.ldaps)
    }

    pub(super) fn ldap(&self) -> String {
        format!("ldap://127.0.0.1:{}", self.ldap)
    }

    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// Changes entries, as its administrator.
    pub(super) fn modify(&self, ldif: &str) {
        let path = self.path("change.ldif");
        std::fs::write(&path, ldif).unwrap();
        let done = Command::new("/usr/bin/ldapmodify")
            .env("LDAPTLS_CACERT", self.path("ca.pem"))
            .args(["-x", "-D", ROOT, "-w", "root-password-1", "-H"])
            .arg(self.ldaps())
            .arg("-f")
            .arg(path)
            .output()
            .unwrap();
        assert!(
            done.status.success(),
            "{ldif}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
}

/// Waits until something listens.
pub(super) fn wait_for(address: &str) {
    let end = Instant::now() + Duration::from_secs(60);
    while std::net::TcpStream::connect(address).is_err() {
        assert!(Instant::now() < end, "nothing listens on {address}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

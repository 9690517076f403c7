use super::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use tempfile::TempDir;

/// A state folder with its keys, and a folder beside it for the root key.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("state/keys")).unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        Place { dir }
    }
    fn root(&self) -> PathBuf {
        self.dir.path().join("etc/root.key")
    }
    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }
    fn keys(&self) -> PathBuf {
        self.dir.path().join("state/keys")
    }
    fn source(&self) -> RootSource {
        RootSource::find(None, &self.root(), &self.state()).unwrap()
    }
    fn open(&self) -> Result<Sealer, SealError> {
        Sealer::open(self.source(), self.keys())
    }
    fn refusal(&self) -> String {
        self.open().unwrap_err().to_string()
    }
}

#[test]
fn opens_only_where_it_was_sealed() {
    let place = Place::new();
    let sealer = place.open().unwrap();
    let here = "0190#value.1";
    let text = sealer.seal_in(Some("shop"), here, b"hunter2").unwrap();
    assert!(Sealer::is_sealed(&text) && !text.contains("hunter2"));
    let again = sealer.seal_in(Some("shop"), here, b"hunter2").unwrap();
    assert_ne!(text, again, "nonces differ");
    assert_eq!(sealer.unseal(here, &text).unwrap(), b"hunter2");
    for other in ["0191#value.1", "0190#value.2", "0190#other.1", "0190"] {
        let opened = sealer.unseal(other, &text);
        assert!(matches!(opened, Err(SealError::Forged { .. })), "{other}");
    }
    let empty = sealer.seal("c", b"").unwrap();
    assert_eq!(sealer.unseal("c", &empty).unwrap(), b"");
}

#[test]
fn any_change_is_seen() {
    let place = Place::new();
    let sealer = place.open().unwrap();
    let text = sealer.seal("c", b"some secret").unwrap();
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert!(sealer.unseal("c", &changed).is_err(), "byte {at}");
    }
    for cut in 0..text.len() {
        assert!(sealer.unseal("c", &text[..cut]).is_err());
    }
    for odd in [
        "",
        "sealed:1:",
        "sealed:2::",
        "plain",
        "sealed:3:a:AAAA",
        "sealed:2:x:////",
    ] {
        assert!(sealer.unseal("c", odd).is_err(), "{odd}");
    }
}

#[test]
fn each_project_has_a_key_of_its_own_in_versions() {
    let place = Place::new();
    let first = place.open().unwrap();
    let key = |text: &str| parts(text).unwrap().1.to_owned();
    let shop = first.seal_in(Some("shop"), "c", b"old").unwrap();
    let other = first.seal_in(Some("other"), "c", b"x").unwrap();
    let cluster = first.seal("c", b"x").unwrap();
    assert!(key(&shop) != key(&other) && key(&other) != key(&cluster));
    // The other half of the node, which read the ring before.
    let late = first.seal_in(Some("late"), "c", b"y").unwrap();
    let joined = Sealer::join(place.source(), place.keys()).unwrap();
    first.rotate().unwrap();
    let new = first.seal_in(Some("shop"), "c", b"new").unwrap();
    assert!(first.is_stale(&shop) && !first.is_stale(&new));
    for (text, plain) in [(&shop, "old"), (&new, "new"), (&late, "y")] {
        assert_eq!(joined.unseal("c", text).unwrap(), plain.as_bytes());
    }
    let mut all = first.keys().unwrap();
    all.retain(|(_, scope, _)| scope == "project/shop");
    assert_eq!(all.iter().map(|k| k.2).collect::<Vec<_>>(), [1, 2]);
    assert!(first.retire(&key(&new)).is_err(), "the newest stays");
    first.retire(&key(&shop)).unwrap();
    let gone = first.unseal("c", &shop);
    assert!(matches!(gone, Err(SealError::UnknownKey { key: id, .. }) if id == key(&shop)));
    assert_eq!(place.open().unwrap().unseal("c", &new).unwrap(), b"new");
}

#[test]
fn a_copied_state_folder_opens_nothing() {
    let place = Place::new();
    let sealer = place.open().unwrap();
    let text = sealer.seal_in(Some("shop"), "c", b"hunter2").unwrap();
    let thief = Place::new();
    for entry in fs::read_dir(place.keys()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), thief.keys().join(entry.file_name())).unwrap();
    }
    let why = thief.refusal();
    assert!(why.contains("root key and is missing"), "{why}");
    assert!(
        !thief.root().exists(),
        "no new one is made for a ring that has one"
    );
    thief.source().make().unwrap();
    let why = thief.refusal();
    assert!(why.contains("wrapped with root key"), "{why}");
    // Nor does the ring of another installation open it.
    fs::remove_file(thief.keys().join(RING)).unwrap();
    assert!(thief.open().unwrap().unseal("c", &text).is_err());
}

#[test]
fn the_root_key_stays_out_of_the_state_folder() {
    let place = Place::new();
    for inside in ["root.key", "keys/root.key", "../state/root.key"] {
        let file = place.state().join(inside);
        let found = RootSource::find(None, &file, &place.state());
        let why = found.unwrap_err().to_string();
        assert!(why.contains("root_key"), "{why}");
    }
    let credentials = place.dir.path().join("credentials");
    fs::create_dir(&credentials).unwrap();
    let find = || RootSource::find(Some(&credentials), &place.root(), &place.state()).unwrap();
    assert_eq!(find(), RootSource::File(place.root()), "no such credential");
    place.source().make().unwrap();
    fs::copy(place.root(), credentials.join(CREDENTIAL)).unwrap();
    assert_eq!(find(), RootSource::Credential(credentials.join(CREDENTIAL)));
    let text = place.open().unwrap().seal("c", b"x").unwrap();
    let by_credential = Sealer::open(find(), place.keys()).unwrap();
    assert_eq!(by_credential.unseal("c", &text).unwrap(), b"x");
    let why = by_credential.rotate_root().unwrap_err().to_string();
    assert!(why.contains("systemd-creds"), "{why}");
}

#[test]
fn known_and_short_keys_are_refused() {
    let place = Place::new();
    place.source().make().unwrap();
    let typed = hex::encode("correct horse battery staple 123");
    let counted: Vec<u8> = (0..32).collect();
    let repeated = "0123456789abcdef".repeat(4);
    for key in [
        "00".repeat(32),
        "ff".repeat(32),
        hex::encode(counted),
        repeated,
        typed,
    ] {
        fs::write(place.root(), &key).unwrap();
        let why = place.refusal();
        assert!(why.contains("guess") && !why.contains(&key), "{why}");
    }
    let good = hex::encode(rand::random::<[u8; 32]>());
    for key in ["", "\n", &good[..62], &good[1..], "changeme"] {
        fs::write(place.root(), key).unwrap();
        let why = place.refusal();
        assert!(
            why.contains("64 hexadecimal") || why.contains("no key"),
            "{why}"
        );
    }
    fs::write(place.root(), &good).unwrap();
    assert!(place.open().is_ok());
}

#[test]
fn a_new_root_key_may_be_cut_off_anywhere() {
    let place = Place::new();
    let first = place.open().unwrap();
    let text = first.seal_in(Some("shop"), "c", b"kept").unwrap();
    let reads = |what: &str| {
        let again = place.open().unwrap();
        assert_eq!(again.unseal("c", &text).unwrap(), b"kept", "{what}");
        let joined = Sealer::join(place.source(), place.keys()).unwrap();
        assert_eq!(joined.unseal("c", &text).unwrap(), b"kept", "{what}");
    };
    let old = fs::read_to_string(place.root()).unwrap();
    let half_written = |path: PathBuf| fs::write(path, "half").unwrap();
    half_written(place.root().with_extension("part"));
    reads("before the first step");
    place.source().add().unwrap();
    let joined = Sealer::join(place.source(), place.keys()).unwrap();
    assert_eq!(
        joined.unseal("c", &text).unwrap(),
        b"kept",
        "both, not wrapped anew"
    );
    half_written(place.keys().join("ring.part"));
    reads("wrapped anew at the next start");
    // Done again: no third key, and the first is gone.
    let both = fs::read_to_string(place.root()).unwrap();
    place.open().unwrap().rotate_root().unwrap();
    let new = fs::read_to_string(place.root()).unwrap();
    assert!(both == format!("{new}{old}"));
    reads("finished");
    // The old root key opens nothing of what is there now.
    fs::write(place.root(), &old).unwrap();
    assert!(place.refusal().contains("wrapped with root key"));
    fs::write(place.root(), &new).unwrap();
    first.rotate_root().unwrap();
    assert_ne!(fs::read_to_string(place.root()).unwrap(), new);
    reads("rotated once more");
}

#[test]
fn keys_of_older_versions_are_taken_over() {
    let place = Place::new();
    let (key, other) = (rand::random::<[u8; 32]>(), rand::random::<[u8; 32]>());
    let file = place.keys().join(OLD);
    let text = format!(
        "debvisor keys 1\nolder 01 {}\nprimary 02 {}\n",
        hex::encode(other),
        hex::encode(key)
    );
    fs::write(&file, &text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let cipher = Aes256Gcm::new(Key::<Aes256Gcm>::from_slice(&key));
    let payload = Payload {
        msg: b"from before".as_slice(),
        aad: b"sealed:1:02:uid",
    };
    let body = cipher
        .encrypt(Nonce::from_slice(&[7; 12]), payload)
        .unwrap();
    let body = BASE64.encode([&[7; 12][..], &body].concat());
    let sealed = format!("sealed:1:02:{body}");

    let sealer = place.open().unwrap();
    assert_eq!(sealer.unseal("uid", &sealed).unwrap(), b"from before");
    assert!(Sealer::is_old(&sealed) && sealer.is_stale(&sealed));
    assert!(!file.exists(), "no key stays in the clear");
    let ring = fs::read_to_string(place.keys().join(RING)).unwrap();
    assert!(!ring.contains(&hex::encode(key)) && !ring.contains(&hex::encode(other)));
    let new = sealer.seal("uid", b"now").unwrap();
    assert!(!new.contains(":02:") && !sealer.is_stale(&new));
    assert_eq!(
        place.open().unwrap().unseal("uid", &sealed).unwrap(),
        b"from before"
    );

    for bad in [
        text.replace("primary", "older"),
        text.replace("older", "primary"),
        text.replace("keys 1", "keys 2"),
        text.replace("02", "01"),
        format!("{text}\n\n"),
        text[..text.len() - 2].to_owned(),
    ] {
        let place = Place::new();
        let file = place.keys().join(OLD);
        fs::write(&file, &bad).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let why = place.refusal();
        assert!(why.contains("line") && why.contains("restore"), "{why}");
        assert!(!why.contains(&hex::encode(key)), "no key is shown");
        assert_eq!(fs::read_to_string(&file).unwrap(), bad);
    }
}

#[test]
fn files_that_others_may_read_are_refused() {
    let place = Place::new();
    place.open().unwrap();
    for path in [place.root(), place.keys().join(RING)] {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let why = place.refusal();
            assert!(
                why.contains(&format!("{mode:04o}")) && why.contains("chmod 600"),
                "{why}"
            );
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(place.open().is_ok());
        let moved = path.with_extension("moved");
        fs::rename(&path, &moved).unwrap();
        symlink(&moved, &path).unwrap();
        assert!(place.open().is_err(), "links are not followed");
        fs::rename(&moved, &path).unwrap();
    }
}

#[test]
fn a_damaged_ring_is_refused_and_left() {
    let place = Place::new();
    let sealer = place.open().unwrap();
    sealer.seal_in(Some("shop"), "c", b"x").unwrap();
    let ring = place.keys().join(RING);
    let good = fs::read_to_string(&ring).unwrap();
    let lines: Vec<_> = good.lines().collect();
    assert_eq!(lines.len(), 3);
    let bad = [
        String::new(),
        lines[0].to_string(),
        good.replace("ring 1", "ring 2"),
        good.replace("project/shop", "project/mine"),
        good.replace("shop 1 ", "shop 2 "),
        good.replace("cluster", "project/x"),
        format!("{}\n{}\n{}\n", lines[0], lines[1], lines[1]),
        format!("{}\n{}", lines[0], &lines[1][..lines[1].len() - 1]),
        format!("{good}\n\n"),
    ];
    for text in bad {
        fs::write(&ring, &text).unwrap();
        let why = place.refusal();
        assert!(why.contains("line") && why.contains("restore"), "{why}");
        assert_eq!(fs::read_to_string(&ring).unwrap(), text);
    }
    assert!(!format!("{sealer:?}").contains(&fs::read_to_string(place.root()).unwrap()[..20]));
}

/// Where the child of [`killed_while_it_rotates`] works.
const WHERE: &str = "DEBVISOR_TEST_KEYS";

#[test]
#[ignore = "run by `killed_while_it_rotates`, which kills it"]
fn rotates_until_it_is_killed() {
    let Some(at) = std::env::var_os(WHERE) else {
        return;
    };
    let at = PathBuf::from(at);
    let source = RootSource::File(at.join("etc/root.key"));
    let sealer = Sealer::open(source, at.join("state/keys")).unwrap();
    loop {
        sealer.rotate_root().unwrap();
    }
}

#[test]
#[allow(
    clippy::disallowed_types,
    reason = "a process to be killed in the middle of what it writes"
)]
fn killed_while_it_rotates() {
    let place = Place::new();
    let text = place.open().unwrap().seal("c", b"kept").unwrap();
    let mut roots = std::collections::BTreeSet::new();
    let mut cut_off = 0;
    for round in 0..40 {
        let before = fs::read_to_string(place.root()).unwrap();
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "seal::tests::rotates_until_it_is_killed",
                "--ignored",
            ])
            .env(WHERE, place.dir.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while fs::read_to_string(place.root()).unwrap() == before {
            assert!(std::time::Instant::now() < end, "it never rotates");
            std::thread::yield_now();
        }
        // Somewhere in one of the next rotations.
        std::thread::sleep(std::time::Duration::from_micros(round * 137));
        child.kill().unwrap();
        child.wait().unwrap();
        let left = fs::read_to_string(place.root()).unwrap();
        cut_off += usize::from(left.lines().count() > 1);
        roots.insert(left);
        // First as the other half of the node reads it, with nothing put right.
        let joined = Sealer::join(place.source(), place.keys()).unwrap();
        assert_eq!(joined.unseal("c", &text).unwrap(), b"kept", "round {round}");
    }
    assert!(roots.len() > 20, "it rotated in each round");
    assert!(cut_off > 0, "no round ended between two steps");
    place.open().unwrap().rotate_root().unwrap();
    assert_eq!(fs::read_to_string(place.root()).unwrap().lines().count(), 1);
    assert_eq!(place.open().unwrap().unseal("c", &text).unwrap(), b"kept");
}

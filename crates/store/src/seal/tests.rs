use super::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

fn sealer(dir: &Path) -> Sealer {
    Sealer::open(dir.join("keys")).unwrap()
}

#[test]
fn opens_only_where_it_was_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let sealer = sealer(dir.path());
    let text = sealer.seal("secret/default/db#value", b"hunter2").unwrap();
    assert!(Sealer::is_sealed(&text) && !text.contains("hunter2"));
    assert_ne!(
        text,
        sealer.seal("secret/default/db#value", b"hunter2").unwrap(),
        "nonces differ"
    );
    assert_eq!(
        sealer.unseal("secret/default/db#value", &text).unwrap(),
        b"hunter2"
    );
    assert!(matches!(
        sealer.unseal("secret/other/db#value", &text),
        Err(SealError::Forged { .. })
    ));
    assert_eq!(
        sealer.unseal("c", &sealer.seal("c", b"").unwrap()).unwrap(),
        b""
    );
}

#[test]
fn any_change_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let sealer = sealer(dir.path());
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
        "sealed:1::",
        "plain",
        "sealed:2:a:AAAA",
        "sealed:1:x:////",
    ] {
        assert!(sealer.unseal("c", odd).is_err(), "{odd}");
    }
}

#[test]
fn keys_survive_and_rotate() {
    let dir = tempfile::tempdir().unwrap();
    let first = sealer(dir.path());
    let old = first.seal("c", b"old").unwrap();
    let mode = fs::metadata(dir.path().join("keys"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let old_id = first.key_ids()[0].clone();
    let new_id = first.rotate().unwrap();
    assert_eq!(first.key_ids(), [new_id.clone(), old_id.clone()]);
    let new = first.seal("c", b"new").unwrap();
    assert!(first.is_stale(&old) && !first.is_stale(&new));

    let again = sealer(dir.path());
    assert_eq!(again.unseal("c", &old).unwrap(), b"old");
    assert_eq!(again.unseal("c", &new).unwrap(), b"new");
    assert!(again.retire(&new_id).is_err(), "the primary key stays");
    again.retire(&old_id).unwrap();
    assert!(
        matches!(again.unseal("c", &old), Err(SealError::UnknownKey { key, .. }) if key == old_id)
    );
    assert_eq!(sealer(dir.path()).unseal("c", &new).unwrap(), b"new");
}

#[test]
fn a_key_file_others_may_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    sealer(dir.path());
    for mode in [0o640, 0o604, 0o660] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = Sealer::open(&path).unwrap_err().to_string();
        assert!(
            error.contains(&format!("{mode:04o}")) && error.contains("chmod 600"),
            "{error}"
        );
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    assert!(Sealer::open(&path).is_ok());
    let link = dir.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(Sealer::open(&link).is_err(), "links are not followed");
}

#[test]
fn a_damaged_key_file_is_refused_and_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    let ring = sealer(dir.path());
    ring.rotate().unwrap();
    let good = fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = good.lines().collect();
    let bad = [
        String::new(),
        lines[0].to_string(),
        good.replace("primary", "older"),
        good.replace("older", "primary"),
        good.replace("keys 1", "keys 2"),
        format!("{}\n{}\n{}\n", lines[0], lines[1], lines[1]),
        format!("{}\n{}", lines[0], &lines[1][..lines[1].len() - 1]),
        format!("{good}\n\n"),
    ];
    for text in bad {
        fs::write(&path, &text).unwrap();
        let error = Sealer::open(&path).unwrap_err().to_string();
        assert!(
            error.contains("line") && error.contains("restore"),
            "{error}"
        );
        assert!(!error.contains(&lines[1][30..]), "no key is shown");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    assert!(!format!("{ring:?}").contains(&lines[1][30..]));
}

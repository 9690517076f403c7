//! The chain of the audit trail: whoever changes, removes or reorders rows, or cuts them off, is found; what is personal
//! cannot be read at rest; keys rotate and go.

use super::audit_trail::trail;
use super::demo::*;
use crate::audit::{self, Durable, FileTrail, Head, Note, Row, Trail, TrailOptions, Verdict};
use crate::*;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use store::Memory;
use store::streams::{Limits, Stream};

fn row(n: u64) -> Row {
    Row {
        actor: "anna".into(),
        actor_kind: ActorKind::Administrator,
        address: Some(format!("192.0.2.{}", n % 250)),
        user_agent: Some("dvctl/1.0 (Katzenklo)".into()),
        request_id: format!("r{n}"),
        action: "lamp.create".into(),
        kind: Some("lamp".into()),
        name: Some(format!("lamp-{n}")),
        params: json!({ "z": 1, "a": n }),
        result: Some("ok".into()),
        ..Row::default()
    }
}

/// A closed trail of rows 1 to `count`, a seal after every ten.
async fn written(dir: &Path, count: u64) {
    let options = TrailOptions {
        seal_rows: 10,
        ..TrailOptions::new(&dir.join("rows"), &dir.join("keys"), Arc::new(TestSeal))
    };
    let kept = FileTrail::open(options).await.unwrap();
    for n in 1..=count {
        kept.keep(
            row(n),
            if n % 7 == 0 {
                Durable::Now
            } else {
                Durable::Later
            },
        )
        .await
        .unwrap();
        kept.last(1).await;
    }
    kept.seal().await.unwrap();
    kept.close().await;
}

fn heads(dir: &Path) -> Vec<Head> {
    audit::own_heads(&dir.join("keys"), 1000).unwrap()
}

fn verdict(dir: &Path, rows: &str) -> Verdict {
    audit::verify(&dir.join(rows), heads(dir)).unwrap()
}

/// The payloads of a folder.
async fn payloads(rows: &Path) -> Vec<bytes::Bytes> {
    let stream = Stream::open(rows, Limits::default()).unwrap();
    let records = stream.read(0, 10_000).await.unwrap();
    records.into_iter().map(|r| r.payload).collect()
}

/// A trail whose stream is sound, with other payloads: by somebody who knows all about its form, but has no key.
async fn forged(dir: &Path, change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Verdict {
    let mut all: Vec<Vec<u8>> = payloads(&dir.join("rows"))
        .await
        .iter()
        .map(|p| p.to_vec())
        .collect();
    change(&mut all);
    let name = format!("forged-{}", rand::random::<u32>());
    let stream = Stream::open(dir.join(&name), Limits::default()).unwrap();
    let all = all.into_iter().map(bytes::Bytes::from).collect();
    stream.append(all).await.unwrap();
    verdict(dir, &name)
}

/// Makes the hash of a payload fit, after it was changed.
fn fit(payload: &mut [u8]) {
    use sha2::Digest;
    let hash = sha2::Sha256::digest(&payload[32..]);
    payload[..32].copy_from_slice(&hash);
}

fn change(payload: &mut [u8], from: &[u8], to: &[u8]) {
    let at = payload.windows(from.len()).position(|w| w == from).unwrap();
    payload[at..at + to.len()].copy_from_slice(to);
}

#[tokio::test]
async fn whoever_changes_the_trail_is_found_and_the_first_broken_row_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    written(dir, 25).await;
    // Rows 1 to 10, a seal, rows 12 to 21, a seal, rows 23 to 27, a seal.
    let sound = verdict(dir, "rows");
    assert!(sound.sound, "{}", sound.sentence());
    assert_eq!((sound.rows, sound.seals, sound.sealed_to), (28, 3, 27));

    let broken = |v: Verdict| {
        assert!(!v.sound);
        let broken = v.broken.unwrap();
        (broken.row, broken.to, broken.why)
    };
    let edited = forged(dir, |all| change(&mut all[4], b"lamp-5", b"lamp-6")).await;
    let (at, to, why) = broken(edited);
    assert_eq!((at, to), (5, None));
    assert!(why.contains("edited"), "{why}");

    let rehashed = forged(dir, |all| {
        change(&mut all[4], b"lamp-5", b"lamp-6");
        fit(&mut all[4]);
    })
    .await;
    assert_eq!(broken(rehashed).0, 5);

    let rechained = forged(dir, |all| {
        change(&mut all[4], b"lamp-5", b"lamp-6");
        for n in 4..all.len() {
            let prev: Vec<u8> = all[n - 1][..32].to_vec();
            all[n][42..74].copy_from_slice(&prev);
            fit(&mut all[n]);
        }
    })
    .await;
    let (at, to, why) = broken(rechained);
    assert_eq!((at, to), (1, Some(11)), "the seal does not fit: {why}");

    let reordered = forged(dir, |all| all.swap(13, 14)).await;
    let (at, _, why) = broken(reordered);
    assert_eq!(at, 14);
    assert!(why.contains("reordered"), "{why}");

    let deleted = forged(dir, |all| drop(all.remove(6))).await;
    assert_eq!(broken(deleted).0, 7);

    let another = tempfile::tempdir().unwrap();
    written(another.path(), 25).await;
    let swapped = audit::verify(&another.path().join("rows"), heads(dir)).unwrap();
    assert_eq!(broken(swapped).0, 1);
}

#[tokio::test]
async fn a_row_that_is_edited_or_cut_out_in_the_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    written(dir, 25).await;
    let rows = dir.join("rows");
    let file = std::fs::read_dir(&rows)
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.extension().is_some_and(|e| e == "seg"))
        .unwrap();
    let whole = std::fs::read(&file).unwrap();
    let mut bytes = whole.clone();
    change(&mut bytes, b"lamp-17", b"lamp-99");
    std::fs::write(&file, &bytes).unwrap();
    let broken = verdict(dir, "rows").broken.unwrap();
    assert_eq!((broken.row, broken.to), (18, None), "{}", broken.why);

    // The tail cut off: the chain itself is sound, the head that was signed last says that there was more.
    let at = whole.windows(7).position(|w| w == b"lamp-19").unwrap();
    std::fs::write(&file, &whole[..at]).unwrap();
    let cut = verdict(dir, "rows");
    let broken = cut.broken.unwrap();
    assert_eq!((broken.row, broken.to), (20, Some(27)), "{}", broken.why);
    // Without that one, which lies on the same disk, only an anchor would know.
    let pinned = std::fs::read_to_string(dir.join("keys/heads")).unwrap();
    let pinned = audit::heads_of(&pinned, 1000);
    assert!(audit::verify(&rows, pinned).unwrap().sound);
    // A start over it says so, too.
    let kept = trail(dir).await;
    let why = kept.is_cut().unwrap();
    assert!(why.contains("after row 27"), "{why}");
    kept.close().await;
}

#[tokio::test]
async fn personal_fields_are_unreadable_at_rest_until_their_key_is_used_and_for_ever_when_it_is_gone()
 {
    let dir = tempfile::tempdir().unwrap();
    let kept = trail(dir.path()).await;
    let cx = start_with(Memory::new(), Arc::default(), Some(kept.clone())).await;
    let note = |who: &str| {
        Note::by(&audit::LOGIN_SUCCEEDED, &Actor::administrator(who))
            .from(Some("203.0.113.77".parse().unwrap()))
            .user_agent(Some("Katzenklo/7"))
    };
    audit::note(&cx, note("anna-lisa")).await.unwrap();
    assert_eq!(kept.rotate_keys().await.unwrap(), 1);
    audit::note(&cx, note("anna-lisa")).await.unwrap();
    audit::note(&cx, note("bert-olaf")).await.unwrap();
    cx.life().stop(std::time::Duration::from_secs(5)).await;
    kept.close().await;
    drop((cx, kept));
    for folder in ["rows", "keys"] {
        for file in std::fs::read_dir(dir.path().join(folder)).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            let text = String::from_utf8_lossy(&bytes);
            for word in ["203.0.113.77", "Katzenklo", "anna-lisa", "bert-olaf"] {
                // The key that wraps the keys in this test is no real one.
                if folder == "rows" {
                    assert!(!text.contains(word), "{word} stands in the file");
                }
            }
        }
    }
    // After a restart both versions of her key open.
    let kept = trail(dir.path()).await;
    let logins = async || {
        let mut rows = kept.last(100).await;
        rows.retain(|r| r.action == "auth.login.succeeded");
        rows
    };
    let rows = logins().await;
    let seen: Vec<_> = rows
        .iter()
        .map(|r| (&*r.actor, r.address.as_deref()))
        .collect();
    assert_eq!(
        seen,
        [
            ("anna-lisa", Some("203.0.113.77")),
            ("anna-lisa", Some("203.0.113.77")),
            ("bert-olaf", Some("203.0.113.77")),
        ]
    );
    assert!(kept.restrict("bert-olaf", true).await.unwrap());
    assert_eq!(logins().await[2].address, None);
    assert!(kept.restrict("bert-olaf", false).await.unwrap());
    assert!(kept.erase("anna-lisa").await.unwrap());
    kept.close().await;
    drop(kept);
    let kept = trail(dir.path()).await;
    let mut rows = kept.last(100).await;
    rows.retain(|r| r.action == "auth.login.succeeded");
    assert!(rows[0].actor.starts_with("subject-"), "{}", rows[0].actor);
    assert_eq!(rows[0].actor, rows[1].actor, "still the same one");
    assert_eq!(
        (rows[0].address.clone(), rows[0].user_agent.clone()),
        (None, None)
    );
    assert_eq!(rows[2].actor, "bert-olaf");
    let verdict = verdict(dir.path(), "rows");
    assert!(verdict.sound, "{}", verdict.sentence());
    let counts = kept.key_counts();
    assert_eq!((counts.active, counts.destroyed), (1, 1));
}

#[tokio::test]
async fn the_seal_whose_key_is_gone_is_added_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let rows = dir.path().join("rows");
    written(dir.path(), 3).await;
    // As if the process had died between replacing the key and writing the seal: rows 1 to 3, no seal.
    let all = payloads(&rows).await;
    assert_eq!(all.len(), 4);
    std::fs::remove_dir_all(&rows).unwrap();
    {
        let stream = Stream::open(&rows, Limits::default()).unwrap();
        stream.append_durable(all[..3].to_vec()).await.unwrap();
    }
    let kept = trail(dir.path()).await;
    kept.keep(row(9), Durable::Now).await.unwrap();
    kept.seal().await.unwrap();
    kept.close().await;
    let found = verdict(dir.path(), "rows");
    assert!(found.sound, "{}", found.sentence());
    assert_eq!((found.rows, found.seals), (6, 2));
}

#[tokio::test]
async fn a_trail_without_its_key_is_not_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), 3).await;
    std::fs::remove_file(dir.path().join("keys/epoch")).unwrap();
    let options = TrailOptions::new(
        &dir.path().join("rows"),
        &dir.path().join("keys"),
        Arc::new(TestSeal),
    );
    let error = FileTrail::open(options).await.err().unwrap();
    assert!(error.message.contains("is gone"), "{error}");
}

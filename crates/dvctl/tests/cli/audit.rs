//! `dvctl audit` as it is typed, against a real server and a real trail: every filter, what an edit by hand and a cut end
//! look like, and that what is personal goes nowhere by accident.

use crate::real::Real;
use runtime::audit::FileTrail;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;

fn trail(real: &Real) -> Arc<FileTrail> {
    real.house.cx.try_part::<FileTrail>().unwrap()
}

/// The file that the rows lie in: one, for few rows.
fn rows(real: &Real) -> PathBuf {
    let folder = trail(real).places().0.to_owned();
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|f| f.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "seg"))
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_found_by_every_filter_and_a_filter_that_is_wrong_says_so() {
    let real = Real::open().await;
    real.run("lamp create a").ok();
    real.run("lamp create b --brightness 7").ok();
    assert_ne!(real.run("lamp delete nobody --yes").code, 0);
    let me = whoami(&real);
    let count = |line: &str| {
        let said = real.run(&format!("audit list {line} -o name"));
        said.ok().lines().filter(|l| !l.is_empty()).count()
    };
    assert_eq!(count("--object lamp/default/a"), 2);
    assert_eq!(count("--object lamp/a"), 2);
    assert_eq!(count("--action lamp.create"), 4);
    assert_eq!(count("--action lamp.create --limit 3"), 3);
    assert_eq!(count("--action lam"), 0, "no part of a word");
    // By the whole name, and by that of the account alone.
    assert_eq!(count(&format!("--action lamp.create --actor {me}")), 4);
    let (account, _) = me.split_once('@').unwrap();
    assert_eq!(count(&format!("--action lamp.create --actor {account}")), 4);
    assert_eq!(count("--action lamp.create --since 1h"), 4);
    assert_eq!(count("--action lamp.create --until 1h"), 0);
    let shown = real.run("audit list --object lamp/default/a -o json");
    let row: serde_json::Value = serde_json::from_str(shown.ok().lines().next().unwrap()).unwrap();
    let request = row["request_id"].as_str().unwrap();
    assert_eq!(count(&format!("--request {request}")), 2);
    assert!(
        real.run("audit list --action bogus")
            .err
            .contains("no rows")
    );
    for wrong in [
        "--address 192.0.2.300",
        "--since soon",
        "--since 1h --until 2h",
    ] {
        let said = real.run(&format!("audit list {wrong}"));
        assert_eq!(said.code, 2, "{wrong}: {said:?}");
    }
    // A code that lets somebody in is on record as soon as it is made.
    real.run("api login-code").ok();
    let issued = real.run("audit list --action auth.token.issued -o json");
    assert!(issued.ok().contains("login code"), "{issued:?}");
}

fn whoami(real: &Real) -> String {
    let me = real.json("whoami -o json");
    me["name"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_names_the_row_that_somebody_edited_and_shows_an_end_that_was_cut_off() {
    let real = Real::open().await;
    for name in ["a", "b", "c"] {
        real.run(&format!("lamp create {name}")).ok();
    }
    trail(&real).seal().await.unwrap();
    let anchor = real.folder.path().join("anchor");
    std::fs::copy(trail(&real).places().1, &anchor).unwrap();
    let head = trail(&real).standing().borrow().sealed.clone().unwrap();
    let mut kept = std::fs::read_to_string(&anchor).unwrap();
    kept.push_str(&head.line());
    std::fs::write(&anchor, kept).unwrap();
    let sound = real.run("audit verify --against anchor");
    assert!(sound.ok().contains("sound: true"), "{sound:?}");

    // One byte, in the file, by hand. Rows that come meanwhile stay where they are.
    let file = std::fs::File::options()
        .write(true)
        .open(rows(&real))
        .unwrap();
    let whole = std::fs::read(rows(&real)).unwrap();
    let of = b"lamp.create";
    let at = whole.windows(of.len()).position(|w| w == of).unwrap() as u64;
    file.write_all_at(b"L", at).unwrap();
    let broken = real.run("audit verify");
    assert_eq!(broken.code, 3, "{broken:?}");
    let named = broken.err.contains("row ") && broken.err.contains("is broken");
    assert!(named, "{broken:?}");
    file.write_all_at(b"l", at).unwrap();
    real.run("audit verify").ok();

    // The end: all from that row on, cut off as if it had never been.
    file.set_len(at - 200).unwrap();
    let cut = real.run("audit verify --against anchor");
    assert_eq!(cut.code, 3, "{cut:?}");
    assert!(
        cut.err.contains("is broken") || cut.err.contains("cut"),
        "{cut:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_for_nobody_else_and_keys_and_anchors_say_how_they_stand() {
    let real = Real::open().await;
    real.run("lamp create a").ok();
    let me = whoami(&real);
    // Also where a file with wider rights was.
    real.write("rows.jsonl", "old");
    let wide = std::fs::Permissions::from_mode(0o644);
    let file = real.folder.path().join("rows.jsonl");
    std::fs::set_permissions(&file, wide).unwrap();
    real.run("audit export --into rows.jsonl").ok();
    let sealed = std::fs::read_to_string(&file).unwrap();
    assert!(
        sealed.contains("lamp.create") && !sealed.contains(&me),
        "{me}"
    );
    real.run("audit export --decrypt --into rows.jsonl").ok();
    let clear = std::fs::read_to_string(&file).unwrap();
    assert!(clear.contains(&me) && clear.contains("\"decrypt\":true"));
    let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    real.run("audit keys rotate").ok();
    let keys = real.json("audit keys status -o json");
    assert!(keys["active"].as_u64() > Some(0), "{keys}");
    assert!(keys["rotated"].as_u64() > Some(0), "{keys}");
    let alone = real.run("audit anchor status");
    assert!(alone.all().contains("AuditUnanchored"), "{alone:?}");
    assert_eq!(real.run("audit erase nobody --yes").code, 4);
    real.run(&format!("audit erase {me} --yes")).ok();
    let list = real.run("audit list --object lamp/default/a");
    assert!(
        list.ok().contains("subject-") && !list.ok().contains(&me),
        "{list:?}"
    );
    assert!(real.run("audit verify").ok().contains("sound: true"));
}

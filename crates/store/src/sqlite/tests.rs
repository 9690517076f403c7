use super::*;
use crate::clock::ManualClock;
use futures::StreamExt;

fn key(text: &str) -> Key {
    Key::new(text)
}

fn options(clock: Arc<dyn Clock>) -> Options {
    Options {
        clock,
        ..Options::default()
    }
}

fn manual() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(
        Duration::from_secs(1_000),
        Duration::from_secs(1_800_000_000),
    ))
}

fn unusable(opened: Result<Arc<Sqlite>>) -> String {
    match opened {
        Err(StoreError::Unusable(text)) => text,
        Err(other) => panic!("unusable is expected, not {other}"),
        Ok(_) => panic!("the store must not open"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let root = tempfile::tempdir().unwrap();
    let n = std::sync::atomic::AtomicUsize::new(0);
    crate::conformance::all(|| {
        let dir = root.path().join(
            n.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
                .to_string(),
        );
        Box::pin(async move { Sqlite::open(dir).unwrap() as Arc<dyn Store> })
    })
    .await;
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = Sqlite::open(dir.path()).unwrap();
    let first = store.commit(Txn::new().put(key("a"), "1")).await.unwrap();
    let last = store
        .commit(Txn::new().put(key("a"), "2").put(key("b"), "3"))
        .await
        .unwrap();
    let mut watch = store.watch(&Prefix::new(""), last);
    store.close().await;
    assert!(matches!(
        watch.next().await,
        Some(Err(StoreError::Unavailable(_)))
    ));
    assert!(matches!(
        store.get(&key("a")).await,
        Err(StoreError::Unavailable(_))
    ));
    assert!(matches!(
        store.commit(Txn::new()).await,
        Err(StoreError::Unavailable(_))
    ));
    assert!(matches!(
        store.keep_alive(LeaseId(1)).await,
        Err(StoreError::Unavailable(_))
    ));

    let again = Sqlite::open(dir.path()).unwrap();
    let a = again.get(&key("a")).await.unwrap().unwrap();
    assert_eq!(
        (a.created, a.modified, &a.value[..]),
        (first, last, &b"2"[..])
    );
    assert_eq!(again.commit(Txn::new()).await.unwrap(), last);
    let old = again.watch(&Prefix::new(""), first).next().await;
    assert!(
        matches!(old, Some(Err(StoreError::Compacted { .. }))),
        "history does not survive: {old:?}"
    );
    let mut watch = again.watch(&Prefix::new(""), last);
    again.commit(Txn::new().delete(key("b"))).await.unwrap();
    assert_eq!(
        watch.next().await.unwrap().unwrap().revision,
        Revision(last.0 + 1)
    );
    again.check().await.unwrap();
    let status = again.status().await.unwrap();
    assert_eq!(
        (status.keys, status.revision, status.format),
        (1, Revision(last.0 + 1), 1)
    );
}

#[tokio::test]
async fn a_state_folder_has_one_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let store = Sqlite::open(dir.path()).unwrap();
    let text = unusable(Sqlite::open(dir.path()));
    assert!(text.contains(&dir.path().display().to_string()), "{text}");
    assert!(
        text.contains(&format!("process {}", std::process::id())),
        "{text}"
    );
    assert!(text.contains("stop that daemon"), "{text}");
    assert!(restore(dir.path(), None, &SystemClock).is_err());
    drop(store);
    assert!(
        Sqlite::open(dir.path()).is_ok(),
        "the lock goes with its holder"
    );
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    Sqlite::open(dir.path()).unwrap().close().await;
    let db = Connection::open(dir.path().join(FILE)).unwrap();
    db.pragma_update(None, "user_version", 2).unwrap();
    drop(db);
    let text = unusable(Sqlite::open(dir.path()));
    assert!(
        text.contains("has format 2") && text.contains("knows formats up to 1"),
        "{text}"
    );
    assert!(text.contains("install the newer"), "{text}");
}

#[test]
fn a_foreign_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let db = Connection::open(dir.path().join(FILE)).unwrap();
    db.execute_batch("CREATE TABLE songs (name TEXT)").unwrap();
    drop(db);
    let text = unusable(Sqlite::open(dir.path()));
    assert!(text.contains("another program"), "{text}");
}

#[tokio::test]
async fn a_damaged_file_is_reported_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(FILE);
    let store = Sqlite::open(dir.path()).unwrap();
    for i in 0..20 {
        let txn = (0..50).fold(Txn::new(), |t, j| {
            t.put(key(&format!("k/{i}/{j}")), vec![i as u8; 500])
        });
        store.commit(txn).await.unwrap();
    }
    let copy = store.copy().await.unwrap();
    let copied = store.commit(Txn::new()).await.unwrap();
    store
        .commit(Txn::new().put(key("after the copy"), "v"))
        .await
        .unwrap();
    store.close().await;

    // Damage in the middle: seen by the check that an unclean end asks for.
    let db = Connection::open(&file).unwrap();
    db.execute("UPDATE meta SET value = 0 WHERE name = 'clean'", [])
        .unwrap();
    db.close().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0xA5);
    fs::write(&file, &bytes).unwrap();
    let text = unusable(Sqlite::open(dir.path()));
    for part in [
        file.to_str().unwrap(),
        "damaged",
        "debvisord store restore",
        copy.to_str().unwrap(),
    ] {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    assert_eq!(fs::read(&file).unwrap(), bytes, "the file is left as it is");

    // Damage at the head: not a database at all.
    fs::write(
        &file,
        b"this is not a database, it only lies where one should lie",
    )
    .unwrap();
    assert!(unusable(Sqlite::open(dir.path())).contains("debvisord store restore"));
    fs::write(&file, b"").unwrap();
    assert!(unusable(Sqlite::open(dir.path())).contains("missing or empty"));
    fs::remove_file(&file).unwrap();
    assert!(unusable(Sqlite::open(dir.path())).contains("missing or empty"));
    fs::write(&file, &bytes).unwrap();

    let restored = restore(dir.path(), None, &SystemClock).unwrap();
    assert_eq!(restored.from, copy);
    assert_eq!(
        fs::read(restored.before.unwrap()).unwrap(),
        bytes,
        "what stood there is kept"
    );
    let store = Sqlite::open(dir.path()).unwrap();
    let listing = store.list(&Prefix::new(""), Page::ALL).await.unwrap();
    assert_eq!(listing.entries.len(), 1000);
    assert!(
        listing.revision.0 > copied.0 + 1_000_000,
        "revisions that people remember are not given again"
    );
}

#[tokio::test]
async fn copies_are_daily_and_seven() {
    let dir = tempfile::tempdir().unwrap();
    let clock = manual();
    let store = Sqlite::open_with(dir.path(), options(clock.clone())).unwrap();
    for day in 0..10 {
        store
            .commit(Txn::new().put(key("day"), day.to_string()))
            .await
            .unwrap();
        assert!(store.daily_copy().await.unwrap().is_some());
        assert!(store.daily_copy().await.unwrap().is_none(), "one a day");
        clock.advance(Duration::from_secs(24 * 3600));
    }
    let copies = list_copies(dir.path()).unwrap();
    assert_eq!(copies.len(), KEPT);
    store.close().await;
    restore(dir.path(), Some(&copies[2]), &*clock).unwrap();
    let store = Sqlite::open(dir.path()).unwrap();
    assert_eq!(
        &store.get(&key("day")).await.unwrap().unwrap().value[..],
        b"7"
    );
}

#[tokio::test]
async fn what_root_restores_belongs_to_the_daemons_user() {
    use std::os::unix::fs::{MetadataExt, chown};
    let dir = tempfile::tempdir().unwrap();
    let store = Sqlite::open(dir.path()).unwrap();
    store.copy().await.unwrap();
    store.close().await;
    if let Err(error) = chown(dir.path(), Some(4711), Some(4712)) {
        eprintln!("SKIPPED: giving a folder to another user needs root: {error}");
        return;
    }
    restore(dir.path(), None, &SystemClock).unwrap();
    for name in [FILE, "store.lock"] {
        let meta = fs::metadata(dir.path().join(name)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (4711, 4712), "{name}");
    }
}

#[test]
fn a_bad_copy_is_not_restored() {
    let dir = tempfile::tempdir().unwrap();
    drop(Sqlite::open(dir.path()).unwrap());
    let bad = dir.path().join("bad.db");
    fs::write(&bad, b"SQLite format 3\0 or so it says").unwrap();
    let before = fs::read(dir.path().join(FILE)).unwrap();
    let error = restore(dir.path(), Some(&bad), &SystemClock)
        .unwrap_err()
        .to_string();
    assert!(error.contains("bad.db"), "{error}");
    assert_eq!(fs::read(dir.path().join(FILE)).unwrap(), before);
    assert!(Sqlite::open(dir.path()).is_ok());
}

const NEXT: &[schema::Step] = &[
    schema::STEPS[0],
    schema::Step {
        version: 2,
        name: "who wrote it",
        up: "ALTER TABLE entries ADD COLUMN writer TEXT;",
        down: "ALTER TABLE entries DROP COLUMN writer;",
    },
];

#[tokio::test]
async fn up_and_down_the_formats_every_object_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = Sqlite::open(dir.path()).unwrap();
    let txn = (0..100).fold(Txn::new(), |t, i| t.put(key(&format!("k{i}")), "v"));
    store.commit(txn).await.unwrap();
    let before = store.list(&Prefix::new(""), Page::ALL).await.unwrap();
    store.close().await;

    let newer = Sqlite::open_steps(dir.path(), Options::default(), NEXT).unwrap();
    assert_eq!(newer.status().await.unwrap().format, 2);
    assert_eq!(
        newer
            .list(&Prefix::new(""), Page::ALL)
            .await
            .unwrap()
            .entries,
        before.entries
    );
    newer.commit(Txn::new().put(key("new"), "v")).await.unwrap();
    newer.close().await;
    let kept = fs::read_dir(dir.path().join("copies"))
        .unwrap()
        .map(|e| e.unwrap().file_name());
    assert!(
        kept.into_iter()
            .any(|n| n.to_string_lossy().starts_with("before-format-2"))
    );

    unusable(Sqlite::open(dir.path()));
    let plan = downgrade_steps(dir.path(), 1, true, NEXT).unwrap();
    assert_eq!(plan, ["take back 2: who wrote it"]);
    unusable(Sqlite::open(dir.path()));
    downgrade_steps(dir.path(), 1, false, NEXT).unwrap();
    let store = Sqlite::open(dir.path()).unwrap();
    assert_eq!(
        store
            .list(&Prefix::new(""), Page::ALL)
            .await
            .unwrap()
            .entries
            .len(),
        101
    );
    store.check().await.unwrap();
}

#[test]
fn a_step_that_changed_or_fails_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    drop(Sqlite::open(dir.path()).unwrap());
    let failing = [
        schema::STEPS[0],
        schema::Step {
            up: "CREATE TABLE x (a); nonsense;",
            ..NEXT[1]
        },
    ];
    let opened = Sqlite::open_steps(dir.path(), Options::default(), &failing);
    assert!(opened.err().unwrap().to_string().contains("who wrote it"));
    drop(Sqlite::open(dir.path()).expect("the failed step left nothing behind"));
    drop(Sqlite::open_steps(dir.path(), Options::default(), NEXT).unwrap());
    let changed = [
        schema::STEPS[0],
        schema::Step {
            up: "CREATE TABLE other (a);",
            ..NEXT[1]
        },
    ];
    let text = unusable(Sqlite::open_steps(dir.path(), Options::default(), &changed));
    assert!(text.contains("never released"), "{text}");
}

#[tokio::test]
async fn leases_outlive_a_restart_with_a_full_ttl_and_ignore_the_wall_clock() {
    let dir = tempfile::tempdir().unwrap();
    let clock = manual();
    let store = Sqlite::open_with(dir.path(), options(clock.clone())).unwrap();
    let lease = store.lease(Duration::from_secs(10)).await.unwrap();
    store
        .commit(Txn::new().put_leased(key("a"), "v", lease))
        .await
        .unwrap();
    clock.advance(Duration::from_secs(9));
    store.close().await;
    clock.advance(Duration::from_secs(60));
    clock.set_wall(Duration::from_secs(1));

    let store = Sqlite::open_with(dir.path(), options(clock.clone())).unwrap();
    clock.advance(Duration::from_secs(9));
    store.keep_alive(lease).await.unwrap();
    clock.advance(Duration::from_secs(9));
    assert!(store.get(&key("a")).await.unwrap().is_some());
    let mut watch = store.watch(&Prefix::new(""), store.commit(Txn::new()).await.unwrap());
    clock.advance(Duration::from_secs(1));
    let change = tokio::time::timeout(Duration::from_secs(10), watch.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(change.kind, crate::ChangeKind::Delete(key("a")));
    store.close().await;
    let store = Sqlite::open_with(dir.path(), options(clock)).unwrap();
    assert!(
        matches!(
            store.keep_alive(lease).await,
            Err(StoreError::LeaseEnded(_))
        ),
        "its end is durable"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_readers_share_thirty_connections() {
    let dir = tempfile::tempdir().unwrap();
    let store = Sqlite::open(dir.path()).unwrap();
    let value = Bytes::from(vec![1u8; 1000]);
    for i in 0..20 {
        let txn = (0..100).fold(Txn::new(), |t, j| {
            t.put(key(&format!("k/{i}/{j}")), value.clone())
        });
        store.commit(txn).await.unwrap();
    }
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let store = store.clone();
        readers.spawn(async move {
            store
                .list(&Prefix::new(""), Page::ALL)
                .await
                .unwrap()
                .entries
                .len()
        });
    }
    let mut most = 0;
    let mut done = 0;
    while done < 100 {
        most = most.max(store.readers.count().0);
        match tokio::time::timeout(Duration::from_micros(100), readers.join_next()).await {
            Ok(Some(read)) => {
                assert_eq!(read.unwrap(), 2000);
                done += 1;
            }
            Ok(None) => break,
            Err(_) => {}
        }
    }
    assert_eq!(done, 100);
    assert!((2..=30).contains(&most), "{most} connections");
    let (busy, idle) = store.readers.count();
    assert!(busy == 0 && idle <= 20, "{busy} busy, {idle} idle");
}

/// What a subscriber is told, as text.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_slow_read_is_logged_with_its_plan() {
    let lines = Lines::default();
    let to = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || to.clone())
        .with_ansi(false)
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let dir = tempfile::tempdir().unwrap();
    let slow = Options {
        slow_read: Duration::ZERO,
        ..Options::default()
    };
    let store = Sqlite::open_with(dir.path(), slow).unwrap();
    store.list(&Prefix::new("a/"), Page::ALL).await.unwrap();
    let text = String::from_utf8(lines.0.lock().clone()).unwrap();
    assert!(text.contains("Store read was slow"), "{text}");
    assert!(
        text.contains("SEARCH entries USING INDEX") && text.contains("full_scan=false"),
        "{text}"
    );
    assert!(
        text.contains("(key>? AND key<?)"),
        "a page uses both bounds: {text}"
    );
    store.status().await.unwrap();
    let text = String::from_utf8(lines.0.lock().clone()).unwrap();
    assert!(
        text.contains("full_scan=true"),
        "counting all keys is a scan, and said to be one: {text}"
    );
}

#[test]
fn ends_of_prefixes() {
    assert_eq!(end_of("a/").as_deref(), Some("a0"));
    assert_eq!(end_of("a\u{D7FF}").as_deref(), Some("a\u{E000}"));
    assert_eq!(end_of("a\u{10FFFF}").as_deref(), Some("b"));
    assert_eq!(end_of("\u{10FFFF}"), None);
    assert_eq!(end_of(""), None);
}

/// A small file system of its own, taken down when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let none: Option<&str> = None;
        let options = format!("size={size}");
        let flags = nix::mount::MsFlags::empty();
        match nix::mount::mount(
            none,
            dir.path(),
            Some("tmpfs"),
            flags,
            Some(options.as_str()),
        ) {
            Ok(()) => Some(SmallDisk(dir)),
            Err(error) => {
                eprintln!("SKIPPED: mounting a small tmpfs needs root: {error}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

#[tokio::test]
async fn a_full_disk_is_told_and_outlived() {
    let Some(disk) = SmallDisk::mount("3m") else {
        return;
    };
    let dir = disk.path().join("state");
    let store = Sqlite::open(&dir).unwrap();
    let filler = disk.path().join("filler");
    store
        .commit(Txn::new().put(key("before"), "v"))
        .await
        .unwrap();
    // Fill what is left but a little.
    let mut bytes = 3 << 20;
    while fs::write(&filler, vec![0u8; bytes]).is_err() {
        bytes -= 64 << 10;
    }
    let mut acknowledged = 0;
    let error = loop {
        let txn = Txn::new().put(key(&format!("k/{acknowledged}/a")), vec![1u8; 8000]);
        match store
            .commit(txn.put(key(&format!("k/{acknowledged}/b")), "v"))
            .await
        {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 1000, "the disk fills up");
    };
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("no space is left") && text.contains("free space"),
        "{text}"
    );
    assert!(text.contains(dir.to_str().unwrap()), "{text}");
    assert!(store.copy().await.is_err());
    assert_eq!(
        store
            .list(&Prefix::new("k/"), Page::ALL)
            .await
            .unwrap()
            .entries
            .len(),
        acknowledged * 2
    );

    fs::remove_file(&filler).unwrap();
    store
        .commit(Txn::new().put(key("after"), "v"))
        .await
        .expect("the store goes on when there is space");
    store.close().await;
    let store = Sqlite::open(&dir).unwrap();
    assert_eq!(
        store
            .list(&Prefix::new("k/"), Page::ALL)
            .await
            .unwrap()
            .entries
            .len(),
        acknowledged * 2
    );
    assert!(store.get(&key("after")).await.unwrap().is_some());
    store.check().await.unwrap();
}

/// Writes until it is killed; says on its output what was acknowledged. Run by `kill_nine_loses_nothing`.
#[test]
#[ignore = "is the child of kill_nine_loses_nothing"]
fn child_that_writes_until_killed() {
    let Some(dir) = std::env::var_os("STORE_TEST_DIR") else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let store = Sqlite::open(dir).unwrap();
    runtime.block_on(async {
        let round = store.commit(Txn::new()).await.unwrap().0;
        let mut writers = tokio::task::JoinSet::new();
        for w in 0..16 {
            let store = store.clone();
            writers.spawn(async move {
                for n in 0.. {
                    let name = format!("{round}-{w}-{n}");
                    let txn = ["a", "b", "c"]
                        .iter()
                        .fold(Txn::new(), |t, p| t.put(key(&format!("{p}/{name}")), "v"));
                    store.commit(txn).await.unwrap();
                    println!("\ndone {name}");
                }
            });
        }
        while writers.join_next().await.is_some() {}
    });
}

#[tokio::test]
#[allow(
    clippy::disallowed_types,
    reason = "the test must kill a process of its own with SIGKILL"
)]
async fn kill_nine_loses_nothing() {
    use std::io::BufRead;
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = std::collections::BTreeSet::new();
    for round in 1..=5 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "sqlite::tests::child_that_writes_until_killed",
                "--ignored",
                "--nocapture",
            ])
            .env("STORE_TEST_DIR", dir.path())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let mut left = round * 150;
        while let Some(Ok(line)) = lines.next() {
            if let Some(name) = line.strip_prefix("done ") {
                acknowledged.insert(name.to_string());
                left -= 1;
            }
            if left == 0 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(left <= 0, "the child wrote until it was killed");

        let store = Sqlite::open(dir.path()).unwrap();
        let listing = store.list(&Prefix::new(""), Page::ALL).await.unwrap();
        let names = |part: &str| {
            let here = listing
                .entries
                .iter()
                .filter_map(|e| e.key.as_str().strip_prefix(part));
            here.map(str::to_string)
                .collect::<std::collections::BTreeSet<_>>()
        };
        let (a, b, c) = (names("a/"), names("b/"), names("c/"));
        assert!(a == b && b == c, "no transaction is half there");
        // The last line may have been cut by the kill.
        let lost: Vec<_> = acknowledged.difference(&a).collect();
        assert!(
            lost.len() <= 1 && lost.iter().all(|l| a.iter().any(|n| n.starts_with(*l))),
            "lost: {lost:?}"
        );
        for name in lost.into_iter().cloned().collect::<Vec<_>>() {
            acknowledged.remove(&name);
        }
        let revisions: std::collections::BTreeSet<_> =
            listing.entries.iter().map(|e| e.modified).collect();
        assert_eq!(
            revisions.len(),
            a.len(),
            "every transaction has a revision of its own"
        );
        assert!(
            revisions
                .last()
                .is_none_or(|last| *last <= listing.revision)
        );
        store.check().await.unwrap();
    }
}

#[tokio::test]
async fn a_caller_that_leaves_does_not_disturb() {
    let dir = tempfile::tempdir().unwrap();
    let store = Sqlite::open(dir.path()).unwrap();
    for i in 0..100 {
        let commit = store.commit(Txn::new().put(key(&format!("k{i}")), "v"));
        // Polled once, then dropped: it may or may not be done.
        let _ = futures::future::poll_immediate(commit).await;
    }
    let listing = store.list(&Prefix::new(""), Page::ALL).await.unwrap();
    let next = store.commit(Txn::new().put(key("end"), "v")).await.unwrap();
    assert!(next > listing.revision);
}

/// What was announced is refused while that cannot be kept; nothing else is, whatever comes together with it.
#[tokio::test]
async fn only_what_is_announced_waits_for_its_announcement() {
    let dir = tempfile::tempdir().unwrap();
    let store = Sqlite::open(dir.path()).unwrap();
    let full = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let said = full.clone();
    let begin = move || -> Box<dyn FnOnce() -> std::result::Result<(), String>> {
        let full = said.load(std::sync::atomic::Ordering::SeqCst);
        Box::new(move || match full {
            true => Err("the log is full".into()),
            false => Ok(()),
        })
    };
    store.first("a/i/", Box::new(begin));
    let announced = |name: &str| {
        let key = Key::new(format!("o/{name}"));
        Txn::new().put(key, "1").put(Key::new("a/i/0001"), "1")
    };
    let plain = |name: &str| Txn::new().put(Key::new(format!("o/{name}")), "1");
    store.commit(plain("before")).await.unwrap();
    store.commit(announced("first")).await.unwrap_err();
    for n in 0..20 {
        let (mine, other) = (format!("mine{n}"), format!("other{n}"));
        let (refused, done) =
            tokio::join!(store.commit(announced(&mine)), store.commit(plain(&other)));
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("the log is full"), "{refused}");
        done.unwrap();
    }
    let there = store.list(&Prefix::new("o/"), Page::ALL).await.unwrap();
    assert!(
        there
            .entries
            .iter()
            .all(|e| !e.key.as_str().contains("mine"))
    );
    assert_eq!(there.entries.len(), 21);
    full.store(false, std::sync::atomic::Ordering::SeqCst);
    store.commit(announced("last")).await.unwrap();
    store.close().await;
}

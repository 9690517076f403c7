use super::*;
use crate::clock::ManualClock;
use futures::StreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fs;

const SMALL: Limits = Limits {
    record: 1 << 16,
    segment_bytes: 4096,
    segment_age: Duration::from_secs(3600),
    keep_bytes: 1 << 30,
    keep_age: Duration::from_secs(1 << 30),
    by_growth: false,
};

fn payload(n: u64) -> Bytes {
    format!("record {n} {}", "x".repeat((n * 7 % 90) as usize)).into()
}

fn payloads(range: std::ops::Range<u64>) -> Vec<Bytes> {
    range.map(payload).collect()
}

async fn whole(stream: &Stream) -> Vec<Record> {
    let mut all: Vec<Record> = Vec::new();
    loop {
        let from = all.last().map_or(0, |r| r.seq + 1);
        let part = stream.read(from, 1000).await.unwrap();
        if part.is_empty() {
            return all;
        }
        all.extend(part);
    }
}

fn files(dir: &Path, end: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<_> = all.filter(|p| p.to_string_lossy().ends_with(end)).collect();
    files.sort();
    files
}

#[tokio::test]
async fn appends_rotates_reads_and_survives_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let stream = Stream::open(dir.path(), SMALL).unwrap();
    assert_eq!(stream.append(vec![]).await.unwrap(), 0);
    let mut n = 1;
    for size in [1, 3, 50, 2, 200, 1].into_iter().cycle().take(30) {
        let last = stream.append(payloads(n..n + size)).await.unwrap();
        n += size;
        assert_eq!(last, n - 1);
    }
    let mut stream = stream;
    for _ in 0..3 {
        assert_eq!(stream.range(), (1, n));
        let all = whole(&stream).await;
        assert_eq!(all.len() as u64, n - 1);
        for (record, seq) in all.iter().zip(1..) {
            assert_eq!((record.seq, &record.payload), (seq, &payload(seq)));
        }
        for from in [1, 2, 60, 61, n / 2, n - 1] {
            let part = stream.read(from, 7).await.unwrap();
            let want = from..(from + 7).min(n);
            assert_eq!(
                part.iter().map(|r| r.seq).collect::<Vec<_>>(),
                want.collect::<Vec<_>>()
            );
        }
        assert!(stream.read(n, 7).await.unwrap().is_empty());
        assert!(
            files(dir.path(), ".zst").len() > 5,
            "full segments are compressed"
        );
        assert_eq!(files(dir.path(), ".seg").len(), 1);
        assert!(matches!(
            Stream::open(dir.path(), SMALL),
            Err(StreamError::InUse(_))
        ));
        drop(stream);
        stream = Stream::open(dir.path(), SMALL).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_see_every_record_once() {
    let dir = tempfile::tempdir().unwrap();
    let stream = Stream::open(dir.path(), SMALL).unwrap();
    stream.append(payloads(1..11)).await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for w in 0..8 {
        let stream = stream.clone();
        writers.spawn(async move {
            for i in 0..50 {
                let batch = vec![Bytes::from(format!("{w}/{i}")); 3];
                let last = match i % 2 {
                    0 => stream.append(batch).await,
                    _ => stream.append_durable(batch).await,
                };
                last.unwrap();
            }
        });
    }
    let all = 10 + 8 * 50 * 3;
    let follow = |from| {
        stream
            .follow(from)
            .take(all - from as usize + 1)
            .map(|r| r.unwrap().seq)
            .collect::<Vec<_>>()
    };
    let (one, eleven) = tokio::time::timeout(Duration::from_secs(60), async {
        tokio::join!(follow(1), follow(11))
    })
    .await
    .expect("followers reach the end");
    assert_eq!(one, (1..=all as u64).collect::<Vec<_>>());
    assert_eq!(eleven, (11..=all as u64).collect::<Vec<_>>());
    while let Some(writer) = writers.join_next().await {
        writer.unwrap();
    }
    let mut tail = stream.tail(2);
    stream.append(vec!["end".into()]).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(tail.next().await.unwrap().unwrap().seq);
    }
    assert_eq!(seen, [all as u64 - 1, all as u64, all as u64 + 1]);
}

#[tokio::test]
async fn time_finds_records_also_when_the_clock_went_back() {
    let dir = tempfile::tempdir().unwrap();
    let s = Duration::from_secs;
    let clock = Arc::new(ManualClock::new(s(0), s(10_000)));
    let stream = Stream::open_with(dir.path(), SMALL, clock.clone()).unwrap();
    for minute in 0..100 {
        clock.set_wall(s(10_000 + minute * 60));
        stream.append(payloads(0..4)).await.unwrap();
    }
    assert_eq!(stream.since(s(0)).await.unwrap(), 1);
    assert_eq!(stream.since(s(10_000 + 50 * 60)).await.unwrap(), 50 * 4 + 1);
    assert_eq!(
        stream.since(s(10_000 + 50 * 60 + 1)).await.unwrap(),
        51 * 4 + 1
    );
    assert_eq!(stream.since(s(99_000)).await.unwrap(), 401);
    clock.set_wall(s(500));
    assert_eq!(stream.append(payloads(0..1)).await.unwrap(), 401);
    assert_eq!(stream.since(s(10_000 + 99 * 60)).await.unwrap(), 99 * 4 + 1);
    assert_eq!(stream.read(401, 1).await.unwrap()[0].time, s(500));
}

#[tokio::test]
async fn old_segments_go_by_age_and_by_size() {
    let dir = tempfile::tempdir().unwrap();
    let s = Duration::from_secs;
    let clock = Arc::new(ManualClock::new(s(0), s(100_000)));
    let limits = Limits {
        keep_age: s(7200),
        ..SMALL
    };
    let stream = Stream::open_with(dir.path(), limits, clock.clone()).unwrap();
    stream.append(payloads(1..200)).await.unwrap();
    clock.advance(s(3601));
    stream.append(payloads(200..201)).await.unwrap();
    assert_eq!(stream.range(), (1, 201));
    clock.advance(s(3601));
    stream.upkeep().await.unwrap();
    assert_eq!(stream.range(), (200, 201));
    assert!(matches!(
        stream.read(5, 1).await,
        Err(StreamError::Gone {
            asked: 5,
            oldest: 200
        })
    ));
    assert_eq!(stream.read(0, 1).await.unwrap()[0].seq, 200);
    assert!(matches!(
        stream.follow(5).next().await,
        Some(Err(StreamError::Gone { .. }))
    ));
    drop(stream);

    let limits = Limits {
        keep_bytes: 3000,
        ..SMALL
    };
    let stream = Stream::open_with(dir.path(), limits, clock).unwrap();
    for n in 0..100 {
        stream.append(payloads(n..n + 20)).await.unwrap();
    }
    let kept: u64 = files(dir.path(), ".zst")
        .iter()
        .map(|f| fs::metadata(f).unwrap().len())
        .sum();
    assert!(kept <= 3000, "{kept} bytes are kept");
    assert!(stream.range().0 > 1000);
    drop(stream);
    let stream = Stream::open(dir.path(), limits).unwrap();
    assert_eq!(stream.range().1, 201 + 2000);
}

#[tokio::test]
async fn limits_and_versions() {
    let dir = tempfile::tempdir().unwrap();
    let stream = Stream::open(dir.path(), SMALL).unwrap();
    let batch = vec![payload(1), Bytes::from(vec![0; SMALL.record + 1])];
    assert!(matches!(
        stream.append(batch).await,
        Err(StreamError::TooLarge { .. })
    ));
    assert_eq!(stream.range(), (1, 1), "none of the batch is in");
    stream
        .append(vec![Bytes::new(), Bytes::from(vec![7; SMALL.record])])
        .await
        .unwrap();
    let read = stream.read(0, 9).await.unwrap();
    assert_eq!(
        read.iter().map(|r| r.payload.len()).collect::<Vec<_>>(),
        [0, SMALL.record]
    );
    drop(stream);

    let file = &files(dir.path(), ".seg")[0];
    let mut bytes = fs::read(file).unwrap();
    bytes[8] = 9;
    let sum = crc32c::crc32c(&bytes[..segment::HEAD - 4]);
    bytes[segment::HEAD - 4..segment::HEAD].copy_from_slice(&sum.to_le_bytes());
    fs::write(file, &bytes).unwrap();
    assert!(matches!(
        Stream::open(dir.path(), SMALL),
        Err(StreamError::Newer {
            version: 9,
            knows: 1,
            ..
        })
    ));
    assert_eq!(fs::read(file).unwrap(), bytes);
}

/// A folder with some closed segments and an open one.
async fn sample(dir: &Path) -> Vec<Record> {
    let stream = Stream::open(dir, SMALL).unwrap();
    for n in 0..30 {
        stream
            .append(payloads(1 + n * 10..11 + n * 10))
            .await
            .unwrap();
    }
    assert_eq!(files(dir, ".seg").len(), 1);
    whole(&stream).await
}

fn copy_dir(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Opens what is left and checks: only true records, in order; new ones get new numbers and come back.
async fn check_sound(dir: &Path, truth: &[Record], what: &str) -> usize {
    let stream = Stream::open(dir, SMALL).unwrap_or_else(|e| panic!("{what}: {e}"));
    let seen = whole(&stream).await;
    assert!(seen.is_sorted_by(|a, b| a.seq < b.seq), "{what}");
    for record in &seen {
        let true_one = truth.iter().find(|t| t.seq == record.seq);
        assert_eq!(Some(record), true_one, "{what}: a wrong record");
    }
    let new = stream.append_durable(vec!["new".into()]).await.unwrap();
    let highest = seen.last().map_or(0, |r| r.seq);
    assert!(new > highest, "{what}: {new} was given before");
    assert_eq!(
        stream.read(new, 1).await.unwrap()[0].payload,
        "new",
        "{what}"
    );
    drop(stream);
    let stream = Stream::open(dir, SMALL).unwrap();
    assert_eq!(
        whole(&stream).await.len(),
        seen.len() + 1,
        "{what}: opening again changes nothing"
    );
    seen.len()
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_nothing_else() {
    let (root, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let truth = sample(root.path()).await;
    let open = files(root.path(), ".seg")[0].clone();
    let bytes = fs::read(&open).unwrap();
    let first: u64 = open.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let dir = work.path().join("s");
    let mut cuts: Vec<usize> = (0..bytes.len()).step_by(13).collect();
    cuts.extend([0, 1, segment::HEAD - 1, segment::HEAD, bytes.len() - 1]);
    for cut in cuts {
        copy_dir(root.path(), &dir);
        fs::write(dir.join(open.file_name().unwrap()), &bytes[..cut]).unwrap();
        let sound = check_sound(&dir, &truth, &format!("cut at {cut}")).await;
        // Everything before the cut is there.
        let whole = truth
            .iter()
            .filter(|r| r.seq >= first)
            .scan(segment::HEAD, |end, r| {
                *end += record::HEAD + r.payload.len();
                Some(*end)
            });
        let before = if cut < segment::HEAD {
            0
        } else {
            whole.filter(|end| *end <= cut).count()
        };
        assert_eq!(sound, first as usize - 1 + before, "cut at {cut}");
    }
}

#[tokio::test]
async fn flipped_bits_never_make_a_record() {
    let (root, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let truth = sample(root.path()).await;
    let all: Vec<_> = files(root.path(), ".seg")
        .into_iter()
        .chain(files(root.path(), ".zst"))
        .collect();
    let dir = work.path().join("s");
    let mut random = StdRng::seed_from_u64(42);
    for round in 0..300 {
        copy_dir(root.path(), &dir);
        let name = all[random.random_range(0..all.len())].file_name().unwrap();
        let mut bytes = fs::read(dir.join(name)).unwrap();
        let mut what = format!("round {round}, {}:", name.to_string_lossy());
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..bytes.len());
            match random.random_range(0..4) {
                0 => bytes[at] ^= 1 << random.random_range(0..8),
                1 => bytes.truncate(at.max(1)),
                2 => bytes[at..].iter_mut().take(40).for_each(|b| *b = 0),
                _ => {
                    let from = random.random_range(0..bytes.len());
                    let len = (bytes.len() - at.max(from)).min(100);
                    bytes.copy_within(from..from + len, at);
                }
            }
            what += &format!(" {at}");
        }
        fs::write(dir.join(name), &bytes).unwrap();
        check_sound(&dir, &truth, &what).await;
    }
}

#[tokio::test]
async fn damage_in_the_middle_loses_only_what_is_damaged() {
    let root = tempfile::tempdir().unwrap();
    let stream = Stream::open(root.path(), Limits::default()).unwrap();
    // A payload that looks like records of this very stream, as somebody might write who wants to forge one.
    let salt = 0;
    let mut forged = Vec::new();
    record::encode(&mut forged, salt, 3, 1, b"forged");
    let batch = vec![
        payload(1),
        Bytes::from(forged.repeat(20)),
        payload(3),
        payload(4),
    ];
    stream.append_durable(batch).await.unwrap();
    drop(stream);
    let file = &files(root.path(), ".seg")[0];
    let mut bytes = fs::read(file).unwrap();
    let second = segment::HEAD + record::HEAD + payload(1).len();
    bytes[second + 4] ^= 1;
    fs::write(file, &bytes).unwrap();
    let stream = Stream::open(root.path(), Limits::default()).unwrap();
    let seen = whole(&stream).await;
    assert_eq!(seen.iter().map(|r| r.seq).collect::<Vec<_>>(), [1, 3, 4]);
    assert_eq!(seen[1].payload, payload(3));
    assert_eq!(
        fs::read(&files(root.path(), ".damaged")[0]).unwrap(),
        bytes,
        "the damaged file is kept"
    );
}

#[tokio::test]
async fn a_crash_while_closing_a_segment_is_repaired() {
    let (root, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let truth = sample(root.path()).await;
    let dir = work.path().join("s");
    copy_dir(root.path(), &dir);
    // The closed form is there, the open one not removed yet; a half-written file lies about.
    let closed = files(&dir, ".zst")[0].clone();
    fs::copy(&files(&dir, ".seg")[0], closed.with_extension("seg")).unwrap();
    fs::write(dir.join("00000000000000000031.part"), b"half").unwrap();
    assert_eq!(check_sound(&dir, &truth, "both forms").await, truth.len());
    assert!(files(&dir, ".part").is_empty());
}

/// A clock that is a year ahead for a while takes no evidence with it; a year that has passed does.
#[tokio::test]
async fn a_clock_that_jumps_removes_nothing_that_goes_by_growth() {
    let dir = tempfile::tempdir().unwrap();
    let s = Duration::from_secs;
    let clock = Arc::new(ManualClock::new(s(0), s(100_000)));
    let limits = Limits {
        keep_age: s(10 * 3600),
        by_growth: true,
        ..SMALL
    };
    let stream = Stream::open_with(dir.path(), limits, clock.clone()).unwrap();
    stream.append(payloads(1..200)).await.unwrap();
    clock.advance(s(365 * 24 * 3600));
    for n in 200..204 {
        stream.append(payloads(n..n + 1)).await.unwrap();
        clock.advance(s(3601));
    }
    stream.upkeep().await.unwrap();
    assert_eq!(stream.range().0, 1, "the jump counts as one segment");
    drop(stream);
    let stream = Stream::open_with(dir.path(), limits, clock.clone()).unwrap();
    assert_eq!(stream.range().0, 1, "also at a start");
    for n in 204..220 {
        stream.append(payloads(n..n + 1)).await.unwrap();
        clock.advance(s(3601));
    }
    stream.upkeep().await.unwrap();
    assert!(stream.range().0 >= 200, "{:?}", stream.range());
}

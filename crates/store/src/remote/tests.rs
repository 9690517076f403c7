use super::*;
use crate::{
    Change, ChangeKind, Entry, Key, Memory, Page, Prefix, Revision, Store, StoreError, Txn,
};
use futures::StreamExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

/// A link in memory whose streams can be cut.
struct Wire {
    store: Arc<dyn Store>,
    scope: Arc<dyn Scope>,
    serving: Mutex<JoinSet<io::Result<()>>>,
    down: std::sync::atomic::AtomicBool,
}

impl Wire {
    fn to(store: Arc<dyn Store>) -> Arc<Self> {
        Self::guarded(store, Arc::new(Unscoped))
    }

    fn guarded(store: Arc<dyn Store>, scope: Arc<dyn Scope>) -> Arc<Self> {
        Arc::new(Wire {
            store,
            scope,
            serving: Mutex::default(),
            down: false.into(),
        })
    }

    /// Cuts every stream that is open.
    fn cut(&self) {
        *self.serving.lock() = JoinSet::new();
    }

    fn set_down(&self, down: bool) {
        self.down.store(down, std::sync::atomic::Ordering::SeqCst);
    }
}

impl OpenStream for Wire {
    fn open(&self) -> BoxFuture<'_, io::Result<BoxIo>> {
        Box::pin(async {
            if self.down.load(std::sync::atomic::Ordering::SeqCst) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (here, there) = tokio::io::duplex(16 * 1024);
            let serve = serve_store(Box::new(there), self.store.clone(), self.scope.clone());
            self.serving.lock().spawn(serve);
            Ok(Box::new(here) as BoxIo)
        })
    }
}

fn key(text: &str) -> Key {
    Key::new(text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    crate::conformance::all(|| {
        Box::pin(async { RemoteStore::new(Wire::to(Memory::new())) as Arc<dyn Store> })
    })
    .await;
}

#[tokio::test]
async fn calls_fail_soon_while_the_link_is_down_and_work_again_after() {
    let wire = Wire::to(Memory::new());
    let store = RemoteStore::new(wire.clone());
    store.commit(Txn::new().put(key("a"), "1")).await.unwrap();
    wire.set_down(true);
    wire.cut();
    store.linked().wait_for(|linked| !linked).await.unwrap();
    let began = Instant::now();
    let error = store
        .commit(Txn::new().put(key("a"), "2"))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, StoreError::Unavailable(text) if text.contains("nothing was done")),
        "{error}"
    );
    assert!(began.elapsed() < Duration::from_secs(5));
    wire.set_down(false);
    store.linked().wait_for(|linked| *linked).await.unwrap();
    assert_eq!(
        &store.get(&key("a")).await.unwrap().unwrap().value[..],
        b"1"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_outlives_a_link_that_keeps_breaking() {
    let memory = Memory::new();
    let wire = Wire::to(memory.clone());
    let store = RemoteStore::new(wire.clone());
    let mut watch = store.watch(&Prefix::new("k/"), Revision::ZERO);
    let mut tasks = JoinSet::new();
    const COMMITS: u64 = 400;
    tasks.spawn(async move {
        for n in 0..COMMITS {
            let txn = (0..5).fold(Txn::new(), |t, i| {
                t.put(key(&format!("k/{i}")), vec![n as u8; 3000])
            });
            memory.commit(txn).await.unwrap();
            if n % 10 == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    });
    let mut seen = Vec::new();
    let mut cuts = 0;
    while (seen.len() as u64) < COMMITS * 5 {
        let change = tokio::time::timeout(Duration::from_secs(30), watch.next())
            .await
            .expect("the watch goes on");
        let change = change.unwrap().unwrap();
        seen.push((
            change.revision.0,
            change.kind.key().to_string(),
            change.last,
        ));
        if seen.len() % 97 == 0 {
            wire.cut();
            cuts += 1;
        }
    }
    tasks.join_next().await.unwrap().unwrap();
    let all = (1..=COMMITS).flat_map(|r| (0..5).map(move |i| (r, format!("k/{i}"), i == 4)));
    assert!(seen.into_iter().eq(all), "every change once and in order");
    assert!(cuts > 10);
    drop(store);
    assert!(matches!(
        watch.next().await,
        Some(Err(StoreError::Unavailable(_)))
    ));
    assert!(watch.next().await.is_none());
}

/// The keys under `n/one/`, and nothing that ends in `secret`.
struct One;

fn refuse(key: &Key) -> Result<(), String> {
    match key.as_str().starts_with("n/one/") {
        true => Ok(()),
        false => Err(format!("node one may not touch key `{key}`")),
    }
}

impl Scope for One {
    fn read<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async { refuse(key) })
    }
    fn show(&self, entry: Entry) -> BoxFuture<'_, Option<Entry>> {
        Box::pin(async { refuse(&entry.key).is_ok().then_some(entry) })
    }
    fn follow(&self, change: Change) -> BoxFuture<'_, crate::Result<Vec<Change>>> {
        Box::pin(async {
            Ok(vec![match refuse(change.kind.key()) {
                Ok(()) => change,
                Err(_) => hidden(&change),
            }])
        })
    }
    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Txn, String>> {
        Box::pin(async {
            txn.writes.iter().try_for_each(|w| refuse(w.key()))?;
            Ok(txn)
        })
    }
}

#[tokio::test]
async fn a_caller_is_held_to_its_scope() {
    let memory = Memory::new();
    memory
        .commit(Txn::new().put(key("n/one/a"), "1").put(key("n/two/a"), "2"))
        .await
        .unwrap();
    let store = RemoteStore::new(Wire::guarded(memory.clone(), Arc::new(One)));
    assert!(store.get(&key("n/one/a")).await.unwrap().is_some());
    store
        .commit(Txn::new().put(key("n/one/b"), "1"))
        .await
        .unwrap();
    let listed = store.list(&Prefix::new(""), Page::ALL).await.unwrap();
    assert_eq!(listed.entries.len(), 2, "a list holds only what is its own");
    let before = memory.commit(Txn::new()).await.unwrap();
    let denied = |error: StoreError, names: &str| match error {
        StoreError::Denied(text) => assert!(text.contains(names), "{text}"),
        other => panic!("denied is expected, not {other}"),
    };
    denied(store.get(&key("n/two/a")).await.unwrap_err(), "n/two/a");
    let mixed = Txn::new().put(key("n/one/c"), "1").delete(key("n/two/a"));
    denied(store.commit(mixed).await.unwrap_err(), "n/two/a");
    let peek = Txn::new().expect(crate::Expect::Absent(key("n/two/b")));
    denied(store.commit(peek).await.unwrap_err(), "n/two/b");
    assert_eq!(
        memory.commit(Txn::new()).await.unwrap(),
        before,
        "nothing was done"
    );
    let mut watch = store.watch(&Prefix::new(""), Revision::ZERO);
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let change = watch.next().await.unwrap().unwrap();
        seen.push((
            change.revision.0,
            change.kind.key().to_string(),
            change.last,
        ));
    }
    let want = [
        (1, "n/one/a".to_owned(), false),
        (1, "hidden".to_owned(), true),
        (2, "n/one/b".to_owned(), true),
    ];
    assert_eq!(seen, want, "what is hidden still tells its revision");
}

async fn serve_bytes(bytes: &[u8]) -> (io::Result<()>, Vec<u8>) {
    let (mut here, there) = tokio::io::duplex(1 << 22);
    here.write_all(bytes).await.unwrap();
    here.shutdown().await.unwrap();
    let served = serve_store(Box::new(there), Memory::new(), Arc::new(Unscoped));
    let served = tokio::time::timeout(Duration::from_secs(20), served)
        .await
        .expect("garbage ends the stream");
    let mut answer = Vec::new();
    here.read_to_end(&mut answer).await.unwrap();
    (served, answer)
}

fn frame(bytes: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    out.extend_from_slice(bytes);
    out
}

#[tokio::test]
async fn garbage_is_refused() {
    use prost::Message;
    assert!(serve_bytes(b"").await.0.is_ok());
    assert!(
        serve_bytes(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .0
            .is_err()
    );
    assert!(
        serve_bytes(&[0xFF; 64]).await.0.is_err(),
        "a frame of 4 GiB is not waited for"
    );
    let open = frame(
        &wire::Open {
            version: wire::VERSION,
            watch: None,
        }
        .encode_to_vec(),
    );
    assert!(
        serve_bytes(&[&open[..], &[0, 0, 0, 9, 1, 2]].concat())
            .await
            .0
            .is_err(),
        "half a frame"
    );
    let newer = frame(
        &wire::Open {
            version: 99,
            watch: None,
        }
        .encode_to_vec(),
    );
    let (_, answer) = serve_bytes(&newer).await;
    assert!(
        String::from_utf8_lossy(&answer).contains("version 99"),
        "the peer is told why"
    );
    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..500 {
        let mut bytes = vec![0; random.random_range(0..200)];
        random.fill_bytes(&mut bytes);
        let _ = serve_bytes(&[&open[..], &frame(&bytes)].concat()).await;
        let _ = serve_bytes(&frame(&bytes)).await;
        let _ = serve_bytes(&bytes).await;
    }
}

/// Answers every stream with the same bytes.
struct Liar(Vec<u8>);

impl OpenStream for Liar {
    fn open(&self) -> BoxFuture<'_, io::Result<BoxIo>> {
        Box::pin(async {
            let (here, mut there) = tokio::io::duplex(1 << 16);
            there.write_all(&self.0).await?;
            Ok(Box::new(tokio::io::join(here, tokio::io::sink())) as BoxIo)
        })
    }
}

#[tokio::test]
async fn a_lying_peer_makes_calls_unavailable_and_nothing_worse() {
    let mut random = StdRng::seed_from_u64(9);
    let answers = (0..20).map(|round| {
        let mut bytes = vec![0; 100];
        random.fill_bytes(&mut bytes);
        let bytes = if round % 2 == 0 { frame(&bytes) } else { bytes };
        async {
            let store = RemoteStore::new(Arc::new(Liar(bytes)));
            tokio::time::timeout(Duration::from_secs(10), store.get(&key("a")))
                .await
                .expect("an answer")
        }
    });
    for got in futures::future::join_all(answers).await {
        assert!(matches!(got, Err(StoreError::Unavailable(_))), "{got:?}");
    }
}

#[tokio::test]
async fn a_restarted_store_behind_the_link_is_found_again() {
    let memory = Memory::new();
    let wire = Wire::to(memory.clone());
    let store = RemoteStore::new(wire);
    let at = store.commit(Txn::new().put(key("a"), "1")).await.unwrap();
    let mut watch = store.watch(&Prefix::new(""), Revision(at.0 - 1));
    assert!(matches!(
        watch.next().await.unwrap().unwrap().kind,
        ChangeKind::Put(_)
    ));
    let _again = memory.restart(crate::memory::Faults::new());
    assert!(matches!(
        store.get(&key("a")).await,
        Err(StoreError::Unavailable(_))
    ));
    let more = tokio::time::timeout(Duration::from_millis(300), watch.next()).await;
    assert!(
        more.is_err(),
        "the watch waits for the store to come back, it does not end: {more:?}"
    );
}

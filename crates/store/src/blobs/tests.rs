use super::*;
use crate::clock::ManualClock;

const MOST: u64 = 1 << 30;

fn part(n: u8, len: usize) -> Bytes {
    vec![n; len].into()
}

#[tokio::test]
async fn put_find_read_remove() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let digest = Digest::of(b"hello");
    assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
    assert_eq!(blobs.find(Place::Content(digest)).await.unwrap(), None);
    let blob = blobs.put(Goes::ByContent, "hello".into()).await.unwrap();
    assert_eq!(blob.bytes, 5);
    assert_eq!(
        blobs.put(Goes::ByContent, "hello".into()).await.unwrap(),
        blob,
        "twice is once"
    );
    assert_eq!(
        blobs.read(Place::Content(digest), 1, 3).await.unwrap(),
        "ell"
    );
    assert_eq!(
        blobs.read(Place::Content(digest), 4, 100).await.unwrap(),
        "o"
    );
    assert_eq!(
        blobs.read(Place::Content(digest), 9, 100).await.unwrap(),
        ""
    );
    assert!(blobs.verify(digest).await.unwrap());
    fs::write(&blob.path, "hellO").unwrap();
    assert!(!blobs.verify(digest).await.unwrap());
    assert!(blobs.remove(Place::Content(digest)).await.unwrap());
    assert!(!blobs.remove(Place::Content(digest)).await.unwrap());
    assert!(matches!(
        blobs.read(Place::Content(digest), 0, 1).await,
        Err(BlobError::NotFound(_))
    ));

    for (name, content) in [("b", "1"), ("a", "2"), ("b", "3")] {
        blobs
            .put(Goes::ByName(name.into()), content.into())
            .await
            .unwrap();
    }
    assert_eq!(blobs.names().await.unwrap(), ["a", "b"]);
    assert_eq!(
        blobs.read(Place::Named("b".into()), 0, 9).await.unwrap(),
        "3"
    );
    assert!(files(&dir.path().join(PARTS)).unwrap().is_empty());
}

#[tokio::test]
async fn names_cannot_leave_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let long = "x".repeat(129);
    for name in ["", ".", "..", "../x", "a/b", ".hidden", "a\0b", "é", &long] {
        let put = blobs.put(Goes::ByName(name.into()), "x".into()).await;
        assert!(matches!(put, Err(BlobError::BadName { .. })), "{name:?}");
        assert!(blobs.find(Place::Named(name.into())).await.is_err());
        assert!(blobs.upload(name, MOST).await.is_err());
    }
    assert!("zz".parse::<Digest>().is_err());
    assert!(files(&dir.path().join(PARTS)).unwrap().is_empty());
}

#[tokio::test]
async fn an_upload_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let mut upload = blobs.upload("u1", MOST).await.unwrap();
    assert!(matches!(
        blobs.upload("u1", MOST).await,
        Err(BlobError::Busy(_))
    ));
    upload.write(0, part(1, 1000)).await.unwrap();
    let wrong = upload.write(5, part(1, 1)).await;
    assert!(matches!(
        wrong,
        Err(BlobError::WrongOffset {
            has: 1000,
            given: 5,
            ..
        })
    ));
    // The request ends, another goes on.
    drop(upload);
    let upload = blobs.upload("u1", MOST).await.unwrap();
    assert_eq!(upload.offset(), 1000);
    assert_eq!(upload.pause().await.unwrap(), 1000);

    // Another run, after a power cut that left rubbish behind what was synced.
    let file = dir.path().join(PARTS).join("u1.part");
    let mut bytes = fs::read(&file).unwrap();
    bytes.extend([0; 500]);
    fs::write(&file, bytes).unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let mut upload = blobs.upload("u1", MOST).await.unwrap();
    assert_eq!(upload.offset(), 1000);
    upload.write(1000, part(2, 1000)).await.unwrap();
    let expected = Digest::of(&[part(1, 1000), part(2, 1000)].concat());
    let (blob, digest) = upload
        .finish(Goes::ByContent, Some(expected))
        .await
        .unwrap();
    assert_eq!((blob.bytes, digest), (2000, expected));
    assert!(blobs.verify(expected).await.unwrap());
    assert!(files(&dir.path().join(PARTS)).unwrap().is_empty());
}

#[tokio::test]
async fn a_wrong_or_too_large_upload_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let mut upload = blobs.upload("u", 10).await.unwrap();
    upload.write(0, part(1, 8)).await.unwrap();
    assert!(matches!(
        upload.write(8, part(1, 3)).await,
        Err(BlobError::TooLarge { most: 10, .. })
    ));
    assert_eq!(upload.offset(), 8);
    let expected = Digest::of(b"something else");
    let error = upload
        .finish(Goes::ByName("n".into()), Some(expected))
        .await
        .unwrap_err();
    assert!(error.to_string().contains(&expected.to_string()), "{error}");
    assert!(blobs.names().await.unwrap().is_empty());
    let mut upload = blobs.upload("u", 10).await.unwrap();
    assert_eq!(upload.offset(), 0);
    upload.write(0, part(1, 8)).await.unwrap();
    upload.cancel().await.unwrap();
    assert!(files(&dir.path().join(PARTS)).unwrap().is_empty());
}

#[tokio::test]
async fn leftovers_are_cleaned_but_not_what_is_being_written() {
    let dir = tempfile::tempdir().unwrap();
    let wall = SystemClock.wall();
    let clock = Arc::new(ManualClock::new(Duration::ZERO, wall));
    let blobs = Blobs::open_with(dir.path(), clock.clone()).unwrap();
    let mut old = blobs.upload("old", MOST).await.unwrap();
    old.write(0, part(1, 5)).await.unwrap();
    old.pause().await.unwrap();
    let busy = blobs.upload("busy", MOST).await.unwrap();
    fs::write(dir.path().join(PARTS).join("0123.put"), "half").unwrap();
    let day = Duration::from_secs(24 * 3600);
    assert!(blobs.clean(day).await.unwrap().is_empty());
    clock.set_wall(Duration::ZERO);
    assert!(
        blobs.clean(day).await.unwrap().is_empty(),
        "a clock that went back removes nothing"
    );
    clock.set_wall(wall + day * 2);
    assert_eq!(
        blobs.clean(day).await.unwrap(),
        ["0123.put", "old.note", "old.part"]
    );
    drop(busy);
    assert_eq!(blobs.clean(day).await.unwrap(), ["busy.part"]);
}

//! The contract of an object store, tested on both implementations.

use std::time::{Duration, SystemTime};

use confab_common::{Code, testing};
use futures::TryStreamExt;

use super::s3::{Account, Key, S3};
use super::*;
use crate::memory::Memory;

/// Runs each test on both stores.
macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod directory { $(#[tokio::test] async fn $name() { super::$name(super::directory()).await })* }
        mod s3 { $(#[tokio::test] async fn $name() { super::$name(super::bucket("")).await })* }
        mod s3_prefix { $(#[tokio::test] async fn $name() { super::$name(super::bucket("prod/eu/")).await })* }
    };
}

contract![
    object_round_trips,
    only_the_requested_range_is_read,
    missing_object_is_absent,
    object_is_visible_after_it_is_finished,
    dropped_writer_leaves_nothing,
    object_is_never_replaced,
    objects_are_written_concurrently,
    reader_may_be_dropped_early,
    deleted_object_is_absent,
    objects_are_listed_in_key_order,
    old_unfinished_writes_are_aborted,
    the_first_claim_stands,
    owner_is_replaced_and_not_listed,
];

/// Bytes of a part in the bucket; a directory has no parts.
const PART: usize = 5 * 1024 * 1024;

fn directory() -> Arc<dyn Objects> {
    Arc::new(Directory::new(testing::directory().join("objects")))
}

/// Returns a bucket that does not exist yet, or a prefix in the shared bucket.
fn bucket(prefix: &str) -> Arc<dyn Objects> {
    in_bucket(&format!("test-{}", Uuid::now_v7()), prefix)
}

fn in_bucket(name: &str, prefix: &str) -> Arc<dyn Objects> {
    let server = testing::s3();
    let key = Key { id: server.key, secret: server.secret, token: None };
    let account = Account { endpoint: Some(server.endpoint), region: "us-east-1".into(), key: Some(key) };
    // Slowness is not tested here, and the concurrency of these tests makes any store slow.
    Arc::new(S3::answering(name, prefix, account, 100 << 20, Duration::from_secs(30)))
}

/// Returns enough memory for any test.
fn parts() -> Parts {
    Memory::new(1 << 30).parts(Uuid::nil())
}

/// Returns bytes without repetitions.
fn bytes(length: usize) -> Bytes {
    (0..length.div_ceil(8) as u64)
        .flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes())
        .take(length)
        .collect()
}

async fn begin(objects: &Arc<dyn Objects>, key: Uuid, content: &Bytes) -> Box<dyn Writer> {
    let mut writer = objects.create(key, parts()).await.unwrap();
    // In chunks of a size that divides neither a part nor a disk write.
    let mut rest = content.clone();
    while !rest.is_empty() {
        let piece = rest.split_to(rest.len().min(100_003));
        writer.write(piece).await.unwrap();
    }
    writer
}

async fn put(objects: &Arc<dyn Objects>, key: Uuid, content: &Bytes) {
    begin(objects, key, content).await.finish().await.unwrap();
}

async fn get(objects: &Arc<dyn Objects>, key: Uuid, offset: u64, length: usize) -> Option<Bytes> {
    let content = objects.read(key, offset, length as u64).await.unwrap()?;
    Some(content.try_collect::<Vec<_>>().await.unwrap().concat().into())
}

async fn keys(objects: &Arc<dyn Objects>) -> Vec<Uuid> {
    objects.list(Uuid::nil(), 100).await.unwrap().iter().map(|stored| stored.key).collect()
}

async fn object_round_trips(objects: Arc<dyn Objects>) {
    for length in [0, 1, PART - 1, PART, PART + 1, 3 * PART + 5] {
        let (key, content) = (Uuid::now_v7(), bytes(length));
        put(&objects, key, &content).await;
        let read = get(&objects, key, 0, length).await;
        assert!(read == Some(content), "read {length} bytes as {:?}", read.map(|read| read.len()));
    }
}

async fn only_the_requested_range_is_read(objects: Arc<dyn Objects>) {
    let (key, content) = (Uuid::now_v7(), bytes(PART + 1000));
    put(&objects, key, &content).await;
    for (offset, length) in
        [(0, 1), (0, 0), (5, 0), (999, 4096), (PART - 3, 6), (PART, 1000), (PART + 999, 1), (1, PART + 999)]
    {
        let read = get(&objects, key, offset as u64, length).await;
        assert!(read == Some(content.slice(offset..offset + length)), "{length} bytes from offset {offset}");
    }
}

async fn missing_object_is_absent(objects: Arc<dyn Objects>) {
    let put_first = Uuid::now_v7();
    put(&objects, put_first, &bytes(1)).await;
    assert_eq!(get(&objects, Uuid::now_v7(), 0, 1).await, None);
    assert_eq!(get(&objects, Uuid::now_v7(), 0, 0).await, None);
}

async fn object_is_visible_after_it_is_finished(objects: Arc<dyn Objects>) {
    for length in [10, PART + 10] {
        let (key, content) = (Uuid::now_v7(), bytes(length));
        let writer = begin(&objects, key, &content).await;
        assert_eq!(get(&objects, key, 0, 1).await, None);
        assert!(!keys(&objects).await.contains(&key));
        writer.finish().await.unwrap();
        assert!(keys(&objects).await.contains(&key));
    }
}

async fn dropped_writer_leaves_nothing(objects: Arc<dyn Objects>) {
    for length in [0, 10, 2 * PART + 10] {
        let key = Uuid::now_v7();
        drop(begin(&objects, key, &bytes(length)).await);
        assert_eq!(get(&objects, key, 0, 1).await, None);
    }
    assert!(keys(&objects).await.is_empty());
}

async fn object_is_never_replaced(objects: Arc<dyn Objects>) {
    for length in [10, PART + 10] {
        let (key, content) = (Uuid::now_v7(), bytes(length));
        let second = begin(&objects, key, &bytes(length + 1)).await;
        put(&objects, key, &content).await;
        assert_eq!(second.finish().await.unwrap_err().code, Code::Conflict);
        assert!(get(&objects, key, 0, length).await == Some(content));
    }
}

async fn objects_are_written_concurrently(objects: Arc<dyn Objects>) {
    // Created in advance: creating the bytes takes long, and the store's answers would wait meanwhile.
    let longest = bytes(12 * 700_001);
    let written = (1..=12).map(|n| {
        let (objects, content) = (objects.clone(), longest.slice(..n * 700_001));
        tokio::spawn(async move {
            let key = Uuid::now_v7();
            put(&objects, key, &content).await;
            (key, content)
        })
    });
    for written in futures::future::join_all(written.collect::<Vec<_>>()).await {
        let (key, content) = written.unwrap();
        assert!(get(&objects, key, 0, content.len()).await == Some(content));
    }
}

async fn reader_may_be_dropped_early(objects: Arc<dyn Objects>) {
    let (key, content) = (Uuid::now_v7(), bytes(2 * PART));
    put(&objects, key, &content).await;
    for _ in 0..20 {
        let mut reading = objects.read(key, 0, content.len() as u64).await.unwrap().unwrap();
        let first = reading.try_next().await.unwrap().unwrap();
        assert!(content.starts_with(&first));
    }
    assert!(get(&objects, key, 0, content.len()).await == Some(content));
}

async fn deleted_object_is_absent(objects: Arc<dyn Objects>) {
    let (key, other) = (Uuid::now_v7(), Uuid::now_v7());
    put(&objects, key, &bytes(10)).await;
    put(&objects, other, &bytes(10)).await;
    objects.delete(key).await.unwrap();
    assert_eq!((get(&objects, key, 0, 10).await, keys(&objects).await), (None, vec![other]));
    objects.delete(key).await.unwrap();
    objects.delete(Uuid::now_v7()).await.unwrap();
}

async fn objects_are_listed_in_key_order(objects: Arc<dyn Objects>) {
    assert_eq!(objects.list(Uuid::nil(), 10).await.unwrap(), []);
    let before = SystemTime::now() - Duration::from_secs(5);
    // Keys of the same moment, of one hour, and of different years.
    let mut made = Vec::new();
    for n in 0..24_u128 {
        let key = Uuid::from_u128(0x0190_a3b4_c5d6_7000_8000_0000_0000_0000 + (n << (n * 5 % 120)) + (n << 2));
        put(&objects, key, &bytes(1)).await;
        made.push(key);
    }
    made.sort_unstable();
    made.dedup();
    let mut listed = Vec::new();
    let mut after = Uuid::nil();
    loop {
        let page = objects.list(after, 7).await.unwrap();
        assert!(
            page.iter()
                .all(|stored| stored.modified > before && stored.modified < SystemTime::now() + Duration::from_secs(5))
        );
        listed.extend(page.iter().map(|stored| stored.key));
        match page.last() {
            Some(last) if page.len() == 7 => after = last.key,
            _ => break,
        }
    }
    assert_eq!(listed, made);
    let beside = Uuid::from_u128(made[3].as_u128() + 1);
    assert_eq!(objects.list(beside, 2).await.unwrap().iter().map(|stored| stored.key).collect::<Vec<_>>(), made[4..6]);
    assert_eq!(objects.list(Uuid::max(), 2).await.unwrap(), []);
}

async fn old_unfinished_writes_are_aborted(objects: Arc<dyn Objects>) {
    let done = Uuid::now_v7();
    put(&objects, done, &bytes(PART + 1)).await;
    let mut writer = begin(&objects, Uuid::now_v7(), &bytes(PART + 10)).await;
    assert_eq!(objects.abandon(SystemTime::now() - Duration::from_secs(3600)).await.unwrap(), 0);
    assert_eq!(objects.abandon(SystemTime::now() + Duration::from_secs(3600)).await.unwrap(), 1);
    let written = writer.write(bytes(2 * PART)).await;
    assert!(written.is_err() || writer.finish().await.is_err(), "an abandoned object cannot be finished");
    assert_eq!(keys(&objects).await, [done]);
}

fn owner() -> Owner {
    Owner { installation: Uuid::now_v7(), database: "7:\"5\"".into(), turn: Uuid::now_v7(), file: String::new() }
}

/// Returns the owner of the objects, without the store's own fields.
async fn owner_of(objects: &Arc<dyn Objects>) -> Option<Owner> {
    let found = objects.owner().await.unwrap()?;
    assert!(!found.copied);
    Some(Owner { file: String::new(), ..found.owner })
}

async fn the_first_claim_stands(objects: Arc<dyn Objects>) {
    assert_eq!(owner_of(&objects).await, None);
    let owners = (0..4).map(|_| owner()).collect::<Vec<_>>();
    let claims = futures::future::join_all(owners.iter().map(|owner| objects.claim(owner.clone()))).await;
    let won =
        owners.iter().zip(claims).filter_map(|(owner, claim)| claim.unwrap().then_some(owner)).collect::<Vec<_>>();
    assert_eq!(won.len(), 1);
    assert_eq!(owner_of(&objects).await.as_ref(), Some(won[0]));
    assert!(!objects.claim(owner()).await.unwrap());
    assert_eq!(owner_of(&objects).await.as_ref(), Some(won[0]));
}

async fn owner_is_replaced_and_not_listed(objects: Arc<dyn Objects>) {
    let [first, second, third] = [owner(), owner(), owner()];
    objects.set_owner(first.clone(), None).await.unwrap();
    let found = objects.owner().await.unwrap().unwrap();
    objects.set_owner(second.clone(), Some(&found)).await.unwrap();
    assert_eq!(owner_of(&objects).await, Some(second));
    objects.set_owner(third.clone(), None).await.unwrap();
    assert_eq!(owner_of(&objects).await, Some(third));
    assert!(keys(&objects).await.is_empty());
    assert_eq!(objects.abandon(SystemTime::now() + Duration::from_secs(3600)).await.unwrap(), 0);
}

/// Each prefix contains only its own objects, even if one prefix lies within another or has the name of the objects'
/// folder.
#[tokio::test]
async fn prefixes_of_one_bucket_are_separate() {
    let name = format!("test-{}", Uuid::now_v7());
    let stores = ["", "files/", "prod/", "prod/files/", "prod2/"].map(|prefix| in_bucket(&name, prefix));
    let (mut made, mut writing) = (Vec::new(), Vec::new());
    for objects in &stores {
        let key = Uuid::now_v7();
        put(objects, key, &bytes(10)).await;
        assert!(objects.claim(owner()).await.unwrap());
        writing.push(begin(objects, Uuid::now_v7(), &bytes(PART + 10)).await);
        made.push(key);
    }
    for (objects, key) in stores.iter().zip(&made) {
        assert_eq!(keys(objects).await, [*key]);
        assert_eq!(objects.list(Uuid::nil(), 1).await.unwrap().len(), 1);
    }
    let later = SystemTime::now() + Duration::from_secs(3600);
    for (objects, key) in stores.iter().zip(&made) {
        assert_eq!(objects.abandon(later).await.unwrap(), 1);
        for other in made.iter().filter(|other| *other != key) {
            objects.delete(*other).await.unwrap();
        }
    }
    for (objects, key) in stores.iter().zip(&made) {
        assert_eq!(keys(objects).await, [*key]);
    }
}

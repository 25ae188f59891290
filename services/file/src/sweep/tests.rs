//! Orphans of both kinds are found, and nothing else is touched.

use bytes::Bytes;
use confab_common::testing;

use super::*;
use crate::link::LinkKey;
use crate::memory::Memory;
use crate::object::{self, ObjectsConfig};
use crate::store::sqlite::SqliteStore;
use crate::store::{File, User};

/// Creates a store of files, and an object store in a directory.
fn stores() -> (Arc<dyn Store>, Arc<Owned>) {
    let directory = testing::directory();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&directory.join("file.db")).unwrap());
    let objects = object::open(&ObjectsConfig::default(), &directory, 1).unwrap();
    (store.clone(), Arc::new(Owned::new(objects, store)))
}

async fn write(objects: &Arc<Owned>, id: Uuid) {
    let mut writer = objects.create(id, Memory::new(1 << 20).parts(id)).await.unwrap();
    writer.write(Bytes::from_static(b"tea")).await.unwrap();
    writer.finish().await.unwrap();
}

async fn add(store: &Arc<dyn Store>, id: Uuid) {
    let file = File {
        id,
        name: "tea.txt".into(),
        size: 3,
        content_type: "text/plain".into(),
        sha256: String::new(),
        safe_inline: false,
        uploader: User { id: Uuid::now_v7(), username: "ada".into() },
        created_at_ms: 1000,
        link_key: LinkKey::random().unwrap(),
        room: None,
        client_message_id: None,
        event: None,
        ready: true,
    };
    store.add(file).await.unwrap();
}

async fn keys(objects: &Arc<Owned>) -> Vec<Uuid> {
    objects.list(Uuid::nil(), 1000).await.unwrap().into_iter().map(|object| object.key).collect()
}

#[tokio::test]
async fn orphans_are_found_with_every_page_size() {
    for page in [1, 2, 3, 7, 1000] {
        let (store, objects) = stores();
        let (mut whole, mut bare, mut orphans) = (Vec::new(), 0, 0);
        // Runs of one kind longer than a page, at the beginning, in the middle and at the end.
        for kind in "ooooowwwwwffffwofwofwofwwwooooofffff".chars() {
            let id = Uuid::now_v7();
            if kind != 'f' {
                write(&objects, id).await;
            }
            if kind != 'o' {
                add(&store, id).await;
            }
            match kind {
                'w' => whole.push(id),
                'f' => bare += 1,
                _ => orphans += 1,
            }
        }
        let sweep = Sweep { page, ..Sweep::new(store.clone(), objects.clone(), Duration::ZERO) };
        assert_eq!(
            sweep.once().await.unwrap(),
            Orphans { objects: orphans, files: bare, uploads: 0 },
            "pages of {page}"
        );
        assert_eq!(keys(&objects).await, whole);
        assert_eq!(sweep.once().await.unwrap(), Orphans { objects: 0, files: bare, uploads: 0 });
    }
}

#[tokio::test]
async fn young_objects_are_kept() {
    let (store, objects) = stores();
    let id = Uuid::now_v7();
    write(&objects, id).await;
    let _under_way = objects.create(Uuid::now_v7(), Memory::new(1 << 20).parts(Uuid::nil())).await.unwrap();
    let sweep = Sweep::new(store, objects.clone(), Duration::from_secs(3600));
    assert_eq!(sweep.once().await.unwrap(), Orphans::default());
    assert_eq!(keys(&objects).await, [id]);
}

#[tokio::test]
async fn upload_left_by_a_crash_is_aborted() {
    let (store, objects) = stores();
    std::mem::forget(objects.create(Uuid::now_v7(), Memory::new(1 << 20).parts(Uuid::nil())).await.unwrap());
    let sweep = Sweep::new(store, objects, Duration::ZERO);
    assert_eq!(sweep.once().await.unwrap(), Orphans { uploads: 1, ..Orphans::default() });
    assert_eq!(sweep.once().await.unwrap(), Orphans::default());
}

#[tokio::test]
async fn object_queued_for_removal_is_not_an_orphan() {
    let (store, objects) = stores();
    let (object, gone) = (Uuid::now_v7(), Uuid::now_v7());
    for id in [object, gone] {
        add(&store, id).await;
        store.delete(id).await.unwrap();
    }
    write(&objects, object).await;
    let sweep = Sweep::new(store, objects.clone(), Duration::ZERO);
    assert_eq!(sweep.once().await.unwrap(), Orphans::default());
    assert_eq!(keys(&objects).await, [object]);
}

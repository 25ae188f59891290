//! Ownership of the objects, in every situation that an operator can create.

use std::path::{Path, PathBuf};
use std::process::Command;

use confab_common::{Code, testing};
use futures::future::{BoxFuture, FutureExt, ready};
use parking_lot::Mutex;

use super::*;
use crate::memory;
use crate::object;
use crate::store::sqlite::SqliteStore;

/// A database reduced to its name and its row.
struct Memory(Mutex<Installation>);

impl Memory {
    fn new() -> Arc<Self> {
        let [id, turn, next] = [(); 3].map(|()| Uuid::now_v7());
        Arc::new(Self(Mutex::new(Installation { id, database: "one".into(), turn, next })))
    }

    fn row(&self) -> Installation {
        self.0.lock().clone()
    }

    /// Returns a copy with the same name, such as one restored from the database's files.
    fn twin(&self) -> Arc<Self> {
        Arc::new(Self(Mutex::new(self.row())))
    }

    /// Returns a copy that was restored elsewhere from a dump.
    fn restored(&self) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Installation { database: "two".into(), ..self.row() })))
    }
}

impl Identity for Memory {
    fn installation(&self) -> BoxFuture<'_, Result<Installation>> {
        ready(Ok(self.row())).boxed()
    }

    fn turn(&self, next: Uuid) -> BoxFuture<'_, Result<()>> {
        let mut row = self.0.lock();
        if row.next == next {
            (row.turn, row.next) = (next, Uuid::now_v7());
        }
        ready(Ok(())).boxed()
    }

    fn renew_turns(&self) -> BoxFuture<'_, Result<()>> {
        let mut row = self.0.lock();
        (row.turn, row.next) = (Uuid::now_v7(), Uuid::now_v7());
        ready(Ok(())).boxed()
    }
}

fn owned(database: &Arc<Memory>, objects: &Path) -> Owned {
    Owned { min_turn_age: Duration::ZERO, ..Owned::new(object::in_directory(objects.into()), database.clone()) }
}

/// Starts an installation that has swept. Returns it and the directory of its objects.
async fn installation() -> (Arc<Memory>, Owned, PathBuf) {
    let (database, objects) = (Memory::new(), testing::directory());
    let owned = owned(&database, &objects);
    assert!(owned.begin_sweep().await.unwrap());
    (database, owned, objects)
}

async fn write(owned: &Owned, id: Uuid) -> Result<()> {
    owned.create(id, memory::Memory::new(1 << 20).parts(id)).await?.finish().await
}

/// Checks that objects can be read but not written or removed.
async fn may_only_read(owned: &Owned, there: Uuid) {
    assert!(!owned.begin_sweep().await.unwrap());
    assert!(!owned.are_own().await.unwrap());
    let refusals = [
        write(owned, Uuid::now_v7()).await.unwrap_err().code,
        owned.delete(there).await.unwrap_err().code,
        owned.abandon(SystemTime::now()).await.unwrap_err().code,
    ];
    assert_eq!(refusals, [Code::Unavailable; 3]);
    assert!(owned.read(there, 0, 0).await.unwrap().is_some());
    assert_eq!(owned.list(Uuid::nil(), 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn first_of_two_installations_owns_the_store() {
    let (_, first, objects) = installation().await;
    let id = Uuid::now_v7();
    write(&first, id).await.unwrap();
    may_only_read(&owned(&Memory::new(), &objects), id).await;
    assert!(first.begin_sweep().await.unwrap() && first.are_own().await.unwrap());
    first.delete(id).await.unwrap();
}

#[tokio::test]
async fn restored_copy_must_claim_the_store() {
    let (database, first, objects) = installation().await;
    let id = Uuid::now_v7();
    write(&first, id).await.unwrap();
    let copy = database.restored();
    let second = owned(&copy, &objects);
    may_only_read(&second, id).await;

    let (now, before) = owned(&copy, &objects).take_over().await.unwrap();
    assert_eq!((now.installation, now.database.as_str()), (database.row().id, "two"));
    assert_eq!(before.unwrap().database, "one");
    assert!(second.begin_sweep().await.unwrap());
    may_only_read(&first, id).await;
}

#[tokio::test]
async fn copy_is_detected_after_the_original_advances() {
    let (database, first, objects) = installation().await;
    // At either step of a turn.
    for _ in 0..2 {
        let twin = database.twin();
        assert!(owned(&twin, &objects).are_own().await.unwrap());
        for _ in 0..4 {
            assert!(first.begin_sweep().await.unwrap());
        }
        assert!(!owned(&twin, &objects).begin_sweep().await.unwrap());
        assert!(first.begin_sweep().await.unwrap());
    }
}

#[tokio::test]
async fn one_of_two_concurrent_copies_is_detected() {
    let (database, first, objects) = installation().await;
    let second = owned(&database.twin(), &objects);
    let mut both = 0;
    while first.begin_sweep().await.unwrap() && second.begin_sweep().await.unwrap() {
        both += 1;
        assert!(both < 4, "each copy takes itself for the owner");
    }
}

#[tokio::test]
async fn replicas_and_a_failed_over_database_remain_owner() {
    let (database, first, objects) = installation().await;
    let second = owned(&database, &objects);
    for _ in 0..4 {
        let (one, other) = tokio::join!(first.begin_sweep(), second.begin_sweep());
        assert!(one.unwrap() && other.unwrap());
    }
    for _ in 0..4 {
        // A failover to a replica that had not received the last turn.
        let behind = database.twin();
        assert!(first.begin_sweep().await.unwrap());
        assert!(owned(&behind, &objects).are_own().await.unwrap());
    }
}

#[tokio::test]
async fn young_turn_is_not_written_to_the_owner_object() {
    let (database, _, objects) = installation().await;
    let patient = Owned { min_turn_age: MIN_TURN_AGE, ..owned(&database, &objects) };
    for _ in 0..4 {
        assert!(patient.begin_sweep().await.unwrap());
        let found = object::in_directory(objects.clone()).owner().await.unwrap().unwrap();
        assert_eq!(found.owner.turn, database.row().turn);
    }
}

#[tokio::test]
async fn copied_directory_belongs_to_the_copy() {
    let (database, first, objects) = installation().await;
    write(&first, Uuid::now_v7()).await.unwrap();
    let copied = testing::directory();
    assert!(Command::new("cp").arg("-a").arg(objects.join(".")).arg(&copied).status().unwrap().success());
    assert!(!owned(&Memory::new(), &copied).are_own().await.unwrap());
    assert!(owned(&database.restored(), &copied).begin_sweep().await.unwrap());
    assert!(first.begin_sweep().await.unwrap());
}

#[tokio::test]
async fn copied_database_file_is_another_database() {
    let (here, there) = (testing::directory(), testing::directory());
    let id = SqliteStore::open(&here.join("file.db")).unwrap().installation().await.unwrap().id;
    assert!(Command::new("cp").arg("-a").arg(here.join(".")).arg(&there).status().unwrap().success());
    let [first, second] = [&here, &there].map(|directory| SqliteStore::open(&directory.join("file.db")));
    let [first, second] = [first.unwrap().installation().await.unwrap(), second.unwrap().installation().await.unwrap()];
    assert_eq!((first.id, second.id), (id, id));
    assert_ne!(first.database, second.database);
}

#[tokio::test]
async fn unreadable_owner_object_must_be_claimed() {
    let (database, first, objects) = installation().await;
    for damage in [&b""[..], b"{\"installation\":", &[0xff; 40_000]] {
        std::fs::write(objects.join(".confab"), damage).unwrap();
        assert!(!first.begin_sweep().await.unwrap());
        owned(&database, &objects).take_over().await.unwrap();
        assert!(first.begin_sweep().await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn owner_is_checked_again_periodically() {
    let (database, first, objects) = installation().await;
    let second = owned(&database.restored(), &objects);
    assert!(!second.are_own().await.unwrap());
    owned(&database.restored(), &objects).take_over().await.unwrap();
    assert!(first.are_own().await.unwrap(), "the last check is recent");
    assert_eq!(first.ensure_still_own().await.unwrap_err().code, Code::Unavailable);
    assert!(!first.are_own().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn recent_check_is_reused() {
    let (database, first, objects) = installation().await;
    owned(&database.restored(), &objects).take_over().await.unwrap();
    assert!(first.are_own().await.unwrap());
    tokio::time::advance(BELIEVED).await;
    assert!(!first.are_own().await.unwrap());
}

//! The contract of a store, tested on each implementation.

use confab_common::pg::PostgresConfig;
use confab_common::store::{StorageConfig, StoreUrl};
use confab_common::testing::{database, directory};
use confab_common::{Code, Result};
use futures::future::join_all;
use futures::stream::{self, StreamExt};
use uuid::Uuid;

use super::*;
use crate::username::skeleton;

macro_rules! contract {
    ($($test:ident),* $(,)?) => {
        mod on_sqlite { $(#[tokio::test] async fn $test() { super::$test(super::sqlite()).await })* }
        mod on_postgres { $(#[tokio::test] async fn $test() { super::$test(super::postgres().await).await })* }
    };
}

contract!(
    accounts_are_found_by_id_and_by_folded_name,
    a_repeated_creation_finds_the_first_account,
    of_concurrent_creations_of_one_name_one_wins,
    revocations_are_numbered_without_a_hole,
    a_session_is_revoked_once,
    a_page_ends_at_its_limit,
    purging_keeps_numbers_and_head,
    everything_survives_a_restart,
);

mod accounts;
mod audit;
mod claims;
mod directory;
mod invites;
mod keys;
mod names;
mod privileges;
mod refresh;
mod sessions;
mod skeletons;
mod upgrade;

/// As many calls as there are connections: a call that waits too long for a connection is rejected.
const AT_ONCE: usize = 4;

fn sqlite() -> StoreUrl {
    StoreUrl::Sqlite(directory().join("auth.db"))
}

async fn postgres() -> StoreUrl {
    StoreUrl::Postgres(database().await)
}

async fn open(url: &StoreUrl) -> Arc<dyn Store> {
    let postgres = PostgresConfig { postgres_connections: AT_ONCE, ..PostgresConfig::default() };
    super::open(url, &StorageConfig { data_dir: "unused".into(), postgres }).await.unwrap()
}

fn account(name: &str) -> User {
    User {
        id: Uuid::now_v7(),
        username: name.into(),
        username_folded: confab_common::text::fold(name),
        password_hash: format!("hash {}", Uuid::now_v7()),
        created_at_ms: 1_700_000_000_123,
        state: State::Active,
        profile: Profile::default(),
        claimed: None,
    }
}

async fn create(store: &Arc<dyn Store>, user: User) -> Result<User> {
    let skeleton = skeleton(&user.username_folded);
    store.create_user(user, skeleton, None, None).await
}

fn name(username: &str) -> Name {
    let folded = confab_common::text::fold(username);
    Name { username: username.into(), skeleton: skeleton(&folded), folded }
}

/// A reservation of a former name until this time.
fn reservation(free_name_at_ms: i64) -> Reservation {
    Reservation { id: Uuid::now_v7(), password_hash: "none".into(), free_name_at_ms }
}

/// A session that was opened at `created_at_ms` and whose token expires 1000 ms later.
fn session(user: &User, created_at_ms: i64) -> NewSession {
    NewSession {
        id: Uuid::now_v7(),
        user_id: user.id,
        created_at_ms,
        token_expires_at_ms: created_at_ms + 1000,
        refresh: None,
        seen: Seen { user_agent: "phone".into(), address: "203.0.113.0/24".into() },
        entry: None,
    }
}

async fn open_at(store: &Arc<dyn Store>, user: &User, created_at_ms: i64) -> Uuid {
    let session = session(user, created_at_ms);
    let id = session.id;
    assert_eq!(store.open_session(session, user.password_hash.clone()).await.unwrap().revoked, []);
    id
}

async fn session_ids(store: &Arc<dyn Store>, user: &User, now_ms: i64) -> Vec<Uuid> {
    store.sessions(user.id, now_ms).await.unwrap().iter().map(|session| session.id).collect()
}

/// Revokes what was issued before the second 200, until 9000 ms.
fn cut(except: Option<Uuid>) -> Cut {
    Cut { except, not_before_s: 200, expires_at_ms: 9000 }
}

async fn revoke(store: &dyn Store, expires_at_ms: i64) -> Revocation {
    store.revoke(Uuid::now_v7(), Uuid::now_v7(), expires_at_ms).await.unwrap()
}

fn numbers(page: &Revocations) -> Vec<u64> {
    page.items.iter().map(|revocation| revocation.number).collect()
}

async fn accounts_are_found_by_id_and_by_folded_name(url: StoreUrl) {
    let store = open(&url).await;
    let zoe = account("ZOË");
    assert_eq!(store.user(zoe.id).await.unwrap(), None);
    assert_eq!(store.user_by_name("zoë".into()).await.unwrap(), None);
    assert_eq!(create(&store, zoe.clone()).await.unwrap(), zoe);
    assert_eq!(store.user(zoe.id).await.unwrap().as_ref(), Some(&zoe));
    assert_eq!(store.user_by_name("zoë".into()).await.unwrap().as_ref(), Some(&zoe));
    assert_eq!(store.user_by_name("zoe".into()).await.unwrap(), None);
}

async fn a_repeated_creation_finds_the_first_account(url: StoreUrl) {
    let store = open(&url).await;
    let first = create(&store, account("ada")).await.unwrap();
    let again = User { id: first.id, ..account("ada") };
    assert_eq!(create(&store, again).await.unwrap(), first);
    let other_name = User { id: first.id, ..account("eve") };
    assert_eq!(create(&store, other_name).await.unwrap(), first);
    assert_eq!(store.user_by_name("eve".into()).await.unwrap(), None);
}

async fn of_concurrent_creations_of_one_name_one_wins(url: StoreUrl) {
    let store = open(&url).await;
    let outcomes = join_all((0..8).map(|n| create(&store, account(["ada", "Ada"][n % 2])))).await;
    let (won, lost) = outcomes.into_iter().partition::<Vec<_>, _>(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 7));
    assert!(lost.into_iter().all(|outcome| outcome.unwrap_err().code == Code::UsernameTaken));
    assert_eq!(store.user_by_name("ada".into()).await.unwrap().unwrap(), won[0].clone().unwrap());
}

async fn revocations_are_numbered_without_a_hole(url: StoreUrl) {
    let store = open(&url).await;
    assert_eq!(store.revocations(0, 1000).await.unwrap(), Revocations { items: vec![], head: 0 });
    let revocations = stream::iter((0..50).map(|n| revoke(store.as_ref(), 5000 + n)));
    let mut given = revocations.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
    given.sort_by_key(|revocation| revocation.number);
    let page = store.revocations(0, 1000).await.unwrap();
    assert_eq!(numbers(&page), (1..=50).collect::<Vec<_>>());
    assert_eq!(page, Revocations { items: given, head: 50 });
}

async fn a_session_is_revoked_once(url: StoreUrl) {
    let store = open(&url).await;
    let (session, user) = (Uuid::now_v7(), Uuid::now_v7());
    let answers = join_all((0..8).map(|_| store.revoke(session, user, 5000))).await;
    for answer in answers {
        assert_eq!(answer.unwrap(), Revocation { number: 1, scope: Scope::Session(session), expires_at_ms: 5000 });
    }
    assert_eq!(revoke(store.as_ref(), 5000).await.number, 2, "a repeat gets no new number");
}

async fn a_page_ends_at_its_limit(url: StoreUrl) {
    let store = open(&url).await;
    for _ in 0..5 {
        revoke(store.as_ref(), 5000).await;
    }
    let page = store.revocations(1, 2).await.unwrap();
    assert_eq!((numbers(&page), page.head), (vec![2, 3], 5));
    let page = store.revocations(3, 1000).await.unwrap();
    assert_eq!((numbers(&page), page.head), (vec![4, 5], 5));
    for beyond in [5, 6, u64::MAX] {
        assert_eq!(store.revocations(beyond, 1000).await.unwrap(), Revocations { items: vec![], head: 5 });
    }
}

async fn purging_keeps_numbers_and_head(url: StoreUrl) {
    let store = open(&url).await;
    for expires_at_ms in [1000, 9000, 2000, 3000] {
        revoke(store.as_ref(), expires_at_ms).await;
    }
    assert_eq!(store.purge(5000, 2).await.unwrap(), 2);
    assert_eq!(store.purge(5000, 2).await.unwrap(), 1);
    assert_eq!(store.purge(5000, 2).await.unwrap(), 0);
    let page = store.revocations(0, 1000).await.unwrap();
    assert_eq!((numbers(&page), page.head), (vec![2], 4));
    assert_eq!([store.shorten(9000).await.unwrap(), store.shorten(8000).await.unwrap()], [0, 1]);
    assert_eq!(store.revocations(0, 1000).await.unwrap().items[0].expires_at_ms, 8000);
    assert_eq!(store.purge(i64::MAX, 2).await.unwrap(), 1);
    assert_eq!(store.revocations(0, 1000).await.unwrap(), Revocations { items: vec![], head: 4 });
    assert_eq!(revoke(store.as_ref(), 9000).await.number, 5);
}

async fn everything_survives_a_restart(url: StoreUrl) {
    let store = open(&url).await;
    let ada = create(&store, account("ada")).await.unwrap();
    let revocation = revoke(store.as_ref(), 5000).await;
    drop(store);
    let store = open(&url).await;
    assert_eq!(store.user(ada.id).await.unwrap(), Some(ada));
    assert_eq!(store.revocations(0, 1000).await.unwrap(), Revocations { items: vec![revocation], head: 1 });
    assert_eq!(revoke(store.as_ref(), 5000).await.number, 2);
}

#[tokio::test]
async fn replicas_that_open_one_database_together_share_it() {
    let url = postgres().await;
    let replicas = join_all((0..3).map(|_| open(&url))).await;
    let outcomes = join_all(replicas.iter().map(|store| create(store, account("ada")))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    let revocations = stream::iter((0..30).map(|n| revoke(replicas[n % 3].as_ref(), 5000)));
    revocations.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
    for store in &replicas {
        let page = store.revocations(0, 1000).await.unwrap();
        assert_eq!((numbers(&page), page.head), ((1..=30).collect(), 30));
    }
}

//! Server keys.

use confab_proto::server_key::{Scope, Scopes};

use super::*;

contract!(
    a_key_is_stored_until_it_is_deleted,
    keys_are_bounded,
    a_key_and_its_entry_are_written_together,
    a_deleted_key_creates_none,
);

fn key(byte: u8) -> ServerKey {
    let scopes = [Scope::Users, Scope::Rooms].into_iter().collect();
    let created_at_ms = i64::from(byte);
    ServerKey { id: Uuid::now_v7(), name: format!("app {byte}"), sha256: [byte; 32], scopes, created_at_ms }
}

fn entry(key: &ServerKey) -> Entry {
    Entry::new(Actor::default(), "key.create", key.id)
}

async fn a_key_is_stored_until_it_is_deleted(url: StoreUrl) {
    let store = open(&url).await;
    let (second, first) = (key(2), key(1));
    let none = ServerKey { scopes: Scopes::default(), name: String::new(), ..key(3) };
    for key in [&second, &first, &none] {
        assert!(store.create_key(key.clone(), 100, entry(key)).await.unwrap());
        assert_eq!(store.key(key.id).await.unwrap().as_ref(), Some(key));
    }
    assert_eq!(store.keys().await.unwrap(), [first.clone(), second.clone(), none.clone()]);
    assert_eq!(store.key(Uuid::now_v7()).await.unwrap(), None);
    for deleted in [true, false] {
        assert_eq!(store.delete_key(second.id, entry(&second)).await.unwrap(), deleted);
        assert_eq!(store.key(second.id).await.unwrap(), None);
    }
    assert_eq!(store.keys().await.unwrap(), [first, none]);
}

async fn keys_are_bounded(url: StoreUrl) {
    let store = open(&url).await;
    let created = (0..8).map(|byte| {
        let key = key(byte);
        let entry = entry(&key);
        store.create_key(key, 3, entry)
    });
    let created = stream::iter(created).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
    assert_eq!(created.into_iter().filter(|created| *created.as_ref().unwrap()).count(), 3);
    assert_eq!(store.keys().await.unwrap().len(), 3);
    assert_eq!(store.audit(AuditPosition::TOP, 100).await.unwrap().len(), 3, "a rejected key has no entry");
}

async fn a_key_and_its_entry_are_written_together(url: StoreUrl) {
    let store = open(&url).await;
    let key = key(1);
    store.create_key(key.clone(), 100, entry(&key)).await.unwrap();
    let deletion = Entry::new(Actor { key_id: Some(key.id), request_id: "r2".into() }, "key.delete", key.id);
    assert!(!store.delete_key(Uuid::now_v7(), entry(&key)).await.unwrap());
    assert!(store.delete_key(key.id, deletion.clone()).await.unwrap());
    let entries = store.audit(AuditPosition::TOP, 100).await.unwrap();
    assert_eq!(entries.iter().map(|entry| &*entry.act).collect::<Vec<_>>(), ["key.delete", "key.create"]);
    assert_eq!((&entries[0], &entries[1].object), (&deletion, &key.id.to_string()));
}

async fn a_deleted_key_creates_none(url: StoreUrl) {
    let store = open(&url).await;
    let own = key(1);
    store.create_key(own.clone(), 100, entry(&own)).await.unwrap();
    let by_own = |key: &ServerKey| {
        let actor = Actor { key_id: Some(own.id), request_id: "r1".into() };
        store.create_key(key.clone(), 100, Entry::new(actor, "key.create", key.id))
    };
    let (second, third) = (key(2), key(3));
    assert!(by_own(&second).await.unwrap());
    assert!(store.delete_key(own.id, entry(&own)).await.unwrap());
    assert!(!by_own(&third).await.unwrap());
    assert_eq!(store.keys().await.unwrap(), [second]);
}

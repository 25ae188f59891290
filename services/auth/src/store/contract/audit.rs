//! The audit, and the acts that write it.

use confab_common::clock::now_ms;
use serde_json::json;

use super::*;

contract!(
    entries_are_listed_newest_first,
    an_entry_is_recorded_once,
    entries_cannot_be_changed_or_deleted_early,
    acts_on_users_write_entries,
    acts_without_an_effect_write_no_entry,
    a_name_and_a_profile_change_together,
    a_picture_has_an_owner,
);

pub(super) const DAY_MS: i64 = 86_400_000;

pub(super) fn entry(act: &str) -> Entry {
    let actor = Actor { key_id: Some(Uuid::from_u128(7)), request_id: "r1".into() };
    Entry::new(actor, act, Uuid::from_u128(1))
}

async fn acts(store: &Arc<dyn Store>) -> Vec<String> {
    let entries = store.audit(AuditPosition::TOP, 100).await.unwrap();
    entries.into_iter().rev().map(|entry| entry.act).collect()
}

async fn entries_are_listed_newest_first(url: StoreUrl) {
    let store = open(&url).await;
    let details = json!({"name": "é"});
    let mut entries = Vec::new();
    for (at_ms, n) in [(3, 0), (1, 1), (2, 2), (3, 3), (i64::MAX, 4)] {
        let new = Entry { at_ms, ..entry(&format!("act.{n}")) };
        let new = if n == 2 { Entry { actor: Actor::default(), ..new } } else { new.with(&details) };
        store.record(new.clone()).await.unwrap();
        entries.push(new);
    }
    entries.sort_by_key(|entry| std::cmp::Reverse((entry.at_ms, entry.id)));
    assert_eq!(store.audit(AuditPosition::TOP, 100).await.unwrap(), entries);
    let mut paged = Vec::new();
    let mut below = AuditPosition::TOP;
    loop {
        let page = store.audit(below, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        below = AuditPosition::of(last);
        paged.extend(page);
    }
    assert_eq!(paged, entries);
}

async fn an_entry_is_recorded_once(url: StoreUrl) {
    let store = open(&url).await;
    let first = entry("room.delete");
    let repeat = Entry { at_ms: first.at_ms + 5, ..first.clone() };
    for entry in [&first, &repeat] {
        store.record(entry.clone()).await.unwrap();
    }
    assert_eq!(store.audit(AuditPosition::TOP, 100).await.unwrap(), [first]);
}

async fn entries_cannot_be_changed_or_deleted_early(url: StoreUrl) {
    let store = open(&url).await;
    let now = now_ms();
    let [old, young] = [now - 91 * DAY_MS, now - 89 * DAY_MS].map(|at_ms| Entry { at_ms, ..entry("act") });
    for entry in [&old, &young] {
        store.record(entry.clone()).await.unwrap();
    }
    for statement in ["UPDATE audit SET act = 'other'", "DELETE FROM audit"] {
        let refused = match &url {
            StoreUrl::Sqlite(path) => {
                let refused = rusqlite::Connection::open(path).unwrap().execute(statement, []);
                refused.unwrap_err().to_string()
            }
            StoreUrl::Postgres(url) => {
                let refused = upgrade::connect(url).await.execute(statement, &[]).await.unwrap_err();
                refused.as_db_error().unwrap().message().to_owned()
            }
        };
        assert!(refused.contains("append-only"), "{statement}: {refused}");
    }
    if let StoreUrl::Postgres(url) = &url {
        upgrade::connect(url).await.batch_execute("TRUNCATE audit").await.unwrap_err();
    }
    assert!(store.purge_audit(now, 10).await.is_err(), "the young entry is protected");
    assert_eq!(store.audit(AuditPosition::TOP, 10).await.unwrap(), [young.clone(), old]);
    if let StoreUrl::Postgres(url) = &url {
        // A purge skips locked rows, and a refused transaction keeps its locks for a moment after its error.
        upgrade::connect(url).await.batch_execute("SELECT id FROM audit FOR UPDATE").await.unwrap();
    }
    let before = now - 90 * DAY_MS;
    assert_eq!([store.purge_audit(before, 10).await.unwrap(), store.purge_audit(before, 10).await.unwrap()], [1, 0]);
    assert_eq!(store.audit(AuditPosition::TOP, 10).await.unwrap(), [young]);
}

async fn acts_on_users_write_entries(url: StoreUrl) {
    let store = open(&url).await;
    let ada = account("ada");
    store.create_user(ada.clone(), skeleton("ada"), None, Some(entry("user.create"))).await.unwrap();
    let opened = NewSession { entry: Some(entry("token.create")), ..session(&ada, 1000) };
    store.open_session(opened, ada.password_hash.clone()).await.unwrap();
    store.end_sessions(ada.id, cut(None), Some(entry("user.end_sessions"))).await.unwrap();
    store.suspend(ada.id, Some(entry("user.suspend"))).await.unwrap();
    store.restore(ada.id, 9000, Some(entry("user.restore"))).await.unwrap();
    let deletion = Deletion {
        id: ada.id,
        password_hash: "none".into(),
        now_ms: 500,
        free_name_at_ms: 1000,
        entry: Some(entry("user.delete")),
    };
    store.delete_user(deletion).await.unwrap();
    let (id, code_sha256) = (Uuid::now_v7(), [1; 32]);
    let entry = Some(entry("invite.create"));
    let invite = Invite { id, code_sha256, uses: 1, created_at_ms: 100, expires_at_ms: 9000, entry };
    store.create_invite(invite, 10).await.unwrap();
    let mut written = acts(&store).await;
    written.sort();
    let expected = [
        "invite.create",
        "token.create",
        "user.create",
        "user.delete",
        "user.end_sessions",
        "user.restore",
        "user.suspend",
    ];
    assert_eq!(written, expected);
}

async fn acts_without_an_effect_write_no_entry(url: StoreUrl) {
    let store = open(&url).await;
    let ada = create(&store, account("ada")).await.unwrap();
    let unknown = Uuid::now_v7();
    store.create_user(account("Ada"), skeleton("ada"), None, Some(entry("a"))).await.unwrap_err();
    let refused = NewSession { entry: Some(entry("b")), ..session(&ada, 1000) };
    store.open_session(refused, "other".into()).await.unwrap_err();
    assert_eq!(store.end_sessions(unknown, cut(None), Some(entry("c"))).await.unwrap(), None);
    store.suspend(unknown, Some(entry("d"))).await.unwrap_err();
    assert_eq!(store.restore(ada.id, 9000, Some(entry("e"))).await.unwrap(), None);
    store.suspend(ada.id, None).await.unwrap();
    assert_eq!(store.suspend(ada.id, Some(entry("f"))).await.unwrap(), []);
    assert_eq!(
        store.change_user(unknown, name("eve"), ProfileChange::default(), reservation(1), entry("g")).await.unwrap(),
        None
    );
    assert_eq!(acts(&store).await, [""; 0]);
}

async fn a_name_and_a_profile_change_together(url: StoreUrl) {
    let store = open(&url).await;
    let (ada, eve) = (create(&store, account("ada")).await.unwrap(), create(&store, account("eve")).await.unwrap());
    let change = ProfileChange { display_name: Some(Some("Ada L.".into())), ..ProfileChange::default() };
    let changed =
        store.change_user(ada.id, name("Zoë"), change.clone(), reservation(1), entry("user.change")).await.unwrap();
    let profile = Profile { display_name: Some("Ada L.".into()), ..Profile::default() };
    let expected = User { username: "Zoë".into(), username_folded: "zoë".into(), profile, ..ada.clone() };
    assert_eq!((changed.as_ref(), store.user(ada.id).await.unwrap()), (Some(&expected), Some(expected.clone())));
    assert_eq!(store.user_by_name("zoë".into()).await.unwrap(), Some(expected.clone()));
    assert_eq!(store.user_by_name("ada".into()).await.unwrap().map(|user| user.state), Some(State::Deleted));
    for taken in ["EVE", "еvе"] {
        let refused =
            store.change_user(ada.id, name(taken), change.clone(), reservation(1), entry("user.change")).await;
        assert_eq!(refused.unwrap_err().code, Code::UsernameTaken, "{taken}");
    }
    assert_eq!(store.user(ada.id).await.unwrap(), Some(expected));
    let unchanged =
        store.change_user(eve.id, name("eve"), ProfileChange::default(), reservation(1), entry("user.change")).await;
    assert_eq!(unchanged.unwrap(), Some(eve.clone()));
    let (id, password_hash) = (eve.id, "none".to_owned());
    store.delete_user(Deletion { id, password_hash, now_ms: 0, free_name_at_ms: 1, entry: None }).await.unwrap();
    let refused = store.change_user(eve.id, name("eva"), change, reservation(1), entry("user.change")).await;
    assert_eq!(refused.unwrap_err().code, Code::Conflict);
    assert_eq!(acts(&store).await, ["user.change", "user.change"]);
}

async fn a_picture_has_an_owner(url: StoreUrl) {
    let store = open(&url).await;
    let ada = create(&store, account("ada")).await.unwrap();
    let file = Uuid::now_v7();
    assert_eq!(store.avatar_owner(file).await.unwrap(), None);
    let change = |file| ProfileChange { avatar_file_id: Some(file), ..ProfileChange::default() };
    let changed = store.change_profile(ada.id, change(Some(file))).await.unwrap();
    assert_eq!(store.avatar_owner(file).await.unwrap(), changed);
    store.suspend(ada.id, None).await.unwrap();
    assert_eq!(store.avatar_owner(file).await.unwrap().unwrap().id, ada.id);
    store.change_profile(ada.id, change(None)).await.unwrap();
    assert_eq!(store.avatar_owner(file).await.unwrap(), None);
    let eve = create(&store, account("eve")).await.unwrap();
    store.change_profile(eve.id, change(Some(file))).await.unwrap();
    let (id, password_hash) = (eve.id, "none".to_owned());
    store.delete_user(Deletion { id, password_hash, now_ms: 0, free_name_at_ms: 1, entry: None }).await.unwrap();
    assert_eq!(store.avatar_owner(file).await.unwrap(), None);
}

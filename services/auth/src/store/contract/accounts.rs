//! Profiles, passwords and the states of accounts.

use super::*;

contract!(
    a_profile_changes_field_by_field,
    a_password_changes_once_and_ends_the_other_sessions,
    a_suspended_user_is_blocked_until_restored,
    a_deleted_account_leaves_a_tombstone,
    the_name_of_a_deleted_account_becomes_free_later,
    users_that_leave_are_listed_until_they_have_left,
    operations_are_remembered,
);

async fn operations_are_remembered(url: StoreUrl) {
    let store = open(&url).await;
    confab_common::operations::check(store.operations()).await;
}

fn deletion(user: &User) -> Deletion {
    Deletion { id: user.id, password_hash: "none".into(), now_ms: 500, free_name_at_ms: 1000, entry: None }
}

async fn a_profile_changes_field_by_field(url: StoreUrl) {
    let store = open(&url).await;
    let ada = create(&store, account("ada")).await.unwrap();
    let file = Uuid::now_v7();
    let data = r#"{"a": 1.50, "é": "\u0000"}"#.to_owned();
    for (change, profile) in [
        (ProfileChange::default(), Profile::default()),
        (
            ProfileChange { display_name: Some(Some("Ada L.".into())), ..ProfileChange::default() },
            Profile { display_name: Some("Ada L.".into()), ..Profile::default() },
        ),
        (
            ProfileChange { avatar_file_id: Some(Some(file)), data: Some(data.clone()), ..ProfileChange::default() },
            Profile { display_name: Some("Ada L.".into()), avatar_file_id: Some(file), data: data.clone() },
        ),
        (
            ProfileChange { display_name: Some(None), avatar_file_id: Some(None), ..ProfileChange::default() },
            Profile { data: data.clone(), ..Profile::default() },
        ),
    ] {
        let changed = Some(User { profile, ..ada.clone() });
        assert_eq!(store.change_profile(ada.id, change).await.unwrap(), changed);
        assert_eq!(store.user(ada.id).await.unwrap(), changed);
    }
    assert_eq!(store.change_profile(Uuid::now_v7(), ProfileChange::default()).await.unwrap(), None);
}

async fn a_password_changes_once_and_ends_the_other_sessions(url: StoreUrl) {
    let store = open(&url).await;
    let (ada, eve) = (create(&store, account("ada")).await.unwrap(), create(&store, account("eve")).await.unwrap());
    let (first, second) = (open_at(&store, &ada, 1000).await, open_at(&store, &ada, 2000).await);
    let of_eve = open_at(&store, &eve, 1000).await;
    let change = || store.change_password(ada.id, ada.password_hash.clone(), "new".into(), cut(Some(second)));
    let ended = change().await.unwrap().unwrap();
    let before = Scope::Before { user_id: ada.id, not_before_s: 200, except: Some(second) };
    assert_eq!(
        ended,
        [
            Revocation { number: 1, scope: Scope::Session(first), expires_at_ms: 2000 },
            Revocation { number: 2, scope: before, expires_at_ms: 9000 },
        ]
    );
    assert_eq!(store.revocations(0, 10).await.unwrap(), Revocations { items: ended, head: 2 });
    assert_eq!((session_ids(&store, &ada, 0).await, session_ids(&store, &eve, 0).await), (vec![second], vec![of_eve]));
    assert_eq!(store.user(ada.id).await.unwrap().unwrap().password_hash, "new");
    assert_eq!(change().await.unwrap(), None, "the earlier hash is gone");
    // A session whose password was verified before the change is not opened after it.
    let late = store.open_session(session(&ada, 3000), ada.password_hash.clone()).await;
    assert_eq!(late.unwrap_err().code, Code::InvalidCredentials);
    let opened = store.open_session(session(&ada, 3000), "new".into()).await.unwrap();
    assert_eq!(opened, Opened { revoked: vec![], tokens_from_s: 200 });
}

async fn a_suspended_user_is_blocked_until_restored(url: StoreUrl) {
    let store = open(&url).await;
    let ada = create(&store, account("ada")).await.unwrap();
    let first = open_at(&store, &ada, 1000).await;
    let ended = store.suspend(ada.id, None).await.unwrap();
    let blocked = Scope::Blocked { user_id: ada.id, deleted: false };
    assert_eq!(ended.iter().map(|ended| ended.scope).collect::<Vec<_>>(), [Scope::Session(first), blocked]);
    assert_eq!(store.suspend(ada.id, None).await.unwrap(), []);
    assert_eq!(store.user(ada.id).await.unwrap().unwrap().state, State::Suspended);
    let refused = |hash: &str| store.open_session(session(&ada, 3000), hash.into());
    assert_eq!(refused(&ada.password_hash).await.unwrap_err().code, Code::Forbidden);
    assert_eq!(refused("other").await.unwrap_err().code, Code::InvalidCredentials);
    // A block is never trimmed.
    assert_eq!(store.shorten(5000).await.unwrap(), 0);
    assert_eq!(store.purge(i64::MAX, 10).await.unwrap(), 1);
    assert_eq!(numbers(&store.revocations(0, 10).await.unwrap()), [2]);

    let restored = store.restore(ada.id, 9000, None).await.unwrap();
    let unblocked = Revocation { number: 3, scope: Scope::Unblocked { user_id: ada.id }, expires_at_ms: 9000 };
    assert_eq!(restored, Some(unblocked.clone()));
    assert_eq!(store.restore(ada.id, 9000, None).await.unwrap(), None);
    assert_eq!(store.revocations(0, 10).await.unwrap(), Revocations { items: vec![unblocked], head: 3 });
    open_at(&store, &ada, 3000).await;
    for _ in 0..3 {
        store.suspend(ada.id, None).await.unwrap();
        store.restore(ada.id, 9000, None).await.unwrap();
    }
    let left = store.revocations(0, 100).await.unwrap();
    let of_user = left.items.iter().filter(|left| !matches!(left.scope, Scope::Session(_))).count();
    assert_eq!(of_user, 1, "a later entry replaces an earlier one");
    for unknown in [store.suspend(Uuid::now_v7(), None).await.err(), store.restore(Uuid::now_v7(), 0, None).await.err()]
    {
        assert_eq!(unknown.unwrap().code, Code::NotFound);
    }
}

async fn a_deleted_account_leaves_a_tombstone(url: StoreUrl) {
    let store = open(&url).await;
    let ada = create(&store, account("Ada")).await.unwrap();
    let change = ProfileChange { display_name: Some(Some("Ada".into())), ..ProfileChange::default() };
    store.change_profile(ada.id, change).await.unwrap();
    let first = open_at(&store, &ada, 1000).await;
    let token = [7; 32];
    let reset = PasswordReset { user_id: ada.id, token_sha256: token, created_at_ms: 0, expires_at_ms: 9000 };
    store.create_reset(reset).await.unwrap();

    let ended = store.delete_user(deletion(&ada)).await.unwrap();
    let scopes = [Scope::Session(first), Scope::Blocked { user_id: ada.id, deleted: true }];
    assert_eq!(ended.iter().map(|ended| ended.scope).collect::<Vec<_>>(), scopes);
    let tombstone = User {
        username: "deleted".into(),
        password_hash: "none".into(),
        state: State::Deleted,
        profile: Profile::default(),
        ..ada.clone()
    };
    assert_eq!(store.user(ada.id).await.unwrap(), Some(tombstone));
    assert_eq!(store.delete_user(deletion(&ada)).await.unwrap(), [], "a repeat changes nothing");
    assert_eq!(store.delete_user(deletion(&account("eve"))).await.unwrap_err().code, Code::NotFound);
    for refused in [store.suspend(ada.id, None).await.err(), store.restore(ada.id, 0, None).await.err()] {
        assert_eq!(refused.unwrap().code, Code::Conflict);
    }
    assert_eq!(store.change_profile(ada.id, ProfileChange::default()).await.unwrap(), None);
    assert_eq!(store.change_password(ada.id, "none".into(), "new".into(), cut(None)).await.unwrap(), None);
    assert_eq!(store.end_sessions(ada.id, cut(None), None).await.unwrap(), None);
    assert_eq!(store.reset_user(token, 1).await.unwrap(), None);
    for hash in ["none", &ada.password_hash] {
        let opened = store.open_session(session(&ada, 3000), hash.into()).await;
        assert_eq!(opened.unwrap_err().code, Code::InvalidCredentials);
    }
}

async fn the_name_of_a_deleted_account_becomes_free_later(url: StoreUrl) {
    let store = open(&url).await;
    let ada = create(&store, account("scope")).await.unwrap();
    store.delete_user(deletion(&ada)).await.unwrap();
    for early in [0, 1000] {
        assert_eq!(store.free_names(early, 10).await.unwrap(), 0);
        for taken in ["SCOPE", "ѕсоре"] {
            assert_eq!(create(&store, account(taken)).await.unwrap_err().code, Code::UsernameTaken, "{taken}");
        }
    }
    assert_eq!([store.free_names(1001, 10).await.unwrap(), store.free_names(1001, 10).await.unwrap()], [1, 0]);
    let next = create(&store, account("scope")).await.unwrap();
    assert_eq!(store.user_by_name("scope".into()).await.unwrap(), Some(next));
    assert_eq!(store.user(ada.id).await.unwrap().unwrap().username, "deleted");
}

async fn users_that_leave_are_listed_until_they_have_left(url: StoreUrl) {
    let store = open(&url).await;
    let mut left = Vec::new();
    for name in ["ada", "eve", "zoë"] {
        let user = create(&store, account(name)).await.unwrap();
        store.delete_user(deletion(&user)).await.unwrap();
        left.push(Leaving { user_id: user.id, username: name.into() });
    }
    assert_eq!(store.leaving(Uuid::nil(), 2).await.unwrap(), left[..2]);
    assert_eq!(store.leaving(left[1].user_id, 2).await.unwrap(), left[2..]);
    for _ in 0..2 {
        store.has_left(left[0].user_id).await.unwrap();
    }
    assert_eq!(store.leaving(Uuid::nil(), 10).await.unwrap(), left[1..]);
}

//! Sessions and their end.

use super::*;

contract!(
    sessions_are_listed_until_they_expire,
    above_50_sessions_the_oldest_one_ends,
    a_revoked_session_is_not_listed,
    a_session_is_ended_by_its_user_only,
    all_sessions_end_in_one_step,
    expired_sessions_are_purged,
);

async fn sessions_are_listed_until_they_expire(url: StoreUrl) {
    let store = open(&url).await;
    let (ada, eve) = (create(&store, account("ada")).await.unwrap(), create(&store, account("eve")).await.unwrap());
    let (first, second) = (open_at(&store, &ada, 1000).await, open_at(&store, &ada, 1500).await);
    open_at(&store, &eve, 1000).await;
    let listed = store.sessions(ada.id, 1999).await.unwrap();
    assert_eq!(listed.iter().map(|session| session.id).collect::<Vec<_>>(), [second, first]);
    let seen = session(&ada, 0).seen;
    assert_eq!(listed[1], StoredSession { id: first, created_at_ms: 1000, last_seen_at_ms: 1000, seen });
    assert_eq!(session_ids(&store, &ada, 2000).await, [second]);
    assert!(session_ids(&store, &account("x"), 0).await.is_empty());
    let unknown = store.open_session(session(&account("x"), 0), "hash".into()).await;
    assert_eq!(unknown.unwrap_err().code, Code::InvalidCredentials);
}

async fn above_50_sessions_the_oldest_one_ends(url: StoreUrl) {
    let store = open(&url).await;
    let ada = create(&store, account("ada")).await.unwrap();
    let mut ids = Vec::new();
    for n in 0..50 {
        ids.push(open_at(&store, &ada, 1000 + n).await);
    }
    let next = session(&ada, 1050);
    let opened = store.open_session(next.clone(), ada.password_hash.clone()).await.unwrap();
    let revoked = Revocation { number: 1, scope: Scope::Session(ids[0]), expires_at_ms: 2000 };
    assert_eq!(opened, Opened { revoked: vec![revoked.clone()], tokens_from_s: 0 });
    assert_eq!(store.revocations(0, 10).await.unwrap(), Revocations { items: vec![revoked], head: 1 });
    let listed = session_ids(&store, &ada, 1050).await;
    assert_eq!((listed.len(), listed[0], listed[49]), (50, next.id, ids[1]));
    // Concurrent logins count one another.
    let more = join_all((0..8).map(|_| store.open_session(session(&ada, 1060), ada.password_hash.clone()))).await;
    assert_eq!(more.into_iter().map(|opened| opened.unwrap().revoked.len()).sum::<usize>(), 8);
    assert_eq!(session_ids(&store, &ada, 1060).await.len(), 50);
    // Expired sessions do not count.
    assert_eq!(store.open_session(session(&ada, 5000), ada.password_hash.clone()).await.unwrap().revoked, []);
}

async fn a_revoked_session_is_not_listed(url: StoreUrl) {
    let store = open(&url).await;
    let ada = create(&store, account("ada")).await.unwrap();
    let (first, second) = (open_at(&store, &ada, 1000).await, open_at(&store, &ada, 1500).await);
    // Another token of the session may expire later than the one that logs out.
    let revoked = store.revoke(first, ada.id, 1200).await.unwrap();
    assert_eq!(revoked, Revocation { number: 1, scope: Scope::Session(first), expires_at_ms: 2000 });
    assert_eq!(store.revoke(first, ada.id, 1200).await.unwrap(), revoked);
    assert_eq!(store.revoke(second, ada.id, 7000).await.unwrap().expires_at_ms, 7000);
    assert!(session_ids(&store, &ada, 0).await.is_empty());
}

async fn a_session_is_ended_by_its_user_only(url: StoreUrl) {
    let store = open(&url).await;
    let (ada, eve) = (create(&store, account("ada")).await.unwrap(), create(&store, account("eve")).await.unwrap());
    let first = open_at(&store, &ada, 1000).await;
    assert_eq!(store.end_session(eve.id, first, 0).await.unwrap(), None);
    assert_eq!(store.end_session(ada.id, Uuid::now_v7(), 0).await.unwrap(), None);
    assert_eq!(store.end_session(ada.id, first, 2000).await.unwrap(), None, "expired");
    let ended = join_all((0..4).map(|_| store.end_session(ada.id, first, 0))).await;
    let revocation = Some(Revocation { number: 1, scope: Scope::Session(first), expires_at_ms: 2000 });
    assert!(ended.iter().all(|ended| *ended.as_ref().unwrap() == revocation), "{ended:?}");
    assert_eq!(store.end_session(eve.id, first, 0).await.unwrap(), None);
    assert!(session_ids(&store, &ada, 0).await.is_empty());
}

async fn all_sessions_end_in_one_step(url: StoreUrl) {
    let store = open(&url).await;
    let (ada, eve) = (create(&store, account("ada")).await.unwrap(), create(&store, account("eve")).await.unwrap());
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(open_at(&store, &ada, 1000 + n).await);
    }
    open_at(&store, &eve, 1000).await;
    let ended = store.end_sessions(ada.id, cut(Some(ids[1])), None).await.unwrap().unwrap();
    let before = |except| Scope::Before { user_id: ada.id, not_before_s: 200, except };
    let scopes = |ended: &[Revocation]| ended.iter().map(|ended| ended.scope).collect::<Vec<_>>();
    assert_eq!(scopes(&ended), [Scope::Session(ids[0]), Scope::Session(ids[2]), before(Some(ids[1]))]);
    assert_eq!(session_ids(&store, &ada, 0).await, [ids[1]]);
    let ended = store.end_sessions(ada.id, cut(None), None).await.unwrap().unwrap();
    assert_eq!(scopes(&ended), [Scope::Session(ids[1]), before(None)]);
    let page = store.revocations(0, 10).await.unwrap();
    assert_eq!((numbers(&page), page.head), (vec![1, 2, 4, 5], 5), "a later cut replaces an earlier one");
    assert_eq!(page.items[3], ended[1]);
    assert_eq!((session_ids(&store, &ada, 0).await.len(), session_ids(&store, &eve, 0).await.len()), (0, 1));
    assert_eq!(store.end_sessions(Uuid::now_v7(), cut(None), None).await.unwrap(), None);
    // A cut expires like a session.
    assert_eq!(store.purge(9001, 10).await.unwrap(), 4);
    // An earlier time does not make later tokens valid again.
    let earlier = Cut { not_before_s: 100, ..cut(None) };
    store.end_sessions(ada.id, earlier, None).await.unwrap();
    let opened = store.open_session(session(&ada, 3000), ada.password_hash.clone()).await.unwrap();
    assert_eq!(opened.tokens_from_s, 200);
}

async fn expired_sessions_are_purged(url: StoreUrl) {
    let store = open(&url).await;
    let ada = create(&store, account("ada")).await.unwrap();
    for n in 0..4 {
        open_at(&store, &ada, 1000 + n).await;
    }
    for (before, purged) in [(2000, 0), (2003, 2), (2003, 1), (2003, 0), (2004, 1)] {
        assert_eq!(store.purge_sessions(before, 2).await.unwrap(), purged, "{before}");
    }
    assert_eq!(store.revocations(0, 10).await.unwrap().head, 0, "the tokens have expired");
}

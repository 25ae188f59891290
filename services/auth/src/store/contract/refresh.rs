//! The succession of refresh tokens.

use super::*;

contract!(
    concurrent_uses_of_a_token_get_one_successor,
    a_repeat_gets_the_same_successor_until_it_is_used,
    sessions_move_on_with_each_use,
    a_session_without_refresh_tokens_cannot_be_refreshed,
    sessions_that_have_ended_cannot_be_refreshed,
);

/// The token with this number; its successor under the first key is the next number.
fn token(number: u8) -> Sha256 {
    [number; 32]
}

fn uses(session: &NewSession, number: u8, now_ms: i64) -> Rotation {
    Rotation {
        session_id: session.id,
        presented: token(number),
        successors: vec![token(number + 1), token(number + 100)],
        is_genuine: true,
        now_ms,
        expires_at_ms: now_ms + 100_000,
        token_expires_at_ms: now_ms + 1000,
        seen: Seen { user_agent: format!("agent {number}"), address: "2001:db8::/48".into() },
    }
}

async fn open_refreshable(store: &Arc<dyn Store>, user: &User) -> NewSession {
    let refresh = Some(Refreshable { token_sha256: token(1), expires_at_ms: 100_000 });
    let session = NewSession { refresh, ..session(user, 1000) };
    store.open_session(session.clone(), user.password_hash.clone()).await.unwrap();
    session
}

fn next(user: &User) -> Rotated {
    Rotated::Next { key: 0, user: Box::new(user.clone()) }
}

async fn concurrent_uses_of_a_token_get_one_successor(url: StoreUrl) {
    let store = open(&url).await;
    let ada = create(&store, account("ada")).await.unwrap();
    let session = open_refreshable(&store, &ada).await;
    for number in 1..4 {
        let rotations = stream::iter((0..20).map(|_| store.rotate(uses(&session, number, 2000))));
        let given = rotations.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
        assert!(given.iter().all(|given| *given.as_ref().unwrap() == next(&ada)), "{given:?}");
    }
    assert_eq!(session_ids(&store, &ada, 2000).await, [session.id]);
}

async fn a_repeat_gets_the_same_successor_until_it_is_used(url: StoreUrl) {
    let store = open(&url).await;
    let ada = create(&store, account("ada")).await.unwrap();
    let session = open_refreshable(&store, &ada).await;
    assert_eq!(store.rotate(uses(&session, 1, 2000)).await.unwrap(), next(&ada));
    assert_eq!(store.rotate(uses(&session, 1, 90_000)).await.unwrap(), next(&ada), "the successor is unused");
    // Another replica may have the key of the successor at another place.
    let turned = Rotation { successors: vec![token(77), token(2)], ..uses(&session, 1, 90_000) };
    assert_eq!(store.rotate(turned).await.unwrap(), Rotated::Next { key: 1, user: Box::new(ada.clone()) });
    assert_eq!(store.rotate(uses(&session, 2, 91_000)).await.unwrap(), next(&ada));
    assert_eq!(store.rotate(uses(&session, 1, 101_000)).await.unwrap(), next(&ada), "within 10 s of the use");
    let forged = Rotation { is_genuine: false, ..uses(&session, 50, 101_000) };
    assert_eq!(store.rotate(forged).await.unwrap(), Rotated::Unknown);
    let reused = Rotated::Reused { user_id: ada.id, token_expires_at_ms: 102_000 };
    assert_eq!(store.rotate(uses(&session, 1, 101_001)).await.unwrap(), reused);
    assert_eq!(store.rotate(uses(&session, 40, 101_001)).await.unwrap(), reused, "older than the stored tokens");
    assert_eq!(store.rotate(uses(&session, 3, 101_001)).await.unwrap(), next(&ada), "the caller ends the session");
}

async fn sessions_move_on_with_each_use(url: StoreUrl) {
    let store = open(&url).await;
    let ada = create(&store, account("ada")).await.unwrap();
    let session = open_refreshable(&store, &ada).await;
    let listed = async || store.sessions(ada.id, 0).await.unwrap().remove(0);
    assert_eq!(listed().await.last_seen_at_ms, 1000);
    store.rotate(uses(&session, 1, 50_000)).await.unwrap();
    let after = StoredSession {
        id: session.id,
        created_at_ms: 1000,
        last_seen_at_ms: 50_000,
        seen: Seen { user_agent: "agent 1".into(), address: "2001:db8::/48".into() },
    };
    assert_eq!(listed().await, after);
    store.rotate(uses(&session, 1, 60_000)).await.unwrap();
    assert_eq!(listed().await, after, "a repeat writes the time of the last use every 5 minutes");
    assert_eq!(session_ids(&store, &ada, 159_999).await, [session.id]);
    assert!(session_ids(&store, &ada, 160_000).await.is_empty());
    assert_eq!(store.rotate(uses(&session, 2, 160_000)).await.unwrap(), Rotated::Unknown, "expired");
    // The revocation lasts as long as the newest access token.
    assert_eq!(store.revoke(session.id, ada.id, 2000).await.unwrap().expires_at_ms, 61_000);
}

async fn a_session_without_refresh_tokens_cannot_be_refreshed(url: StoreUrl) {
    let store = open(&url).await;
    let ada = create(&store, account("ada")).await.unwrap();
    let plain = session(&ada, 1000);
    store.open_session(plain.clone(), ada.password_hash.clone()).await.unwrap();
    assert_eq!(store.rotate(uses(&plain, 1, 1000)).await.unwrap(), Rotated::Unknown);
    assert_eq!(store.rotate(uses(&session(&ada, 0), 1, 1000)).await.unwrap(), Rotated::Unknown);
}

async fn sessions_that_have_ended_cannot_be_refreshed(url: StoreUrl) {
    let store = open(&url).await;
    let ada = create(&store, account("ada")).await.unwrap();
    let [first, second, third] = [
        open_refreshable(&store, &ada).await,
        open_refreshable(&store, &ada).await,
        open_refreshable(&store, &ada).await,
    ];
    store.revoke(first.id, ada.id, 2000).await.unwrap();
    assert_eq!(store.rotate(uses(&first, 1, 1000)).await.unwrap(), Rotated::Unknown);
    store.end_sessions(ada.id, cut(Some(third.id)), None).await.unwrap();
    assert_eq!(store.rotate(uses(&second, 1, 1000)).await.unwrap(), Rotated::Unknown);
    assert_eq!(store.rotate(uses(&third, 1, 1000)).await.unwrap(), next(&ada));
    store.suspend(ada.id, None).await.unwrap();
    assert_eq!(store.rotate(uses(&third, 2, 1000)).await.unwrap(), Rotated::Unknown);
}

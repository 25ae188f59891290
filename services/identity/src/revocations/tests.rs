use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::testing::{bus, eventually, fake};
use confab_proto::auth::v1::{ListRevocationsResponse, RevocationKind};

/// An auth service whose newest revocation is `head` and that returns two revocations per page.
fn auth(head: Arc<AtomicU64>) -> AuthServiceClient<Transport> {
    AuthServiceClient::new(fake(move |_, body| {
        let after = ListRevocationsRequest::decode(body).unwrap().after;
        let head = head.load(Ordering::Relaxed);
        let revocations = (after + 1..=head).take(2).map(revocation).collect();
        Ok(ListRevocationsResponse { revocations, head }.encode_to_vec())
    }))
}

fn id(number: u64) -> Uuid {
    Uuid::from_u128(number.into())
}

fn revocation(number: u64) -> Revocation {
    let session_id = id(number).to_string();
    Revocation { number, session_id, expires_at_ms: i64::MAX, ..Revocation::default() }
}

fn is_revoked(revocations: &Revocations, session_id: Uuid) -> bool {
    let sign_in = SignIn { session_id, issued_at: 0, expires_at: i64::MAX };
    revocations.cause(Uuid::nil(), sign_in) == Some(Cause::LoggedOut)
}

#[tokio::test]
async fn reads_all_pages_then_follows_hints_and_polls() {
    let (head, bus, process) = (Arc::new(AtomicU64::new(5)), bus(), Process::new());
    let revocations = Revocations::start(auth(head.clone()), &bus, &process);
    process.readiness.started();
    eventually(|| process.readiness.missing().is_none()).await;
    assert!((1..=5).all(|n| is_revoked(&revocations, id(n))) && !is_revoked(&revocations, id(6)));

    let mut news = revocations.subscribe();
    bus.publish(REVOCATIONS, revocation(9).encode_to_vec());
    bus.publish(REVOCATIONS, &b"garbage"[..]);
    bus.publish(REVOCATIONS, Revocation { session_id: "s8".into(), ..revocation(8) }.encode_to_vec());
    assert_eq!(news.recv().await.unwrap(), Revoked::Session(id(9)));
    // The hint arrived before its predecessors, which are still read; the sign-in is announced once.
    head.store(9, Ordering::Relaxed);
    for n in 6..=8 {
        assert_eq!(news.recv().await.unwrap(), Revoked::Session(id(n)));
    }
    revocations.catch_up().await.unwrap();
    assert!(news.try_recv().is_err());
}

#[tokio::test]
async fn a_restored_auth_is_read_from_the_beginning() {
    let head = Arc::new(AtomicU64::new(5));
    let revocations = Revocations::start(auth(head.clone()), &bus(), &Process::new());
    revocations.catch_up().await.unwrap();
    head.store(2, Ordering::Relaxed);
    revocations.catch_up().await.unwrap();
    head.store(6, Ordering::Relaxed);
    revocations.catch_up().await.unwrap();
    assert!(is_revoked(&revocations, id(5)) && is_revoked(&revocations, id(6)));
}

#[tokio::test]
async fn a_malformed_id_is_skipped() {
    let ids = ["", "s1", "'; --", "00000000-0000-0000-0000-00000000000g", &"x".repeat(100_000)].map(str::to_owned);
    let count = ids.len() as u64;
    let auth = fake(move |_, body| {
        let after = ListRevocationsRequest::decode(body).unwrap().after;
        let listed = (after + 1..=count + 1).take(2);
        let revocations = listed.map(|number| match ids.get(number as usize - 1) {
            Some(session_id) => Revocation { session_id: session_id.clone(), ..revocation(number) },
            None => revocation(number),
        });
        Ok(ListRevocationsResponse { revocations: revocations.collect(), head: count + 1 }.encode_to_vec())
    });
    let revocations = Revocations::start(AuthServiceClient::new(auth), &bus(), &Process::new());
    revocations.catch_up().await.unwrap();
    assert!(is_revoked(&revocations, id(count + 1)));
    assert_eq!(revocations.0.ended.read().sessions(), 1);
}

#[tokio::test]
async fn expired_revocations_are_purged() {
    let revocations = Revocations::start(auth(Arc::default()), &bus(), &Process::new());
    revocations.add(id(1), 1);
    revocations.add(id(2), i64::MAX);
    revocations.0.ended.write().purge(now_ms());
    assert!(!is_revoked(&revocations, id(1)) && is_revoked(&revocations, id(2)));
}

#[tokio::test]
async fn revocations_of_users_are_followed() {
    let (head, bus, process) = (Arc::<AtomicU64>::default(), bus(), Process::new());
    let (answering, user) = (head.clone(), Uuid::from_u128(77));
    let entry = move |number: u64| {
        let kind = if number == 1 { RevocationKind::Blocked } else { RevocationKind::Unblocked };
        Revocation { number, kind: kind.into(), user_id: user.to_string(), ..Revocation::default() }
    };
    let auth = fake(move |_, body| {
        let after = ListRevocationsRequest::decode(body).unwrap().after;
        let head = answering.load(Ordering::Relaxed);
        let revocations = (after + 1..=head).map(entry).collect();
        Ok(ListRevocationsResponse { revocations, head }.encode_to_vec())
    });
    let revocations = Revocations::start(AuthServiceClient::new(auth), &bus, &process);
    let mut news = revocations.subscribe();
    let sign_in = SignIn { session_id: Uuid::nil(), issued_at: i64::MAX, expires_at: i64::MAX };
    eventually(|| {
        // Again until the gateway has subscribed.
        bus.publish(REVOCATIONS, entry(1).encode_to_vec());
        revocations.cause(user, sign_in) == Some(Cause::Revoked)
    })
    .await;
    assert_eq!(news.recv().await.unwrap(), Revoked::User(user));
    revocations.add_all(&[entry(2)]);
    assert_eq!(revocations.cause(user, sign_in), None);
    head.store(2, Ordering::Relaxed);
    revocations.catch_up().await.unwrap();
    assert_eq!(revocations.cause(user, sign_in), None, "an entry that was read late does not block again");
}

#[tokio::test]
async fn an_entry_that_a_replica_cannot_return_is_read_from_another_one() {
    let (is_new, user) = (Arc::new(AtomicU64::new(0)), Uuid::from_u128(77));
    let answering = is_new.clone();
    let auth = fake(move |_, body| {
        let after = ListRevocationsRequest::decode(body).unwrap().after;
        let entry = |number: u64| match (number, answering.load(Ordering::Relaxed)) {
            (2, 0) => Revocation {
                session_id: uuid::Builder::from_custom_bytes([7; 16]).into_uuid().to_string(),
                ..revocation(2)
            },
            (2, _) => {
                let (kind, user_id) = (RevocationKind::Blocked.into(), user.to_string());
                Revocation { number: 2, kind, user_id, ..Revocation::default() }
            }
            (number, _) => revocation(number),
        };
        let revocations = (after + 1..=5).take(2).map(entry).collect();
        Ok(ListRevocationsResponse { revocations, head: 5 }.encode_to_vec())
    });
    let revocations = Revocations::start(AuthServiceClient::new(auth), &bus(), &Process::new());
    let sign_in = SignIn { session_id: Uuid::nil(), issued_at: i64::MAX, expires_at: i64::MAX };
    revocations.catch_up().await.unwrap();
    assert!((3..=5).all(|n| is_revoked(&revocations, id(n))), "later entries are read");
    assert_eq!(revocations.cause(user, sign_in), None);
    is_new.store(1, Ordering::Relaxed);
    revocations.catch_up().await.unwrap();
    assert_eq!(revocations.cause(user, sign_in), Some(Cause::Revoked));
}

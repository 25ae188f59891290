use confab_identity::testing::signed;
use confab_proto::auth::v1::{Revocation, RevocationKind};
use jsonwebtoken::get_current_timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::chat::testing::{Client, World, connect};
use crate::testing::{SESSION, bus, claims, identity};

const NEXT: Uuid = Uuid::from_u128(10);

/// The event that presents a token with these claims.
fn auth(change: Value) -> String {
    format!("421{}", json!(["auth", { "token": signed(1, &claims(change)) }]))
}

async fn connected(world: &World) -> Client {
    let mut client = world.client();
    client.emit(&connect(json!({})));
    client.receives("40{").await;
    client.received.clear();
    client
}

fn until(seconds: u64) -> u64 {
    get_current_timestamp() + seconds
}

#[tokio::test]
async fn a_new_token_replaces_the_present_one() {
    let world = World::new(bus()).await;
    let mut client = connected(&world).await;
    let exp = until(600);
    client.emit(&auth(json!({ "jti": NEXT, "exp": exp })));
    client.receives("431[{\"ok\":true,\"expiresAt\":\"20").await;
    client.received.clear();
    let sign_in = client.socket.client.credential.sign_in().unwrap();
    assert_eq!((sign_in.session_id, sign_in.expires_at), (NEXT, exp as i64));
    let sign_ins = &world.chat.sign_ins;
    assert_eq!((sign_ins.of(SESSION).len(), sign_ins.of(NEXT).len()), (0, 1));
    assert_eq!(sign_ins.of_user(identity().user_id).len(), 1);

    // The end of the former token does not matter any more; the end of the new one does.
    world.chat.revocations.add(SESSION, i64::MAX);
    client.emit(&auth(json!({ "jti": NEXT })));
    client.receives("431[{\"ok\":true").await;
    assert_eq!(client.socket.outbox.closing(), None);
    world.chat.revocations.add(NEXT, i64::MAX);
    client.receives("42[\"sessionEnded\",{\"code\":\"logged_out\"}]").await;
}

#[tokio::test]
async fn an_invalid_or_foreign_token_leaves_the_present_one() {
    let world = World::new(bus()).await;
    let mut client = connected(&world).await;
    let before = client.socket.client.credential.sign_in();
    world.chat.revocations.add(NEXT, i64::MAX);
    for (change, (code, status)) in [
        (json!({ "sub": Uuid::from_u128(8) }), ("forbidden", 403)),
        (json!({ "exp": until(0) - 10 }), ("unauthorized", 401)),
        (json!({ "exp": until(0) }), ("unauthorized", 401)),
        (json!({ "iss": "other" }), ("unauthorized", 401)),
        (json!({ "jti": NEXT }), ("unauthorized", 401)),
    ] {
        client.emit(&auth(change));
        client.receives("431[").await;
        let answer = client.received.concat();
        let named = [format!("\"code\":\"{code}\""), format!("\"status\":{status}"), "\"ok\":false".into()];
        assert!(named.iter().all(|part| answer.contains(part)), "{answer}");
        client.received.clear();
        assert_eq!(client.socket.client.credential.sign_in(), before);
    }
    for bad in ["null", "{}", "[]", "7", "{\"token\":7}"] {
        client.emit(&format!("421[\"auth\",{bad}]"));
        client.receives("431[").await;
        let answer = client.received.concat();
        assert!(answer.contains("invalid_request"), "{bad} {answer}");
        client.received.clear();
    }
    assert_eq!(world.chat.sign_ins.of(SESSION).len(), 1);
    assert_eq!(client.socket.outbox.closing(), None);
}

#[tokio::test]
async fn a_token_that_expires_earlier_ends_the_session_earlier() {
    let world = World::new(bus()).await;
    let mut client = connected(&world).await;
    client.emit(&auth(json!({ "exp": until(2) })));
    client.receives("431[{\"ok\":true").await;
    client.receives("42[\"sessionEnded\",{\"code\":\"expired\"}]").await;
}

#[tokio::test]
async fn a_repeated_connect_presents_a_newer_token_of_the_session() {
    let world = World::new(bus()).await;
    let mut client = connected(&world).await;
    let exp = until(600);
    client.emit("41");
    client.emit(&format!("40{}", json!({ "token": signed(1, &claims(json!({ "exp": exp }))) })));
    client.receives("40{").await;
    assert_eq!(client.socket.client.credential.sign_in().map(|sign_in| sign_in.expires_at), Some(exp as i64));
}

#[tokio::test]
async fn revocations_of_a_user_end_sockets_by_the_time_of_issue_or_all() {
    let world = World::new(bus()).await;
    let (mut early, mut late) = (connected(&world).await, connected(&world).await);
    let issued_at = get_current_timestamp() + 2;
    late.emit(&auth(json!({ "jti": NEXT, "iat": issued_at })));
    late.receives("431[{\"ok\":true").await;
    let entry = |number, kind: RevocationKind| {
        let (user_id, not_before) = (identity().user.id, issued_at as i64);
        Revocation { number, kind: kind.into(), user_id, not_before, expires_at_ms: i64::MAX, ..Revocation::default() }
    };
    let revocations = &world.chat.revocations;
    revocations.add_all(&[Revocation { user_id: Uuid::from_u128(8).to_string(), ..entry(1, RevocationKind::Blocked) }]);
    revocations.add_all(&[entry(2, RevocationKind::NotBefore)]);
    early.receives("42[\"sessionEnded\",{\"code\":\"revoked\"}]").await;
    assert_eq!(late.socket.outbox.closing(), None);
    revocations.add_all(&[entry(3, RevocationKind::Blocked)]);
    late.receives("42[\"sessionEnded\",{\"code\":\"revoked\"}]").await;
    let mut next = world.client();
    next.emit(&connect(json!({})));
    next.receives("44{").await;
}

#[tokio::test]
async fn a_closed_socket_is_not_registered_again() {
    let world = World::new(bus()).await;
    let client = connected(&world).await;
    world.chat.forget_sign_in(&client.socket);
    let shown = confab_identity::tokens::Identity { session_id: NEXT, ..identity() };
    super::adopt(&world.chat, &client.socket, &shown);
    assert!(world.chat.sign_ins.all().is_empty() && world.chat.sign_ins.of_user(identity().user_id).is_empty());
}

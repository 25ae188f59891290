//! Tokens of the app's own issuers, verified with keys in a file.

use confab_common::issuers::{Issuers, IssuersConfig, user_id};
use confab_common::process::Process;
use confab_common::testing::directory;
use confab_proto::auth::v1::{GetUserRequest, Jwks, ListRevocationsResponse, Revocation, RevocationKind, User};
use prost::Message;
use serde_json::{Value, json};

use super::*;
use crate::revocations::Revocations;
use crate::testing::{bus, claims, identity, jwks, signed, signed_as};
use crate::tokens::{Identity, Tokens};

const ISSUER: &str = "https://id.example.com/";
const OTHER_ISSUER: &str = "https://other.example/";

/// The setting with two issuers. Auth has the key 1, and both issuers use its id for another key.
fn setting() -> String {
    let entry = |issuer: &str, seed: u8| {
        let path = directory().join("keys.json");
        std::fs::write(&path, jwks(&[seed]).replace(&format!("\"k{seed}\""), "\"k1\"")).unwrap();
        json!({
            "issuer": issuer,
            "audience": "chat",
            "keyFile": path,
            "algorithms": ["EdDSA"],
            "nameClaim": "name",
            "pictureClaim": "picture",
        })
    };
    json!([entry(ISSUER, 2), entry(OTHER_ISSUER, 3)]).to_string()
}

/// A token of the issuer, signed with this key under the id of the key 1.
fn of_issuer(seed: u8, change: Value) -> String {
    let now = jsonwebtoken::get_current_timestamp();
    let mut claims =
        json!({"iss": ISSUER, "aud": "chat", "sub": "user_123", "name": "Ada", "iat": now, "exp": now + 60});
    claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    signed_as(seed, "k1", &claims)
}

/// An auth service with the usernames of the issuers' users, which counts the calls for them.
fn auth() -> (Arc<Auth>, Transport) {
    let auth = Arc::new(Auth { received: Mutex::default(), answer: Mutex::new(Ok(AccountState::Active)) });
    let answering = auth.clone();
    let user = |id: String| User { id, username: "ada_lovelace".into(), ..User::default() }.encode_to_vec();
    let transport = fake(move |method, body| match method {
        "EnsureUser" => {
            let asked = EnsureUserRequest::decode(body).unwrap();
            let id = asked.user_id.clone();
            answering.received.lock().push(asked);
            answering.answer.lock().clone().map(|_| user(id))
        }
        "GetUser" => Ok(user(GetUserRequest::decode(body).unwrap().id)),
        "GetJwks" => Ok(Jwks { json: jwks(&[1]) }.encode_to_vec()),
        _ => Ok(ListRevocationsResponse::default().encode_to_vec()),
    });
    (auth, transport)
}

async fn started() -> (Arc<Auth>, Revocations, Tokens) {
    let (auth, transport) = auth();
    let (client, process) = (AuthServiceClient::new(transport), Process::new());
    let config = IssuersConfig { issuers: Some(setting()) };
    config.check().unwrap();
    let issuers = Issuers::start(&config, &process).unwrap();
    let revocations = Revocations::start(client.clone(), &bus(), &process);
    let tokens = Tokens::with_issuers(issuers, client, revocations.clone(), &process.readiness);
    process.readiness.started();
    eventually(|| process.readiness.missing().is_none()).await;
    (auth, revocations, tokens)
}

async fn code(tokens: &Tokens, token: &str) -> Option<Code> {
    tokens.verify(token).await.err().map(|error| error.code)
}

async fn valid(tokens: &Tokens, change: Value) -> Identity {
    tokens.verify(&of_issuer(2, change)).await.unwrap()
}

#[tokio::test]
async fn a_token_of_an_issuer_yields_its_identity() {
    let (auth, _, tokens) = started().await;
    let now = jsonwebtoken::get_current_timestamp();
    let known = valid(&tokens, json!({"iat": now - 1, "exp": now + 60, "jti": "1"})).await;
    let id = "90b98074-64ad-5519-b800-eedf19d458d9";
    assert_eq!(known.user, UserRef { id: id.into(), username: "ada_lovelace".into() });
    assert_eq!(
        (known.user_id, known.issued_at, known.expires_at),
        (id.parse().unwrap(), now as i64 - 1, now as i64 + 60)
    );
    assert!(known.is_of_issuer() && known.session_id.get_version_num() == 5);
    let again = valid(&tokens, json!({"jti": "2", "name": "Another"})).await;
    assert_eq!((again.user, again.session_id == known.session_id), (known.user, false));
    assert_eq!((auth.calls(), &*auth.received.lock()[0].name), (1, "Ada"));
    // The tokens of auth are valid as before.
    let own = tokens.verify(&signed(1, &claims(json!({})))).await.unwrap();
    assert_eq!((own.user, own.session_id), (identity().user, identity().session_id));
    assert!(!identity().is_of_issuer());
}

#[tokio::test]
async fn each_issuer_signs_for_itself_only() {
    let (auth, _, tokens) = started().await;
    let other = tokens.verify(&of_issuer(3, json!({"iss": OTHER_ISSUER}))).await.unwrap();
    assert_eq!(other.user_id, user_id(OTHER_ISSUER, "user_123"));
    for forged in [
        of_issuer(1, json!({})),
        of_issuer(3, json!({})),
        of_issuer(2, json!({"iss": OTHER_ISSUER})),
        of_issuer(2, json!({"iss": "confab"})),
        of_issuer(2, json!({"iss": "https://unknown.example/"})),
        of_issuer(2, json!({"aud": "confab"})),
        of_issuer(2, json!({"exp": 1})),
        of_issuer(2, json!({"sub": ""})),
        signed_as(2, "k1", &claims(json!({}))),
        signed(1, &claims(json!({"iss": ISSUER}))),
    ] {
        assert_eq!(code(&tokens, &forged).await, Some(Code::Unauthorized), "{forged}");
    }
    assert_eq!(auth.calls(), 1, "a rejected token creates no account");
}

#[tokio::test]
async fn revocations_apply_to_tokens_of_issuers() {
    let (auth, revocations, tokens) = started().await;
    let now = jsonwebtoken::get_current_timestamp();
    let first = valid(&tokens, json!({"jti": "1"})).await;
    revocations.add(first.session_id, i64::MAX);
    let token = |jti: &str, issued_at: u64| of_issuer(2, json!({"jti": jti, "iat": issued_at}));
    assert_eq!(code(&tokens, &token("1", now)).await, Some(Code::Unauthorized));
    assert_eq!(code(&tokens, &token("2", now)).await, None);
    let entry = |number, kind: RevocationKind| {
        let (user_id, not_before) = (first.user.id.clone(), now as i64);
        Revocation { number, kind: kind.into(), user_id, not_before, expires_at_ms: i64::MAX, ..Revocation::default() }
    };
    revocations.add_all(&[entry(1, RevocationKind::NotBefore)]);
    assert_eq!(
        [code(&tokens, &token("2", now - 1)).await, code(&tokens, &token("2", now)).await],
        [Some(Code::Unauthorized), None]
    );
    revocations.add_all(&[entry(2, RevocationKind::Blocked)]);
    assert_eq!(code(&tokens, &token("2", now)).await, Some(Code::Unauthorized));
    revocations.add_all(&[entry(3, RevocationKind::Unblocked)]);
    assert_eq!(code(&tokens, &token("2", now)).await, None);
    assert_eq!(auth.calls(), 1);
}

#[tokio::test]
async fn only_unknown_users_need_the_auth_service() {
    let (auth, _, tokens) = started().await;
    valid(&tokens, json!({})).await;
    auth.answers(away());
    assert_eq!(code(&tokens, &of_issuer(2, json!({"nonce": 1}))).await, None);
    assert_eq!(code(&tokens, &of_issuer(2, json!({"sub": "user_124"}))).await, Some(Code::Unavailable));
    auth.answers(Ok(AccountState::Active));
    assert_eq!(code(&tokens, &of_issuer(2, json!({"sub": "user_124"}))).await, None);
}

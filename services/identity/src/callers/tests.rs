use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use confab_common::issuers::IssuersConfig;
use confab_proto::auth::v1::{
    GetKeyRequest, GetUserRequest, Jwks, ListRevocationsRequest, ListRevocationsResponse, Revocation, RevocationKind,
    ServerKey, User,
};
use parking_lot::Mutex;
use prost::Message;
use serde_json::json;
use tokio::time::{Instant, advance, sleep};

use super::*;
use crate::credential::message_credential;
use crate::testing::{
    KEY, SlowKeys, callers, claims, eventually, fake, identity, jwks, server_key as key, signed, token_of,
};

/// An auth service with one server key, whose calls are counted.
#[derive(Default)]
struct Auth {
    revocations: Mutex<Vec<Revocation>>,
    key_is_deleted: AtomicBool,
    jwks: AtomicU64,
}

impl Auth {
    fn transport(self: &Arc<Self>) -> Transport {
        let auth = self.clone();
        fake(move |method, body: Bytes| match method {
            "GetJwks" => {
                auth.jwks.fetch_add(1, Ordering::Relaxed);
                Ok(Jwks { json: jwks(&[1]) }.encode_to_vec())
            }
            "ListRevocations" => {
                let after = ListRevocationsRequest::decode(body).unwrap().after;
                let revocations = auth.revocations.lock().iter().filter(|it| it.number > after).cloned().collect();
                let head = auth.revocations.lock().len() as u64;
                Ok(ListRevocationsResponse { revocations, head }.encode_to_vec())
            }
            "GetKey" if auth.key_is_deleted.load(Ordering::Relaxed) => Err(Error::not_found("key")),
            "GetKey" => {
                let id = GetKeyRequest::decode(body).unwrap().id;
                let (sha256, scopes) = (digest(&SHA256, key().as_bytes()).as_ref().to_vec(), vec!["rooms".into()]);
                Ok(ServerKey { id, sha256, scopes, ..ServerKey::default() }.encode_to_vec())
            }
            _ => {
                let id = GetUserRequest::decode(body).unwrap().id;
                Ok(User { id, username: "ada".into(), ..User::default() }.encode_to_vec())
            }
        })
    }

    fn revoke(&self, revocation: Revocation) {
        let mut all = self.revocations.lock();
        let number = all.len() as u64 + 1;
        all.push(Revocation { number, expires_at_ms: i64::MAX, ..revocation });
    }

    fn of_user(&self, kind: RevocationKind) {
        self.revoke(Revocation { kind: kind.into(), user_id: identity().user.id, ..Revocation::default() });
    }
}

async fn code(callers: &Callers, credential: &Credential) -> Option<Code> {
    callers.verify(credential).await.err().map(|error| error.code)
}

async fn known(callers: &Callers, credential: &Credential) -> Option<Option<Code>> {
    callers.known(&credential.digest().unwrap()).await.map(|known| known.err().map(|error| error.code))
}

/// Waits until the service rejects a credential: it reads the list of revocations every second.
async fn is_rejected(callers: &Callers, credential: &Credential) {
    let rejected = async {
        while code(callers, credential).await != Some(Code::Unauthorized) {
            sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), rejected).await.unwrap();
}

#[tokio::test]
async fn a_verified_token_is_known_by_its_digest() {
    let callers = callers(Arc::<Auth>::default().transport());
    let token = Credential::of_token(&signed(1, &claims(json!({}))));
    assert_eq!(known(&callers, &token).await, None);
    let verified = callers.verify(&token).await.unwrap().unwrap();
    assert_eq!(verified.user(), Some(&identity().user));
    assert_eq!(known(&callers, &token).await, Some(None));
    assert!(callers.verify(&Credential::default()).await.unwrap().is_none());
    let forged = Credential::of_token(&signed(2, &claims(json!({}))));
    assert_eq!((code(&callers, &forged).await, known(&callers, &forged).await), (Some(Code::Unauthorized), None));
}

#[tokio::test]
async fn a_revoked_token_is_not_accepted_although_it_was_known() {
    let auth = Arc::<Auth>::default();
    let callers = callers(auth.transport());
    let token = Credential::of_token(&signed(1, &claims(json!({}))));
    assert_eq!(code(&callers, &token).await, None);
    auth.revoke(Revocation { session_id: identity().session_id.to_string(), ..Revocation::default() });
    is_rejected(&callers, &token).await;
    assert_eq!(known(&callers, &token).await, None, "a token that has ended is forgotten");
    assert_eq!(code(&callers, &token).await, Some(Code::Unauthorized));
}

#[tokio::test]
async fn a_token_expires_although_it_was_known() {
    let callers = callers(Arc::<Auth>::default().transport());
    let now = jsonwebtoken::get_current_timestamp() as i64;
    for (expires_at, expected) in [(now + 60, None), (now - 60, Some(Code::Unauthorized))] {
        let checked = callers.0.tokens.check_again(&Identity { expires_at, ..identity() }).await;
        assert_eq!(checked.err().map(|error| error.code), expected);
    }
    let expired = Credential::of_token(&signed(1, &claims(json!({"exp": now - 60}))));
    assert_eq!(code(&callers, &expired).await, Some(Code::Unauthorized));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_suspension_takes_effect_at_once() {
    let auth = Arc::<Auth>::default();
    let callers = callers(auth.transport());
    let token = Credential::of_token(&signed(1, &claims(json!({}))));
    assert_eq!(code(&callers, &token).await, None);
    auth.of_user(RevocationKind::Blocked);
    advance(Duration::from_secs(2)).await;
    is_rejected(&callers, &token).await;
    auth.of_user(RevocationKind::Unblocked);
    assert_eq!(code(&callers, &token).await, None, "before the next read of the list");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_key_is_rejected_after_4_s() {
    let auth = Arc::<Auth>::default();
    let callers = callers(auth.transport());
    let user = Uuid::from_u128(7);
    let (alone, acting) = (Credential::of_key(&key(), None), Credential::of_key(&key(), Some(user)));
    let verified = callers.verify(&acting).await.unwrap().unwrap();
    let Verified::Key { id, .. } = &*verified else { panic!("{verified:?}") };
    assert_eq!((*id, verified.user().map(|user| &*user.username)), (KEY, Some("ada")));
    assert!(callers.verify(&alone).await.unwrap().unwrap().user().is_none());
    let wrong = Credential::of_key(&key().replace('A', "B"), None);
    assert_eq!(code(&callers, &wrong).await, Some(Code::Unauthorized));
    auth.key_is_deleted.store(true, Ordering::Relaxed);
    advance(Duration::from_secs(4)).await;
    assert_eq!(known(&callers, &acting).await, Some(Some(Code::Unauthorized)));
    assert_eq!(code(&callers, &alone).await, Some(Code::Unauthorized));
}

#[tokio::test]
async fn known_credentials_are_bounded() {
    let config = CallersConfig::strict(IssuersConfig::default());
    let auth = Arc::<Auth>::default().transport();
    let callers = Callers::with_capacity(10, &config, Role::Message, auth, (None, &Process::new())).unwrap();
    for user in 0..100 {
        let token = Credential::of_token(&token_of(Uuid::from_u128(user)));
        assert_eq!(code(&callers, &token).await, None);
    }
    callers.0.known.run_pending_tasks();
    assert!(callers.0.known.entry_count() <= 10, "{}", callers.0.known.entry_count());
}

fn code_of(found: &Found) -> Option<Option<Code>> {
    found.as_ref().map(|found| found.as_ref().err().map(|error| error.code))
}

#[tokio::test(start_paused = true)]
async fn known_tokens_are_found_without_a_wait() {
    let callers = callers(Arc::<Auth>::default().transport());
    eventually(|| callers.is_ready()).await;
    let tokens = (0..300).map(|user| Credential::of_token(&token_of(Uuid::from_u128(user)))).collect::<Vec<_>>();
    let given = tokens.iter().map(message_credential).collect::<Vec<_>>();
    let names = || tokens.iter().filter_map(Credential::digest).collect::<Vec<_>>();
    let all = async |given: &[message::Credential], names: Vec<Digest>| {
        callers.find_all(given, names).await.values().map(code_of).collect::<Vec<_>>()
    };
    assert_eq!(all(&[], names()).await, vec![None; 300]);
    assert_eq!(all(&given, Vec::new()).await, vec![Some(None); 300]);
    assert_eq!(all(&[], names()).now_or_never(), Some(vec![Some(None); 300]));
}

#[tokio::test(start_paused = true)]
async fn a_slow_key_delays_a_request_by_400_ms_and_is_found_by_the_next_one() {
    let auth = Arc::<SlowKeys>::default();
    let callers = callers(auth.transport());
    eventually(|| callers.is_ready()).await;
    let acting = Credential::of_key(&key(), Some(Uuid::from_u128(7)));
    let token = Credential::of_token(&token_of(Uuid::from_u128(8)));
    let [slow, fast] = [&acting, &token].map(|credential| credential.digest().unwrap());
    let given = [&acting, &token].map(message_credential);
    let begun = Instant::now();
    let found = callers.find_all(&given, vec![fast, slow]).await;
    assert_eq!((code_of(&found[&slow]), code_of(&found[&fast])), (Some(Some(Code::Unavailable)), Some(None)));
    let waited = begun.elapsed();
    assert!((background::WAIT..background::WAIT + Duration::from_millis(2)).contains(&waited), "{waited:?}");
    // Later requests do not wait as long again.
    assert_eq!(code_of(&callers.find_all(&given, Vec::new()).await[&slow]), Some(Some(Code::Unavailable)));
    assert!(begun.elapsed() < waited + Duration::from_millis(25), "{:?}", begun.elapsed());
    auth.release();
    let known = async {
        while code_of(&callers.find_all(&[], vec![slow]).await[&slow]) != Some(None) {
            sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(1), known).await.unwrap();
    assert_eq!(auth.lookups(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_with_a_blocked_user_does_not_wait_for_auth() {
    let (auth, is_away) = (Arc::<Auth>::default(), Arc::<AtomicBool>::default());
    let (answers, away) = (auth.transport(), is_away.clone());
    let slow = confab_common::grpc::in_process(tower::service_fn(move |request: http::Request<tonic::body::Body>| {
        let (answers, away) = (answers.clone(), away.clone());
        async move {
            if away.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            tower::ServiceExt::oneshot(answers, request).await
        }
    }));
    let callers = callers(slow);
    let token = Credential::of_token(&signed(1, &claims(json!({}))));
    assert_eq!(code(&callers, &token).await, None);
    auth.of_user(RevocationKind::Blocked);
    is_rejected(&callers, &token).await;
    // Whether the suspension has ended is asked again.
    is_away.store(true, Ordering::Relaxed);
    let (begun, name) = (Instant::now(), token.digest().unwrap());
    let found = callers.find_all(&[message_credential(&token)], Vec::new()).await;
    assert_eq!(code_of(&found[&name]), Some(Some(Code::Unavailable)));
    assert!(begun.elapsed() < Duration::from_millis(450), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_malformed_credential_has_an_error_of_its_own() {
    let callers = callers(Arc::<Auth>::default().transport());
    let malformed =
        [("a b\n", "", ""), ("", "x", ""), ("", "cfk_x", "me"), ("", "", "")].map(|(token, key, user_id)| {
            message::Credential { token: token.into(), key: key.into(), user_id: user_id.into() }
        });
    let found = callers.find_all(&malformed, Vec::new()).await;
    assert_eq!(found.len(), 4);
    for credential in &malformed {
        assert_eq!(code_of(&found[&digest_of(credential)]), Some(Some(Code::Unauthorized)));
    }
}

#[tokio::test]
async fn a_service_reads_the_new_keys_of_an_issuer_for_a_credential() {
    let path = confab_common::testing::directory().join("keys.json");
    let publish = |seed| std::fs::write(&path, jwks(&[seed])).unwrap();
    publish(2);
    let issuer = json!({"issuer": "https://id.example/", "audience": "chat", "keyFile": path, "algorithms": ["EdDSA"]});
    let config = CallersConfig::strict(IssuersConfig { issuers: Some(json!([issuer]).to_string()) });
    let auth = Arc::<Auth>::default().transport();
    let callers = Callers::start(&config, Role::Message, auth, None, &Process::new()).unwrap();
    let now = jsonwebtoken::get_current_timestamp();
    let claims = json!({"iss": "https://id.example/", "aud": "chat", "sub": "ada", "iat": now, "exp": now + 60});
    for seed in [2, 3] {
        publish(seed);
        let token = Credential::of_token(&signed(seed, &claims));
        let given = [message_credential(&token)];
        // Tokens cause one read of the keys in 30 s, so the first request must cause it.
        let accepted = async {
            while code_of(&callers.find_all(&given, Vec::new()).await[&token.digest().unwrap()]) != Some(None) {
                sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), accepted).await.unwrap();
    }
}

#[test]
fn what_was_not_decided_fails_its_own_events_alone() {
    let code = |code| decided(Err(Error::new(code, "x"))).unwrap_err().code;
    assert_eq!([Code::Unauthorized, Code::Forbidden].map(code), [Code::Unauthorized, Code::Forbidden]);
    for undecided in [Code::Timeout, Code::Internal, Code::Unavailable, Code::NotFound] {
        assert_eq!(code(undecided), Code::Unavailable);
    }
}

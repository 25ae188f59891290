use std::sync::atomic::{AtomicUsize, Ordering};

use super::keys::{KEY_LIFETIME, MAX_KEPT};
use super::*;
use crate::testing::{bus, claims, eventually, fake, identity, jwks, key, signed};
use confab_common::process::Process;
use confab_common::seldom::EVERY;
use confab_proto::auth::v1::{Jwks, ListRevocationsResponse, Revocation, RevocationKind};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{EncodingKey, Header};
use parking_lot::Mutex;
use prost::Message;
use serde_json::{Value, json};

/// An auth service with these keys (none: the service does not answer), and the number of requests for them.
struct Auth {
    seeds: Mutex<Option<Vec<u8>>>,
    asked: AtomicUsize,
}

async fn started(seeds: Option<&[u8]>) -> (Arc<Auth>, Tokens, Process) {
    let auth = Arc::new(Auth { seeds: Mutex::new(seeds.map(<[u8]>::to_vec)), asked: AtomicUsize::new(0) });
    let answering = auth.clone();
    let client = AuthServiceClient::new(fake(move |method, _| match method {
        "GetJwks" => {
            answering.asked.fetch_add(1, Ordering::Relaxed);
            let seeds = answering.seeds.lock().clone().ok_or_else(|| Error::unavailable("auth"))?;
            Ok(Jwks { json: jwks(&seeds) }.encode_to_vec())
        }
        _ => Ok(ListRevocationsResponse::default().encode_to_vec()),
    }));
    let process = Process::new();
    let revocations = Revocations::start(client.clone(), &bus(), &process);
    let tokens = Tokens::start(client, revocations, &process);
    process.readiness.started();
    eventually(|| auth.asked.load(Ordering::Relaxed) > 0).await;
    (auth, tokens, process)
}

async fn code(tokens: &Tokens, token: &str) -> Option<Code> {
    tokens.verify(token).await.err().map(|error| error.code)
}

#[tokio::test]
async fn a_valid_token_yields_its_identity() {
    let (_, tokens, process) = started(Some(&[1, 2])).await;
    eventually(|| process.readiness.missing().is_none()).await;
    let claims = claims(json!({}));
    for seed in [1, 2] {
        let known = tokens.verify(&signed(seed, &claims)).await.unwrap();
        assert_eq!((known.user, known.session_id), (identity().user, identity().session_id));
        assert_eq!(known.expires_at, claims["exp"].as_i64().unwrap());
        assert_eq!(known.issued_at, claims["iat"].as_i64().unwrap());
    }
}

#[tokio::test]
async fn missing_or_wrong_claims_are_rejected() {
    let (_, tokens, _) = started(Some(&[1])).await;
    let now = jsonwebtoken::get_current_timestamp();
    for fine in
        [json!({"exp": now - 2}), json!({"nbf": now + 2}), json!({"aud": ["x", "confab"]}), json!({"more": true})]
    {
        assert_eq!(code(&tokens, &signed(1, &claims(fine.clone()))).await, None, "{fine}");
    }
    for bad in [
        json!({"exp": now - 10}),
        json!({"exp": (now + 60).to_string()}),
        json!({"exp": now as f64 + 60.5}),
        json!({"exp": 1e20}),
        json!({"exp": -1}),
        json!({"exp": null}),
        json!({"nbf": now + 30}),
        json!({"nbf": "0"}),
        json!({"nbf": null}),
        json!({"iat": "0"}),
        json!({"iat": now as f64 + 0.5}),
        json!({"iat": null}),
        json!({"aud": "confab-files"}),
        json!({"aud": null}),
        json!({"iss": "other"}),
        json!({"iss": null}),
        json!({"sub": "root"}),
        json!({"sub": null}),
        json!({"jti": ""}),
        json!({"jti": null}),
        json!({"name": null}),
    ] {
        assert_eq!(code(&tokens, &signed(1, &claims(bad.clone()))).await, Some(Code::Unauthorized), "{bad}");
    }
}

#[tokio::test]
async fn a_connection_rejects_an_expired_token_without_leeway() {
    let (_, tokens, _) = started(Some(&[1])).await;
    let now = jsonwebtoken::get_current_timestamp();
    assert!(tokens.verify_to_stay(&signed(1, &claims(json!({"exp": now + 60})))).await.is_ok());
    let ended = tokens.verify_to_stay(&signed(1, &claims(json!({"exp": now - 1})))).await;
    assert_eq!(ended.map_err(|error| error.code).map(drop), Err(Code::Unauthorized));
}

#[tokio::test(start_paused = true)]
async fn tokens_not_yet_valid_are_logged_at_most_once_a_minute() {
    let (_, tokens, _) = started(Some(&[1])).await;
    let early = claims(json!({"nbf": jsonwebtoken::get_current_timestamp() + 3600}));
    let logged = || tokens.0.early.0.last();
    assert_eq!(code(&tokens, &signed(2, &early)).await, Some(Code::Unauthorized));
    assert_eq!(logged(), None, "a forged token is not evidence about clocks");
    for pause in [Duration::ZERO, EVERY] {
        tokio::time::advance(pause).await;
        assert_eq!(code(&tokens, &signed(1, &early)).await, Some(Code::Unauthorized));
        let first = logged().unwrap();
        tokio::time::advance(EVERY / 2).await;
        assert_eq!(code(&tokens, &signed(1, &early)).await, Some(Code::Unauthorized));
        assert_eq!(logged(), Some(first));
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_pause_tokens_wait_for_revocations() {
    let (_auth, tokens, _) = started(Some(&[1])).await;
    let (good, pauses) = (signed(1, &claims(json!({}))), tokens.0.revocations.pauses().clone());
    pauses.stand_still();
    assert_eq!(code(&tokens, &good).await, Some(Code::Unavailable));
    let (answer, ()) = tokio::join!(code(&tokens, &good), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        tokens.0.revocations.add(identity().session_id, i64::MAX);
        assert!(pauses.resume(confab_common::standstill::now()));
    });
    assert_eq!(answer, Some(Code::Unauthorized));
}

#[tokio::test]
async fn forged_tokens_are_rejected() {
    let (_, tokens, _) = started(Some(&[1])).await;
    let claims = claims(json!({}));
    let good = signed(1, &claims);
    let (unsigned, signature) = good.rsplit_once('.').unwrap();
    let public: Value = serde_json::from_str(&jwks(&[1])).unwrap();
    let base64 = |text: &str| base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, text);
    let payload = good.split('.').nth(1).unwrap();

    let hmac = |secret: &[u8]| {
        let header = Header { kid: Some("k1".into()), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret)).unwrap()
    };
    let x = public["keys"][0]["x"].as_str().unwrap();
    let raw = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, x).unwrap();
    let mut forged =
        vec![hmac(x.as_bytes()), hmac(&raw), format!("{unsigned}."), format!("{good}.x"), format!("x.{good}")];
    for alg in ["none", "nOnE", "HS256", "RS256"] {
        let header = base64(&format!(r#"{{"alg":"{alg}","kid":"k1"}}"#));
        forged.extend([format!("{header}.{payload}."), format!("{header}.{payload}.{signature}")]);
    }
    // Signed by another key under a known key id; without a key id; with a critical extension.
    let header = |change: fn(&mut Header)| {
        let mut header = Header { kid: Some("k1".into()), ..Header::new(Algorithm::EdDSA) };
        change(&mut header);
        header
    };
    forged.push(jsonwebtoken::encode(&header(|_| {}), &claims, &key(2)).unwrap());
    forged.push(jsonwebtoken::encode(&header(|h| h.kid = None), &claims, &key(1)).unwrap());
    forged.push(jsonwebtoken::encode(&header(|h| h.crit = Some(vec!["x".into()])), &claims, &key(1)).unwrap());
    forged.push(signed(1, &crate::testing::claims(json!({"name": "x".repeat(64 * 1024)}))));
    forged.extend(["", ".", "..", "a.b.c", "🦀.🦀.🦀"].map(String::from));
    for token in forged {
        assert_eq!(code(&tokens, &token).await, Some(Code::Unauthorized), "{token:.100}");
    }
}

#[tokio::test]
async fn a_revoked_token_is_rejected() {
    let (_, tokens, _) = started(Some(&[1])).await;
    let token = signed(1, &claims(json!({})));
    assert_eq!(code(&tokens, &token).await, None);
    tokens.0.revocations.add(identity().session_id, i64::MAX);
    assert_eq!(code(&tokens, &token).await, Some(Code::Unauthorized));
}

#[tokio::test]
async fn tokens_of_a_user_are_rejected_by_their_time_of_issue_or_all() {
    let (_, tokens, _) = started(Some(&[1])).await;
    let token = |issued_at: u64| signed(1, &claims(json!({"iat": issued_at})));
    let now = jsonwebtoken::get_current_timestamp();
    let entry = |number, kind: RevocationKind| {
        let (user_id, not_before) = (identity().user.id, now as i64);
        Revocation { number, kind: kind.into(), user_id, not_before, expires_at_ms: i64::MAX, ..Revocation::default() }
    };
    tokens.0.revocations.add_all(&[entry(1, RevocationKind::NotBefore)]);
    assert_eq!(
        [code(&tokens, &token(now - 1)).await, code(&tokens, &token(now)).await],
        [Some(Code::Unauthorized), None]
    );
    tokens.0.revocations.add_all(&[entry(2, RevocationKind::Blocked)]);
    assert_eq!(code(&tokens, &token(now)).await, Some(Code::Unauthorized));
    tokens.0.revocations.add_all(&[entry(3, RevocationKind::Unblocked)]);
    assert_eq!(code(&tokens, &token(now)).await, None);
}

#[tokio::test]
async fn a_refresh_token_is_no_bearer_token() {
    let (_, tokens, _) = started(Some(&[1])).await;
    let token = format!("cfr_{}_{}", Uuid::nil(), "A".repeat(64));
    assert_eq!(code(&tokens, &token).await, Some(Code::Unauthorized));
}

#[tokio::test(start_paused = true)]
async fn unknown_keys_are_fetched_once_and_the_last_key_set_is_kept() {
    let (auth, tokens, process) = started(Some(&[1])).await;
    eventually(|| process.readiness.missing().is_none()).await;
    let token = |seed| signed(seed, &claims(json!({})));
    *auth.seeds.lock() = Some(vec![1, 2]);
    tokio::time::advance(FETCH_UNKNOWN).await;
    assert_eq!(code(&tokens, &token(2)).await, None);

    let before = auth.asked.load(Ordering::Relaxed);
    tokio::time::advance(FETCH_UNKNOWN).await;
    for _ in 0..10 {
        assert_eq!(code(&tokens, &token(3)).await, Some(Code::Unauthorized));
    }
    assert_eq!(auth.asked.load(Ordering::Relaxed), before + 1);

    *auth.seeds.lock() = None;
    tokio::time::advance(FETCH_UNKNOWN).await;
    assert_eq!(code(&tokens, &token(3)).await, Some(Code::Unavailable));
    assert_eq!(code(&tokens, &token(1)).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_key_listed_by_one_replica_survives_the_answer_of_another() {
    let (auth, tokens, process) = started(Some(&[1])).await;
    eventually(|| process.readiness.missing().is_none()).await;
    let token = |seed| signed(seed, &claims(json!({})));
    // A replica with only the new key and a replica with only the old key answer in turn.
    for seeds in [[2], [1], [2], [1]] {
        *auth.seeds.lock() = Some(seeds.to_vec());
        let before = auth.asked.load(Ordering::Relaxed);
        tokio::time::sleep(FETCH_EVERY).await;
        eventually(|| auth.asked.load(Ordering::Relaxed) > before).await;
        assert_eq!(code(&tokens, &token(1)).await, None);
        assert_eq!(code(&tokens, &token(2)).await, None);
        let published = String::from_utf8(tokens.jwks().await.unwrap().to_vec()).unwrap();
        assert!(published.contains("\"k1\"") && published.contains("\"k2\""), "{published}");
    }
    // In the end all replicas have only the new key.
    *auth.seeds.lock() = Some(vec![2]);
    tokio::time::sleep(KEY_LIFETIME + FETCH_EVERY * 2).await;
    eventually(|| tokens.keys().is_some_and(|keys| keys.by_id.len() == 1)).await;
    assert_eq!(code(&tokens, &token(2)).await, None);
    assert_eq!(code(&tokens, &token(1)).await, Some(Code::Unauthorized));
    assert_eq!(tokens.jwks().await.unwrap(), jwks(&[2]));
}

#[test]
fn unlisted_keys_are_bounded() {
    let mut keys = None;
    for seed in 0..100 {
        keys = Some(Keys::parse(jwks(&[seed]), keys.as_ref()).unwrap());
    }
    let keys = keys.unwrap();
    assert_eq!(keys.by_id.len(), 1 + MAX_KEPT);
    assert!((99 - MAX_KEPT as u8..=99).all(|seed| keys.by_id.contains_key(&format!("k{seed}"))), "the newest stay");
    assert_eq!(serde_json::from_slice::<JwkSet>(&keys.json).unwrap().keys.len(), 1 + MAX_KEPT);
}

#[tokio::test]
async fn without_any_keys_verification_is_unavailable() {
    let (auth, tokens, process) = started(None).await;
    let token = signed(1, &claims(json!({})));
    assert_eq!(code(&tokens, &token).await, Some(Code::Unavailable));
    assert_eq!(tokens.jwks().await.unwrap_err().code, Code::Unavailable);
    assert!(process.readiness.missing().unwrap().contains("signing keys"));
    *auth.seeds.lock() = Some(vec![1]);
    eventually(|| process.readiness.missing().is_none()).await;
    assert_eq!(code(&tokens, &token).await, None);
    assert_eq!(tokens.jwks().await.unwrap(), jwks(&[1]));
}

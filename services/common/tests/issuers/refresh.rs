//! When keys are fetched, and what happens when they cannot be fetched.

use std::time::Duration;

use axum::http::StatusCode;
use confab_common::Code;
use confab_common::issuers::Issuers;
use confab_common::process::Process;
use confab_common::testing::{Authority, Front, eventually};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::fixtures::{Signer, part, set};
use crate::servers::{Answer, Server};
use crate::{becomes, claims, code, later, start, start_in, trusted};

const ISSUER: &str = "https://id.example.com/";
/// The shortest time between two fetches that tokens cause, and the pause after a failed fetch.
const AGAIN: Duration = Duration::from_secs(30);
/// Longer than the time between two fetches from an issuer that answers.
const HOURLY: Duration = Duration::from_secs(67 * 60);

/// An issuer whose keys have been fetched.
async fn fetched(keys: &[(&str, &Signer)]) -> (Server, Issuers) {
    let server = Server::start(ISSUER, keys).await;
    let issuers = start(&[server.entry(&["EdDSA"])]);
    let (id, signer) = keys[0];
    assert_eq!(code(&issuers, &token(signer, id)).await, None);
    assert_eq!(server.requests(), 1);
    (server, issuers)
}

fn token(signer: &Signer, id: &str) -> String {
    signer.sign(id, &claims(ISSUER, json!({})))
}

/// Tokens with wrong signatures and different key ids.
fn with_random_ids(count: usize) -> Vec<String> {
    let (payload, signature) = (part(&claims(ISSUER, json!({})).to_string()), part(&"x".repeat(64)));
    let id = || uuid::Uuid::new_v4().to_string();
    let token = |_| format!("{}.{payload}.{signature}", part(&json!({"alg": "EdDSA", "kid": id()}).to_string()));
    (0..count).map(token).collect()
}

#[tokio::test]
async fn ten_thousand_unknown_ids_cause_one_fetch() {
    let signer = Signer::ed25519();
    let (server, issuers) = fetched(&[("k", &signer)]).await;
    for (round, fetches) in [(1, 2), (2, 3)] {
        let tokens = with_random_ids(10_000);
        let codes = join_all(tokens.iter().map(|token| code(&issuers, token))).await;
        assert!(codes.iter().all(|code| *code == Some(Code::Unauthorized)));
        assert_eq!(server.requests(), fetches, "round {round}");
        // All of those share one fetch; a token that arrives after it causes none for 30 s.
        assert_eq!(code(&issuers, &with_random_ids(1)[0]).await, Some(Code::Unauthorized));
        assert_eq!(server.requests(), fetches, "after round {round}");
        assert_eq!(code(&issuers, &token(&signer, "k")).await, None);
        later(AGAIN).await;
    }
}

#[tokio::test]
async fn wrong_signatures_share_the_limit_of_unknown_ids() {
    let signer = Signer::ed25519();
    let (server, issuers) = fetched(&[("k", &signer)]).await;
    for forged in [token(&Signer::ed25519(), "k"), token(&Signer::ed25519(), "unknown"), token(&Signer::ed25519(), "k")]
    {
        assert_eq!(code(&issuers, &forged).await, Some(Code::Unauthorized));
    }
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn callers_that_disconnect_cause_no_further_fetch() {
    let signer = Signer::ed25519();
    let (server, process) = (Server::start(ISSUER, &[("k", &signer)]).await, Process::new());
    let issuers = start_in(&process, &[server.entry(&["EdDSA"])]);
    assert_eq!(code(&issuers, &token(&signer, "k")).await, None);
    server.answer(Answer::Silence);
    for token in with_random_ids(100) {
        let issuers = issuers.clone();
        let caller = tokio::spawn(async move { issuers.verify(&token).await });
        eventually(|| server.requests() == 2).await;
        caller.abort();
        assert!(caller.await.is_err());
    }
    assert_eq!(server.requests(), 2);
    assert_eq!(code(&issuers, &token(&signer, "k")).await, None);
    // The fetch itself ends after 5 s, and the next one begins after a pause.
    later(Duration::from_secs(5)).await;
    eventually(|| !process.readiness.notes().is_empty()).await;
    server.publish(&[("k", &signer)]);
    later(AGAIN).await;
    eventually(|| process.readiness.notes().is_empty()).await;
    assert_eq!(server.requests(), 3);
}

#[tokio::test]
async fn rotation_rejects_no_valid_token() {
    let (old, new) = (Signer::ed25519(), Signer::ed25519());
    let (server, issuers) = fetched(&[("old", &old)]).await;
    server.publish(&[("new", &new), ("old", &old)]);
    let tokens = [token(&new, "new"), token(&old, "old"), token(&new, "new")];
    let codes = join_all(tokens.iter().map(|token| code(&issuers, token))).await;
    assert_eq!(codes, [None, None, None]);
    assert_eq!(server.requests(), 2);
    assert_eq!(code(&issuers, &tokens[1]).await, None, "the old key stays valid beside the new one");
    // The issuer withdraws the old key.
    server.publish(&[("new", &new)]);
    later(HOURLY).await;
    eventually(|| server.requests() == 3).await;
    becomes(Some(Code::Unauthorized), async || code(&issuers, &token(&old, "old")).await).await;
    assert_eq!(code(&issuers, &token(&new, "new")).await, None);
    assert_eq!(server.requests(), 4, "a token with an unknown key causes a fetch");
}

#[tokio::test]
async fn a_new_key_under_a_known_id_is_fetched() {
    let (old, new) = (Signer::ed25519(), Signer::ed25519());
    let (server, issuers) = fetched(&[("k", &old)]).await;
    server.publish(&[("k", &new)]);
    assert_eq!(code(&issuers, &token(&new, "k")).await, None);
    assert_eq!(code(&issuers, &token(&old, "k")).await, Some(Code::Unauthorized));
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn known_keys_stay_valid_while_the_issuer_is_down() {
    let (known, new) = (Signer::ed25519(), Signer::ed25519());
    let (server, issuers) = fetched(&[("k", &known)]).await;
    for (round, answer) in [
        Answer::Status(StatusCode::SERVICE_UNAVAILABLE),
        Answer::Body("<html>".into()),
        Answer::Body(set(&[])),
        Answer::Status(StatusCode::NO_CONTENT),
        Answer::Redirect,
    ]
    .into_iter()
    .enumerate()
    {
        server.answer(answer);
        later(HOURLY).await;
        eventually(|| server.requests() == round + 2).await;
        assert_eq!(code(&issuers, &token(&known, "k")).await, None);
        assert_eq!(code(&issuers, &token(&new, "new")).await, Some(Code::Unauthorized));
        assert_eq!(server.requests(), round + 2, "a failed fetch counts as one that a token caused");
    }
    server.publish(&[("new", &new), ("k", &known)]);
    later(AGAIN).await;
    becomes(None, async || code(&issuers, &token(&new, "new")).await).await;
}

#[tokio::test]
async fn tokens_are_unavailable_until_the_first_fetch() {
    let signer = Signer::ed25519();
    let server = Server::start(ISSUER, &[("k", &signer)]).await;
    server.answer(Answer::Status(StatusCode::SERVICE_UNAVAILABLE));
    let process = Process::new();
    let issuers = start_in(&process, &[server.entry(&["EdDSA"])]);
    for _ in 0..100 {
        assert_eq!(code(&issuers, &token(&signer, "k")).await, Some(Code::Unavailable));
    }
    assert_eq!(server.requests(), 1);
    let notes = process.readiness.notes();
    assert!(notes.starts_with("; issuer 1 of CONFAB_ISSUERS: cannot read the keys of "), "{notes}");
    process.readiness.started();
    assert_eq!(process.readiness.missing(), None);
    // What no key can make valid is rejected.
    let expired = signer.sign("k", &claims(ISSUER, json!({"exp": 1, "iat": 0})));
    assert_eq!(code(&issuers, &expired).await, Some(Code::Unauthorized));

    server.publish(&[("k", &signer)]);
    later(AGAIN).await;
    eventually(|| server.requests() == 2 && process.readiness.notes().is_empty()).await;
    assert_eq!(code(&issuers, &token(&signer, "k")).await, None);
}

#[tokio::test]
async fn unusable_answers_are_rejected() {
    let signer = Signer::ed25519();
    let key = signer.jwk("k");
    let padded = format!("{}{}", " ".repeat(1 << 20), set(std::slice::from_ref(&key)));
    let many = (0..65).map(|n| signer.jwk(&n.to_string())).collect::<Vec<_>>();
    for answer in [
        Answer::Redirect,
        Answer::Body(padded),
        Answer::Body(set(&many)),
        Answer::Body(Value::from(vec![key]).to_string()),
        Answer::Body(String::new()),
        Answer::Status(StatusCode::OK),
    ] {
        let server = Server::start(ISSUER, &[("k", &signer)]).await;
        server.answer(answer);
        let issuers = start(&[server.entry(&["EdDSA"])]);
        assert_eq!(code(&issuers, &token(&signer, "k")).await, Some(Code::Unavailable));
        assert_eq!((server.requests(), server.followed()), (1, 0));
    }
}

#[tokio::test]
async fn slow_answers_are_cut_off_after_5_s() {
    let signer = Signer::ed25519();
    for answer in [Answer::Silence, Answer::FirstByte] {
        let server = Server::start(ISSUER, &[("k", &signer)]).await;
        server.answer(answer);
        let issuers = start(&[server.entry(&["EdDSA"])]);
        let waiting = tokio::spawn({
            let (issuers, token) = (issuers.clone(), token(&signer, "k"));
            async move { code(&issuers, &token).await }
        });
        eventually(|| server.requests() == 1).await;
        assert!(!waiting.is_finished());
        later(Duration::from_secs(5)).await;
        let ended = tokio::time::timeout(Duration::from_secs(1), waiting).await.expect("an answer").unwrap();
        assert_eq!(ended, Some(Code::Unavailable));
    }
}

#[tokio::test]
async fn keys_for_other_uses_are_left_out() {
    let (signer, other) = (Signer::ed25519(), Signer::ed25519());
    let with = |changes: Value| {
        let mut key = other.jwk("other");
        for (name, value) in changes.as_object().unwrap() {
            key[name] = value.clone();
        }
        key
    };
    let mut good = signer.jwk("good");
    good["use"] = json!("sig");
    good["key_ops"] = json!(["verify"]);
    let mut keys = [
        json!({"use": "enc"}),
        json!({"key_ops": ["sign"]}),
        json!({"key_ops": []}),
        json!({"alg": "ES256"}),
        json!({"crv": "Ed448"}),
        json!({"kty": "EC"}),
        json!({"kty": "AKP"}),
        json!({"x": "AAAA"}),
        json!({"x": 1}),
        json!({"kid": 1}),
    ]
    .map(with)
    .to_vec();
    keys.extend([json!("key"), json!({"kty": "oct", "k": part(&"x".repeat(32)), "kid": "other"}), good]);
    let server = Server::start(ISSUER, &[]).await;
    server.answer(Answer::Body(set(&keys)));
    let issuers = start(&[server.entry(&["EdDSA", "ES256"])]);
    // The token needs no key id, because there is one usable key.
    let anonymous = signer.sign_with(&signer.header(None), &claims(ISSUER, json!({})));
    assert_eq!(code(&issuers, &anonymous).await, None);
    assert_eq!(code(&issuers, &token(&other, "other")).await, Some(Code::Unauthorized));
}

#[tokio::test]
async fn key_sets_are_fetched_over_tls() {
    let signer = Signer::ed25519();
    let server = Server::start(ISSUER, &[("k", &signer)]).await;
    for (front, expected) in [
        (Front::of(&server.address, &trusted().issue("DNS:localhost")).await, None),
        (Front::of(&server.address, &trusted().issue("DNS:elsewhere")).await, Some(Code::Unavailable)),
        (Front::of(&server.address, &Authority::new().issue("DNS:localhost")).await, Some(Code::Unavailable)),
    ] {
        let mut entry = server.entry(&["EdDSA"]);
        entry["jwksUrl"] = json!(format!("https://localhost:{}/jwks", front.port()));
        assert_eq!(code(&start(&[entry]), &token(&signer, "k")).await, expected);
    }
    assert_eq!(server.requests(), 1);
}

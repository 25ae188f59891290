//! Tokens that an attacker makes from a valid one.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use confab_tests::api::{Account, Api, PASSWORD, unique};
use confab_tests::embedded::Embedded;
use confab_tests::raw::{WebSocket, connect};
use serde_json::{Value, json};

use super::{fails, raw, status};
use crate::world;

/// Replaces the head of a token.
fn with_head(token: &str, head: &Value) -> String {
    let (_, rest) = token.split_once('.').unwrap();
    format!("{}.{rest}", BASE64_URL_SAFE_NO_PAD.encode(head.to_string()))
}

#[tokio::test]
async fn keys_that_a_token_names_are_not_fetched() {
    let api = Api::new(world::embedded().await.url());
    let account = api.signup().await.unwrap();
    let attacker = TcpListener::bind("127.0.0.1:0").unwrap();
    attacker.set_nonblocking(true).unwrap();
    let url = format!("http://{}/keys", attacker.local_addr().unwrap());
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "k"});
    let heads = [
        json!({"alg": "EdDSA", "kid": "k", "jku": url}),
        json!({"alg": "EdDSA", "kid": "k", "x5u": url}),
        json!({"alg": "EdDSA", "kid": "k", "jwk": jwk}),
        json!({"alg": "EdDSA", "kid": "k", "x5c": ["MIIB"]}),
        json!({"alg": "EdDSA", "kid": url}),
        json!({"alg": "EdDSA", "kid": "../../../../etc/passwd"}),
        json!({"alg": "EdDSA", "kid": "file:///etc/passwd"}),
        json!({"alg": "EdDSA", "kid": "' OR 1=1; DROP TABLE accounts; --"}),
        json!({"alg": "EdDSA", "kid": "k\u{0}"}),
        json!({"alg": "EdDSA", "kid": ""}),
        json!({"alg": "EdDSA", "kid": ["k"]}),
    ];
    for head in heads {
        let forged = Account { token: with_head(&account.token, &head), ..account.clone() };
        fails(&api.get("/api/auth/me", &forged).await.unwrap(), 401, "unauthorized");
        let mut socket = WebSocket::open(&api.url).await.unwrap();
        socket.send(&connect(&forged.token)).await.unwrap();
        assert_eq!(socket.refused().await.unwrap()["data"]["code"], "unauthorized", "{head}");
    }
    let fetched = attacker.accept().map(|(_, address)| address);
    assert_eq!(fetched.unwrap_err().kind(), ErrorKind::WouldBlock, "no program connects to the attacker");
    api.get("/api/auth/me", &account).await.unwrap().expect(200).unwrap();
}

#[tokio::test]
async fn tokens_of_any_size_and_form_are_rejected() {
    let api = Api::new(world::embedded().await.url());
    let account = api.signup().await.unwrap();
    let (head, rest) = account.token.split_once('.').unwrap();
    let (payload, signature) = rest.split_once('.').unwrap();
    let forms = [
        format!("{head}.{payload}"),
        format!("{head}.{payload}.{signature}.{signature}"),
        format!("{head}.{payload}.{}", &signature[..signature.len() - 4]),
        format!("{head}.{payload}.{signature}{signature}"),
        format!("{head}..{signature}"),
        ".".repeat(1000),
        "x".repeat(8 * 1024 + 1),
        "x".repeat(24 * 1024),
    ];
    for token in forms {
        let forged = Account { token, ..account.clone() };
        fails(&api.get("/api/auth/me", &forged).await.unwrap(), 401, "unauthorized");
    }
    // Longer than the head of a request may be.
    let long = "x".repeat(64 * 1024);
    let request = format!("GET /api/auth/me HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {long}\r\n\r\n");
    assert_eq!(status(&raw(&api.url, request.as_bytes()).await), 431);
    // The token in every place other than the header.
    let token = &account.token;
    for path in ["access_token", "token", "authorization", "bearer", "jwt"].map(|name| format!("?{name}={token}")) {
        let answer = api.send(api.request(reqwest::Method::GET, &format!("/api/auth/me{path}"))).await.unwrap();
        fails(&answer, 401, "unauthorized");
    }
    let cookie = format!("token={token}; access_token={token}; session={token}");
    let answer = api.send(api.request(reqwest::Method::GET, "/api/auth/me").header("cookie", cookie)).await.unwrap();
    fails(&answer, 401, "unauthorized");
}

#[tokio::test]
async fn wrong_reset_tokens_of_an_address_are_limited() {
    let server = Embedded::start(&[("CONFAB_LIMIT_WRONG_TOKEN", "3,1/h")]).await.unwrap();
    let api = Api::new(server.url());
    let post = async |path: &str, body: Value| api.call(reqwest::Method::POST, path, None, Some(body)).await.unwrap();
    let refresh = async |token: &Value| post("/api/auth/refresh", json!({ "refreshToken": token })).await;
    let (wrong, reset) = (json!("cfr_none"), json!({"token": "cfp_none", "newPassword": PASSWORD}));
    let credentials = json!({"username": unique("ada"), "password": PASSWORD, "refresh": true});
    let mut session = post("/api/auth/signup", credentials).await.expect(201).unwrap();
    for _ in 0..3 {
        fails(&post("/api/auth/reset-password", reset.clone()).await, 403, "forbidden");
    }
    let began = Instant::now();
    let rejected = post("/api/auth/reset-password", reset.clone()).await;
    fails(&rejected, 429, "rate_limited");
    assert!(!rejected.header("retry-after").is_empty());
    assert!(began.elapsed() >= Duration::from_secs(1), "the rejection is delayed");
    // Other tokens from the address are not affected, whatever wrong refresh tokens it sends.
    for _ in 0..5 {
        fails(&refresh(&wrong).await, 401, "unauthorized");
    }
    session = refresh(&session["refreshToken"]).await.expect(200).unwrap();
    let account = Account::of(&session).unwrap();
    api.get("/api/auth/me", &account).await.unwrap().expect(200).unwrap();
}

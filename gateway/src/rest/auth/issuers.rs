//! Users of the app's own issuers at the routes of a gateway.

use axum::Router;
use axum::http::Request;
use clap::Parser;
use confab_common::grpc::Services;
use confab_common::process::Process;
use confab_common::testing::directory;
use confab_identity::testing::{jwks, signed};
use confab_proto::auth::v1::{EnsureUserRequest, GetUserRequest, User};
use prost::Message;
use serde_json::{Value, json};

use crate::config::GatewayConfig;
use crate::testing::files::Files;
use crate::testing::services::{self, OTHER};
use crate::testing::{Answer, bus, eventually, fake, send, send_body};

const ISSUER: &str = "https://id.example.com/";

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    gateway: GatewayConfig,
}

/// The setting with an issuer that has the key 2.
fn setting() -> String {
    let path = directory().join("keys.json");
    std::fs::write(&path, jwks(&[2])).unwrap();
    let issuer = json!({
        "issuer": ISSUER,
        "audience": "chat",
        "keyFile": path,
        "algorithms": ["EdDSA"],
        "nameClaim": "name",
    });
    json!([issuer]).to_string()
}

/// A token of the issuer with these further claims.
fn of_issuer(more: Value) -> String {
    let now = jsonwebtoken::get_current_timestamp();
    let mut claims =
        json!({"iss": ISSUER, "aud": "chat", "sub": "user_123", "name": "Ada", "iat": now, "exp": now + 60});
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    signed(2, &claims)
}

/// An auth service that gives every user of the issuer the same name.
fn auth() -> confab_common::grpc::Transport {
    let user = |id: String| User { id, username: "ada_lovelace".into(), ..User::default() }.encode_to_vec();
    fake(move |method, body| match method {
        "EnsureUser" => Ok(user(EnsureUserRequest::decode(body).unwrap().user_id)),
        "GetUser" => Ok(user(GetUserRequest::decode(body).unwrap().id)),
        _ => services::auth(method, body),
    })
}

async fn gateway() -> Router {
    let config = Settings::parse_from(["test", "--issuers", &setting()]).gateway;
    let process = Process::new();
    let (auth, room, message) = (auth(), fake(services::room), fake(services::message()));
    let services = Services { auth, room, message, file: Files::default().transport() };
    let listen = ([127, 0, 0, 1], 0).into();
    let routes = crate::start(&config, listen, services, bus(), None, &process).await.unwrap().routes;
    process.readiness.started();
    eventually(|| !process.readiness.missing().is_some_and(|missing| missing.contains("revocations"))).await;
    routes
}

async fn call(routes: &Router, method: &str, path: &str, token: &str, body: Value) -> Answer {
    let request = Request::builder().method(method).uri(path).header("Host", "localhost");
    let request = request.header("Authorization", format!("Bearer {token}"));
    if body.is_null() {
        send(routes, request).await
    } else {
        send_body(routes, request.header("Content-Type", "application/json"), body.to_string()).await
    }
}

#[tokio::test]
async fn users_of_issuers_have_no_password_and_no_sessions() {
    let (routes, token) = (gateway().await, of_issuer(json!({})));
    let me = call(&routes, "GET", "/api/auth/me", &token, Value::Null).await;
    assert_eq!((me.status, &me.json["username"]), (200, &json!("ada_lovelace")));
    let password = json!({"password": "correct horse"});
    let change = json!({"currentPassword": "correct horse", "newPassword": "another horse"});
    for (method, path, body) in [
        ("GET", "/api/auth/sessions", Value::Null),
        ("DELETE", &*format!("/api/auth/sessions/{OTHER}"), Value::Null),
        ("POST", "/api/auth/logout-all", Value::Null),
        ("POST", "/api/auth/logout-all", json!({"current": true})),
        ("PUT", "/api/auth/password", change),
        ("DELETE", "/api/auth/me", password),
    ] {
        let refused = call(&routes, method, path, &token, body).await;
        assert_eq!((refused.status, &refused.json["code"]), (403, &json!("forbidden")), "{method} {path}");
        assert!(refused.json["detail"].as_str().unwrap().contains("issuer"), "{}", refused.json);
    }
    // What is wrong with the request itself comes first.
    for (path, status) in [("/api/auth/password", 400), ("/api/auth/sessions", 405)] {
        assert_eq!(call(&routes, "PUT", path, &token, json!({})).await.status, status);
    }
    assert_eq!(call(&routes, "GET", "/api/auth/me", &token, Value::Null).await.status, 200);
}

#[tokio::test]
async fn a_logout_ends_one_token() {
    let routes = gateway().await;
    let [first, second] = ["1", "2"].map(|jti| of_issuer(json!({ "jti": jti })));
    let status = async |token: &str| call(&routes, "GET", "/api/rooms", token, Value::Null).await.status;
    assert_eq!([status(&first).await, status(&second).await], [200, 200]);
    assert_eq!(call(&routes, "POST", "/api/auth/logout", &first, Value::Null).await.status, 200);
    assert_eq!([status(&first).await, status(&second).await], [401, 200]);
    // Without a `jti`, the token itself is revoked.
    let [first, second] = [1, 2].map(|nonce| of_issuer(json!({ "nonce": nonce })));
    assert_eq!(call(&routes, "GET", "/api/auth/logout", &first, Value::Null).await.status, 200);
    assert_eq!([status(&first).await, status(&second).await], [401, 200]);
}

#[tokio::test]
async fn a_gateway_with_a_wrong_setting_does_not_start() {
    for bad in ["{}", "[{}]", r#"[{"issuer": "a", "audience": "b", "algorithms": ["HS256"], "keyFile": "/missing"}]"#] {
        let config = Settings::parse_from(["test", "--issuers", bad]).gateway;
        assert!(config.issuers.check().is_err(), "{bad}");
    }
}

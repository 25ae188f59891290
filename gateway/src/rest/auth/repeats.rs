//! Calls that end the credential with which they are made. After a lost answer, the auth service rejects the repeat.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::http::Request;
use axum::http::request::Builder;
use confab_common::Error;
use confab_common::grpc::Services;
use confab_proto::auth::v1::{AccountState, User};
use prost::Message;
use serde_json::{Value, json};

use crate::rest::extract::unauthorized;
use crate::rest::tests::{authorized, gateway_of, problem};
use crate::testing::files::Files;
use crate::testing::keys::{key, key_id};
use crate::testing::services::{self, OTHER};
use crate::testing::{SESSION, fake, send_body};

/// A gateway whose auth service rejects the credentials of all calls that end some, and whether the account is deleted.
async fn gateway() -> (Router, Arc<AtomicBool>) {
    let is_deleted = Arc::new(AtomicBool::new(false));
    let deleted = is_deleted.clone();
    let auth = fake(move |method, body| match method {
        "Logout" | "EndSession" | "EndSessions" | "DeleteAccount" | "DeleteKey" => {
            Err::<Vec<u8>, Error>(unauthorized("the token is not valid"))
        }
        "GetUser" => {
            let state =
                if deleted.load(Ordering::SeqCst) { AccountState::Deleted } else { AccountState::Active }.into();
            Ok(User { state, ..User::default() }.encode_to_vec())
        }
        _ => services::auth(method, body),
    });
    let (room, message) = (fake(services::room), fake(services::message()));
    let services = Services { auth, room, message, file: Files::default().transport() };
    (gateway_of(&[], services).await, is_deleted)
}

async fn status(routes: &Router, request: Builder, body: Value) -> u16 {
    let request = request.header("Content-Type", "application/json");
    let answer = send_body(routes, request, body.to_string()).await;
    if answer.status >= 400 {
        assert_eq!(problem(&answer), (401, "unauthorized"));
    }
    answer.status
}

#[tokio::test]
async fn a_repeat_finds_that_its_own_session_has_ended() {
    let (routes, _) = gateway().await;
    let end = async |id: &str| {
        let request = authorized(Request::delete(format!("/api/auth/sessions/{id}")));
        status(&routes, request, json!({})).await
    };
    assert_eq!((end(&SESSION.to_string()).await, end(OTHER).await), (204, 401));
    let end_all = async |current: bool| {
        status(&routes, authorized(Request::post("/api/auth/logout-all")), json!({ "current": current })).await
    };
    assert_eq!((end_all(true).await, end_all(false).await), (204, 401));
    assert_eq!(status(&routes, authorized(Request::post("/api/auth/logout")), json!({})).await, 200);
}

#[tokio::test]
async fn a_repeat_finds_that_its_account_is_deleted() {
    let (routes, is_deleted) = gateway().await;
    let delete = async || {
        let request = authorized(Request::delete("/api/auth/me"));
        status(&routes, request, json!({"password": "correct horse"})).await
    };
    assert_eq!(delete().await, 401);
    is_deleted.store(true, Ordering::SeqCst);
    assert_eq!(delete().await, 204);
}

#[tokio::test]
async fn a_repeat_finds_that_its_own_key_is_deleted() {
    let (routes, _) = gateway().await;
    let delete = async |scopes: &str| {
        let request = Request::delete(format!("/api/admin/keys/{}", key_id(scopes)));
        let request = request.header("Authorization", format!("Bearer {}", key("keys")));
        status(&routes, request, json!({})).await
    };
    assert_eq!((delete("keys").await, delete("rooms").await), (204, 401));
}

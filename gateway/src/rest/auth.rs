//! Accounts and sessions.

use std::sync::Arc;
use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use confab_common::grpc::{Call, request};
use confab_common::{Code, Error, text};
use confab_proto::auth::v1::{GetUserRequest, LoginRequest, LogoutRequest, Session, SignupRequest, User};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::extract::{Caller, Json};
use crate::App;
use crate::json::Time;
use crate::problem::Problem;

/// Signup and login may wait for a hashing slot.
const HASHING: Call = Call::within(Duration::from_secs(8));

#[derive(Deserialize)]
pub(super) struct Credentials {
    username: String,
    password: String,
}

impl Credentials {
    fn check(&self) -> Result<(), Error> {
        text::no_nul("username", &self.username)?;
        text::no_nul("password", &self.password)
    }
}

pub(super) async fn signup(State(app): State<Arc<App>>, Json(given): Json<Credentials>) -> Result<Response, Problem> {
    given.check()?;
    let signup = SignupRequest { user_id: Uuid::now_v7().to_string(), username: given.username, password: given.password };
    let session = app.clients.auth.clone().signup(request(signup, HASHING)).await?.into_inner();
    Ok((StatusCode::CREATED, opened(session)?).into_response())
}

pub(super) async fn login(State(app): State<Arc<App>>, Json(given): Json<Credentials>) -> Result<Response, Problem> {
    given.check()?;
    let login = LoginRequest { username: given.username, password: given.password };
    Ok(opened(app.clients.auth.clone().login(request(login, HASHING)).await?.into_inner())?)
}

pub(super) async fn logout(State(app): State<Arc<App>>, Caller(caller): Caller) -> Result<Response, Problem> {
    let expires_at_ms = caller.expires_at.saturating_mul(1000);
    let logout = LogoutRequest { session_id: caller.session_id.clone(), user_id: caller.user.id, expires_at_ms };
    app.clients.auth.clone().logout(request(logout, app.clients.call)).await?;
    // Here at once; the other gateways hear of it.
    app.revocations.add(&caller.session_id, expires_at_ms);
    Ok(Answer(json!({ "ok": true })).into_response())
}

pub(super) async fn me(State(app): State<Arc<App>>, Caller(caller): Caller) -> Result<Response, Problem> {
    let ask = GetUserRequest { id: caller.user.id };
    match app.clients.auth.clone().get_user(request(ask, app.clients.read)).await.map_err(Error::from) {
        Ok(user) => Ok(Answer(Account::from(user.get_ref())).into_response()),
        Err(error) if error.code == Code::NotFound => Err(Error::new(Code::Unauthorized, "the account is gone").into()),
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn jwks(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "public, max-age=60")];
    Ok((headers, app.tokens.jwks().await?).into_response())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Account<'a> {
    id: &'a str,
    username: &'a str,
    created_at: Time,
}

impl<'a> From<&'a User> for Account<'a> {
    fn from(user: &'a User) -> Self {
        Self { id: &user.id, username: &user.username, created_at: Time(user.created_at_ms) }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Opened<'a> {
    token: &'a str,
    token_type: &'static str,
    expires_at: Time,
    user: Account<'a>,
}

fn opened(session: Session) -> Result<Response, Error> {
    let user = session.user.as_ref().ok_or_else(|| Error::internal("a session without a user"))?;
    let expires_at = Time(session.expires_at_ms);
    Ok(Answer(Opened { token: &session.token, token_type: "Bearer", expires_at, user: user.into() }).into_response())
}

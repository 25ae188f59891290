//! Signup, login, refresh and logout, and the keys that verify tokens.

use std::sync::Arc;
use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, USER_AGENT};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::head;
use confab_common::grpc::{Call, request};
use confab_common::{Code, Error, text};
use confab_identity::tokens::Identity;
use confab_proto::auth::v1::{LoginRequest, LogoutRequest, RefreshRequest, SignupRequest};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::extract::{Caller, Json};
use super::late::refuse_late;
use super::openapi::examples;
use super::openapi::problems::{Body, Called, Forbidden, InvalidCredentials, RateLimited, Unauthorized, UsernameTaken};
use crate::App;
use crate::limits::{Act, RequestLimits};
use crate::problem::{Problem, wrong_method};
use crate::views::Opened;
use confab_socketio::net::ClientAddress;

/// The deadline of calls with a password, which may wait up to 5 s for each hash.
pub(super) const HASHING: Call = Call::within(Duration::from_secs(8));

const LOGOUT: &str = "/api/auth/logout";

/// Largest body with a password, in bytes. Small, because anonymous callers send it.
pub(super) const MAX_CREDENTIALS: usize = 16 * 1024;
/// Longest `User-Agent` that the auth service receives, in bytes; it stores less.
const MAX_AGENT: usize = 1024;

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::default()
        .routes(routes!(signup))
        .routes(routes!(login))
        .routes(routes!(refresh))
        .routes(routes!(logout, logout_by_get))
        // Without this route the router would answer HEAD by calling GET, which revokes the token.
        .route(LOGOUT, head(head_of_logout))
        .routes(routes!(jwks))
}

/// A new account.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct NewAccount {
    /// 3 to 32 characters: letters of one script with their combining marks, digits, and `_ . -`, beginning with a
    /// letter or digit. Unique regardless of case, and no two usernames may look alike. `system`, `admin`, `confab`,
    /// `deleted`, `everyone`, `here` and `room` are reserved.
    #[schema(min_length = 3, max_length = 32)]
    username: String,
    /// 8 to 256 bytes of UTF-8 in NFC, without control characters. Blank passwords, the username and the most common
    /// passwords are rejected.
    #[schema(format = "password", min_length = 8, max_length = 256)]
    password: String,
    /// Whether the response contains a refresh token. The token then lives for at most 15 minutes.
    refresh: Option<bool>,
    /// The code of an invite, if the server has the setting `CONFAB_SIGNUP=invite`.
    invite_code: Option<String>,
}

/// The username and password of an account.
#[derive(Deserialize, ToSchema)]
struct Credentials {
    /// In any spelling.
    username: String,
    #[schema(format = "password")]
    password: String,
    /// Whether the response contains a refresh token. The token then lives for at most 15 minutes.
    refresh: Option<bool>,
}

/// The newest refresh token of a session.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RefreshToken {
    #[schema(format = "password")]
    refresh_token: String,
}

fn check(username: &str, password: &str) -> Result<(), Error> {
    text::no_nul("username", username)?;
    text::no_nul("password", password)
}

/// Rejects users of the app's own issuers: this server has neither their passwords nor their sessions.
pub(super) fn check_account(caller: &Identity) -> Result<(), Error> {
    if !caller.is_of_issuer() {
        return Ok(());
    }
    let why = "the user belongs to the app's own issuer, which manages the account, its password and its sessions";
    Err(Error::new(Code::Forbidden, why))
}

/// The `User-Agent` of a request, for the list of sessions.
fn user_agent(headers: &HeaderMap) -> String {
    let agent = headers.get(USER_AGENT).map_or(&[][..], |agent| agent.as_bytes());
    String::from_utf8_lossy(&agent[..agent.len().min(MAX_AGENT)]).into_owned()
}

/// Sign up
///
/// Creates an account and returns a token for it. The response is 403 if the server does not allow signup, or allows it
/// only with the code of a valid invite.
#[utoipa::path(
    post,
    path = "/api/auth/signup",
    tag = "Auth",
    request_body(content = NewAccount, example = json!({"username": "ada", "password": "correct horse battery"})),
    responses(
        (status = 201, description = "The account was created", body = Opened, example = json!(examples::session())),
        Body, Forbidden, UsernameTaken, RateLimited, Called
    ),
    security(())
)]
async fn signup(
    State(app): State<Arc<App>>,
    address: ClientAddress,
    headers: HeaderMap,
    limits: RequestLimits,
    Json(given): Json<NewAccount, MAX_CREDENTIALS>,
) -> Result<Response, Problem> {
    check(&given.username, &given.password)?;
    limits.check(Act::Signup, address).await?;
    let signup = SignupRequest {
        user_id: Uuid::now_v7().to_string(),
        username: given.username,
        password: given.password,
        client_address: address.to_string(),
        user_agent: user_agent(&headers),
        refresh: given.refresh.unwrap_or_default(),
        invite_code: given.invite_code.unwrap_or_default(),
    };
    let session = refuse_late(app.clients.auth.clone().signup(request(signup, HASHING)).await).await?.into_inner();
    Ok((StatusCode::CREATED, Answer(Opened::try_from(&session)?)).into_response())
}

/// Log in
///
/// Returns a new token for an account. Tokens of earlier logins remain valid, but a user has at most 50 sessions: the
/// oldest one ends. The response is 403 for the correct password of a suspended account.
#[utoipa::path(
    post,
    path = "/api/auth/login",
    tag = "Auth",
    request_body(content = Credentials, example = json!({"username": "ada", "password": "correct horse battery"})),
    responses(
        (status = 200, description = "A new token for the account",
            body = Opened, example = json!(examples::session())),
        Body, InvalidCredentials, Forbidden, RateLimited, Called
    ),
    security(())
)]
async fn login(
    State(app): State<Arc<App>>,
    address: ClientAddress,
    headers: HeaderMap,
    limits: RequestLimits,
    Json(given): Json<Credentials, MAX_CREDENTIALS>,
) -> Result<Response, Problem> {
    check(&given.username, &given.password)?;
    limits.check(Act::Login, address).await?;
    let attempt = limits.attempt(&given.username, address).await?;
    let login = LoginRequest {
        username: given.username,
        password: given.password,
        client_address: address.to_string(),
        user_agent: user_agent(&headers),
        refresh: given.refresh.unwrap_or_default(),
    };
    let opened = refuse_late(app.clients.auth.clone().login(request(login, HASHING)).await).await;
    let session = attempt.judged(opened, Code::InvalidCredentials).await?.into_inner();
    Ok(Answer(Opened::try_from(&session)?).into_response())
}

/// Refresh a token
///
/// Continues a session: returns a new token and the next refresh token. A refresh token gets the same successor until a
/// client has used that successor, and for 10 s after that, so a request without a response can be repeated. A later
/// use means that two clients have the refresh token; it ends the session.
#[utoipa::path(
    post,
    path = "/api/auth/refresh",
    tag = "Auth",
    request_body(content = RefreshToken, example = json!({"refreshToken": examples::REFRESH_TOKEN})),
    responses(
        (status = 200, description = "A new token of the session",
            body = Opened, example = json!(examples::refreshed())),
        Body, Unauthorized, RateLimited, Called
    ),
    security(())
)]
async fn refresh(
    State(app): State<Arc<App>>,
    address: ClientAddress,
    headers: HeaderMap,
    limits: RequestLimits,
    Json(given): Json<RefreshToken, MAX_CREDENTIALS>,
) -> Result<Response, Problem> {
    limits.check(Act::Refresh, address).await?;
    let refresh = RefreshRequest {
        refresh_token: given.refresh_token,
        client_address: address.to_string(),
        user_agent: user_agent(&headers),
    };
    let refreshed = app.clients.auth.clone().refresh(request(refresh, app.clients.call)).await;
    let session = refuse_late(refreshed).await?.into_inner();
    Ok(Answer(Opened::try_from(&session)?).into_response())
}

/// Log out
///
/// Ends the session of this request: all gateways reject its tokens and close its sockets, usually within 1 s and at
/// most 5 s. A token of the app's own issuer is rejected until it expires; other tokens of its user stay valid.
#[utoipa::path(
    post,
    path = "/api/auth/logout",
    tag = "Auth",
    responses(
        (status = 200, description = "The token is revoked", body = Done, example = json!({"ok": true})),
        Unauthorized, Called
    ),
    security(("bearer" = []))
)]
async fn logout(State(app): State<Arc<App>>, Caller(caller): Caller) -> Result<Response, Problem> {
    let expires_at_ms = caller.expires_at.saturating_mul(1000);
    let logout = LogoutRequest { session_id: caller.session_id.to_string(), user_id: caller.user.id, expires_at_ms };
    let logout = caller.credential.attach(request(logout, app.clients.call));
    match app.clients.auth.clone().logout(logout).await.map_err(Error::from) {
        // An earlier attempt of this call has ended the token.
        Err(error) if error.code != Code::Unauthorized => return Err(error.into()),
        _ => {}
    }
    // This gateway rejects the token at once; the other gateways receive a hint.
    app.revocations.add(caller.session_id, expires_at_ms);
    Ok(Answer(Done { ok: true }).into_response())
}

/// Log out with GET
///
/// The same as `POST /api/auth/logout`, for clients that can only send GET.
#[utoipa::path(
    get,
    path = "/api/auth/logout",
    tag = "Auth",
    responses(
        (status = 200, description = "The token is revoked", body = Done, example = json!({"ok": true})),
        Unauthorized, Called
    ),
    security(("bearer" = []))
)]
async fn logout_by_get(app: State<Arc<App>>, caller: Caller) -> Result<Response, Problem> {
    logout(app, caller).await
}

async fn head_of_logout(method: Method, uri: Uri) -> Response {
    ([(ALLOW, "GET,POST")], wrong_method(method, uri).await).into_response()
}

/// Show the public keys
///
/// The JSON Web Key Set (RFC 7517) with the Ed25519 keys that verify tokens. May be cached for 60 s.
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    tag = "Auth",
    responses((status = 200, description = "The public keys", body = KeySet, example = json!(examples::keys())), Called),
    security(())
)]
async fn jwks(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "public, max-age=60")];
    Ok((headers, app.tokens.jwks().await?).into_response())
}

/// A confirmation.
#[derive(Serialize, ToSchema)]
struct Done {
    /// Always `true`.
    ok: bool,
}

/// The key set, as the auth service publishes it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the text in the OpenAPI document")]
struct KeySet {
    #[schema(inline)]
    keys: Vec<Key>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the text in the OpenAPI document")]
struct Key {
    kty: String,
    crv: String,
    x: String,
    kid: String,
    alg: String,
    r#use: String,
}

#[cfg(test)]
mod issuers;
#[cfg(test)]
mod repeats;
#[cfg(test)]
mod tests;

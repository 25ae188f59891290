//! Accounts, and sign-ins with their tokens.

use std::sync::Arc;
use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::head;
use confab_common::grpc::{Call, request};
use confab_common::{Code, Error, text};
use confab_proto::auth::v1::{GetUserRequest, LoginRequest, LogoutRequest, SignupRequest};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::extract::{Caller, Json};
use super::late::refuse_late;
use super::openapi::examples;
use super::openapi::problems::{Body, Called, InvalidCredentials, Unauthorized, UsernameTaken};
use crate::App;
use crate::problem::{Problem, wrong_method};
use crate::views::{Account, Opened};
use confab_socketio::net::ClientAddress;

/// The deadline of signup and login, which may wait up to 5 s for a hashing slot.
const HASHING: Call = Call::within(Duration::from_secs(8));

const LOGOUT: &str = "/api/auth/logout";

/// Largest body with a username and a password, in bytes. Small, because anonymous callers send it.
const MAX_CREDENTIALS: usize = 16 * 1024;

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::default()
        .routes(routes!(signup))
        .routes(routes!(login))
        .routes(routes!(me))
        .routes(routes!(logout, logout_by_get))
        // Without this route the router would answer HEAD by calling GET, which revokes the token.
        .route(LOGOUT, head(head_of_logout))
        .routes(routes!(jwks))
}

/// The username and password of an account.
#[derive(Deserialize, ToSchema)]
struct Credentials {
    /// 3 to 32 characters: letters of one script with their combining marks, digits, and `_ . -`, beginning with a
    /// letter or digit. Unique regardless of case, and no two usernames may look alike. `system`, `admin`, `confab`,
    /// `deleted`, `everyone`, `here` and `room` are reserved.
    #[schema(min_length = 3, max_length = 32)]
    username: String,
    /// 8 to 256 bytes of UTF-8 in NFC, without control characters. Blank passwords, the username and the most common
    /// passwords are rejected.
    #[schema(format = "password", min_length = 8, max_length = 256)]
    password: String,
}

impl Credentials {
    fn check(&self) -> Result<(), Error> {
        text::no_nul("username", &self.username)?;
        text::no_nul("password", &self.password)
    }
}

/// Sign up
///
/// Creates an account and returns a token for it.
#[utoipa::path(
    post,
    path = "/api/auth/signup",
    tag = "Auth",
    request_body(content = Credentials, example = json!({"username": "ada", "password": "correct horse battery"})),
    responses(
        (status = 201, description = "The account was created", body = Opened, example = json!(examples::session())),
        Body, UsernameTaken, Called
    ),
    security(())
)]
async fn signup(
    State(app): State<Arc<App>>,
    address: ClientAddress,
    Json(given): Json<Credentials, MAX_CREDENTIALS>,
) -> Result<Response, Problem> {
    given.check()?;
    let (user_id, client_address) = (Uuid::now_v7().to_string(), address.to_string());
    let signup = SignupRequest { user_id, username: given.username, password: given.password, client_address };
    let session = refuse_late(app.clients.auth.clone().signup(request(signup, HASHING)).await).await?.into_inner();
    Ok((StatusCode::CREATED, Answer(Opened::try_from(&session)?)).into_response())
}

/// Log in
///
/// Returns a new token for an account. Tokens of earlier logins remain valid.
#[utoipa::path(
    post,
    path = "/api/auth/login",
    tag = "Auth",
    request_body(content = Credentials, example = json!({"username": "ada", "password": "correct horse battery"})),
    responses(
        (status = 200, description = "A new token for the account", body = Opened, example = json!(examples::session())),
        Body, InvalidCredentials, Called
    ),
    security(())
)]
async fn login(
    State(app): State<Arc<App>>,
    address: ClientAddress,
    Json(given): Json<Credentials, MAX_CREDENTIALS>,
) -> Result<Response, Problem> {
    given.check()?;
    let login =
        LoginRequest { username: given.username, password: given.password, client_address: address.to_string() };
    let session = refuse_late(app.clients.auth.clone().login(request(login, HASHING)).await).await?.into_inner();
    Ok(Answer(Opened::try_from(&session)?).into_response())
}

/// Log out
///
/// Revokes the token of this request. All gateways reject it and close its sockets, usually within 1 s and at most 5 s.
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
    app.clients.auth.clone().logout(request(logout, app.clients.call)).await?;
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

/// Show the caller's account
#[utoipa::path(
    get,
    path = "/api/auth/me",
    tag = "Auth",
    responses(
        (status = 200, description = "The account of the token", body = Account, example = json!(examples::account())),
        Unauthorized, Called
    ),
    security(("bearer" = []))
)]
async fn me(State(app): State<Arc<App>>, Caller(caller): Caller) -> Result<Response, Problem> {
    let ask = GetUserRequest { id: caller.user.id };
    match app.clients.auth.clone().get_user(request(ask, app.clients.read)).await.map_err(Error::from) {
        Ok(user) => Ok(Answer(Account::from(user.get_ref())).into_response()),
        Err(error) if error.code == Code::NotFound => {
            Err(Error::new(Code::Unauthorized, "the account no longer exists").into())
        }
        Err(error) => Err(error.into()),
    }
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

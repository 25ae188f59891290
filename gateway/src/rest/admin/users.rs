//! Users, their tokens, and invites.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use confab_common::{Error, text};
use confab_proto::auth::v1::{
    CreateInviteRequest, DeleteUserRequest, EndSessionsRequest, IssueTokenRequest, PutUserRequest, RestoreUserRequest,
    Revocations, SuspendUserRequest,
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use tonic::Status;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::App;
use crate::limits::RequestLimits;
use crate::problem::Problem;
use crate::rest::Deadline;
use crate::rest::extract::{Admin, Json, JsonWithData, Key, OptionalJson};
use crate::rest::openapi::problems::{Body, ByKey, Called, Conflict, Unauthorized, UserConflict};
use crate::rest::openapi::{examples, params};
use crate::rest::profile::{checked_data, given, or_cleared};
use crate::rest::users::{UserPath, resolve_id};
use crate::views::{Account, InviteJson, Opened};

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::default()
        .routes(routes!(put, delete))
        .routes(routes!(suspend))
        .routes(routes!(restore))
        .routes(routes!(end_sessions))
        .routes(routes!(invite))
        .routes(routes!(token))
}

/// A user without a password. Absent fields stay unchanged; null clears a field.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct UserToPut {
    /// As at signup.
    #[schema(min_length = 3, max_length = 32)]
    username: String,
    /// The name that clients show, 1 to 80 characters.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 80)]
    display_name: Option<Option<String>>,
    /// An object that the app stores for the user, up to 4 KiB. The server keeps its text as it is sent.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Object>)]
    data: Option<Option<Value>>,
}

/// Create or change a user
///
/// Creates a user with an id that the app chooses and without a password, or changes the name and the profile of a
/// user. The app gets tokens of the user with `POST /api/admin/tokens`. Messages and tokens keep the name that the user
/// had.
#[utoipa::path(
    put,
    path = "/api/admin/users/{userId}",
    operation_id = "put_user",
    tag = "Admin",
    params(params::ManagedUser),
    request_body(content = UserToPut, example = json!({"username": "ada"})),
    responses(
        (status = 201, description = "The user was created", body = Account, example = json!(examples::account())),
        (status = 200, description = "The user existed before", body = Account, example = json!(examples::account())),
        Body, Unauthorized, UserConflict, ByKey, Called
    ),
    security(("key" = []))
)]
async fn put(
    State(app): State<Arc<App>>,
    Admin(key): Admin,
    user: UserPath,
    limits: RequestLimits,
    JsonWithData { object: given, data }: JsonWithData<UserToPut>,
) -> Result<Response, Problem> {
    text::no_nul("username", &given.username)?;
    let display_name = or_cleared("displayName", given.display_name)?;
    let data = checked_data(given.data, data)?;
    let deadline = Deadline::of(&app);
    let user_id = existing_id(resolve_id(&app, &deadline, &limits, None, &user).await?)?;
    let put = PutUserRequest { user_id, username: given.username, display_name, data, actor: Some(key.actor()) };
    let answer = app.clients.auth.clone().put_user(key.credential.attach(deadline.request(put))).await?.into_inner();
    let user = answer.user.ok_or_else(|| Error::internal("an answer without a user"))?;
    forget(&app, &user.id).await;
    let status = if answer.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Answer(Account::from(&user))).into_response())
}

/// Delete a user
///
/// Deletes an account permanently, with its password and its profile, as the user can. Its messages stay, and show the
/// author as `deleted`. The user leaves all rooms, and the username becomes available after 30 days.
#[utoipa::path(
    delete,
    path = "/api/admin/users/{userId}",
    operation_id = "delete_user",
    tag = "Admin",
    params(params::ManagedUser),
    responses((status = 204, description = "The user is deleted"), Unauthorized, ByKey, Called),
    security(("key" = []))
)]
async fn delete(
    state: State<Arc<App>>,
    admin: Admin,
    user: UserPath,
    limits: RequestLimits,
) -> Result<StatusCode, Problem> {
    managed(state, admin, (user, limits), async |app: &App, deadline: &Deadline, user_id, key: Key| {
        let delete = DeleteUserRequest { user_id, actor: Some(key.actor()) };
        app.clients
            .auth
            .clone()
            .delete_user(key.credential.attach(deadline.request(delete)))
            .await
            .map(tonic::Response::into_inner)
    })
    .await
}

/// Suspend a user
///
/// Rejects every token and every login of the user, and closes the user's sockets, until the user is restored.
/// Memberships and messages stay.
#[utoipa::path(
    post,
    path = "/api/admin/users/{userId}/suspend",
    operation_id = "suspend_user",
    tag = "Admin",
    params(params::ManagedUser),
    responses(
        (status = 204, description = "The user is suspended"),
        Unauthorized, Conflict, ByKey, Called
    ),
    security(("key" = []))
)]
async fn suspend(
    state: State<Arc<App>>,
    admin: Admin,
    user: UserPath,
    limits: RequestLimits,
) -> Result<StatusCode, Problem> {
    managed(state, admin, (user, limits), async |app: &App, deadline: &Deadline, user_id, key: Key| {
        let suspend = SuspendUserRequest { user_id, actor: Some(key.actor()) };
        app.clients
            .auth
            .clone()
            .suspend_user(key.credential.attach(deadline.request(suspend)))
            .await
            .map(tonic::Response::into_inner)
    })
    .await
}

/// Restore a suspended user
///
/// Ends the suspension of a user, who must log in again.
#[utoipa::path(
    post,
    path = "/api/admin/users/{userId}/restore",
    operation_id = "restore_user",
    tag = "Admin",
    params(params::ManagedUser),
    responses(
        (status = 204, description = "The user is not suspended"),
        Unauthorized, Conflict, ByKey, Called
    ),
    security(("key" = []))
)]
async fn restore(
    state: State<Arc<App>>,
    admin: Admin,
    user: UserPath,
    limits: RequestLimits,
) -> Result<StatusCode, Problem> {
    managed(state, admin, (user, limits), async |app: &App, deadline: &Deadline, user_id, key: Key| {
        let restore = RestoreUserRequest { user_id, actor: Some(key.actor()) };
        app.clients
            .auth
            .clone()
            .restore_user(key.credential.attach(deadline.request(restore)))
            .await
            .map(tonic::Response::into_inner)
    })
    .await
}

/// End all sessions of a user
///
/// Ends all sessions of a user and rejects all tokens that were issued before. All gateways close the user's sockets,
/// usually within 1 s and at most 5 s.
#[utoipa::path(
    post,
    path = "/api/admin/users/{userId}/end-sessions",
    operation_id = "end_sessions_of_user",
    tag = "Admin",
    params(params::ManagedUser),
    responses((status = 204, description = "The sessions have ended"), Unauthorized, ByKey, Called),
    security(("key" = []))
)]
async fn end_sessions(
    state: State<Arc<App>>,
    admin: Admin,
    user: UserPath,
    limits: RequestLimits,
) -> Result<StatusCode, Problem> {
    managed(state, admin, (user, limits), async |app: &App, deadline: &Deadline, user_id, key: Key| {
        let end = EndSessionsRequest { user_id, except_session_id: String::new(), actor: Some(key.actor()) };
        app.clients
            .auth
            .clone()
            .end_sessions(key.credential.attach(deadline.request(end)))
            .await
            .map(tonic::Response::into_inner)
    })
    .await
}

/// Makes a call about the user in a path, and applies its revocations at once; other gateways receive a hint.
async fn managed(
    State(app): State<Arc<App>>,
    Admin(key): Admin,
    (user, limits): (UserPath, RequestLimits),
    call: impl AsyncFnOnce(&App, &Deadline, String, Key) -> Result<Revocations, Status>,
) -> Result<StatusCode, Problem> {
    let deadline = Deadline::of(&app);
    let user_id = existing_id(resolve_id(&app, &deadline, &limits, None, &user).await?)?;
    let revoked = call(&app, &deadline, user_id.clone(), key).await?;
    app.revocations.add_all(&revoked.revocations);
    forget(&app, &user_id).await;
    Ok(StatusCode::NO_CONTENT)
}

fn existing_id(id: String) -> Result<String, Error> {
    if id.is_empty() { Err(Error::not_found("user")) } else { Ok(id) }
}

/// Makes this gateway look a changed user up again.
async fn forget(app: &App, user_id: &str) {
    if let Ok(id) = user_id.parse() {
        app.acting.forget(id).await;
    }
}

/// An invite to create.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct NewInvite {
    /// How many accounts can be created with the invite; 1 if it is left out.
    #[schema(minimum = 1, maximum = 1000)]
    uses: Option<u32>,
    /// When the invite expires, at most 8760 h from now; in 7 days if it is left out.
    #[schema(format = "date-time")]
    expires_at: Option<String>,
}

/// Create an invite
///
/// Creates a code with which clients can sign up when the server has the setting `CONFAB_SIGNUP=invite`.
#[utoipa::path(
    post,
    path = "/api/admin/invites",
    operation_id = "create_invite",
    tag = "Admin",
    request_body(content = Option<NewInvite>, example = json!({"uses": 10})),
    responses(
        (status = 201, description = "The invite was created", body = InviteJson, example = json!(examples::invite())),
        Body, Unauthorized, Conflict, ByKey, Called
    ),
    security(("key" = []))
)]
async fn invite(
    State(app): State<Arc<App>>,
    Admin(key): Admin,
    OptionalJson(new): OptionalJson<NewInvite>,
) -> Result<Response, Problem> {
    let expires_at_ms = match new.expires_at.as_deref() {
        None => 0,
        Some(text) => match text.parse::<Timestamp>().map(Timestamp::as_millisecond) {
            Ok(time) if time > 0 => time,
            _ => return Err(Error::field("expiresAt", "must be a time in the future, as in RFC 3339").into()),
        },
    };
    let create = CreateInviteRequest { uses: new.uses.unwrap_or(1), expires_at_ms, actor: Some(key.actor()) };
    // One attempt: a repeat would create another invite.
    let created = app
        .clients
        .auth
        .clone()
        .create_invite(key.credential.attach(Deadline::of(&app).once(create)))
        .await?
        .into_inner();
    Ok((StatusCode::CREATED, Answer(InviteJson::from(&created))).into_response())
}

/// A token to issue.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct NewToken {
    /// The user of the token.
    #[schema(format = "uuid")]
    user_id: String,
    /// How long the token is valid, in seconds; 900 if it is left out.
    #[schema(minimum = 1, maximum = 86_400)]
    ttl: Option<u32>,
}

/// Issue a token of a user
///
/// Opens a session of a user and returns its token, without a password and without a refresh token. The app passes the
/// token to the user's client. A user has at most 50 sessions: above that, the oldest one ends. The response is 403 for
/// a suspended user.
#[utoipa::path(
    post,
    path = "/api/admin/tokens",
    operation_id = "issue_token",
    tag = "Admin",
    request_body(content = NewToken, example = json!({"userId": examples::USER})),
    responses(
        (status = 200, description = "A token of the user", body = Opened, example = json!(examples::session())),
        Body, Unauthorized, ByKey, Called
    ),
    security(("key" = []))
)]
async fn token(State(app): State<Arc<App>>, Admin(key): Admin, Json(new): Json<NewToken>) -> Result<Response, Problem> {
    if new.ttl == Some(0) {
        return Err(Error::field("ttl", "must be from 1 to 86400 seconds").into());
    }
    let user_id = text::id("userId", &new.user_id)?.to_string();
    let issue = IssueTokenRequest { user_id, ttl_s: new.ttl.unwrap_or_default(), actor: Some(key.actor()) };
    // One attempt: a repeat would open another session.
    let session =
        app.clients.auth.clone().issue_token(key.credential.attach(Deadline::of(&app).once(issue))).await?.into_inner();
    Ok(Answer(Opened::try_from(&session)?).into_response())
}

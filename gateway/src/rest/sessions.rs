//! The sessions of the caller: one for each login.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use confab_common::grpc::request;
use confab_common::{Code, Error};
use confab_proto::auth::v1::{EndSessionRequest, EndSessionsRequest, ListSessionsRequest};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::check_account;
use super::extract::{Caller, OptionalJson, SessionId};
use super::openapi::problems::{Body, Called, Forbidden, NotFound, Unauthorized};
use super::openapi::{examples, params};
use crate::App;
use crate::problem::Problem;
use crate::views::Sessions;

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::default().routes(routes!(list)).routes(routes!(end)).routes(routes!(end_all))
}

/// List the caller's sessions
///
/// The sessions that have not ended, the last used one first, at most 50. The response is 403 for users of the app's own
/// issuers.
#[utoipa::path(
    get,
    path = "/api/auth/sessions",
    operation_id = "list_sessions",
    tag = "Auth",
    responses(
        (status = 200, description = "The sessions", body = Sessions, example = json!(examples::sessions())),
        Unauthorized, Forbidden, Called
    ),
    security(("bearer" = []))
)]
async fn list(State(app): State<Arc<App>>, Caller(caller): Caller) -> Result<Response, Problem> {
    check_account(&caller)?;
    let ask = request(ListSessionsRequest { user_id: caller.user.id }, app.clients.read);
    let ask = caller.credential.attach(ask);
    let listed = app.clients.auth.clone().list_sessions(ask).await?.into_inner().sessions;
    Ok(Answer(Sessions::new(&listed, &caller.session_id.to_string())).into_response())
}

/// End a session
///
/// Ends one session of the caller: all gateways reject its tokens and close its sockets, usually within 1 s and at most
/// 5 s. The response is 403 for users of the app's own issuers.
#[utoipa::path(
    delete,
    path = "/api/auth/sessions/{sessionId}",
    operation_id = "end_session",
    tag = "Auth",
    params(params::Session),
    responses((status = 204, description = "The session has ended"), Unauthorized, Forbidden, NotFound, Called),
    security(("bearer" = []))
)]
async fn end(
    State(app): State<Arc<App>>,
    Caller(caller): Caller,
    SessionId(id): SessionId,
) -> Result<StatusCode, Problem> {
    check_account(&caller)?;
    let end = EndSessionRequest { user_id: caller.user.id, session_id: id.to_string() };
    let end = caller.credential.attach(request(end, app.clients.call));
    match app.clients.auth.clone().end_session(end).await.map_err(Error::from) {
        // This gateway rejects the tokens at once; the other gateways receive a hint.
        Ok(ended) => app.revocations.add_all(&ended.into_inner().revocations),
        // An earlier attempt of this call has ended the session that makes it.
        Err(error) if error.code == Code::Unauthorized && id == caller.session_id => {}
        Err(error) => return Err(error.into()),
    }
    Ok(StatusCode::NO_CONTENT)
}

/// The sessions to end.
#[derive(Default, Deserialize, ToSchema)]
struct SessionsToEnd {
    /// Whether the session of this request ends, too.
    current: Option<bool>,
}

/// End all other sessions
///
/// Ends all sessions of the caller except that of this request, or all without exception. All gateways reject the
/// tokens and close the sockets, usually within 1 s and at most 5 s. The response is 403 for users of the app's own
/// issuers.
#[utoipa::path(
    post,
    path = "/api/auth/logout-all",
    operation_id = "end_sessions",
    tag = "Auth",
    request_body(content = Option<SessionsToEnd>, example = json!({"current": false})),
    responses((status = 204, description = "The sessions have ended"), Body, Unauthorized, Forbidden, Called),
    security(("bearer" = []))
)]
async fn end_all(
    State(app): State<Arc<App>>,
    Caller(caller): Caller,
    OptionalJson(given): OptionalJson<SessionsToEnd>,
) -> Result<StatusCode, Problem> {
    check_account(&caller)?;
    let stays = !given.current.unwrap_or_default();
    let except_session_id = if stays { caller.session_id.to_string() } else { String::new() };
    let end = EndSessionsRequest { user_id: caller.user.id, except_session_id, actor: None };
    let end = caller.credential.attach(request(end, app.clients.call));
    match app.clients.auth.clone().end_sessions(end).await.map_err(Error::from) {
        Ok(ended) => app.revocations.add_all(&ended.into_inner().revocations),
        // An earlier attempt of this call has ended this session, too.
        Err(error) if error.code == Code::Unauthorized && !stays => {}
        Err(error) => return Err(error.into()),
    }
    Ok(StatusCode::NO_CONTENT)
}

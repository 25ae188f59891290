//! Changes of passwords.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use confab_common::Code;
use confab_common::grpc::request;
use confab_proto::auth::v1::{ChangePasswordRequest, ResetPasswordRequest};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{HASHING, MAX_CREDENTIALS, check_account};
use super::extract::{Caller, Json, unauthorized};
use super::late::refuse_late;
use super::openapi::problems::{Body, Called, Forbidden, RateLimited, Unauthorized};
use crate::App;
use crate::limits::RequestLimits;
use crate::problem::Problem;
use confab_socketio::net::ClientAddress;

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::default().routes(routes!(change)).routes(routes!(reset))
}

/// A change of the caller's password.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct PasswordChange {
    #[schema(format = "password")]
    current_password: String,
    /// As `password` at signup.
    #[schema(format = "password", min_length = 8, max_length = 256)]
    new_password: String,
}

/// Change the caller's password
///
/// Changes the password, and ends all other sessions of the caller. The response is 403 when the current password is
/// wrong, and for users of the app's own issuers.
#[utoipa::path(
    put,
    path = "/api/auth/password",
    operation_id = "change_password",
    tag = "Auth",
    request_body(
        content = PasswordChange,
        example = json!({"currentPassword": "correct horse battery", "newPassword": "staple battery horse"})
    ),
    responses((status = 204, description = "The password is changed"), Body, Unauthorized, Forbidden, RateLimited, Called),
    security(("bearer" = []))
)]
async fn change(
    State(app): State<Arc<App>>,
    Caller(caller): Caller,
    address: ClientAddress,
    limits: RequestLimits,
    Json(given): Json<PasswordChange, MAX_CREDENTIALS>,
) -> Result<StatusCode, Problem> {
    check_account(&caller)?;
    let attempt = limits.confirmation(&caller.user.username, address).await?;
    let change = ChangePasswordRequest {
        user_id: caller.user.id,
        session_id: caller.session_id.to_string(),
        current_password: given.current_password,
        new_password: given.new_password,
        client_address: address.to_string(),
    };
    let change = caller.credential.attach(request(change, HASHING));
    let changed = app.clients.auth.clone().change_password(change).await;
    match attempt.judged(refuse_late(changed).await, Code::Forbidden).await {
        Ok(changed) => {
            // This gateway rejects the tokens at once; the other gateways receive a hint.
            app.revocations.add_all(&changed.into_inner().revocations);
            Ok(StatusCode::NO_CONTENT)
        }
        Err(error) if error.code == Code::NotFound => Err(unauthorized("the account no longer exists").into()),
        Err(error) => Err(error.into()),
    }
}

/// A new password, set with a one-time token.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct PasswordReset {
    /// The token that the operator has printed with `confab-auth reset-password`.
    #[schema(format = "password")]
    token: String,
    /// As `password` at signup.
    #[schema(format = "password", min_length = 8, max_length = 256)]
    new_password: String,
}

/// Reset a password
///
/// Sets a new password with a one-time token, which an operator creates for a user and which is valid for 1 h. Ends all
/// sessions of the user. The response is 403 when the token is unknown, expired or used.
#[utoipa::path(
    post,
    path = "/api/auth/reset-password",
    operation_id = "reset_password",
    tag = "Auth",
    request_body(
        content = PasswordReset,
        example = json!({
            "token": "cfp_q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA",
            "newPassword": "staple battery horse"
        })
    ),
    responses((status = 204, description = "The password is set"), Body, Forbidden, RateLimited, Called),
    security(())
)]
async fn reset(
    State(app): State<Arc<App>>,
    address: ClientAddress,
    limits: RequestLimits,
    Json(given): Json<PasswordReset, MAX_CREDENTIALS>,
) -> Result<StatusCode, Problem> {
    let attempt = limits.token_attempt(address).await?;
    let PasswordReset { token, new_password } = given;
    let reset = ResetPasswordRequest { token, new_password, client_address: address.to_string() };
    let reset = refuse_late(app.clients.auth.clone().reset_password(request(reset, HASHING)).await).await;
    attempt.judged(reset, Code::Forbidden).await?;
    Ok(StatusCode::NO_CONTENT)
}

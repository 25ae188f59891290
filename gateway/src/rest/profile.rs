//! The caller's account.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use confab_common::grpc::request;
use confab_common::{Code, Error};
use confab_proto::auth::v1::{AccountState, DeleteAccountRequest, GetUserRequest, UpdateProfileRequest, User};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Deadline;
use super::auth::{HASHING, MAX_CREDENTIALS, check_account};
use super::avatars::check_picture;
use super::extract::{Caller, Json, JsonWithData, unauthorized};
use super::late::refuse_late;
use super::openapi::examples;
use super::openapi::problems::{Body, Called, Forbidden, RateLimited, Unauthorized};
use crate::App;
use crate::limits::RequestLimits;
use crate::problem::Problem;
use crate::views::Account;
use confab_socketio::net::ClientAddress;

/// Longest `data`, in bytes.
const MAX_DATA: usize = 4096;

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::default().routes(routes!(me, change, delete))
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
    let user = present(&app, caller.user.id).await?.ok_or_else(gone)?;
    Ok(Answer(Account::from(&user)).into_response())
}

/// An account; `None` if it is deleted.
async fn present(app: &App, id: String) -> Result<Option<User>, Error> {
    let ask = GetUserRequest { id, username: String::new() };
    match app.clients.auth.clone().get_user(request(ask, app.clients.read)).await.map_err(Error::from) {
        Ok(user) => Ok(Some(user.into_inner()).filter(|user| user.state() != AccountState::Deleted)),
        Err(error) if error.code == Code::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A change of the caller's account. Absent fields stay unchanged; null clears a field.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ProfileChange {
    /// The name that clients show, 1 to 80 characters.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 80)]
    display_name: Option<Option<String>>,
    /// The file with the user's picture: an upload of the user without a room, a raster image of at most 1 MiB.
    /// It can be read without a token.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, format = "uuid")]
    avatar_file_id: Option<Option<String>>,
    /// An object that the app stores for the user, up to 4 KiB. The server keeps its text as it is sent.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Object>)]
    data: Option<Option<Value>>,
}

/// Distinguishes null from an absent field.
pub(super) fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(value: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(value).map(Some)
}

impl ProfileChange {
    /// The request to the auth service, in which an empty text clears a field.
    fn of(self, data: Option<String>, user_id: String) -> Result<UpdateProfileRequest, Error> {
        Ok(UpdateProfileRequest {
            user_id,
            display_name: or_cleared("displayName", self.display_name)?,
            avatar_file_id: or_cleared("avatarFileId", self.avatar_file_id)?,
            data: checked_data(self.data, data)?,
        })
    }
}

/// A changed text, empty if the change clears it.
pub(super) fn or_cleared(field: &str, change: Option<Option<String>>) -> Result<Option<String>, Error> {
    match change {
        Some(Some(text)) if text.is_empty() => Err(Error::field(field, "must not be empty; null clears it")),
        change => Ok(change.map(Option::unwrap_or_default)),
    }
}

/// The text of changed `data`, as the client wrote it.
pub(super) fn checked_data(change: Option<Option<Value>>, text: Option<String>) -> Result<Option<String>, Error> {
    let data = match change {
        None => None,
        Some(None) => Some("{}".to_owned()),
        Some(Some(Value::Object(_))) => text,
        Some(Some(_)) => return Err(Error::field("data", "must be an object")),
    };
    if data.as_ref().is_some_and(|data| data.len() > MAX_DATA) {
        return Err(Error::new(Code::TooLarge, format!("data must be at most {MAX_DATA} bytes")));
    }
    Ok(data)
}

/// Change the caller's account
///
/// Changes the display name, the picture or the app's data. Absent fields stay unchanged; null clears a field.
#[utoipa::path(
    patch,
    path = "/api/auth/me",
    operation_id = "change_account",
    tag = "Auth",
    request_body(content = ProfileChange, example = json!({"displayName": "Ada Lovelace"})),
    responses(
        (status = 200, description = "The changed account", body = Account, example = json!(examples::account())),
        Body, Unauthorized, Called
    ),
    security(("bearer" = []))
)]
async fn change(
    State(app): State<Arc<App>>,
    Caller(caller): Caller,
    JsonWithData { object: change, data }: JsonWithData<ProfileChange>,
) -> Result<Response, Problem> {
    let deadline = Deadline::of(&app);
    let update = change.of(data, caller.user.id.clone())?;
    if let Some(file_id) = update.avatar_file_id.as_deref().filter(|id| !id.is_empty()) {
        check_picture(&app, &deadline, &caller, file_id).await?;
    }
    let update = caller.credential.attach(deadline.request(update));
    match app.clients.auth.clone().update_profile(update).await.map_err(Error::from) {
        Ok(user) => Ok(Answer(Account::from(user.get_ref())).into_response()),
        Err(error) if error.code == Code::NotFound => Err(gone().into()),
        Err(error) => Err(error.into()),
    }
}

/// The password of the account, which confirms its deletion.
#[derive(Deserialize, ToSchema)]
struct Confirmation {
    #[schema(format = "password")]
    password: String,
}

/// Delete the caller's account
///
/// Deletes the account and ends all its sessions. Its messages stay, and show the author as `deleted`. The user leaves
/// all rooms, and the username becomes available after 30 days. The response is 403 when the password is wrong, and for
/// users of the app's own issuers.
#[utoipa::path(
    delete,
    path = "/api/auth/me",
    operation_id = "delete_account",
    tag = "Auth",
    request_body(content = Confirmation, example = json!({"password": "correct horse battery"})),
    responses((status = 204, description = "The account is deleted"), Body, Unauthorized, Forbidden, RateLimited, Called),
    security(("bearer" = []))
)]
async fn delete(
    State(app): State<Arc<App>>,
    Caller(caller): Caller,
    address: ClientAddress,
    limits: RequestLimits,
    Json(given): Json<Confirmation, MAX_CREDENTIALS>,
) -> Result<StatusCode, Problem> {
    check_account(&caller)?;
    let attempt = limits.confirmation(&caller.user.username, address).await?;
    let client_address = address.to_string();
    let user_id = caller.user.id.clone();
    let delete = DeleteAccountRequest { user_id, password: given.password, client_address };
    let delete = caller.credential.attach(request(delete, HASHING));
    let deleted = app.clients.auth.clone().delete_account(delete).await;
    match attempt.judged(refuse_late(deleted).await, Code::Forbidden).await {
        Ok(deleted) => {
            app.revocations.add_all(&deleted.into_inner().revocations);
            Ok(StatusCode::NO_CONTENT)
        }
        // An earlier attempt of this call may have deleted the account, which ends the token.
        Err(error) if error.code == Code::Unauthorized => match present(&app, caller.user.id).await? {
            None => Ok(StatusCode::NO_CONTENT),
            Some(_) => Err(error.into()),
        },
        Err(error) if error.code == Code::NotFound => Err(gone().into()),
        Err(error) => Err(error.into()),
    }
}

fn gone() -> Error {
    unauthorized("the account no longer exists")
}

//! Server keys.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use confab_common::{Code, Error, text};
use confab_proto::auth::v1::{CreateKeyRequest, DeleteKeyRequest, ListKeysRequest};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::App;
use crate::problem::Problem;
use crate::rest::Deadline;
use crate::rest::extract::{Admin, Json, KeyId};
use crate::rest::openapi::problems::{Body, ByKey, Called, Conflict, Unauthorized};
use crate::rest::openapi::{examples, params};
use crate::views::{CreatedKey, Keys, ScopeJson};

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::default().routes(routes!(list, create)).routes(routes!(delete))
}

/// A server key to create.
#[derive(Deserialize, ToSchema)]
struct NewKey {
    /// What the key may do. At least one scope, and only scopes of the key that makes the request.
    #[schema(value_type = Vec<ScopeJson>, min_items = 1)]
    scopes: Vec<String>,
    /// What the key is for.
    #[schema(max_length = 80)]
    name: Option<String>,
}

/// Create a server key
///
/// Creates a server key with scopes of the key that makes the request. The first key comes from
/// `confab-auth key create --scopes …` or, with the embedded server, from `confab key create --scopes …`. There are at
/// most 100 keys.
#[utoipa::path(
    post,
    path = "/api/admin/keys",
    operation_id = "create_key",
    tag = "Admin",
    request_body(content = NewKey, example = json!({"scopes": ["rooms", "messages"]})),
    responses(
        (status = 201, description = "The key was created", body = CreatedKey,
            example = json!(examples::created_key())),
        Body, Unauthorized, Conflict, ByKey, Called
    ),
    security(("key" = []))
)]
async fn create(State(app): State<Arc<App>>, Admin(key): Admin, Json(new): Json<NewKey>) -> Result<Response, Problem> {
    let name = new.name.unwrap_or_default();
    text::no_nul("name", &name)?;
    let create = CreateKeyRequest { scopes: new.scopes, name, actor: Some(key.actor()) };
    // One attempt: a repeat would create another key.
    let created =
        app.clients.auth.clone().create_key(key.credential.attach(Deadline::of(&app).once(create))).await?.into_inner();
    let shown = CreatedKey::new(&created).ok_or_else(|| Error::internal("a key without details"))?;
    Ok((StatusCode::CREATED, Answer(shown)).into_response())
}

/// List the server keys
///
/// Lists all server keys, the oldest first, without their secrets.
#[utoipa::path(
    get,
    path = "/api/admin/keys",
    operation_id = "list_keys",
    tag = "Admin",
    responses(
        (status = 200, description = "The keys", body = Keys, example = json!(examples::server_keys())),
        Unauthorized, ByKey, Called
    ),
    security(("key" = []))
)]
async fn list(State(app): State<Arc<App>>, Admin(key): Admin) -> Result<Response, Problem> {
    let ask = key.credential.attach(Deadline::of(&app).reading(ListKeysRequest {}));
    let listed = app.clients.auth.clone().list_keys(ask).await?.into_inner().keys;
    Ok(Answer(Keys::new(&listed)).into_response())
}

/// Delete a server key
///
/// All gateways reject the key within 5 s. A key may delete itself.
#[utoipa::path(
    delete,
    path = "/api/admin/keys/{keyId}",
    operation_id = "delete_key",
    tag = "Admin",
    params(params::Key),
    responses((status = 204, description = "The key is deleted"), Unauthorized, ByKey, Called),
    security(("key" = []))
)]
async fn delete(State(app): State<Arc<App>>, Admin(key): Admin, KeyId(id): KeyId) -> Result<StatusCode, Problem> {
    let delete = DeleteKeyRequest { id: id.to_string(), actor: Some(key.actor()) };
    // A slow attempt is not joined by a second one, which could be answered with 404 before the first is done.
    let deleted = app.clients.auth.clone().delete_key(key.credential.attach(Deadline::of(&app).once(delete))).await;
    app.keys.forget(id).await;
    match deleted.map_err(Error::from) {
        // An earlier attempt of this call has deleted the key that makes it.
        Err(error) if error.code != Code::Unauthorized || id != key.id => Err(error.into()),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}

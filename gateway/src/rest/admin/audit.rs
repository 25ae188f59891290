//! The audit.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use confab_proto::auth::v1::ListAuditRequest;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::App;
use crate::problem::Problem;
use crate::rest::Deadline;
use crate::rest::extract::{Admin, Params};
use crate::rest::openapi::problems::{ByKey, Called, Unauthorized};
use crate::rest::openapi::{examples, params};
use crate::views::{EntryJson, Page};

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::default().routes(routes!(list))
}

/// List the audit
///
/// Lists what server keys and operators did, the newest entry first: all successful changes under `/api/admin`, and
/// each change of a room, a member or a file by a server key without `Confab-User`. The latter are recorded before they
/// are done, so an entry does not prove success. The first act of a key on behalf of a user in each hour is recorded as
/// `act_as`. Entries are kept for 90 days.
#[utoipa::path(
    get,
    path = "/api/admin/audit",
    operation_id = "list_audit",
    tag = "Admin",
    params(params::Limit, params::Cursor),
    responses(
        (status = 200, description = "A page of the audit", body = Page<EntryJson>, example = json!(examples::audit())),
        Unauthorized, ByKey, Called
    ),
    security(("key" = []))
)]
async fn list(State(app): State<Arc<App>>, Admin(key): Admin, params: Params) -> Result<Response, Problem> {
    let list = ListAuditRequest { limit: params.limit()?, cursor: params.cursor()? };
    let page = app
        .clients
        .auth
        .clone()
        .list_audit(key.credential.attach(Deadline::of(&app).reading(list)))
        .await?
        .into_inner();
    let items = page.entries.iter().map(EntryJson::from).collect();
    Ok(Answer(Page { items, next_cursor: Some(page.next_cursor).filter(|cursor| !cursor.is_empty()) }).into_response())
}

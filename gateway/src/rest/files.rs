//! Files: metadata, lists, links and deletion. [`upload`] and [`download`] transfer the bytes.

mod conditions;
mod disposition;
mod download;
mod filename;
pub(crate) mod multipart;
mod range;
mod served;
mod upload;

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use confab_common::grpc::request;
use confab_common::{Error, text};
use confab_identity::credential::Credential;
use confab_proto::file::v1::{self as proto, DeleteFileRequest, Link, ListFilesRequest, SignLinkRequest, reader};
use confab_socketio::net::ClientAddress;
use jiff::Timestamp;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Actor, FileId, Params, Reader, Turns, by, identify, needs_user, unauthorized};
use super::openapi::problems::{ByKey, Called, Unauthorized};
use super::openapi::{examples, params};
use crate::App;
use crate::limits::{Act, RequestLimits, Subject};
use crate::problem::Problem;
use crate::views::{FileJson, FileUrl, LinkJson, Page, PresentFile, Time};

pub(super) use conditions::Validators;
pub(super) use download::{RESOURCE_POLICY, body};
pub(super) use served::content_type;

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::default()
        .routes(routes!(list))
        .routes(routes!(upload::upload))
        .routes(routes!(download::download, download::head, delete))
        .routes(routes!(link))
}

/// List files
///
/// Lists the caller's uploads or, with `roomId`, the files of that room, newest first. Uploads in rooms that the caller
/// may not read any more are not listed; if there are very many of them, a page may have fewer files than `limit`
/// although `nextCursor` is not null. A server key without `Confab-User` must send `roomId`.
#[utoipa::path(
    get,
    path = "/api/files",
    operation_id = "list_files",
    tag = "Files",
    params(params::OfRoom, params::Limit, params::Cursor),
    responses(
        (status = 200, description = "A page of files", body = Page<PresentFile>, example = json!(examples::files())),
        Unauthorized, ByKey, Called
    ),
    security(("bearer" = []), ("key" = []))
)]
async fn list(
    State(app): State<Arc<App>>,
    Reader(reader): Reader,
    params: Params,
    turns: Turns,
) -> Result<Response, Problem> {
    let room = params.text("roomId").map(|room| text::id("roomId", room)).transpose()?;
    if room.is_none() {
        match &reader {
            None => return Err(Problem(unauthorized("a bearer token is needed to list your own files"))),
            Some(actor) if actor.is_moderator() => return Err(Problem(needs_user())),
            Some(_) => {}
        }
    }
    let list = ListFilesRequest {
        reader: Some(reading(reader.as_ref())),
        room_id: room.map(|room| room.to_string()),
        limit: params.limit()?,
        cursor: params.cursor()?,
    };
    let _turn = turns.next().await?;
    let mut page =
        app.clients.file.clone().list_files(by(reader.as_ref(), request(list, app.clients.read))).await?.into_inner();
    page.files.iter_mut().for_each(|file| app.clients.deleted.hide_in_file(file));
    let items = page.files.iter().map(FileJson::from).collect();
    Ok(Answer(Page { items, next_cursor: Some(page.next_cursor).filter(|cursor| !cursor.is_empty()) }).into_response())
}

/// Create a link to a file
///
/// Returns a link for `<img>`, a media player or a download manager. It is valid for this file only and needs no token.
/// By default it expires after 5 minutes; links to audio and video expire after 6 hours, because a player requests the
/// file again whenever its user seeks. Request a new link before `expiresAt`, or when the link returns 401. Do not rely
/// on a player's `error` event, which may not fire.
#[utoipa::path(
    get,
    path = "/api/files/{fileId}/link",
    operation_id = "link_file",
    tag = "Files",
    params(params::File),
    responses(
        (status = 200, description = "The link", body = LinkJson, example = json!(examples::link())),
        Unauthorized, ByKey, Called
    ),
    security(("bearer" = []), ("key" = []))
)]
async fn link(
    State(app): State<Arc<App>>,
    Reader(reader): Reader,
    address: ClientAddress,
    limits: RequestLimits,
    FileId(id): FileId,
) -> Result<Response, Problem> {
    if reader.as_ref().is_some_and(Actor::is_moderator) {
        return Err(Problem(needs_user()));
    }
    limits.check(Act::FileLink, Subject::of(reader.as_ref().map(Actor::id), address)).await?;
    let sign = SignLinkRequest { reader: Some(reading(reader.as_ref())), id: id.to_string() };
    let sign = by(reader.as_ref(), request(sign, app.clients.call));
    let link = app.clients.file.clone().sign_link(sign).await?.into_inner();
    let url = format!("{}?expires={}&signature={}", FileUrl(&id.to_string()), link.expires_at_ms, link.signature);
    Ok(Answer(LinkJson { url, expires_at: Time(link.expires_at_ms) }).into_response())
}

/// Delete a file
///
/// Allowed for the uploader and for admins of the file's room. Messages keep the file as `{id, name, deleted: true}`.
#[utoipa::path(
    delete,
    path = "/api/files/{fileId}",
    operation_id = "delete_file",
    tag = "Files",
    params(params::File),
    responses((status = 204, description = "The file is deleted"), Unauthorized, ByKey, Called),
    security(("bearer" = []), ("key" = []))
)]
async fn delete(State(app): State<Arc<App>>, actor: Actor, FileId(id): FileId) -> Result<StatusCode, Problem> {
    actor.recorded(&app, "file.delete", id, Value::Null).await?;
    let (caller, moderator) = (Some(actor.caller()), actor.is_moderator());
    let delete = DeleteFileRequest { caller, id: id.to_string(), moderator };
    app.clients.file.clone().delete_file(actor.credential().attach(request(delete, app.clients.call))).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The actor in the form that the file service expects.
fn reading(actor: Option<&Actor>) -> proto::Reader {
    let reader = |actor: &Actor| {
        let caller = actor.caller();
        if actor.is_moderator() { reader::Reader::Moderator(caller) } else { reader::Reader::Caller(caller) }
    };
    proto::Reader { reader: actor.map(reader) }
}

/// The reader of a file's bytes: the authenticated caller, otherwise the holder of a link, otherwise an anonymous
/// caller if the setting allows anonymous reads.
pub(super) struct FileReader {
    reader: proto::Reader,
    credential: Credential,
}

impl FileReader {
    fn without_credential(reader: proto::Reader) -> Self {
        Self { reader, credential: Credential::default() }
    }

    fn has_link(&self) -> bool {
        matches!(self.reader.reader, Some(reader::Reader::Link(_)))
    }
}

impl FromRequestParts<Arc<App>> for FileReader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        if let Some(actor) = identify(parts, app).await? {
            return Ok(Self { reader: reading(Some(&actor)), credential: actor.credential().clone() });
        }
        let params = Params::from_request_parts(parts, app).await?;
        match (params.text("expires"), params.text("signature")) {
            (None, None) if app.config.anonymous_read => Ok(Self::without_credential(reading(None))),
            (None, None) => Err(Problem(unauthorized("a bearer token or a link is needed"))),
            (expires, signature) => {
                let link = valid(expires, signature).ok_or_else(invalid_link)?;
                Ok(Self::without_credential(proto::Reader { reader: Some(reader::Reader::Link(link)) }))
            }
        }
    }
}

/// The link in these parameters, if it is well formed and has not expired.
fn valid(expires: Option<&str>, signature: Option<&str>) -> Option<Link> {
    let digits = expires?.bytes().all(|byte| byte.is_ascii_digit());
    let expires_at_ms = expires?.parse().ok().filter(|at| digits && *at > Timestamp::now().as_millisecond())?;
    Some(Link { expires_at_ms, signature: signature?.to_owned() })
}

/// One error for all invalid links, so that the error reveals nothing about the file.
fn invalid_link() -> Error {
    unauthorized("the link is invalid or has expired")
}

#[cfg(test)]
mod tests;

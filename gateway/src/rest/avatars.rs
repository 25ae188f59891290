//! Users' pictures, which any page may show.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Response};
use confab_common::grpc::request;
use confab_common::{Code, Error};
use confab_identity::tokens::Identity;
use confab_proto::auth::v1::{GetAvatarRequest, UserRef};
use confab_proto::file::v1::{DownloadRequest, File, GetFileRequest, Reader, reader};
use tonic::Status;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Deadline;
use super::extract::FileId;
use super::files::{RESOURCE_POLICY, Validators, body, content_type};
use super::openapi::problems::{Called, NotFound};
use super::openapi::{bytes as answers, params};
use crate::App;
use crate::problem::Problem;

/// Largest picture, in bytes.
const MAX_SIZE: u64 = 1024 * 1024;
/// A cache shows the picture of a deleted account for at most an hour, also while this server is unreachable.
const CACHED: &str = "public, max-age=3600, immutable";

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::default().routes(routes!(show))
}

/// Show a picture
///
/// Returns the bytes of a user's picture, while a user has it. Needs no token. Pages of any site may show it, and
/// caches may keep it for an hour. A new picture has another URL, so a cache that asks again with the `ETag` receives 304,
/// or 404 when no user has the picture any more.
#[utoipa::path(
    get,
    path = "/api/avatars/{fileId}",
    operation_id = "show_avatar",
    tag = "Files",
    params(params::File, params::IfNoneMatch, params::IfModifiedSince),
    responses(answers::Picture, answers::Known, NotFound, Called),
    security(())
)]
async fn show(State(app): State<Arc<App>>, FileId(id): FileId, headers: HeaderMap) -> Result<Response, Problem> {
    let deadline = Deadline::of(&app);
    let find = deadline.reading(GetAvatarRequest { file_id: id.to_string() });
    let owner = app.clients.auth.clone().get_avatar(find).await.map_err(refusal)?.into_inner();
    // The file service shows a file without a room to its uploader only.
    let owner = reader::Reader::PictureOf(UserRef { id: owner.id, username: owner.username });
    let reader = Some(Reader { reader: Some(owner) });
    let get = GetFileRequest { reader: reader.clone(), id: id.to_string() };
    let file = app.clients.file.clone().get_file(deadline.reading(get)).await.map_err(refusal)?.into_inner();
    if !is_picture(&file) {
        return Err(no_picture().into());
    }
    let validators = Validators::of(&file);
    let known = (
        AppendHeaders(validators.headers()),
        [
            (CACHE_CONTROL, HeaderValue::from_static(CACHED)),
            (RESOURCE_POLICY, HeaderValue::from_static("cross-origin")),
        ],
    );
    if validators.is_known_to(&headers) {
        return Ok((StatusCode::NOT_MODIFIED, known).into_response());
    }
    let ask = DownloadRequest { reader, id: id.to_string(), offset: 0, length: file.size };
    let call = request(ask, app.clients.read.streaming_answer());
    let bytes = app.clients.file.clone().download(call).await.map_err(refusal)?.into_inner();
    let headers = [
        (CONTENT_TYPE, content_type(&file.content_type)),
        (CONTENT_LENGTH, HeaderValue::from(file.size)),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    Ok((known, headers, body(bytes, file.size).await?).into_response())
}

/// Checks that a user may have this file as picture.
///
/// # Errors
/// `invalid_request` for a file that is not the user's own, has a room, or is not a raster image of at most 1 MiB; when
/// the file service does not answer.
pub(super) async fn check_picture(app: &App, deadline: &Deadline, user: &Identity, file_id: &str) -> Result<(), Error> {
    let refused = || {
        let detail = "must be an upload of your own without a room: a raster image of at most 1 MiB";
        Error::field("avatarFileId", detail)
    };
    let reader = Some(Reader { reader: Some(reader::Reader::Caller(user.user.clone())) });
    let get = GetFileRequest { reader, id: file_id.to_owned() };
    let get = user.credential.attach(deadline.reading(get));
    match app.clients.file.clone().get_file(get).await.map_err(Error::from) {
        Ok(file) if is_picture(file.get_ref()) => Ok(()),
        Ok(_) => Err(refused()),
        Err(error) if error.code == Code::NotFound => Err(refused()),
        Err(error) => Err(error),
    }
}

/// Whether the file is a raster image without a room. The file service has recognised its type in its bytes.
fn is_picture(file: &File) -> bool {
    file.room_id.is_none()
        && file.safe_inline
        && file.content_type.starts_with("image/")
        && (1..=MAX_SIZE).contains(&file.size)
}

/// One error for a file that is unknown, hidden or not a picture.
fn refusal(status: Status) -> Problem {
    match Error::from(status) {
        error if error.code == Code::NotFound => no_picture().into(),
        error => error.into(),
    }
}

fn no_picture() -> Error {
    Error::not_found("picture")
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use serde_json::json;

    use super::*;
    use crate::rest::tests::{authorized, gateway_with, problem};
    use crate::testing::files::Files;
    use crate::testing::{send, send_body};

    #[tokio::test]
    async fn only_pictures_are_shown() {
        let files = Files::default();
        let routes = gateway_with(&[], &files).await;
        let picture = files.put("a.png", "image/png", "some bytes");
        let shown = send(&routes, Request::get(format!("/api/avatars/{picture}"))).await;
        assert_eq!((shown.status, &shown.bytes[..]), (200, &b"some bytes"[..]));
        for (name, value) in [
            ("content-type", "image/png"),
            ("cache-control", CACHED),
            ("content-security-policy", "sandbox; default-src 'none'"),
            ("cross-origin-resource-policy", "cross-origin"),
            ("x-content-type-options", "nosniff"),
            ("content-length", "10"),
        ] {
            assert_eq!(shown.headers[name], value, "{name}");
        }
        let tag = shown.headers["etag"].clone();
        let again = async || {
            send(&routes, Request::get(format!("/api/avatars/{picture}")).header("If-None-Match", tag.clone())).await
        };
        let known = again().await;
        assert_eq!((known.status, known.bytes.len()), (304, 0));
        assert_eq!((&known.headers["etag"], &known.headers["cache-control"]), (&tag, &shown.headers["cache-control"]));
        files.remove(&picture);
        assert_eq!(problem(&again().await), (404, "not_found"));
        for id in [
            files.put("a.txt", "text/plain", "some text"),
            files.put("large.png", "image/png", vec![0; MAX_SIZE as usize + 1]),
            "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c02".into(),
        ] {
            let answer = send(&routes, Request::get(format!("/api/avatars/{id}"))).await;
            assert_eq!(
                (problem(&answer), &answer.json["detail"]),
                ((404, "not_found"), &json!("no such picture")),
                "{id}"
            );
            assert_eq!(answer.headers["cache-control"], "no-store");
        }
        let malformed = send(&routes, Request::get("/api/avatars/x")).await;
        assert_eq!(problem(&malformed), (404, "not_found"));
    }

    #[tokio::test]
    async fn only_a_picture_can_be_chosen() {
        let files = Files::default();
        let routes = gateway_with(&[], &files).await;
        let choose = async |file: &str| {
            let patch = authorized(Request::patch("/api/auth/me")).header("Content-Type", "application/json");
            send_body(&routes, patch, json!({"avatarFileId": file}).to_string()).await
        };
        let picture = files.put("a.png", "image/png", vec![0; MAX_SIZE as usize]);
        assert_eq!(choose(&picture).await.json["avatarUrl"], format!("/api/avatars/{picture}"));
        for refused in [
            files.put("a.svg", "text/plain", "<svg/>"),
            files.put("large.png", "image/png", vec![0; MAX_SIZE as usize + 1]),
            files.put("empty.png", "image/png", ""),
            "x".into(),
            "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c02".into(),
        ] {
            let answer = choose(&refused).await;
            let field = &answer.json["errors"][0]["field"];
            assert_eq!((problem(&answer), field), ((400, "invalid_request"), &json!("avatarFileId")), "{refused}");
        }
    }
}

//! `GET /api/files/{id}`: the bytes, as fast as the client takes them.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName,
    HeaderValue, REFERRER_POLICY,
};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Response};
use bytes::Bytes;
use confab_common::grpc::request;
use confab_common::{Code, Error};
use confab_proto::file::v1::{DownloadRequest, DownloadResponse, File, GetFileRequest};
use futures::stream::poll_fn;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::conditions::Validators;
use super::range::{self, Wanted};
use super::{FileReader, disposition, invalid_link, served};
use crate::App;
use crate::problem::Problem;
use crate::rest::Deadline;
use crate::rest::extract::FileId;
use crate::rest::openapi::problems::{
    Called, InvalidRequest, NotFound, PreconditionFailed, RangeNotSatisfiable, RateLimited, Unauthorized,
};
use crate::rest::openapi::{bytes as answers, params};
use crate::upload::PATIENCE;

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// The policy of files that a browser saves.
const SAVED: &str = "sandbox; default-src 'none'";
/// The policy of files that a browser shows: its own player is a page of this origin that loads the file once more.
const SHOWN: &str = "sandbox allow-same-origin; default-src 'none'; media-src 'self'; style-src 'unsafe-inline'";

/// Bytes handed to the client at once.
const PIECE: usize = 64 * 1024;

/// Download a file
///
/// With a token, or by a link.
#[utoipa::path(
    get,
    path = "/api/files/{fileId}",
    operation_id = "download_file",
    tag = "Files",
    params(
        params::File, params::Expires, params::Signature,
        params::Range, params::IfRange, params::IfMatch, params::IfUnmodifiedSince, params::IfNoneMatch, params::IfModifiedSince
    ),
    responses(
        answers::Whole, answers::Part, answers::Known,
        InvalidRequest, Unauthorized, NotFound, PreconditionFailed, RangeNotSatisfiable, RateLimited, Called
    ),
    security((), ("bearer" = []))
)]
pub(super) async fn download(
    State(app): State<Arc<App>>,
    method: Method,
    reader: FileReader,
    FileId(id): FileId,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let deadline = Deadline::of(&app);
    let ask = GetFileRequest { reader: Some(reader.0.clone()), id: id.to_string() };
    let file = app.clients.file.clone().get_file(deadline.reading(ask)).await;
    let file = file.map_err(|status| refusal(&reader, status))?.into_inner();

    let validators = Validators::of(&file);
    // Access can end: caches must revalidate each time.
    let known = (AppendHeaders(validators.headers()), [(CACHE_CONTROL, "private, no-cache")], isolation(&reader));
    if !validators.are_expected_by(&headers) {
        return Err(Error::new(Code::PreconditionFailed, "the file is not the version that the request names").into());
    }
    if validators.is_known_to(&headers) {
        return Ok((StatusCode::NOT_MODIFIED, known).into_response());
    }
    let wanted = match method == Method::GET && validators.allow_range(&headers) {
        true => range::wanted(&headers, file.size),
        false => Wanted::Whole,
    };
    let (status, offset, length, range) = match wanted {
        Wanted::Whole => (StatusCode::OK, 0, file.size, None),
        Wanted::Part { first, last } => {
            (StatusCode::PARTIAL_CONTENT, first, last - first + 1, Some([(CONTENT_RANGE, format!("bytes {first}-{last}/{}", file.size))]))
        }
        Wanted::Unsatisfiable => {
            let error = Error::new(Code::RangeNotSatisfiable, format!("the file has {} bytes", file.size));
            return Ok(([(CONTENT_RANGE, format!("bytes */{}", file.size))], Problem(error)).into_response());
        }
    };
    let body = match length == 0 || method == Method::HEAD {
        true => Body::empty(),
        false => {
            let ask = DownloadRequest { reader: Some(reader.0.clone()), id: id.to_string(), offset, length };
            let call = app.clients.read.streaming_answer();
            let bytes =
                app.clients.file.clone().download(request(ask, call)).await.map_err(|status| refusal(&reader, status))?.into_inner();
            body(bytes, length).await?
        }
    };
    Ok((status, known, range, description(&file), [(CONTENT_LENGTH, length)], body).into_response())
}

/// Describe a file
///
/// What a download would say of it, without the bytes.
#[utoipa::path(
    head,
    path = "/api/files/{fileId}",
    operation_id = "head_file",
    tag = "Files",
    params(
        params::File, params::Expires, params::Signature,
        params::IfMatch, params::IfUnmodifiedSince, params::IfNoneMatch, params::IfModifiedSince
    ),
    responses(answers::Head, answers::Known, InvalidRequest, Unauthorized, NotFound, PreconditionFailed, Called),
    security((), ("bearer" = []))
)]
pub(super) async fn head(app: State<Arc<App>>, reader: FileReader, file: FileId, headers: HeaderMap) -> Result<Response, Problem> {
    download(app, Method::HEAD, reader, file, headers).await
}

/// The bearer of a link gets one answer for every reason; other readers get the service's error.
fn refusal(reader: &FileReader, status: Status) -> Problem {
    match Error::from(status) {
        error if reader.has_link() && matches!(error.code, Code::NotFound | Code::Forbidden | Code::InvalidRequest) => {
            invalid_link().into()
        }
        error => error.into(),
    }
}

/// Only pages of this site may embed a file, but any page may embed a link, which needs no token. Files send no
/// referrer.
fn isolation(reader: &FileReader) -> [(HeaderName, &'static str); 2] {
    let pages = if reader.has_link() { "cross-origin" } else { "same-site" };
    [(RESOURCE_POLICY, pages), (REFERRER_POLICY, "no-referrer")]
}

/// The headers that describe the bytes and restrict what a browser may do with them.
fn description(file: &File) -> impl axum::response::IntoResponseParts {
    [
        (CONTENT_TYPE, served::content_type(&file.content_type)),
        (CONTENT_DISPOSITION, disposition::header(file.safe_inline, &file.name)),
        (ACCEPT_RANGES, HeaderValue::from_static("bytes")),
        // Whatever its type, the file runs no script in this origin.
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(if file.safe_inline { SHOWN } else { SAVED })),
    ]
}

/// The response body. It begins once the first bytes are there: until then a failure can still be a response of its
/// own.
async fn body(mut bytes: Streaming<DownloadResponse>, length: u64) -> Result<Body, Problem> {
    let first = next(&mut bytes).await?;
    let (sender, mut receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let passed = tokio::select! {
            passed = pass(first, bytes, length, &sender) => passed,
            () = sender.closed() => return,
        };
        // The client sees a truncated body, and the connection ends.
        if let Err(error) = passed {
            tracing::warn!(%error, "a download failed midway");
            let _ = sender.send(Err(io::Error::other(error))).await;
        }
    });
    Ok(Body::from_stream(poll_fn(move |context| receiver.poll_recv(context))))
}

/// Passes the bytes on while the client takes them.
async fn pass(
    mut chunk: Option<Bytes>,
    mut bytes: Streaming<DownloadResponse>,
    mut left: u64,
    client: &mpsc::Sender<io::Result<Bytes>>,
) -> Result<(), Error> {
    while let Some(mut rest) = chunk {
        if rest.len() as u64 > left {
            return Err(Error::internal("a file is longer than it says"));
        }
        left -= rest.len() as u64;
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(PIECE));
            if client.send(Ok(piece)).await.is_err() {
                return Ok(());
            }
        }
        if left == 0 {
            return Ok(());
        }
        chunk = next(&mut bytes).await?;
    }
    Err(Error::internal("a file is shorter than it says"))
}

async fn next(bytes: &mut Streaming<DownloadResponse>) -> Result<Option<Bytes>, Error> {
    match timeout(PATIENCE, bytes.message()).await {
        Ok(message) => Ok(message?.map(|message| message.chunk)),
        Err(_) => Err(Error::unavailable("the file service")),
    }
}

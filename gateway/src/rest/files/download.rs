//! `GET /api/files/{id}`: streams the bytes, as fast as the client reads them.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
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
use crate::rest::openapi::problems::{ByKey, Called, PreconditionFailed, RangeNotSatisfiable, Unauthorized};
use crate::rest::openapi::{bytes as answers, params};
use crate::upload::FILE_STALL_LIMIT;

pub(in crate::rest) const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// The content security policy of attachments.
const SAVED: &str = "sandbox; default-src 'none'";
/// The content security policy of inline files. A browser's own player is a page of this origin that loads the file
/// again.
const SHOWN: &str = "sandbox allow-same-origin; default-src 'none'; media-src 'self'; style-src 'unsafe-inline'";

/// Most bytes in one chunk to the client.
const PIECE: usize = 64 * 1024;

/// Download a file
///
/// Returns the bytes of a file, or one range of them. Needs a token or a link. Images, audio and video of known types
/// are served inline; other files are served as attachments.
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
        Unauthorized, PreconditionFailed, RangeNotSatisfiable, ByKey, Called
    ),
    security((), ("bearer" = []), ("key" = []))
)]
pub(super) async fn download(
    State(app): State<Arc<App>>,
    method: Method,
    reader: FileReader,
    FileId(id): FileId,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let deadline = Deadline::of(&app);
    let ask = GetFileRequest { reader: Some(reader.reader.clone()), id: id.to_string() };
    let file = app.clients.file.clone().get_file(reader.credential.attach(deadline.reading(ask))).await;
    let file = file.map_err(|status| refusal(&reader, status))?.into_inner();

    let validators = Validators::of(&file);
    // The caller's access can end, so caches must revalidate each time.
    let known = (AppendHeaders(validators.headers()), [(CACHE_CONTROL, "private, no-cache")], isolation(&reader));
    if !validators.are_expected_by(&headers) {
        return Err(Error::new(Code::PreconditionFailed, "the file is not the version that the request names").into());
    }
    if validators.is_known_to(&headers) {
        return Ok((StatusCode::NOT_MODIFIED, known).into_response());
    }
    let has_range = method == Method::GET && validators.allow_range(&headers);
    let wanted = if has_range { range::wanted(&headers, file.size) } else { Wanted::Whole };
    let (status, offset, length, range) = match wanted {
        Wanted::Whole => (StatusCode::OK, 0, file.size, None),
        Wanted::Part { first, last } => (
            StatusCode::PARTIAL_CONTENT,
            first,
            last - first + 1,
            Some([(CONTENT_RANGE, format!("bytes {first}-{last}/{}", file.size))]),
        ),
        Wanted::Unsatisfiable => {
            let error = Error::new(Code::RangeNotSatisfiable, format!("the file has {} bytes", file.size));
            return Ok(([(CONTENT_RANGE, format!("bytes */{}", file.size))], Problem(error)).into_response());
        }
    };
    let body = if length == 0 || method == Method::HEAD {
        Body::empty()
    } else {
        let ask = DownloadRequest { reader: Some(reader.reader.clone()), id: id.to_string(), offset, length };
        let call = reader.credential.attach(request(ask, app.clients.read.streaming_answer()));
        let bytes = app.clients.file.clone().download(call).await.map_err(|status| refusal(&reader, status))?;
        body(bytes.into_inner(), length).await?
    };
    Ok((status, known, range, description(&file), [(CONTENT_LENGTH, length)], body).into_response())
}

/// Show the headers of a file
///
/// Returns the headers of a download of the whole file, without the bytes.
#[utoipa::path(
    head,
    path = "/api/files/{fileId}",
    operation_id = "head_file",
    tag = "Files",
    params(
        params::File, params::Expires, params::Signature,
        params::IfMatch, params::IfUnmodifiedSince, params::IfNoneMatch, params::IfModifiedSince
    ),
    responses(answers::Head, answers::Known, Unauthorized, PreconditionFailed, ByKey, Called),
    security((), ("bearer" = []), ("key" = []))
)]
pub(super) async fn head(
    app: State<Arc<App>>,
    reader: FileReader,
    file: FileId,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    download(app, Method::HEAD, reader, file, headers).await
}

/// The holder of a link gets one error for all reasons; other readers get the service's error.
fn refusal(reader: &FileReader, status: Status) -> Problem {
    match Error::from(status) {
        error if reader.has_link() && matches!(error.code, Code::NotFound | Code::Forbidden | Code::InvalidRequest) => {
            invalid_link().into()
        }
        error => error.into(),
    }
}

/// Pages of this site may embed files; pages of any site may embed links, which need no token. Files send no referrer.
fn isolation(reader: &FileReader) -> [(HeaderName, &'static str); 2] {
    let pages = if reader.has_link() { "cross-origin" } else { "same-site" };
    [(RESOURCE_POLICY, pages), (REFERRER_POLICY, "no-referrer")]
}

/// The headers that describe the bytes and restrict how a browser may use them.
fn description(file: &File) -> impl axum::response::IntoResponseParts {
    [
        (CONTENT_TYPE, served::content_type(&file.content_type)),
        (CONTENT_DISPOSITION, disposition::header(file.safe_inline, &file.name)),
        (ACCEPT_RANGES, HeaderValue::from_static("bytes")),
        // A file of any type runs no script in this origin.
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(if file.safe_inline { SHOWN } else { SAVED })),
    ]
}

/// The response body. The function waits for the first bytes, because until then a failure can still be sent as an
/// error response.
pub(in crate::rest) async fn body(mut bytes: Streaming<DownloadResponse>, length: u64) -> Result<Body, Problem> {
    let first = next(&mut bytes).await?;
    let (sender, mut receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let passed = tokio::select! {
            passed = pass(first, bytes, length, &sender) => passed,
            () = sender.closed() => return,
        };
        // The client receives a truncated body, and the connection is closed.
        if let Err(error) = passed {
            tracing::warn!(%error, "a download failed after its first bytes");
            let _ = sender.send(Err(io::Error::other(error))).await;
        }
    });
    Ok(Body::from_stream(poll_fn(move |context| receiver.poll_recv(context))))
}

/// Forwards the bytes as the client reads them.
async fn pass(
    mut chunk: Option<Bytes>,
    mut bytes: Streaming<DownloadResponse>,
    mut left: u64,
    client: &mpsc::Sender<io::Result<Bytes>>,
) -> Result<(), Error> {
    while let Some(mut rest) = chunk {
        if rest.len() as u64 > left {
            return Err(Error::internal("the file service sent more bytes than requested"));
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
    Err(Error::internal("the file service sent fewer bytes than requested"))
}

async fn next(bytes: &mut Streaming<DownloadResponse>) -> Result<Option<Bytes>, Error> {
    match timeout(FILE_STALL_LIMIT, bytes.message()).await {
        Ok(message) => Ok(message?.map(|message| message.chunk)),
        Err(_) => Err(Error::unavailable("the file service")),
    }
}

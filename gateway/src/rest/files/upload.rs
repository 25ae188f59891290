//! `POST /api/files/upload`: streams the file in the form to the file service.

use std::sync::Arc;
use std::time::Duration;

use axum::Json as Answer;
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, CONTENT_LENGTH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use confab_common::{Error, text};
use confab_identity::tokens::Identity;
use confab_proto::file::v1::UploadResponse;
use confab_proto::file::v1::upload_request::{Begin, Finish};
use utoipa::ToSchema;

use super::multipart::{self, Form, MAX_BESIDE, Part};
use crate::App;
use crate::limits::{Act, RequestLimits};
use crate::new_message::check_client_message_id;
use crate::problem::Problem;
use crate::rest::extract::Caller;
use crate::rest::messages::client_message_id;
use crate::rest::openapi::problems::{Body, ByKey, Called, Conflict, Unauthorized};
use crate::rest::openapi::{examples, params};
use crate::upload::Upload;
use crate::views::{FileJson, PresentFile};

/// How long the service may take to store and share the file after its last byte: object stores can be slow.
const KEPT_WITHIN: Duration = Duration::from_secs(10);

/// The form of an upload. Its fields may come in any order.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase", as = Upload)]
#[expect(dead_code, reason = "describes the form in the OpenAPI document")]
struct UploadForm {
    #[schema(value_type = String, format = "binary")]
    file: (),
    /// The room in which to share the file.
    #[schema(format = "uuid", nullable = false)]
    room_id: Option<String>,
    /// An id that the client chooses for the upload, 1 to 128 bytes. A second upload with the same id returns the first
    /// file.
    #[schema(min_length = 1, max_length = 128, nullable = false)]
    client_message_id: Option<String>,
}

/// Upload a file
///
/// Stores a file. With `roomId`, the room also receives a message of type `file`.
///
/// The body must arrive at 1 KiB/s or more, measured over 30 s; after 2 minutes at 4 KiB/s, after 10 minutes at 10
/// KiB/s. One user may use nearly half of the upload slots, and fewer when more users upload. The error 429 means that
/// the user's share is in use, 503 that all slots are in use.
#[utoipa::path(
    post,
    path = "/api/files/upload",
    operation_id = "upload_file",
    tag = "Files",
    params(params::IdempotencyKey),
    request_body(
        content = UploadForm,
        content_type = "multipart/form-data",
        example = json!({"file": examples::CONTENT})
    ),
    responses(
        (status = 201, description = "The file is stored", body = PresentFile, example = json!(examples::file())),
        (status = 200,
            description = "A repeat of this `clientMessageId`: the first file, whatever this request contains",
            body = PresentFile, example = json!(examples::file())),
        Body, Unauthorized, Conflict, ByKey, Called
    ),
    security(("bearer" = []), ("key" = []))
)]
pub(super) async fn upload(
    State(app): State<Arc<App>>,
    caller: Result<Caller, Problem>,
    limits: RequestLimits,
    request: Request,
) -> Response {
    let taken = match caller {
        Ok(Caller(caller)) => match limits.check(Act::Upload, caller.user_id).await {
            Ok(()) => take(&app, caller, request).await.map_err(Problem),
            Err(error) => Err(Problem(error)),
        },
        Err(problem) => Err(problem),
    };
    match taken {
        Ok(taken) => taken,
        // The unread rest of the body would precede the next request on this connection.
        Err(problem) => ([(CONNECTION, "close")], problem).into_response(),
    }
}

async fn take(app: &App, caller: Identity, request: Request) -> Result<Response, Error> {
    let mut fields = Fields::new(request.headers())?;
    let at_least = declared_length(request.headers()).saturating_sub(MAX_BESIDE);
    let mut form = Form::of(request)?;
    let mut file = loop {
        match form.next().await? {
            Some(part) if part.name() == multipart::FILE => break part,
            Some(part) => fields.take(part).await?,
            None => return Err(Error::field(multipart::FILE, "must be given")),
        }
    };
    let (first, user) = (fields.clone(), caller.user_id);
    let mut upload = Upload::begin(
        &app.clients,
        &caller.credential,
        Begin {
            caller: Some(caller.user),
            name: file.file_name(),
            content_type: file.content_type(),
            at_least,
            room_id: first.room_id.clone(),
            client_message_id: first.client_message_id.clone(),
        },
    );
    let mut unneeded = 0;
    while let Some(chunk) = upload.meanwhile(file.chunk()).await? {
        if let Some(known) = upload.answered() {
            // A repeat: the client may finish sending, up to a bound.
            unneeded += chunk.len() as u64;
            if unneeded > known.size {
                let answer = upload.finish(Finish::default()).await?;
                return Ok(([(CONNECTION, "close")], uploaded(&answer)?).into_response());
            }
        }
        upload.send(chunk).await?;
    }
    drop(file);
    while let Some(part) = upload.meanwhile(form.next()).await? {
        if part.name() == multipart::FILE {
            return Err(Error::field(multipart::FILE, "must be given once"));
        }
        upload.meanwhile(fields.take(part)).await?;
    }
    let room = fields.room_id.clone();
    let finish = Finish {
        room_id: fields.room_id.filter(|_| first.room_id.is_none()),
        client_message_id: fields.client_message_id.filter(|_| first.client_message_id.is_none()),
        timeout_ms: app.config.request_timeout.max(KEPT_WITHIN).as_millis() as u32,
    };
    let answer = upload.finish(finish).await?;
    if let Some(room) = room.and_then(|room| room.parse().ok()) {
        app.typing.posted(room, user);
    }
    uploaded(&answer)
}

fn uploaded(answer: &UploadResponse) -> Result<Response, Error> {
    let file = answer.file.as_ref().ok_or_else(|| Error::internal("an upload without a file"))?;
    let status = if answer.duplicate { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Answer(FileJson::from(file))).into_response())
}

fn declared_length(headers: &HeaderMap) -> u64 {
    headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or_default()
}

/// The fields of a form besides its file.
#[derive(Clone, Default)]
struct Fields {
    room_id: Option<String>,
    /// From the header, until the field arrives.
    client_message_id: Option<String>,
    named: bool,
}

impl Fields {
    fn new(headers: &HeaderMap) -> Result<Self, Error> {
        let client_message_id = client_message_id(headers, None)?;
        client_message_id.as_deref().map(check_client_message_id).transpose()?;
        Ok(Self { client_message_id, ..Self::default() })
    }

    /// Stores a field. Unknown fields are ignored, but unknown files are rejected.
    async fn take(&mut self, part: Part) -> Result<(), Error> {
        let name = part.name().to_owned();
        let given_before = match name.as_str() {
            "roomId" => self.room_id.replace(text::id(&name, &part.text().await?)?.to_string()).is_some(),
            "clientMessageId" => {
                let value = part.text().await?;
                check_client_message_id(&value)?;
                let before = std::mem::replace(&mut self.named, true);
                match &self.client_message_id {
                    Some(key) if !before && *key != value => {
                        return Err(Error::field(&name, "must be the same as Idempotency-Key"));
                    }
                    _ => self.client_message_id = Some(value),
                }
                before
            }
            _ => {
                part.skip().await?;
                false
            }
        };
        if given_before { Err(Error::field(&name, "must be given once")) } else { Ok(()) }
    }
}

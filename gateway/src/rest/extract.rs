//! Extractors for handlers: the actor, ids in paths, queries, JSON bodies. They reject requests with the contract's
//! errors.

mod actor;
mod identify;
mod server_key;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request};
use axum::http::header::{CONNECTION, CONTENT_TYPE, HeaderName};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use confab_common::metrics::LIMITS;
use confab_common::{Code, Error, Result, text};
use confab_proto::limits::MAX_REACTION;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::timeout;
use uuid::Uuid;

use crate::App;
use crate::edge::body::MAX_BODY;
use crate::edge::{self, body};
use crate::payload;
use crate::problem::Problem;
use crate::turns::PagePermit;

pub(super) use actor::{Actor, Key, by, needs_user, unauthorized};
pub(super) use identify::{Admin, Caller, Reader, identify};

/// The accepted content types of PATCH (RFC 5789).
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 200;

/// Gives the caller turns to read pages of lists. Must follow the caller in a handler's arguments.
pub(super) struct Turns {
    context: Option<edge::Context>,
    app: Arc<App>,
}

impl FromRequestParts<Arc<App>> for Turns {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Infallible> {
        Ok(Self { context: parts.extensions.get().cloned(), app: app.clone() })
    }
}

impl Turns {
    /// A turn. The handler keeps it until the response is built.
    pub async fn next(&self) -> Result<Option<PagePermit>> {
        let Some(share) = self.context.as_ref().and_then(edge::Context::share) else { return Ok(None) };
        let permit = timeout(self.app.config.request_timeout, self.app.pages.acquire(share)).await;
        permit.map(Some).map_err(|_| {
            LIMITS.hit("pages");
            Error::new(
                Code::Unavailable,
                "too many page reads in progress or too many unread responses; try again later",
            )
        })
    }
}

/// The room id in a path.
pub(super) struct RoomId(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for RoomId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        path_id(parts, state, "roomId", "room").await.map(Self)
    }
}

/// The file id in a path.
pub(super) struct FileId(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for FileId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        path_id(parts, state, "fileId", "file").await.map(Self)
    }
}

/// The session id in a path.
pub(super) struct SessionId(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for SessionId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        path_id(parts, state, "sessionId", "session").await.map(Self)
    }
}

/// The key id in a path.
pub(super) struct KeyId(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for KeyId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        path_id(parts, state, "keyId", "key").await.map(Self)
    }
}

/// The number of a message in a path. A malformed number gets the same response as an unknown one.
pub(super) struct Seq(pub u64);

impl<S: Send + Sync> FromRequestParts<S> for Seq {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = RawPathParams::from_request_parts(parts, state).await.ok();
        let text = path.as_ref().and_then(|path| path.iter().find(|(key, _)| *key == "seq")).map(|(_, text)| text);
        let seq = text.and_then(number).filter(|seq| (1..=i64::MAX as u64).contains(seq));
        seq.map(Self).ok_or_else(|| Problem(Error::not_found("message")))
    }
}

/// The name of a reaction in a path.
pub(super) struct ReactionName(pub String);

impl<S: Send + Sync> FromRequestParts<S> for ReactionName {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = RawPathParams::from_request_parts(parts, state).await.ok();
        let name = path.as_ref().and_then(|path| path.iter().find(|(key, _)| *key == "name")).map(|(_, name)| name);
        let name = name.ok_or_else(|| Problem(Error::field("name", "must be UTF-8")))?;
        text::reaction("name", name, MAX_REACTION)?;
        Ok(Self(name.to_owned()))
    }
}

/// A malformed id gets the same response as an unknown id.
async fn path_id<S: Send + Sync>(parts: &mut Parts, state: &S, name: &str, what: &str) -> Result<Uuid, Problem> {
    let path = RawPathParams::from_request_parts(parts, state).await;
    let id = path
        .ok()
        .and_then(|path| path.iter().find(|(key, _)| *key == name).and_then(|(_, id)| text::id(name, id).ok()));
    id.ok_or_else(|| Problem(Error::not_found(what)))
}

/// The query parameters. Unknown parameters are ignored; duplicates are rejected.
#[derive(Debug)]
pub(super) struct Params(HashMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let malformed = |_| Problem(Error::new(Code::InvalidRequest, "the query is malformed"));
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri).map_err(malformed)?;
        let mut params = HashMap::with_capacity(pairs.len());
        for (name, value) in pairs {
            text::no_nul(&name, &value)?;
            if params.contains_key(&name) {
                return Err(Problem(Error::field(&name, "must be given once")));
            }
            params.insert(name, value);
        }
        Ok(Self(params))
    }
}

impl Params {
    /// A parameter's text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The cursor; empty for the first page.
    pub fn cursor(&self) -> Result<String> {
        match self.text("cursor") {
            Some("") => Err(Error::field("cursor", "must not be empty; leave it out for the first page")),
            cursor => Ok(cursor.unwrap_or_default().to_owned()),
        }
    }

    /// A flag, by default `false`.
    pub fn flag(&self, name: &str) -> Result<bool> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Error::field(name, "must be true or false")),
        }
    }

    /// The number of items that the client requests.
    pub fn limit(&self) -> Result<u32> {
        let Some(text) = self.text("limit") else { return Ok(DEFAULT_LIMIT) };
        number(text)
            .and_then(|limit| u32::try_from(limit).ok())
            .filter(|limit| (1..=MAX_LIMIT).contains(limit))
            .ok_or_else(|| Error::field("limit", format!("must be a number from 1 to {MAX_LIMIT}")))
    }

    /// A `seq` of at least `least`. A larger number than the database's range is capped.
    pub fn seq(&self, name: &str, least: u64) -> Result<Option<u64>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match number(text).filter(|seq| *seq >= least) {
            Some(seq) => Ok(Some(seq.min(i64::MAX as u64))),
            None => Err(Error::field(name, format!("must be a number of at least {least}"))),
        }
    }
}

/// Accepts digits only, unlike `parse`, which also accepts `+5`.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A JSON object in the body. Unknown fields are ignored.
#[derive(Debug)]
pub(super) struct Json<T, const MOST: usize = MAX_BODY>(pub T);

impl<S: Send + Sync, T: DeserializeOwned, const MOST: usize> FromRequest<S> for Json<T, MOST> {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> Result<Self, Response> {
        if let Some(unsupported) = check_content_type(&request) {
            return Err(unsupported);
        }
        let body = body::read(request, MOST).await.map_err(unread)?;
        parse(&body).map(Self).map_err(|error| Problem(error).into_response())
    }
}

/// A JSON object in the body, and the text of its field `data` as the client wrote it: other forms of a number or another
/// order of keys may mean something to the app.
#[derive(Debug)]
pub(super) struct JsonWithData<T> {
    pub object: T,
    pub data: Option<String>,
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonWithData<T> {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> Result<Self, Response> {
        if let Some(unsupported) = check_content_type(&request) {
            return Err(unsupported);
        }
        let body = body::read(request, MAX_BODY).await.map_err(unread)?;
        let object = parse(&body).map_err(|error| Problem(error).into_response())?;
        Ok(Self { object, data: text_of(&body, "data") })
    }
}

/// A JSON object in the body; no body and `null` count as an empty object. Unknown fields are ignored.
#[derive(Debug)]
pub(super) struct OptionalJson<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for OptionalJson<T> {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> Result<Self, Response> {
        // Some HTTP clients send a Content-Type of their own with an empty body.
        let unsupported = check_content_type(&request);
        let body = body::read(request, MAX_BODY).await.map_err(unread)?;
        let object = match unsupported {
            _ if body.is_empty() => b"{}",
            Some(unsupported) => return Err(unsupported),
            None if body.trim_ascii() == b"null" => b"{}",
            None => &*body,
        };
        parse(object).map(Self).map_err(|error| Problem(error).into_response())
    }
}

/// The response to a request whose body is not JSON.
fn check_content_type(request: &Request) -> Option<Response> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return None;
    }
    let error = Problem(Error::new(Code::UnsupportedMediaType, "Content-Type must be application/json"));
    let accepts = [(ACCEPT_PATCH, HeaderValue::from_static("application/json"))];
    Some(if request.method() == Method::PATCH { (accepts, error).into_response() } else { error.into_response() })
}

/// The response to a request whose body could not be read. The connection is closed, because the unread rest of the
/// body would precede the next request on it.
fn unread(error: Error) -> Response {
    ([(CONNECTION, "close")], Problem(error)).into_response()
}

/// Parses through a [`Value`], which limits the depth of all fields, including ignored ones.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    let value: Value = serde_json::from_slice(without_mark(body))
        .map_err(|error| Error::new(Code::InvalidRequest, format!("malformed JSON: {error}")))?;
    if !value.is_object() {
        return Err(Error::new(Code::InvalidRequest, "the body must be a JSON object"));
    }
    payload::read(value)
}

/// A parser may ignore a byte-order mark (RFC 8259, section 8.1).
fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

/// The text of a field of an object. If the object has the field twice, the last one counts, as in [`parse`].
fn text_of(body: &[u8], field: &str) -> Option<String> {
    let fields: HashMap<String, &RawValue> = serde_json::from_slice(without_mark(body)).ok()?;
    fields.get(field).map(|text| text.get().to_owned())
}

#[cfg(test)]
mod tests;

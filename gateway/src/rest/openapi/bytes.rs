//! The answers to a download, which are no JSON.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::json;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Response, ResponseBuilder, SchemaFormat};
use utoipa::{IntoResponses, PartialSchema};

use super::examples;

type Responses = BTreeMap<String, RefOr<Response>>;
/// A header's name, what it tells, and an example.
type Header = (&'static str, &'static str, String);

/// All of a file.
pub struct Whole;
/// A part of it.
pub struct Part;
/// The headers of all of it, in answer to HEAD.
pub struct Head;
/// Nothing, as the client has it already.
pub struct Known;

impl IntoResponses for Whole {
    fn responses() -> Responses {
        answer(StatusCode::OK, "The bytes", Some(examples::CONTENT), validators().chain(description()))
    }
}

impl IntoResponses for Part {
    fn responses() -> Responses {
        let range = ("Content-Range", "Which bytes these are", "bytes 0-2/6".into());
        answer(StatusCode::PARTIAL_CONTENT, "The bytes of the range", Some("hel"), validators().chain(description()).chain([range]))
    }
}

impl IntoResponses for Head {
    fn responses() -> Responses {
        answer(StatusCode::OK, "What GET says, without the bytes", None, validators().chain(description()))
    }
}

impl IntoResponses for Known {
    fn responses() -> Responses {
        answer(StatusCode::NOT_MODIFIED, "The client has it already", None, validators())
    }
}

fn validators() -> impl Iterator<Item = Header> {
    [("ETag", "The file's SHA-256", examples::etag()), ("Last-Modified", "When it was uploaded", examples::MODIFIED.into())].into_iter()
}

fn description() -> impl Iterator<Item = Header> {
    let name = "attachment; filename=\"hello.txt\"; filename*=UTF-8''hello.txt";
    let shown = "The file's name; `inline` only for images, audio and video known to be harmless";
    [("Content-Disposition", shown, name.into()), ("Accept-Ranges", "That ranges can be asked for", "bytes".into())].into_iter()
}

fn answer(status: StatusCode, about: &str, bytes: Option<&str>, headers: impl Iterator<Item = Header>) -> Responses {
    let mut response = ResponseBuilder::new().description(about);
    if let Some(bytes) = bytes {
        let schema = ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::Custom("binary".into())));
        response = response.content("*/*", ContentBuilder::new().schema(Some(schema)).example(Some(json!(bytes))).build());
    }
    for (name, about, example) in headers {
        let header = HeaderBuilder::new().schema(Some(String::schema())).description(Some(about)).example(Some(json!(example)));
        response = response.header(name, header.build());
    }
    Responses::from([(status.as_str().to_owned(), response.build().into())])
}

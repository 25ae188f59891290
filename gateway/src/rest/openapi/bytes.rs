//! The responses to a download, which are not JSON.

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
/// A header's name, description and example.
type Header = (&'static str, &'static str, String);

/// 200: the whole file.
pub struct Whole;
/// 200: a user's picture.
pub struct Picture;
/// 206: a part of the file.
pub struct Part;
/// 200: the headers of the whole file, in response to HEAD.
pub struct Head;
/// 304: no body, because the client already has the file.
pub struct Known;

impl IntoResponses for Whole {
    fn responses() -> Responses {
        answer(StatusCode::OK, "The bytes of the file", Some(examples::CONTENT), validators().chain(description()))
    }
}

impl IntoResponses for Picture {
    fn responses() -> Responses {
        let about = "How long a cache may show the picture without asking again";
        let cached = ("Cache-Control", about, "public, max-age=3600, immutable".into());
        answer(StatusCode::OK, "The bytes of the picture", Some(examples::CONTENT), validators().chain([cached]))
    }
}

impl IntoResponses for Part {
    fn responses() -> Responses {
        let range =
            ("Content-Range", "The range in this response, and the size of the file in bytes", "bytes 0-2/6".into());
        answer(
            StatusCode::PARTIAL_CONTENT,
            "The bytes of the range",
            Some("hel"),
            validators().chain(description()).chain([range]),
        )
    }
}

impl IntoResponses for Head {
    fn responses() -> Responses {
        answer(StatusCode::OK, "The headers of GET, without the bytes", None, validators().chain(description()))
    }
}

impl IntoResponses for Known {
    fn responses() -> Responses {
        answer(StatusCode::NOT_MODIFIED, "The client already has this file", None, validators())
    }
}

fn validators() -> impl Iterator<Item = Header> {
    [
        ("ETag", "The file's SHA-256", examples::etag()),
        ("Last-Modified", "The time of the upload", examples::MODIFIED.into()),
    ]
    .into_iter()
}

fn description() -> impl Iterator<Item = Header> {
    let name = "attachment; filename=\"hello.txt\"; filename*=UTF-8''hello.txt";
    let shown = "The filename; `inline` only for images, audio and video of known types, otherwise `attachment`";
    [("Content-Disposition", shown, name.into()), ("Accept-Ranges", "Range requests are supported", "bytes".into())]
        .into_iter()
}

fn answer(status: StatusCode, about: &str, bytes: Option<&str>, headers: impl Iterator<Item = Header>) -> Responses {
    let mut response = ResponseBuilder::new().description(about);
    if let Some(bytes) = bytes {
        let schema = ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::Custom("binary".into())));
        response =
            response.content("*/*", ContentBuilder::new().schema(Some(schema)).example(Some(json!(bytes))).build());
    }
    for (name, about, example) in headers {
        let header =
            HeaderBuilder::new().schema(Some(String::schema())).description(Some(about)).example(Some(json!(example)));
        response = response.header(name, header.build());
    }
    Responses::from([(status.as_str().to_owned(), response.build().into())])
}

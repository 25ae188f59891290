//! Every failure of the contract, declared once; operations name those that they answer with.

use std::collections::BTreeMap;

use confab_common::{Code, Error};
use serde_json::json;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::schema::{Object, Schema, Type};
use utoipa::openapi::{Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

use super::examples;
use crate::problem::Document;

type Responses = BTreeMap<String, RefOr<Response>>;

/// For each: its code, when it is answered, and the `detail` of its example.
macro_rules! problems {
    ($($name:ident: $when:literal, $detail:literal;)+) => {
        $(
            #[doc = $when]
            pub struct $name;

            impl IntoResponses for $name {
                fn responses() -> Responses {
                    let refer = RefOr::Ref(Ref::from_response_name(stringify!($name)));
                    Responses::from([(Code::$name.http_status().to_string(), refer)])
                }
            }
        )+

        /// All of them, by their names in the document.
        pub fn all() -> impl Iterator<Item = (&'static str, Response)> {
            [$((stringify!($name), answer(&Error::new(Code::$name, $detail), $when))),+].into_iter()
        }
    };
}

problems! {
    InvalidRequest: "Malformed, or failed validation; `errors` names the fields", "the body must be a JSON object";
    Unauthorized: "No token, or a bad, expired or revoked one", "a bearer token is needed";
    InvalidCredentials: "Wrong username or password; which is not told", "wrong username or password";
    Forbidden: "The caller may see it, and may not do this", "only the room's owner may do this";
    NotFound: "Unknown, or something that the caller may not know of", "no such room";
    UsernameTaken: "Somebody has that name", "that username is taken";
    RoomNameTaken: "A public room has that name", "a room of that name exists";
    Conflict: "Contradicts the state of things", "clientMessageId was used for something else";
    PreconditionFailed: "`If-Match` or `If-Unmodified-Since` does not hold", "the file is not the version that the request names";
    TooSlow: "The body does not arrive in time; nothing was done", "the body did not arrive in time";
    TooLarge: "The body, or something in it, is over its limit", "the body must be at most 262144 bytes";
    UnsupportedMediaType: "The body is of another type", "Content-Type must be application/json";
    RangeNotSatisfiable: "The file ends before that range", "the file has 6 bytes";
    RateLimited: "The caller does too much at once", "you have too many uploads under way; wait until one of them has ended";
    Internal: "A bug", "something went wrong on our side";
    Unavailable: "A part of the server is away; nothing was done", "the message service is not available now, try again";
    Timeout: "No answer in time; it may have been done, so repeat it with the same `clientMessageId`", "no answer in time; it may have been done, so retry with the same id";
}

/// What every operation may answer that asks a service.
pub struct Called;

impl IntoResponses for Called {
    fn responses() -> Responses {
        [Internal::responses(), Unavailable::responses(), Timeout::responses()].into_iter().flatten().collect()
    }
}

/// What every operation may answer that reads a body.
pub struct Body;

impl IntoResponses for Body {
    fn responses() -> Responses {
        [InvalidRequest::responses(), TooSlow::responses(), TooLarge::responses(), UnsupportedMediaType::responses()]
            .into_iter()
            .flatten()
            .collect()
    }
}

/// The schemas of all of them.
pub fn schemas() -> Vec<(String, RefOr<Schema>)> {
    let mut schemas = vec![(Document::name().into(), Document::schema())];
    Document::schemas(&mut schemas);
    schemas
}

fn answer(error: &Error, when: &str) -> Response {
    let example = json!(Document::new(&examples::with_fields(error.clone()), examples::REQUEST));
    let example = ExampleBuilder::new().value(Some(example));
    let content =
        ContentBuilder::new().schema(Some(Ref::from_schema_name(Document::name()))).examples_from_iter([(error.code.as_str(), example)]);
    let response = ResponseBuilder::new().description(when).content("application/problem+json", content.build());
    let (name, about, schema, example) = match error.code {
        Code::Unauthorized => ("WWW-Authenticate", "How to show who calls", String::schema(), json!("Bearer")),
        Code::Unavailable | Code::RateLimited => ("Retry-After", "Seconds to wait", Object::with_type(Type::Integer).into(), json!(1)),
        Code::RangeNotSatisfiable => ("Content-Range", "How long the file is", String::schema(), json!("bytes */6")),
        _ => return response.build(),
    };
    response.header(name, HeaderBuilder::new().schema(Some(schema)).description(Some(about)).example(Some(example)).build()).build()
}

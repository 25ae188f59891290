//! All errors of the API, each declared once; operations list the ones that they return.

use std::collections::BTreeMap;

use confab_common::{Code, Error};
use serde_json::json;
use utoipa::openapi::content::{Content, ContentBuilder};
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::schema::{Object, Schema, Type};
use utoipa::openapi::{Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

use super::examples;
use crate::problem::Document;

type Responses = BTreeMap<String, RefOr<Response>>;

/// For each error: its code, the condition, and the `detail` of its example.
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

        /// All errors, by their names in the document.
        pub fn all() -> impl Iterator<Item = (&'static str, Response)> {
            [$((stringify!($name), answer(&Error::new(Code::$name, $detail), $when))),+].into_iter()
        }
    };
}

problems! {
    InvalidRequest: "The request is malformed or failed validation; `errors` lists the invalid fields",
        "the body must be a JSON object";
    Unauthorized: "The token is missing, invalid, expired or revoked", "a bearer token is needed";
    InvalidCredentials: "The username or the password is wrong; the response does not reveal which",
        "wrong username or password";
    Forbidden: "The caller may see the object but may not do this",
        "only the room's owner and admins may do this";
    NotFound: "The object does not exist, or the caller may not see it", "no such room";
    UsernameTaken: "Another account has this username", "this username is taken";
    RoomNameTaken: "Another public room has this name", "a public room with this name exists";
    Conflict: "The request conflicts with the current state", "clientMessageId was used for something else";
    PreconditionFailed: "`If-Match` or `If-Unmodified-Since` does not hold",
        "the file is not the version that the request names";
    TooSlow: "The body did not arrive in time; nothing was done", "the body did not arrive in time";
    TooLarge: "The body, or a field in it, exceeds its limit", "the body must be at most 262144 bytes";
    UnsupportedMediaType: "The body has an unsupported type or encoding", "Content-Type must be application/json";
    RangeNotSatisfiable: "The range begins after the end of the file", "the file has 6 bytes";
    RateLimited: "The caller exceeds a limit; retry after `Retry-After` seconds",
        "too many of your uploads are in progress; wait until one has ended";
    Internal: "An error in the server; the log has the details under the request id",
        "an internal error occurred";
    Unavailable: "A part of the server is unavailable or overloaded; nothing was done, so retry",
        "the message service is unavailable; try again";
    Timeout: "No answer in time; the request may have taken effect, so repeat it with the same `clientMessageId`",
        "no answer in time; the operation may have been done, so retry with the same id";
}

/// The errors of every operation that calls a service.
pub struct Called;

impl IntoResponses for Called {
    fn responses() -> Responses {
        [Internal::responses(), Unavailable::responses(), Timeout::responses()].into_iter().flatten().collect()
    }
}

/// The errors of every operation that accepts server keys: a request without the user that it needs, a key without the
/// scope, an unknown user, too many wrong keys.
pub struct ByKey;

impl IntoResponses for ByKey {
    fn responses() -> Responses {
        [InvalidRequest::responses(), Forbidden::responses(), NotFound::responses(), RateLimited::responses()]
            .into_iter()
            .flatten()
            .collect()
    }
}

/// The errors of every operation with a body.
pub struct Body;

impl IntoResponses for Body {
    fn responses() -> Responses {
        [InvalidRequest::responses(), TooSlow::responses(), TooLarge::responses(), UnsupportedMediaType::responses()]
            .into_iter()
            .flatten()
            .collect()
    }
}

/// 409 for a user: another account has the username, or the account is deleted.
pub struct UserConflict;

impl IntoResponses for UserConflict {
    fn responses() -> Responses {
        let errors = [
            Error::new(Code::UsernameTaken, "this username is taken"),
            Error::new(Code::Conflict, "the account is deleted"),
        ];
        conflicts("Another account has this username, or the account is deleted", &errors)
    }
}

/// 409 for a new room: another public room has the name, or the caller is in too many rooms.
pub struct RoomConflict;

impl IntoResponses for RoomConflict {
    fn responses() -> Responses {
        let errors = [
            Error::new(Code::RoomNameTaken, "a public room with this name exists"),
            Error::new(Code::Conflict, "the user is in 1000 rooms, the maximum for one user"),
        ];
        conflicts("Another public room has this name, or the caller is in the maximum number of rooms", &errors)
    }
}

/// The response 409 for any of these errors.
fn conflicts(when: &str, errors: &[Error]) -> Responses {
    let response = ResponseBuilder::new().description(when).content("application/problem+json", content(errors));
    Responses::from([(Code::Conflict.http_status().to_string(), response.build().into())])
}

/// The schemas of all errors.
pub fn schemas() -> Vec<(String, RefOr<Schema>)> {
    let mut schemas = vec![(Document::name().into(), Document::schema())];
    Document::schemas(&mut schemas);
    schemas
}

/// A problem document that has the code of one of these errors.
fn content(errors: &[Error]) -> Content {
    let example = |error: &Error| {
        let example = json!(Document::new(&examples::with_fields(error.clone()), examples::REQUEST));
        (error.code.as_str(), ExampleBuilder::new().value(Some(example)))
    };
    ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(Document::name())))
        .examples_from_iter(errors.iter().map(example))
        .build()
}

fn answer(error: &Error, when: &str) -> Response {
    let content = content(std::slice::from_ref(error));
    let response = ResponseBuilder::new().description(when).content("application/problem+json", content);
    let (name, about, schema, example) = match error.code {
        Code::Unauthorized => ("WWW-Authenticate", "The authentication scheme", String::schema(), json!("Bearer")),
        Code::Unavailable | Code::RateLimited => {
            ("Retry-After", "Seconds to wait", Object::with_type(Type::Integer).into(), json!(1))
        }
        Code::RangeNotSatisfiable => {
            ("Content-Range", "The size of the file in bytes", String::schema(), json!("bytes */6"))
        }
        _ => return response.build(),
    };
    let header = |schema, about, example| {
        HeaderBuilder::new().schema(Some(schema)).description(Some(about)).example(Some(example)).build()
    };
    let response = response.header(name, header(schema, about, example));
    if error.code != Code::RateLimited {
        return response.build();
    }
    let (policy, state) = ("The limits of this operation", "What is left of them");
    response
        .header("RateLimit-Policy", header(String::schema(), policy, json!("\"signup\";q=60;w=60")))
        .header("RateLimit", header(String::schema(), state, json!("\"signup\";r=0;t=1")))
        .build()
}

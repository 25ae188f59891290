//! Every parameter of the contract, declared once; operations name those that they take.

use serde_json::json;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Required, SchemaFormat};

use super::examples;

/// For each: where it stands and its name, what it is, its schema, and an example of what is required. Swagger UI sends
/// every example, so what is optional has none.
macro_rules! parameters {
    ($($type:ident: $place:ident $name:literal, $about:literal, $schema:expr $(, $example:expr)?;)+) => {$(
        #[doc = $about]
        pub struct $type;

        impl IntoParams for $type {
            fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
                vec![parameter(ParameterIn::$place, $name, $about, $schema)$(.example(Some(json!($example))))?.build()]
            }
        }
    )+};
}

parameters! {
    Room: Path "roomId", "The room", id(), examples::ROOM;
    File: Path "fileId", "The file", id(), examples::FILE;
    Limit: Query "limit", "How many items at most", integer(1).maximum(Some(200)).default(Some(json!(50)));
    Cursor: Query "cursor", "The `nextCursor` of the page before", text();
    Search: Query "q", "Part of a name or description", text();
    Before: Query "before", "Only what is older than this `seq`; not with `after` or `cursor`", integer(1);
    After: Query "after", "Only what is newer than this `seq`; not with `before` or `cursor`", integer(0);
    OfRoom: Query "roomId", "The files of this room, instead of one's own uploads", id();
    Expires: Query "expires", "Of a link: when it ends", text();
    Signature: Query "signature", "Of a link: what makes it good without a token", text();
    IdempotencyKey: Header "Idempotency-Key", "Another name of `clientMessageId`, 1 to 128 bytes: a repeat is known by it and done once",
        text().min_length(Some(1)).max_length(Some(128));
    Range: Header "Range", "One range of bytes, such as `bytes=0-99`", text();
    IfRange: Header "If-Range", "The `ETag` or `Last-Modified` for which the range is good", text();
    IfMatch: Header "If-Match", "The `ETag` of the version that is wanted", text();
    IfUnmodifiedSince: Header "If-Unmodified-Since", "The `Last-Modified` of the version that is wanted", text();
    IfNoneMatch: Header "If-None-Match", "The `ETag` that is known already", text();
    IfModifiedSince: Header "If-Modified-Since", "The `Last-Modified` that is known already", text();
}

fn parameter(place: ParameterIn, name: &str, about: &str, schema: ObjectBuilder) -> ParameterBuilder {
    let required = if place == ParameterIn::Path { Required::True } else { Required::False };
    let parameter = ParameterBuilder::new().name(name).parameter_in(place).required(required).description(Some(about));
    parameter.schema(Some(schema))
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

fn id() -> ObjectBuilder {
    text().format(Some(SchemaFormat::Custom("uuid".into())))
}

fn integer(least: u64) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(least))
}

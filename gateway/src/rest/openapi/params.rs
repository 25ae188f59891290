//! Every parameter of the contract, declared once; operations name those that they take.

use serde_json::{Value, json};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Required, SchemaFormat};

use super::examples;

/// For each: where it stands and its name, what it is, an example, and its schema.
macro_rules! parameters {
    ($($type:ident: $place:ident $name:literal, $about:literal, $example:expr, $schema:expr;)+) => {$(
        #[doc = $about]
        pub struct $type;

        impl IntoParams for $type {
            fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
                vec![parameter(ParameterIn::$place, $name, $about, json!($example), $schema)]
            }
        }
    )+};
}

parameters! {
    Room: Path "roomId", "The room", examples::ROOM, id();
    File: Path "fileId", "The file", examples::FILE, id();
    Limit: Query "limit", "How many items at most", 50, integer(1).maximum(Some(200)).default(Some(json!(50)));
    Cursor: Query "cursor", "The `nextCursor` of the page before", examples::CURSOR, text();
    Search: Query "q", "Part of a name or description", "tea", text();
    Before: Query "before", "Only what is older than this `seq`; not with `after` or `cursor`", 42, integer(1);
    After: Query "after", "Only what is newer than this `seq`; not with `before` or `cursor`", 41, integer(0);
    OfRoom: Query "roomId", "The files of this room, instead of one's own uploads", examples::ROOM, id();
    Expires: Query "expires", "Of a link: when it ends", 1_795_382_945_123_u64, integer(0);
    Signature: Query "signature", "Of a link: what makes it good without a token", "q83vEjRWeJA", text();
    IdempotencyKey: Header "Idempotency-Key", "Another name of `clientMessageId`, 1 to 128 bytes: a repeat is known by it and done once",
        examples::CLIENT_ID, text().min_length(Some(1)).max_length(Some(128));
    Range: Header "Range", "One range of bytes", "bytes=0-99", text();
    IfRange: Header "If-Range", "The `ETag` or `Last-Modified` for which the range is good", examples::etag(), text();
    IfMatch: Header "If-Match", "The `ETag` of the version that is wanted", examples::etag(), text();
    IfUnmodifiedSince: Header "If-Unmodified-Since", "The `Last-Modified` of the version that is wanted", examples::MODIFIED, text();
    IfNoneMatch: Header "If-None-Match", "The `ETag` that is known already", examples::etag(), text();
    IfModifiedSince: Header "If-Modified-Since", "The `Last-Modified` that is known already", examples::MODIFIED, text();
}

fn parameter(place: ParameterIn, name: &str, about: &str, example: Value, schema: ObjectBuilder) -> Parameter {
    let required = if place == ParameterIn::Path { Required::True } else { Required::False };
    let parameter = ParameterBuilder::new().name(name).parameter_in(place).required(required).description(Some(about));
    parameter.schema(Some(schema)).example(Some(example)).build()
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

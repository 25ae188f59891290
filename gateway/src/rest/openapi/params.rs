//! All parameters of the API, each declared once; operations list the ones that they accept.

use serde_json::json;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Required, SchemaFormat};

use super::examples;

/// For each parameter: place and name, description, schema, and an example if it is required. Swagger UI sends every
/// example, so optional parameters have none.
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
    Room: Path "roomId", "The id of the room", id(), examples::ROOM;
    User: Path "userId",
        "The id of the user, `me` for the caller, or `@` and a percent-encoded username", text(), examples::USER;
    ManagedUser: Path "userId", "The id of the user, or `@` and a percent-encoded username", text(), examples::USER;
    MessageSeq: Path "seq", "The `seq` of the message", integer(1), 42;
    Key: Path "keyId", "The id of the server key", id(), examples::KEY;
    File: Path "fileId", "The id of the file", id(), examples::FILE;
    Session: Path "sessionId", "The id of the session", id(), examples::SESSION;
    Limit: Query "limit", "Most items on the page, 1 to 200", integer(1).maximum(Some(200)).default(Some(json!(50)));
    Cursor: Query "cursor", "The `nextCursor` of the previous page; leave it out for the first page", text();
    UserIds: Query "ids",
        "The ids of the users, 1 to 100, separated by commas. Cannot be combined with `q`; one of both is needed",
        text().min_length(Some(36)).max_length(Some(3699));
    UserSearch: Query "q",
        "Lists the users whose username or display name begins with this text, 2 to 80 characters, ignoring case",
        text().min_length(Some(2));
    SearchWords: Query "q",
        "The words that a message must have, 1 to 200 characters with at most 10 words. Needed. Without letters and \
         digits, it finds nothing",
        text().min_length(Some(1)).max_length(Some(200));
    SearchRoom: Query "roomId", "Only messages of this room instead of all rooms of the caller", id();
    SearchFrom: Query "from", "Only messages of this user: an id, `me` for the caller, or `@` and a username", text();
    SearchBefore: Query "before", "Only messages that were sent before this time",
        text().format(Some(SchemaFormat::Custom("date-time".into())));
    Search: Query "q", "Only rooms whose name or description contains this text", text();
    Mine: Query "mine",
        "`true`: only the rooms of which the caller is a member, by their last activity at the time of the first page, \
         the most recent first",
        ObjectBuilder::new().schema_type(Type::Boolean).default(Some(json!(false)));
    Before: Query "before",
        "Only messages with a lower `seq`; cannot be combined with `after`, `around` or `cursor`", integer(1);
    After: Query "after",
        "Only messages with a higher `seq`; cannot be combined with `before`, `around` or `cursor`", integer(0);
    Around: Query "around",
        "The message with this `seq`, half of `limit` older messages and the rest newer ones; cannot be combined with \
         `before`, `after` or `cursor`",
        integer(1);
    Events: Query "events",
        "`true`: changes of messages are items, too, so that every number of the room has an item",
        ObjectBuilder::new().schema_type(Type::Boolean).default(Some(json!(false)));
    ChangedAfter: Query "after",
        "Only messages whose `revision` is higher. Needed without `cursor`; cannot be combined with it", integer(0);
    From: Query "from", "Only messages with this `seq` or a higher one; cannot be combined with `cursor`", integer(1);
    UpTo: Query "upTo", "Only messages with this `seq` or a lower one; cannot be combined with `cursor`", integer(1);
    ReactionName: Path "name",
        "The name of the reaction, percent-encoded: 1 to 64 bytes of UTF-8 in NFC without control characters, neither \
         `.` nor `..`; for example an emoji",
        text().min_length(Some(1)), "👍";
    WithName: Query "name", "Only reactions with this name", text().min_length(Some(1));
    MessageId: Query "id",
        "The id that the message must have; with another id the response is 409, because the log was restored", id();
    OfRoom: Query "roomId", "Lists the files of this room instead of the caller's uploads", id();
    Expires: Query "expires", "When the link expires, in ms since the Unix epoch; part of a link's URL", text();
    Signature: Query "signature", "The signature of the link; part of a link's URL", text();
    IdempotencyKey: Header "Idempotency-Key",
        "The header form of `clientMessageId`, 1 to 128 bytes. Requests with the same key take effect once",
        text().min_length(Some(1)).max_length(Some(128));
    Range: Header "Range", "One range of bytes, such as `bytes=0-99`", text();
    IfRange: Header "If-Range",
        "The `ETag` or `Last-Modified` that the file must have; otherwise the response is the whole file", text();
    IfRevision: Header "If-Match",
        "The `ETag` of the message. If the message was edited or deleted after this revision, the response is 412",
        text();
    IfMatch: Header "If-Match", "The `ETag` that the file must have; otherwise 412", text();
    IfUnmodifiedSince: Header "If-Unmodified-Since",
        "The latest `Last-Modified` that the file may have; otherwise 412", text();
    IfNoneMatch: Header "If-None-Match",
        "The `ETag` that the client already has; if it is current, the response is 304", text();
    IfModifiedSince: Header "If-Modified-Since",
        "The `Last-Modified` that the client already has; if it is current, the response is 304", text();
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

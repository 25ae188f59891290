//! The parts of the OpenAPI document besides its operations. Each operation is described at its handler, and the same
//! macro registers its route: an operation that is not in the document is not served.

pub(super) mod bytes;
pub(super) mod examples;
pub(super) mod params;
pub(super) mod problems;

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder};

const ABOUT: &str = "\
Accounts, rooms, messages and files of Confab, over HTTP. Clients receive the events of rooms over Socket.IO at \
`/socket.io/`: [asyncapi.json](../asyncapi.json) describes them.

Sign up or log in to get a token, and send it with every request as `Authorization: Bearer …`. Public rooms, their \
messages and their files can be read without a token if the server has the setting `CONFAB_ANONYMOUS_READ=true`. \
A private room exists only for its members: all other callers get 404 `not_found`.

The back end of an app sends a server key in place of a token, never from a web page. With the header \
`Confab-User: <user id>` it has exactly the rights of that user: with the scope `rooms` in the operations on rooms and \
members, with the scope `messages` in those on messages and files, with the scope `users` in those that find users. \
Without the header, it may read, change and delete \
any room and its members (`rooms`), find all users (`users`), and read and delete any room's messages and files and pin \
messages (`messages`); an operation that needs an author returns 400. A missing scope is 403.

Times are RFC 3339 in UTC with milliseconds; ids are UUIDv7. Unknown fields of a request are ignored. Every response \
has the id of its request in the header `X-Request-Id`. Every error is a Problem: an unknown route returns 404 \
`not_found`, an unsupported method 405 `method_not_allowed`, and a `Host` that the server does not accept 400 \
`invalid_request`.";

/// The document without operations.
pub(super) fn document() -> OpenApi {
    let license = LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build();
    let info = InfoBuilder::new()
        .title("Confab")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .license(Some(license));
    let tags = [
        ("Auth", "Accounts and tokens"),
        ("Users", "Users: finding other users, and their profiles"),
        ("Rooms", "Rooms: a room has a name, members and a log of messages"),
        ("Messages", "Messages of a room, in the order of their `seq`"),
        ("Unread", "Unread messages: read markers, read receipts and notifications"),
        ("Files", "Files: uploads, downloads and links"),
        ("Admin", "Server keys, users, tokens and the audit, for the back end of an app"),
    ];
    let tags = tags.map(|(name, about)| TagBuilder::new().name(name).description(Some(about)).build());
    let about = "The `token` that signup and login return, without the prefix `Bearer`";
    let bearer =
        HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").description(Some(about)).build();
    let about = "A server key, which `POST /api/admin/keys` returns once";
    let key = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(about)).build();
    // Routes add the schemas of their operations; only the schemas of errors are added here.
    let components = ComponentsBuilder::new()
        .security_scheme("bearer", SecurityScheme::Http(bearer))
        .security_scheme("key", SecurityScheme::Http(key));
    let components = components.schemas_from_iter(problems::schemas()).responses_from_iter(problems::all());
    OpenApiBuilder::new().info(info).tags(Some(tags)).components(Some(components.build())).build()
}

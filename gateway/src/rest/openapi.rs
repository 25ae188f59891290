//! What the document of this API says beside its operations. Those are described where they are handled, and routed by the
//! same words: what is not in the document is not served.

pub(super) mod bytes;
pub(super) mod examples;
pub(super) mod params;
pub(super) mod problems;

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder};

const ABOUT: &str = "\
Accounts, rooms, messages and files of Confab, over HTTP. Socket.IO at `/socket.io/` carries live what happens in rooms: \
[asyncapi.json](../asyncapi.json) describes its events.

Sign up or log in for a token, and send it with every request as `Authorization: Bearer …`. Reading what is public needs none where \
the server is set to `CONFAB_ANONYMOUS_READ=true`.

Times are RFC 3339 in UTC with milliseconds, ids are UUIDv7. Unknown fields of a request are ignored. Every answer names its request \
in the header `X-Request-Id`. Every failure is a Problem: a route that does not exist is 404 `not_found`, another method than these is \
405 `method_not_allowed`, and a `Host` that the server is not called by is 400 `invalid_request`.";

/// The document without its operations.
pub(super) fn document() -> OpenApi {
    let license = LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build();
    let info = InfoBuilder::new().title("Confab").version(env!("CARGO_PKG_VERSION")).description(Some(ABOUT)).license(Some(license));
    let tags = [
        ("Auth", "Accounts, and the sessions in which they are used"),
        ("Rooms", "Where people talk"),
        ("Messages", "What they say, in the order in which it was said"),
        ("Files", "What they share"),
    ];
    let tags = tags.map(|(name, about)| TagBuilder::new().name(name).description(Some(about)).build());
    let about = "The `token` that signup and login answer with, without `Bearer` before it";
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").description(Some(about)).build();
    // Of what operations refer to, routes add the schemas; here are those that only failures have.
    let components = ComponentsBuilder::new().security_scheme("bearer", SecurityScheme::Http(bearer));
    let components = components.schemas_from_iter(problems::schemas()).responses_from_iter(problems::all());
    OpenApiBuilder::new().info(info).tags(Some(tags)).components(Some(components.build())).build()
}

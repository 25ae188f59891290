//! REST: translates JSON requests to gRPC calls and gRPC responses to JSON, one file per resource.

mod admin;
mod auth;
mod avatars;
mod changes;
mod directory;
mod docs;
mod extract;
pub(crate) mod files;
mod late;
mod members;
mod messages;
mod openapi;
pub mod outdated;
mod password;
mod profile;
mod reactions;
mod reading;
mod revision;
mod rooms;
mod search;
mod sessions;
mod states;
mod unread;
mod users;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn;
use axum::routing::get;
use confab_common::grpc::{Call, request};
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;

use crate::App;
use crate::edge::{LIVEZ, body};
use crate::problem;

/// The REST routes, the API's documentation, and a fallback that answers every other path with a problem document.
///
/// # Errors
/// When the OpenAPI document cannot be serialised or a file of Swagger UI is missing.
pub fn routes(app: Arc<App>) -> anyhow::Result<Router> {
    let (operations, document) = operations().split_for_parts();
    // For load balancers that can only probe the port to which they send traffic.
    let alive = Router::new().route(LIVEZ, get(|| async { "alive\n" }));
    let routes = operations.merge(docs::routes(&document)?).merge(alive).route_layer(from_fn(body::only_plain));
    Ok(routes.method_not_allowed_fallback(problem::wrong_method).fallback(problem::unknown_route).with_state(app))
}

/// The OpenAPI 3.1 document, byte for byte as `/openapi.json` serves it.
///
/// # Errors
/// When the document cannot be serialised.
pub fn document() -> serde_json::Result<String> {
    docs::text(&operations().into_openapi())
}

/// All operations; a route exists only together with its OpenAPI description.
fn operations() -> OpenApiRouter<Arc<App>> {
    let resources = [
        auth::routes(),
        sessions::routes(),
        password::routes(),
        profile::routes(),
        directory::routes(),
        rooms::routes(),
        members::routes(),
        messages::routes(),
        changes::routes(),
        reactions::routes(),
        states::routes(),
        unread::routes(),
        search::routes(),
        files::routes(),
        avatars::routes(),
        admin::routes(),
    ];
    resources.into_iter().fold(OpenApiRouter::with_openapi(openapi::document()), OpenApiRouter::merge)
}

/// The time left for all gRPC calls of one HTTP request.
struct Deadline {
    call: Call,
    at: Instant,
}

impl Deadline {
    fn of(app: &App) -> Self {
        Self { call: app.clients.call, at: Instant::now() + app.clients.call.deadline }
    }

    /// A call that must be answered within the time left.
    fn request<T>(&self, message: T) -> tonic::Request<T> {
        request(message, Call { deadline: self.at.saturating_duration_since(Instant::now()), ..self.call })
    }

    /// A call whose repeat would get another answer, so that a slow replica is not replaced by the next one.
    fn once<T>(&self, message: T) -> tonic::Request<T> {
        request(message, Call::within(self.at.saturating_duration_since(Instant::now())))
    }

    /// A read-only call that must be answered within the time left.
    fn reading<T>(&self, message: T) -> tonic::Request<T> {
        request(message, Call { deadline: self.at.saturating_duration_since(Instant::now()), ..self.call.reading() })
    }
}

#[cfg(test)]
pub(in crate::rest) mod tests;

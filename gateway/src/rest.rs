//! REST: JSON to gRPC and back, one file per resource.

mod auth;
mod docs;
mod extract;
mod files;
mod late;
mod messages;
mod openapi;
mod rooms;

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

/// All routes of REST, a problem document for any other path, and the API's documentation.
///
/// # Errors
/// When the document cannot be written or a file of Swagger UI is missing.
pub fn routes(app: Arc<App>) -> anyhow::Result<Router> {
    let (operations, document) = operations().split_for_parts();
    // For balancers that can ask nothing else than the port they balance.
    let alive = Router::new().route(LIVEZ, get(|| async { "alive\n" }));
    let routes = operations.merge(docs::routes(&document)?).merge(alive).route_layer(from_fn(body::only_plain));
    Ok(routes.method_not_allowed_fallback(problem::wrong_method).fallback(problem::unknown_route).with_state(app))
}

/// The OpenAPI 3.1 document of this API, as it is served.
///
/// # Errors
/// When it cannot be written.
pub fn document() -> serde_json::Result<String> {
    docs::text(&operations().into_openapi())
}

/// Each operation with its description.
fn operations() -> OpenApiRouter<Arc<App>> {
    let resources = [auth::routes(), rooms::routes(), messages::routes(), files::routes()];
    resources.into_iter().fold(OpenApiRouter::with_openapi(openapi::document()), OpenApiRouter::merge)
}

/// The time left for all calls of a request.
struct Deadline(Call, Instant);

impl Deadline {
    fn of(app: &App) -> Self {
        Self(app.clients.call, Instant::now() + app.clients.call.deadline)
    }

    /// A call within the time left.
    fn request<T>(&self, message: T) -> tonic::Request<T> {
        request(message, Call { deadline: self.1.saturating_duration_since(Instant::now()), ..self.0 })
    }

    /// A call that changes nothing, within the time left.
    fn reading<T>(&self, message: T) -> tonic::Request<T> {
        request(message, Call { deadline: self.1.saturating_duration_since(Instant::now()), ..self.0.reading() })
    }
}

#[cfg(test)]
pub(in crate::rest) mod tests;

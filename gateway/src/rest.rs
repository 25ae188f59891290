//! REST: JSON to gRPC and back, one file per resource.

mod auth;
mod extract;
mod files;
mod messages;
mod rooms;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use confab_common::grpc::{Call, request};
use tokio::time::Instant;

use crate::App;
use crate::problem;

/// All routes of REST, with problems for what is none.
pub fn routes(app: Arc<App>) -> Router {
    Router::new()
        .route("/.well-known/jwks.json", get(auth::jwks))
        .route("/api/auth/signup", post(auth::signup))
        .route("/api/auth/login", post(auth::login))
        .route("/api/auth/logout", get(auth::logout).post(auth::logout))
        .route("/api/auth/me", get(auth::me))
        .route("/api/rooms", get(rooms::list).post(rooms::create))
        .route("/api/rooms/{room}", get(rooms::show).patch(rooms::change).delete(rooms::delete))
        .route("/api/messages", post(messages::post))
        .route("/api/messages/{room}", get(messages::list))
        .route("/api/files", get(files::list))
        .route("/api/files/upload", post(files::upload))
        .route("/api/files/{file}", get(files::download).delete(files::delete))
        .route("/api/files/{file}/link", get(files::link))
        .method_not_allowed_fallback(problem::wrong_method)
        .fallback(problem::unknown_route)
        .with_state(app)
}

/// The time that a request has for all its calls together.
struct Deadline(Call, Instant);

impl Deadline {
    fn of(app: &App) -> Self {
        Self(app.clients.call, Instant::now() + app.clients.call.deadline)
    }

    /// A call within what is left.
    fn request<T>(&self, message: T) -> tonic::Request<T> {
        request(message, Call { deadline: self.1.saturating_duration_since(Instant::now()), ..self.0 })
    }

    /// A call that changes nothing, within what is left.
    fn reading<T>(&self, message: T) -> tonic::Request<T> {
        request(message, Call { deadline: self.1.saturating_duration_since(Instant::now()), ..self.0.reading() })
    }
}

#[cfg(test)]
pub(in crate::rest) mod tests;

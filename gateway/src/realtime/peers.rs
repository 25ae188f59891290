//! The routes for other gateways.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CONNECTION;
use axum::http::{Response, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::IntoResponse;
use axum::routing::any;

use super::Realtime;
use super::forward::{Covers, Forward};
use super::handshake;
use super::post::whole_payload;
use crate::metrics::METRICS;
use crate::server::Tally;

/// The routes for other gateways; requests without the cluster's signature are rejected.
pub fn router(edge: Arc<Realtime>) -> Router {
    let ours = from_fn_with_state(edge.clone(), only_gateways);
    let handler = any(handshake::forwarded);
    Router::new().route("/socket.io/", handler.clone()).route("/socket.io", handler).with_state(edge).layer(ours)
}

async fn only_gateways(State(edge): State<Arc<Realtime>>, request: Request, next: Next) -> Response<Body> {
    let (head, body) = request.into_parts();
    let mut held = head.extensions.get::<Tally>().map(|tally| tally.hold(tally.address()));
    let signed = async |forward: &Forward| {
        let covers = forward.covers(&head).await?;
        if covers == Covers::Head {
            return Some(body);
        }
        let body = whole_payload(body, edge.config.max_packet, held.as_mut()).await.ok()?;
        covers.is_of(&body).then(|| body.into())
    };
    let body = match &edge.forward {
        Some(forward) => signed(forward).await,
        None => None,
    };
    let Some(body) = body else {
        METRICS.forward_refused.increment(1);
        return (StatusCode::FORBIDDEN, [(CONNECTION, "close")]).into_response();
    };
    next.run(Request::from_parts(head, body)).await
}

//! The routes for the other nodes of a cluster.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CONNECTION;
use axum::http::{Method, Response, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::IntoResponse;
use axum::routing::any;

use super::handshake::{Parameters, serve};
use super::payload::whole_payload;
use crate::application::Application;
use crate::cluster::{Cluster, Covers};
use crate::frame::Frame;
use crate::last_poll::Route;
use crate::metrics::METRICS;
use crate::net::Tally;
use crate::passage::Passage;
use crate::refusal::Refusal;
use crate::server::Server;
use crate::transport::Transport;

/// Returns the routes for other nodes. A request without the cluster's signature receives 403.
pub fn routes<A: Application>(server: &Arc<Server<A>>) -> Router {
    let ours = from_fn_with_state(server.clone(), only_nodes::<A>);
    let handler = any(proxied::<A>);
    Router::new()
        .route("/socket.io/", handler.clone())
        .route("/socket.io", handler)
        .with_state(server.clone())
        .layer(ours)
}

async fn only_nodes<A: Application>(
    State(server): State<Arc<Server<A>>>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let mut held = head.extensions.get::<Tally>().map(|tally| tally.hold(tally.address()));
    let signed = async |cluster: &Cluster| {
        let covers = cluster.covers(&head).await?;
        if covers == Covers::Head {
            return Some(body);
        }
        let body = whole_payload(body, server.config.max_packet, held.as_mut()).await.ok()?;
        covers.is_of(&body).then(|| body.into())
    };
    let body = match &server.cluster {
        Some(cluster) => signed(cluster).await,
        None => None,
    };
    let Some(body) = body else {
        METRICS.forward_refused.increment(1);
        return (StatusCode::FORBIDDEN, [(CONNECTION, "close")]).into_response();
    };
    next.run(Request::from_parts(head, body)).await
}

/// Handles requests from other nodes, by method:
///
/// * GET and POST: proxied requests of clients.
/// * PUT: the session's client is alive, because its POST is still arriving at the other node.
/// * DELETE: the other node drains, so its pending request or tunnel for this session must end soon.
/// * HEAD: the other node requests the outcome of a response that this node proxied.
async fn proxied<A: Application>(
    State(server): State<Arc<Server<A>>>,
    request: Request,
) -> Result<Response<Body>, Refusal> {
    let parameters = Parameters::of(request.uri())?;
    if let (&Method::HEAD, Some(cluster)) = (request.method(), &server.cluster) {
        let passed = parameters.sid.as_deref().zip(parameters.t.as_deref().and_then(|t| t.parse().ok()));
        let (sid, passage) = passed.ok_or(Refusal::BadRequest)?;
        return Ok(cluster.outcome_here(sid, passage).await.into_response());
    }
    let session = parameters.sid.as_deref().and_then(|sid| server.registry.get(sid)).ok_or(Refusal::UnknownSession)?;
    if request.method() == Method::DELETE {
        if *session.transport() == Transport::WebSocket {
            server.leave(session, server.config.leave_within);
        } else {
            // The noop ends the pending GET. The client's next poll goes through another node.
            session.outbox.push(Frame::engine("6"));
        }
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    if request.method() == Method::PUT {
        session.touch();
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let route = Passage::of(request.headers()).map_or(Route::Unknown, Route::Through);
    serve(&server, session, parameters.websocket()?, parameters.t, route, request).await
}

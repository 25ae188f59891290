//! The HTTP side of `/socket.io/`: finds the session and the transport that a request means.
//! <https://github.com/socketio/engine.io-protocol>

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::header::{
    AUTHORIZATION, CONNECTION, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use confab_socketio::Frame;

use super::Realtime;
use super::forward::{self, Passage};
use super::polling::{self, Way};
use super::refusal::Refusal;
use super::session::{Session, Transport};
use super::websocket;
use crate::address::ClientAddress;
use crate::edge::cors;
use crate::server::{Place, Tally};
use crate::tokens::{MAX_TOKEN, bearer};

pub(super) struct Parameters {
    /// The protocol's version, `EIO`.
    version: Option<String>,
    transport: Option<String>,
    sid: Option<String>,
    /// Differs between a client's polls.
    t: Option<String>,
}

impl Parameters {
    /// Reads the query: of several parameters with one name the first counts, and an empty `sid` is none.
    fn of(uri: &Uri) -> Result<Self, Refusal> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|_| Refusal::BadRequest)?;
        let mut parameters = Self { version: None, transport: None, sid: None, t: None };
        for (name, value) in pairs {
            let parameter = match &*name {
                "EIO" => &mut parameters.version,
                "transport" => &mut parameters.transport,
                "sid" => &mut parameters.sid,
                "t" => &mut parameters.t,
                _ => continue,
            };
            parameter.get_or_insert(value);
        }
        parameters.sid.take_if(|sid| sid.is_empty());
        Ok(parameters)
    }

    /// Whether the request is for a WebSocket.
    fn websocket(&self) -> Result<bool, Refusal> {
        let websocket = match self.transport.as_deref() {
            Some("polling") => false,
            Some("websocket") => true,
            _ => return Err(Refusal::UnknownTransport),
        };
        match self.version.as_deref() {
            Some("4") => Ok(websocket),
            _ => Err(Refusal::UnsupportedVersion),
        }
    }
}

/// The routes of real time.
pub fn router(edge: Arc<Realtime>) -> Router {
    Router::new().route("/socket.io/", any(handle)).route("/socket.io", any(handle)).with_state(edge)
}

async fn handle(State(edge): State<Arc<Realtime>>, address: ClientAddress, request: Request) -> Result<Response, Refusal> {
    let parameters = Parameters::of(request.uri())?;
    if !allowed(&edge, &request) {
        return Err(Refusal::Forbidden);
    }
    let websocket = parameters.websocket()?;
    let Some(sid) = &parameters.sid else { return open(&edge, websocket, address, request).await };
    if let (&Method::GET, Some(tally)) = (request.method(), request.extensions().get::<Tally>()) {
        // A poll may wait for long, and its client's next one must find it over.
        tally.answer().wire().course.end_with_client();
    }
    match (edge.registry.get(sid), &edge.forward) {
        (Some(session), _) => {
            let way = request.extensions().get().map_or(Way::Unknown, |tally: &Tally| Way::Here(tally.answer().clone()));
            carry(session, websocket, parameters.t, way, request).await
        }
        // The client keeps polling, through another gateway.
        (None, Some(_)) if websocket && edge.is_leaving() => Err(Refusal::GoingAway),
        (None, Some(forward)) => {
            let node = forward.elsewhere(sid).ok_or(Refusal::UnknownSession)?;
            forward::pass(&edge, forward, node, sid, request).await
        }
        (None, None) => Err(Refusal::UnknownSession),
    }
}

/// Handles requests from other gateways: forwarded ones; PUT, a sign of life of the session's client; DELETE, which says
/// that the sender is draining, so that its pending request must end soon; and HEAD, which asks what became of a response that this gateway forwarded.
pub(super) async fn forwarded(State(edge): State<Arc<Realtime>>, request: Request) -> Result<Response, Refusal> {
    let parameters = Parameters::of(request.uri())?;
    if let (&Method::HEAD, Some(forward)) = (request.method(), &edge.forward) {
        let passed = parameters.sid.as_deref().zip(parameters.t.as_deref().and_then(|t| t.parse().ok()));
        let (sid, passage) = passed.ok_or(Refusal::BadRequest)?;
        return Ok(forward.fate_here(sid, passage).await.into_response());
    }
    let session = parameters.sid.as_deref().and_then(|sid| edge.registry.get(sid)).ok_or(Refusal::UnknownSession)?;
    if request.method() == Method::DELETE {
        if *session.transport() == Transport::WebSocket {
            let within = edge.clients.call.deadline;
            edge.connections.spawn(async move { session.go_away(within).await });
        } else {
            // The noop ends the pending GET; the next poll takes another gateway.
            session.outbox.push(Frame::engine("6"));
        }
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    if request.method() == Method::PUT {
        session.touch();
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let way = Passage::of(request.headers()).map_or(Way::Unknown, Way::Through);
    carry(session, parameters.websocket()?, parameters.t, way, request).await
}

/// Opens a session.
async fn open(edge: &Arc<Realtime>, websocket: bool, address: ClientAddress, request: Request) -> Result<Response, Refusal> {
    if request.method() != Method::GET {
        return Err(Refusal::BadMethod);
    }
    let bearer = first_token(request.headers());
    if !websocket {
        return polling::open(edge, address, bearer).await;
    }
    let accept = accept(&request)?;
    let session = Session::open(edge, Transport::WebSocket, address, bearer).ok_or(Refusal::GoingAway)?;
    Ok(upgrade(request, accept, session, false))
}

/// Serves a request for a session of this gateway.
async fn carry(session: Arc<Session>, websocket: bool, t: Option<String>, way: Way, request: Request) -> Result<Response, Refusal> {
    match (websocket, request.method()) {
        (true, &Method::GET) => {
            let accept = accept(&request)?;
            match session.begin_probe() {
                true => Ok(upgrade(request, accept, session, true)),
                false => Err(Refusal::BadRequest),
            }
        }
        (false, &Method::GET) => {
            // A head of up to 32 KiB need not be kept while the poll waits.
            drop(request);
            polling::poll(session, t.as_deref(), way).await
        }
        (false, &Method::POST) => {
            let polled = matches!(*session.transport(), Transport::Polling { .. } | Transport::Probing { .. });
            if !polled {
                return Err(Refusal::BadRequest);
            }
            polling::receive(session, request.into_body()).await
        }
        _ => Err(Refusal::BadMethod),
    }
}

/// Whether the page may connect: from its own host or an allowed origin. Clients other than browsers send no origin.
fn allowed(edge: &Realtime, request: &Request) -> bool {
    let Some(origin) = request.headers().get(ORIGIN) else { return true };
    cors::is_own(origin, request.uri(), request.headers()) || edge.origins.allows(origin)
}

/// The token of the first request. One longer than any valid token is replaced with an empty one, which CONNECT
/// refuses.
fn first_token(headers: &HeaderMap) -> Option<Box<str>> {
    let token = headers.get(AUTHORIZATION).and_then(bearer)?;
    Some(Some(token).filter(|token| token.len() <= MAX_TOKEN).unwrap_or_default().into())
}

/// The response to the client's WebSocket key (RFC 6455 section 4.2).
fn accept(request: &Request) -> Result<HeaderValue, Refusal> {
    let headers = request.headers();
    let has = |name, token: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(token))
    };
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or(Refusal::BadRequest)?;
    if !has(UPGRADE, "websocket") || !has(CONNECTION, "upgrade") || !has(SEC_WEBSOCKET_VERSION, "13") {
        return Err(Refusal::BadRequest);
    }
    if request.version() < Version::HTTP_11 {
        return Err(Refusal::UpgradeRequired);
    }
    let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
    HeaderValue::try_from(accept).map_err(|_| Refusal::BadRequest)
}

/// The first subprotocol that the client offers: a browser that offers some fails when none is chosen.
fn subprotocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let first = headers.get(SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?.split(',').next()?.trim();
    HeaderValue::from_str(first).ok().filter(|first| !first.is_empty())
}

fn upgrade(mut request: Request, accept: HeaderValue, session: Arc<Session>, probe: bool) -> Response {
    let subprotocol = subprotocol(request.headers());
    let connections = session.edge.connections.clone();
    let upgrade = hyper::upgrade::on(&mut request);
    let place = request.extensions().get::<Place>().cloned();
    connections.spawn(async move {
        let _place = place;
        match upgrade.await {
            Ok(upgraded) => websocket::serve(upgraded, session, probe).await,
            Err(_) if probe => session.probe_failed(),
            Err(_) => session.finish(),
        }
    });
    let headers = [
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (SEC_WEBSOCKET_ACCEPT, accept),
    ];
    let subprotocol = subprotocol.map(|name| [(SEC_WEBSOCKET_PROTOCOL, name)]);
    (StatusCode::SWITCHING_PROTOCOLS, headers, subprotocol, Body::empty()).into_response()
}

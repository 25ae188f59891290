//! The routes of `/socket.io/` for clients: find the session and the transport of a request.
//! <https://github.com/socketio/engine.io-protocol>

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use axum::response::{IntoResponse, Response};
use axum::routing::any;

use super::proxy::proxy;
use super::{polling, websocket};
use crate::application::Application;
use crate::ending::Ending;
use crate::last_poll::Route;
use crate::net::{ClientAddress, ConnectionPermit, Tally};
use crate::refusal::Refusal;
use crate::server::Server;
use crate::session::Session;
use crate::transport::Transport;

pub(super) struct Parameters {
    /// The version of the protocol, `EIO`.
    version: Option<String>,
    transport: Option<String>,
    pub sid: Option<String>,
    /// Differs between the polls of a client, to bypass caches.
    pub t: Option<String>,
}

impl Parameters {
    /// Parses the query. The first of several parameters with one name counts. An empty `sid` counts as missing.
    pub fn of(uri: &Uri) -> Result<Self, Refusal> {
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
    ///
    /// # Errors
    /// [`Refusal::UnknownTransport`], or [`Refusal::UnsupportedVersion`] for a version other than 4.
    pub fn websocket(&self) -> Result<bool, Refusal> {
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

/// The routes of `/socket.io/` for clients.
pub fn routes<A: Application>(server: &Arc<Server<A>>) -> Router {
    Router::new()
        .route("/socket.io/", any(handle::<A>))
        .route("/socket.io", any(handle::<A>))
        .with_state(server.clone())
}

async fn handle<A: Application>(
    State(server): State<Arc<Server<A>>>,
    address: ClientAddress,
    request: Request,
) -> Result<Response, Refusal> {
    let parameters = Parameters::of(request.uri())?;
    let (head, body) = request.into_parts();
    if !server.app.may_connect(&head) {
        return Err(Refusal::Forbidden);
    }
    let request = Request::from_parts(head, body);
    let websocket = parameters.websocket()?;
    let Some(sid) = &parameters.sid else { return open(&server, websocket, address, request).await };
    if let (&Method::GET, Some(tally)) = (request.method(), request.extensions().get::<Tally>()) {
        // A poll may wait until the next ping. If its client disconnects, it must end before the client polls again.
        tally.answer().wire().requests.end_with_client();
    }
    match (server.registry.get(sid), &server.cluster) {
        (Some(session), _) => {
            let route = request
                .extensions()
                .get()
                .map_or(Route::Untracked, |tally: &Tally| Route::Here(tally.answer().clone()));
            serve(&server, session, websocket, parameters.t, route, request).await
        }
        // The client continues to poll through another node.
        (None, Some(_)) if websocket && server.is_leaving() => Err(Refusal::GoingAway),
        (None, Some(cluster)) => {
            let node = cluster.elsewhere(sid).ok_or(Refusal::UnknownSession)?;
            proxy(&server, cluster, node, sid, request).await
        }
        (None, None) => Err(Refusal::UnknownSession),
    }
}

async fn open<A: Application>(
    server: &Arc<Server<A>>,
    websocket: bool,
    address: ClientAddress,
    request: Request,
) -> Result<Response, Refusal> {
    if request.method() != Method::GET {
        return Err(Refusal::BadMethod);
    }
    if !websocket {
        return polling::open(server, address, request.headers()).await;
    }
    let accept = accept(&request)?;
    let session = server.open(Transport::WebSocket, address, request.headers()).ok_or(Refusal::GoingAway)?;
    Ok(upgrade(server, request, accept, session, false))
}

/// Serves a request for a session of this node.
pub(super) async fn serve<A: Application>(
    server: &Arc<Server<A>>,
    session: Arc<Session<A::Client>>,
    websocket: bool,
    t: Option<String>,
    route: Route,
    request: Request,
) -> Result<Response, Refusal> {
    match (websocket, request.method()) {
        (true, &Method::GET) => {
            let accept = accept(&request)?;
            if !session.begin_probe() {
                return Err(Refusal::BadRequest);
            }
            Ok(upgrade(server, request, accept, session, true))
        }
        (false, &Method::GET) => {
            // Frees the head, up to 32 KiB, while the poll waits.
            drop(request);
            polling::poll(server, session, t.as_deref(), route).await
        }
        (false, &Method::POST) => {
            if !session.transport().is_polling() {
                return Err(Refusal::BadRequest);
            }
            polling::receive(server, session, request.into_body()).await
        }
        _ => Err(Refusal::BadMethod),
    }
}

/// Checks the upgrade request and returns the value of `Sec-WebSocket-Accept` (RFC 6455 section 4.2).
fn accept(request: &Request) -> Result<HeaderValue, Refusal> {
    let headers = request.headers();
    let has = |name, wanted: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(wanted))
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

/// The first subprotocol that the client offers. A browser that offers subprotocols fails when the server selects none.
fn subprotocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let first = headers.get(SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?.split(',').next()?.trim();
    HeaderValue::from_str(first).ok().filter(|first| !first.is_empty())
}

fn upgrade<A: Application>(
    server: &Arc<Server<A>>,
    mut request: Request,
    accept: HeaderValue,
    session: Arc<Session<A::Client>>,
    probe: bool,
) -> Response {
    let subprotocol = subprotocol(request.headers());
    let upgrade = hyper::upgrade::on(&mut request);
    let permit = request.extensions().get::<ConnectionPermit>().cloned();
    let serving = server.clone();
    server.connections.spawn(async move {
        let _permit = permit;
        match upgrade.await {
            Ok(upgraded) => websocket::serve(serving, upgraded, session, probe).await,
            Err(_) if probe => session.probe_failed(),
            Err(_) => serving.close(&session, Ending::ConnectionLost),
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

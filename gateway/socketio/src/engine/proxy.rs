//! Proxies requests to the nodes that own their sessions, in one hop and at most once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::{
    CONNECTION, CONTENT_TYPE, HeaderName, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{HeaderValue, Method, Response, StatusCode};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::payload::whole_payload;
use crate::application::Application;
use crate::cluster::{Cluster, tunnel};
use crate::metrics::METRICS;
use crate::net::{ClientAddress, ConnectionPermit, Tally, from_hyper};
use crate::passage::{NodeId, PASSAGE};
use crate::refusal::Refusal;
use crate::server::Server;

/// During a drain: how long proxied requests and tunnels may take after the session's node has been notified.
const DRAIN_GRACE: Duration = Duration::from_secs(5);
/// The header with the address of the client.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The header that identifies the request in the logs of both nodes.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The request headers that the session's node needs.
const PROXIED_REQUEST_HEADERS: [HeaderName; 7] =
    [CONNECTION, UPGRADE, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, CONTENT_TYPE, REQUEST_ID];

/// Proxies a request to the node that owns its session.
///
/// # Errors
/// [`Refusal::UnknownSession`] when that node no longer exists or does not answer, [`Refusal::GoingAway`] when no
/// connection permit is free, and the refusal of a body that is too large or too slow.
pub async fn proxy<A: Application>(
    server: &Arc<Server<A>>,
    cluster: &Cluster,
    node: NodeId,
    sid: &str,
    mut request: Request,
) -> Result<Response<Body>, Refusal> {
    let address = cluster.address_of(node).await.ok_or(Refusal::UnknownSession)?;
    let permit = request.extensions().get::<ConnectionPermit>().cloned();
    let another = match &permit {
        Some(permit) => Some(permit.another().ok_or(Refusal::GoingAway)?),
        None => None,
    };
    let client = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    let tally = head.extensions.get::<Tally>().cloned();
    let mut held = tally.as_ref().map(|tally| tally.hold(tally.address()));
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let is_poll = head.method == Method::GET && !head.headers.contains_key(UPGRADE);
    // The signature covers the body. For a body that is too large or too slow, this node sends an empty body: it is
    // malformed, so it ends the session.
    let (body, refusal) = match head.method {
        Method::POST => {
            let arriving = whole_payload(body, server.config.max_packet, held.as_mut());
            let body = while_alive(arriving, cluster, (node, address), sid, server.config.ping_timeout / 2).await;
            body.map_or_else(|refusal| (Bytes::new(), Some(refusal)), |body| (body, None))
        }
        _ => (Bytes::new(), None),
    };
    let mut onward = cluster.request((node, address), head.method.clone(), target, body).ok_or(Refusal::BadRequest)?;
    for name in PROXIED_REQUEST_HEADERS {
        // Copied, because the value refers to the buffer of the complete head, which is freed before the answer
        // arrives.
        if let Some(Ok(value)) = head.headers.get(&name).map(|value| HeaderValue::from_bytes(value.as_bytes())) {
            onward.headers_mut().insert(name, value);
        }
    }
    if let Some(Ok(address)) =
        head.extensions.get().map(|address: &ClientAddress| HeaderValue::try_from(address.to_string()))
    {
        onward.headers_mut().insert(FORWARDED_FOR, address);
    }
    let passage = cluster.next_passage();
    onward.headers_mut().insert(PASSAGE, passage.header());
    drop(head);
    let answered = until_draining(server, (node, address), sid, cluster.send(onward)).await;
    let (answer, owner) = answered.flatten().ok_or(Refusal::UnknownSession)?;
    if is_poll && let Some(tally) = tally {
        cluster.answered(sid, passage, tally.answer().clone()).await;
    }
    METRICS.forwarded.increment(1);
    if let Some(refusal) = refusal {
        return Err(refusal);
    }
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let (server, sid) = (server.clone(), Box::<str>::from(sid));
        server.connections.clone().spawn(async move {
            let _permits = (permit, another);
            let (Ok(client), Ok(owner)) = tokio::join!(client, owner) else { return };
            // The HTTP server created the client's stream, the connector of hyper the owner's.
            let (Some(client), Some(owner)) = ((server.into_tcp)(client), from_hyper(owner)) else { return };
            METRICS.tunnels.increment(1);
            // Boxed, so that this task stays small.
            until_draining(&server, (node, address), &sid, tunnel::run(client, owner)).await;
            METRICS.tunnels.decrement(1);
        });
    }
    Ok(answer)
}

/// Waits for the body of a client's POST. Meanwhile the session's node receives no packet of the client, so this node
/// sends it a PUT at each interval `every`. It keeps the session alive.
async fn while_alive<T>(
    arriving: impl Future<Output = T>,
    cluster: &Cluster,
    to: (NodeId, SocketAddr),
    sid: &str,
    every: Duration,
) -> T {
    let mut arriving = std::pin::pin!(arriving);
    let target = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
    loop {
        if let Ok(arrived) = timeout(every, &mut arriving).await {
            return arrived;
        }
        if let Some(sign) = cluster.request(to, Method::PUT, &target, Bytes::new()) {
            tokio::select! {
                arrived = &mut arriving => return arrived,
                _ = cluster.send(sign) => {}
            }
        }
    }
}

/// Waits for a proxied request or a tunnel. When this node begins to drain, it notifies the session's node once, and
/// that node ends the request or the tunnel. `None` when this takes more than 5 s.
async fn until_draining<A: Application, T>(
    server: &Server<A>,
    to: (NodeId, SocketAddr),
    sid: &str,
    proxied: impl Future<Output = T>,
) -> Option<T> {
    let mut proxied = std::pin::pin!(proxied);
    let leaving = async {
        let spread = server.leaving().await;
        sleep(spread.mul_f64(f64::from(Uuid::new_v4().as_fields().0) / f64::from(u32::MAX))).await;
    };
    tokio::select! {
        done = &mut proxied => return Some(done),
        () = leaving => {}
    }
    let target = format!("/socket.io/?sid={sid}");
    let notify = async {
        let cluster = server.cluster.as_ref()?;
        cluster.send(cluster.request(to, Method::DELETE, &target, Bytes::new())?).await.map(drop)
    };
    let notified = async { tokio::join!(notify, proxied).1 };
    timeout(DRAIN_GRACE, notified).await.ok()
}

//! Requests for sessions of other nodes: one hop, and never twice.

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

/// While draining: how long proxied requests and tunnels may still take once the session's node has been notified.
const DRAIN_GRACE: Duration = Duration::from_secs(5);
/// Carries the address of the request's client.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Names the request in the logs of both nodes.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The request headers that the session's node needs.
const PASSED_ON: [HeaderName; 7] =
    [CONNECTION, UPGRADE, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, CONTENT_TYPE, REQUEST_ID];

/// Forwards a request to the node that has its session. The sessions of a node that is gone are gone, too.
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
    // The signature covers the body. An empty body is malformed and ends the session, as do bodies that are too large
    // or too slow.
    let (body, refusal) = match head.method {
        Method::POST => {
            let arriving = whole_payload(body, server.config.max_packet, held.as_mut());
            let body = while_alive(arriving, cluster, (node, address), sid, server.config.ping_timeout / 2).await;
            body.map_or_else(|refusal| (Bytes::new(), Some(refusal)), |body| (body, None))
        }
        _ => (Bytes::new(), None),
    };
    let mut onward = cluster.request((node, address), head.method.clone(), target, body).ok_or(Refusal::BadRequest)?;
    for name in PASSED_ON {
        // Copied: the value is part of the buffer of the whole head, which is not kept while the session's node answers.
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
    let answered = until_leaving(server, (node, address), sid, cluster.send(onward)).await;
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
            // The connector made the one, the HTTP server around this one the other.
            let (Some(client), Some(owner)) = ((server.into_tcp)(client), from_hyper(owner)) else { return };
            METRICS.tunnels.increment(1);
            // Boxed, so that it is freed when the tunnel ends; the rest of this task is small.
            until_leaving(&server, (node, address), &sid, tunnel::run(client, owner)).await;
            METRICS.tunnels.decrement(1);
        });
    }
    Ok(answer)
}

/// Waits for the body of a client's POST. Its session's node receives none of it yet, and the client answers no ping
/// meanwhile, so it gets a sign of life from time to time.
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

/// Waits for a forwarded request. When this node begins to drain meanwhile, it notifies the session's node once,
/// which then ends the wait soon. `None`: the wait did not end in time.
async fn until_leaving<A: Application, T>(
    server: &Server<A>,
    to: (NodeId, SocketAddr),
    sid: &str,
    passing: impl Future<Output = T>,
) -> Option<T> {
    let mut passing = std::pin::pin!(passing);
    let leaving = async {
        let spread = server.leaving().await;
        sleep(spread.mul_f64(f64::from(Uuid::new_v4().as_fields().0) / f64::from(u32::MAX))).await;
    };
    tokio::select! {
        passed = &mut passing => return Some(passed),
        () = leaving => {}
    }
    let target = format!("/socket.io/?sid={sid}");
    let notify = async {
        let cluster = server.cluster.as_ref()?;
        cluster.send(cluster.request(to, Method::DELETE, &target, Bytes::new())?).await.map(drop)
    };
    let notified = async { tokio::join!(notify, passing).1 };
    timeout(DRAIN_GRACE, notified).await.ok()
}

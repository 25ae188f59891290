//! Sessions of other gateways: a request for one is forwarded to the gateway that has it, in one hop and never twice.

mod node;
mod own;
mod passed;
mod seal;
mod tunnel;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::{
    CONNECTION, CONTENT_TYPE, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Response, StatusCode, Uri};
use confab_common::cluster_key::{ClusterKey, SigningKey};
use confab_common::grpc;
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use self::node::{Ids, Nodes};
use self::passed::{PASSAGE, Passed};
use self::seal::Sealer;
use super::Realtime;
use super::post::whole_payload;
use super::refusal::Refusal;
use crate::address::ClientAddress;
use crate::config::{ForwardConfig, OwnAddress};
use crate::edge::REQUEST_ID;
use crate::metrics::METRICS;
use crate::server::wire::{Fate, SETTLES_WITHIN};
use crate::server::{Place, Tally};

use node::NodeId;
pub use passed::Passage;
pub(super) use seal::Covers;

/// How long connecting to a gateway may take: TCP repeats a lost SYN after a second.
const CONNECT: Duration = Duration::from_millis(2500);
/// How long an idle connection is kept: shorter than its server keeps it.
const KEEP: Duration = Duration::from_secs(5);
/// While draining: how long forwarded requests and tunnels may still take once the session's gateway knows of the
/// drain.
const AFTER_TOLD: Duration = Duration::from_secs(5);
/// Carries the address of the request's client.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The request headers that the session's gateway needs.
const PASSED_ON: [HeaderName; 7] =
    [CONNECTION, UPGRADE, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, CONTENT_TYPE, REQUEST_ID];
/// The response headers that the client needs.
const PASSED_BACK: [HeaderName; 5] = [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, CONTENT_TYPE];

/// Checked settings for forwarding.
struct Settings {
    targets: Vec<String>,
    listen: SocketAddr,
    /// This gateway's address as other gateways see it; `None`: to be detected.
    own: Option<OwnAddress>,
    node_key: SigningKey,
    forward_key: SigningKey,
}

impl Settings {
    fn of(config: &ForwardConfig, key: Option<&ClusterKey>) -> anyhow::Result<Option<Self>> {
        let (Some(urls), Some(listen)) = (&config.gateway_url, config.forward_listen) else { return Ok(None) };
        let key = key.context("CONFAB_GATEWAY_URL needs CONFAB_CLUSTER_KEY: gateways authenticate one another with it")?;
        let own = config.forward_address.clone();
        own.as_ref().map_or(Ok(()), |own| own.check(listen.port()))?;
        let (node_key, forward_key) = (key.node.clone(), key.forward.clone());
        Ok(Some(Self { targets: grpc::targets(urls).context("CONFAB_GATEWAY_URL")?, listen, own, node_key, forward_key }))
    }
}

/// Checks the settings.
///
/// # Errors
/// When they are wrong.
pub fn check(config: &ForwardConfig, key: Option<&ClusterKey>) -> anyhow::Result<()> {
    Settings::of(config, key).map(drop)
}

/// Forwards requests to the other gateways.
pub struct Forward {
    own: Ids,
    nodes: Arc<Nodes>,
    sealer: Sealer,
    passed: Passed,
    http: Client<HttpConnector, Body>,
    /// How long a response may take: a GET waits until its session is pinged.
    patience: Duration,
}

impl Forward {
    /// Forwarding between the gateways that the settings name; `None` when they name none.
    ///
    /// # Errors
    /// When the settings are wrong, or this gateway cannot detect its own address.
    pub async fn open(config: &ForwardConfig, key: Option<&ClusterKey>, patience: Duration) -> anyhow::Result<Option<Self>> {
        let Some(Settings { targets, listen, own, node_key, forward_key }) = Settings::of(config, key)? else { return Ok(None) };
        let own = match own {
            Some(own) => own.resolve(listen.port()).await?,
            None if !listen.ip().is_unspecified() => listen,
            None => own::find(&targets, listen.port()).await?,
        };
        tracing::info!(%own, "other gateways reach this one");
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        // No request is sent twice: only one that a dead connection had not accepted yet goes over another connection.
        let http = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).pool_idle_timeout(KEEP).build(connector);
        let nodes = Nodes::find(targets, own, node_key);
        let (own, sealer) = (nodes.ids_of(own), Sealer::new(forward_key));
        Ok(Some(Self { own, nodes, sealer, passed: Passed::new(), http, patience }))
    }

    /// The node in the ids of this gateway's sessions.
    pub fn own(&self) -> &str {
        self.own.given_out().as_str()
    }

    /// The node of another gateway that issued this session id; `None` for our own ids and unknown ones.
    pub fn elsewhere(&self, sid: &str) -> Option<NodeId> {
        NodeId::of_session(sid).filter(|node| !self.own.contain(*node))
    }

    /// What the signature of a request from another gateway covers; `None` when it is not signed for this gateway.
    pub(super) async fn covers(&self, head: &Parts) -> Option<Covers> {
        self.sealer.verify(head, self.own()).await
    }

    /// A signed request to another gateway.
    fn request(&self, to: (NodeId, SocketAddr), method: Method, target: &str, body: Bytes) -> Option<Request> {
        let target = Sealer::mark(target);
        let uri = Uri::builder().scheme("http").authority(to.1.to_string()).path_and_query(target).build().ok()?;
        let signed = self.sealer.sign(to.0.as_str(), &method, &uri, &body);
        let mut request = Request::builder().method(method).uri(uri).body(body.into()).ok()?;
        *request.headers_mut() = signed;
        Some(request)
    }

    /// The whole response; `None` when there is none in time.
    async fn send(&self, request: Request) -> Option<(Response<Body>, hyper::upgrade::OnUpgrade)> {
        let exchange = async {
            let mut answer = self.http.request(request).await.inspect_err(|error| tracing::debug!(%error, "cannot forward")).ok()?;
            let upgrade = hyper::upgrade::on(&mut answer);
            let (head, body) = answer.into_parts();
            let mut back = Response::new(Body::from(body.collect().await.ok()?.to_bytes()));
            *back.status_mut() = head.status;
            for name in PASSED_BACK {
                if let Some(value) = head.headers.get(&name) {
                    back.headers_mut().insert(name, value.clone());
                }
            }
            Some((back, upgrade))
        };
        timeout(self.patience, exchange).await.ok().flatten()
    }

    /// What became of a response that this gateway forwarded, as a status for the gateway that asks.
    pub async fn fate_here(&self, sid: &str, number: u64) -> StatusCode {
        match self.passed.fate(sid, number).await {
            Fate::Delivered => StatusCode::NO_CONTENT,
            Fate::Lost => StatusCode::GONE,
            Fate::Unknown => StatusCode::NOT_FOUND,
        }
    }

    /// Asks the gateway that forwarded a response what became of it.
    pub async fn fate(&self, passage: Passage, sid: &str) -> Fate {
        let ask = async {
            let address = self.nodes.address_of(passage.node).await?;
            let target = format!("/socket.io/?sid={sid}&t={}", passage.number);
            self.send(self.request((passage.node, address), Method::HEAD, &target, Bytes::new())?).await
        };
        let answer = timeout(SETTLES_WITHIN * 2, ask).await.ok().flatten();
        match answer.map(|(answer, _)| answer.status()) {
            Some(StatusCode::NO_CONTENT) => Fate::Delivered,
            Some(StatusCode::GONE) => Fate::Lost,
            _ => Fate::Unknown,
        }
    }
}

/// Forwards a request to the gateway that has its session. The sessions of a gateway that is gone are gone, too.
pub async fn pass(
    edge: &Arc<Realtime>,
    forward: &Forward,
    node: NodeId,
    sid: &str,
    mut request: Request,
) -> Result<Response<Body>, Refusal> {
    let address = forward.nodes.address_of(node).await.ok_or(Refusal::UnknownSession)?;
    let place = request.extensions().get::<Place>().cloned();
    let another = match &place {
        Some(place) => Some(place.another().ok_or(Refusal::GoingAway)?),
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
            let arriving = whole_payload(body, edge.config.max_packet, held.as_mut());
            let body = while_alive(arriving, forward, (node, address), sid, edge.config.ping_timeout / 2).await;
            body.map_or_else(|refusal| (Bytes::new(), Some(refusal)), |body| (body, None))
        }
        _ => (Bytes::new(), None),
    };
    let mut onward = forward.request((node, address), head.method.clone(), target, body).ok_or(Refusal::BadRequest)?;
    for name in PASSED_ON {
        // Copied: the value is part of the buffer of the whole head, which is not kept while the session's gateway answers.
        if let Some(Ok(value)) = head.headers.get(&name).map(|value| HeaderValue::from_bytes(value.as_bytes())) {
            onward.headers_mut().insert(name, value);
        }
    }
    if let Some(Ok(address)) = head.extensions.get().map(|address: &ClientAddress| HeaderValue::try_from(address.to_string())) {
        onward.headers_mut().insert(FORWARDED_FOR, address);
    }
    let passage = forward.passed.next(*forward.own.given_out());
    onward.headers_mut().insert(PASSAGE, passage.header());
    drop(head);
    let answered = until_leaving(edge, (node, address), sid, forward.send(onward)).await;
    let (answer, owner) = answered.flatten().ok_or(Refusal::UnknownSession)?;
    if is_poll && let Some(tally) = tally {
        forward.passed.answered(sid, passage, tally.answer().clone()).await;
    }
    METRICS.forwarded.increment(1);
    if let Some(refusal) = refusal {
        return Err(refusal);
    }
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let (edge, sid) = (edge.clone(), Box::<str>::from(sid));
        edge.connections.clone().spawn(async move {
            let _places = (place, another);
            let (Ok(client), Ok(owner)) = tokio::join!(client, owner) else { return };
            METRICS.tunnels.increment(1);
            // Boxed, so that it is freed when the tunnel ends; the rest of this task is small.
            until_leaving(&edge, (node, address), &sid, tunnel::run(client, owner)).await;
            METRICS.tunnels.decrement(1);
        });
    }
    Ok(answer)
}

/// Waits for the body of a client's POST. Its session's gateway receives none of it yet, and the client answers no ping
/// meanwhile, so it gets a sign of life from time to time.
async fn while_alive<T>(arriving: impl Future<Output = T>, forward: &Forward, to: (NodeId, SocketAddr), sid: &str, every: Duration) -> T {
    let mut arriving = std::pin::pin!(arriving);
    let target = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
    loop {
        if let Ok(arrived) = timeout(every, &mut arriving).await {
            return arrived;
        }
        if let Some(sign) = forward.request(to, Method::PUT, &target, Bytes::new()) {
            tokio::select! {
                arrived = &mut arriving => return arrived,
                _ = forward.send(sign) => {}
            }
        }
    }
}

/// Waits for a forwarded request. When this gateway begins to drain meanwhile, it notifies the session's gateway once,
/// which then ends the wait soon. `None`: the wait did not end in time.
async fn until_leaving<T>(edge: &Realtime, to: (NodeId, SocketAddr), sid: &str, passing: impl Future<Output = T>) -> Option<T> {
    let mut passing = std::pin::pin!(passing);
    let leaving = async {
        let spread = edge.leaving().await;
        sleep(spread.mul_f64(f64::from(Uuid::new_v4().as_fields().0) / f64::from(u32::MAX))).await;
    };
    tokio::select! {
        passed = &mut passing => return Some(passed),
        () = leaving => {}
    }
    let target = format!("/socket.io/?sid={sid}");
    let tell = async {
        let forward = edge.forward.as_ref()?;
        forward.send(forward.request(to, Method::DELETE, &target, Bytes::new())?).await.map(drop)
    };
    let told = async { tokio::join!(tell, passing).1 };
    timeout(AFTER_TOLD, told).await.ok()
}

#[cfg(test)]
#[path = "forward/tests.rs"]
mod tests;

//! Sessions of other nodes. A node proxies a request to the node that owns the session, in one hop and at most once.

mod node;
mod proxied;
mod signature;
pub(crate) mod tunnel;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::{CONNECTION, CONTENT_TYPE, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use axum::http::request::Parts;
use axum::http::{Method, Response, StatusCode, Uri};
use confab_common::cluster_key::SigningKey;
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;

use self::node::{Ids, Nodes};
use self::proxied::Proxied;
use self::signature::Signer;
use crate::net::wire::{Answer, Outcome, SETTLES_WITHIN};
use crate::passage::{NodeId, Passage};

pub use signature::Covers;

/// The time limit for connecting to a node. TCP repeats a lost SYN after 1 s.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(2500);
/// How long an idle connection is kept, less than its server keeps it.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// The response headers that the client needs.
const PROXIED_RESPONSE_HEADERS: [HeaderName; 5] =
    [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, CONTENT_TYPE];

/// The settings of a node in a cluster.
pub struct ClusterConfig {
    /// The addresses of all nodes, including this one, as `host:port`. All addresses that a name resolves to are nodes.
    pub targets: Vec<String>,
    /// The address of this node's [`cluster_routes`](crate::cluster_routes), as the other nodes reach it.
    pub own: SocketAddr,
    /// The key that derives node ids from addresses. All nodes have the same key.
    pub node_key: SigningKey,
    /// The key that signs requests between nodes. All nodes have the same key.
    pub signing_key: SigningKey,
    /// The longest time until another node answers. It must exceed the ping interval, because a GET waits for the next
    /// ping.
    pub answers_within: Duration,
}

/// Proxies requests to the other nodes of a cluster.
pub struct Cluster {
    own: Ids,
    nodes: Arc<Nodes>,
    signer: Signer,
    proxied: Proxied,
    http: Client<HttpConnector, Body>,
    /// The time limit for a response.
    answers_within: Duration,
}

impl Cluster {
    /// Starts to resolve the names of the nodes, repeatedly. Call this within a Tokio runtime.
    pub fn start(config: ClusterConfig) -> Self {
        let ClusterConfig { targets, own, node_key, signing_key, answers_within } = config;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        // No request is sent twice. Only a request that a dead connection has not accepted goes over another
        // connection.
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .build(connector);
        let nodes = Nodes::find(targets, own, node_key);
        let (own, signer) = (nodes.ids_of(own), Signer::new(signing_key));
        Self { own, nodes, signer, proxied: Proxied::new(), http, answers_within }
    }

    /// The id of this node, which begins the ids of its sessions: 8 characters.
    pub fn own(&self) -> &str {
        self.own.issued().as_str()
    }

    /// The other node that issued this session id; `None` for ids of this node and malformed ids.
    pub fn elsewhere(&self, sid: &str) -> Option<NodeId> {
        NodeId::of_session(sid).filter(|node| !self.own.contain(*node))
    }

    /// Verifies the signature of a request from another node. Returns the parts that it covers; `None` when the request
    /// is not signed for this node.
    pub async fn covers(&self, head: &Parts) -> Option<Covers> {
        self.signer.verify(head, self.own()).await
    }

    /// The address of another node; `None` when the node, and with it its sessions, no longer exists.
    pub async fn address_of(&self, node: NodeId) -> Option<SocketAddr> {
        self.nodes.address_of(node).await
    }

    /// Creates the identification of the next GET that this node proxies.
    pub fn next_passage(&self) -> Passage {
        self.proxied.next(*self.own.issued())
    }

    /// Stores the answer to a proxied GET before it is sent, in case the session's node requests its outcome.
    pub async fn answered(&self, sid: &str, passage: Passage, answer: Answer) {
        self.proxied.answered(sid, passage, answer).await;
    }

    /// Creates a signed request to another node; `None` when `target` is not a valid path.
    pub fn request(&self, to: (NodeId, SocketAddr), method: Method, target: &str, body: Bytes) -> Option<Request> {
        let target = Signer::mark(target);
        let uri = Uri::builder().scheme("http").authority(to.1.to_string()).path_and_query(target).build().ok()?;
        let signed = self.signer.sign(to.0.as_str(), &method, &uri, &body);
        let mut request = Request::builder().method(method).uri(uri).body(body.into()).ok()?;
        *request.headers_mut() = signed;
        Some(request)
    }

    /// Sends a request and reads the complete response; `None` when the request fails or the time limit passes.
    pub async fn send(&self, request: Request) -> Option<(Response<Body>, hyper::upgrade::OnUpgrade)> {
        let exchange = async {
            let sent = self.http.request(request).await;
            let mut answer = sent.inspect_err(|error| tracing::debug!(%error, "cannot proxy a request")).ok()?;
            let upgrade = hyper::upgrade::on(&mut answer);
            let (head, body) = answer.into_parts();
            let mut back = Response::new(Body::from(body.collect().await.ok()?.to_bytes()));
            *back.status_mut() = head.status;
            for name in PROXIED_RESPONSE_HEADERS {
                if let Some(value) = head.headers.get(&name) {
                    back.headers_mut().insert(name, value.clone());
                }
            }
            Some((back, upgrade))
        };
        timeout(self.answers_within, exchange).await.ok().flatten()
    }

    /// The outcome of a response that this node proxied, as the status for the session's node: 204 delivered, 410 lost,
    /// 404 unknown.
    pub async fn outcome_here(&self, sid: &str, number: u64) -> StatusCode {
        match self.proxied.outcome(sid, number).await {
            Outcome::Delivered => StatusCode::NO_CONTENT,
            Outcome::Lost => StatusCode::GONE,
            Outcome::Unknown => StatusCode::NOT_FOUND,
        }
    }

    /// Requests the outcome of a response from the node that proxied it. Waits at most 2 s.
    pub async fn outcome(&self, passage: Passage, sid: &str) -> Outcome {
        let ask = async {
            let address = self.nodes.address_of(passage.node).await?;
            let target = format!("/socket.io/?sid={sid}&t={}", passage.number);
            self.send(self.request((passage.node, address), Method::HEAD, &target, Bytes::new())?).await
        };
        let answer = timeout(SETTLES_WITHIN * 2, ask).await.ok().flatten();
        match answer.map(|(answer, _)| answer.status()) {
            Some(StatusCode::NO_CONTENT) => Outcome::Delivered,
            Some(StatusCode::GONE) => Outcome::Lost,
            _ => Outcome::Unknown,
        }
    }
}

#[cfg(test)]
mod tests;

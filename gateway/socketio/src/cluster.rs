//! Sessions of other nodes: a request for one is forwarded to the node that has it, in one hop and never twice.

mod node;
mod passed;
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
use self::passed::Passed;
use self::signature::Signer;
use crate::net::wire::{Answer, Fate, SETTLES_WITHIN};
use crate::passage::{NodeId, Passage};

pub use signature::Covers;

/// How long connecting to a node may take: TCP repeats a lost SYN after a second.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(2500);
/// How long an idle connection is kept: shorter than its server keeps it.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// The response headers that the client needs.
const PASSED_BACK: [HeaderName; 5] = [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, CONTENT_TYPE];

/// The settings of a node.
pub struct ClusterConfig {
    /// The `host:port`s of all nodes, including this one; all addresses of a name are used.
    pub targets: Vec<String>,
    /// This node's address, as the others reach it.
    pub own: SocketAddr,
    /// Derives node ids from addresses; the same for all nodes.
    pub node_key: SigningKey,
    /// Signs requests between nodes; the same for all nodes.
    pub signing_key: SigningKey,
    /// The longest time to an answer of another node: a GET waits until its session is pinged.
    pub answers_within: Duration,
}

/// Forwards requests to the other nodes.
pub struct Cluster {
    own: Ids,
    nodes: Arc<Nodes>,
    signer: Signer,
    passed: Passed,
    http: Client<HttpConnector, Body>,
    /// How long a response may take: a GET waits until its session is pinged.
    answers_within: Duration,
}

impl Cluster {
    /// Starts to resolve the nodes. Must be called within a Tokio runtime.
    pub fn start(config: ClusterConfig) -> Self {
        let ClusterConfig { targets, own, node_key, signing_key, answers_within } = config;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        // No request is sent twice: only one that a dead connection had not accepted yet goes over another connection.
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .build(connector);
        let nodes = Nodes::find(targets, own, node_key);
        let (own, signer) = (nodes.ids_of(own), Signer::new(signing_key));
        Self { own, nodes, signer, passed: Passed::new(), http, answers_within }
    }

    /// The node in the ids of this node's sessions.
    pub fn own(&self) -> &str {
        self.own.issued().as_str()
    }

    /// The node of another node that issued this session id; `None` for our own ids and unknown ones.
    pub fn elsewhere(&self, sid: &str) -> Option<NodeId> {
        NodeId::of_session(sid).filter(|node| !self.own.contain(*node))
    }

    /// What the signature of a request from another node covers; `None` when it is not signed for this node.
    pub async fn covers(&self, head: &Parts) -> Option<Covers> {
        self.signer.verify(head, self.own()).await
    }

    /// The address of another node; `None` when the node is gone, and its sessions with it.
    pub async fn address_of(&self, node: NodeId) -> Option<SocketAddr> {
        self.nodes.address_of(node).await
    }

    /// A passage for the next GET through this node.
    pub fn next_passage(&self) -> Passage {
        self.passed.next(*self.own.issued())
    }

    /// Remembers the answer to a GET that is about to be given, in case its session's node asks what became of it.
    pub async fn answered(&self, sid: &str, passage: Passage, answer: Answer) {
        self.passed.answered(sid, passage, answer).await;
    }

    /// A signed request to another node.
    pub fn request(&self, to: (NodeId, SocketAddr), method: Method, target: &str, body: Bytes) -> Option<Request> {
        let target = Signer::mark(target);
        let uri = Uri::builder().scheme("http").authority(to.1.to_string()).path_and_query(target).build().ok()?;
        let signed = self.signer.sign(to.0.as_str(), &method, &uri, &body);
        let mut request = Request::builder().method(method).uri(uri).body(body.into()).ok()?;
        *request.headers_mut() = signed;
        Some(request)
    }

    /// The whole response; `None` when there is none in time.
    pub async fn send(&self, request: Request) -> Option<(Response<Body>, hyper::upgrade::OnUpgrade)> {
        let exchange = async {
            let mut answer =
                self.http.request(request).await.inspect_err(|error| tracing::debug!(%error, "cannot forward")).ok()?;
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
        timeout(self.answers_within, exchange).await.ok().flatten()
    }

    /// What became of a response that this node forwarded, as a status for the node that asks.
    pub async fn fate_here(&self, sid: &str, number: u64) -> StatusCode {
        match self.passed.fate(sid, number).await {
            Fate::Delivered => StatusCode::NO_CONTENT,
            Fate::Lost => StatusCode::GONE,
            Fate::Unknown => StatusCode::NOT_FOUND,
        }
    }

    /// Asks the node that forwarded a response what became of it.
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

#[cfg(test)]
mod tests;

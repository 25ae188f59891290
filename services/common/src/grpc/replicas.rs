//! The replicas of a service, in the order in which a call tries them.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::discovery::Discovery;
use super::tls::Connector;
use super::{CONNECTION_WINDOW, FRAME, STREAM_WINDOW};

/// How long a replica is avoided after a failed connection.
const AVOID_DEAD: Duration = Duration::from_secs(1);
/// Time limit of a TCP handshake.
const TCP_LIMIT: Duration = Duration::from_secs(1);
/// How long a replica is avoided after it missed a time limit.
const AVOID_SLOW: Duration = Duration::from_secs(5);

pub(super) struct Replicas {
    known: Arc<Discovery<Arc<Replica>>>,
    turn: AtomicUsize,
    start: Instant,
}

pub(super) struct Replica {
    pub address: SocketAddr,
    /// The connection for calls.
    pub channel: Channel,
    /// A separate connection for streams, so that no call waits behind a stream.
    pub streams: Channel,
    /// Until when calls prefer other replicas, in milliseconds since the start of [`Replicas`].
    avoid_until: AtomicU64,
}

impl Replicas {
    /// Starts resolving the replicas at these `host:port`s. With a connector, calls use TLS.
    pub fn find(targets: Vec<String>, connector: Option<Connector>) -> Arc<Self> {
        Arc::new(Self {
            known: Discovery::start(targets, move |address| Replica::new(address, connector.as_ref())),
            turn: AtomicUsize::new(0),
            start: Instant::now(),
        })
    }

    /// Waits up to `patience` until the first replica is found.
    pub async fn found(&self, patience: Duration) {
        self.known.look(patience.min(AVOID_DEAD), |known| known.find(|_| true)).await;
    }

    /// Returns all replicas in the order of preference: working replicas before those that failed recently. Within each
    /// group the key decides (rendezvous hashing); without a key, replicas take turns.
    pub fn candidates(&self, key: Option<u64>) -> Vec<Arc<Replica>> {
        let mut list = self.known.list();
        if list.len() > 1 {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % list.len();
            list.rotate_left(turn);
            if let Some(key) = key {
                list.sort_by_cached_key(|replica| {
                    Reverse(xxh3_64_with_seed(replica.address.to_string().as_bytes(), key))
                });
            }
            let now = self.now();
            list.sort_by_key(|replica| replica.avoid_until.load(Ordering::Relaxed) > now);
        }
        list
    }

    /// Records that a replica answered.
    pub fn mark_working(&self, replica: &Replica) {
        replica.avoid_until.store(0, Ordering::Relaxed);
    }

    /// Records that a replica rejects calls for now.
    pub fn mark_unavailable(&self, replica: &Replica) {
        self.avoid(replica, AVOID_DEAD);
    }

    /// Records that a replica is unreachable, and resolves the names again.
    pub fn mark_unreachable(&self, replica: &Replica) {
        self.avoid(replica, AVOID_DEAD);
        self.known.refresh();
    }

    /// Records that a replica did not answer in time.
    pub fn mark_slow(&self, replica: &Replica) {
        self.avoid(replica, AVOID_SLOW);
    }

    fn avoid(&self, replica: &Replica, time: Duration) {
        replica.avoid_until.store(self.now() + time.as_millis() as u64, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
}

impl Replica {
    fn new(address: SocketAddr, connector: Option<&Connector>) -> anyhow::Result<Arc<Self>> {
        let scheme = if connector.is_some() { "https" } else { "http" };
        // The connector starts TLS, so the endpoint itself has none. The origin is what the calls name.
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .origin(format!("{scheme}://{address}").parse()?)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME);
        // Both connections are made on first use.
        let connect = || match connector {
            Some(connector) => connector.channel(endpoint.clone(), address),
            None => endpoint.clone().connect_timeout(TCP_LIMIT).connect_lazy(),
        };
        let (channel, streams) = (connect(), connect());
        Ok(Arc::new(Self { address, channel, streams, avoid_until: AtomicU64::new(0) }))
    }
}

//! The replicas of a service: found by DNS or from a list, and resolved again every few seconds; those that recently
//! failed come last.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{CONNECTION_WINDOW, FRAME, STREAM_WINDOW};

/// How often names are resolved.
const RESOLVE_EVERY: Duration = Duration::from_secs(5);
/// How long a replica is avoided after a failed connection.
const AVOID_DEAD: Duration = Duration::from_secs(1);
/// How long a replica is avoided after it did not answer in time.
const AVOID_SLOW: Duration = Duration::from_secs(5);

pub(super) struct Replicas {
    targets: Vec<String>,
    // A std lock: held for a copy of the list, never across an await.
    known: Mutex<Vec<Arc<Replica>>>,
    turn: AtomicUsize,
    start: Instant,
    resolve: Notify,
    resolved: Notify,
}

pub(super) struct Replica {
    pub address: SocketAddr,
    /// For calls.
    pub channel: Channel,
    /// For streams, on a separate connection: however many there are, no call waits behind them.
    pub streams: Channel,
    /// Milliseconds since the start of [`Replicas`] until which other replicas are preferred.
    avoid_until: AtomicU64,
    /// Resolutions in a row that did not contain it.
    absences: AtomicU64,
}

impl Replicas {
    /// Starts looking for the replicas at these `host:port`s.
    pub fn find(targets: Vec<String>) -> Arc<Self> {
        let replicas = Arc::new(Self {
            targets,
            known: Mutex::default(),
            turn: AtomicUsize::new(0),
            start: Instant::now(),
            resolve: Notify::new(),
            resolved: Notify::new(),
        });
        tokio::spawn(keep_resolving(Arc::downgrade(&replicas)));
        replicas
    }

    /// Waits up to `patience` for the first replica.
    pub async fn found(&self, patience: Duration) {
        let mut resolved = pin!(self.resolved.notified());
        resolved.as_mut().enable();
        if self.list().is_empty() {
            self.resolve.notify_one();
            let _ = tokio::time::timeout(patience.min(AVOID_DEAD), resolved).await;
        }
    }

    /// All replicas, the preferred one first: working replicas before those that recently failed, then by the key's
    /// preference (rendezvous hashing), or in turn if there is no key.
    pub fn candidates(&self, key: Option<u64>) -> Vec<Arc<Replica>> {
        let mut list = self.list();
        if list.len() > 1 {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % list.len();
            list.rotate_left(turn);
            if let Some(key) = key {
                list.sort_by_cached_key(|replica| Reverse(xxh3_64_with_seed(replica.address.to_string().as_bytes(), key)));
            }
            let now = self.now();
            list.sort_by_key(|replica| replica.avoid_until.load(Ordering::Relaxed) > now);
        }
        list
    }

    /// Records that a replica answered.
    pub fn works(&self, replica: &Replica) {
        replica.avoid_until.store(0, Ordering::Relaxed);
    }

    /// Records that a replica refuses calls for now.
    pub fn refuses(&self, replica: &Replica) {
        self.avoid(replica, AVOID_DEAD);
    }

    /// Records that a replica cannot be reached, and resolves the names again.
    pub fn is_gone(&self, replica: &Replica) {
        self.avoid(replica, AVOID_DEAD);
        self.resolve.notify_one();
    }

    /// Records that a replica did not answer in time.
    pub fn is_slow(&self, replica: &Replica) {
        self.avoid(replica, AVOID_SLOW);
    }

    fn avoid(&self, replica: &Replica, time: Duration) {
        replica.avoid_until.store(self.now() + time.as_millis() as u64, Ordering::Relaxed);
    }

    fn list(&self) -> Vec<Arc<Replica>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
}

impl Replica {
    fn new(address: SocketAddr) -> anyhow::Result<Arc<Self>> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(Duration::from_secs(1))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME);
        // Both connect on first use.
        let (channel, streams) = (endpoint.connect_lazy(), endpoint.connect_lazy());
        Ok(Arc::new(Self { address, channel, streams, avoid_until: AtomicU64::new(0), absences: AtomicU64::new(0) }))
    }
}

async fn keep_resolving(replicas: Weak<Replicas>) {
    while let Some(replicas) = replicas.upgrade() {
        let mut addresses = Vec::new();
        for target in &replicas.targets {
            match tokio::net::lookup_host(target).await {
                Ok(found) => addresses.extend(found),
                Err(error) => tracing::debug!(%target, %error, "cannot resolve"),
            }
        }
        update(&mut replicas.known.lock().unwrap_or_else(PoisonError::into_inner), addresses);
        replicas.resolved.notify_waiters();
        let asked = replicas.clone();
        drop(replicas);
        let _ = tokio::time::timeout(RESOLVE_EVERY, asked.resolve.notified()).await;
        // The least time between two resolutions, however many calls fail.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Adds new addresses and removes those missing twice; keeps the last set when a resolution is empty.
fn update(known: &mut Vec<Arc<Replica>>, mut addresses: Vec<SocketAddr>) {
    if addresses.is_empty() {
        return;
    }
    addresses.sort();
    addresses.dedup();
    known.retain(|replica| {
        let absences = if addresses.contains(&replica.address) { 0 } else { replica.absences.load(Ordering::Relaxed) + 1 };
        replica.absences.store(absences, Ordering::Relaxed);
        absences < 2
    });
    for address in addresses {
        if !known.iter().any(|replica| replica.address == address) {
            known.extend(Replica::new(address).inspect_err(|error| tracing::warn!(%address, %error, "unusable address")));
        }
    }
    known.sort_by_key(|replica| replica.address);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_replica_leaves_after_two_absences_and_never_the_last_ones() {
        let (a, b) = ("127.0.0.1:1".parse().unwrap(), "127.0.0.2:1".parse().unwrap());
        let mut known = Vec::new();
        update(&mut known, vec![a, b]);
        update(&mut known, vec![b]);
        assert_eq!(known.len(), 2);
        update(&mut known, vec![b]);
        assert_eq!(known.len(), 1);
        update(&mut known, vec![]);
        assert_eq!(known[0].address, b);
    }
}

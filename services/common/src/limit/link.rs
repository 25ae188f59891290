//! The connection to Redis, and whether Redis answers. A task opens the connection, probes it, and replaces it after a
//! failure, so that no check waits for a Redis that is known to be away.

use std::sync::Arc;
use std::time::Duration;

use metrics::Gauge;
use parking_lot::Mutex;
use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::gcra::{Charge, Outcome};
use super::script;
use crate::bus::RedisAddress;

/// The beginning of every key. Its hash tag puts all buckets into one slot of a cluster, so one connection reaches all
/// of them.
pub const PREFIX: &str = "confab.rl.{all}.";
/// The shortest time between a failure and the next attempt.
const RETRY: Duration = Duration::from_secs(1);
/// How often an idle connection is probed.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// A probe writes, because a server that has become a replica can only read.
const PROBE: Charge = Charge { cost: 1, size: 1_000_000, most: 1_000_000 };

pub struct Link {
    state: Arc<State>,
    _maintenance: AbortOnDropHandle<()>,
}

struct State {
    /// The connection, or why there is none. Locked to read or replace it, never across an await.
    connection: Mutex<Result<Open, String>>,
    failed: Notify,
    /// How long Redis may take to answer.
    limit: Duration,
    is_shared: Gauge,
}

#[derive(Clone)]
struct Open {
    connection: MultiplexedConnection,
    number: u64,
}

impl Link {
    /// Starts to connect to this address.
    pub fn open(address: RedisAddress, limit: Duration, is_shared: Gauge) -> Self {
        is_shared.set(0.0);
        let connection = Mutex::new(Err("not connected yet".to_owned()));
        let state = Arc::new(State { connection, failed: Notify::new(), limit, is_shared });
        let maintenance = tokio::spawn(maintain(state.clone(), address));
        Self { state, _maintenance: AbortOnDropHandle::new(maintenance) }
    }

    pub fn is_open(&self) -> bool {
        self.state.connection.lock().is_ok()
    }

    /// Charges the bucket at a key. Returns `None` if Redis is away, or does not answer in time: then Redis may have
    /// charged or not.
    pub async fn charge(&self, key: &str, charge: Charge) -> Option<Outcome> {
        self.state.charge(key, charge).await
    }
}

impl State {
    async fn charge(&self, key: &str, charge: Charge) -> Option<Outcome> {
        let mut open = self.connection.lock().clone().ok()?;
        let answer = timeout(self.limit, script::charge(&mut open.connection, key, charge)).await;
        match answered(answer) {
            Ok(outcome) => Some(outcome),
            Err(why) => {
                self.close(open.number, why);
                None
            }
        }
    }

    fn open(&self, connection: MultiplexedConnection, number: u64) {
        *self.connection.lock() = Ok(Open { connection, number });
        self.is_shared.set(1.0);
    }

    /// Gives up a connection, unless another has replaced it.
    fn close(&self, number: u64, why: String) {
        let mut connection = self.connection.lock();
        if connection.as_ref().is_ok_and(|open| open.number == number) {
            *connection = Err(why);
            self.is_shared.set(0.0);
            self.failed.notify_one();
        }
    }

    /// Probes the open connection until it fails. Returns why.
    async fn until_failure(&self) -> String {
        loop {
            if let Err(why) = &*self.connection.lock() {
                return why.clone();
            }
            if timeout(PROBE_EVERY, self.failed.notified()).await.is_err() {
                self.charge(&probe_key(), PROBE).await;
            }
        }
    }
}

async fn maintain(state: Arc<State>, address: RedisAddress) {
    // An outage is logged once, not at every attempt.
    let mut is_logged = false;
    for number in 0.. {
        let why = match connect(&address, state.limit).await {
            Ok(connection) => {
                state.open(connection, number);
                if std::mem::take(&mut is_logged) {
                    tracing::info!("Redis answers again; the replicas share their rate limits");
                }
                state.until_failure().await
            }
            Err(why) => why,
        };
        if !std::mem::replace(&mut is_logged, true) {
            tracing::warn!(why, "Redis cannot count rate limits; each replica applies them alone");
        }
        sleep(RETRY).await;
    }
}

/// Connects to the server with the buckets: in a cluster, the node that owns their slot.
async fn connect(address: &RedisAddress, limit: Duration) -> Result<MultiplexedConnection, String> {
    let mut connection = address.connection(None).await?;
    let key = probe_key();
    let mut probed = timeout(limit, script::charge(&mut connection, &key, PROBE)).await;
    if let Ok(Err(error)) = &probed
        && let Some((node, _)) = error.redirect_node()
    {
        connection = address.connection(Some(node)).await?;
        probed = timeout(limit, script::charge(&mut connection, &key, PROBE)).await;
    }
    answered(probed).map(|_| connection)
}

fn answered<T, E>(answer: Result<RedisResult<T>, E>) -> Result<T, String> {
    match answer {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("Redis does not answer in time".into()),
    }
}

fn probe_key() -> String {
    format!("{PREFIX}probe")
}

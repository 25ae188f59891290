//! The bus: live hints between processes. Hints may be lost. `local:` works within one process, `redis://…` between
//! processes.
//!
//! Correctness never depends on the bus. Its only promise: after [`Notice::Up`] and until [`Notice::Down`] a listener
//! receives every message published on its subscribed channels, except messages dropped because the listener reads too
//! slowly.

mod local;
mod redis;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use futures::future::BoxFuture;
use metrics::Gauge;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::Secret;
use crate::cluster_key::SigningKey;
use crate::metrics::BUS;

pub(crate) use self::redis::Address as RedisAddress;

/// Largest payload that the bus publishes or accepts, in bytes (4 MiB).
pub const MAX_PAYLOAD: usize = 4 * 1024 * 1024;

/// Notices queued for one listener; further messages are dropped and counted.
const LISTENER_QUEUE: usize = 4096;

/// Longest time that a process waits for its last publications at shutdown.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct Bus(Arc<dyn Implementation>);

trait Implementation: Send + Sync {
    fn publish(&self, channel: String, payload: Bytes);
    fn listen(&self, commands: mpsc::UnboundedReceiver<Command>, notices: mpsc::Sender<Notice>);
    /// Completes when every earlier publication has been sent or dropped.
    fn flush(&self) -> BoxFuture<'_, ()>;
    /// The Redis that carries the bus, if it is Redis.
    fn redis(&self) -> Option<RedisAddress> {
        None
    }
}

/// A notice that a listener receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    Message {
        channel: Arc<str>,
        payload: Bytes,
    },
    /// Messages arrive from now on; earlier messages may have been missed.
    Up,
    /// Messages cannot arrive until the next [`Notice::Up`].
    Down,
}

enum Command {
    Subscribe(String, oneshot::Sender<()>),
    Unsubscribe(String),
}

#[derive(Clone)]
pub struct Subscriptions(mpsc::UnboundedSender<Command>);

pub struct Notices(mpsc::Receiver<Notice>);

impl Bus {
    /// Opens the bus at a URL: `local:`, `redis://…` or `rediss://…`. With a `key`, messages without a valid signature
    /// are dropped.
    ///
    /// # Errors
    /// When the URL has none of these forms. An unreachable Redis is not an error.
    pub fn open(url: &Secret, key: Option<&SigningKey>) -> anyhow::Result<Self> {
        LazyLock::force(&BUS);
        Ok(match address(url)? {
            None => Self(Arc::new(local::Local::default())),
            Some(address) => Self(Arc::new(redis::Redis::open(address, key))),
        })
    }

    /// Checks whether [`Bus::open`] would fail, without connecting.
    ///
    /// # Errors
    /// When the URL has none of these forms.
    pub fn check(url: &Secret) -> anyhow::Result<()> {
        address(url).map(drop)
    }

    /// Publishes without waiting. The message is dropped and counted when the bus is unreachable, its queue is full, or
    /// the payload exceeds [`MAX_PAYLOAD`].
    pub fn publish(&self, channel: impl Into<String>, payload: impl Into<Bytes>) {
        let payload = payload.into();
        if payload.len() > MAX_PAYLOAD {
            return dropped("too_large", 1);
        }
        BUS.published.increment(1);
        self.0.publish(channel.into(), payload);
    }

    /// Waits until all earlier publications have reached the bus, at most one second. A process calls it before it
    /// exits, or it would lose its last publications.
    pub async fn flush(&self) {
        if timeout(FLUSH_LIMIT, self.0.flush()).await.is_err() {
            tracing::warn!("the bus did not accept the last publications in time");
        }
    }

    /// The Redis that carries the bus, for other uses between the same processes. `None` within one process.
    pub(crate) fn redis(&self) -> Option<RedisAddress> {
        self.0.redis()
    }

    /// Creates a listener without channels. The listener ends when both halves are dropped.
    pub fn listen(&self) -> (Subscriptions, Notices) {
        let (commands, command_queue) = mpsc::unbounded_channel();
        let (notices, notice_queue) = mpsc::channel(LISTENER_QUEUE);
        self.0.listen(command_queue, notices);
        (Subscriptions(commands), Notices(notice_queue))
    }
}

/// Returns the Redis address in a URL, or `None` for the bus within the process.
fn address(url: &Secret) -> anyhow::Result<Option<RedisAddress>> {
    if url.expose() == "local:" {
        return Ok(None);
    }
    let address = RedisAddress::parse(url.expose()).map_err(|why| anyhow!("CONFAB_BUS {why:#}"))?;
    address.context("CONFAB_BUS must be local:, redis://…, rediss://… or redis+sentinel://…").map(Some)
}

impl Subscriptions {
    /// Subscribes now and after each reconnect. Completes when the subscription is confirmed: immediately if it exists,
    /// late or never while the bus is down. Callers must therefore bound their wait.
    pub async fn subscribe(&self, channel: impl Into<String>) {
        let (confirm, confirmed) = oneshot::channel();
        let _ = self.0.send(Command::Subscribe(channel.into(), confirm));
        let _ = confirmed.await;
    }

    /// Unsubscribes; messages in transit may still arrive.
    pub fn unsubscribe(&self, channel: impl Into<String>) {
        let _ = self.0.send(Command::Unsubscribe(channel.into()));
    }
}

impl Notices {
    /// Waits for the next notice; returns `None` when the bus has ended.
    pub async fn next(&mut self) -> Option<Notice> {
        self.0.recv().await
    }
}

/// Queues a message for a listener, or drops the message when the listener's queue is full.
fn offer(notices: &mpsc::Sender<Notice>, channel: Arc<str>, payload: Bytes) {
    BUS.received.increment(1);
    if notices.try_send(Notice::Message { channel, payload }).is_err() {
        dropped("slow_listener", 1);
    }
}

/// Counts messages dropped by a publisher or a listener.
pub fn dropped(reason: &'static str, count: u64) {
    BUS.dropped.add(reason, count);
}

/// A listener in the gauge of listeners that are up, or of those that are down.
struct ListenerState(bool);

impl ListenerState {
    fn begin(up: bool) -> Self {
        Self::gauge(up).increment(1);
        Self(up)
    }

    fn set(&mut self, up: bool) {
        *self = Self::begin(up);
    }

    fn gauge(up: bool) -> &'static Gauge {
        if up { &BUS.up } else { &BUS.down }
    }
}

impl Drop for ListenerState {
    fn drop(&mut self) {
        Self::gauge(self.0).decrement(1);
    }
}

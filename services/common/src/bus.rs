//! The bus: live hints between processes that may be lost. `local:` within one process, `redis://…` between many.
//!
//! Correctness never depends on it. It promises this: a listener that has received [`Notice::Up`] receives, until
//! [`Notice::Down`], everything published on its subscribed channels, except what it was too slow to take.

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

/// Largest payload that is published or accepted, in bytes.
pub const MAX_PAYLOAD: usize = 4 * 1024 * 1024;

/// Notices that may wait for a listener; beyond that messages are dropped and counted.
const LISTENER_QUEUE: usize = 4096;

/// Longest that a process waits at its end for its publications to be handed over.
const FLUSH: Duration = Duration::from_secs(1);

/// A handle to the bus; clones share it.
#[derive(Clone)]
pub struct Bus(Arc<dyn Implementation>);

trait Implementation: Send + Sync {
    fn publish(&self, channel: String, payload: Bytes);
    fn listen(&self, commands: mpsc::UnboundedReceiver<Command>, notices: mpsc::Sender<Notice>);
    /// Completes when every earlier publication has been handed over or dropped.
    fn flush(&self) -> BoxFuture<'_, ()>;
}

/// A notice to a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A message was published.
    Message {
        /// Its channel.
        channel: Arc<str>,
        /// Its payload.
        payload: Bytes,
    },
    /// The bus can be received from now on; everything before may have been missed.
    Up,
    /// The bus cannot be received.
    Down,
}

enum Command {
    Subscribe(String, oneshot::Sender<()>),
    Unsubscribe(String),
}

/// The channels of one listener.
#[derive(Clone)]
pub struct Subscriptions(mpsc::UnboundedSender<Command>);

/// The notices to one listener.
pub struct Notices(mpsc::Receiver<Notice>);

impl Bus {
    /// The bus at a URL: `local:`, `redis://…` or `rediss://…`. With `key`, messages without its signature are dropped.
    ///
    /// # Errors
    /// When the URL is none of these. A Redis that is not reachable yet is no error.
    pub fn open(url: &Secret, key: Option<&SigningKey>) -> anyhow::Result<Self> {
        LazyLock::force(&BUS);
        Ok(match address(url)? {
            None => Self(Arc::new(local::Local::default())),
            Some(address) => Self(Arc::new(redis::Redis::open(address, key))),
        })
    }

    /// Checks whether [`Bus::open`] would fail, without opening anything.
    ///
    /// # Errors
    /// When the URL is none of these.
    pub fn check(url: &Secret) -> anyhow::Result<()> {
        address(url).map(drop)
    }

    /// Publishes without waiting; if the bus is away, its queue full or the payload too large, the message is dropped
    /// and counted.
    pub fn publish(&self, channel: impl Into<String>, payload: impl Into<Bytes>) {
        let payload = payload.into();
        if payload.len() > MAX_PAYLOAD {
            return dropped("too_large", 1);
        }
        BUS.published.increment(1);
        self.0.publish(channel.into(), payload);
    }

    /// Waits until all earlier publications have reached the bus, but at most a second: for a process that ends, whose
    /// last publications would otherwise be lost.
    pub async fn flush(&self) {
        if timeout(FLUSH, self.0.flush()).await.is_err() {
            tracing::warn!("the bus did not accept the last publications in time");
        }
    }

    /// A new listener without channels; it ends when both halves are dropped.
    pub fn listen(&self) -> (Subscriptions, Notices) {
        let (commands, command_queue) = mpsc::unbounded_channel();
        let (notices, notice_queue) = mpsc::channel(LISTENER_QUEUE);
        self.0.listen(command_queue, notices);
        (Subscriptions(commands), Notices(notice_queue))
    }
}

/// The Redis in a URL, or `None` for a bus within the process.
fn address(url: &Secret) -> anyhow::Result<Option<redis::Address>> {
    if url.expose() == "local:" {
        return Ok(None);
    }
    let address = redis::Address::parse(url.expose()).map_err(|why| anyhow!("CONFAB_BUS {why:#}"))?;
    address.context("CONFAB_BUS must be local:, redis://…, rediss://… or redis+sentinel://…").map(Some)
}

impl Subscriptions {
    /// Subscribes now and whenever the bus comes back. Completes when the subscription is confirmed: at once if it
    /// exists already, late or never while the bus is down, so callers must bound their wait.
    pub async fn subscribe(&self, channel: impl Into<String>) {
        let (confirm, confirmed) = oneshot::channel();
        let _ = self.0.send(Command::Subscribe(channel.into(), confirm));
        let _ = confirmed.await;
    }

    /// Ends a subscription; messages in transit may still arrive.
    pub fn unsubscribe(&self, channel: impl Into<String>) {
        let _ = self.0.send(Command::Unsubscribe(channel.into()));
    }
}

impl Notices {
    /// The next notice; `None` when the bus has ended.
    pub async fn next(&mut self) -> Option<Notice> {
        self.0.recv().await
    }
}

/// Sends a message to a listener, or drops it when the listener is too slow.
fn offer(notices: &mpsc::Sender<Notice>, channel: Arc<str>, payload: Bytes) {
    BUS.heard.increment(1);
    if notices.try_send(Notice::Message { channel, payload }).is_err() {
        dropped("slow_listener", 1);
    }
}

/// Counts dropped messages, on either side of the bus.
pub fn dropped(reason: &'static str, count: u64) {
    BUS.dropped.add(reason, count);
}

/// Counts a listener in the metrics: among those that receive the bus, or those that cannot.
struct Hearing(bool);

impl Hearing {
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

impl Drop for Hearing {
    fn drop(&mut self) {
        Self::gauge(self.0).decrement(1);
    }
}

//! Publishes all queued messages, one pipeline after another.

use bytes::Bytes;
use redis::Pipeline;
use redis::aio::MultiplexedConnection;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::address::Address;
use super::{ANSWER_LIMIT, PING_EVERY, PIPELINE, RETRY};
use crate::bus::dropped;
use crate::readiness::Readiness;

pub(super) enum Queued {
    Publication(String, Bytes),
    /// Dropped when all earlier publications are sent or dropped; the drop completes the flush.
    Flush {
        _done: oneshot::Sender<()>,
    },
}

/// Publishes until the queue ends. While Redis is unreachable, publications are dropped instead of kept, because a late
/// hint is worthless. Connects at once, so that a wrong setting is logged at the start and not at the first
/// publication; `/readyz` reports an outage.
pub(super) async fn run(address: Address, mut publications: mpsc::Receiver<Queued>, readiness: Readiness) {
    let mut publisher = Publisher { address, connection: None, readiness, is_failing: false };
    publisher.connect().await;
    let mut batch = Vec::new();
    loop {
        match timeout(PING_EVERY, publications.recv_many(&mut batch, PIPELINE)).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(_) => {
                publisher.keep_alive().await;
                continue;
            }
        }
        let mut pipeline = Pipeline::with_capacity(batch.len());
        for queued in &batch {
            if let Queued::Publication(channel, payload) = queued {
                pipeline.publish(channel, &payload[..]).ignore();
            }
        }
        if !pipeline.is_empty() && !publisher.publish(&pipeline).await {
            dropped("bus_down", pipeline.len() as u64);
            sleep(RETRY).await;
            while let Ok(queued) = publications.try_recv() {
                if let Queued::Publication(..) = queued {
                    dropped("bus_down", 1);
                }
            }
        }
        batch.clear();
    }
}

struct Publisher {
    address: Address,
    connection: Option<MultiplexedConnection>,
    readiness: Readiness,
    is_failing: bool,
}

/// The outcome of a request.
enum Sent {
    Answered,
    Failed,
    Silent,
}

impl Publisher {
    /// Opens a connection. An outage is logged once, not at every attempt.
    async fn connect(&mut self) {
        let (connection, why) = match self.address.connection(None).await {
            Ok(connection) => (Some(connection), None),
            Err(why) => (None, Some(why)),
        };
        if let Some(why) = &why
            && !self.is_failing
        {
            tracing::warn!(why, "Redis does not accept publications; other programs read the log instead");
        }
        self.is_failing = why.is_some();
        self.readiness.note("bus", why);
        self.connection = connection;
    }

    /// Publishes on the open connection. If the connection has ended, it publishes once more on a new connection;
    /// listeners drop duplicates.
    async fn publish(&mut self, pipeline: &Pipeline) -> bool {
        match self.send(pipeline).await {
            Sent::Answered => true,
            Sent::Silent => false,
            Sent::Failed => {
                self.connect().await;
                matches!(self.send(pipeline).await, Sent::Answered)
            }
        }
    }

    /// Replaces an ended connection before the next publication fails on it.
    async fn keep_alive(&mut self) {
        if !matches!(self.send(redis::pipe().ping().ignore()).await, Sent::Answered) {
            self.connect().await;
        }
    }

    async fn send(&mut self, pipeline: &Pipeline) -> Sent {
        let Some(connection) = &mut self.connection else { return Sent::Failed };
        let sent = match timeout(ANSWER_LIMIT, pipeline.query_async::<()>(connection)).await {
            Ok(Ok(())) => return Sent::Answered,
            Ok(Err(_)) => Sent::Failed,
            Err(_) => Sent::Silent,
        };
        self.connection = None;
        sent
    }
}

//! The bus on Redis. It uses plain PUBLISH, because sharded pub/sub stops delivering when slots migrate. One connection
//! publishes, and each listener has its own. All connections reconnect on their own after an outage of any length.

mod address;
mod listen;
mod publish;
mod sign;
mod tls;

use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::{Command, Implementation, Notice, dropped};
use crate::cluster_key::SigningKey;
use crate::readiness::Readiness;

pub(crate) use address::Address;

use listen::Listener;
use publish::Queued;
use sign::Signer;

/// Publications queued for Redis; further publications are dropped and counted.
const PUBLISH_QUEUE: usize = 4096;
/// Publications, or channels of a subscription, in one request.
const PIPELINE: usize = 256;
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// How often an idle connection is pinged. TCP alone does not detect a dead peer, and servers and middleboxes close
/// idle connections.
const PING_EVERY: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(200);

pub(super) struct Redis {
    address: Address,
    signer: Signer,
    queue: mpsc::Sender<Queued>,
}

impl Redis {
    pub(super) fn open(address: Address, key: Option<&SigningKey>, readiness: Readiness) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (queue, publications) = mpsc::channel(PUBLISH_QUEUE);
        tokio::spawn(publish::run(address.clone(), publications, readiness));
        Self { address, signer: Signer::new(key), queue }
    }
}

impl Implementation for Redis {
    fn publish(&self, channel: String, payload: Bytes) {
        let signed = self.signer.sign(&channel, payload);
        if self.queue.try_send(Queued::Publication(channel, signed)).is_err() {
            dropped("queue_full", 1);
        }
    }

    fn listen(&self, commands: mpsc::UnboundedReceiver<Command>, notices: mpsc::Sender<Notice>) {
        tokio::spawn(Listener::new(self.address.clone(), self.signer.clone(), notices).run(commands));
    }

    fn flush(&self) -> BoxFuture<'_, ()> {
        async {
            let (done, flushed) = oneshot::channel();
            let _ = self.queue.send(Queued::Flush { _done: done }).await;
            let _ = flushed.await;
        }
        .boxed()
    }

    fn redis(&self) -> Option<Address> {
        Some(self.address.clone())
    }
}

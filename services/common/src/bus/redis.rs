//! The bus on Redis: plain PUBLISH (sharded pub/sub stops delivering when slots migrate), one connection to publish and
//! one for each listener; all reconnect on their own however long Redis was away.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::{constant_time, hmac};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use redis::aio::{MultiplexedConnection, PubSubSink, PubSubStream};
use redis::{AsyncConnectionConfig, Client};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::{Command, Hearing, Implementation, MAX_PAYLOAD, Notice, dropped, offer};
use crate::cluster_key::SigningKey;

/// Publications that may wait for Redis; further ones are dropped and counted.
const PUBLISH_QUEUE: usize = 4096;
/// Most publications in one pipeline.
const PIPELINE: usize = 256;
const CONNECT: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(1);
/// How often a silent connection is pinged: TCP alone does not notice that a peer is gone.
const PING_EVERY: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(200);

pub(super) struct Redis {
    client: Client,
    signer: Signer,
    queue: mpsc::Sender<Queued>,
}

enum Queued {
    Publication(String, Bytes),
    /// Dropped, which completes the flush, when all earlier publications are published or dropped.
    Flush {
        _done: oneshot::Sender<()>,
    },
}

impl Redis {
    pub(super) fn open(client: Client, key: Option<&SigningKey>) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let signer = Signer(key.cloned().map(Arc::new));
        let (queue, publications) = mpsc::channel(PUBLISH_QUEUE);
        tokio::spawn(publish(client.clone(), publications));
        Self { client, signer, queue }
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
        let (client, signer) = (self.client.clone(), self.signer.clone());
        let listener = Listener { client, signer, notices, channels: HashMap::new(), hearing: Hearing::begin(false) };
        tokio::spawn(listener.run(commands));
    }

    fn flush(&self) -> BoxFuture<'_, ()> {
        async {
            let (done, flushed) = oneshot::channel();
            let _ = self.queue.send(Queued::Flush { _done: done }).await;
            let _ = flushed.await;
        }
        .boxed()
    }
}

/// Publishes everything queued, one pipeline after another. While Redis is away publications are dropped rather than
/// kept: late hints are worthless.
async fn publish(client: Client, mut publications: mpsc::Receiver<Queued>) {
    let mut connection = None;
    let mut batch = Vec::new();
    while publications.recv_many(&mut batch, PIPELINE).await > 0 {
        let mut pipeline = redis::Pipeline::with_capacity(batch.len());
        for queued in &batch {
            if let Queued::Publication(channel, payload) = queued {
                pipeline.publish(channel, &payload[..]).ignore();
            }
        }
        if connection.is_none() && !pipeline.is_empty() {
            connection = connect(&client).await;
        }
        let sent = match &mut connection {
            _ if pipeline.is_empty() => true,
            Some(connection) => timeout(ANSWER, pipeline.query_async::<()>(connection)).await.is_ok_and(|answer| answer.is_ok()),
            None => false,
        };
        if !sent {
            connection = None;
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

/// A connection for publications. Its own time limit of half a second is off: the callers here have their own.
async fn connect(client: &Client) -> Option<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    timeout(CONNECT, client.get_multiplexed_async_connection_with_config(&config)).await.ok()?.ok()
}

struct Listener {
    client: Client,
    signer: Signer,
    notices: mpsc::Sender<Notice>,
    /// The wanted channels; each unconfirmed subscription keeps the callers that wait for it.
    channels: HashMap<Arc<str>, Vec<oneshot::Sender<()>>>,
    hearing: Hearing,
}

impl Listener {
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        // An outage is logged once, not at every attempt.
        let mut said = false;
        while !self.notices.is_closed() {
            let why = match timeout(CONNECT, self.client.get_async_pubsub()).await {
                Ok(Ok(connection)) => {
                    let (mut sink, mut stream) = connection.split();
                    match self.resubscribe(&mut sink, &mut stream).await {
                        Ok(()) => {
                            self.hearing.set(true);
                            said = false;
                            if self.notices.send(Notice::Up).await.is_err() {
                                return;
                            }
                            let ended = self.listen(&mut sink, &mut stream, &mut commands).await;
                            self.hearing.set(false);
                            if ended == Ended::ForGood || self.notices.send(Notice::Down).await.is_err() {
                                return;
                            }
                            "the connection has ended".to_owned()
                        }
                        Err(why) => why,
                    }
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "Redis does not answer".to_owned(),
            };
            if !std::mem::replace(&mut said, true) {
                tracing::warn!(why, "the bus cannot be heard; messages come by reading the log");
            }
            // Channels requested while Redis is away are subscribed to when it is back.
            let retry = sleep(RETRY);
            tokio::pin!(retry);
            loop {
                tokio::select! {
                    () = &mut retry => break,
                    command = commands.recv() => match command {
                        Some(Command::Subscribe(channel, confirm)) => {
                            let waiting = self.channels.entry(channel.into()).or_default();
                            waiting.retain(|confirm| !confirm.is_closed());
                            waiting.push(confirm);
                        }
                        Some(Command::Unsubscribe(channel)) => _ = self.channels.remove(channel.as_str()),
                        None => return,
                    },
                }
            }
        }
    }

    /// Subscribes to all wanted channels, or returns why it cannot.
    async fn resubscribe(&mut self, sink: &mut PubSubSink, stream: &mut PubSubStream) -> Result<(), String> {
        let names = self.channels.keys().cloned().collect::<Vec<_>>();
        for chunk in names.chunks(PIPELINE) {
            let chunk = chunk.iter().map(|name| &**name).collect::<Vec<_>>();
            let subscribed = sink.subscribe(&chunk);
            // The stream must be read meanwhile, or a busy channel blocks the answer.
            let subscribed = drive(subscribed, stream, |message| self.take(&message)).await;
            subscribed.ok_or("the connection has ended")?.map_err(|error| error.to_string())?;
        }
        for waiting in self.channels.values_mut() {
            waiting.drain(..).for_each(|confirm| _ = confirm.send(()));
        }
        Ok(())
    }

    async fn listen(&mut self, sink: &mut PubSubSink, stream: &mut PubSubStream, commands: &mut mpsc::UnboundedReceiver<Command>) -> Ended {
        let mut ping = tokio::time::interval(PING_EVERY);
        loop {
            let answered = tokio::select! {
                message = stream.next() => match message {
                    Some(message) => {
                        self.take(&message);
                        continue;
                    }
                    None => return Ended::Lost,
                },
                command = commands.recv() => match command {
                    Some(Command::Subscribe(channel, confirm)) => {
                        let subscribed = drive(sink.subscribe(&channel), stream, |message| self.take(&message)).await;
                        let waiting = self.channels.entry(channel.into()).or_default();
                        waiting.retain(|confirm| !confirm.is_closed());
                        match subscribed {
                            Some(Ok(())) => {
                                let _ = confirm.send(());
                            }
                            _ => waiting.push(confirm),
                        }
                        subscribed
                    }
                    Some(Command::Unsubscribe(channel)) => {
                        self.channels.remove(channel.as_str());
                        drive(sink.unsubscribe(&channel), stream, |message| self.take(&message)).await
                    }
                    None => return Ended::ForGood,
                },
                _ = ping.tick() => drive(async { sink.ping::<redis::Value>().await.map(|_| ()) }, stream, |message| self.take(&message)).await,
                () = self.notices.closed() => return Ended::ForGood,
            };
            if !matches!(answered, Some(Ok(()))) {
                return Ended::Lost;
            }
        }
    }

    fn take(&self, message: &redis::Msg) {
        let name = message.get_channel_name();
        let Some((channel, _)) = self.channels.get_key_value(name) else { return };
        if message.get_payload_bytes().len() > MAX_PAYLOAD + TAG {
            return dropped("too_large", 1);
        }
        match self.signer.verify(name, message.get_payload_bytes()) {
            Some(payload) => offer(&self.notices, channel.clone(), payload),
            None => dropped("forged", 1),
        }
    }
}

#[derive(PartialEq)]
enum Ended {
    Lost,
    ForGood,
}

/// Waits for an answer of Redis, with a time limit, while messages are still processed. `None`: no answer in time.
async fn drive<T>(answer: impl Future<Output = T>, stream: &mut PubSubStream, mut take: impl FnMut(redis::Msg)) -> Option<T> {
    let answer = timeout(ANSWER, answer);
    tokio::pin!(answer);
    loop {
        tokio::select! {
            answer = &mut answer => return answer.ok(),
            Some(message) = stream.next() => take(message),
        }
    }
}

/// Signs payloads with the cluster's key, bound to their channel, so that a program that only reaches Redis cannot
/// forge hints. Signatures are those that the previous release verifies; the next release's signatures, with the
/// derived key, are accepted.
#[derive(Clone)]
struct Signer(Option<Arc<SigningKey>>);

/// A truncated HMAC-SHA256 tag (RFC 2104 section 5 allows half the length).
const TAG: usize = 16;

impl Signer {
    fn tag(key: &hmac::Key, channel: &str, payload: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(key);
        context.update(channel.as_bytes());
        context.update(&[0]);
        context.update(payload);
        context.sign()
    }

    fn sign(&self, channel: &str, payload: Bytes) -> Bytes {
        let Some(key) = &self.0 else { return payload };
        let tag = Self::tag(&key.former, channel, &payload);
        [&tag.as_ref()[..TAG], &payload].concat().into()
    }

    fn verify(&self, channel: &str, signed: &[u8]) -> Option<Bytes> {
        let Some(key) = &self.0 else { return Some(Bytes::copy_from_slice(signed)) };
        let (tag, payload) = signed.split_at_checked(TAG)?;
        let is_of = |key| constant_time::verify_slices_are_equal(&Self::tag(key, channel, payload).as_ref()[..TAG], tag).is_ok();
        (is_of(&key.former) || is_of(&key.derived)).then(|| Bytes::copy_from_slice(payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(text: &str) -> (SigningKey, Signer) {
        let key = |text: &str| hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes());
        let key = SigningKey { former: key(text), derived: key(&format!("derived from {text}")) };
        (key.clone(), Signer(Some(Arc::new(key))))
    }

    #[test]
    fn a_signature_binds_payload_and_channel() {
        let [(keys, one), (_, other)] = ["k1", "k2"].map(signer);
        for key in [&keys.former, &keys.derived] {
            let tag = Signer::tag(key, "a", b"hello");
            let signed = [&tag.as_ref()[..TAG], b"hello"].concat();
            assert_eq!(one.verify("a", &signed).unwrap(), "hello");
            assert!(one.verify("b", &signed).is_none());
            assert!(other.verify("a", &signed).is_none());
            for at in [0, TAG - 1, TAG, signed.len() - 1] {
                let mut changed = signed.clone();
                changed[at] ^= 1;
                assert!(one.verify("a", &changed).is_none(), "{at}");
            }
        }
        assert!(one.verify("a", b"short").is_none());
    }

    #[test]
    fn the_previous_release_can_verify() {
        let (keys, signer) = signer("k1");
        let signed = signer.sign("a", Bytes::from_static(b"hello"));
        let (tag, payload) = signed.split_at(TAG);
        let mut whole = b"a\0".to_vec();
        whole.extend_from_slice(payload);
        assert_eq!(&hmac::sign(&keys.former, &whole).as_ref()[..TAG], tag);
    }
}

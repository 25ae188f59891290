//! A listener: its own connection, which subscribes to all channels again after each outage.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use redis::aio::{PubSubSink, PubSubStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::address::Address;
use super::sign::{Signer, TAG};
use super::{ANSWER_LIMIT, PING_EVERY, PIPELINE, RETRY};
use crate::bus::{Command, ListenerState, MAX_PAYLOAD, Notice, dropped, offer};

pub(super) struct Listener {
    address: Address,
    signer: Signer,
    notices: mpsc::Sender<Notice>,
    /// The requested channels. Each unconfirmed subscription keeps the callers that wait for its confirmation.
    channels: HashMap<Arc<str>, Vec<oneshot::Sender<()>>>,
    hearing: ListenerState,
}

impl Listener {
    pub fn new(address: Address, signer: Signer, notices: mpsc::Sender<Notice>) -> Self {
        Self { address, signer, notices, channels: HashMap::new(), hearing: ListenerState::begin(false) }
    }

    pub async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        // An outage is logged once, not at every retry.
        let mut said = false;
        while !self.notices.is_closed() {
            let why = match self.address.subscriber().await {
                Ok(connection) => {
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
                Err(why) => why,
            };
            if !std::mem::replace(&mut said, true) {
                tracing::warn!(why, "the bus is unreachable; messages are delivered by polling the log");
            }
            // Channels requested during the outage are subscribed to after the reconnect.
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

    /// Subscribes to all requested channels, or returns the reason of the failure.
    async fn resubscribe(&mut self, sink: &mut PubSubSink, stream: &mut PubSubStream) -> Result<(), String> {
        let names = self.channels.keys().cloned().collect::<Vec<_>>();
        for chunk in names.chunks(PIPELINE) {
            let chunk = chunk.iter().map(|name| &**name).collect::<Vec<_>>();
            let subscribed = sink.subscribe(&chunk);
            // The stream must be read while the subscription is pending, or a busy channel blocks its confirmation.
            let subscribed = drive(subscribed, stream, |message| self.take(&message)).await;
            subscribed.ok_or("the connection has ended")?.map_err(|error| error.to_string())?;
        }
        for waiting in self.channels.values_mut() {
            waiting.drain(..).for_each(|confirm| _ = confirm.send(()));
        }
        Ok(())
    }

    async fn listen(
        &mut self,
        sink: &mut PubSubSink,
        stream: &mut PubSubStream,
        commands: &mut mpsc::UnboundedReceiver<Command>,
    ) -> Ended {
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

/// Waits for an answer from Redis, within a time limit, and processes the messages that arrive first. Returns `None`
/// after the time limit.
async fn drive<T>(
    answer: impl Future<Output = T>,
    stream: &mut PubSubStream,
    mut take: impl FnMut(redis::Msg),
) -> Option<T> {
    let answer = timeout(ANSWER_LIMIT, answer);
    tokio::pin!(answer);
    loop {
        tokio::select! {
            answer = &mut answer => return answer.ok(),
            Some(message) = stream.next() => take(message),
        }
    }
}

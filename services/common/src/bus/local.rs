//! The bus within one process.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt, ready};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{Command, Implementation, ListenerState, Notice, offer};

#[derive(Default)]
pub(super) struct Local {
    // Locked while a message is distributed or a set of channels changes, never across an await.
    listeners: Arc<Mutex<Vec<Listener>>>,
}

struct Listener {
    channels: HashSet<Arc<str>>,
    notices: mpsc::Sender<Notice>,
}

impl Implementation for Local {
    fn publish(&self, channel: String, payload: Bytes) {
        for listener in self.listeners.lock().iter() {
            if let Some(channel) = listener.channels.get(channel.as_str()) {
                offer(&listener.notices, channel.clone(), payload.clone());
            }
        }
    }

    fn listen(&self, mut commands: mpsc::UnboundedReceiver<Command>, notices: mpsc::Sender<Notice>) {
        let _ = notices.try_send(Notice::Up);
        let listeners = self.listeners.clone();
        listeners.lock().push(Listener { channels: HashSet::new(), notices: notices.clone() });
        tokio::spawn(async move {
            let _hearing = ListenerState::begin(true);
            loop {
                let command = tokio::select! {
                    command = commands.recv() => command,
                    () = notices.closed() => None,
                };
                let mut listeners = listeners.lock();
                let Some(command) = command else {
                    listeners.retain(|listener| !listener.notices.same_channel(&notices));
                    return;
                };
                let Some(listener) = listeners.iter_mut().find(|listener| listener.notices.same_channel(&notices))
                else {
                    return;
                };
                match command {
                    Command::Subscribe(channel, confirm) => {
                        listener.channels.insert(channel.into());
                        let _ = confirm.send(());
                    }
                    Command::Unsubscribe(channel) => _ = listener.channels.remove(channel.as_str()),
                }
            }
        });
    }

    fn flush(&self) -> BoxFuture<'_, ()> {
        // `publish` delivers synchronously, so there is nothing to flush.
        ready(()).boxed()
    }
}

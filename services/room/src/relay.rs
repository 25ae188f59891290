//! Pays what the log is owed: appends the outbox's events until each is answered.
//!
//! Any number of replicas and calls may relay one room at once, without a lock: each takes only the *oldest* event of a room,
//! removes it once it is in the log, and only then comes to the next. A later event is therefore never sent before an earlier
//! one is in the log, and one sent late for a second time is a repeat there, known by its id, and changes nothing.

use std::sync::Arc;

use confab_common::grpc::{MAX_MESSAGE, Transport, request};
use confab_common::outbox::{self, BATCH, DELIVERY, Swept, TURN};
use confab_common::telemetry::trace::Span;
use confab_common::{Code, Result};
use confab_proto::auth::v1::UserRef;
use confab_proto::message::v1::message_service_client::MessageServiceClient;
use confab_proto::message::v1::outcome;
use confab_proto::message::v1::{AppendRequest, Kind, NewEvent};
use uuid::Uuid;

use crate::store::{Owed, RoomEvent, Store};

/// Carries events from the outbox to the log.
pub struct Relay {
    store: Arc<dyn Store>,
    message: MessageServiceClient<Transport>,
}

impl Relay {
    /// A relay to the message service behind `message`.
    pub fn new(store: Arc<dyn Store>, message: Transport) -> Self {
        let message = MessageServiceClient::new(message).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
        Self { store, message }
    }

    /// Relays a room's events up to `number` and returns when all of them are in the log, however long that takes.
    /// May be dropped at any time: the sweep finds what is left.
    pub async fn settle(&self, room: Uuid, number: i64) {
        outbox::settle(|| async {
            let advanced = self.advance(room, number).await;
            let advanced = advanced.inspect_err(|error| tracing::debug!(%room, %error, "an event waits for the log"));
            advanced.unwrap_or(false).then_some(())
        })
        .await;
    }

    /// Relays a room's events up to `number`, as far as it goes now; whether it went all the way.
    async fn advance(&self, room: Uuid, number: i64) -> Result<bool> {
        loop {
            match self.store.oldest(room).await? {
                Some(owed) if owed.event.number <= number => {
                    if self.append(&[owed]).await? == 0 {
                        return Ok(false);
                    }
                }
                _ => return Ok(true),
            }
        }
    }

    /// Sweeps the outbox for ever: at start what an earlier process left, later what calls gave up on.
    pub async fn run(self: Arc<Self>) {
        outbox::sweep(|| self.sweep()).await;
    }

    /// Tries the oldest event of every room once.
    async fn sweep(&self) -> Result<Swept> {
        let mut swept = Swept::default();
        let mut after = Uuid::nil();
        loop {
            let page = self.store.oldest_of_rooms(after, BATCH).await?;
            let Some(last) = page.last() else { return Ok(swept) };
            after = last.event.room_id;
            swept.found += page.len();
            swept.settled += self.append(&page).await?;
        }
    }

    /// Appends events of different rooms and forgets those that are settled; how many that are.
    async fn append(&self, owed: &[Owed]) -> Result<usize> {
        let events = owed.iter().map(|owed| new_event(&owed.event)).collect();
        let answer = self.message.clone().append(request(AppendRequest { events }, DELIVERY)).await?.into_inner();
        let settled = owed
            .iter()
            .zip(answer.outcomes)
            .filter(|(owed, outcome)| is_settled(owed, outcome.result.as_ref()))
            .map(|(owed, _)| owed.event.id)
            .collect::<Vec<_>>();
        if !settled.is_empty() {
            self.store.settle(settled.clone()).await?;
        }
        Ok(settled.len())
    }
}

/// Whether an event is in the log or has no place there any more.
fn is_settled(owed: &Owed, result: Option<&outcome::Result>) -> bool {
    let RoomEvent { id, room_id, event, .. } = &owed.event;
    let refusal = match result {
        Some(outcome::Result::Event(_)) => return true,
        Some(outcome::Result::Refusal(refusal)) => refusal,
        None => return false,
    };
    // A closed log takes nothing any more, and nobody can read it; but a living room's event is never given up.
    let closed = matches!(Code::parse(&refusal.code), Some(Code::NotFound | Code::Conflict));
    let settled = owed.room_gone && closed;
    let (code, detail) = (&refusal.code, &refusal.detail);
    tracing::warn!(%id, room = %room_id, event, code, detail, dropped = settled, "the log refuses an event");
    settled
}

fn new_event(event: &RoomEvent) -> NewEvent {
    NewEvent {
        id: event.id.to_string(),
        room_id: event.room_id.to_string(),
        kind: Kind::System.into(),
        sender: Some(UserRef { id: event.sender.id.to_string(), username: event.sender.username.clone() }),
        client_message_id: None,
        content: String::new(),
        event: event.event.clone(),
        data: event.data.clone(),
        closes_room: event.closes_room,
        timeout_ms: TURN.as_millis() as u32,
        traceparent: Span::current().traceparent(),
        ..NewEvent::default()
    }
}

//! Relays the outbox to the log: appends each event until the log has answered it.
//!
//! Any number of replicas and calls may relay one room at once, without a lock. Each takes only the *oldest* event of a
//! room, removes it after it is in the log, and only then takes the next. Therefore a later event is never sent before
//! an earlier event is in the log. If an event is sent a second time, the log recognises its id as a repeat, and
//! nothing changes.

use std::sync::Arc;

use confab_common::grpc::{MAX_MESSAGE, Transport, request};
use confab_common::outbox::{self, BATCH, DELIVERY, Swept, TURN_LIMIT};
use confab_common::telemetry::trace::Span;
use confab_common::{Code, Result};
use confab_proto::auth::v1::UserRef;
use confab_proto::message::v1::message_service_client::MessageServiceClient;
use confab_proto::message::v1::outcome;
use confab_proto::message::v1::{AppendRequest, Kind, NewEvent};
use uuid::Uuid;

use crate::store::{Owed, RoomEvent, Store};

/// Relays events from the outbox to the log.
pub struct Relay {
    store: Arc<dyn Store>,
    message: MessageServiceClient<Transport>,
}

impl Relay {
    pub fn new(store: Arc<dyn Store>, message: Transport) -> Self {
        let message = MessageServiceClient::new(message)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        Self { store, message }
    }

    /// Relays a room's events up to `number`, and returns when all of them are in the log, without a time limit. May be
    /// dropped at any time: the sweep relays the rest.
    pub async fn relay(&self, room: Uuid, number: i64) {
        outbox::deliver(|| async {
            let advanced = self.advance(room, number).await;
            let advanced = advanced.inspect_err(|error| tracing::debug!(%room, %error, "an event waits for the log"));
            advanced.unwrap_or(false).then_some(())
        })
        .await;
    }

    /// Relays a room's events up to `number` as far as possible now. Returns whether all of them are in the log.
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

    /// Sweeps the outbox without end: at start the events of an earlier process, later the events of calls that gave
    /// up.
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
            swept.relayed += self.append(&page).await?;
        }
    }

    /// Appends events of different rooms and deletes those that need no further attempt. Returns their number.
    async fn append(&self, owed: &[Owed]) -> Result<usize> {
        let events = owed.iter().map(|owed| new_event(&owed.event)).collect();
        let answer = self.message.clone().append(request(AppendRequest { events }, DELIVERY)).await?.into_inner();
        let relayed = owed
            .iter()
            .zip(answer.outcomes)
            .filter(|(owed, outcome)| is_done(owed, outcome.result.as_ref()))
            .map(|(owed, _)| owed.event.id)
            .collect::<Vec<_>>();
        if !relayed.is_empty() {
            self.store.remove_events(relayed.clone()).await?;
        }
        Ok(relayed.len())
    }
}

/// Returns whether an event needs no further attempt: it is in the log, or can never be.
fn is_done(owed: &Owed, result: Option<&outcome::Result>) -> bool {
    let RoomEvent { id, room_id, event, .. } = &owed.event;
    let refusal = match result {
        Some(outcome::Result::Event(_)) => return true,
        Some(outcome::Result::Refusal(refusal)) => refusal,
        None => return false,
    };
    // A closed log accepts no events, and no client can read it. But an existing room's event is never abandoned.
    let closed = matches!(Code::parse(&refusal.code), Some(Code::NotFound | Code::Conflict));
    let relayed = owed.room_gone && closed;
    let (code, detail) = (&refusal.code, &refusal.detail);
    tracing::warn!(%id, room = %room_id, event, code, detail, dropped = relayed, "the log rejected an event");
    relayed
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
        timeout_ms: TURN_LIMIT.as_millis() as u32,
        traceparent: Span::current().traceparent(),
        ..NewEvent::default()
    }
}

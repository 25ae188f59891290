//! Reads every event of a room for a client that is recovered. History has no changes of messages, but the recovered
//! client must receive an event for each number of the room, as the connected clients did.

use std::collections::{BTreeMap, HashMap};

use confab_common::{Error, Result, grpc};
use confab_proto::message::v1::{Change, Event, Kind, ListChangesRequest, Op, ReadEventsRequest, Reading};
use confab_socketio::Frame;
use uuid::Uuid;

use super::event;
use super::history::{MAX_BYTES, MAX_MESSAGES, User};
use crate::clients::Clients;

/// Most pages of changed messages that one call reads.
const MAX_PAGES: usize = 10;

/// Consecutive events of a room, read after the reader's request. The reader may read the room at `last_seq`.
pub struct Replay {
    pub epoch: String,
    /// The room's newest `seq`.
    pub last_seq: u64,
    /// The events by their `seq`, in rising order.
    pub frames: Vec<(u64, Frame)>,
}

/// Reads the first events after a `seq`. A change has its message in a state at or after the change.
///
/// # Errors
/// `not_found` when the room does not exist or is hidden from the user; `unavailable` when a change has too many others
/// after it; otherwise when the message service does not answer.
pub async fn read(clients: &Clients, room: Uuid, after: u64, user: Option<&User>) -> Result<Replay> {
    let reader = user.map(|user| user.id.to_string()).unwrap_or_default();
    let reading = Reading { room_id: room.to_string(), reader, moderator: false };
    let request = ReadEventsRequest {
        reading: Some(reading.clone()),
        before: None,
        after: Some(after),
        limit: MAX_MESSAGES,
        max_bytes: MAX_BYTES as u32,
    };
    let mut page =
        clients.message.clone().read_events(by(user, grpc::request(request, clients.read))).await?.into_inner();
    if let Some(targets) = Targets::of(&page.events) {
        let messages = targets.read(clients, &reading, user, &page.epoch).await?;
        for change in page.events.iter_mut().filter_map(change_of) {
            let message = messages.get(&change.target).ok_or_else(unreadable)?;
            let mut message = message.clone();
            if change.op() == Op::React {
                // Later reactions have events of their own.
                message.state.get_or_insert_default().reactions = std::mem::take(&mut change.after);
            }
            change.message = Some(Box::new(message));
        }
    }
    clients.deleted.hide_in_events(&mut page.events);
    let frames = page.events.iter().map(|event| (event.seq, event::encode(event))).collect();
    Ok(Replay { epoch: page.epoch, last_seq: page.last_seq, frames })
}

fn by<T>(user: Option<&User>, request: tonic::Request<T>) -> tonic::Request<T> {
    match user {
        Some(user) => user.credential.attach(request),
        None => request,
    }
}

fn change_of(event: &mut Event) -> Option<&mut Change> {
    if event.kind() == Kind::Change { event.change.as_deref_mut() } else { None }
}

fn unreadable() -> Error {
    Error::unavailable("the room's history")
}

/// The messages of the changes on a page.
struct Targets {
    /// The `seq` of the last change of each message, by the message's `seq`.
    changes: BTreeMap<u64, u64>,
    /// The `seq` before the first of the changes.
    after: u64,
}

impl Targets {
    /// `None` if no event of the page is a change.
    fn of(events: &[Event]) -> Option<Self> {
        let changes = events.iter().filter(|event| event.kind() == Kind::Change);
        let changes = changes.filter_map(|event| Some((event.change.as_deref()?.target, event.seq)));
        let first = changes.clone().next()?.1;
        Some(Self { changes: changes.collect(), after: first.saturating_sub(1) })
    }

    /// Reads the messages, each in a state at or after its last change on the page.
    async fn read(
        self,
        clients: &Clients,
        reading: &Reading,
        user: Option<&User>,
        epoch: &str,
    ) -> Result<HashMap<u64, Event>> {
        let (from, up_to) = (self.changes.keys().next(), self.changes.keys().next_back());
        let mut request = ListChangesRequest {
            reading: Some(reading.clone()),
            after: self.after,
            from: from.copied().unwrap_or_default(),
            up_to: up_to.copied().unwrap_or_default(),
            limit: MAX_MESSAGES,
            max_bytes: MAX_BYTES as u32,
        };
        let mut messages = HashMap::with_capacity(self.changes.len());
        for _ in 0..MAX_PAGES {
            let page = by(user, grpc::request(request.clone(), clients.read));
            let page = clients.message.clone().list_changes(page).await?.into_inner();
            if page.epoch != epoch {
                return Err(unreadable());
            }
            for message in page.messages {
                let revision = message.state.as_ref().map_or(message.seq, |state| state.revision);
                request.after = request.after.max(revision);
                if self.changes.get(&message.seq).is_some_and(|change| revision >= *change) {
                    messages.insert(message.seq, message);
                }
            }
            if messages.len() == self.changes.len() || !page.more {
                break;
            }
        }
        Ok(messages)
    }
}

#[cfg(test)]
mod tests;

//! The rules of rooms.

use std::sync::Arc;
use std::time::Duration;

use confab_common::clock::now_ms;
use confab_common::telemetry::trace::Span;
use confab_common::{Code, Error, Result, cursor, text};
use serde::Serialize;
use tokio::time::Instant;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use crate::relay::Relay;
use crate::store::{Position, Room, RoomEvent, Store, User, searchable};
use crate::turns::{Caller, Turns};

/// Longest name, in Unicode scalar values.
const MAX_NAME: usize = 80;
/// Longest description, in Unicode scalar values.
const MAX_DESCRIPTION: usize = 500;
/// Longest search text, in Unicode scalar values.
const MAX_QUERY: usize = 200;
/// How long a change waits in total for its event to be in the log.
const EVENT_WAIT_LIMIT: Duration = Duration::from_secs(2);

pub struct Rooms {
    store: Arc<dyn Store>,
    relay: Arc<Relay>,
    turns: Turns,
}

/// A page of the list.
pub struct Page {
    pub rooms: Vec<Room>,
    /// The cursor of the next page; `None` on the last page.
    pub next: Option<String>,
}

/// The changes that a PATCH request contains.
#[derive(Debug, Default)]
pub struct Change {
    pub name: Option<String>,
    pub description: Option<String>,
}

/// A user's permissions in a room.
pub struct Access {
    pub may_read: bool,
    pub may_post: bool,
    pub may_manage: bool,
}

/// The data of `roomUpdated`: the new values.
#[derive(Serialize)]
struct Updated<'a> {
    name: &'a str,
    description: &'a str,
}

impl Rooms {
    pub fn new(store: Arc<dyn Store>, relay: Arc<Relay>) -> Self {
        let turns = Turns::new(store.searches());
        Self { store, relay, turns }
    }

    /// Creates a room. A repeat with the same id and owner returns the first room.
    pub async fn create(&self, id: Uuid, owner: User, name: &str, description: &str) -> Result<Room> {
        let name = text::name("name", name, MAX_NAME)?;
        let description = text::description("description", description, MAX_DESCRIPTION)?;
        let room = Room { id, name, description, owner, created_at_ms: now_ms(), revision: 0 };
        if self.store.create(room.clone()).await? {
            return Ok(room);
        }
        let first = self.store.get(id).await?.filter(|first| first.owner.id == room.owner.id);
        first.ok_or_else(|| Error::new(Code::Conflict, "the id has been used before"))
    }

    /// Lists rooms whose name or description contains `query`, newest first. A search waits for the caller's turn.
    pub async fn list(&self, caller: Caller, limit: u32, page: &str, query: &str) -> Result<Page> {
        if !(1..=200).contains(&limit) {
            return Err(Error::field("limit", "must be from 1 to 200"));
        }
        let query = searchable(&text::bounded("q", query, MAX_QUERY)?);
        // A cursor contains the hash of its query: with another query it would skip rooms.
        let hash = xxh3_64(query.as_bytes());
        let below = match page {
            "" => Position::TOP,
            page => match cursor::decode::<(i64, Uuid, u64)>(page)? {
                (created_at_ms, id, of) if of == hash => Position { created_at_ms, id },
                _ => return Err(Error::field("cursor", "belongs to another q")),
            },
        };
        let mut rooms = if query.is_empty() {
            self.store.list(below, limit + 1).await?
        } else {
            self.search(caller, query, below, limit + 1).await?
        };
        let more = rooms.len() > limit as usize;
        rooms.truncate(limit as usize);
        let last = rooms.last().filter(|_| more).map(Room::position);
        Ok(Page { next: last.map(|at| cursor::encode(&(at.created_at_ms, at.id, hash))), rooms })
    }

    async fn search(&self, caller: Caller, query: String, below: Position, limit: u32) -> Result<Vec<Room>> {
        let turn = self.turns.take(caller).await?;
        let (store, span) = (self.store.clone(), Span::current());
        // A separate task: when the caller is dropped, the database continues its work, so the turn must last until
        // then.
        let search = async move {
            let _turn = turn;
            span.instrument(store.search(query, below, limit)).await
        };
        tokio::spawn(search).await.map_err(Error::internal)?
    }

    pub async fn get(&self, id: Uuid) -> Result<Room> {
        self.store.get(id).await?.ok_or_else(unknown)
    }

    /// Changes a room and returns after the event is in the log. A request that changes nothing appends no event, but
    /// still waits for earlier events, because it may repeat a change whose answer was lost.
    pub async fn update(&self, id: Uuid, caller: &User, change: Change) -> Result<Room> {
        let deadline = Instant::now() + EVENT_WAIT_LIMIT;
        let name = change.name.map(|name| text::name("name", &name, MAX_NAME)).transpose()?;
        let description =
            change.description.map(|text| text::description("description", &text, MAX_DESCRIPTION)).transpose()?;
        let room = loop {
            let current = self.owned(id, caller).await?;
            let mut room = current.clone();
            room.name = name.clone().unwrap_or(room.name);
            room.description = description.clone().unwrap_or(room.description);
            if room == current {
                break room;
            }
            room.revision += 1;
            let data = serde_json::to_string(&Updated { name: &room.name, description: &room.description })
                .map_err(Error::internal)?;
            if self.store.update(room.clone(), event(&room, caller, "roomUpdated", data, false)).await? {
                break room;
            }
            overtaken(deadline)?;
        };
        self.wait_for_log(id, room.revision, deadline).await?;
        Ok(room)
    }

    /// Deletes a room and returns after its log is closed. A repeat by the same user also waits for that.
    pub async fn delete(&self, id: Uuid, caller: &User) -> Result<()> {
        let deadline = Instant::now() + EVENT_WAIT_LIMIT;
        let number = loop {
            let mut room = match self.owned(id, caller).await {
                Err(error) if error.code == Code::NotFound => match self.store.closing(id).await? {
                    Some(owed) if owed.event.sender.id == caller.id => break owed.event.number,
                    _ => return Err(error),
                },
                room => room?,
            };
            room.revision += 1;
            if self.store.delete(event(&room, caller, "roomDeleted", "{}".into(), true)).await? {
                break room.revision;
            }
            overtaken(deadline)?;
        };
        self.wait_for_log(id, number, deadline).await
    }

    /// Returns the permissions of a user, or with `None` of an anonymous reader.
    pub async fn access(&self, id: Uuid, user: Option<Uuid>) -> Result<Access> {
        let room = self.get(id).await?;
        Ok(Access { may_read: true, may_post: user.is_some(), may_manage: user == Some(room.owner.id) })
    }

    /// Returns the room, if the caller may change it.
    async fn owned(&self, id: Uuid, caller: &User) -> Result<Room> {
        let room = self.get(id).await?;
        if room.owner.id != caller.id {
            return Err(Error::new(Code::Forbidden, "only the room's owner may do this"));
        }
        Ok(room)
    }

    /// Waits until the log has a room's events up to `number`. The change stands in any case.
    async fn wait_for_log(&self, room: Uuid, number: i64, deadline: Instant) -> Result<()> {
        tokio::time::timeout_at(deadline, self.relay.relay(room, number)).await.map_err(|_| Error::timeout())
    }
}

/// Called when another caller changed the room first. Returns `Ok` if there is time to retry with the room's new state.
fn overtaken(deadline: Instant) -> Result<()> {
    if Instant::now() < deadline { Ok(()) } else { Err(Error::unavailable("the room")) }
}

fn event(room: &Room, sender: &User, event: &str, data: String, closes_room: bool) -> RoomEvent {
    let (id, sender) = (Uuid::now_v7(), sender.clone());
    RoomEvent { id, room_id: room.id, number: room.revision, sender, event: event.into(), data, closes_room }
}

fn unknown() -> Error {
    Error::not_found("room")
}

#[cfg(test)]
mod tests;

//! The rules of rooms.

mod acquaintances;
mod actor;
mod members;
mod own;
mod rights;

use std::sync::Arc;
use std::time::Duration;

use confab_common::clock::now_ms;
use confab_common::telemetry::trace::Span;
use confab_common::{Code, Error, Result, cursor, text};
use tokio::time::Instant;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use crate::departures::Departures;
use crate::event;
use crate::relay::Relay;
use crate::store::{Position, Role, Room, Seen, Store, User, searchable};
use crate::turns::{Caller, Turns};

pub use actor::{Author, Viewer};

/// Longest name, in Unicode scalar values.
const MAX_NAME: usize = 80;
/// Longest description, in Unicode scalar values.
const MAX_DESCRIPTION: usize = 500;
/// Longest search text, in Unicode scalar values.
const MAX_QUERY: usize = 200;
/// Maximum rooms that one call checks.
const MAX_CHECKED: usize = 1000;
/// How long a change waits in total for its event to be in the log.
const EVENT_WAIT_LIMIT: Duration = Duration::from_secs(2);
/// When a client may repeat a request that the log cannot serve before its upgrade is finished.
const UPGRADE_RETRY: Duration = Duration::from_secs(60);

pub struct Rooms {
    store: Arc<dyn Store>,
    relay: Arc<Relay>,
    turns: Turns,
    pub departures: Departures,
}

/// A page of the list.
pub struct Page {
    pub rooms: Vec<Seen>,
    /// The cursor of the next page; `None` on the last page.
    pub next: Option<String>,
}

/// A room to create.
#[derive(Debug)]
pub struct NewRoom {
    pub id: Uuid,
    pub name: String,
    pub description: String,
    pub private: bool,
}

/// The changes that a PATCH request contains.
#[derive(Debug, Default)]
pub struct Change {
    pub name: Option<String>,
    pub description: Option<String>,
    pub private: Option<bool>,
}

/// A user's permissions in a room.
pub struct Access {
    pub may_read: bool,
    pub may_post: bool,
    pub may_manage: bool,
    pub private: bool,
}

impl Rooms {
    pub fn new(store: Arc<dyn Store>, relay: Arc<Relay>) -> Self {
        let turns = Turns::new(store.searches());
        let departures = Departures::new(store.clone());
        Self { store, relay, turns, departures }
    }

    /// Creates a room, and returns after the log has opened it. A repeat with the same id and creator returns the first
    /// room.
    pub async fn create(&self, new: NewRoom, creator: User) -> Result<Seen> {
        let deadline = Instant::now() + EVENT_WAIT_LIMIT;
        let NewRoom { id, private, .. } = new;
        let name = text::name("name", &new.name, MAX_NAME)?;
        let description = text::description("description", &new.description, MAX_DESCRIPTION)?;
        if private {
            self.require_members_in_log().await?;
        }
        let room = Room { id, name, description, creator, created_at_ms: now_ms(), revision: 0, private };
        let created = if self.store.create(room.clone()).await? {
            Seen { room, role: Some(Role::Owner) }
        } else {
            let creator = room.creator.id;
            let first = self.store.get(id, Some(creator)).await?;
            let first = first.filter(|first| first.is_visible() && first.room.creator.id == creator);
            first.ok_or_else(|| Error::new(Code::Conflict, "the id has been used before"))?
        };
        within(deadline, self.relay.opened(id)).await?;
        Ok(created)
    }

    /// Lists rooms whose name or description contains `query`, newest first. A search waits for the caller's turn.
    pub async fn list(&self, caller: Caller, limit: u32, page: &str, query: &str) -> Result<Page> {
        let limit = page_limit(limit)?;
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
            self.store.list(caller, below, limit + 1).await?
        } else {
            self.search(caller, query, below, limit + 1).await?
        };
        let more = rooms.len() > limit as usize;
        rooms.truncate(limit as usize);
        let last = rooms.last().filter(|_| more).map(|seen| seen.room.position());
        Ok(Page { next: last.map(|at| cursor::encode(&(at.created_at_ms, at.id, hash))), rooms })
    }

    async fn search(&self, caller: Caller, query: String, below: Position, limit: u32) -> Result<Vec<Seen>> {
        let turn = self.turns.take(caller).await?;
        let (store, span) = (self.store.clone(), Span::current());
        // A separate task: when the caller is dropped, the database continues its work, so the turn must last until
        // then.
        let search = async move {
            let _turn = turn;
            span.instrument(store.search(caller, query, below, limit)).await
        };
        tokio::spawn(search).await.map_err(Error::internal)?
    }

    /// Returns a room that the viewer may see. A hidden room is not found, like an unknown room.
    pub async fn get(&self, id: Uuid, viewer: Viewer) -> Result<Seen> {
        self.store.get(id, viewer.user()).await?.filter(|seen| viewer.sees(seen)).ok_or_else(unknown)
    }

    /// Changes a room and returns after the event is in the log. A request that changes nothing appends no event, but
    /// still waits for earlier events, because it may repeat a change whose answer was lost.
    pub async fn update(&self, id: Uuid, author: &Author, change: Change) -> Result<Seen> {
        let deadline = Instant::now() + EVENT_WAIT_LIMIT;
        let name = change.name.map(|name| text::name("name", &name, MAX_NAME)).transpose()?;
        let description =
            change.description.map(|text| text::description("description", &text, MAX_DESCRIPTION)).transpose()?;
        let changed = loop {
            let Seen { room: current, role } = self.get(id, author.viewer()).await?;
            rights::may_change(author.role(role), change.private.is_some())?;
            let mut room = current.clone();
            room.name = name.clone().unwrap_or(room.name);
            room.description = description.clone().unwrap_or(room.description);
            room.private = change.private.unwrap_or(room.private);
            if room == current {
                break Seen { room, role };
            }
            room.revision += 1;
            let event = if room.private == current.private {
                event::updated(&room, &author.user)?
            } else {
                self.require_members_in_log().await?;
                let owner = self.owner(id).await?.user.id;
                event::visibility_changed(&room, &author.user, owner)?
            };
            if self.store.update(room.clone(), event).await? {
                break Seen { room, role };
            }
            overtaken(deadline)?;
        };
        self.wait_for_log(id, changed.room.revision, deadline).await?;
        Ok(changed)
    }

    /// Deletes a room and returns after its log is closed. A repeat by the same user, or of the same operation, also
    /// waits for that.
    pub async fn delete(&self, id: Uuid, author: &Author, operation: Option<Uuid>) -> Result<()> {
        let deadline = Instant::now() + EVENT_WAIT_LIMIT;
        let number = loop {
            let Seen { mut room, role } = match self.get(id, author.viewer()).await {
                Err(error) if error.code == Code::NotFound => match self.store.closing(id).await? {
                    Some(owed) if owed.event.sender.id == author.user.id => break owed.event.number,
                    None if self.was_done(&error, operation, id).await? => return Ok(()),
                    _ => return Err(error),
                },
                seen => seen?,
            };
            rights::may_change(author.role(role), false)?;
            room.revision += 1;
            self.store.operations().begin(operation, id).await?;
            if self.store.delete(event::deleted(&room, &author.user)?).await? {
                break room.revision;
            }
            overtaken(deadline)?;
        };
        self.wait_for_log(id, number, deadline).await
    }

    /// Returns the permissions of a viewer.
    pub async fn access(&self, id: Uuid, viewer: Viewer) -> Result<Access> {
        let Seen { room, role } = self.get(id, viewer).await?;
        let may_manage = viewer == Viewer::Moderator || role.is_some_and(Role::manages);
        Ok(Access { may_read: true, may_post: viewer.user().is_some(), may_manage, private: room.private })
    }

    /// Returns whether an operation fails with this error because an earlier attempt has done it.
    async fn was_done(&self, error: &Error, operation: Option<Uuid>, subject: Uuid) -> Result<bool> {
        Ok(error.code == Code::NotFound && self.store.operations().has_begun(operation, subject).await?)
    }

    /// Returns those of these rooms that a user may see.
    pub async fn visible(&self, ids: Vec<Uuid>, user: Uuid) -> Result<Vec<Uuid>> {
        if ids.len() > MAX_CHECKED {
            return Err(Error::field("roomIds", format!("must be at most {MAX_CHECKED}")));
        }
        self.store.visible(ids, user).await
    }

    /// Waits until the log has a room's events up to `number`. The change stands in any case.
    async fn wait_for_log(&self, room: Uuid, number: i64, deadline: Instant) -> Result<()> {
        within(deadline, self.relay.relay(room, number)).await
    }

    /// Rejects a change that the log cannot store before its upgrade is finished.
    async fn require_members_in_log(&self) -> Result<()> {
        if self.relay.has_members().await? {
            return Ok(());
        }
        let detail = "the log is being upgraded; private rooms and members come with `confab-message finish-upgrade`";
        Err(Error::new(Code::Unavailable, detail).retry_in(UPGRADE_RETRY))
    }
}

async fn within(deadline: Instant, work: impl Future<Output = ()>) -> Result<()> {
    tokio::time::timeout_at(deadline, work).await.map_err(|_| Error::timeout())
}

/// Called when another caller changed the room first. Returns `Ok` if there is time to retry with the room's new state.
fn overtaken(deadline: Instant) -> Result<()> {
    if Instant::now() < deadline { Ok(()) } else { Err(Error::unavailable("the room")) }
}

fn page_limit(limit: u32) -> Result<u32> {
    if (1..=200).contains(&limit) { Ok(limit) } else { Err(Error::field("limit", "must be from 1 to 200")) }
}

fn unknown() -> Error {
    Error::not_found("room")
}

#[cfg(test)]
mod tests;

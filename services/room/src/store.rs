//! The store of rooms, and its rows.

#[cfg(test)]
mod contract;
mod pieces;
pub mod postgres;
pub mod sqlite;
pub mod tables;

use std::time::Duration;

use confab_common::metrics::LIMITS;
use confab_common::{Code, Error, Result, text};
use futures::future::BoxFuture;
use uuid::Uuid;

/// A user who performs an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: Uuid,
    pub username: String,
}

/// A public room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    pub id: Uuid,
    pub name: String,
    pub description: String,
    pub owner: User,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: i64,
    /// How often the room was changed.
    pub revision: i64,
}

impl Room {
    /// Returns the form of the name that must be unique.
    pub fn folded_name(&self) -> String {
        text::fold(&self.name)
    }

    /// Returns the searchable text: name and description, separated so that no ordinary query matches across both.
    pub fn search(&self) -> String {
        searchable(&format!("{}\u{1f}{}", self.name, self.description))
    }

    /// Returns the room's position in the list.
    pub fn position(&self) -> Position {
        Position { created_at_ms: self.created_at_ms, id: self.id }
    }
}

/// Bounds on the work of one search.
#[derive(Debug, Clone, Copy)]
struct SearchBounds {
    /// Time limit for the database.
    time: Duration,
    /// The number of matches up to which the index is used. The index returns rooms in no order; reading along the list
    /// ends at the first full page.
    rooms: u32,
}

const SEARCH_BOUNDS: SearchBounds = SearchBounds { time: Duration::from_millis(250), rooms: 2000 };
/// When a client may repeat a search that took too long.
const SEARCH_AGAIN: Duration = Duration::from_secs(5);

/// The error of a search that exceeded its time limit.
fn search_took_too_long() -> Error {
    LIMITS.hit("search_time");
    let detail = "the search takes too long; search for more letters, or for less common letters";
    Error::new(Code::Unavailable, detail).retry_in(SEARCH_AGAIN)
}

/// Returns the form in which texts are searched.
pub fn searchable(text: &str) -> String {
    text::fold(text)
}

/// A room with its stored forms, which an earlier release may have computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub room: Room,
    /// The form of the name that must be unique.
    pub folded_name: String,
    /// The searchable text.
    pub search: String,
}

/// A position in the list of rooms, which is ordered by creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub created_at_ms: i64,
    pub id: Uuid,
}

impl Position {
    /// Above every room.
    pub const TOP: Self = Self { created_at_ms: i64::MAX, id: Uuid::max() };
}

/// An event to append to the log: a row of the outbox, written in one transaction with the change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomEvent {
    /// The event's id in the log; it makes a second append harmless.
    pub id: Uuid,
    pub room_id: Uuid,
    /// The room's revision that the event describes; events of a room are appended in this order.
    pub number: i64,
    pub sender: User,
    /// The public name of the event.
    pub event: String,
    /// A JSON object.
    pub data: String,
    /// Whether the event is the room's last.
    pub closes_room: bool,
}

/// An event in the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    pub event: RoomEvent,
    /// Whether the room is deleted.
    pub room_gone: bool,
}

/// A store of rooms and their outbox.
///
/// A change names the revision that it creates, and succeeds only on the revision before. A decision therefore always
/// matches the state that it changes, and the locked row numbers the outbox. Each number of a room is assigned once, in
/// commit order.
pub trait Store: Send + Sync + 'static {
    /// Adds a room. Returns `false` when its id was used before, possibly by a room that is deleted now.
    /// `room_name_taken` when another room has the name.
    fn create(&self, room: Room) -> BoxFuture<'_, Result<bool>>;

    fn get(&self, id: Uuid) -> BoxFuture<'_, Result<Option<Room>>>;

    /// Returns up to `limit` rooms below a position, newest first.
    fn list(&self, below: Position, limit: u32) -> BoxFuture<'_, Result<Vec<Room>>>;

    /// Like [`list`](Self::list), but only rooms whose [`Room::search`] contains `query`, which must not be empty.
    /// `unavailable` when the search takes the database longer than 250 ms.
    fn search(&self, query: String, below: Position, limit: u32) -> BoxFuture<'_, Result<Vec<Room>>>;

    /// Returns how many searches may run at once without delaying other calls.
    fn searches(&self) -> usize;

    /// Returns up to `limit` rooms whose name or description contains non-ASCII characters, with ids above `after` in
    /// ascending order.
    fn beyond_ascii(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Stored>>>;

    /// Rewrites the forms in which a room is compared and searched, unless the room has changed meanwhile. If another
    /// room has the name, the compared form is kept.
    fn refold(&self, room: Room) -> BoxFuture<'_, Result<()>>;

    /// Changes name and description to those of `room`, and adds `event` to the outbox; its number is the new revision.
    /// Returns `false` when the room is not at the revision before. `room_name_taken` when another room has the name.
    fn update(&self, room: Room, event: RoomEvent) -> BoxFuture<'_, Result<bool>>;

    /// Deletes the event's room, and adds the event to the outbox. Returns `false` when the room is not at the revision
    /// before.
    fn delete(&self, event: RoomEvent) -> BoxFuture<'_, Result<bool>>;

    /// Returns the oldest event of a room in the outbox.
    fn oldest(&self, room: Uuid) -> BoxFuture<'_, Result<Option<Owed>>>;

    /// Returns the event in the outbox that closes a room.
    fn closing(&self, room: Uuid) -> BoxFuture<'_, Result<Option<Owed>>>;

    /// Returns the oldest outbox event of each of up to `limit` rooms, with room ids above `after` in ascending order.
    fn oldest_of_rooms(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Owed>>>;

    /// Deletes events that need no further append; unknown ids are ignored.
    fn remove_events(&self, events: Vec<Uuid>) -> BoxFuture<'_, Result<()>>;
}

//! What a store of rooms does, and its rows.

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

/// Who does something.
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
    /// Who made it.
    pub owner: User,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: i64,
    /// How often it was changed.
    pub revision: i64,
}

impl Room {
    /// The name in the form under which it is unique.
    pub fn folded_name(&self) -> String {
        text::fold(&self.name)
    }

    /// The text that searches look through: name and description, parted so that no ordinary query spans both.
    pub fn search(&self) -> String {
        searchable(&format!("{}\u{1f}{}", self.name, self.description))
    }

    /// Where it stands in the list.
    pub fn position(&self) -> Position {
        Position { created_at_ms: self.created_at_ms, id: self.id }
    }
}

/// What bounds the work of one search.
#[derive(Debug, Clone, Copy)]
struct SearchBounds {
    /// Longest that the database works.
    time: Duration,
    /// Rooms up to which one of two ways to find is taken: by the index, which finds rooms in no order, or along the list, which
    /// ends at the first full page.
    rooms: u32,
}

const SEARCH_BOUNDS: SearchBounds = SearchBounds { time: Duration::from_millis(250), rooms: 2000 };
/// When a search that took longer may be repeated.
const SEARCH_AGAIN: Duration = Duration::from_secs(5);

/// The error of a search that took longer than its limit.
fn search_took_too_long() -> Error {
    LIMITS.hit("search_time");
    let detail = "the search takes too long; search for more letters, or for less common ones";
    Error { retry_after: Some(SEARCH_AGAIN), ..Error::new(Code::Unavailable, detail) }
}

/// The form in which texts are searched.
pub fn searchable(text: &str) -> String {
    text::fold(text)
}

/// A room with the forms that it is kept under, perhaps by an earlier release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub room: Room,
    /// Under which its name is unique.
    pub folded_name: String,
    /// That searches look through.
    pub search: String,
}

/// A place in the list of rooms, which goes by creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub created_at_ms: i64,
    pub id: Uuid,
}

impl Position {
    /// Above every room.
    pub const TOP: Self = Self { created_at_ms: i64::MAX, id: Uuid::max() };
}

/// An event that the log is owed: a row of the outbox, written with the change that it tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomEvent {
    /// The event's id in the log, by which appending it again is harmless.
    pub id: Uuid,
    pub room_id: Uuid,
    /// The room's revision that it tells of; events of a room are appended in this order.
    pub number: i64,
    pub sender: User,
    /// Its public name.
    pub event: String,
    /// A JSON object.
    pub data: String,
    /// The room's last event.
    pub closes_room: bool,
}

/// An event not answered yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    pub event: RoomEvent,
    /// The room is deleted.
    pub room_gone: bool,
}

/// A store of rooms and their outbox.
///
/// A change names the revision that it makes and is done only on the one before: so it is decided on what it changes, and
/// the row it locks numbers the outbox. Every number of a room is given out once, in commit order.
pub trait Store: Send + Sync + 'static {
    /// Adds a room; `false` when its id was used before, by a room that may be deleted now. `room_name_taken` when
    /// another has the name.
    fn create(&self, room: Room) -> BoxFuture<'_, Result<bool>>;

    /// The room of that id.
    fn get(&self, id: Uuid) -> BoxFuture<'_, Result<Option<Room>>>;

    /// Up to `limit` rooms below a position, newest first.
    fn list(&self, below: Position, limit: u32) -> BoxFuture<'_, Result<Vec<Room>>>;

    /// The same of those whose [`Room::search`] contains `query`, which is not empty. `unavailable` when that takes the database
    /// over 250 ms.
    fn search(&self, query: String, below: Position, limit: u32) -> BoxFuture<'_, Result<Vec<Room>>>;

    /// How many searches may run at once without keeping other calls waiting.
    fn searches(&self) -> usize;

    /// Up to `limit` rooms whose name or description is not ASCII alone, by rising id above `after`.
    fn beyond_ascii(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Stored>>>;

    /// Writes anew the forms under which a room is compared and searched, unless it has changed meanwhile. Where another room has the name, it stays as it is compared.
    fn refold(&self, room: Room) -> BoxFuture<'_, Result<()>>;

    /// Changes name and description to those of `room` and owes the log `event`, whose number is the new revision; `false`
    /// when the room is not at the revision before. `room_name_taken` when another has the name.
    fn update(&self, room: Room, event: RoomEvent) -> BoxFuture<'_, Result<bool>>;

    /// Deletes the event's room and owes the log the event; `false` when the room is not at the revision before.
    fn delete(&self, event: RoomEvent) -> BoxFuture<'_, Result<bool>>;

    /// The oldest event owed of a room.
    fn oldest(&self, room: Uuid) -> BoxFuture<'_, Result<Option<Owed>>>;

    /// The event owed that closes a room.
    fn closing(&self, room: Uuid) -> BoxFuture<'_, Result<Option<Owed>>>;

    /// The oldest event owed of each of up to `limit` rooms, by rising room id above `after`.
    fn oldest_of_rooms(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Owed>>>;

    /// Forgets events that need not be appended any more; unknown ids are ignored.
    fn settle(&self, events: Vec<Uuid>) -> BoxFuture<'_, Result<()>>;
}

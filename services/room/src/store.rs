//! The store of rooms, their members and their outbox.

mod acquaintances;
#[cfg(test)]
mod contract;
mod pieces;
pub mod postgres;
mod rows;
pub mod sqlite;
pub mod tables;

use std::time::Duration;

use confab_common::metrics::LIMITS;
use confab_common::operations::Operations;
use confab_common::{Code, Error, Result};
use futures::future::BoxFuture;
use uuid::Uuid;

pub use acquaintances::AcquaintanceStore;
pub use rows::{
    Joining, Member, MemberChange, MemberPosition, Opening, OpeningRow, Owed, Position, Role, Room, RoomEvent, Seen,
    Stored, User, searchable,
};

/// Maximum members that the log accepts when it opens a room.
pub const MAX_OPENING_MEMBERS: u32 = 1000;

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

fn name_taken() -> Error {
    Error::new(Code::RoomNameTaken, "a public room with this name exists")
}

/// The error for a user who joins after the account was deleted.
fn user_gone() -> Error {
    Error::not_found("user")
}

fn too_many_rooms(maximum: u32) -> Error {
    LIMITS.hit("rooms_per_user");
    Error::new(Code::Conflict, format!("the user is in {maximum} rooms, the maximum for one user"))
}

/// Returns the maximum number of rooms to which other users may add a user who may be in `maximum` rooms. So the user
/// can create and join some in any case.
fn share_of_others(maximum: u32) -> u32 {
    maximum / 2
}

fn added_to_too_many_rooms(maximum: u32) -> Error {
    LIMITS.hit("rooms_per_user");
    let share = share_of_others(maximum);
    let detail = format!("other users may add the user to {share} of {maximum} rooms; the user can still join rooms");
    Error::new(Code::Conflict, detail)
}

/// Merges public rooms and the reader's private rooms into one page of the list.
fn newest_first(mut rooms: Vec<Seen>, limit: u32) -> Vec<Seen> {
    rooms.sort_by_key(|seen| std::cmp::Reverse(seen.room.position()));
    rooms.truncate(limit as usize);
    rooms
}

/// A store of rooms, their members and their outbox.
///
/// A change names the revision that it creates, and succeeds only on the revision before. A decision therefore always
/// matches the state that it changes, and the locked row numbers the outbox. Each number of a room is assigned once, in
/// commit order.
pub trait Store: RoomStore + MemberStore + AcquaintanceStore + OutboxStore + Send + Sync + 'static {}

impl<T: RoomStore + MemberStore + AcquaintanceStore + OutboxStore + Send + Sync + 'static> Store for T {}

/// The rooms. A reader is a user, or `None` for an anonymous reader.
pub trait RoomStore {
    /// Adds a room, with its creator as owner, which the log has not opened. Returns `false` when its id was used
    /// before, possibly by a room that is deleted now. `room_name_taken` when another public room has the name of a
    /// public room; `conflict` when the creator is in the maximum number of rooms.
    fn create(&self, room: Room) -> BoxFuture<'_, Result<bool>>;

    /// Returns a room, whether or not the reader may see it.
    fn get(&self, id: Uuid, reader: Option<Uuid>) -> BoxFuture<'_, Result<Option<Seen>>>;

    /// Returns those of these rooms that a user may see: public rooms, and private rooms of which the user is a member.
    fn visible(&self, ids: Vec<Uuid>, user: Uuid) -> BoxFuture<'_, Result<Vec<Uuid>>>;

    /// Returns up to `limit` rooms below a position, newest first: the public rooms, and the private rooms of which the
    /// reader is a member.
    fn list(&self, reader: Option<Uuid>, below: Position, limit: u32) -> BoxFuture<'_, Result<Vec<Seen>>>;

    /// Like [`list`](Self::list), but only rooms whose [`Room::search`] contains `query`, which must not be empty.
    /// `unavailable` when the search takes the database longer than 250 ms.
    fn search(
        &self,
        reader: Option<Uuid>,
        query: String,
        below: Position,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<Seen>>>;

    /// Returns how many searches may run at once without delaying other calls.
    fn searches(&self) -> usize;

    /// Returns up to `limit` rooms whose name or description contains non-ASCII characters, with ids above `after` in
    /// ascending order.
    fn beyond_ascii(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Stored>>>;

    /// Rewrites the forms in which a room is compared and searched, unless the room has changed meanwhile. If another
    /// room has the name, the compared form is kept.
    fn refold(&self, room: Room) -> BoxFuture<'_, Result<()>>;

    /// Changes name, description and visibility to those of `room`, and adds `event` to the outbox; its number is the
    /// new revision. Returns `false` when the room is not at the revision before. `room_name_taken` as in
    /// [`create`](Self::create).
    fn update(&self, room: Room, event: RoomEvent) -> BoxFuture<'_, Result<bool>>;

    /// Deletes the event's room with its members, and adds the event to the outbox. Returns `false` when the room is
    /// not at the revision before.
    fn delete(&self, event: RoomEvent) -> BoxFuture<'_, Result<bool>>;
}

/// A room as a reader sees it, and the membership of another user.
pub type SeenWithMember = (Seen, Option<Member>);

/// The members of rooms.
pub trait MemberStore {
    /// Returns a room as the reader sees it, and another user's membership from the same snapshot.
    fn get_member(&self, room: Uuid, reader: Uuid, user: Option<Uuid>)
    -> BoxFuture<'_, Result<Option<SeenWithMember>>>;

    /// Returns up to `limit` members after a position.
    fn members(&self, room: Uuid, after: MemberPosition, limit: u32) -> BoxFuture<'_, Result<Vec<Member>>>;

    /// Returns up to `limit` of a room's other members, without users whose accounts were deleted: the candidates for
    /// the ownership, in their order, when the owner's account is deleted.
    fn first_others(&self, room: Uuid, user: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Member>>>;

    /// Returns up to `limit` rooms of which a user is a member.
    fn rooms_of(&self, user: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Uuid>>>;

    /// Returns the positions of all rooms of which a user is a member and whose [`Room::search`] contains `query`, in
    /// no order. An empty query matches all rooms.
    fn own_rooms(&self, user: Uuid, query: String) -> BoxFuture<'_, Result<Vec<Position>>>;

    /// Returns those of these rooms of which the user is a member, in no order.
    fn read_own(&self, user: Uuid, rooms: Vec<Uuid>) -> BoxFuture<'_, Result<Vec<Seen>>>;

    /// Changes the members of the event's room, and adds the event to the outbox; its number is the new revision.
    /// Returns `false` when the room is not at the revision before. `conflict` when the user who joins is in the
    /// maximum number of rooms, or was added by other users to half as many and is added by one; `not_found` when the
    /// account of that user was deleted.
    fn change_members(&self, change: MemberChange) -> BoxFuture<'_, Result<bool>>;

    /// Records that the account of a user was deleted.
    fn record_gone(&self, user: User) -> BoxFuture<'_, Result<()>>;

    /// Records that such a user has left all rooms.
    fn record_left(&self, user: Uuid, at_ms: i64) -> BoxFuture<'_, Result<()>>;

    /// Returns up to `limit` users who have left all rooms, and when, with ids above `after` in ascending order, except
    /// those that are settled.
    fn unsettled(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<(User, i64)>>>;

    /// Records that a user who has left all rooms needs no further check.
    fn settle(&self, user: Uuid) -> BoxFuture<'_, Result<()>>;
}

/// The events and openings that the log has not received yet.
pub trait OutboxStore {
    /// Returns up to `limit` of the oldest events of a room in the outbox, in their order.
    fn oldest(&self, room: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Owed>>>;

    /// Returns the event in the outbox that closes a room.
    fn closing(&self, room: Uuid) -> BoxFuture<'_, Result<Option<Owed>>>;

    /// Returns the oldest outbox events of up to `rooms` rooms, with room ids above `after` in ascending order; of each
    /// room up to `each` events, in their order.
    fn oldest_of_rooms(&self, after: Uuid, rooms: u32, each: u32) -> BoxFuture<'_, Result<Vec<Owed>>>;

    /// Deletes events that need no further append; unknown ids are ignored.
    fn remove_events(&self, events: Vec<Uuid>) -> BoxFuture<'_, Result<()>>;

    /// Returns up to `limit` rooms that the log has not opened, with ids above `after` in ascending order.
    fn unopened(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Uuid>>>;

    /// Returns the current state of a room that the log has not opened, with the 1000 members that have the highest
    /// roles; `None` if it is open.
    fn opening(&self, room: Uuid) -> BoxFuture<'_, Result<Option<Opening>>>;

    /// Returns up to `limit` members of a room, with ids above `after` in ascending order. Unlike a position in the
    /// list of members, an id does not change while pages are read.
    fn members_by_id(&self, room: Uuid, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<(Uuid, Role)>>>;

    /// Records that the log has opened a room as [`opening`](Self::opening) returned it, with this epoch.
    fn remove_opening(&self, room: Uuid, epoch: Option<Uuid>) -> BoxFuture<'_, Result<()>>;

    /// Returns the log's epoch that is recorded.
    fn log_epoch(&self) -> BoxFuture<'_, Result<Option<Uuid>>>;

    /// Records the log's epoch, unless a later one is recorded.
    fn record_epoch(&self, epoch: Uuid) -> BoxFuture<'_, Result<()>>;

    /// Records for up to `limit` rooms, also deleted ones, with ids above `after`: they must be opened again in this
    /// epoch of the log. Returns the last id.
    fn reopen(&self, epoch: Uuid, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Option<Uuid>>>;

    /// Returns the recent operations that succeed only once.
    fn operations(&self) -> &dyn Operations;
}

//! What a log's store does, and what goes in and comes out. Every answer names the epoch, read in the same snapshot.

pub mod postgres;
pub mod sqlite;

#[cfg(test)]
mod contract;

use std::sync::Arc;

use confab_common::{Code, Error, Result};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Somebody said something.
    Message = 1,
    /// Somebody shared a file.
    File = 2,
    /// Something happened to the room.
    System = 3,
}

impl TryFrom<i64> for Kind {
    type Error = Error;

    fn try_from(number: i64) -> Result<Self> {
        match number {
            1 => Ok(Self::Message),
            2 => Ok(Self::File),
            3 => Ok(Self::System),
            _ => Err(Error::internal(format_args!("no kind of event has number {number}"))),
        }
    }
}

/// What an event says, kept as one JSON text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// The sender's name at that time.
    pub sender_username: String,
    /// What was written.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub content: String,
    /// [`Kind::System`]: what happened.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub event: String,
    /// [`Kind::System`]: a JSON object about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub data: String,
}

impl Body {
    fn to_text(&self) -> Result<String> {
        serde_json::to_string(self).map_err(Error::internal)
    }

    fn from_text(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(Error::internal)
    }
}

/// An event before the log has numbered it. (partition, room, sender, client id) is its identity: it is in the log once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// That of the room.
    pub partition: u32,
    /// Where.
    pub room: Uuid,
    /// Minted by the caller before its first attempt.
    pub id: Uuid,
    /// What.
    pub kind: Kind,
    /// Who.
    pub sender: Uuid,
    /// See [`client_id`].
    pub client_id: String,
    /// What it says.
    pub body: Body,
    /// Nothing can be appended to the room after it. Not kept with the event.
    pub closes_room: bool,
}

/// What stands for an event in its identity: what the client chose, or the event's own id in a namespace of its own.
pub fn client_id(client_message_id: Option<&str>, id: Uuid) -> String {
    match client_message_id {
        Some(chosen) => format!("c:{chosen}"),
        None => format!("i:{id}"),
    }
}

impl Draft {
    /// What the client chose, if it chose.
    pub fn client_message_id(&self) -> Option<&str> {
        self.client_id.strip_prefix("c:")
    }

    /// About how many bytes it takes on the wire; never fewer.
    pub fn size(&self) -> usize {
        let body = &self.body;
        EVENT_OVERHEAD + self.client_id.len() + body.sender_username.len() + body.content.len() + body.event.len() + body.data.len()
    }
}

/// What an encoded event takes at most besides its body and client id, in bytes.
pub const EVENT_OVERHEAD: usize = 200;

/// An event in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What was appended; shared, because it goes to the caller and to the bus.
    pub draft: Arc<Draft>,
    /// 1, 2, 3 … within the partition.
    pub position: u64,
    /// 1, 2, 3 … within the room.
    pub seq: u64,
    /// Milliseconds since 1970.
    pub created_at_ms: i64,
}

/// What became of one draft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the log now.
    Appended(Event),
    /// Its identity was in the log before: that event.
    Repeated(Event),
    /// Its room is closed.
    Closed,
}

/// What became of a batch.
#[derive(Debug)]
pub struct Appended {
    /// The log's epoch.
    pub epoch: Uuid,
    /// One for each draft, in their order.
    pub outcomes: Vec<Outcome>,
}

/// Why nothing of a batch was appended, or, for `timeout`, perhaps nothing.
#[derive(Debug)]
pub enum AppendError {
    /// One of its partitions is locked by somebody else for too long. Nothing was done.
    Locked,
    /// Anything else: `unavailable` (nothing was done), `timeout` (unknown), `internal` (a draft that cannot be stored).
    Failed(Error),
}

impl<E: Into<Error>> From<E> for AppendError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Which events of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// The newest.
    Latest,
    /// The newest below a `seq`.
    Before(u64),
    /// The oldest above a `seq`.
    After(u64),
}

impl Window {
    /// The bounds of `seq`, both exclusive, and whether the newest come first.
    fn bounds(self) -> (i64, i64, bool) {
        match self {
            Self::Latest => (0, i64::MAX, true),
            Self::Before(seq) => (0, number(seq), true),
            Self::After(seq) => (number(seq), i64::MAX, false),
        }
    }
}

/// How much of it: at most so many events and encoded bytes, but at least one event.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// Events; 0 reads the head alone.
    pub events: u32,
    /// Bytes.
    pub bytes: u32,
}

/// A page of a room or a partition, in rising number.
#[derive(Debug)]
pub struct Page {
    /// The log's epoch.
    pub epoch: Uuid,
    /// The room's newest `seq`, the partition's newest position.
    pub head: u64,
    /// The events.
    pub events: Vec<Event>,
}

/// The newest numbers of some partitions or rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heads<K> {
    /// The log's epoch.
    pub epoch: Uuid,
    /// Each with its newest number.
    pub heads: Vec<(K, u64)>,
}

/// A room and its partition.
pub type RoomKey = (u32, Uuid);

/// Where a log is kept.
pub trait Store: Send + Sync + 'static {
    /// Creates the log at its first start; later renews its epoch if the database is not the one it was last opened on.
    ///
    /// # Errors
    /// `conflict` when the log has another number of partitions; when the database fails.
    fn open_log(&self, partitions: u32) -> BoxFuture<'_, Result<Uuid>>;

    /// Renews the epoch of an existing log, because its database was restored to an older state.
    ///
    /// # Errors
    /// `not_found` when there is no log; when the database fails.
    fn renew_epoch(&self) -> BoxFuture<'_, Result<Uuid>>;

    /// Appends a batch in its order, all or nothing. No two of its drafts have the same identity.
    fn append<'a>(&'a self, drafts: &'a [Arc<Draft>], created_at_ms: i64) -> BoxFuture<'a, Result<Appended, AppendError>>;

    /// A page of a room's history, with the room's head.
    fn list(&self, room: RoomKey, window: Window, limit: Limit) -> BoxFuture<'_, Result<Page>>;

    /// Events of a partition above a position, with the partition's head.
    fn read_log(&self, partition: u32, after: u64, limit: Limit) -> BoxFuture<'_, Result<Page>>;

    /// The head of every partition, from the primary database.
    fn heads(&self) -> BoxFuture<'_, Result<Heads<u32>>>;

    /// The heads of rooms, 0 for one without events.
    fn room_heads(&self, rooms: Vec<RoomKey>) -> BoxFuture<'_, Result<Heads<Uuid>>>;
}

/// The epoch after `old`. Epochs only grow, also when this machine's clock is behind the one that made the last.
fn next_epoch(old: Option<Uuid>) -> Uuid {
    let next = Uuid::now_v7();
    match old {
        // One millisecond later: the time is in the upper 48 bits.
        Some(old) if next <= old => Uuid::from_u128(old.as_u128() + (1 << 80)),
        _ => next,
    }
}

/// What to do about a log whose row was found like this; `None` is nothing.
fn renewed(epoch: Uuid, fingerprint: (&str, &str), partitions: (i64, u32)) -> Result<Option<Uuid>> {
    if partitions.0 != i64::from(partitions.1) {
        let (has, wanted) = partitions;
        let detail = format!("the log has {has} partitions and CONFAB_PARTITIONS says {wanted}; the number is fixed when a log is created");
        return Err(Error::new(Code::Conflict, detail));
    }
    Ok((fingerprint.0 != fingerprint.1).then(|| next_epoch(Some(epoch))))
}

/// A number as the database has it.
fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_only_grow() {
        let ahead = Uuid::from_u128(Uuid::now_v7().as_u128() + (1 << 100));
        let next = next_epoch(Some(ahead));
        assert!(next > ahead && next.get_version_num() == 7);
        assert!(next_epoch(None) < next);
    }

    #[test]
    fn what_the_client_chose_never_meets_an_id() {
        let id = Uuid::now_v7();
        assert_ne!(client_id(Some(&id.to_string()), id), client_id(None, id));
    }
}

//! The interface of a log's store for reactions.

use confab_common::{Error, Result};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Readers, RoomAccess, RoomKey};

/// Maximum names of the reactions to a message.
pub const MAX_NAMES: usize = 20;
/// Maximum reactions in one event.
pub const MAX_REACTED: usize = 256;

/// A reaction that is set or ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reacted {
    pub user: Uuid,
    /// The user's name at that time.
    pub username: String,
    pub name: String,
    pub on: bool,
}

impl Reacted {
    /// Returns a close upper bound on the encoded size, in bytes.
    pub fn size(&self) -> usize {
        REACTED_OVERHEAD + self.username.len() + self.name.len()
    }
}

/// Maximum bytes of an encoded change of a reaction in addition to its texts; less than the field names take in the
/// body's JSON.
const REACTED_OVERHEAD: usize = 60;

/// The reactions to a message with one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reaction {
    pub name: String,
    /// Users; at least 1.
    pub count: u64,
}

impl Reaction {
    /// Returns a close upper bound on the encoded size, in bytes; less than the JSON of the state takes.
    pub fn size(&self) -> usize {
        18 + self.name.len()
    }

    /// Reads the reactions of a state.
    pub(super) fn list(text: Option<&str>) -> Result<Vec<Self>> {
        text.map_or(Ok(Vec::new()), |text| serde_json::from_str(text).map_err(Error::internal))
    }
}

/// A reaction of a user to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReactionEntry {
    /// The id, and the name at that time.
    pub user: (Uuid, String),
    pub name: String,
    /// Milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// A place in the list of a message's reactions: the reaction before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReactionPlace {
    pub at_ms: i64,
    pub user: Uuid,
    pub name: String,
}

/// The reactions to a message.
#[derive(Debug, Default)]
pub struct ReactionList {
    /// Whether the room has such a message.
    pub exists: bool,
    /// In ascending time, then user and name.
    pub reactions: Vec<ReactionEntry>,
}

/// The reactions of a user: the `seq` of a message and a name, in ascending order.
pub type OwnReactions = Vec<(u64, String)>;

/// The reads of reactions. Each returns the right of these readers in the same snapshot, and nothing else if none of
/// them may read the room.
pub trait ReactionStore: Send + Sync + 'static {
    /// Returns at most `limit` reactions to a message after a place; with a name, only those with this name.
    fn reactions(
        &self,
        room: RoomKey,
        seq: u64,
        name: Option<String>,
        after: ReactionPlace,
        limit: u32,
        readers: Readers,
    ) -> BoxFuture<'_, Result<(ReactionList, RoomAccess)>>;

    /// Returns the names with which a user has reacted to these messages.
    fn own_reactions(
        &self,
        room: RoomKey,
        user: Uuid,
        seqs: Vec<u64>,
    ) -> BoxFuture<'_, Result<(OwnReactions, RoomAccess)>>;
}

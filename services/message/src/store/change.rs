//! Changes of messages: what a change asks for, why it is refused, and what changes make of a message.

use confab_common::{Code, Error, Result};
use uuid::Uuid;

use super::reactions::{MAX_NAMES, Reaction};
use super::{FORMAT_WITH_CHANGES, FORMAT_WITH_REACTIONS};

/// Maximum pinned messages of a room.
pub const MAX_PINS: u32 = 100;

/// What a change does to its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Edit = 1,
    Delete = 2,
    Pin = 3,
    Unpin = 4,
    React = 5,
}

impl Op {
    /// Returns the first format of the log that may contain the operation.
    pub fn first_format(self) -> u32 {
        match self {
            Self::Edit | Self::Delete | Self::Pin | Self::Unpin => FORMAT_WITH_CHANGES,
            Self::React => FORMAT_WITH_REACTIONS,
        }
    }
}

impl TryFrom<i64> for Op {
    type Error = Error;

    fn try_from(number: i64) -> Result<Self> {
        match number {
            1 => Ok(Self::Edit),
            2 => Ok(Self::Delete),
            3 => Ok(Self::Pin),
            4 => Ok(Self::Unpin),
            5 => Ok(Self::React),
            _ => Err(Error::internal(format_args!("no operation has number {number}"))),
        }
    }
}

/// A change of a message. The log contains only the target and the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The `seq` of the message.
    pub target: u64,
    pub op: Op,
    /// The id that the message must have.
    pub target_id: Option<Uuid>,
    /// The message must not have been edited or deleted above this `seq`.
    pub unchanged_since: Option<u64>,
    /// Whether the sender is a server key without a user.
    pub moderator: bool,
    /// [`Op::Edit`]: whether the text stays, so that only the data changes. The log then contains the present text.
    pub keeps_text: bool,
}

impl Change {
    /// Creates a change of a message in any state.
    pub fn new(target: u64, op: Op) -> Self {
        Self { target, op, target_id: None, unchanged_since: None, moderator: false, keeps_text: false }
    }

    /// What the change does to which message. An identity names one act.
    pub fn act(&self) -> (u64, Op) {
        (self.target, self.op)
    }
}

/// Why a change is not in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The log has another act with the same identity.
    OtherAct,
    NoMessage,
    RoomEvent,
    Forbidden,
    /// The message has another id than the change expects.
    OtherMessage,
    Deleted,
    /// The edit would leave a message without text and files.
    Empty,
    /// The edit has data for a shared file.
    NoData,
    TooManyPins,
    /// The message was edited or deleted since.
    Changed,
    /// The reaction would be the first with a 21st name.
    TooManyNames,
}

impl Refusal {
    /// Returns the refusal with this name in the verdicts of Postgres.
    pub(super) fn parse(verdict: &str) -> Result<Self> {
        Ok(match verdict {
            "other_act" => Self::OtherAct,
            "no_message" => Self::NoMessage,
            "room_event" => Self::RoomEvent,
            "forbidden" => Self::Forbidden,
            "other_message" => Self::OtherMessage,
            "deleted" => Self::Deleted,
            "empty" => Self::Empty,
            "no_data" => Self::NoData,
            "too_many_pins" => Self::TooManyPins,
            "changed" => Self::Changed,
            "too_many_names" => Self::TooManyNames,
            _ => return Err(Error::internal(format_args!("no verdict is {verdict}"))),
        })
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::OtherAct => Self::new(Code::Conflict, "clientMessageId names another act in this room"),
            Refusal::NoMessage => Self::not_found("message"),
            Refusal::RoomEvent => Self::new(Code::Forbidden, "room events cannot be changed"),
            Refusal::Forbidden => Self::new(Code::Forbidden, "may not change this message in this way"),
            Refusal::OtherMessage => {
                Self::new(Code::Conflict, "id belongs to another message: the log was restored to an older state")
            }
            Refusal::Deleted => Self::new(Code::Conflict, "the message is deleted"),
            Refusal::Empty => Self::field("content", "must not be empty"),
            Refusal::NoData => Self::field("data", "must be absent: a message of type file has none"),
            Refusal::TooManyPins => {
                Self::new(Code::Conflict, format!("at most {MAX_PINS} messages of a room can be pinned"))
            }
            Refusal::Changed => Self::new(Code::PreconditionFailed, "the message has been edited or deleted since"),
            Refusal::TooManyNames => {
                Self::new(Code::Conflict, format!("a message can have reactions with at most {MAX_NAMES} names"))
            }
        }
    }
}

/// What changes have made of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The `seq` of the last change.
    pub revision: u64,
    /// When the text was last edited, in milliseconds since the Unix epoch.
    pub edited_at_ms: Option<i64>,
    /// Of a deleted message: the id and the name of the user or server key that deleted it.
    pub deleted_by: Option<(Uuid, String)>,
    pub pinned: bool,
    /// In the order of the first reaction with each name.
    pub reactions: Vec<Reaction>,
}

/// Bytes of an encoded state in addition to the name.
pub const STATE_OVERHEAD: usize = 100;

impl State {
    /// Returns a close upper bound on the encoded size, in bytes.
    pub fn size(&self) -> usize {
        let reactions = self.reactions.iter().map(Reaction::size).sum::<usize>();
        STATE_OVERHEAD + self.deleted_by.as_ref().map_or(0, |(_, name)| name.len()) + reactions
    }
}

//! Events of a room as clients receive them and as history has them.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Map, Value};
use uuid::Uuid;

use super::access::Change;

/// The fields of a message that changes give new values.
const PRESENT: &[&str] = &["content", "deleted", "deletedBy", "editedAt", "files", "pinned", "revision"];

/// An event as a client received it: its identity, a digest of everything that never changes, and of a message its
/// state at that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub room: Uuid,
    pub seq: u64,
    /// The id of the message; of a change, that of the user who made it.
    pub id: Uuid,
    /// The digest of all fields that no change can give new values.
    pub digest: u64,
    /// `None` for an event that no change can have as its target: a room event, or a change.
    pub state: Option<State>,
}

/// A state of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// The `seq` of the last change.
    pub revision: u64,
    pub deleted: bool,
    pub pinned: bool,
    /// The digest of the text.
    pub text: u64,
    /// The digest of the time of the last edit, and of the user who deleted the message.
    pub acts: u64,
}

/// An operation of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    Edit,
    Delete,
    Pin,
    Unpin,
}

impl Op {
    fn of(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "edit" => Some(Self::Edit),
            "delete" => Some(Self::Delete),
            "pin" => Some(Self::Pin),
            "unpin" => Some(Self::Unpin),
            _ => None,
        }
    }
}

/// A live event.
#[derive(Debug, Clone, Copy)]
pub struct Delivered {
    pub event: Seen,
    /// Of a change: its message, in a state at or after the change.
    pub message: Option<Seen>,
}

/// An entry of the raw log.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The event as clients receive it; a message in its final state.
    pub seen: Seen,
    pub sender: Uuid,
    /// Its `clientMessageId`.
    pub key: String,
    /// The change of the room's members or visibility, for an event that is one.
    pub change: Option<Change>,
    /// The change of a message, for an event that is one: what it does to the message with this `seq`.
    pub act: Option<(u64, Op)>,
}

impl Seen {
    /// Parses a message; `None` when it is not a message.
    pub fn of(message: &Value) -> Option<Self> {
        let (room, seq, id) = (uuid(&message["roomId"])?, message["seq"].as_u64()?, uuid(&message["id"])?);
        if message["type"] == "system" {
            return Some(Self { room, seq, id, digest: digest(message), state: None });
        }
        let lasting = message.as_object()?.iter().filter(|(name, _)| !PRESENT.contains(&name.as_str()));
        let lasting = Value::Object(lasting.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>());
        let state = State {
            revision: message["revision"].as_u64()?,
            deleted: message["deleted"].as_bool()?,
            pinned: message["pinned"].as_bool()?,
            text: text(message["content"].as_str()?),
            acts: digest(&Value::from(vec![message["editedAt"].clone(), message["deletedBy"].clone()])),
        };
        Some(Self { room, seq, id, digest: digest(&lasting), state: Some(state) })
    }

    /// Whether both are the same event, in any state.
    pub fn is_same_event(&self, other: &Self) -> bool {
        Self { state: None, ..*self } == Self { state: None, ..*other }
    }

    /// The event of a change; `by`: the name of the field with the user who made it.
    fn of_change(change: &Value, room: Uuid, by: &str) -> Option<(Self, (u64, Op))> {
        let (target, op) = (change["target"].as_u64()?, Op::of(&change["op"])?);
        let id = uuid(&change[by]["id"])?;
        let mut hasher = DefaultHasher::new();
        (target, op).hash(&mut hasher);
        let seen = Self { room, seq: change["seq"].as_u64()?, id, digest: hasher.finish(), state: None };
        Some((seen, (target, op)))
    }
}

impl Delivered {
    /// Parses a live event; `None` when it is no event of a room's log.
    pub fn of(event: &Value) -> Option<Self> {
        if event["target"].is_null() {
            return Seen::of(event).map(|event| Self { event, message: None });
        }
        let (seen, _) = Seen::of_change(event, uuid(&event["roomId"])?, "by")?;
        Some(Self { event: seen, message: Some(Seen::of(&event["message"])?) })
    }
}

impl Stored {
    /// Parses an entry of a room's raw log; `None` when it is not one.
    pub fn of(room: Uuid, entry: &Value) -> Option<Self> {
        let sender = uuid(&entry["sender"]["id"])?;
        if entry["type"] == "change" {
            let (seen, act) = Seen::of_change(entry, room, "sender")?;
            return Some(Self { seen, sender, key: String::new(), change: None, act: Some(act) });
        }
        let key = entry["clientMessageId"].as_str().unwrap_or_default().to_owned();
        Some(Self { seen: Seen::of(entry)?, sender, key, change: Change::of(entry), act: None })
    }
}

/// Returns the digest of a text, as a state has it.
pub fn text(content: &str) -> u64 {
    digest(&Value::from(content))
}

fn digest(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.to_string().hash(&mut hasher);
    hasher.finish()
}

fn uuid(value: &Value) -> Option<Uuid> {
    Uuid::try_parse(value.as_str()?).ok()
}

//! Events of a room as clients receive them and as history has them.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Map, Value};
use uuid::Uuid;

use super::access::Change;

/// The fields of a message that changes give new values.
const PRESENT: &[&str] = &[
    "content",
    "data",
    "deleted",
    "deletedBy",
    "editedAt",
    "files",
    "lastReplySeq",
    "mentions",
    "pinned",
    "reactions",
    "replyCount",
    "revision",
    "root",
];

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
    /// The digest of the time of the last edit, of the user who deleted the message, and of its mentions and data.
    pub acts: u64,
    /// The digest of the counts of its reactions; see [`tally`].
    pub reactions: u64,
    pub replies: Replies,
}

/// The replies to a root.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replies {
    /// How many are not deleted.
    pub count: u64,
    /// The `seq` of the last one, deleted or not; 0: there was none.
    pub last: u64,
}

/// New values of some fields of a message, in an event that does not show the whole message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partial {
    pub room: Uuid,
    pub seq: u64,
    pub id: Uuid,
    pub revision: u64,
    pub values: Values,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    Reactions(u64),
    Replies(Replies),
}

/// A reaction that a user gave or took back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Toggle {
    pub user: Uuid,
    pub name: String,
    pub on: bool,
}

/// An operation of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    Edit,
    Delete,
    Pin,
    Unpin,
    /// One or more users gave reactions or took them back.
    React,
}

impl Op {
    fn of(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "edit" => Some(Self::Edit),
            "delete" => Some(Self::Delete),
            "pin" => Some(Self::Pin),
            "unpin" => Some(Self::Unpin),
            "react" => Some(Self::React),
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
    /// Of a reaction: the new counts of its message; of a reply and its deletion: the new counts of the root.
    pub partial: Option<Partial>,
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
    /// The reactions that the change gave or took back.
    pub toggles: Vec<Toggle>,
    /// The root of a reply.
    pub thread: Option<u64>,
}

impl Seen {
    /// Parses a message; `None` when it is not a message.
    pub fn of(message: &Value) -> Option<Self> {
        let (room, seq, id) = (uuid(&message["roomId"])?, message["seq"].as_u64()?, uuid(&message["id"])?);
        if message["type"] == "system" {
            return Some(Self { room, seq, id, digest: digest(message), state: None });
        }
        let lasting = message.as_object()?.iter().filter(|(name, _)| !PRESENT.contains(&name.as_str()));
        let mut lasting = lasting.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>();
        // The excerpt is that of the last read.
        lasting.get_mut("replyTo").and_then(Value::as_object_mut).and_then(|target| target.remove("excerpt"));
        let lasting = Value::Object(lasting);
        let acts = ["editedAt", "deletedBy", "mentions", "data"].map(|name| message[name].clone());
        let state = State {
            revision: message["revision"].as_u64()?,
            deleted: message["deleted"].as_bool()?,
            pinned: message["pinned"].as_bool()?,
            text: text(message["content"].as_str()?),
            acts: digest(&Value::from(acts.to_vec())),
            reactions: counts(&message["reactions"])?,
            replies: Replies::of(message),
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
        // Reactions of several users are one change.
        let id = if op == Op::React { Uuid::nil() } else { uuid(&change[by]["id"])? };
        let mut hasher = DefaultHasher::new();
        (target, op, toggles(&change["changes"])?).hash(&mut hasher);
        let seen = Self { room, seq: change["seq"].as_u64()?, id, digest: hasher.finish(), state: None };
        Some((seen, (target, op)))
    }
}

impl Delivered {
    /// Parses a live event; `None` when it is no event of a room's log.
    pub fn of(event: &Value) -> Option<Self> {
        let room = uuid(&event["roomId"])?;
        let root = Partial::of(room, &event["root"], Values::Replies(Replies::of(&event["root"])));
        if event["target"].is_null() {
            return Seen::of(event).map(|event| Self { event, message: None, partial: root });
        }
        if event["changes"].is_array() {
            let mut change = event.clone();
            change["op"] = Value::from("react");
            let (seen, _) = Seen::of_change(&change, room, "by")?;
            let values = Values::Reactions(counts(&event["reactions"])?);
            let partial = Partial::of(room, &event["message"], values)?;
            return Some(Self { event: seen, message: None, partial: Some(partial) });
        }
        let (seen, _) = Seen::of_change(event, room, "by")?;
        Some(Self { event: seen, message: Some(Seen::of(&event["message"])?), partial: root })
    }
}

impl Stored {
    /// Parses an entry of a room's raw log; `None` when it is not one.
    pub fn of(room: Uuid, entry: &Value) -> Option<Self> {
        let sender = uuid(&entry["sender"]["id"])?;
        if entry["type"] == "change" {
            let (seen, act) = Seen::of_change(entry, room, "sender")?;
            let toggles = toggles(&entry["changes"])?;
            let key = String::new();
            return Some(Self { seen, sender, key, change: None, act: Some(act), toggles, thread: None });
        }
        let key = entry["clientMessageId"].as_str().unwrap_or_default().to_owned();
        let (seen, change, thread) = (Seen::of(entry)?, Change::of(entry), entry["thread"].as_u64());
        Some(Self { seen, sender, key, change, act: None, toggles: Vec::new(), thread })
    }
}

impl Replies {
    fn of(message: &Value) -> Self {
        let number = |name: &str| message[name].as_u64().unwrap_or_default();
        Self { count: number("replyCount"), last: number("lastReplySeq") }
    }
}

impl Partial {
    fn of(room: Uuid, message: &Value, values: Values) -> Option<Self> {
        let (seq, revision) = (message["seq"].as_u64()?, message["revision"].as_u64()?);
        Some(Self { room, seq, id: uuid(&message["id"])?, revision, values })
    }
}

/// Returns the digest of the counts of reactions by name, in any order.
pub fn tally<'a>(counts: impl IntoIterator<Item = (&'a str, u64)>) -> u64 {
    let mut counts = counts.into_iter().collect::<Vec<_>>();
    counts.sort_unstable();
    let mut hasher = DefaultHasher::new();
    counts.hash(&mut hasher);
    hasher.finish()
}

/// Returns the digest of a list of reactions; a message without such a list has none.
fn counts(reactions: &Value) -> Option<u64> {
    let reactions = reactions.as_array().map_or(&[][..], Vec::as_slice).iter();
    let counts = reactions.map(|one| Some((one["name"].as_str()?, one["count"].as_u64()?)));
    Some(tally(counts.collect::<Option<Vec<_>>>()?))
}

fn toggles(changes: &Value) -> Option<Vec<Toggle>> {
    let toggle = |change: &Value| {
        let (user, name) = (uuid(&change["user"]["id"])?, change["name"].as_str()?.to_owned());
        Some(Toggle { user, name, on: change["on"].as_bool()? })
    };
    changes.as_array().map_or(&[][..], Vec::as_slice).iter().map(toggle).collect()
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

//! Reactions to messages.

use confab_proto::message::v1::{Change, Event, ListReactionsResponse, Reaction, ReactionChange, ReactionEntry};
use serde::Serialize;
use utoipa::ToSchema;

use super::page::Time;
use super::user::UserJson;

/// The reactions to a message with one name.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Reaction)]
pub struct ReactionJson<'a> {
    /// The name, for example an emoji.
    #[schema(min_length = 1)]
    name: &'a str,
    /// The number of users who have reacted with the name.
    #[schema(minimum = 1)]
    count: u64,
    /// Whether the caller is one of them. Absent in events and in the messages of `joinRoom`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    mine: Option<bool>,
}

/// The reactions of a message, in the order of the first reaction with each name.
pub fn reactions(message: &Event) -> Vec<ReactionJson<'_>> {
    let reactions = message.state.iter().flat_map(|state| &state.reactions);
    reactions.map(|Reaction { name, count, mine }| ReactionJson { name, count: *count, mine: *mine }).collect()
}

/// The reactions to a message.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Reactions<'a> {
    /// At most 20, in the order of the first reaction with each name.
    #[schema(max_items = 20)]
    reactions: Vec<ReactionJson<'a>>,
}

impl<'a> From<&'a Event> for Reactions<'a> {
    fn from(message: &'a Event) -> Self {
        Self { reactions: reactions(message) }
    }
}

/// A reaction that was set or ended.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ReactionChange)]
pub struct ReactionChangeJson<'a> {
    #[schema(required)]
    user: Option<UserJson<'a>>,
    name: &'a str,
    /// Whether the user reacts with the name since.
    on: bool,
}

impl<'a> From<&'a ReactionChange> for ReactionChangeJson<'a> {
    fn from(change: &'a ReactionChange) -> Self {
        Self { user: change.user.as_ref().map(UserJson::from), name: &change.name, on: change.on }
    }
}

/// Returns the reactions that a change has set or ended.
pub fn reaction_changes(change: &Change) -> Vec<ReactionChangeJson<'_>> {
    change.reactions.iter().map(ReactionChangeJson::from).collect()
}

/// A change of reactions, as clients in its room receive it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReactedJson<'a> {
    room_id: &'a str,
    seq: u64,
    target: u64,
    message: Option<Revision<'a>>,
    changes: Vec<ReactionChangeJson<'a>>,
    reactions: Vec<ReactionJson<'a>>,
}

/// A message and its revision by this change. It is never that of a later state: a client that holds the revision of a
/// later edit would not take the edit, and the event has no text.
#[derive(Debug, Clone, Serialize)]
struct Revision<'a> {
    seq: u64,
    id: &'a str,
    revision: u64,
}

impl<'a> ReactedJson<'a> {
    pub fn new(event: &'a Event, change: &'a Change) -> Self {
        let message = change.message.as_deref();
        let revision = |message: &'a Event| Revision { seq: message.seq, id: &message.id, revision: event.seq };
        Self {
            room_id: &event.room_id,
            seq: event.seq,
            target: change.target,
            message: message.map(revision),
            changes: reaction_changes(change),
            reactions: message.map(reactions).unwrap_or_default(),
        }
    }
}

/// A reaction of a user.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ReactionEntry)]
struct EntryJson<'a> {
    /// The user. The username is that of the time of the reaction.
    #[schema(required)]
    user: Option<UserJson<'a>>,
    name: &'a str,
    /// When the user reacted.
    at: Time,
}

/// A page of the reactions to a message.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReactionList<'a> {
    /// The oldest first.
    items: Vec<EntryJson<'a>>,
    /// The `cursor` of the next page; null on the last page.
    #[schema(required)]
    next_cursor: Option<&'a str>,
}

impl<'a> From<&'a ListReactionsResponse> for ReactionList<'a> {
    fn from(list: &'a ListReactionsResponse) -> Self {
        let item = |entry: &'a ReactionEntry| EntryJson {
            user: entry.user.as_ref().map(UserJson::from),
            name: &entry.name,
            at: Time(entry.at_ms),
        };
        let next_cursor = Some(&*list.next_cursor).filter(|cursor| !cursor.is_empty());
        Self { items: list.reactions.iter().map(item).collect(), next_cursor }
    }
}

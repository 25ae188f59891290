//! The outcomes of appends, with messages in their present state.

use std::collections::HashSet;
use std::sync::Arc;

use uuid::Uuid;

use super::{Event, EventData, Kind, Refusal, RoomKey};

/// A room and a file in it.
type FileKey = (RoomKey, Uuid);

/// The outcome of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The event is in the log now.
    Appended(Event),
    /// The log already had this event with the same identity.
    Repeated(Event),
    /// The event's room is closed or not open, or it is private and the sender is not a member.
    Hidden,
    /// The change would change nothing; this is its message in the present state.
    Unchanged(Event),
    /// The reaction stands; this is its event, or its message if it changes nothing. Then all names with which its sender
    /// reacts to the message.
    Reacted(Event, Vec<String>),
    /// The event cannot be appended in the present state of its message.
    Refused(Refusal),
}

impl Outcome {
    pub fn event_mut(&mut self) -> Option<&mut Event> {
        match self {
            Self::Appended(event) | Self::Repeated(event) | Self::Unchanged(event) | Self::Reacted(event, _) => {
                Some(event)
            }
            Self::Hidden | Self::Refused(_) => None,
        }
    }

    /// The outcome of a change that would change nothing, until it is given its message.
    pub(super) fn unchanged(data: &Arc<EventData>) -> Self {
        let target = data.change.map_or(0, |change| change.target);
        Self::Unchanged(Event::new(data.clone(), 0, target, 0))
    }

    /// The outcome of a reaction that changes nothing, until it is given its message.
    pub(super) fn unmoved(data: &Arc<EventData>, own: Vec<String>) -> Self {
        let target = data.change.map_or(0, |change| change.target);
        Self::Reacted(Event::new(data.clone(), 0, target, 0), own)
    }

    /// Returns the room and the `seq` of the message whose present state the outcome needs.
    pub(super) fn needed(&self) -> Option<(RoomKey, u64)> {
        let (Self::Appended(event) | Self::Repeated(event) | Self::Unchanged(event) | Self::Reacted(event, _)) = self
        else {
            return None;
        };
        let room = (event.data.partition, event.data.room);
        match (event.data.change, self) {
            (Some(change), _) => Some((room, change.target)),
            (None, Self::Repeated(_)) if event.data.kind != Kind::System => Some((room, event.seq)),
            _ => None,
        }
    }

    /// Gives the outcome the message that it needs.
    pub(super) fn give(&mut self, message: Event) {
        match self {
            Self::Appended(event) | Self::Repeated(event) if event.data.change.is_some() => event.give_message(message),
            // Without a position, it has changed nothing.
            Self::Reacted(event, _) if event.position > 0 => event.give_message(message),
            Self::Reacted(event, _) => *event = message,
            Self::Repeated(event) | Self::Unchanged(event) => *event = message,
            Self::Appended(_) | Self::Hidden | Self::Refused(_) => {}
        }
    }
}

/// Returns the outcome of an event whose identity the log has: a repeat, unless one of the two is a change of its own.
pub fn of_earlier(earlier: Event, data: &EventData) -> Outcome {
    let act = |data: &EventData| data.change.map(|change| change.act());
    if act(&earlier.data) == act(data) { Outcome::Repeated(earlier) } else { Outcome::Refused(Refusal::OtherAct) }
}

/// Filters the messages with files, among them those of changes.
pub fn with_files<'a>(events: impl IntoIterator<Item = &'a mut Event>) -> Vec<&'a mut Event> {
    let messages = events.into_iter().filter_map(|event| {
        if event.message.is_some() { event.message.as_mut().map(Arc::make_mut) } else { Some(event) }
    });
    messages.filter(|event| !event.data.body.files.is_empty()).collect()
}

/// Returns the keys of the events' files.
pub fn files_of(events: &[&mut Event]) -> Vec<FileKey> {
    let batch = events.iter().map(|event| &event.data);
    batch.flat_map(|data| data.body.files.iter().map(|file| ((data.partition, data.room), file.id))).collect()
}

/// Marks the deleted files.
pub fn mark_deleted(events: Vec<&mut Event>, deleted: &HashSet<FileKey>) {
    for event in events {
        let room = (event.data.partition, event.data.room);
        if event.data.body.files.iter().any(|file| deleted.contains(&(room, file.id))) {
            let files = &mut Arc::make_mut(&mut event.data).body.files;
            files.iter_mut().for_each(|file| file.deleted = deleted.contains(&(room, file.id)));
        }
    }
}

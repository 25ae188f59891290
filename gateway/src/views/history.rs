//! Pages of a room's log.

use confab_common::{Error, cursor};
use confab_proto::message::v1::{Event, ListChangesResponse, ListEventsResponse, ListPinsResponse, ReadEventsResponse};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::message::MessageJson;

/// The place of a page in a room's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Position {
    /// The newest events.
    Latest,
    /// The events before this `seq`.
    Before(u64),
    /// The events after this `seq`.
    After(u64),
}

impl Position {
    /// Decodes a cursor, which is valid only for its room.
    ///
    /// # Errors
    /// `invalid_request` for any other text.
    pub fn of_cursor(room: Uuid, text: &str) -> Result<Self, Error> {
        match cursor::decode::<(Uuid, Self)>(text)? {
            (of, position @ (Self::Before(seq) | Self::After(seq))) if of == room && i64::try_from(seq).is_ok() => {
                Ok(position)
            }
            _ => Err(Error::field("cursor", "must be a cursor that this list returned")),
        }
    }
}

/// A part of a room's log, as the message service returned it.
#[derive(Debug, Default)]
pub struct Part {
    pub epoch: String,
    pub last_seq: u64,
    pub events: Vec<Event>,
    /// Whether there are further events in the direction of reading.
    pub more: bool,
}

/// The answers of the message service that are parts of a room's log.
macro_rules! parts {
    ($($answer:ident: $events:ident;)+) => {$(
        impl From<$answer> for Part {
            fn from($answer { epoch, last_seq, $events: events, more, .. }: $answer) -> Self {
                Self { epoch, last_seq, events, more }
            }
        }
    )+};
}

parts! {
    ListEventsResponse: events;
    ReadEventsResponse: events;
    ListChangesResponse: messages;
}

/// A page of a room's log.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct History<T> {
    /// The items of the page.
    pub items: Vec<T>,
    /// The `cursor` of the next page; null on the last page.
    #[schema(required)]
    pub next_cursor: Option<String>,
    /// The room's newest `seq` when the page was read, changes of messages included.
    pub last_seq: u64,
    /// The state of the log to which the numbers belong. It changes when the log is restored to an older state; then
    /// the client drops what it holds of the room.
    pub epoch: String,
}

/// The public form of a page, with the cursor of the next page in the same direction.
pub fn page<'a, T: From<&'a Event>>(room: Uuid, position: Position, part: &'a Part) -> History<T> {
    let next = match position {
        Position::Latest | Position::Before(_) => part.events.first().map(|event| Position::Before(event.seq)),
        Position::After(_) => part.events.last().map(|event| Position::After(event.seq)),
    };
    whole(part, next.filter(|_| part.more).map(|next| cursor::encode(&(room, next))))
}

fn whole<'a, T: From<&'a Event>>(part: &'a Part, next_cursor: Option<String>) -> History<T> {
    let items = part.events.iter().map(T::from).collect();
    History { items, next_cursor, last_seq: part.last_seq, epoch: part.epoch.clone() }
}

/// The changed messages that a client requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// The messages whose `revision` is higher.
    pub after: u64,
    /// The lowest and the highest `seq` of the messages; a highest one of 0 stands for the newest.
    pub from: u64,
    pub up_to: u64,
}

impl Changes {
    /// Decodes a cursor, which is valid only for its room.
    ///
    /// # Errors
    /// `invalid_request` for any other text.
    pub fn of_cursor(room: Uuid, text: &str) -> Result<Self, Error> {
        let is_valid = |seq: u64| i64::try_from(seq).is_ok();
        match cursor::decode::<(Uuid, Self)>(text)? {
            (of, it) if of == room && [it.after, it.from, it.up_to].into_iter().all(is_valid) => Ok(it),
            _ => Err(Error::field("cursor", "must be a cursor that this list returned")),
        }
    }

    /// The public form of a page, with the cursor of the next page.
    pub fn page<'a>(self, room: Uuid, part: &'a Part) -> History<MessageJson<'a>> {
        let last = part.events.last().filter(|_| part.more).and_then(|event| event.state.as_ref());
        whole(part, last.map(|state| cursor::encode(&(room, Self { after: state.revision, ..self }))))
    }
}

/// The pinned messages of a room.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pins<'a> {
    /// At most 100 messages, the last pinned one first.
    items: Vec<MessageJson<'a>>,
    /// The room's newest `seq` when the list was read.
    last_seq: u64,
    /// The state of the log to which the numbers belong.
    epoch: &'a str,
}

impl<'a> From<&'a ListPinsResponse> for Pins<'a> {
    fn from(pins: &'a ListPinsResponse) -> Self {
        let items = pins.messages.iter().map(MessageJson::from).collect();
        Self { items, last_seq: pins.last_seq, epoch: &pins.epoch }
    }
}

#[cfg(test)]
mod tests {
    use confab_proto::message::v1::State;

    use super::*;

    #[test]
    fn a_cursor_keeps_its_direction_and_is_valid_only_for_its_room() {
        let room = Uuid::now_v7();
        let events = [4, 5].map(|seq| Event { seq, ..Event::default() }).into();
        let mut history = Part { events, more: true, ..Part::default() };
        let next = |position, history: &_| page::<MessageJson<'_>>(room, position, history).next_cursor;
        let older = next(Position::Latest, &history).unwrap();
        assert_eq!(Position::of_cursor(room, &older).unwrap(), Position::Before(4));
        let newer = next(Position::After(3), &history).unwrap();
        assert_eq!(Position::of_cursor(room, &newer).unwrap(), Position::After(5));

        assert!(Position::of_cursor(Uuid::now_v7(), &older).is_err());
        let forged = [Position::Latest, Position::Before(u64::MAX)].map(|position| cursor::encode(&(room, position)));
        for bad in ["", "x", &forged[0], &forged[1]] {
            assert_eq!(Position::of_cursor(room, bad).unwrap_err().fields[0].field, "cursor");
        }
        history.more = false;
        assert_eq!(next(Position::After(3), &history), None);
    }
    #[test]
    fn a_cursor_of_changes_keeps_its_range_and_is_valid_only_for_its_room() {
        let (room, changes) = (Uuid::now_v7(), Changes { after: 3, from: 2, up_to: 8 });
        let state = |revision| Some(State { revision, ..State::default() });
        let events = [(7, 9), (4, 12)].map(|(seq, revision)| Event { seq, state: state(revision), ..Event::default() });
        let mut part = Part { events: events.into(), more: true, last_seq: 20, epoch: "e".into() };
        let page = changes.page(room, &part);
        assert_eq!((page.items.len(), page.last_seq, &*page.epoch), (2, 20, "e"));
        let cursor = page.next_cursor.unwrap();
        assert_eq!(Changes::of_cursor(room, &cursor).unwrap(), Changes { after: 12, ..changes });
        let forged = cursor::encode(&(room, Changes { after: u64::MAX, ..changes }));
        for (room, bad) in [(Uuid::now_v7(), &cursor), (room, &forged), (room, &"x".to_owned())] {
            assert_eq!(Changes::of_cursor(room, bad).unwrap_err().fields[0].field, "cursor");
        }
        part.more = false;
        assert_eq!(changes.page(room, &part).next_cursor, None);
    }
}

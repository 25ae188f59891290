//! Pages of a room's log.

use confab_common::{Error, cursor};
use confab_proto::message::v1::ListEventsResponse;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::message::MessageJson;
use super::page::Page;

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

/// The public form of a page, with the cursor of the next page in the same direction.
pub fn page(room: Uuid, position: Position, history: &ListEventsResponse) -> Page<MessageJson<'_>> {
    let next = match position {
        Position::Latest | Position::Before(_) => history.events.first().map(|event| Position::Before(event.seq)),
        Position::After(_) => history.events.last().map(|event| Position::After(event.seq)),
    };
    let next_cursor = next.filter(|_| history.more).map(|next| cursor::encode(&(room, next)));
    Page { items: history.events.iter().map(MessageJson::from).collect(), next_cursor }
}

#[cfg(test)]
mod tests {
    use confab_proto::message::v1::Event;

    use super::*;

    #[test]
    fn a_cursor_keeps_its_direction_and_is_valid_only_for_its_room() {
        let room = Uuid::now_v7();
        let events = [4, 5].map(|seq| Event { seq, ..Event::default() }).into();
        let mut history = ListEventsResponse { events, more: true, ..ListEventsResponse::default() };
        let next = |position, history: &_| page(room, position, history).next_cursor;
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
}

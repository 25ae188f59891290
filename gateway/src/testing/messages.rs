//! A scripted message service with one log for all rooms. It knows no rights, except that only authors edit.

use bytes::Bytes;
use confab_common::{Code, Error};
use confab_proto::file::v1::File;
use confab_proto::message::v1::*;
use parking_lot::Mutex;
use prost::Message;

use crate::testing::identity;

/// The private room. Only the log knows that `zoë` is its only member; the room service shows it to all callers.
pub const PRIVATE: &str = "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c0f";

/// The log.
#[derive(Default)]
struct Log {
    events: Vec<Event>,
}

/// A message service with an empty log.
pub fn message() -> impl Fn(&str, Bytes) -> Result<Vec<u8>, Error> {
    let log = Mutex::<Log>::default();
    move |method, body| log.lock().answer(method, body)
}

impl Log {
    fn answer(&mut self, method: &str, body: Bytes) -> Result<Vec<u8>, Error> {
        let (epoch, last_seq) = ("e".to_owned(), self.events.len() as u64);
        match method {
            "Append" => {
                let events = AppendRequest::decode(body).unwrap().events;
                let outcomes = events.into_iter().map(|event| self.append(event)).collect();
                Ok(AppendResponse { epoch, outcomes }.encode_to_vec())
            }
            "ListEvents" => {
                let list = ListEventsRequest::decode(body).unwrap();
                if list.room_id == PRIVATE && list.readers != [identity().user.id] {
                    return Err(Error::new(Code::NotFound, "the room is not open to the readers"));
                }
                let is_listed = |event: &&Event| list.after.is_none_or(|after| event.seq > after);
                let events = self.events.iter().filter(|event| event.kind() != Kind::Change).filter(is_listed);
                let events = events.cloned().collect();
                Ok(ListEventsResponse { epoch, last_seq, events, more: true, ..<_>::default() }.encode_to_vec())
            }
            "ReadEvents" => {
                let events = self.events.clone();
                Ok(ReadEventsResponse { epoch, last_seq, events, more: false }.encode_to_vec())
            }
            "ListChanges" => {
                let list = ListChangesRequest::decode(body).unwrap();
                let is_listed = |state: &State| state.revision > list.after;
                let messages = self.events.iter().filter(|event| event.state.as_ref().is_some_and(is_listed));
                let messages = messages.cloned().collect();
                Ok(ListChangesResponse { epoch, last_seq, messages, more: true }.encode_to_vec())
            }
            "ListPins" => {
                let messages =
                    self.events.iter().filter(|event| event.state.as_ref().is_some_and(|state| state.pinned));
                Ok(ListPinsResponse { epoch, last_seq, messages: messages.cloned().collect() }.encode_to_vec())
            }
            "ListVersions" => {
                let seq = ListVersionsRequest::decode(body).unwrap().seq;
                let message = self.events.iter().find(|event| event.seq == seq);
                let message = message.ok_or_else(|| Error::new(Code::NotFound, "nothing there"))?.clone();
                let version = Version { revision: seq, content: message.content, at_ms: 0, by: message.sender };
                Ok(ListVersionsResponse { versions: vec![version] }.encode_to_vec())
            }
            "ListReactions" => {
                let list = ListReactionsRequest::decode(body).unwrap();
                let message = self.events.iter().find(|event| event.seq == list.seq);
                let message = message.ok_or_else(|| Error::new(Code::NotFound, "nothing there"))?;
                let entry =
                    |it: &Reaction| ReactionEntry { user: message.sender.clone(), name: it.name.clone(), at_ms: 0 };
                let found = message.state.iter().flat_map(|state| &state.reactions);
                let found = found.filter(|it| list.name.is_empty() || it.name == list.name).map(entry);
                Ok(ListReactionsResponse { reactions: found.collect(), next_cursor: list.cursor }.encode_to_vec())
            }
            "ListOwnReactions" => {
                let list = ListOwnReactionsRequest::decode(body).unwrap();
                let of = |event: &Event| {
                    let reactions = event.state.iter().flat_map(|state| &state.reactions);
                    reactions.filter(|it| it.mine == Some(true)).map(|it| it.name.clone()).collect()
                };
                let messages = self.events.iter().filter(|event| list.seqs.contains(&event.seq));
                let messages = messages.map(|event| OwnReactions { seq: event.seq, names: of(event) }).collect();
                Ok(ListOwnReactionsResponse { messages }.encode_to_vec())
            }
            "ListMarkers" => Ok(ListMarkersResponse::default().encode_to_vec()),
            "MarkRead" => {
                let marks = MarkReadRequest::decode(body).unwrap().marks;
                let outcomes = marks.into_iter().map(|mark| {
                    let marked = Marked { seq: mark.seq, moved: true, ..Marked::default() };
                    MarkOutcome { result: Some(mark_outcome::Result::Marked(marked)) }
                });
                Ok(MarkReadResponse { outcomes: outcomes.collect() }.encode_to_vec())
            }
            "Search" => {
                let search = SearchRequest::decode(body).unwrap();
                if search.room_id == PRIVATE && search.reader != identity().user.id {
                    return Err(Error::new(Code::NotFound, "the room is not open to the reader"));
                }
                let is_found = |event: &&Event| event.content.contains(&search.query);
                let of_sender = |event: &&Event| {
                    search.sender_id.is_empty() || event.sender.as_ref().is_some_and(|it| it.id == search.sender_id)
                };
                let found = self.events.iter().filter(is_found).filter(of_sender).cloned();
                let highlights = vec![Highlight { start: 0, end: search.query.len() as u32 }];
                let items = found.map(|event| FoundMessage { message: Some(event), highlights: highlights.clone() });
                let (items, up_to_ms) = (items.collect(), search.before_ms.unwrap_or(2));
                Ok(SearchResponse { epoch, items, next_cursor: search.cursor, up_to_ms }.encode_to_vec())
            }
            "GetRoomHeads" => {
                let head = |room_id| RoomHead { room_id, seq: 3, ..RoomHead::default() };
                let heads = GetRoomHeadsRequest::decode(body).unwrap().room_ids.into_iter().map(head).collect();
                Ok(GetRoomHeadsResponse { epoch, heads, format: 2, ..<_>::default() }.encode_to_vec())
            }
            "GetHeads" => {
                let partitions = GetHeadsRequest::decode(body).unwrap().partitions;
                let heads = partitions.into_iter().map(|partition| Head { partition, position: 0 }).collect();
                Ok(GetHeadsResponse { epoch, partition_count: 64, heads }.encode_to_vec())
            }
            _ => Err(Error::internal("unexpected call")),
        }
    }

    fn append(&mut self, new: NewEvent) -> Outcome {
        let is_same = |event: &&Event| event.client_message_id == new.client_message_id;
        let first = self.events.iter().find(|event| new.client_message_id.is_some() && is_same(event));
        if let Some(first) = first {
            return Outcome { result: Some(outcome::Result::Event(first.clone())), duplicate: true };
        }
        let (id, room_id, seq) = (new.id, new.room_id, self.events.len() as u64 + 1);
        let event = Event { id, room_id, seq, kind: new.kind, ..Event::default() };
        let event = Event { sender: new.sender, client_message_id: new.client_message_id, ..event };
        let Some(change) = new.change else {
            let files = new.file_ids.into_iter().map(|id| File { id, ..File::default() }).collect();
            let event = Event { content: new.content, files, ..event };
            self.events.push(event.clone());
            return Outcome { result: Some(outcome::Result::Event(event)), duplicate: false };
        };
        let target = change.target;
        let result = match self.change(&event, change, new.content) {
            Ok(None) => outcome::Result::Unchanged(self.events[target as usize - 1].clone()),
            Ok(Some(change)) => {
                let event = Event { change: Some(Box::new(change)), ..event };
                self.events.push(event.clone());
                outcome::Result::Event(event)
            }
            Err(error) => outcome::Result::Refusal(Refusal { code: error.code.as_str().into(), detail: error.detail }),
        };
        Outcome { result: Some(result), duplicate: false }
    }

    /// Changes the message; `None` if it is as the change wants it.
    fn change(&mut self, event: &Event, new: NewChange, content: String) -> Result<Option<Change>, Error> {
        let at = usize::try_from(new.target).unwrap() - 1;
        let message = self.events.get_mut(at).ok_or_else(|| Error::not_found("message"))?;
        if message.sender != event.sender && !new.moderator && new.op() != Op::React {
            return Err(Error::new(Code::Forbidden, "only the author may do this"));
        }
        let state = message.state.clone().unwrap_or(State { revision: message.seq, ..State::default() });
        if new.unchanged_since.is_some_and(|since| state.revision > since) {
            return Err(Error::new(Code::PreconditionFailed, "the message was changed"));
        }
        let wanted = match new.op() {
            Op::Delete => State { deleted_by: event.sender.clone(), ..State::default() },
            Op::Edit => State { edited_at_ms: Some(1), ..state.clone() },
            Op::React => State { reactions: reacted(&state.reactions, &new), ..state.clone() },
            op => State { pinned: op == Op::Pin, ..state.clone() },
        };
        let content = if new.op() == Op::Edit { content } else { message.content.clone() };
        let is_same = State { revision: state.revision, ..wanted.clone() } == state && content == message.content;
        if is_same {
            return Ok(None);
        }
        message.content = if new.op() == Op::Delete { String::new() } else { content };
        message.state = Some(State { revision: event.seq, ..wanted });
        Ok(Some(Change {
            target: new.target,
            op: new.op,
            message: Some(Box::new(message.clone())),
            ..Change::default()
        }))
    }
}

/// The reactions after a change. All are of one user.
fn reacted(reactions: &[Reaction], new: &NewChange) -> Vec<Reaction> {
    let others = reactions.iter().filter(|it| it.name != new.name).cloned();
    let set = new.on.then_some(Reaction { name: new.name.clone(), count: 1, mine: Some(true) });
    others.chain(set).collect()
}

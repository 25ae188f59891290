//! Encodes events of the log for clients.

use confab_proto::message::v1::{Change, Event, Kind, Op};
use confab_socketio::Frame;
use serde_json::value::{RawValue, to_raw_value};

use crate::views::{ChangedJson, MessageJson, ReactedJson};

/// The frame that clients receive for an event of the log.
pub fn encode(event: &Event) -> Frame {
    match change(event) {
        Some(change) if change.op() == Op::React => Frame::event(name(event), &ReactedJson::new(event, change)),
        Some(change) => Frame::event(name(event), &ChangedJson::new(event, change)),
        None => Frame::event(name(event), &MessageJson::from(event)),
    }
}

/// The event's name in the Socket.IO contract.
pub fn name(event: &Event) -> &str {
    match event.kind() {
        Kind::System => &event.event,
        Kind::File => "fileUpload",
        Kind::Change => match change(event).map(Change::op) {
            Some(Op::Delete) => "messageDeleted",
            Some(Op::React) => "reaction",
            _ => "messageUpdated",
        },
        Kind::Message | Kind::Unspecified => "message",
    }
}

fn change(event: &Event) -> Option<&Change> {
    event.change.as_deref().filter(|_| event.kind() == Kind::Change)
}

/// A message or a room event of a room's history, encoded once for all clients.
#[derive(Debug)]
pub struct Entry {
    pub seq: u64,
    /// The `seq` of the last change of the message; its own `seq` without a change.
    pub revision: u64,
    pub json: Box<RawValue>,
    /// Whether the message has reactions.
    pub has_reactions: bool,
    name: Box<str>,
}

impl Entry {
    /// `None` if the event cannot be encoded.
    pub fn new(event: &Event) -> Option<Self> {
        let json = to_raw_value(&MessageJson::from(event)).ok()?;
        let revision = event.state.as_ref().map_or(event.seq, |state| state.revision);
        let has_reactions = event.state.as_ref().is_some_and(|state| !state.reactions.is_empty());
        Some(Self { seq: event.seq, revision, json, has_reactions, name: name(event).into() })
    }

    /// The same frame that members receive when the event is fanned out.
    pub fn frame(&self) -> Frame {
        Frame::event(&self.name, &self.json)
    }
}

#[cfg(test)]
mod tests {
    use confab_proto::auth::v1::UserRef;
    use confab_proto::message::v1::{Reaction, ReactionChange, State};
    use serde_json::{Value, json};

    use super::*;

    fn encoded(event: &Event) -> Value {
        let packet = encode(event).packet().to_vec();
        serde_json::from_slice(packet.strip_prefix(b"42").unwrap()).unwrap()
    }

    #[test]
    fn a_reaction_has_whole_counts_and_no_text() {
        let ada = || Some(UserRef { id: "u".into(), username: "ada".into() });
        let reactions = vec![Reaction { name: "x".into(), count: 3, mine: None }];
        let state = State { revision: 9, reactions, ..State::default() };
        let message = Event { id: "m".into(), seq: 5, state: Some(state), ..Event::default() };
        let changes = vec![ReactionChange { user: ada(), name: "x".into(), on: true }];
        let change = Change {
            target: 5,
            op: Op::React.into(),
            message: Some(Box::new(message)),
            reactions: changes,
            after: vec![],
        };
        let (kind, change) = (Kind::Change.into(), Some(Box::new(change)));
        let event = Event { seq: 8, room_id: "r".into(), kind, change, ..Event::default() };
        let expected = json!({
            "roomId": "r", "seq": 8, "target": 5, "message": {"seq": 5, "id": "m", "revision": 8},
            "changes": [{"user": {"id": "u", "username": "ada"}, "name": "x", "on": true}],
            "reactions": [{"name": "x", "count": 3}]
        });
        assert_eq!(encoded(&event), json!(["reaction", expected]));
    }

    #[test]
    fn a_change_has_its_own_seq_and_the_message_in_its_present_state() {
        let ada = || Some(UserRef { id: "u".into(), username: "ada".into() });
        let state = State { revision: 9, edited_at_ms: Some(1), pinned: true, ..State::default() };
        let message = Event {
            id: "m".into(),
            room_id: "r".into(),
            seq: 5,
            kind: Kind::Message.into(),
            sender: ada(),
            content: "tea".into(),
            state: Some(state),
            ..Event::default()
        };
        let of = |op: Op, message: &Event| {
            let change = Change {
                target: 5,
                op: op.into(),
                message: Some(Box::new(message.clone())),
                reactions: vec![],
                after: vec![],
            };
            let (room_id, change) = ("r".into(), Some(Box::new(change)));
            encoded(&Event { seq: 8, room_id, kind: Kind::Change.into(), sender: ada(), change, ..Event::default() })
        };
        let expected = json!({
            "roomId": "r", "seq": 8, "target": 5, "op": "edit", "by": {"id": "u", "username": "ada"},
            "at": "1970-01-01T00:00:00.000Z", "message": MessageJson::from(&message)
        });
        assert_eq!(of(Op::Edit, &message), json!(["messageUpdated", expected]));
        assert_eq!((&expected["message"]["revision"], &expected["message"]["pinned"]), (&json!(9), &json!(true)));
        for (op, name) in [(Op::Pin, "pin"), (Op::Unpin, "unpin")] {
            let event = of(op, &message);
            assert_eq!((&event[0], &event[1]["op"]), (&json!("messageUpdated"), &json!(name)));
        }
        let state = State { revision: 8, deleted_by: ada(), ..State::default() };
        let deleted = of(Op::Delete, &Event { content: String::new(), state: Some(state), ..message });
        assert_eq!((&deleted[0], &deleted[1]["op"]), (&json!("messageDeleted"), &json!("delete")));
        let deleted = &deleted[1]["message"];
        assert_eq!((&deleted["deleted"], &deleted["deletedBy"]["id"]), (&json!(true), &json!("u")));
    }
}

//! Events as they go over the wire: in answers and in hints.

use confab_proto::auth::v1::UserRef;
use confab_proto::message::v1 as pb;

use crate::store::{Event, Kind};

/// An event as everyone else sees it.
pub fn event(event: &Event) -> pb::Event {
    let draft = &*event.draft;
    pb::Event {
        partition: draft.partition,
        position: event.position,
        id: draft.id.to_string(),
        room_id: draft.room.to_string(),
        seq: event.seq,
        kind: match draft.kind {
            Kind::Message => pb::Kind::Message,
            Kind::File => pb::Kind::File,
            Kind::System => pb::Kind::System,
        }
        .into(),
        sender: Some(UserRef { id: draft.sender.to_string(), username: draft.body.sender_username.clone() }),
        client_message_id: draft.client_message_id().map(str::to_owned),
        content: draft.body.content.clone(),
        event: draft.body.event.clone(),
        data: draft.body.data.clone(),
        created_at_ms: event.created_at_ms,
    }
}

/// The kind of an event that somebody sends; `None` for what this version does not know.
pub fn kind(kind: i32) -> Option<Kind> {
    match pb::Kind::try_from(kind).ok()? {
        pb::Kind::Unspecified => None,
        pb::Kind::Message => Some(Kind::Message),
        pb::Kind::File => Some(Kind::File),
        pb::Kind::System => Some(Kind::System),
    }
}

//! Encodes events of the log for clients.

use confab_proto::message::v1::{Event, Kind};
use confab_socketio::Frame;

use crate::views::MessageJson;

/// The frame that clients receive for an event of the log.
pub fn encode(event: &Event) -> Frame {
    Frame::event(name(event), &MessageJson::from(event))
}

/// The event's name in the Socket.IO contract.
pub fn name(event: &Event) -> &str {
    match event.kind() {
        Kind::System => &event.event,
        Kind::File => "fileUpload",
        Kind::Message | Kind::Unspecified => "message",
    }
}

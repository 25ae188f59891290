//! An event from a client.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::value::RawValue;

/// An event from a client. <https://github.com/socketio/socket.io-protocol#sending-and-receiving-data>
pub struct Event<'a> {
    /// The name; empty when the first element of the packet is not a string.
    pub name: Cow<'a, str>,
    /// The first argument as JSON text. The server ignores further arguments.
    pub argument: Option<&'a RawValue>,
    /// The binary attachments, at most 10.
    pub attachments: &'a [Bytes],
    /// The id for the acknowledgement, if the client requests one.
    pub ack: Option<u64>,
    /// The size with attachments, in bytes.
    pub size: usize,
    /// The client exceeds [`max_events_per_second`](crate::Config::max_events_per_second): the application should
    /// reject this event.
    pub over_limit: bool,
}

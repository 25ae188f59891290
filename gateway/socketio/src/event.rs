//! An event from a client.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::value::RawValue;

/// An event from a client, as the application receives it.
pub struct Event<'a> {
    /// Its name; empty when the client sent something that is not text.
    pub name: Cow<'a, str>,
    /// The first argument as JSON text; any others are ignored.
    pub argument: Option<&'a RawValue>,
    /// Its binary attachments, at most 10.
    pub attachments: &'a [Bytes],
    /// The id under which the client expects the acknowledgement, if it does.
    pub ack: Option<u64>,
    /// Its size with its attachments, in bytes.
    pub size: usize,
    /// The socket has sent more events than it may: the application should reject this one.
    pub over_limit: bool,
}

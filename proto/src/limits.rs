//! The bounds of an event, held by the gateway (which names the field to the client) and by the log alike.

/// Largest content of a message, in bytes.
pub const MAX_CONTENT: usize = 16_384;

/// Longest `client_message_id`, in bytes.
pub const MAX_CLIENT_MESSAGE_ID: usize = 128;

/// Most files of one event.
pub const MAX_FILES: usize = 10;

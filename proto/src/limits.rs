//! The limits of an event. The gateway and the log both enforce them; the gateway also names the field in its error.

/// Longest content of a message, in bytes.
pub const MAX_CONTENT: usize = 16_384;

/// Longest `client_message_id`, in bytes.
pub const MAX_CLIENT_MESSAGE_ID: usize = 128;

/// Longest data of an app with a message, in bytes.
pub const MAX_APP_DATA: usize = 4096;

/// Longest name of a reaction, in bytes.
pub const MAX_REACTION: usize = 64;

/// Maximum files of one event.
pub const MAX_FILES: usize = 10;

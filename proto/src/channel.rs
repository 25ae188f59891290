//! Names of the bus channels.

/// Carries a [`Revocation`](crate::auth::v1::Revocation) whenever a token is revoked.
pub const REVOCATIONS: &str = "confab.revocations";

/// Carries a [`MovedMarkers`](crate::message::v1::MovedMarkers) whenever a gateway has moved read markers.
pub const MARKS: &str = "confab.marks";

/// Carries a [`Typing`](crate::message::v1::Typing) whenever a user begins to type, continues or stops.
pub const TYPING: &str = "confab.typing";

const LOG: &str = "confab.log.";

/// Returns the channel for the [`Hint`](crate::message::v1::Hint)s of one partition.
pub fn log(partition: u32) -> String {
    format!("{LOG}{partition}")
}

/// Returns the partition of a hint channel; `None` for any other channel.
pub fn log_partition(channel: &str) -> Option<u32> {
    channel.strip_prefix(LOG)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_channels_name_their_partition() {
        assert_eq!(log_partition(&log(63)), Some(63));
        assert_eq!(log_partition(REVOCATIONS), None);
    }
}

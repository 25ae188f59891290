//! The sign-in of a token.

use std::time::Duration;

use jsonwebtoken::get_current_timestamp;
use uuid::Uuid;

/// The sign-in of a token. Times are in seconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignIn {
    /// The token's `jti`, which all tokens of a session share; for a token of the app's own issuer, its revocation id.
    pub session_id: Uuid,
    /// The token's `iat`.
    pub issued_at: i64,
    /// The token's `exp`.
    pub expires_at: i64,
}

impl SignIn {
    /// How long the token remains valid, at most 1 h: the caller must check again, because clocks are adjusted and
    /// machines sleep.
    pub fn left(&self) -> Duration {
        let left = self.expires_at.saturating_sub_unsigned(get_current_timestamp());
        Duration::from_secs(u64::try_from(left).unwrap_or_default()).min(Duration::from_secs(3600))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_bounded() {
        let left = |seconds: i64| {
            let expires_at = get_current_timestamp() as i64 + seconds;
            SignIn { session_id: Uuid::nil(), issued_at: 0, expires_at }.left()
        };
        assert_eq!([left(-1), left(0), left(7200)], [Duration::ZERO, Duration::ZERO, Duration::from_secs(3600)]);
        assert!((58..=60).contains(&left(60).as_secs()));
        let last = SignIn { session_id: Uuid::nil(), issued_at: 0, expires_at: i64::MAX };
        assert_eq!(last.left(), Duration::from_secs(3600));
    }
}

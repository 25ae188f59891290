//! Sessions, and the succession of their refresh tokens.

use confab_common::Result;
use futures::future::BoxFuture;
use uuid::Uuid;

use super::Sha256;
use super::accounts::User;
use super::audit::Entry;
use super::revocations::{Cut, Revocation};

/// Maximum sessions of a user.
pub const MAX_SESSIONS: u32 = 50;
/// How long a refresh token still gets its successor after a client has used that successor, in milliseconds.
const GRACE_MS: i64 = 10_000;
/// How old the time of the last use may become before a repeated refresh stores it again, in milliseconds.
const SEEN_EVERY_MS: i64 = 300_000;

/// The client of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Printable, at most 256 bytes; empty: unknown.
    pub user_agent: String,
    /// A network; empty: unknown.
    pub address: String,
}

/// The refresh token of a new session.
#[derive(Debug, Clone, Copy)]
pub struct Refreshable {
    pub token_sha256: Sha256,
    pub expires_at_ms: i64,
}

/// A new session. Times are in milliseconds since the Unix epoch.
#[derive(Debug, Clone)]
pub struct NewSession {
    pub id: Uuid,
    pub user_id: Uuid,
    pub created_at_ms: i64,
    /// When its first token expires.
    pub token_expires_at_ms: i64,
    pub refresh: Option<Refreshable>,
    pub seen: Seen,
    /// Written with the insertion.
    pub entry: Option<Entry>,
}

impl NewSession {
    /// Returns when no token of the session is valid any more.
    pub fn expires_at_ms(&self) -> i64 {
        let refresh = self.refresh.map_or(self.token_expires_at_ms, |refresh| refresh.expires_at_ms);
        refresh.max(self.token_expires_at_ms)
    }
}

/// The outcome of opening a session.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened {
    /// The revocations of the oldest sessions above [`MAX_SESSIONS`].
    pub revoked: Vec<Revocation>,
    /// Tokens of the user that were issued before this time are revoked, in seconds since the Unix epoch.
    pub tokens_from_s: i64,
}

/// A session. Times are in milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSession {
    pub id: Uuid,
    pub created_at_ms: i64,
    pub last_seen_at_ms: i64,
    pub seen: Seen,
}

/// A use of a refresh token. Times are in milliseconds since the Unix epoch.
#[derive(Debug, Clone)]
pub struct Rotation {
    pub session_id: Uuid,
    /// The SHA-256 of the presented token.
    pub presented: Sha256,
    /// The SHA-256 of its successor under each server key; the first key is for new successors.
    pub successors: Vec<Sha256>,
    /// Whether this installation issued the presented token, at any time.
    pub is_genuine: bool,
    pub now_ms: i64,
    /// When the refresh token that the client receives expires if no client uses it.
    pub expires_at_ms: i64,
    /// When the access token that the client receives expires.
    pub token_expires_at_ms: i64,
    pub seen: Seen,
}

/// The state of a session's refresh tokens.
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a> {
    /// The SHA-256 of the newest token.
    pub newest: &'a [u8],
    /// The SHA-256 of the token before it.
    pub previous: Option<&'a [u8]>,
    /// When the token before the newest one was first used.
    pub used_at_ms: Option<i64>,
}

/// What a use of a refresh token does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The token is the newest one: its successor under the first key becomes the newest one.
    Advance,
    /// The token gets the successor that it has got before, under the key at this index.
    Repeat(usize),
    /// An old token: another client has used its successor.
    Reuse,
    /// Not a token of this session.
    Unknown,
}

impl Rotation {
    /// Decides what this use does.
    pub fn step(&self, chain: Chain<'_>) -> Step {
        let key_of = |token: &[u8]| self.successors.iter().position(|successor| successor == token);
        if chain.newest == self.presented {
            return Step::Advance;
        }
        if chain.previous == Some(&self.presented[..]) {
            return key_of(chain.newest).map_or(Step::Unknown, Step::Repeat);
        }
        // The presented token's successor is the previous token, so a client has used that successor.
        if let Some(key) = chain.previous.and_then(key_of) {
            let used_at_ms = chain.used_at_ms.unwrap_or(i64::MIN);
            return if self.now_ms.saturating_sub(used_at_ms) <= GRACE_MS { Step::Repeat(key) } else { Step::Reuse };
        }
        if self.is_genuine { Step::Reuse } else { Step::Unknown }
    }

    /// Returns the SHA-256 of the successor under the key at this index.
    pub fn successor(&self, key: usize) -> &[u8] {
        self.successors.get(key).map_or(&[], |successor| &successor[..])
    }

    /// Returns the time of the last use to store, given the stored one.
    pub fn last_seen_at_ms(&self, stored: i64, step: Step) -> i64 {
        if step == Step::Advance || self.now_ms.saturating_sub(stored) >= SEEN_EVERY_MS { self.now_ms } else { stored }
    }
}

/// The outcome of a use of a refresh token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotated {
    /// The client receives the successor under the key at this index, and a new access token of this user.
    Next { key: usize, user: Box<User> },
    /// The session must end. `token_expires_at_ms`: when its last access token expires.
    Reused { user_id: Uuid, token_expires_at_ms: i64 },
    /// The token is not valid.
    Unknown,
}

/// The operations on sessions.
pub trait SessionStore: Send + Sync {
    /// Inserts a session of a user whose password was verified against `verified_hash`. Above [`MAX_SESSIONS`], revokes
    /// the oldest sessions.
    ///
    /// # Errors
    /// As [`User::may_open`]; `invalid_credentials` for an unknown user.
    fn open_session(&self, session: NewSession, verified_hash: String) -> BoxFuture<'_, Result<Opened>>;

    /// Uses a refresh token. Concurrent uses of one token get the same successor.
    fn rotate(&self, rotation: Rotation) -> BoxFuture<'_, Result<Rotated>>;

    /// Returns the sessions of a user that have not expired at `now_ms`, the last used one first, at most
    /// [`MAX_SESSIONS`].
    fn sessions(&self, user_id: Uuid, now_ms: i64) -> BoxFuture<'_, Result<Vec<StoredSession>>>;

    /// Revokes a session of a user, or returns its existing revocation. `None` for a session that is unknown, expired
    /// at `now_ms`, or of another user.
    fn end_session(&self, user_id: Uuid, id: Uuid, now_ms: i64) -> BoxFuture<'_, Result<Option<Revocation>>>;

    /// Ends the sessions and tokens of a user, and writes `entry`. `None` for an unknown or deleted user.
    fn end_sessions(
        &self,
        user_id: Uuid,
        cut: Cut,
        entry: Option<Entry>,
    ) -> BoxFuture<'_, Result<Option<Vec<Revocation>>>>;

    /// Deletes up to `limit` sessions that expired before `expired_before_ms`, and returns their number.
    fn purge_sessions(&self, expired_before_ms: i64, limit: u32) -> BoxFuture<'_, Result<u64>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation(presented: u8, successors: &[u8], is_genuine: bool, now_ms: i64) -> Rotation {
        Rotation {
            session_id: Uuid::nil(),
            presented: [presented; 32],
            successors: successors.iter().map(|byte| [*byte; 32]).collect(),
            is_genuine,
            now_ms,
            expires_at_ms: 0,
            token_expires_at_ms: 0,
            seen: Seen { user_agent: String::new(), address: String::new() },
        }
    }

    #[test]
    fn a_token_keeps_its_successor_until_10_s_after_its_use() {
        let (newest, previous) = ([5; 32], [4; 32]);
        let chain = Chain { newest: &newest, previous: Some(&previous), used_at_ms: Some(100_000) };
        let step = |presented, successors: &[u8], now_ms| rotation(presented, successors, true, now_ms).step(chain);
        assert_eq!(step(5, &[6], 100_001), Step::Advance);
        assert_eq!(step(4, &[9, 5], i64::MAX), Step::Repeat(1), "the newest token has not been used");
        assert_eq!(step(4, &[9], 100_001), Step::Unknown, "the key of the successor is gone");
        assert_eq!(step(3, &[4, 9], 110_000), Step::Repeat(0));
        assert_eq!(step(3, &[4, 9], 110_001), Step::Reuse);
        assert_eq!(step(2, &[3], 100_001), Step::Reuse);
        assert_eq!(rotation(7, &[8], false, 100_001).step(chain), Step::Unknown, "a forged token ends no session");
        let first = Chain { newest: &newest, previous: None, used_at_ms: None };
        assert_eq!(rotation(5, &[6], true, 0).step(first), Step::Advance);
        assert_eq!(rotation(4, &[5], true, 0).step(first), Step::Reuse, "of another lineage");
    }

    #[test]
    fn repeats_store_the_last_use_every_5_minutes() {
        let seen = |step, now_ms| rotation(1, &[], true, now_ms).last_seen_at_ms(1000, step);
        assert_eq!([seen(Step::Repeat(0), 300_999), seen(Step::Repeat(0), 301_000)], [1000, 301_000]);
        assert_eq!(seen(Step::Advance, 2000), 2000);
    }
}

//! The numbered list of revocations.

use confab_common::Result;
use futures::future::BoxFuture;
use uuid::Uuid;

/// The tokens that a revocation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those of one session: their `jti`.
    Session(Uuid),
    /// Those of a user that were issued before `not_before_s` (seconds since the Unix epoch), except those of one
    /// session.
    Before { user_id: Uuid, not_before_s: i64, except: Option<Uuid> },
    /// All tokens of a user, until a later [`Scope::Unblocked`]; those of a deleted user permanently.
    Blocked { user_id: Uuid, deleted: bool },
    /// None: it ends the effect of an earlier [`Scope::Blocked`].
    Unblocked { user_id: Uuid },
}

impl Scope {
    /// Returns the number of the kind that the databases store.
    pub fn kind(self) -> i16 {
        match self {
            Self::Session(_) => 0,
            Self::Before { .. } => 1,
            Self::Blocked { .. } => 2,
            Self::Unblocked { .. } => 3,
        }
    }

    /// Returns the value of the column `session_id`. The kinds about a user have a random UUIDv8 there, because the
    /// column is unique.
    pub fn session_column(self) -> Uuid {
        match self {
            Self::Session(id) => id,
            _ => uuid::Builder::from_custom_bytes(Uuid::new_v4().into_bytes()).into_uuid(),
        }
    }

    /// Returns the values of the columns `not_before_s` and `except_session_id`.
    pub fn before_columns(self) -> (Option<i64>, Option<Uuid>) {
        match self {
            Self::Before { not_before_s, except, .. } => (Some(not_before_s), except),
            _ => (None, None),
        }
    }

    /// Returns the scope that the databases store in these columns; `deleted` is whether the account of the user is
    /// deleted. A kind of a later version is a session that does not exist.
    pub fn of(
        kind: i16,
        session_id: Uuid,
        user_id: Uuid,
        not_before_s: Option<i64>,
        except: Option<Uuid>,
        deleted: bool,
    ) -> Self {
        match kind {
            1 => Self::Before { user_id, not_before_s: not_before_s.unwrap_or_default(), except },
            2 => Self::Blocked { user_id, deleted },
            3 => Self::Unblocked { user_id },
            _ => Self::Session(session_id),
        }
    }
}

/// An entry of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// 1, 2, 3 … in commit order.
    pub number: u64,
    pub scope: Scope,
    /// When the last revoked token expires, in milliseconds since the Unix epoch. A block has no such time.
    pub expires_at_ms: i64,
}

/// One page of revocations, read in one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocations {
    /// In ascending order of `number`; purged revocations are missing.
    pub items: Vec<Revocation>,
    /// The newest number assigned; 0 without revocations.
    pub head: u64,
}

/// The end of all sessions and tokens of a user, except one session.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// The session that stays.
    pub except: Option<Uuid>,
    /// Tokens issued before this time end, in seconds since the Unix epoch. Tokens of the previous version have no
    /// stored session, so they end by their time of issue.
    pub not_before_s: i64,
    /// When the last of those tokens expires, in milliseconds since the Unix epoch.
    pub expires_at_ms: i64,
}

impl Cut {
    /// Returns the scope of the tokens that end by their time of issue.
    pub fn scope(self, user_id: Uuid) -> Scope {
        Scope::Before { user_id, not_before_s: self.not_before_s, except: self.except }
    }
}

/// The operations on the list.
pub trait RevocationStore: Send + Sync {
    /// Revokes a session under the next number, or returns its existing revocation. The revocation expires at
    /// `expires_at_ms`, or with the newest token of the session if that is later.
    fn revoke(&self, session_id: Uuid, user_id: Uuid, expires_at_ms: i64) -> BoxFuture<'_, Result<Revocation>>;

    /// Returns up to `limit` revocations with numbers above `after`.
    fn revocations(&self, after: u64, limit: u32) -> BoxFuture<'_, Result<Revocations>>;

    /// Deletes up to `limit` revocations of tokens that expired before `expired_before_ms`, and returns their number.
    /// Blocks stay. The numbers of other revocations and the head do not change.
    fn purge(&self, expired_before_ms: i64, limit: u32) -> BoxFuture<'_, Result<u64>>;

    /// Moves expiries after `latest_ms` to `latest_ms`, except those of blocks, and returns the number of changed
    /// revocations.
    fn shorten(&self, latest_ms: i64) -> BoxFuture<'_, Result<u64>>;
}

//! Accounts: their names, passwords, profiles and states.

use confab_common::operations::Operations;
use confab_common::{Code, Error, Result};
use futures::future::BoxFuture;
use uuid::Uuid;

use super::Sha256;
use super::audit::Entry;
use super::revocations::{Cut, Revocation};
use crate::username;

/// The name that a deleted account has. Signup rejects it.
pub const DELETED: &str = "deleted";

/// The state of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Active,
    /// No token of the user is accepted and none is issued.
    Suspended,
    /// As suspended, permanently. The account has no password, and its name is `deleted`.
    Deleted,
}

impl State {
    /// Returns the number that the databases store.
    pub fn number(self) -> i16 {
        match self {
            Self::Active => 0,
            Self::Suspended => 1,
            Self::Deleted => 2,
        }
    }

    /// Returns the state that the databases store as this number. A number of a later version is a suspension.
    pub fn of(number: i16) -> Self {
        match number {
            0 => Self::Active,
            2 => Self::Deleted,
            _ => Self::Suspended,
        }
    }
}

/// The part of an account that the user changes at will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    pub display_name: Option<String>,
    pub avatar_file_id: Option<Uuid>,
    /// A JSON object.
    pub data: String,
}

impl Default for Profile {
    fn default() -> Self {
        Self { display_name: None, avatar_file_id: None, data: "{}".into() }
    }
}

/// A change of a profile. `None` leaves a field unchanged.
#[derive(Debug, Clone, Default)]
pub struct ProfileChange {
    pub display_name: Option<Option<String>>,
    pub avatar_file_id: Option<Option<Uuid>>,
    pub data: Option<String>,
}

impl ProfileChange {
    /// Returns the changed profile.
    pub fn apply(self, profile: Profile) -> Profile {
        Profile {
            display_name: self.display_name.unwrap_or(profile.display_name),
            avatar_file_id: self.avatar_file_id.unwrap_or(profile.avatar_file_id),
            data: self.data.unwrap_or(profile.data),
        }
    }
}

/// What the tokens of the app's own issuer say about their user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    pub issuer: String,
    /// The name that clients show, unless the user chose one.
    pub name: Option<String>,
    /// The https URL of a picture.
    pub picture: Option<String>,
    /// When the name or the picture last changed, in milliseconds since the Unix epoch.
    pub changed_at_ms: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// UUIDv7; UUIDv5 for a user of the app's own issuer.
    pub id: Uuid,
    /// As the user typed it, in NFC.
    pub username: String,
    /// The form in which names are compared; unique.
    pub username_folded: String,
    /// A PHC string.
    pub password_hash: String,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: i64,
    pub state: State,
    pub profile: Profile,
    /// Only for users of the app's own issuers. They have no password.
    pub claimed: Option<Claimed>,
}

impl User {
    /// Checks whether a session may be opened for an account after its password was verified.
    ///
    /// # Errors
    /// `invalid_credentials` when the password has changed since, or the account was deleted; `forbidden` when it is
    /// suspended.
    pub fn may_open(state: State, stored_hash: &str, verified_hash: &str) -> Result<()> {
        match state {
            State::Suspended if stored_hash == verified_hash => Err(suspended()),
            State::Active if stored_hash == verified_hash => Ok(()),
            _ => Err(wrong_credentials()),
        }
    }

    /// Returns the name that clients show beside the username: the one that the user chose, else that of the issuer.
    pub fn shown_name(&self) -> Option<&str> {
        let claimed = || self.claimed.as_ref().and_then(|claimed| claimed.name.as_deref());
        self.profile.display_name.as_deref().or_else(claimed)
    }

    /// Returns the form in which searches compare the shown name.
    pub fn shown_folded(&self) -> Option<String> {
        self.shown_name().map(username::folded)
    }
}

/// The error for an unknown name and for a wrong password alike.
pub fn wrong_credentials() -> Error {
    Error::new(Code::InvalidCredentials, "wrong username or password")
}

/// The error for the correct password of a suspended account.
fn suspended() -> Error {
    Error::new(Code::Forbidden, "the account is suspended")
}

/// The error for a name of another account.
pub fn name_taken() -> Error {
    Error::new(Code::UsernameTaken, "this username is taken")
}

/// The error for an invite without a use left.
pub fn no_invite() -> Error {
    Error::new(Code::Forbidden, "signup needs the code of a valid invite in inviteCode")
}

/// The error for a change of an account that is deleted.
pub fn is_deleted() -> Error {
    Error::new(Code::Conflict, "the account is deleted")
}

/// A deleted user that must still be removed from rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    pub user_id: Uuid,
    /// The name before the deletion.
    pub username: String,
}

/// The operations on accounts.
pub trait AccountStore: Send + Sync {
    /// Inserts an account and returns it, or returns the account that already has that id. `invite` is the SHA-256 of
    /// an invite's code and the present time in milliseconds; the insertion takes one use of that invite. `entry` is
    /// written with the insertion.
    ///
    /// # Errors
    /// `username_taken` when another account has the folded name or the skeleton; `forbidden` when the invite has no
    /// use left. Both take no use.
    fn create_user(
        &self,
        user: User,
        skeleton: String,
        invite: Option<(Sha256, i64)>,
        entry: Option<Entry>,
    ) -> BoxFuture<'_, Result<User>>;

    /// Returns the ids and names of up to `limit` accounts without a skeleton, with ids above `after` in ascending
    /// order.
    fn without_skeleton(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<(Uuid, String)>>>;

    /// Sets the skeletons of accounts that have none, by id, and returns their number. A skeleton that belongs to
    /// another account is skipped.
    fn fill_skeletons(&self, skeletons: Vec<(Uuid, String)>) -> BoxFuture<'_, Result<u64>>;

    fn user(&self, id: Uuid) -> BoxFuture<'_, Result<Option<User>>>;

    /// Returns the account with a folded name. A deleted account keeps its folded name until
    /// [`free_names`](Self::free_names). For a former name that is reserved, it is the row of the reservation, which is
    /// deleted, too.
    fn user_by_name(&self, folded: String) -> BoxFuture<'_, Result<Option<User>>>;

    /// Replaces the claims of a user, if they are of the same issuer and have last changed at `latest_ms` or before, or
    /// if the user has none. Returns the account, or `None` when nothing has changed.
    fn change_claims(&self, id: Uuid, claimed: Claimed, latest_ms: i64) -> BoxFuture<'_, Result<Option<User>>>;

    /// Changes the profile of an account that is not deleted, and returns the account.
    fn change_profile(&self, id: Uuid, change: ProfileChange) -> BoxFuture<'_, Result<Option<User>>>;

    /// Replaces the hash `before`, and ends the sessions and tokens of the user. Returns `None` when the account has
    /// another hash or is deleted.
    fn change_password(
        &self,
        id: Uuid,
        before: String,
        after: String,
        cut: Cut,
    ) -> BoxFuture<'_, Result<Option<Vec<Revocation>>>>;

    /// Suspends an account, ends its sessions and blocks the user, and writes `entry`. Returns no revocations, and
    /// writes nothing, when it is suspended already.
    ///
    /// # Errors
    /// `not_found`; `conflict` when the account is deleted.
    fn suspend(&self, id: Uuid, entry: Option<Entry>) -> BoxFuture<'_, Result<Vec<Revocation>>>;

    /// Ends the suspension of an account and unblocks the user, and writes `entry`. Returns `None`, and writes nothing,
    /// when the account is active. `expires_at_ms` is when the revocation may be purged.
    ///
    /// # Errors
    /// `not_found`; `conflict` when the account is deleted.
    fn restore(&self, id: Uuid, expires_at_ms: i64, entry: Option<Entry>) -> BoxFuture<'_, Result<Option<Revocation>>>;

    /// Deletes an account: erases its password, its profile and its claims, ends its sessions, blocks the user, and adds an entry
    /// for [`leaving`](Self::leaving). Nothing changes if the account is deleted already.
    ///
    /// # Errors
    /// `not_found`.
    fn delete_user(&self, deletion: Deletion) -> BoxFuture<'_, Result<Vec<Revocation>>>;

    /// Makes the names of up to `limit` accounts available whose time was before `now_ms`, and returns their number.
    fn free_names(&self, now_ms: i64, limit: u32) -> BoxFuture<'_, Result<u64>>;

    /// Returns up to `limit` users that must be removed from rooms, with ids above `after` in ascending order.
    fn leaving(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Leaving>>>;

    /// Deletes the entry of a user that was removed from all rooms.
    fn has_left(&self, user_id: Uuid) -> BoxFuture<'_, Result<()>>;

    /// Returns the recent operations that succeed only once.
    fn operations(&self) -> &dyn Operations;
}

/// The deletion of an account.
#[derive(Debug, Clone)]
pub struct Deletion {
    pub id: Uuid,
    /// A hash that no password has.
    pub password_hash: String,
    pub now_ms: i64,
    /// When the name becomes free.
    pub free_name_at_ms: i64,
    /// Written with the deletion.
    pub entry: Option<Entry>,
}

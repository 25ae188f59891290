//! Finding users by their ids and by the beginning of their names.

use confab_common::Result;
use futures::future::BoxFuture;
use uuid::Uuid;

use super::accounts::User;

/// A user whose username or shown name begins with the text of a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    pub user: User,
    /// The folded form of the name that matches.
    pub name: String,
    /// Whether `name` is the username. The other name that can match is the one that clients show.
    pub by_username: bool,
}

impl Match {
    pub fn position(&self) -> MatchPosition {
        MatchPosition { name: self.name.clone(), id: self.user.id }
    }
}

/// A position in the list of matches, which has the order of the folded names and of the ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchPosition {
    pub name: String,
    pub id: Uuid,
}

/// The name that clients show beside the username, in both forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownName {
    /// `None`: the user has none.
    pub name: Option<String>,
    pub folded: Option<String>,
}

/// A user, and the name that searches must find.
pub type OutdatedName = (Uuid, Option<String>);

/// The operations of the directory of users. Suspended and deleted users are never found.
pub trait DirectoryStore: Send + Sync {
    /// Returns the active accounts with these ids, in no particular order.
    fn active_users(&self, ids: Vec<Uuid>) -> BoxFuture<'_, Result<Vec<User>>>;

    /// Returns up to `limit` matches above `after` whose names are below `end`, in their order. A user with two such
    /// names is in the list twice, if both names are equal first by the username.
    fn matches(&self, after: MatchPosition, end: String, limit: u32) -> BoxFuture<'_, Result<Vec<Match>>>;

    /// Returns up to `limit` accounts whose shown name a program of the version before has changed, with ids above
    /// `after` in ascending order, each with its current shown name.
    fn outdated_names(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<OutdatedName>>>;

    /// Stores the shown names of accounts that still have these names, and returns the number of accounts.
    fn renew_names(&self, names: Vec<(Uuid, ShownName)>) -> BoxFuture<'_, Result<u64>>;
}

//! Changes of names, and the users of pictures.

use confab_common::Result;
use futures::future::BoxFuture;
use uuid::Uuid;

use super::accounts::{ProfileChange, User};
use super::audit::Entry;

/// A name, in all forms.
#[derive(Debug, Clone)]
pub struct Name {
    pub username: String,
    pub folded: String,
    pub skeleton: String,
}

/// How a change of a name reserves the former one: with the row of an account that is deleted.
#[derive(Debug, Clone)]
pub struct Reservation {
    /// The id of that row.
    pub id: Uuid,
    /// A hash that no password has.
    pub password_hash: String,
    /// When the former name becomes free.
    pub free_name_at_ms: i64,
}

impl Reservation {
    /// Returns the folded form and the skeleton that the row has: those of the former name, unless the new name has them.
    /// `None` when the new name has both.
    pub fn forms(&self, folded: &str, skeleton: Option<&str>, name: &Name) -> Option<(String, String)> {
        let folded = Some(folded).filter(|folded| *folded != name.folded);
        let skeleton = skeleton.filter(|skeleton| *skeleton != name.skeleton);
        if folded.is_none() && skeleton.is_none() {
            return None;
        }
        // No name contains a colon.
        let or_none = |form: Option<&str>| form.map_or_else(|| format!("deleted:{}", self.id), str::to_owned);
        Some((or_none(folded), or_none(skeleton)))
    }
}

/// The operations on names and pictures.
pub trait ProfileStore: Send + Sync {
    /// Changes the name and the profile of an account, and inserts the entry about it. The former name stays reserved
    /// for this account until its time, and [`free_names`](super::AccountStore::free_names) frees it. `None` for an
    /// unknown account.
    ///
    /// # Errors
    /// `username_taken` when another account has the folded name or the skeleton, or they are reserved for another
    /// account; `conflict` when the account is deleted.
    fn change_user(
        &self,
        id: Uuid,
        name: Name,
        change: ProfileChange,
        former: Reservation,
        entry: Entry,
    ) -> BoxFuture<'_, Result<Option<User>>>;

    /// Returns the first account that is not deleted and has this file as picture.
    fn avatar_owner(&self, file_id: Uuid) -> BoxFuture<'_, Result<Option<User>>>;
}

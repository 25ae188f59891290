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

/// The operations on names and pictures.
pub trait ProfileStore: Send + Sync {
    /// Changes the name and the profile of an account, and inserts the entry about it. `None` for an unknown account.
    ///
    /// # Errors
    /// `username_taken` when another account has the folded name or the skeleton; `conflict` when the account is
    /// deleted.
    fn change_user(
        &self,
        id: Uuid,
        name: Name,
        change: ProfileChange,
        entry: Entry,
    ) -> BoxFuture<'_, Result<Option<User>>>;

    /// Returns the first account that is not deleted and has this file as picture.
    fn avatar_owner(&self, file_id: Uuid) -> BoxFuture<'_, Result<Option<User>>>;
}

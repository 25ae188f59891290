//! The store of accounts, sessions and revocations.

/// The columns of an account, in the order in which both stores read them.
macro_rules! user_columns {
    () => {
        "id, username, username_folded, password_hash, created_at_ms, state, display_name, avatar_file_id, data,
        issuer, claimed_name, claimed_picture, claimed_at_ms"
    };
}

mod accounts;
mod audit;
#[cfg(test)]
mod contract;
mod directory;
mod invites;
mod keys;
mod postgres;
mod profiles;
mod revocations;
mod sessions;
mod sqlite;
mod tables;

use std::sync::Arc;

use confab_common::store::{StorageConfig, StoreUrl};

pub use accounts::{AccountStore, Claimed, Deletion, Leaving, Profile, ProfileChange, State, User};
pub use accounts::{DELETED, is_deleted, name_taken, no_invite, wrong_credentials};
pub use audit::{Actor, AuditPosition, AuditStore, Entry};
pub use directory::{DirectoryStore, Match, MatchPosition, OutdatedName, ShownName};
pub use invites::{Invite, InviteStore, PasswordReset, Redeemed};
pub use keys::{KeyStore, ServerKey};
pub use profiles::{Name, ProfileStore, Reservation};
pub use revocations::{Cut, Revocation, RevocationStore, Revocations, Scope};
pub use sessions::{
    Chain, MAX_SESSIONS, NewSession, Opened, Refreshable, Rotated, Rotation, Seen, SessionStore, Step, StoredSession,
};
pub use tables::SCHEMA;

/// The SHA-256 of a secret.
pub type Sha256 = [u8; 32];

/// The operations of a store. Both implementations pass the same contract tests.
pub trait Store:
    AccountStore + ProfileStore + DirectoryStore + SessionStore + RevocationStore + InviteStore + KeyStore + AuditStore
{
}

impl<T> Store for T where
    T: AccountStore
        + ProfileStore
        + DirectoryStore
        + SessionStore
        + RevocationStore
        + InviteStore
        + KeyStore
        + AuditStore
{
}

pub async fn open(url: &StoreUrl, storage: &StorageConfig) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match url {
        StoreUrl::Sqlite(path) => Arc::new(sqlite::Sqlite::open(path)?),
        StoreUrl::Postgres(url) => Arc::new(postgres::Postgres::open(url, &storage.postgres).await?),
    })
}

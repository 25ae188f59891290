//! The store on SQLite.

mod accounts;
mod audit;
mod directory;
mod invites;
mod keys;
mod list;
mod profiles;
mod revocations;
mod sessions;

use std::path::Path;

use confab_common::Result;
use confab_common::sqlite::Database;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::{Claimed, Profile, State, User};

pub(super) mod embedded {
    refinery::embed_migrations!("migrations/sqlite");
}

pub struct Sqlite(Database);

impl Sqlite {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        Ok(Self(Database::open(path, embedded::migrations::runner())?))
    }
}

fn user_by_id(connection: &Connection, id: Uuid) -> Result<Option<User>> {
    const SQL: &str = concat!("/* user_by_id */ SELECT ", user_columns!(), " FROM users WHERE id = ?1");
    Ok(connection.prepare_cached(SQL)?.query_row([id.into_bytes()], user).optional()?)
}

/// Stores the profile of an account.
fn update_profile(connection: &Connection, user: &User) -> Result<()> {
    const SQL: &str = "/* update_profile */ UPDATE users
        SET display_name = ?2, avatar_file_id = ?3, data = ?4, shown_name = ?5, shown_folded = ?6 WHERE id = ?1";
    let Profile { display_name, avatar_file_id, data } = &user.profile;
    let (key, avatar) = (user.id.into_bytes(), avatar_file_id.map(Uuid::into_bytes));
    let values = params![key, display_name, avatar, data, user.shown_name(), user.shown_folded()];
    connection.prepare_cached(SQL)?.execute(values)?;
    Ok(())
}

fn id(row: &Row<'_>, column: usize) -> rusqlite::Result<Uuid> {
    Ok(Uuid::from_bytes(row.get(column)?))
}

fn optional_id(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Uuid>> {
    Ok(row.get::<_, Option<[u8; 16]>>(column)?.map(Uuid::from_bytes))
}

/// Reads the columns of `user_columns!`.
fn user(row: &Row<'_>) -> rusqlite::Result<User> {
    let claimed = match row.get(9)? {
        Some(issuer) => {
            Some(Claimed { issuer, name: row.get(10)?, picture: row.get(11)?, changed_at_ms: row.get(12)? })
        }
        None => None,
    };
    Ok(User {
        id: id(row, 0)?,
        username: row.get(1)?,
        username_folded: row.get(2)?,
        password_hash: row.get(3)?,
        created_at_ms: row.get(4)?,
        state: State::of(row.get(5)?),
        profile: Profile { display_name: row.get(6)?, avatar_file_id: optional_id(row, 7)?, data: row.get(8)? },
        claimed,
    })
}

//! Changes of names, and the users of pictures, on SQLite.

use confab_common::sqlite::is_unique_violation;
use confab_common::{Error, Result};
use futures::future::BoxFuture;
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::audit::record;
use super::{Sqlite, update_profile, user, user_by_id};
use crate::store::{Entry, Name, ProfileChange, ProfileStore, State, User, is_deleted, name_taken};

impl ProfileStore for Sqlite {
    fn change_user(
        &self,
        id: Uuid,
        name: Name,
        change: ProfileChange,
        entry: Entry,
    ) -> BoxFuture<'_, Result<Option<User>>> {
        Box::pin(self.0.write(move |connection| change_user(connection, id, name, change, &entry)))
    }

    fn avatar_owner(&self, file_id: Uuid) -> BoxFuture<'_, Result<Option<User>>> {
        Box::pin(self.0.read(move |connection| {
            const SQL: &str = concat!(
                "/* avatar_owner */ SELECT ",
                user_columns!(),
                " FROM users WHERE avatar_file_id = ?1 AND state <> ?2 ORDER BY id LIMIT 1"
            );
            let values = params![file_id.into_bytes(), State::Deleted.number()];
            Ok(connection.prepare_cached(SQL)?.query_row(values, user).optional()?)
        }))
    }
}

fn change_user(
    connection: &Connection,
    id: Uuid,
    name: Name,
    change: ProfileChange,
    entry: &Entry,
) -> Result<Option<User>> {
    const RENAME: &str = "/* change_user */ UPDATE users
        SET username = ?2, username_folded = ?3, username_skeleton = ?4 WHERE id = ?1";
    let Some(mut user) = user_by_id(connection, id)? else { return Ok(None) };
    if user.state == State::Deleted {
        return Err(is_deleted());
    }
    // An account of an earlier release may have a name that looks like another one, and keeps it.
    if user.username != name.username {
        let values = params![id.into_bytes(), name.username, name.folded, name.skeleton];
        connection.prepare_cached(RENAME)?.execute(values).map_err(taken)?;
        (user.username, user.username_folded) = (name.username, name.folded);
    }
    user.profile = change.apply(user.profile);
    update_profile(connection, &user)?;
    record(connection, Some(entry))?;
    Ok(Some(user))
}

fn taken(error: rusqlite::Error) -> Error {
    if is_unique_violation(&error) { name_taken() } else { error.into() }
}

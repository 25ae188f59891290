//! Changes of names, and the users of pictures, on SQLite.

use confab_common::sqlite::is_unique_violation;
use confab_common::{Error, Result};
use futures::future::BoxFuture;
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::audit::record;
use super::{Sqlite, update_profile, user, user_by_id};
use crate::store::{
    DELETED, Entry, Name, ProfileChange, ProfileStore, Reservation, State, User, is_deleted, name_taken,
};

impl ProfileStore for Sqlite {
    fn change_user(
        &self,
        id: Uuid,
        name: Name,
        change: ProfileChange,
        former: Reservation,
        entry: Entry,
    ) -> BoxFuture<'_, Result<Option<User>>> {
        Box::pin(self.0.write(move |connection| change_user(connection, id, name, change, &former, &entry)))
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
    former: &Reservation,
    entry: &Entry,
) -> Result<Option<User>> {
    const SKELETON: &str = "/* change_user */ SELECT username_skeleton FROM users WHERE id = ?1";
    const TAKE_BACK: &str = "/* change_user */ DELETE FROM users
        WHERE name_of = ?1 AND (username_folded = ?2 OR username_skeleton = ?3)";
    const RESERVE: &str = "/* change_user */ INSERT INTO users (id, username, username_folded, username_skeleton,
            password_hash, created_at_ms, state, free_name_at_ms, name_of)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    const RENAME: &str = "/* change_user */ UPDATE users
        SET username = ?2, username_folded = ?3, username_skeleton = ?4 WHERE id = ?1";
    let Some(mut user) = user_by_id(connection, id)? else { return Ok(None) };
    if user.state == State::Deleted {
        return Err(is_deleted());
    }
    // An account of an earlier release may have a name that looks like another one, and keeps it.
    if user.username != name.username {
        let key = id.into_bytes();
        let skeleton: Option<String> = connection.prepare_cached(SKELETON)?.query_row([key], |row| row.get(0))?;
        connection.prepare_cached(TAKE_BACK)?.execute(params![key, name.folded, name.skeleton])?;
        let values = params![key, name.username, name.folded, name.skeleton];
        connection.prepare_cached(RENAME)?.execute(values).map_err(taken)?;
        if let Some((folded, skeleton)) = former.forms(&user.username_folded, skeleton.as_deref(), &name) {
            connection.prepare_cached(RESERVE)?.execute(params![
                former.id.into_bytes(),
                DELETED,
                folded,
                skeleton,
                former.password_hash,
                user.created_at_ms,
                State::Deleted.number(),
                former.free_name_at_ms,
                key
            ])?;
        }
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

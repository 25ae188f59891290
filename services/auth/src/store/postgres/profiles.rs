//! Changes of names, and the users of pictures, on Postgres.

use confab_common::pg::{Client, violates};
use confab_common::{Error, Result};
use futures::future::BoxFuture;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::accounts::LOCK;
use super::audit::Record;
use super::{Postgres, UPDATE_PROFILE, prepare_all, update_profile, user};
use crate::store::{
    DELETED, Entry, Name, ProfileChange, ProfileStore, Reservation, State, User, is_deleted, name_taken,
};

impl ProfileStore for Postgres {
    fn change_user(
        &self,
        id: Uuid,
        name: Name,
        change: ProfileChange,
        former: Reservation,
        entry: Entry,
    ) -> BoxFuture<'_, Result<Option<User>>> {
        Box::pin(async move {
            self.0.run(async |client| change_user(client, id, name, change, &former, &entry).await).await
        })
    }

    fn avatar_owner(&self, file_id: Uuid) -> BoxFuture<'_, Result<Option<User>>> {
        Box::pin(async move {
            const SQL: &str = concat!(
                "/* avatar_owner */ SELECT ",
                user_columns!(),
                " FROM users WHERE avatar_file_id = $1 AND state <> $2 ORDER BY id LIMIT 1"
            );
            Ok(self.0.query(SQL, &[&file_id, &State::Deleted.number()]).await?.first().map(user))
        })
    }
}

async fn change_user(
    client: &mut Client,
    id: Uuid,
    name: Name,
    change: ProfileChange,
    former: &Reservation,
    entry: &Entry,
) -> Result<Option<User>> {
    const SKELETON: &str = "/* change_user */ SELECT username_skeleton FROM users WHERE id = $1";
    const TAKE_BACK: &str = "/* change_user */ DELETE FROM users
        WHERE name_of = $1 AND (username_folded = $2 OR username_skeleton = $3)";
    const RESERVE: &str = "/* change_user */ INSERT INTO users (id, username, username_folded, username_skeleton,
            password_hash, created_at_ms, state, free_name_at_ms, name_of)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    const RENAME: &str = "/* change_user */ UPDATE users
        SET username = $2, username_folded = $3, username_skeleton = $4 WHERE id = $1";
    let record = Record::prepare(client, Some(entry)).await?;
    let [lock, skeleton, take_back, rename, reserve, update] =
        prepare_all(client, [LOCK, SKELETON, TAKE_BACK, RENAME, RESERVE, UPDATE_PROFILE]).await?;
    let transaction = client.transaction().await?;
    let Some(row) = transaction.query_opt(&lock, &[&id]).await? else { return Ok(None) };
    let mut user = user(&row);
    if user.state == State::Deleted {
        return Err(is_deleted());
    }
    // An account of an earlier release may have a name that looks like another one, and keeps it.
    if user.username != name.username {
        let skeleton: Option<String> = transaction.query_one(&skeleton, &[&id]).await?.get(0);
        transaction.execute(&take_back, &[&id, &name.folded, &name.skeleton]).await?;
        let renamed = transaction.execute(&rename, &[&id, &name.username, &name.folded, &name.skeleton]).await;
        renamed.map_err(taken)?;
        if let Some((folded, skeleton)) = former.forms(&user.username_folded, skeleton.as_deref(), &name) {
            let (hash, created_at_ms, until_ms) = (&former.password_hash, &user.created_at_ms, &former.free_name_at_ms);
            let state = State::Deleted.number();
            let values: [&(dyn ToSql + Sync); 9] =
                [&former.id, &DELETED, &folded, &skeleton, hash, created_at_ms, &state, until_ms, &id];
            transaction.execute(&reserve, &values).await?;
        }
        (user.username, user.username_folded) = (name.username, name.folded);
    }
    user.profile = change.apply(user.profile);
    update_profile(&transaction, &update, &user).await?;
    record.write(&transaction).await?;
    transaction.commit().await?;
    Ok(Some(user))
}

fn taken(error: tokio_postgres::Error) -> Error {
    let is_taken = violates(&error, "users_username_folded_key") || violates(&error, "users_by_skeleton");
    if is_taken { name_taken() } else { error.into() }
}

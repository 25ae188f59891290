//! Changes of names, and the users of pictures, on Postgres.

use confab_common::pg::{Client, violates};
use confab_common::{Error, Result};
use futures::future::BoxFuture;
use uuid::Uuid;

use super::accounts::LOCK;
use super::audit::Record;
use super::{Postgres, UPDATE_PROFILE, prepare_all, update_profile, user};
use crate::store::{Entry, Name, ProfileChange, ProfileStore, State, User, is_deleted, name_taken};

impl ProfileStore for Postgres {
    fn change_user(
        &self,
        id: Uuid,
        name: Name,
        change: ProfileChange,
        entry: Entry,
    ) -> BoxFuture<'_, Result<Option<User>>> {
        Box::pin(async move { self.0.run(async |client| change_user(client, id, name, change, &entry).await).await })
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
    entry: &Entry,
) -> Result<Option<User>> {
    const RENAME: &str = "/* change_user */ UPDATE users
        SET username = $2, username_folded = $3, username_skeleton = $4 WHERE id = $1";
    let record = Record::prepare(client, Some(entry)).await?;
    let [lock, rename, update] = prepare_all(client, [LOCK, RENAME, UPDATE_PROFILE]).await?;
    let transaction = client.transaction().await?;
    let Some(row) = transaction.query_opt(&lock, &[&id]).await? else { return Ok(None) };
    let mut user = user(&row);
    if user.state == State::Deleted {
        return Err(is_deleted());
    }
    // An account of an earlier release may have a name that looks like another one, and keeps it.
    if user.username != name.username {
        let renamed = transaction.execute(&rename, &[&id, &name.username, &name.folded, &name.skeleton]).await;
        renamed.map_err(taken)?;
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

//! The store on Postgres.
//!
//! Every transaction takes its locks in one order: the row of the user, the head of the revocations, the rows of
//! sessions. So no two transactions wait for each other.

mod accounts;
mod audit;
mod directory;
mod invites;
mod keys;
mod list;
mod profiles;
mod revocations;
mod sessions;

use confab_common::pg::{Client, Pool, PostgresConfig, prepare};
use confab_common::{Error, Result, Secret};
use tokio_postgres::{Row, Statement, Transaction};

use super::{Claimed, Profile, State, User};

pub(super) mod embedded {
    refinery::embed_migrations!("migrations/postgres");
}

pub struct Postgres(Pool);

impl Postgres {
    pub async fn open(url: &Secret, config: &PostgresConfig) -> anyhow::Result<Self> {
        Ok(Self(Pool::open(url, "auth", embedded::migrations::runner(), config).await?))
    }
}

/// Prepares the statements of a transaction, or returns the prepared ones.
async fn prepare_all<const N: usize>(client: &Client, texts: [&str; N]) -> Result<[Statement; N]> {
    let mut prepared = Vec::with_capacity(N);
    for text in texts {
        prepared.push(prepare(client, text).await?);
    }
    prepared.try_into().map_err(|_| Error::internal("as many statements as texts"))
}

const UPDATE_PROFILE: &str = "/* update_profile */ UPDATE users
    SET display_name = $2, avatar_file_id = $3, data = $4, shown_name = $5, shown_folded = $6 WHERE id = $1";

/// Stores the profile of a locked account with the prepared [`UPDATE_PROFILE`].
async fn update_profile(transaction: &Transaction<'_>, update: &Statement, user: &User) -> Result<()> {
    let Profile { display_name, avatar_file_id, data } = &user.profile;
    let (name, folded) = (user.shown_name(), user.shown_folded());
    transaction.execute(update, &[&user.id, display_name, avatar_file_id, data, &name, &folded]).await?;
    Ok(())
}

/// Reads the columns of `user_columns!`.
fn user(row: &Row) -> User {
    User {
        id: row.get(0),
        username: row.get(1),
        username_folded: row.get(2),
        password_hash: row.get(3),
        created_at_ms: row.get(4),
        state: State::of(row.get(5)),
        profile: Profile { display_name: row.get(6), avatar_file_id: row.get(7), data: row.get(8) },
        claimed: row.get::<_, Option<String>>(9).map(|issuer| Claimed {
            issuer,
            name: row.get(10),
            picture: row.get(11),
            changed_at_ms: row.get(12),
        }),
    }
}

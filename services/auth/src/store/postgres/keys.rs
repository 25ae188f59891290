//! Server keys on Postgres.

use confab_common::pg::Client;
use confab_common::{Error, Result};
use confab_proto::server_key::Scopes;
use futures::future::BoxFuture;
use tokio_postgres::Row;
use uuid::Uuid;

use super::audit::Record;
use super::{Postgres, prepare_all};
use crate::store::{Entry, KeyStore, ServerKey};

impl KeyStore for Postgres {
    fn create_key(&self, key: ServerKey, max: u32, entry: Entry) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move { self.0.run(async |client| create(client, &key, max, &entry).await).await })
    }

    fn keys(&self) -> BoxFuture<'_, Result<Vec<ServerKey>>> {
        Box::pin(async move {
            const SQL: &str =
                "/* keys */ SELECT id, name, sha256, scopes, created_at_ms FROM server_keys ORDER BY created_at_ms, id";
            self.0.query(SQL, &[]).await?.iter().map(key).collect()
        })
    }

    fn key(&self, id: Uuid) -> BoxFuture<'_, Result<Option<ServerKey>>> {
        Box::pin(async move {
            const SQL: &str = "/* key */ SELECT id, name, sha256, scopes, created_at_ms FROM server_keys WHERE id = $1";
            self.0.query(SQL, &[&id]).await?.first().map(key).transpose()
        })
    }

    fn delete_key(&self, id: Uuid, entry: Entry) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move { self.0.run(async |client| delete(client, id, &entry).await).await })
    }
}

async fn create(client: &mut Client, key: &ServerKey, max: u32, entry: &Entry) -> Result<bool> {
    const LOCK: &str = "/* create_key */ LOCK TABLE server_keys IN SHARE ROW EXCLUSIVE MODE";
    const INSERT: &str = "/* create_key */ INSERT INTO server_keys (id, name, sha256, scopes, created_at_ms)
        SELECT $1::uuid, $2::text, $3::bytea, $4::text, $5::bigint
        WHERE (SELECT count(*) FROM server_keys) < $6::bigint
            AND ($7::uuid IS NULL OR EXISTS (SELECT FROM server_keys WHERE id = $7))";
    let record = Record::prepare(client, Some(entry)).await?;
    let [insert] = prepare_all(client, [INSERT]).await?;
    let ServerKey { id, name, sha256, scopes, created_at_ms } = key;
    let transaction = client.transaction().await?;
    transaction.batch_execute(LOCK).await?;
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
        [id, name, &&sha256[..], &scopes.to_string(), created_at_ms, &i64::from(max), &entry.actor.key_id];
    if transaction.execute(&insert, &values).await? == 0 {
        return Ok(false);
    }
    record.write(&transaction).await?;
    transaction.commit().await?;
    Ok(true)
}

async fn delete(client: &mut Client, id: Uuid, entry: &Entry) -> Result<bool> {
    const DELETE: &str = "/* delete_key */ DELETE FROM server_keys WHERE id = $1";
    let record = Record::prepare(client, Some(entry)).await?;
    let [delete] = prepare_all(client, [DELETE]).await?;
    let transaction = client.transaction().await?;
    if transaction.execute(&delete, &[&id]).await? == 0 {
        return Ok(false);
    }
    record.write(&transaction).await?;
    transaction.commit().await?;
    Ok(true)
}

fn key(row: &Row) -> Result<ServerKey> {
    let sha256 = row.get::<_, &[u8]>(2).try_into().map_err(|_| Error::internal("the hash of a key has 32 bytes"))?;
    let scopes = Scopes::of_names(row.get::<_, &str>(3).split(' '));
    Ok(ServerKey { id: row.get(0), name: row.get(1), sha256, scopes, created_at_ms: row.get(4) })
}

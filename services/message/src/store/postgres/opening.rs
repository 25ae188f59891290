//! The row of the log: which log this is, on which database, and in which format.

use confab_common::{Code, Error, Result, pg};
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::store::{self, FORMAT, FORMAT_WITH_MEMBERS, Opened};

/// Identifies the database. The timeline is taken from the write position, because the control file is updated late in
/// a promotion.
pub const FINGERPRINT: &str = "/* open_log */ SELECT system_identifier || ':' || left(pg_walfile_name(pg_current_wal_lsn()), 8) FROM pg_control_system()";

/// The function through which replicas of the release with format 1 append. It no longer exists after the upgrade.
const FORMER_APPEND: &str =
    "append_events(integer[], uuid[], smallint[], uuid[], uuid[], text[], text[], boolean[], bigint)";

const NEEDS_OWNER: &str =
    "this database user may not change the schema; run the command with the user that runs `confab-message migrate`";

/// Creates, checks or renews the row of the log. `wanted` is the number of partitions; `None` renews the epoch.
pub async fn open_or_renew(client: &mut pg::Client, wanted: Option<u32>) -> Result<Opened> {
    let transaction = client.transaction().await?;
    // Replicas that start together take turns; appends continue.
    transaction.batch_execute("/* open_log */ LOCK TABLE log IN EXCLUSIVE MODE").await?;
    let fingerprint: String = transaction.query_one(FINGERPRINT, &[]).await?.get(0);
    let row =
        transaction.query_opt("/* open_log */ SELECT epoch, fingerprint, partitions, format FROM log", &[]).await?;
    let opened = match (row, wanted) {
        (None, None) => return Err(Error::not_found("log")),
        (None, Some(partitions)) => {
            let epoch = store::next_epoch(None);
            let partitions = partitions as i32;
            let create =
                "/* open_log */ INSERT INTO log (epoch, fingerprint, partitions, format) VALUES ($1, $2, $3, $4)";
            transaction.execute(create, &[&epoch, &fingerprint, &partitions, &(FORMAT as i32)]).await?;
            let fill = "/* open_log */ INSERT INTO partitions SELECT n, 0 FROM generate_series(0, $1 - 1) n";
            transaction.execute(fill, &[&partitions]).await?;
            Opened { epoch, format: FORMAT }
        }
        (Some(row), wanted) => {
            let epoch: Uuid = row.get(0);
            let renewed = match wanted {
                Some(wanted) => {
                    store::renewed(epoch, (row.get(1), &fingerprint), (row.get::<_, i32>(2).into(), wanted))?
                }
                None => Some(store::next_epoch(Some(epoch))),
            };
            if let Some(epoch) = renewed {
                // Locks every head, so that an append belongs entirely to one epoch.
                let lock = "/* open_log */ SELECT 1 FROM partitions ORDER BY partition FOR UPDATE";
                transaction.query(lock, &[]).await?;
                transaction
                    .execute("/* open_log */ UPDATE log SET epoch = $1, fingerprint = $2", &[&epoch, &fingerprint])
                    .await?;
                tracing::warn!(%epoch, fingerprint, "renewed the log's epoch");
            }
            Opened { epoch: renewed.unwrap_or(epoch), format: row.get::<_, i32>(3) as u32 }
        }
    };
    transaction.commit().await?;
    Ok(opened)
}

/// Raises the log to the newest format.
pub async fn finish_upgrade(client: &mut pg::Client) -> Result<()> {
    let transaction = client.transaction().await?;
    transaction.batch_execute("/* finish_upgrade */ LOCK TABLE log IN EXCLUSIVE MODE").await?;
    let row = transaction.query_opt("/* finish_upgrade */ SELECT format, rooms_opened FROM log", &[]).await?;
    let row = row.ok_or_else(|| Error::not_found("log"))?;
    let format = row.get::<_, i32>(0) as u32;
    if format >= FORMAT {
        return Ok(());
    }
    if format < FORMAT_WITH_MEMBERS && !row.get::<_, bool>(1) {
        return Err(Error::new(Code::Conflict, store::ROOMS_NOT_OPENED));
    }
    // Locks every head, so that no append reads one format and another append the other.
    transaction.query("/* finish_upgrade */ SELECT 1 FROM partitions ORDER BY partition FOR UPDATE", &[]).await?;
    transaction.execute("/* finish_upgrade */ UPDATE log SET format = $1", &[&(FORMAT as i32)]).await?;
    let drop = format!("/* finish_upgrade */ DROP FUNCTION IF EXISTS {FORMER_APPEND}");
    transaction.batch_execute(&drop).await.map_err(|error| match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Error::new(Code::Forbidden, NEEDS_OWNER),
        _ => error.into(),
    })?;
    transaction.commit().await?;
    Ok(())
}

//! The row of the log: which log this is, as which file, and in which format.

use confab_common::{Code, Error, Result};
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use crate::store::{self, FORMAT, Opened};

/// Creates, checks or renews the row of the log. `wanted` is the number of partitions; `None` renews the epoch.
pub fn open_or_renew(connection: &Connection, fingerprint: &str, wanted: Option<u32>) -> Result<Opened> {
    let row = connection
        .query_row("/* open_log */ SELECT epoch, fingerprint, partitions, format FROM log", [], |row| {
            Ok((
                row.get(0).map(Uuid::from_bytes)?,
                row.get::<_, String>(1)?,
                row.get::<_, i64>(2)?,
                row.get::<_, u32>(3)?,
            ))
        })
        .optional()?;
    let Some((epoch, old_fingerprint, partitions, format)) = row else {
        let wanted = wanted.ok_or_else(|| Error::not_found("log"))?;
        let epoch = store::next_epoch(None);
        let create =
            "/* open_log */ INSERT INTO log (one, epoch, fingerprint, partitions, format) VALUES (1, ?1, ?2, ?3, ?4)";
        connection.execute(create, params![epoch.as_bytes(), fingerprint, wanted, FORMAT])?;
        for partition in 0..wanted {
            connection.execute("/* open_log */ INSERT INTO partitions VALUES (?1, 0)", [partition])?;
        }
        return Ok(Opened { epoch, format: FORMAT });
    };
    let renewed = match wanted {
        Some(wanted) => store::renewed(epoch, (&old_fingerprint, fingerprint), (partitions, wanted))?,
        None => Some(store::next_epoch(Some(epoch))),
    };
    if let Some(epoch) = renewed {
        connection.execute(
            "/* open_log */ UPDATE log SET epoch = ?1, fingerprint = ?2",
            params![epoch.as_bytes(), fingerprint],
        )?;
        tracing::warn!(%epoch, fingerprint, "renewed the log's epoch");
    }
    Ok(Opened { epoch: renewed.unwrap_or(epoch), format })
}

/// Returns the log's epoch and format, in one statement.
pub fn opened(connection: &Connection) -> Result<Opened> {
    let opened = connection
        .prepare_cached("/* opened */ SELECT epoch, format FROM log")?
        .query_row([], |row| Ok(Opened { epoch: row.get(0).map(Uuid::from_bytes)?, format: row.get(1)? }))
        .optional()?;
    opened.ok_or_else(|| Error::not_found("log"))
}

/// Returns the log's format.
pub fn format(connection: &Connection) -> Result<u32> {
    opened(connection).map(|opened| opened.format)
}

/// Raises the log to the newest format.
pub fn finish_upgrade(connection: &Connection) -> Result<()> {
    if format(connection)? >= FORMAT {
        return Ok(());
    }
    let raise = "/* finish_upgrade */ UPDATE log SET format = ?1 WHERE rooms_opened";
    match connection.execute(raise, [FORMAT])? {
        0 => Err(Error::new(Code::Conflict, store::ROOMS_NOT_OPENED)),
        _ => Ok(()),
    }
}

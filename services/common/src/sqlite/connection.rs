//! Connections to a SQLite file.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use rusqlite::{Connection, OpenFlags};

use crate::telemetry::trace::{Kind, Span};

pub(super) fn connect(path: &Path, flags: OpenFlags) -> anyhow::Result<Connection> {
    prepare(path, flags).with_context(|| {
        format!("cannot open {}; if it is damaged, docs/backup.md describes how to restore it", path.display())
    })
}

fn prepare(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(2))?;
    connection.set_prepared_statement_cache_capacity(64);
    if !flags.contains(OpenFlags::SQLITE_OPEN_READ_ONLY) {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // FULL: an acknowledged write survives a power failure, not only a crash.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
    }
    Ok(connection)
}

/// Starts a span that is current until it is dropped.
pub(super) fn span(name: &'static str) -> Span {
    let span = Span::current().child(Kind::Client, name);
    span.set("db.system.name", || "sqlite");
    span
}

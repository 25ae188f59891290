//! Transfers a service's data from one store to another store of any kind. Tables are transferred row by row, in one
//! canonical text form that can be counted, hashed and compared.

#[cfg(feature = "testing")]
pub mod contract;
mod locked;
mod postgres;
mod row;
mod sqlite;

use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

pub use locked::LockedStore;
pub use row::{Row, Value, rows};

/// The tables of a service. The schema is defined next to the service's migrations, and [`contract`] checks that the
/// two agree.
pub struct Schema {
    /// The name of the Postgres schema.
    pub name: &'static str,
    pub tables: &'static [Table],
    /// Tables that the databases fill from the other tables; they are not transferred.
    pub derived: &'static [&'static str],
    /// The migrations on SQLite.
    pub sqlite: fn() -> refinery::Runner,
    /// The migrations on Postgres.
    pub postgres: fn() -> refinery::Runner,
}

/// A table to transfer. Rows are ordered by the primary key, which consists of numbers, ids, flags, and texts with the
/// collation "C" in Postgres, since all stores order these alike.
#[derive(Debug)]
pub struct Table {
    pub name: &'static str,
    /// How many of the first columns form the primary key.
    key: usize,
    columns: &'static [Column],
    seeded: bool,
}

/// A column: its name and its kind.
pub type Column = (&'static str, Kind);

/// The kind of a column's values, independent of the type in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Id,
    /// A number of up to 64 bits.
    Number,
    Flag,
    Text,
    Bytes,
    /// A text about the database itself. It is not transferred; an empty text replaces it.
    Local,
}

impl Table {
    /// Creates a table whose first `key` columns are the primary key.
    pub const fn new(name: &'static str, key: usize, columns: &'static [Column]) -> Self {
        Self { name, key, columns, seeded: false }
    }

    /// Marks a table whose first row comes from a migration, so that the table is never empty. The transfer replaces
    /// this row.
    pub const fn seeded(self) -> Self {
        Self { seeded: true, ..self }
    }

    pub fn columns(&self) -> impl Iterator<Item = &'static str> {
        self.columns.iter().map(|(name, _)| *name)
    }

    fn names(&self) -> String {
        self.columns().collect::<Vec<_>>().join(", ")
    }

    /// Returns the columns to select. `number` wraps a number column, whose width differs between stores.
    fn selection(&self, number: impl Fn(&str) -> String) -> String {
        let column = |(name, kind): &Column| match kind {
            Kind::Local => "''".into(),
            Kind::Number => number(name),
            _ => (*name).into(),
        };
        self.columns.iter().map(column).collect::<Vec<_>>().join(", ")
    }

    /// Returns the end of a statement that reads a page: the page after a key, given the placeholders of the key, or
    /// the first page.
    fn page(&self, after: Option<Vec<String>>) -> String {
        // Qualified by the table: a selected column may have the same name as a column of the key.
        let key = self
            .columns()
            .take(self.key)
            .map(|column| format!("{}.{column}", self.name))
            .collect::<Vec<_>>()
            .join(", ");
        let after = after.map_or(String::new(), |places| format!("WHERE ({key}) > ({}) ", places.join(", ")));
        format!("FROM {} {after}ORDER BY {key} LIMIT {PAGE}", self.name)
    }
}

/// Rows per read or write; bounds the memory used.
const PAGE: usize = 500;

/// The count and the hash of lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    pub rows: u64,
    /// The SHA-256 of the lines, each with its line feed, in lower-case hexadecimal.
    pub sha256: String,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rows with SHA-256 {}", self.rows, self.sha256)
    }
}

/// Counts and hashes lines.
pub struct Tallying {
    rows: u64,
    digest: Context,
}

impl Default for Tallying {
    fn default() -> Self {
        Self { rows: 0, digest: Context::new(&SHA256) }
    }
}

impl Tallying {
    /// Adds a line, which ends in a line feed.
    pub fn line(&mut self, line: &[u8]) {
        self.rows += 1;
        self.digest.update(line);
    }

    pub fn finish(self) -> Tally {
        Tally { rows: self.rows, sha256: hex(self.digest.finish().as_ref()) }
    }
}

/// How often long work logs its progress.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Logs the progress of long work.
pub struct Progress {
    what: String,
    done: u64,
    reported: Instant,
}

impl Progress {
    /// Starts; `what` completes the log line "… so far".
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), done: 0, reported: Instant::now() }
    }

    /// Adds `done` items.
    pub fn add(&mut self, done: usize) {
        self.done += done as u64;
        if self.reported.elapsed() >= REPORT_EVERY {
            self.reported = Instant::now();
            tracing::info!("{} {} so far", self.done, self.what);
        }
    }
}

/// Encodes bytes in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

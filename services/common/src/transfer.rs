//! Carries what a service keeps from one store to another, of whichever kind: its tables, row by row, in one canonical text
//! form that can be counted, hashed and compared.

#[cfg(feature = "testing")]
pub mod contract;
mod held;
mod postgres;
mod row;
mod sqlite;

use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

pub use held::Held;
pub use row::{Row, Value, rows};

/// What a service keeps. It is defined beside the service's migrations, and [`contract`] holds the two together.
pub struct Schema {
    /// The name of its Postgres schema.
    pub name: &'static str,
    /// Its tables.
    pub tables: &'static [Table],
    /// Tables that its databases fill by themselves from those, and that are not carried.
    pub derived: &'static [&'static str],
    /// Its migrations on SQLite.
    pub sqlite: fn() -> refinery::Runner,
    /// Its migrations on Postgres.
    pub postgres: fn() -> refinery::Runner,
}

/// A table as it is carried: in the order of its primary key, of numbers, ids and flags, which all stores order alike.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// How many of the columns, the first ones, are the primary key.
    key: usize,
    columns: &'static [Column],
    seeded: bool,
}

/// A column: its name and what is in it.
pub type Column = (&'static str, Kind);

/// What is in a column, whatever the store calls its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A UUID.
    Id,
    /// A number of up to 64 bits.
    Number,
    /// True or false.
    Flag,
    /// A text.
    Text,
    /// Bytes.
    Bytes,
    /// A text that says something about the very database it is in: it stays behind, and an empty one arrives.
    Local,
}

impl Table {
    /// A table whose first `key` columns are its primary key.
    pub const fn new(name: &'static str, key: usize, columns: &'static [Column]) -> Self {
        Self { name, key, columns, seeded: false }
    }

    /// The same, to which a migration gives its first row, so that it is never empty; what is carried replaces that.
    pub const fn seeded(self) -> Self {
        Self { seeded: true, ..self }
    }

    /// The names of its columns.
    pub fn columns(&self) -> impl Iterator<Item = &'static str> {
        self.columns.iter().map(|(name, _)| *name)
    }

    fn names(&self) -> String {
        self.columns().collect::<Vec<_>>().join(", ")
    }

    /// The columns to read; `number` reads one of numbers, which may be of several widths.
    fn selection(&self, number: impl Fn(&str) -> String) -> String {
        let column = |(name, kind): &Column| match kind {
            Kind::Local => "''".into(),
            Kind::Number => number(name),
            _ => (*name).into(),
        };
        self.columns.iter().map(column).collect::<Vec<_>>().join(", ")
    }

    /// The end of a statement that reads a page: that after a key, whose places are given, or the first.
    fn page(&self, after: Option<Vec<String>>) -> String {
        // Of the table by name: a column of the selection may have its name and not its index.
        let key = self.columns().take(self.key).map(|column| format!("{}.{column}", self.name)).collect::<Vec<_>>().join(", ");
        let after = after.map_or(String::new(), |places| format!("WHERE ({key}) > ({}) ", places.join(", ")));
        format!("FROM {} {after}ORDER BY {key} LIMIT {PAGE}", self.name)
    }
}

/// Rows read or written at once: what bounds the memory that is needed.
const PAGE: usize = 500;

/// How many lines there are, and what they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// How many.
    pub rows: u64,
    /// The SHA-256 of all of them, each with its line feed, in lower-case hexadecimal.
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
    /// Takes a line, which ends in a line feed.
    pub fn line(&mut self, line: &[u8]) {
        self.rows += 1;
        self.digest.update(line);
    }

    /// What it came to.
    pub fn finish(self) -> Tally {
        Tally { rows: self.rows, sha256: hex(self.digest.finish().as_ref()) }
    }
}

/// How often long work says how far it is.
const REPORT: Duration = Duration::from_secs(5);

/// Says of long work how far it is.
pub struct Progress {
    what: String,
    done: u64,
    reported: Instant,
}

impl Progress {
    /// Work that is done so far not at all; `what` completes "… so far".
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), done: 0, reported: Instant::now() }
    }

    /// So many more are done.
    pub fn add(&mut self, done: usize) {
        self.done += done as u64;
        if self.reported.elapsed() >= REPORT {
            self.reported = Instant::now();
            tracing::info!("{} {} so far", self.done, self.what);
        }
    }
}

/// Bytes in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

//! A store locked by one transaction: reads see a single state, and writes take effect as a whole or not at all.

use std::io::{BufRead, Write};

use anyhow::ensure;

use super::row::line;
use super::{PAGE, Progress, Row, Schema, Table, Tally, Tallying, postgres, rows, sqlite};
use crate::store::{StorageConfig, StoreUrl};

/// A locked store. Uncommitted writes are rolled back when it is dropped.
pub struct LockedStore {
    pub schema: &'static Schema,
    store: Store,
}

enum Store {
    Sqlite(sqlite::Session),
    Postgres(postgres::Session),
}

impl Schema {
    /// Locks an existing store to read from it.
    ///
    /// # Errors
    /// When the store does not exist, another process uses it, or it cannot be opened.
    pub async fn lock(&'static self, url: &StoreUrl, storage: &StorageConfig) -> anyhow::Result<LockedStore> {
        let store = match url {
            StoreUrl::Sqlite(path) => {
                ensure!(path.exists(), "there is no {}; CONFAB_DATA_DIR names the data directory", path.display());
                Store::Sqlite(sqlite::Session::begin(path, (self.sqlite)(), "DEFERRED")?)
            }
            StoreUrl::Postgres(url) => {
                let isolation = "ISOLATION LEVEL REPEATABLE READ READ ONLY";
                Store::Postgres(postgres::Session::begin(url, self, &storage.postgres, isolation).await?)
            }
        };
        Ok(LockedStore { schema: self, store })
    }

    /// Migrates and locks a store to fill it.
    ///
    /// # Errors
    /// When the store is not empty, another process uses it, or it cannot be opened.
    pub async fn lock_empty(&'static self, url: &StoreUrl, storage: &StorageConfig) -> anyhow::Result<LockedStore> {
        let store = match url {
            StoreUrl::Sqlite(path) => Store::Sqlite(sqlite::Session::begin(path, (self.sqlite)(), "IMMEDIATE")?),
            StoreUrl::Postgres(url) => {
                let migrating = storage.migrating();
                let mut session = postgres::Session::begin(url, self, &migrating.postgres, "").await?;
                session.lock(self.tables).await?;
                Store::Postgres(session)
            }
        };
        let mut locked = LockedStore { schema: self, store };
        for table in self.tables.iter().filter(|table| !table.seeded) {
            let empty = locked.page(table, None).await?.is_empty();
            ensure!(
                empty,
                "{} has rows in its table {}; only a store that Confab has never used can be filled",
                locked.place(url),
                table.name
            );
        }
        for table in self.tables.iter().filter(|table| table.seeded) {
            locked.clear(table).await?;
        }
        Ok(locked)
    }
}

impl LockedStore {
    /// Writes the rows of a table, one per line.
    ///
    /// # Errors
    /// When the store or the writer fails.
    pub async fn dump(&mut self, table: &Table, mut to: impl Write) -> anyhow::Result<Tally> {
        let (mut tally, mut progress) = (Tallying::default(), Progress::new(self.rows(table, "read")));
        let mut after: Option<Row> = None;
        loop {
            let mut page = self.page(table, after.as_deref()).await?;
            for row in &page {
                let line = line(row)?;
                tally.line(&line);
                to.write_all(&line)?;
            }
            progress.add(page.len());
            if page.len() < PAGE {
                return Ok(tally.finish());
            }
            after = page.pop();
            after.iter_mut().for_each(|row| row.truncate(table.key));
        }
    }

    /// Adds the rows in the lines of a table.
    ///
    /// # Errors
    /// When a line does not fit the table or the store rejects it.
    pub async fn load(&mut self, table: &Table, lines: impl BufRead) -> anyhow::Result<()> {
        let mut progress = Progress::new(self.rows(table, "written"));
        let mut rows = rows(table, lines).peekable();
        while rows.peek().is_some() {
            let page = rows.by_ref().take(PAGE).collect::<anyhow::Result<Vec<_>>>()?;
            match &mut self.store {
                Store::Sqlite(session) => session.add(table, &page)?,
                Store::Postgres(session) => session.add(table, &page).await?,
            }
            progress.add(page.len());
        }
        Ok(())
    }

    /// Counts and hashes the rows of a table.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn tally(&mut self, table: &Table) -> anyhow::Result<Tally> {
        self.dump(table, std::io::sink()).await
    }

    /// Returns the first page of a table.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn first(&mut self, table: &Table) -> anyhow::Result<Vec<Row>> {
        self.page(table, None).await
    }

    pub async fn commit(self) -> anyhow::Result<()> {
        match self.store {
            Store::Sqlite(session) => session.commit(),
            Store::Postgres(session) => session.commit().await,
        }
    }

    async fn page(&mut self, table: &Table, after: Option<&[super::Value]>) -> anyhow::Result<Vec<Row>> {
        match &mut self.store {
            Store::Sqlite(session) => session.page(table, after),
            Store::Postgres(session) => session.page(table, after).await,
        }
    }

    async fn clear(&mut self, table: &Table) -> anyhow::Result<()> {
        match &mut self.store {
            Store::Sqlite(session) => session.clear(table),
            Store::Postgres(session) => session.clear(table).await,
        }
    }

    fn place(&self, url: &StoreUrl) -> String {
        match url {
            StoreUrl::Sqlite(path) => path.display().to_string(),
            StoreUrl::Postgres(_) => format!("the Postgres schema {}", self.schema.name),
        }
    }

    fn rows(&self, table: &Table, done: &str) -> String {
        format!("rows of {}.{} {done}", self.schema.name, table.name)
    }
}

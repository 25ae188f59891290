//! A SQLite database as a service's store: one writer thread that groups commits, and a few readers.

mod connection;
mod readers;

use std::fs::{File, TryLockError};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use crate::{Error, Result, private};

pub use readers::Readers;

use connection::{connect, span};

/// Jobs queued for the writer.
const WRITE_QUEUE: usize = 1024;
/// Maximum jobs in one commit.
const GROUP: usize = 256;
/// Concurrent reads.
const READERS: usize = 4;
/// How long to retry a locked database. It is longer than another process takes to check whether a database is free.
const LOCK_RETRY_LIMIT: Duration = Duration::from_millis(100);

/// An open database; clones share it. Only one process can open it: a lock file next to the database excludes other
/// processes.
#[derive(Clone)]
pub struct Database {
    writer: mpsc::Sender<Box<dyn Job>>,
    readers: Readers,
    _lock: Arc<File>,
}

/// A unit of work in a group commit. It runs in its own savepoint, and receives the outcome after the commit.
trait Job: Send {
    /// Does the work. Returns `false` to roll it back.
    fn run(&mut self, connection: &Connection) -> bool;
    fn finish(self: Box<Self>, committed: bool);
}

struct Write<F, T> {
    work: Option<F>,
    outcome: Option<Result<T>>,
    answer: oneshot::Sender<Result<T>>,
}

impl<F, T> Job for Write<F, T>
where
    F: FnOnce(&Connection) -> Result<T> + Send,
    T: Send,
{
    fn run(&mut self, connection: &Connection) -> bool {
        self.outcome = self.work.take().map(|work| work(connection));
        matches!(self.outcome, Some(Ok(_)))
    }

    fn finish(self: Box<Self>, committed: bool) {
        let outcome = match self.outcome {
            // The work's own error stands, whether or not the commit of the group succeeded.
            Some(Err(error)) => Err(error),
            Some(Ok(value)) if committed => Ok(value),
            // Whether a failed COMMIT reached the disk is unknown.
            _ => Err(Error::timeout()),
        };
        let _ = self.answer.send(outcome);
    }
}

impl Database {
    /// Opens or creates the database at the path of a `sqlite:PATH` URL, and applies missing `migrations`. A database
    /// that a newer program has migrated is opened as well.
    ///
    /// # Errors
    /// When another process has locked the database, or it cannot be opened or migrated.
    pub fn open(path: &Path, migrations: refinery::Runner) -> anyhow::Result<Self> {
        let (connection, lock) = open_alone(path, migrations)?;
        let (writer, queue) = mpsc::channel(WRITE_QUEUE);
        std::thread::Builder::new().name("sqlite-writer".into()).spawn(move || write_all(connection, queue))?;
        Ok(Self { writer, readers: Readers::new(path.to_owned(), READERS), _lock: Arc::new(lock) })
    }

    /// Runs `work` in a transaction that may also contain other callers' work, and returns after the transaction is on
    /// disk. An error rolls back this work only.
    ///
    /// # Errors
    /// The error of `work`; `timeout` when the commit failed.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let _span = span("sqlite write");
        let (answer, outcome) = oneshot::channel();
        let job = Write { work: Some(work), outcome: None, answer };
        self.writer.send(Box::new(job)).await.map_err(|_| Error::unavailable("the database"))?;
        outcome.await.unwrap_or_else(|_| Err(Error::timeout()))
    }

    /// Runs `work` on a read-only connection. All reads in `work` see one snapshot.
    ///
    /// # Errors
    /// The error of `work`.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.readers.read(work).await
    }

    /// Returns the read-only connections.
    pub fn readers(&self) -> &Readers {
        &self.readers
    }
}

/// Opens and migrates a database that no other process has locked. Returns the connection and the lock file.
pub(crate) fn open_alone(path: &Path, migrations: refinery::Runner) -> anyhow::Result<(Connection, File)> {
    if let Some(directory) = path.parent() {
        private::directory(directory).with_context(|| {
            format!("cannot create {}; CONFAB_DATA_DIR names the data directory", directory.display())
        })?;
    }
    let lock = lock(path)?;
    keep_private(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut connection = connect(path, OpenFlags::default())?;
    migrations
        .set_abort_missing(false)
        .run(&mut connection)
        .with_context(|| format!("migrating {}", path.display()))?;
    Ok((connection, lock))
}

/// The database contains password hashes. SQLite gives its auxiliary files the mode of the database.
fn keep_private(path: &Path) -> std::io::Result<()> {
    private::file(path)?;
    ["-wal", "-shm", "-journal"].iter().try_for_each(|suffix| {
        let mut beside = path.as_os_str().to_owned();
        beside.push(suffix);
        private::close(Path::new(&beside))
    })
}

/// Checks that no other process has locked the database at this path, and leaves it unlocked.
///
/// # Errors
/// When another process has locked it; the message contains the process id.
pub fn ensure_free(path: &Path) -> anyhow::Result<()> {
    match File::options().read(true).write(true).open(path.with_extension("lock")) {
        Ok(lock) => take_lock(&lock, path),
        // The database does not exist, or this user cannot read it: opening it will show which.
        Err(_) => Ok(()),
    }
}

fn lock(path: &Path) -> anyhow::Result<File> {
    let lock_path = path.with_extension("lock");
    let lock = private::file(&lock_path)
        .with_context(|| format!("cannot create {}; CONFAB_DATA_DIR names the data directory", lock_path.display()))?;
    take_lock(&lock, path)?;
    let pid = std::process::id().to_string();
    let named = lock.set_len(0).and_then(|()| lock.write_all_at(pid.as_bytes(), 0));
    named.with_context(|| format!("cannot write {}", lock_path.display()))?;
    Ok(lock)
}

fn take_lock(lock: &File, path: &Path) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            // The other process may only be checking whether the database is free.
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_RETRY_LIMIT => {
                std::thread::sleep(LOCK_RETRY_LIMIT / 10)
            }
            Err(TryLockError::WouldBlock) => {
                let pid = std::fs::read_to_string(path.with_extension("lock")).unwrap_or_default();
                let pid = if pid.is_empty() { pid } else { format!(", pid {pid}") };
                let directory = path.parent().unwrap_or(path).display();
                bail!("{directory} is in use by another Confab process{pid}; stop it or choose another CONFAB_DATA_DIR")
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
    }
}

fn write_all(mut connection: Connection, mut queue: mpsc::Receiver<Box<dyn Job>>) {
    let mut group = Vec::new();
    while queue.blocking_recv_many(&mut group, GROUP) > 0 {
        let committed = match commit(&mut connection, &mut group) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "a commit failed");
                false
            }
        };
        group.drain(..).for_each(|job| job.finish(committed));
    }
}

fn commit(connection: &mut Connection, group: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
    let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for job in group {
        let savepoint = transaction.savepoint()?;
        if job.run(&savepoint) {
            savepoint.commit()?;
        }
    }
    transaction.commit()
}

/// Returns whether an error is a violation of a unique constraint.
pub fn is_unique_violation(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::SqliteFailure(failure, _)
        if failure.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE || failure.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY)
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen,
            ) => Error::unavailable("the database").because(format_args!("the database rejects the request: {error}")),
            Some(ErrorCode::OperationInterrupted) => Error::timeout(),
            _ => Error::internal(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    fn file(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("confab-sqlite-{}-{name}", std::process::id())).join("test.db")
    }

    fn open(name: &str) -> Database {
        let path = file(name);
        let _ = std::fs::remove_dir_all(path.parent().unwrap());
        let migration = refinery::Migration::unapplied("V1__t", "CREATE TABLE t (n INTEGER PRIMARY KEY)").unwrap();
        Database::open(&path, refinery::Runner::new(&[migration])).unwrap()
    }

    #[tokio::test]
    async fn failed_job_does_not_affect_its_group() {
        let database = open("group");
        let insert = |n: i64| {
            database.write(move |c| {
                c.execute("INSERT INTO t VALUES (?1)", [n])?;
                if n == 2 { Err(Error::not_found("two")) } else { Ok(n) }
            })
        };
        let (one, two, three) = tokio::join!(insert(1), insert(2), insert(3));
        assert_eq!((one.unwrap(), three.unwrap()), (1, 3));
        assert!(two.is_err());
        let sum =
            database.read(|c| Ok(c.query_row("SELECT sum(n) FROM t", [], |row| row.get::<_, i64>(0))?)).await.unwrap();
        assert_eq!(sum, 4);
    }

    #[tokio::test]
    async fn program_runs_on_a_newer_schema() {
        drop(open("newer"));
        if let Err(error) = Database::open(&file("newer"), refinery::Runner::new(&[])) {
            panic!("{error:#}");
        }
    }

    #[tokio::test]
    async fn database_files_are_private() {
        let mut database = open("private");
        let path = file("private");
        let directory = path.parent().unwrap().to_owned();
        let files = || std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
        for given in [0o600, 0o644, 0o666] {
            database.write(|c| Ok(c.execute("INSERT INTO t DEFAULT VALUES", [])?)).await.unwrap();
            let found = files();
            assert!(found.len() >= 4, "the database, its log, its index and the lock: {found:?}");
            for file in &found {
                let Ok(metadata) = file.metadata() else { continue };
                assert_eq!(metadata.permissions().mode() & 0o077, 0, "{given:o}: {}", file.display());
            }
            drop(database);
            // A directory that existed before, with files of an earlier version. SQLite's auxiliary files may be
            // deleted meanwhile.
            std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o755)).unwrap();
            for file in files() {
                let _ = std::fs::set_permissions(file, PermissionsExt::from_mode(given));
            }
            database = Database::open(&path, refinery::Runner::new(&[])).unwrap();
        }
    }

    #[tokio::test]
    async fn database_is_locked_by_one_process() {
        let (path, database) = (file("lock"), open("lock"));
        let directory = path.parent().unwrap().display();
        let expected = format!("{directory} is in use by another Confab process, pid {}; stop it", std::process::id());
        for error in [Database::open(&path, refinery::Runner::new(&[])).err().unwrap(), ensure_free(&path).unwrap_err()]
        {
            assert!(error.to_string().starts_with(&expected), "{error}");
        }
        drop(database);
        ensure_free(&path).unwrap();
        ensure_free(&path.with_file_name("other.db")).unwrap();
    }
}

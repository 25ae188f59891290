//! The message service: a partitioned, numbered log, the only authority on the order of events.

mod batch;
mod check;
mod config;
mod convert;
mod credentials;
mod dropping;
mod erasing;
mod files;
mod grpc;
mod indexing;
mod lanes;
mod metrics;
mod publish;
mod rights;
#[cfg(feature = "failpoints")]
mod sabotage;
mod service;
mod store;
#[cfg(test)]
mod testing;
mod words;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::{Context, ensure};
use confab_common::Code;
use confab_common::bus::Bus;
use confab_common::grpc::{Role, Services, serve};
use confab_common::metrics::LIMITS;
use confab_common::pg::PostgresConfig;
use confab_common::process::Process;
use confab_common::readiness::{Condition, Readiness};
use confab_common::store::{StorageConfig, StoreUrl};
use confab_identity::{Callers, Guarded};
use confab_proto::message::v1::message_service_server::MessageServiceServer;

pub use config::{Command, MessageArgs, MessageConfig, Program, Switch};
pub use grpc::Grpc;
pub use store::tables::{SCHEMA, partitions};

use files::Files;
use lanes::Lanes;
use publish::Hints;
use rights::Rights;
use service::{Searches, Service};
use store::postgres::Postgres;
use store::sqlite::Sqlite;
use store::{FORMAT, FORMAT_WITH_MEMBERS, Store};

/// Pause before the next attempt to open the log.
const OPEN_PAUSE: Duration = Duration::from_millis(250);
/// How often the service checks that the database is still the same.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// The condition that a replica does not meet when the log has a newer format.
const CURRENT_PROGRAM: &str = "a program of the log's format";
/// Lanes into Postgres: enough to keep it busy while some wait for its disk.
const LANES: usize = 4;

/// Runs the program until shutdown, then appends the accepted events and publishes their hints.
///
/// # Errors
/// When a setting is wrong, the database rejects the login, or the address cannot be bound.
pub async fn run(program: Program, process: Process) -> anyhow::Result<()> {
    let Program { common, storage, service, command } = program;
    let MessageArgs { reflection, bus, message, callers, auth_url, room_url, file_url } = service;
    match command {
        Some(Command::Migrate) => migrate(&message, &storage).await,
        Some(Command::RenewEpoch) => renew_epoch(&message, &storage).await,
        Some(Command::Reindex) => reindex(&message, &storage).await,
        Some(Command::FinishUpgrade) => finish_upgrade(&message, &storage).await,
        None => {
            let auth = process.security.connect(Role::Auth, &auth_url).context("CONFAB_AUTH_URL")?;
            let room = process.security.connect(Role::Room, &room_url).context("CONFAB_ROOM_URL")?;
            let file = process.security.connect(Role::File, &file_url).context("CONFAB_FILE_URL")?;
            let services = Services { room, file, ..Services::none() };
            let bus = bus.open(&process.readiness)?;
            let callers = Callers::start(&callers, Role::Message, auth, Some(&bus), &process)?;
            let log = start(&message, &storage, bus.clone(), services, &process).await?;
            process.readiness.started();
            let server = Guarded::new(log.server(), callers);
            serve(&process, common.listen, common.drain, reflection.routes(server, confab_proto::DESCRIPTORS)?).await?;
            log.finish().await;
            bus.flush().await;
            Ok(())
        }
    }
}

pub struct Log(Arc<Service>);

impl Log {
    /// Creates a gRPC server of the log.
    pub fn server(&self) -> MessageServiceServer<Grpc> {
        grpc::server(self.0.clone())
    }

    /// Appends accepted events and publishes their hints; rejects new events.
    pub async fn finish(&self) {
        self.0.finish().await;
    }
}

/// Opens the log and starts its lanes. It calls the file service, which attaches files to messages and deletes them with
/// their last message, and, while the log has the former format, the room service, which then decides whether a user may post.
///
/// # Errors
/// When the store's URL is wrong, the database rejects the login, or its log has another number of partitions.
pub async fn start(
    config: &MessageConfig,
    storage: &StorageConfig,
    bus: Bus,
    services: Services,
    process: &Process,
) -> anyhow::Result<Log> {
    LazyLock::force(&metrics::METRICS);
    LIMITS.exist(&["searches", "search_time"]);
    let services = services.called_by(Role::Message);
    let opened = process.readiness.condition("the log");
    let (store, lanes) = open_store(config, &storage.serving(process)).await?;
    let mut state = loop {
        match store.open_log(config.partitions).await {
            // The database is slow or unreachable again: the replica waits for it as for the first connection.
            Err(error) if matches!(error.code, Code::Unavailable | Code::Timeout) => {
                tracing::warn!(%error, "waiting for the log");
                tokio::time::sleep(OPEN_PAUSE).await;
            }
            opened => break opened.context("opening the log")?,
        }
    };
    // No replica of an earlier release can be running beside a process that is alone on its database.
    if store.is_exclusive() && (FORMAT_WITH_MEMBERS..FORMAT).contains(&state.format) {
        store.finish_upgrade().await.context("upgrading the log")?;
        state.format = FORMAT;
    }
    let hints = Hints::new(bus);
    #[cfg(feature = "failpoints")]
    let store = sabotage::Sabotaged::over(store, hints.clone());
    let lanes = Lanes::start(lanes, config.partitions, &store, &hints);
    let (rights, files) = (Rights::new(services.room), Files::new(services.file.clone()));
    let searches = Searches::new(if config.search.is_on() { most_searches(&storage.postgres) } else { 0 });
    let service = Arc::new(Service::new(store.clone(), config.partitions, state, lanes, rights, files, searches));
    // Added when the format is known, so that a database that is away is not reported as an outdated program.
    let current = process.readiness.condition(CURRENT_PROGRAM);
    let format = Format { service: service.clone(), readiness: process.readiness.clone(), current };
    format.report();
    let (erasing, dropping) = (erasing::run(store.clone()), dropping::run(store.clone(), services.file));
    if config.search.is_on() {
        tokio::spawn(process.shutdown.clone().run_until_cancelled_owned(indexing::run(store.clone())));
    }
    let watching = watch(store, format, config.partitions);
    tokio::spawn(process.shutdown.clone().run_until_cancelled_owned(erasing));
    tokio::spawn(process.shutdown.clone().run_until_cancelled_owned(dropping));
    tokio::spawn(process.shutdown.clone().run_until_cancelled_owned(watching));
    opened.set(true);
    Ok(Log(service))
}

/// The number of searches at the same time: a quarter of the connections, so that appends and other reads have the rest.
fn most_searches(postgres: &PostgresConfig) -> usize {
    (postgres.postgres_connections / 4).max(1)
}

/// The log's format beside that of this program.
struct Format {
    service: Arc<Service>,
    readiness: Readiness,
    current: Condition,
}

impl Format {
    /// Makes the replica unready while the log has a newer format than this program, so that no caller waits for it.
    fn report(&self) {
        let (format, own) = (self.service.format(), FORMAT);
        let is_outdated = format > own;
        let wrong =
            format!("the log has format {format}, and this program has format {own}: replace it by a newer one");
        self.readiness.note("log format", is_outdated.then_some(wrong));
        self.current.set(!is_outdated);
    }

    async fn reread(&self) {
        let before = self.service.format();
        if let Err(error) = self.service.read_format().await {
            tracing::debug!(%error, "cannot read the log's format now");
        }
        let format = self.service.format();
        if format == before {
            return;
        }
        if format > FORMAT {
            tracing::error!(format, own = FORMAT, "the log was raised to a newer format; replace this replica");
        }
        self.report();
    }
}

/// Renews the epoch when a different database has replaced the opened one, and follows the format.
async fn watch(store: Arc<dyn Store>, format: Format, partitions: u32) {
    loop {
        tokio::time::sleep(WATCH_EVERY).await;
        if let Ok(false) = store.is_as_opened().await
            && let Err(error) = store.open_log(partitions).await
        {
            tracing::warn!(%error, "the opened database was replaced by another");
        }
        format.reread().await;
    }
}

/// Brings the store's schema up to date.
///
/// # Errors
/// When the store cannot be opened or migrated.
pub async fn migrate(config: &MessageConfig, storage: &StorageConfig) -> anyhow::Result<()> {
    open_store(config, &storage.migrating()).await.map(drop)
}

/// Renews the log's epoch after its database was restored to an older state, and prints the epoch.
///
/// # Errors
/// When there is no log, or the store cannot be opened.
pub async fn renew_epoch(config: &MessageConfig, storage: &StorageConfig) -> anyhow::Result<()> {
    // Opening would create a missing file.
    if let StoreUrl::Sqlite(path) = config.store(storage)? {
        ensure!(path.exists(), "there is no log in {}; check CONFAB_MESSAGE_STORE and CONFAB_DATA_DIR", path.display());
    }
    let (store, _) = open_store(config, &storage.once()).await?;
    let epoch = store.renew_epoch().await.map_err(|error| match error.code {
        Code::NotFound => anyhow::anyhow!("there is no log in this database; Confab has never run on it"),
        _ => anyhow::Error::from(error).context("renewing the epoch"),
    })?;
    println!("{epoch}");
    Ok(())
}

/// Has the index of messages built again from the log, by the replicas that are running.
///
/// # Errors
/// When the store cannot be opened.
pub async fn reindex(config: &MessageConfig, storage: &StorageConfig) -> anyhow::Result<()> {
    let (store, _) = open_store(config, &storage.once()).await?;
    store.searches().reindex().await.context("setting the index back")?;
    println!("the message service builds the index again; searches meanwhile find what they found before");
    Ok(())
}

/// Raises the log to the newest format after every replica of the release before has ended.
///
/// # Errors
/// When there is no log, rooms are not open yet, or the store cannot be opened.
pub async fn finish_upgrade(config: &MessageConfig, storage: &StorageConfig) -> anyhow::Result<()> {
    let (store, _) = open_store(config, &storage.once()).await?;
    store.finish_upgrade().await.map_err(|error| match error.code {
        Code::NotFound => anyhow::anyhow!("there is no log in this database; Confab has never run on it"),
        Code::Conflict | Code::Forbidden => anyhow::anyhow!(error.detail),
        _ => anyhow::Error::from(error).context("finishing the upgrade"),
    })?;
    println!("the log has format {}; programs of earlier versions can no longer use it", FORMAT);
    Ok(())
}

/// Opens the store. Also returns the number of lanes for it.
async fn open_store(config: &MessageConfig, storage: &StorageConfig) -> anyhow::Result<(Arc<dyn Store>, usize)> {
    Ok(match config.store(storage)? {
        // SQLite has one writer, which groups the queued rows.
        StoreUrl::Sqlite(path) => (Arc::new(Sqlite::open(&path)?), 1),
        StoreUrl::Postgres(url) => (Arc::new(Postgres::open(&url, &storage.postgres).await?), LANES),
    })
}

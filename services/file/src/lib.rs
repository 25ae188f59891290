//! The file service: files' metadata, ownership, and content. The log announces a file shared in a room; until the log
//! has the event, only the upload call returns the file.

mod cleanup;
mod config;
mod convert;
mod copier;
mod grpc;
mod link;
mod media;
mod memory;
mod metrics;
mod name;
mod object;
mod own;
mod owned;
mod permits;
mod quota;
mod relay;
mod rights;
mod service;
mod store;
mod sweep;
mod trial;
mod upload;

use std::sync::{Arc, LazyLock};

use anyhow::{Context, ensure};
use confab_common::grpc::{MAX_MESSAGE, Role, Services, serve};
use confab_common::operations;
use confab_common::process::Process;
use confab_common::store::{StorageConfig, StoreUrl};
use confab_identity::{Callers, Guarded};
use confab_proto::file::v1::file_service_server::FileServiceServer;

pub use config::{Command, FileArgs, FileConfig, Program};
pub use copier::ObjectCopier;
pub use grpc::FileApi;
pub use object::ObjectsConfig;
pub use store::tables::{FILES, SCHEMA};

use cleanup::Cleanup;
use memory::Memory;
use owned::Owned;
use permits::{Transfer, TransferPermits};
use relay::Relay;
use rights::Rights;
use service::{Files, LinkLife};
use store::Store;
use store::postgres::PostgresStore;
use store::sqlite::SqliteStore;
use sweep::Sweep;

/// Starts the service: opens its store; relays, cleans up and sweeps until shutdown. It calls the room service for
/// permissions and the message service for the log.
///
/// # Errors
/// When a setting is wrong or the store cannot be opened. The other services and the object store may be unreachable.
pub async fn start(
    config: &FileConfig,
    storage: &StorageConfig,
    services: Services,
    process: &Process,
) -> anyhow::Result<FileServiceServer<FileApi>> {
    LazyLock::force(&metrics::METRICS);
    let services = services.called_by(Role::File);
    let objects = object::open(&config.objects, &storage.data_dir, config.max_file_size)?;
    let store = open(config, &storage.serving(process)).await?;
    let objects = Arc::new(Owned::new(objects, store.clone()));
    tokio::spawn(
        process.shutdown.clone().run_until_cancelled_owned(trial::run(objects.clone(), process.readiness.clone())),
    );
    let rights = Rights::new(services.room);
    let relay = Arc::new(Relay::new(store.clone(), services.message.clone(), rights.clone()));
    let cleanup = Arc::new(Cleanup::new(store.clone(), objects.clone(), services.message));
    let sweep = Sweep::new(store.clone(), objects.clone(), config.orphan_age);
    tokio::spawn(process.shutdown.clone().run_until_cancelled_owned(relay.clone().run()));
    tokio::spawn(process.shutdown.clone().run_until_cancelled_owned(cleanup.clone().run()));
    tokio::spawn(process.shutdown.clone().run_until_cancelled_owned(sweep.run(config.sweep_every)));
    let recent = store.clone();
    let forget = async move { operations::keep_bounded(recent.operations()).await };
    tokio::spawn(process.shutdown.clone().run_until_cancelled_owned(forget));
    let files = Files {
        store,
        objects,
        rights,
        relay,
        cleanup,
        max_size: config.max_file_size,
        quota: config.quota(),
        links: LinkLife { media: config.media_link_ttl, other: config.link_ttl },
        uploads: TransferPermits::new(Transfer::Upload, config.max_uploads),
        downloads: TransferPermits::new(Transfer::Download, config.max_downloads),
        memory: Memory::new(config.upload_memory),
    };
    let server = FileServiceServer::new(FileApi::new(files));
    Ok(server.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
}

async fn open(config: &FileConfig, storage: &StorageConfig) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match config.store(storage)? {
        StoreUrl::Sqlite(path) => Arc::new(SqliteStore::open(&path)?.with_quota(config.quota())),
        StoreUrl::Postgres(url) => {
            let store = PostgresStore::open(&url, &storage.postgres).await?;
            Arc::new(store.with_quota(config.quota()))
        }
    })
}

/// Runs the program until shutdown.
///
/// # Errors
/// When it cannot start or serve.
pub async fn run(program: Program, process: Process) -> anyhow::Result<()> {
    let Program { common, storage, service, command } = program;
    let FileArgs { reflection, file, callers, auth_url, room_url, message_url } = service;
    match command {
        Some(Command::Migrate) => return migrate(&file, &storage).await,
        Some(Command::ClaimObjects) => return claim_objects(&file, &storage).await,
        None => {}
    }
    let auth = process.security.connect(Role::Auth, &auth_url).context("CONFAB_AUTH_URL")?;
    let room = process.security.connect(Role::Room, &room_url).context("CONFAB_ROOM_URL")?;
    let message = process.security.connect(Role::Message, &message_url).context("CONFAB_MESSAGE_URL")?;
    let callers = Callers::start(&callers, Role::File, auth, None, &process)?;
    let services = Services { room, message, ..Services::none() };
    let server = start(&file, &storage, services, &process).await?;
    process.readiness.started();
    serve(
        &process,
        common.listen,
        common.drain,
        reflection.routes(Guarded::new(server, callers), confab_proto::DESCRIPTORS)?,
    )
    .await
}

/// Brings the store's schema up to date.
///
/// # Errors
/// When the store cannot be opened or migrated.
pub async fn migrate(config: &FileConfig, storage: &StorageConfig) -> anyhow::Result<()> {
    open(config, &storage.migrating()).await.map(drop)
}

/// Makes this installation the owner of the object store, and prints the previous and the new owner.
///
/// # Errors
/// When the installation's database does not exist, or a store rejects the request.
pub async fn claim_objects(config: &FileConfig, storage: &StorageConfig) -> anyhow::Result<()> {
    // Opening would create a missing file.
    if let StoreUrl::Sqlite(path) = config.store(storage)? {
        ensure!(
            path.exists(),
            "there is no file store in {}; check CONFAB_FILE_STORE and CONFAB_DATA_DIR",
            path.display()
        );
    }
    let objects = object::open(&config.objects, &storage.data_dir, config.max_file_size)?;
    let store = open(config, &storage.once()).await?;
    let (now, before) = Owned::new(objects, store).take_over().await.context("cannot claim the object store")?;
    if let Some(before) = before {
        println!("before: installation {} on database {}", before.installation, before.database);
    }
    println!("now: installation {} on database {}", now.installation, now.database);
    Ok(())
}

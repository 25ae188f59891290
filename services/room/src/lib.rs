//! The room service: rooms, their members, and users' permissions. Changes of rooms reach the log through an outbox, so
//! that a change and its event commit together.

mod config;
mod departures;
mod event;
mod grpc;
mod lanes;
mod log;
mod refold;
mod relay;
mod service;
mod store;
mod turns;

use std::sync::Arc;

use anyhow::Context;
use confab_common::grpc::{MAX_MESSAGE, Role, Services, serve};
use confab_common::metrics::LIMITS;
use confab_common::operations;
use confab_common::process::Process;
use confab_common::program::Command;
use confab_common::store::{StorageConfig, StoreUrl};
use confab_identity::{Callers, Guarded};
use confab_proto::room::v1::room_service_server::RoomServiceServer;

pub use config::{Program, RoomArgs, RoomConfig};
pub use grpc::RoomApi;
pub use store::tables::SCHEMA;

use departures::Departures;
use log::Log;
use relay::Relay;
use service::Rooms;
use store::Store;
use store::postgres::PostgresStore;
use store::sqlite::SqliteStore;

/// Starts the service: opens its store, and relays the outbox's events to the log until shutdown.
///
/// # Errors
/// When the store cannot be opened. The message service may be unreachable.
pub async fn start(
    config: &RoomConfig,
    storage: &StorageConfig,
    services: Services,
    process: &Process,
) -> anyhow::Result<RoomServiceServer<RoomApi>> {
    LIMITS.exist(&["searches", "search_time", "rooms_per_user"]);
    let services = services.called_by(Role::Room);
    let store = open(config, &storage.serving(process)).await?;
    let relay = Arc::new(Relay::new(store.clone(), Log::new(services.message)));
    tokio::spawn(process.shutdown.clone().run_until_cancelled_owned(relay.clone().run()));
    tokio::spawn(process.shutdown.clone().run_until_cancelled_owned(refold::run(store.clone())));
    tokio::spawn(process.shutdown.clone().run_until_cancelled_owned(Departures::new(store.clone()).run()));
    let recent = store.clone();
    let forget = async move { operations::keep_bounded(recent.operations()).await };
    tokio::spawn(process.shutdown.clone().run_until_cancelled_owned(forget));
    let api = RoomApi::new(Rooms::new(store, relay));
    Ok(RoomServiceServer::new(api).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
}

async fn open(config: &RoomConfig, storage: &StorageConfig) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match config.store(storage)? {
        StoreUrl::Sqlite(path) => Arc::new(SqliteStore::open(&path)?.with_max_rooms(config.max_rooms_per_user)),
        StoreUrl::Postgres(url) => {
            let store = PostgresStore::open(&url, &storage.postgres).await?;
            Arc::new(store.with_max_rooms(config.max_rooms_per_user))
        }
    })
}

/// Runs the program until shutdown.
///
/// # Errors
/// When it cannot start or serve.
pub async fn run(program: Program, process: Process) -> anyhow::Result<()> {
    let Program { common, storage, service, command } = program;
    let RoomArgs { reflection, room, callers, auth_url, message_url } = service;
    if let Some(Command::Migrate) = command {
        return migrate(&room, &storage).await;
    }
    let auth = process.security.connect(Role::Auth, &auth_url).context("CONFAB_AUTH_URL")?;
    let message = process.security.connect(Role::Message, &message_url).context("CONFAB_MESSAGE_URL")?;
    let callers = Callers::start(&callers, Role::Room, auth, None, &process)?;
    let services = Services { message, ..Services::none() };
    let server = start(&room, &storage, services, &process).await?;
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
pub async fn migrate(config: &RoomConfig, storage: &StorageConfig) -> anyhow::Result<()> {
    open(config, &storage.migrating()).await.map(drop)
}

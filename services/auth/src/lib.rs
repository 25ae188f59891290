//! The auth service: accounts, tokens and their revocation.

mod config;
mod grpc;
mod key;
mod password;
mod publish;
mod service;
mod store;
mod token;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use confab_common::bus::Bus;
use confab_common::grpc::MAX_MESSAGE;
use confab_common::metrics::LIMITS;
use confab_common::process::Process;
use confab_common::program::Command;
use confab_common::store::StorageConfig;
use confab_proto::auth::v1::auth_service_server::AuthServiceServer;

pub use config::{AuthConfig, Own, Program};
pub use grpc::Service;
pub use store::SCHEMA;

use key::SigningKey;
use password::Passwords;
use publish::Publisher;
use service::Accounts;
use store::Store;
use token::Tokens;

/// How often expired revocations are looked for.
const PURGE_INTERVAL: Duration = Duration::from_secs(600);

/// Opens the store, starts the purge of expired revocations (it ends with the process) and returns the service.
///
/// # Errors
/// When a setting is wrong or the store cannot be opened.
pub async fn start(
    config: &AuthConfig,
    storage: &StorageConfig,
    bus: Bus,
    process: &Process,
) -> anyhow::Result<AuthServiceServer<Service>> {
    LIMITS.exist(&["password_hashes"]);
    let url = config.store(storage)?;
    let given = config.key(&url)?;
    let store = store::open(&url, &storage.serving(process)).await?;
    let key = match given {
        Some(key) => key,
        // Behind the store, whose lock file keeps a second process away from the key as well.
        None => SigningKey::load_or_create(&storage.data_dir)?,
    };
    let tokens = Tokens::new(&key, config.token_ttl)?;
    tokio::spawn(purge(store.clone(), process.clone()));
    let accounts = Accounts::new(store, Passwords::start()?, tokens, Publisher::new(bus));
    Ok(AuthServiceServer::new(Service::new(accounts)).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
}

/// Runs the program until shutdown.
///
/// # Errors
/// When it cannot start or serve.
pub async fn run(program: Program, process: Process) -> anyhow::Result<()> {
    let Program { common, storage, own: Own { reflection, bus, auth }, command } = program;
    if let Some(Command::Migrate) = command {
        return migrate(&auth, &storage).await;
    }
    let bus = bus.open()?;
    let server = start(&auth, &storage, bus.clone(), &process).await?;
    process.readiness.started();
    confab_common::grpc::serve(&process, common.listen, reflection.routes(server, confab_proto::DESCRIPTORS)?).await?;
    // The last revocations.
    bus.flush().await;
    Ok(())
}

/// Brings the store's schema up to date.
///
/// # Errors
/// When the store cannot be opened or migrated.
pub async fn migrate(config: &AuthConfig, storage: &StorageConfig) -> anyhow::Result<()> {
    store::open(&config.store(storage)?, &storage.migrating()).await.map(drop)
}

async fn purge(store: Arc<dyn Store>, process: Process) {
    let mut interval = tokio::time::interval(PURGE_INTERVAL);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = process.shutdown.cancelled() => return,
        }
        match service::purge(store.as_ref()).await {
            Ok(0) => {}
            Ok(purged) => tracing::debug!(purged, "expired revocations forgotten"),
            Err(error) => tracing::warn!(%error, "expired revocations are not purged now"),
        }
    }
}

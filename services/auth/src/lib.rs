//! The auth service: accounts, tokens and the revocation of tokens.

mod config;
mod grpc;
mod hashing;
mod key;
mod password;
mod publish;
mod service;
mod store;
mod token;
mod turns;
mod username;

use std::sync::Arc;
use std::time::Duration;

use confab_common::bus::Bus;
use confab_common::grpc::MAX_MESSAGE;
use confab_common::metrics::LIMITS;
use confab_common::process::Process;
use confab_common::program::Command;
use confab_common::store::StorageConfig;
use confab_proto::auth::v1::auth_service_server::AuthServiceServer;

pub use config::{AuthArgs, AuthConfig, Program};
pub use grpc::Service;
pub use store::SCHEMA;

use key::SigningKeys;
use password::Passwords;
use publish::Publisher;
use service::Accounts;
use store::Store;
use token::Tokens;

/// How often the store's upkeep runs.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(600);

/// Opens the store, starts its upkeep (which ends with the process) and returns the service.
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
    let given = config.keys(&url)?;
    let store = store::open(&url, &storage.serving(process)).await?;
    let keys = match given {
        Some(keys) => keys,
        // Opened after the store, whose lock file also keeps other processes away from the keys.
        None => SigningKeys::load_or_create(&storage.data_dir)?,
    };
    let tokens = Tokens::new(&keys, config.token_ttl)?;
    tokio::spawn(process.shutdown.clone().run_until_cancelled_owned(upkeep(store.clone())));
    let accounts = Accounts::new(store, Passwords::start()?, tokens, Publisher::new(bus));
    Ok(AuthServiceServer::new(Service::new(accounts))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE))
}

/// Runs the program until shutdown.
///
/// # Errors
/// When it cannot start or serve.
pub async fn run(program: Program, process: Process) -> anyhow::Result<()> {
    let Program { common, storage, service: AuthArgs { reflection, bus, auth }, command } = program;
    if let Some(Command::Migrate) = command {
        return migrate(&auth, &storage).await;
    }
    let bus = bus.open()?;
    let server = start(&auth, &storage, bus.clone(), &process).await?;
    process.readiness.started();
    confab_common::grpc::serve(
        &process,
        common.listen,
        common.drain,
        reflection.routes(server, confab_proto::DESCRIPTORS)?,
    )
    .await?;
    // Publishes the last revocations.
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

async fn upkeep(store: Arc<dyn Store>) {
    let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        interval.tick().await;
        match service::purge(store.as_ref()).await {
            Ok(0) => {}
            Ok(purged) => tracing::debug!(purged, "purged expired revocations"),
            Err(error) => tracing::warn!(%error, "cannot purge expired revocations now"),
        }
        // Repeated, because replicas of an earlier release may create accounts at the same time.
        match service::fill_skeletons(store.as_ref()).await {
            Ok(0) => {}
            Ok(filled) => tracing::info!(filled, "checked accounts of an earlier release for names that look alike"),
            Err(error) => {
                tracing::warn!(%error, "cannot check accounts of an earlier release for names that look alike")
            }
        }
    }
}

//! The auth service: accounts, tokens and the revocation of tokens.

mod client;
mod config;
mod convert;
mod cursors;
mod grpc;
mod hashing;
mod key;
mod password;
mod publish;
mod refresh;
mod relay;
mod secret;
mod service;
mod store;
mod token;
mod turns;
mod username;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use confab_common::Code;
use confab_common::bus::Bus;
use confab_common::grpc::{MAX_MESSAGE, Role, Services, in_process};
use confab_common::metrics::LIMITS;
use confab_common::process::Process;
use confab_common::store::{StorageConfig, StoreUrl};
use confab_identity::{Callers, Guarded};
use confab_proto::auth::v1::auth_service_server::AuthServiceServer;

pub use config::{AuthArgs, AuthConfig, Command, KeyCommand, Program, SignupMode};
pub use grpc::Service;
pub use store::SCHEMA;

use cursors::CursorKeys;
use key::SigningKeys;
use password::Passwords;
use publish::Publisher;
use refresh::RefreshKeys;
use relay::Relay;
use service::{Accounts, Issuer};
use store::Store;
use token::{Lifetimes, Tokens};

/// How often the store's upkeep runs.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(600);

/// Opens the store, starts its upkeep and the removal of deleted users from rooms (which end with the process), and
/// returns the service. It calls the room service, which may be unreachable.
///
/// # Errors
/// When a setting is wrong or the store cannot be opened.
pub async fn start(
    config: &AuthConfig,
    storage: &StorageConfig,
    bus: Bus,
    services: Services,
    process: &Process,
) -> anyhow::Result<AuthServiceServer<Service>> {
    LIMITS.exist(&["password_hashes"]);
    let services = services.called_by(Role::Auth);
    let url = config.store(storage)?;
    let given = config.keys(&url)?;
    let store = store::open(&url, &storage.serving(process)).await?;
    let keys = match given {
        Some(keys) => keys,
        // Opened after the store, whose lock file also keeps other processes away from the keys.
        None => SigningKeys::load_or_create(&storage.data_dir)?,
    };
    let issuer = Issuer {
        tokens: Tokens::new(&keys)?,
        refresh_keys: RefreshKeys::new(&keys)?,
        lifetimes: Lifetimes { token: config.token_ttl, refresh: config.refresh_ttl },
    };
    tokio::spawn(process.shutdown.clone().run_until_cancelled_owned(upkeep(store.clone())));
    let relay = Relay::new(store.clone(), services.room);
    tokio::spawn(process.shutdown.clone().run_until_cancelled_owned(relay.run()));
    let (cursors, publisher) = (CursorKeys::new(&keys)?, Publisher::new(bus));
    let accounts = Accounts::new(store, Passwords::start()?, issuer, cursors, config.signup, publisher);
    Ok(AuthServiceServer::new(Service::new(accounts))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE))
}

/// Runs the program until shutdown.
///
/// # Errors
/// When it cannot start or serve.
pub async fn run(program: Program, process: Process) -> anyhow::Result<()> {
    let Program { common, storage, service, command } = program;
    let AuthArgs { reflection, bus, auth, callers, room_url } = service;
    match command {
        Some(Command::Migrate) => return migrate(&auth, &storage).await,
        Some(Command::ResetPassword { username }) => return reset_password(&auth, &storage, &username).await,
        Some(Command::Key(command)) => return keys(&auth, &storage, command).await,
        None => {}
    }
    let room = process.security.connect(Role::Room, &room_url).context("CONFAB_ROOM_URL")?;
    let services = Services { room, ..Services::none() };
    let bus = bus.open(&process.readiness)?;
    let server = start(&auth, &storage, bus.clone(), services, &process).await?;
    // The service verifies tokens as the other services do: with its own keys and its own list of revocations.
    let callers = Callers::start(&callers, Role::Auth, in_process(server.clone()), Some(&bus), &process)?;
    process.readiness.started();
    confab_common::grpc::serve(
        &process,
        common.listen,
        common.drain,
        reflection.routes(Guarded::new(server, callers), confab_proto::DESCRIPTORS)?,
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

/// Prints a one-time token with which a user sets a new password.
///
/// # Errors
/// When there is no such user, or the store cannot be opened: SQLite only while no server uses it.
pub async fn reset_password(config: &AuthConfig, storage: &StorageConfig, username: &str) -> anyhow::Result<()> {
    let store = open_existing(config, storage).await?;
    let token = service::create_reset(store.as_ref(), username).await.map_err(|error| match error.code {
        Code::NotFound => anyhow::anyhow!("there is no user {username:?}"),
        _ => anyhow::Error::from(error).context("creating the token"),
    })?;
    println!("{token}");
    println!(
        "This token sets a new password once, within 1 h, and ends all sessions of the user:\n\
         curl -H 'Content-Type: application/json' -d '{{\"token\": \"{token}\", \"newPassword\": \"…\"}}' \
         https://chat.example.org/api/auth/reset-password"
    );
    Ok(())
}

/// Runs a subcommand about server keys.
///
/// # Errors
/// When a setting or an argument is wrong, or the store cannot be opened: SQLite only while no server uses it.
pub async fn keys(config: &AuthConfig, storage: &StorageConfig, command: KeyCommand) -> anyhow::Result<()> {
    let KeyCommand::Create { scopes, name } = command;
    let store = open_existing(config, storage).await?;
    let created = service::create_key_as_operator(store.as_ref(), &scopes, &name).await?;
    println!("{}", created.key.expose());
    Ok(())
}

/// Opens the store of an installation. A missing file is an error, because opening would create it.
async fn open_existing(config: &AuthConfig, storage: &StorageConfig) -> anyhow::Result<Arc<dyn Store>> {
    let url = config.store(storage)?;
    if let StoreUrl::Sqlite(path) = &url {
        ensure!(
            path.exists(),
            "there are no accounts in {}; check CONFAB_AUTH_STORE and CONFAB_DATA_DIR",
            path.display()
        );
    }
    store::open(&url, &storage.once()).await
}

async fn upkeep(store: Arc<dyn Store>) {
    let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        interval.tick().await;
        match service::purge(store.as_ref()).await {
            Ok(0) => {}
            Ok(purged) => {
                tracing::debug!(purged, "purged expired revocations, sessions, invites, names and entries of the audit")
            }
            Err(error) => {
                tracing::warn!(%error, "cannot purge revocations, sessions, invites, names and audit entries now")
            }
        }
        // Repeated, because replicas of an earlier release may change accounts at the same time.
        match service::renew_names(store.as_ref()).await {
            Ok(0) => {}
            Ok(renewed) => {
                tracing::info!(renewed, "made names findable that a program of an earlier release had changed")
            }
            Err(error) => {
                tracing::warn!(%error, "cannot make names findable now that a program of an earlier release has changed")
            }
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

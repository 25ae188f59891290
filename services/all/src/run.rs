//! Starts and connects the services.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, ensure};
use confab_auth::KeyCommand;
use confab_common::grpc::{self, Role, Services, Transport};
use confab_common::listen::Reserved;
use confab_common::process::Process;
use confab_common::store::StorageConfig;
use confab_identity::{Callers, CallersConfig, Guarded};

use crate::config::{Command, Parts, Program};
use crate::moving;

pub async fn run(program: Program, process: Process) -> anyhow::Result<()> {
    let Program { common, storage, service: parts, command } = program;
    match command {
        Some(Command::Migrate) => return migrate(&parts, &storage).await,
        Some(Command::RenewEpoch) => return renew_epoch(&parts, &storage).await,
        Some(Command::FinishUpgrade) => return finish_upgrade(&parts, &storage).await,
        Some(Command::Reindex) => return reindex(&parts, &storage).await,
        Some(Command::ClaimObjects) => return claim_objects(&parts, &storage).await,
        Some(Command::Export { directory }) => return moving::export(&parts, &storage.once(), &directory).await,
        Some(Command::Key(command)) => return keys(&parts, &storage, command).await,
        Some(Command::Import { directory }) => return moving::import(&parts, &storage.once(), &directory).await,
        None => {}
    }
    let listen = common.listen;
    let taken = || format!("cannot listen on {listen}: is another Confab running? If not, set CONFAB_LISTEN");
    let port = Reserved::new(listen).with_context(taken)?;
    let bus = parts.bus.open(&process.readiness)?;

    // The services call each other: auth removes deleted users from rooms; message attaches files with file and, until
    // an upgrade of the log is finished, asks room about permissions; file asks room about permissions; room and file
    // append their events to the log.
    let (late_room, room_binder) = grpc::late();
    let (late_file, file_binder) = grpc::late();
    // All services share what they know about tokens. The gateway is in this process, so each call has its token.
    let config = CallersConfig::strict(parts.gateway.issuers.clone());
    let callers = |auth| Callers::start(&config, Role::Gateway, auth, Some(&bus), &process);
    let (to_auth, callers) = match elsewhere(&process, Role::Auth, &parts.auth_url)? {
        Some(transport) => (transport.clone(), callers(transport)?),
        None => {
            let services = Services { room: late_room.clone(), ..Services::none() };
            let server = confab_auth::start(&parts.auth, &storage, bus.clone(), services, &process).await?;
            let callers = callers(grpc::in_process(server.clone()))?;
            (grpc::in_process(Guarded::new(server, callers.clone())), callers)
        }
    };
    let (to_message, log) = match elsewhere(&process, Role::Message, &parts.message_url)? {
        Some(transport) => (transport, None),
        None => {
            let services = Services { room: late_room, file: late_file, ..Services::none() };
            let log = confab_message::start(&parts.message, &storage, bus.clone(), services, &process).await?;
            (grpc::in_process(Guarded::new(log.server(), callers.clone())), Some(log))
        }
    };
    let to_room = match elsewhere(&process, Role::Room, &parts.room_url)? {
        Some(transport) => transport,
        None => {
            let services = Services { message: to_message.clone(), ..Services::none() };
            let server = confab_room::start(&parts.room, &storage, services, &process).await?;
            grpc::in_process(Guarded::new(server, callers.clone()))
        }
    };
    room_binder.bind(to_room.clone());
    let to_file = match elsewhere(&process, Role::File, &parts.file_url)? {
        Some(transport) => transport,
        None => {
            let services = Services { room: to_room.clone(), message: to_message.clone(), ..Services::none() };
            let server = confab_file::start(&parts.file, &storage, services, &process).await?;
            grpc::in_process(Guarded::new(server, callers.clone()))
        }
    };
    file_binder.bind(to_file.clone());

    let key = parts.bus.key()?;
    let services = Services { auth: to_auth, room: to_room, message: to_message, file: to_file };
    let gateway = confab_gateway::start(&parts.gateway, listen, services, bus.clone(), key.as_ref(), &process).await?;
    let listener = port.listen().with_context(taken)?;
    process.readiness.started();
    tracing::info!("Confab {} listens on http://{listen}", env!("CARGO_PKG_VERSION"));
    if parts.keeps_here(&storage)? {
        tracing::info!("data is in {}", storage.data_dir.display());
    }
    let page = reachable(listen);
    tracing::info!("open http://{page} in a browser; http://{page}/docs has every operation to try out");
    gateway.serve(listener, &parts.gateway, common.drain, &process).await;
    if let Some(log) = log {
        log.finish().await;
    }
    bus.flush().await;
    Ok(())
}

/// Returns the address at which a browser on this machine reaches the server, since no browser can open the unspecified
/// address.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

async fn migrate(parts: &Parts, storage: &StorageConfig) -> anyhow::Result<()> {
    // Checks every URL before any store is changed.
    parts.stores(storage)?;
    if parts.auth_url.is_none() {
        confab_auth::migrate(&parts.auth, storage).await?;
    }
    if parts.room_url.is_none() {
        confab_room::migrate(&parts.room, storage).await?;
    }
    if parts.message_url.is_none() {
        confab_message::migrate(&parts.message, storage).await?;
    }
    if parts.file_url.is_none() {
        confab_file::migrate(&parts.file, storage).await?;
    }
    Ok(())
}

async fn renew_epoch(parts: &Parts, storage: &StorageConfig) -> anyhow::Result<()> {
    ensure!(
        parts.message_url.is_none(),
        "the log is remote (CONFAB_MESSAGE_URL is set): run `confab-message renew-epoch` with its settings"
    );
    confab_message::renew_epoch(&parts.message, storage).await
}

async fn reindex(parts: &Parts, storage: &StorageConfig) -> anyhow::Result<()> {
    ensure!(
        parts.message_url.is_none(),
        "the log is remote (CONFAB_MESSAGE_URL is set): run `confab-message reindex` with its settings"
    );
    confab_message::reindex(&parts.message, storage).await
}

async fn finish_upgrade(parts: &Parts, storage: &StorageConfig) -> anyhow::Result<()> {
    ensure!(
        parts.message_url.is_none(),
        "the log is remote (CONFAB_MESSAGE_URL is set): run `confab-message finish-upgrade` with its settings"
    );
    confab_message::finish_upgrade(&parts.message, storage).await
}

async fn claim_objects(parts: &Parts, storage: &StorageConfig) -> anyhow::Result<()> {
    ensure!(
        parts.file_url.is_none(),
        "files are remote (CONFAB_FILE_URL is set): run `confab-file claim-objects` with its settings"
    );
    confab_file::claim_objects(&parts.file, storage).await
}

async fn keys(parts: &Parts, storage: &StorageConfig, command: KeyCommand) -> anyhow::Result<()> {
    ensure!(
        parts.auth_url.is_none(),
        "accounts are remote (CONFAB_AUTH_URL is set): run `confab-auth key` with its settings"
    );
    confab_auth::keys(&parts.auth, storage, command).await
}

fn elsewhere(process: &Process, role: Role, url: &Option<String>) -> anyhow::Result<Option<Transport>> {
    url.as_deref().map(|url| process.security.connect(role, url)).transpose()
}

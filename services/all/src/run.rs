//! Joins the parts.

use anyhow::Context;
use confab_common::grpc::{self, Transport};
use confab_common::process::Process;
use tokio::net::TcpListener;

use crate::config::Program;

/// Runs everything until shutdown.
pub async fn run(program: Program, process: Process) -> anyhow::Result<()> {
    let Program { common, storage, bus, auth, room, message, gateway, auth_url, room_url, message_url, command } = program;
    if command.is_some() {
        confab_auth::migrate(&auth, &storage).await?;
        confab_room::migrate(&room, &storage).await?;
        return confab_message::migrate(&message, &storage).await;
    }
    let listen = common.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}; set CONFAB_LISTEN"))?;
    let bus = bus.open()?;

    let to_auth = match elsewhere(auth_url, "CONFAB_AUTH_URL")? {
        Some(transport) => transport,
        None => grpc::in_process(confab_auth::start(&auth, &storage, bus.clone(), &process).await?),
    };
    // The two call each other: the log asks who may post, rooms tell the log of their changes.
    let (late_room, room_binder) = grpc::late();
    let log = match elsewhere(message_url, "CONFAB_MESSAGE_URL")? {
        Some(transport) => (transport, None),
        None => {
            let service = confab_message::start(&message, &storage, bus.clone(), late_room, &process).await?;
            (grpc::in_process(service.server()), Some(service))
        }
    };
    let (to_message, log) = log;
    let to_room = match elsewhere(room_url, "CONFAB_ROOM_URL")? {
        Some(transport) => transport,
        None => grpc::in_process(confab_room::start(&room, &storage, to_message.clone(), &process).await?),
    };
    room_binder.bind(to_room.clone());

    let edge = confab_gateway::start(&gateway, listen, to_auth, to_room, to_message, bus, &process).await?;
    process.readiness.started();
    tracing::info!("Confab {} listens on http://{listen}; data in {}", env!("CARGO_PKG_VERSION"), storage.data_dir.display());
    tracing::info!("next: POST http://{listen}/api/auth/signup {{username, password}}, then io(\"http://{listen}\", {{auth: {{token}}}})");
    edge.serve(listener, &gateway, common.drain, &process).await;
    if let Some(log) = log {
        log.finish().await;
    }
    Ok(())
}

fn elsewhere(url: Option<String>, setting: &'static str) -> anyhow::Result<Option<Transport>> {
    url.map(|url| grpc::connect(&url).context(setting)).transpose()
}

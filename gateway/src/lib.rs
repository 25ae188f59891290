//! The gateway: REST and Socket.IO for clients, gRPC to the services.

mod audit;
mod backoff;
mod chat;
pub mod clients;
pub mod config;
pub mod edge;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod limits;
mod marks;
mod metrics;
pub mod new_change;
pub mod new_message;
mod own_reactions;
mod payload;
pub mod problem;
pub mod rest;
mod rooms;
pub mod send;
pub mod server;
#[cfg(test)]
mod testing;
mod turns;
mod typing;
mod upload;
mod views;

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::middleware::from_fn_with_state;
use confab_common::bus::Bus;
use confab_common::cluster_key::ClusterKey;
use confab_common::config::CommonConfig;
use confab_common::grpc::{self, Role, Services};
use confab_common::issuers::Issuers;
use confab_common::listen::Reserved;
use confab_common::process::{Process, Settings};
use confab_common::store::BusConfig;
use confab_identity::acting::ActingUsers;
use confab_identity::revocations::Revocations;
use confab_identity::server_keys::ServerKeys;
use confab_identity::tokens::Tokens;
use confab_socketio::Server;
use confab_socketio::budget::Budget;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use audit::Audit;
use chat::{Chat, Parts};
use clients::Clients;
use config::{GatewayConfig, RealtimeConfig, UserDirectory, peers};
use edge::TraceTrust;
use edge::cors::Origins;
use edge::hosts::Hosts;
use limits::Limits;
use marks::Marks;
use send::Sender;
use server::{Admission, ShutdownPlan, places};
use turns::Pages;
use typing::Typing;

/// The context of the REST handlers.
pub struct App {
    pub clients: Clients,
    pub tokens: Tokens,
    pub keys: ServerKeys,
    pub acting: ActingUsers,
    pub audit: Audit,
    pub revocations: Revocations,
    pub config: GatewayConfig,
    /// Which other users a user finds.
    pub directory: UserDirectory,
    pub sender: Sender,
    pub(crate) marks: Arc<Marks>,
    pub(crate) typing: Arc<Typing>,
    pub pages: Pages,
}

/// The program `confab-gateway`.
#[derive(Debug, clap::Parser)]
#[command(
    name = "confab-gateway",
    version,
    about = "Confab's edge: REST and Socket.IO for clients, gRPC to the services",
    mut_args(|flag| flag.global(true)),
)]
pub struct Program {
    /// Settings of every program.
    #[command(flatten)]
    pub common: CommonConfig,
    /// Settings of the bus.
    #[command(flatten)]
    pub bus: BusConfig,
    /// Settings of the gateway.
    #[command(flatten)]
    pub gateway: GatewayConfig,
    /// Where the auth service is: http://host:port, with TLS https://host:port, or several separated by commas; all
    /// addresses of a name are used
    #[arg(long, env = "CONFAB_AUTH_URL", help_heading = "Services", default_value = "http://127.0.0.1:50051", value_name = "URL", value_parser = grpc::urls)]
    pub auth_url: String,
    /// Where the room service is: http://host:port, with TLS https://host:port, or several separated by commas; all
    /// addresses of a name are used
    #[arg(long, env = "CONFAB_ROOM_URL", help_heading = "Services", default_value = "http://127.0.0.1:50052", value_name = "URL", value_parser = grpc::urls)]
    pub room_url: String,
    /// Where the message service is: http://host:port, with TLS https://host:port, or several separated by commas; all
    /// addresses of a name are used
    #[arg(long, env = "CONFAB_MESSAGE_URL", help_heading = "Services", default_value = "http://127.0.0.1:50053", value_name = "URL", value_parser = grpc::urls)]
    pub message_url: String,
    /// Where the file service is: http://host:port, with TLS https://host:port, or several separated by commas; all
    /// addresses of a name are used
    #[arg(long, env = "CONFAB_FILE_URL", help_heading = "Services", default_value = "http://127.0.0.1:50054", value_name = "URL", value_parser = grpc::urls)]
    pub file_url: String,
}

impl Settings for Program {
    fn common(&self) -> &CommonConfig {
        &self.common
    }

    fn check(&self) -> anyhow::Result<()> {
        self.bus.check()?;
        self.gateway.issuers.check()?;
        peers::check(&self.gateway.forward, self.bus.key()?.as_ref())
    }
}

/// A started gateway that does not serve connections yet.
pub struct Gateway {
    routes: Router,
    server: Arc<Server<Chat>>,
    /// Maximum number of connections of clients.
    places: usize,
    budget: Arc<Budget>,
    /// The listener for other gateways.
    forward: Option<TcpListener>,
}

impl Gateway {
    /// Serves until shutdown, then finishes the requests in progress and closes the sockets, whose clients reconnect to
    /// other gateways, within the drain time.
    pub async fn serve(self, listener: TcpListener, config: &GatewayConfig, drain: Duration, process: &Process) {
        let leave = async {
            process.shutdown.cancelled().await;
            // The second half of the time is for requests in progress.
            self.server.drain(drain / 2).await;
        };
        let clients_admission = Admission::of_clients(config, self.places, self.budget.clone());
        let gateways_admission = Admission::of_gateways(config, places::for_gateways(config), self.budget.clone());
        let plan = ShutdownPlan {
            leaving: process.leaving.clone(),
            shutdown: process.shutdown.clone(),
            within: drain.mul_f64(0.75),
        };
        // Requests that other gateways proxy to sessions of this gateway run to their end.
        let left = CancellationToken::new();
        let clients = async {
            tokio::join!(server::serve(listener, self.routes, &plan, &clients_admission), leave);
            left.cancel();
        };
        let gateways = async {
            if let Some(listener) = self.forward {
                let plan = ShutdownPlan { leaving: left.clone(), shutdown: left.clone(), within: drain / 8 };
                server::serve(listener, confab_socketio::cluster_routes(&self.server), &plan, &gateways_admission)
                    .await;
            }
        };
        tokio::join!(clients, gateways);
    }
}

/// Starts the gateway of these services. `listen` is the address that it will serve, and `key` the
/// cluster key. Its tasks end with the process.
///
/// # Errors
/// When a part cannot start. Unreachable services are not an error: readiness waits for them.
pub async fn start(
    config: &GatewayConfig,
    listen: SocketAddr,
    services: Services,
    bus: Bus,
    key: Option<&ClusterKey>,
    process: &Process,
) -> anyhow::Result<Gateway> {
    LazyLock::force(&metrics::METRICS);
    let clients = Clients::new(services.called_by(Role::Gateway), config.request_timeout);
    let revocations = Revocations::start(clients.auth.clone(), &bus, process);
    let clients = Clients { deleted: revocations.deleted().clone(), ..clients };
    let issuers = Issuers::start(&config.issuers, process)?;
    let tokens = Tokens::with_issuers(issuers, clients.auth.clone(), revocations.clone(), &process.readiness);
    let sender = Sender::new(&clients);
    let cluster =
        peers::open(&config.forward, key, config.realtime.ping_interval + config.realtime.ping_timeout).await?;
    let listener =
        match config.forward.forward_listen {
            Some(listen) => {
                let listener = TcpListener::bind(listen).await;
                Some(listener.with_context(|| {
                    format!("cannot listen on {listen} for other gateways; set CONFAB_FORWARD_LISTEN")
                })?)
            }
            None => None,
        };
    let origins = Origins::new(config.allowed_origins.as_deref(), listen.ip().is_loopback());
    tracing::info!("pages of {origins} may call (CONFAB_ALLOWED_ORIGINS)");
    let places = places::for_clients(config);
    let max_sockets_per_user = places::max_sockets(config.realtime.max_sockets_per_user, places);
    let max_sockets_per_address = places::max_sockets(config.realtime.max_sockets_per_address, places);
    let hosts = Hosts::new(&config.public_hosts, listen.ip().is_loopback());
    let trust = if config.trust_traceparent { TraceTrust::All } else { TraceTrust::LinkOnly };
    let budget = Arc::new(Budget::new(config.realtime.max_outbox_bytes, revocations.pauses().clone()));
    let limits = Arc::new(Limits::open(&config.limits, &bus, key));
    let parts = Parts {
        config: RealtimeConfig { max_sockets_per_user, max_sockets_per_address, ..config.realtime.clone() },
        clients: clients.clone(),
        sender: sender.clone(),
        tokens: tokens.clone(),
        revocations: revocations.clone(),
        origins: origins.clone(),
        budget: budget.clone(),
        limits: limits.clone(),
    };
    let chat = Chat::new(parts, &bus, process);
    chat.start_tasks();
    let (marks, typing) = (chat.marks.clone(), chat.typing.clone());
    let socketio = config.realtime.of_server(clients.call.deadline);
    let registry = chat.registry.clone();
    let server = Server::in_cluster(chat, socketio, registry, cluster, server::into_tcp);
    let pages = Pages::new(budget.clone());
    let auth = || clients.auth.clone();
    let (keys, audit) = (ServerKeys::new(auth()), Audit::new(auth()));
    let acting = ActingUsers::new(auth(), revocations.clone());
    let (config, directory) = (config.clone(), config.directory());
    let app = Arc::new(App {
        clients,
        tokens,
        keys,
        acting,
        audit,
        revocations,
        config,
        directory,
        sender,
        marks,
        typing,
        pages,
    });
    let routes = rest::routes(app)?.layer(from_fn_with_state(limits, limits::apply));
    let routes = routes.layer(from_fn_with_state(process.pauses.clone(), rest::outdated::reject));
    let routes = edge::around(routes.merge(confab_socketio::routes(&server)), origins, hosts, trust);
    Ok(Gateway { routes, server, places, budget, forward: listener })
}

/// Runs the program until shutdown.
///
/// # Errors
/// When the address cannot be bound or a setting is wrong.
pub async fn run(program: Program, process: Process) -> anyhow::Result<()> {
    let listen = program.common.listen;
    let taken = || format!("cannot listen on {listen}: is another Confab running? If not, set CONFAB_LISTEN");
    let port = Reserved::new(listen).with_context(taken)?;
    let services = Services {
        auth: process.security.connect(Role::Auth, &program.auth_url).context("CONFAB_AUTH_URL")?,
        room: process.security.connect(Role::Room, &program.room_url).context("CONFAB_ROOM_URL")?,
        message: process.security.connect(Role::Message, &program.message_url).context("CONFAB_MESSAGE_URL")?,
        file: process.security.connect(Role::File, &program.file_url).context("CONFAB_FILE_URL")?,
    };
    let (bus, key) = (program.bus.open(&process.readiness)?, program.bus.key()?);
    let gateway = start(&program.gateway, listen, services, bus, key.as_ref(), &process).await?;
    let listener = port.listen().with_context(taken)?;
    process.readiness.started();
    tracing::info!(%listen, "serving HTTP");
    gateway.serve(listener, &program.gateway, program.common.drain, &process).await;
    Ok(())
}

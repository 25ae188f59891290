//! Real time over raw and stock clients: valid requests succeed, and faults cost at most their own socket.

mod bystanders;
mod connect;
mod events;
mod handshake;
mod holding;
mod limits;
mod malformed;
mod malformed_polling;
mod odd_clients;
mod official;
mod polling;
mod refusals;
mod rooms;
mod rust_client;
mod slow;
mod strangers;
mod writer;

use std::time::Duration;

use confab_tests::api::{Account, Api};
use confab_tests::embedded::Embedded;
use confab_tests::exposition::Exposition;
use confab_tests::raw::{Client, WebSocket};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::world;

/// Time limit until a socket that violates the protocol is closed: shorter than for an idle one.
const CLOSE_LIMIT: Duration = Duration::from_secs(9);

/// A server with short timeouts, but long enough for clients delayed by other tests.
async fn hasty() -> &'static Embedded {
    static SHARED: OnceCell<Embedded> = OnceCell::const_new();
    let settings = [("CONFAB_PING_INTERVAL", "500ms"), ("CONFAB_PING_TIMEOUT", "4s"), ("CONFAB_CONNECT_TIMEOUT", "4s")];
    SHARED.get_or_init(async || Embedded::start(&settings).await.expect("confab starts")).await
}

/// A server with small limits.
async fn strict() -> &'static Embedded {
    static SHARED: OnceCell<Embedded> = OnceCell::const_new();
    let settings = [
        ("CONFAB_MAX_EVENTS_PER_SECOND", "50"),
        ("CONFAB_MAX_ROOMS_PER_SOCKET", "3"),
        ("CONFAB_MAX_SOCKETS_PER_USER", "3"),
        ("CONFAB_MAX_PACKET", "20000"),
    ];
    SHARED.get_or_init(async || Embedded::start(&settings).await.expect("confab starts")).await
}

/// A server without limits.
async fn unlimited() -> &'static Embedded {
    static SHARED: OnceCell<Embedded> = OnceCell::const_new();
    let settings = [
        ("CONFAB_CONNECT_TIMEOUT", "0s"),
        ("CONFAB_MAX_EVENTS_PER_SECOND", "0"),
        ("CONFAB_MAX_ROOMS_PER_SOCKET", "0"),
        ("CONFAB_MAX_SOCKETS_PER_USER", "0"),
        ("CONFAB_MAX_SOCKETS_PER_ADDRESS", "0"),
        ("CONFAB_MAX_PACKET", "0"),
    ];
    SHARED.get_or_init(async || Embedded::start(&settings).await.expect("confab starts")).await
}

/// An account with its own room at a server.
struct Scene {
    url: String,
    api: Api,
    account: Account,
    room: String,
}

impl Scene {
    async fn at(server: &Embedded) -> anyhow::Result<Self> {
        let api = Api::new(server.url());
        let account = api.signup().await?;
        let room = api.room(&account).await?;
        Ok(Self { url: server.url(), api, account, room })
    }

    /// Creates a scene at the shared server with the default settings.
    async fn new() -> anyhow::Result<Self> {
        Self::at(world::embedded().await).await
    }

    async fn socket(&self) -> anyhow::Result<WebSocket> {
        WebSocket::connect(&self.url, &self.account.token).await
    }

    /// Opens a socket in the room.
    async fn member(&self) -> anyhow::Result<WebSocket> {
        let mut socket = self.socket().await?;
        let ack = socket.emit("joinRoom", json!(self.room)).await?;
        anyhow::ensure!(ack["ok"] == true, "joinRoom: {ack}");
        Ok(socket)
    }

    fn message(&self, content: impl Into<Value>) -> Value {
        json!({"roomId": self.room, "content": content.into()})
    }

    async fn post(&self, content: &str) -> anyhow::Result<Value> {
        self.api.post("/api/messages", &self.account, self.message(content)).await?.expect(201)
    }
}

/// Checks a rejecting acknowledgement.
#[track_caller]
fn fails(ack: &Value, status: u16, code: &str) {
    let error = &ack["error"];
    assert_eq!((&ack["ok"], &error["code"], &error["status"]), (&json!(false), &json!(code), &json!(status)), "{ack}");
    assert!(error["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{ack}");
}

/// Returns the resident memory of a server, in bytes.
fn memory(server: &Embedded) -> u64 {
    let pid = server.daemon().running().expect("it runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its figures");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kilobytes: u64 = resident.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes * 1024
}

/// Returns the current value of a server's metric.
async fn value(server: &Embedded, series: &str) -> f64 {
    let exposition = Exposition::scrape(server.admin_port()).await.expect("its metrics");
    exposition.value(series).unwrap_or_else(|| panic!("no {series}"))
}

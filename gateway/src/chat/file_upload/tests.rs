use std::sync::Arc;

use axum::http::HeaderMap;
use bytes::Bytes;
use clap::Parser;
use confab_common::grpc::Services;
use confab_common::process::Process;
use confab_identity::revocations::Revocations;
use confab_identity::testing::signed;
use confab_identity::tokens::Tokens;
use confab_socketio::{Server, Transport};
use serde_json::json;

use super::*;
use crate::chat::request::MAX_FILE;
use crate::chat::testing::address;
use crate::chat::work::start_lanes;
use crate::chat::{Chat, Parts};
use crate::edge::cors::Origins;
use crate::limits::Limits;
use crate::send::Sender;
use crate::testing::files::Files;
use crate::testing::services::{self, ROOM};
use crate::testing::{bus, claims, eventually, fake};

const OTHER_ROOM: &str = "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c0f";

/// A connected client and the frames that it receives.
struct Client {
    server: Arc<Server<Chat>>,
    socket: Arc<Socket>,
    received: Vec<String>,
}

#[derive(clap::Parser)]
struct Settings {
    #[command(flatten)]
    gateway: crate::config::GatewayConfig,
}

impl Client {
    async fn connected(files: &Files) -> Self {
        let config = Settings::parse_from(["test"]).gateway;
        let (process, bus) = (Process::new(), bus());
        let (auth, room, message) = (fake(services::auth), fake(services::room), fake(services::message()));
        let clients = crate::clients::Clients::new(
            Services { auth, room, message, file: files.transport() },
            config.request_timeout,
        );
        let revocations = Revocations::start(clients.auth.clone(), &bus, &process);
        let tokens = Tokens::start(clients.auth.clone(), revocations.clone(), &process);
        let (sender, origins) = (Sender::new(&clients), Origins::new(None, true));
        let socketio = config.realtime.of_server(config.request_timeout);
        let limits = Arc::new(Limits::open(&config.limits, &bus, None));
        let (config, budget) = (config.realtime, Arc::default());
        let parts = Parts { config, clients, sender, tokens, revocations, origins, budget, limits };
        let chat = Chat::new(parts, &bus, &process);
        let server = Server::new(chat.clone(), socketio, chat.registry.clone());
        let socket = server.open(Transport::POLLING, address(1), &HeaderMap::new()).unwrap();
        server.receive(&socket, &format!("40{}", json!({ "token": signed(1, &claims(json!({}))) }))).unwrap();
        let mut client = Self { server, socket, received: Vec::new() };
        client.receives("40{").await;
        client
    }

    /// Sends an event with an optional attachment.
    fn emit(&self, text: &str, data: Option<Bytes>) {
        self.server.receive(&self.socket, text).unwrap();
        data.into_iter().for_each(|data| self.server.receive_binary(&self.socket, data).unwrap());
        start_lanes(&self.server.app, &self.socket);
    }

    fn read_frames(&mut self) {
        assert_eq!(self.socket.outbox.closing(), None);
        let frames = self.socket.outbox.take_some(100, usize::MAX);
        self.received.extend(frames.iter().map(|frame| String::from_utf8(frame.packet().to_vec()).unwrap()));
    }

    /// Waits for a frame that starts with `begin`.
    async fn receives(&mut self, begin: &str) -> String {
        eventually(|| {
            self.read_frames();
            self.received.iter().any(|received| received.starts_with(begin))
        })
        .await;
        self.received.iter().find(|received| received.starts_with(begin)).unwrap().clone()
    }
}

fn file_upload(ack: u64) -> String {
    let argument =
        json!({ "roomId": ROOM, "name": "ü.bin", "data": { "_placeholder": true, "num": 0 }, "clientMessageId": "c" });
    format!("451-{ack}[\"fileUpload\",{argument}]")
}

fn message(ack: u64, room: &str) -> String {
    format!("42{ack}[\"message\",{}]", json!({ "roomId": room, "content": "hi" }))
}

#[tokio::test]
async fn a_file_is_stored_and_acknowledged() {
    let files = Files::default();
    let mut client = Client::connected(&files).await;
    let data = Bytes::from(vec![7; 300_000]);
    client.emit(&file_upload(1), Some(data.clone()));
    let ack = client.receives("431[").await;
    let ack: serde_json::Value = serde_json::from_str(ack.strip_prefix("431").unwrap()).unwrap();
    assert_eq!(
        (&ack[0]["ok"], &ack[0]["file"]["name"], &ack[0]["file"]["size"]),
        (&json!(true), &json!("ü.bin"), &json!(300_000))
    );
    assert_eq!((&ack[0]["message"]["type"], &ack[0]["message"]["clientMessageId"]), (&json!("file"), &json!("c")));
    assert_eq!(ack[0]["message"]["files"][0], ack[0]["file"]);
    assert_eq!(files.bytes(ack[0]["file"]["id"].as_str().unwrap()), Some(data));
    let (begins, finishes) = files.uploads();
    assert_eq!((begins[0].at_least, begins[0].room_id.as_deref(), finishes[0].timeout_ms), (300_000, Some(ROOM), 2500));

    files.refuse(Error::new(Code::Forbidden, "not here"));
    client.emit(&file_upload(2), Some(Bytes::new()));
    assert!(client.receives("432[").await.contains(r#""code":"forbidden""#));
    client.emit(&file_upload(3).replace("\"name\"", "\"nam\""), Some(Bytes::new()));
    assert!(client.receives("433[").await.contains("name must be given"));
}

#[tokio::test]
async fn a_file_keeps_its_order_and_delays_no_other_room() {
    let files = Files::default();
    let mut client = Client::connected(&files).await;
    files.stall();
    client.emit(&message(1, ROOM), None);
    client.emit(&file_upload(2), Some(vec![7; MAX_FILE].into()));
    client.emit(&message(3, ROOM), None);
    client.emit(&message(4, OTHER_ROOM), None);
    assert!(client.socket.client.is_paused(), "back pressure while over 1 MiB is pending");
    client.receives("431[").await;
    client.receives("434[").await;
    assert!(!client.received.iter().any(|received| received.starts_with("432") || received.starts_with("433")));
    files.go_on();
    client.receives("433[").await;
    let place = |begin| client.received.iter().position(|received| received.starts_with(begin)).unwrap();
    assert!(place("431") < place("432") && place("432") < place("433"));
    eventually(|| !client.socket.client.is_paused()).await;
    assert_eq!(files.count(), 1);
}

#[tokio::test]
async fn an_upload_that_is_rejected_for_now_is_repeated() {
    let files = Files::default();
    let mut client = Client::connected(&files).await;
    files.refuse(Error::unavailable("the file service"));
    let data = Bytes::from(vec![7; 100_000]);
    client.emit(&file_upload(1), Some(data.clone()));
    eventually(|| files.uploads().0.len() >= 2).await;
    files.accept();
    let ack = client.receives("431[").await;
    let ack: serde_json::Value = serde_json::from_str(ack.strip_prefix("431").unwrap()).unwrap();
    assert_eq!((&ack[0]["ok"], files.count()), (&json!(true), 1));
    assert_eq!(files.bytes(ack[0]["file"]["id"].as_str().unwrap()), Some(data));
}

#[tokio::test]
async fn an_upload_is_unavailable_when_no_time_is_left_for_another_attempt() {
    let files = Files::default();
    let mut client = Client::connected(&files).await;
    files.refuse(Error::unavailable("the file service"));
    tokio::time::pause();
    client.emit(&file_upload(1), Some(Bytes::from_static(b"text")));
    let begun = tokio::time::Instant::now();
    assert!(client.receives("431[").await.contains(r#""code":"unavailable""#));
    assert!(begun.elapsed() < std::time::Duration::from_millis(2500));
    assert!((5..=15).contains(&files.uploads().0.len()));
}

#[tokio::test]
async fn an_unanswered_upload_times_out() {
    let files = Files::default();
    let mut client = Client::connected(&files).await;
    files.stall();
    tokio::time::pause();
    client.emit(&file_upload(1), Some(Bytes::from_static(b"text")));
    let begun = tokio::time::Instant::now();
    assert!(client.receives("431[").await.contains(r#""code":"timeout""#));
    assert!(begun.elapsed() < std::time::Duration::from_secs(3));
}

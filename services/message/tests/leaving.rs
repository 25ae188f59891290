//! The program as it leaves.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use clap::Parser;
use confab_common::bus::{Bus, Notice};
use confab_common::grpc::{Call, connect, request};
use confab_common::process::Process;
use confab_common::testing::{self, Wire};
use confab_message::Program;
use confab_proto::auth::v1::UserRef;
use confab_proto::message::v1::message_service_client::MessageServiceClient;
use confab_proto::message::v1::{AppendRequest, Hint, Kind, NewEvent};
use confab_proto::{channel, partition};
use prost::Message;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

#[tokio::test]
async fn the_last_hint_is_published_before_the_end() {
    let room = Uuid::now_v7();
    let event = NewEvent {
        id: Uuid::now_v7().to_string(),
        room_id: room.to_string(),
        kind: Kind::System.into(),
        sender: Some(UserRef { id: Uuid::now_v7().to_string(), username: "ada".into() }),
        event: "roomUpdated".into(),
        data: "{}".into(),
        ..NewEvent::default()
    };
    let (subscriptions, mut notices) = Bus::open(&testing::redis(), None).unwrap().listen();
    subscriptions.subscribe(channel::log(partition::of_room(room, partition::DEFAULT_COUNT))).await;

    let wire = Wire::to(&testing::redis()).await;
    wire.silence();
    let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let data = testing::directory();
    let program = Program::parse_from([
        "confab-message",
        &format!("--listen={listen}"),
        &format!("--data-dir={}", data.display()),
        &format!("--bus={}", wire.url().expose()),
    ]);
    let process = Process::new();
    let running = std::thread::spawn({
        let process = process.clone();
        move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let ended = runtime.block_on(confab_message::run(program, process));
            runtime.shutdown_background();
            ended
        }
    });
    let mut client = MessageServiceClient::new(connect(&format!("http://{listen}")).unwrap());
    let appended = AppendRequest { events: vec![event.clone()] };
    while client.append(request(appended.clone(), Call::within(Duration::from_secs(5)))).await.is_err() {
        sleep(Duration::from_millis(20)).await;
    }
    process.shutdown.cancel();
    sleep(Duration::from_millis(300)).await;
    wire.carry();
    tokio::task::spawn_blocking(|| running.join().unwrap()).await.unwrap().unwrap();

    let heard = async {
        loop {
            if let Notice::Message { payload, .. } = notices.next().await.unwrap() {
                let hint = Hint::decode(payload).unwrap();
                if hint.events.iter().any(|heard| heard.id == event.id) {
                    return;
                }
            }
        }
    };
    timeout(Duration::from_secs(5), heard).await.expect("the last hint");
}

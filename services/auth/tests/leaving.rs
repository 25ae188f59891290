//! The program as it leaves.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use confab_auth::Program;
use confab_common::bus::{Bus, Notice};
use confab_common::grpc::{Call, connect, request};
use confab_common::process::Process;
use confab_common::testing::{self, Wire};
use confab_proto::auth::v1::auth_service_client::AuthServiceClient;
use confab_proto::auth::v1::{LogoutRequest, Revocation};
use confab_proto::channel;
use prost::Message;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

#[tokio::test]
async fn the_last_revocation_is_published_before_the_end() {
    let (session_id, user_id) = (Uuid::now_v7().to_string(), Uuid::now_v7().to_string());
    let (subscriptions, mut notices) = Bus::open(&testing::redis(), None).unwrap().listen();
    subscriptions.subscribe(channel::REVOCATIONS).await;

    let wire = Wire::to(&testing::redis()).await;
    wire.silence();
    let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let data = testing::directory();
    let program = Program::parse_from([
        "confab-auth",
        &format!("--listen={listen}"),
        &format!("--data-dir={}", data.display()),
        &format!("--bus={}", wire.url().expose()),
    ]);
    let process = Process::new();
    let running = std::thread::spawn({
        let process = process.clone();
        move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let ended = runtime.block_on(confab_auth::run(program, process));
            runtime.shutdown_background();
            ended
        }
    });
    let mut client = AuthServiceClient::new(connect(&format!("http://{listen}")).unwrap());
    let in_an_hour = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(3600);
    let logout = LogoutRequest { session_id: session_id.clone(), user_id, expires_at_ms: in_an_hour.as_millis() as i64 };
    while client.logout(request(logout.clone(), Call::within(Duration::from_secs(5)))).await.is_err() {
        sleep(Duration::from_millis(20)).await;
    }
    process.shutdown.cancel();
    sleep(Duration::from_millis(300)).await;
    wire.carry();
    tokio::task::spawn_blocking(|| running.join().unwrap()).await.unwrap().unwrap();

    let heard = async {
        loop {
            if let Notice::Message { payload, .. } = notices.next().await.unwrap()
                && Revocation::decode(payload).unwrap().session_id == session_id
            {
                return;
            }
        }
    };
    timeout(Duration::from_secs(5), heard).await.expect("the last revocation");
}

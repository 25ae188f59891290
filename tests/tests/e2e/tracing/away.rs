//! A missing or silent collector does no harm, not even at shutdown.

use std::time::Duration;

use confab_tests::api::Api;
use confab_tests::embedded::Embedded;
use confab_tests::plan::free_ports;
use confab_tests::raw::{Client, WebSocket};
use serde_json::json;
use tokio::net::TcpListener;

/// A shutdown waits one second for the collector, where an export alone would wait ten seconds; the rest is for a busy
/// machine.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(9);

async fn chats_and_leaves(server: &Embedded) {
    let api = Api::new(server.url());
    let account = api.signup().await.unwrap();
    let room = api.room(&account).await.unwrap();
    let mut socket = WebSocket::connect(&server.url(), &account.token).await.unwrap();
    assert_eq!(socket.emit("joinRoom", json!(room)).await.unwrap()["ok"], true);
    // More spans than the queue holds.
    let burst = (0..60).map(|n| json!({"roomId": room, "content": n.to_string()})).collect::<Vec<_>>();
    for _ in 0..20 {
        for number in socket.emit_all("message", &burst).await.unwrap() {
            assert_eq!(socket.ack(number).await.unwrap()["ok"], true);
        }
    }
    drop(socket);
    server.daemon().leave(SHUTDOWN_LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_collector_does_no_harm() {
    let endpoint = format!("http://127.0.0.1:{}", free_ports(1).unwrap());
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        ("OTEL_TRACES_SAMPLER", "always_on"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ];
    chats_and_leaves(&Embedded::start(&settings).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_does_not_wait_for_a_silent_collector() {
    // The system accepts the connection, but no program reads from it.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        ("OTEL_TRACES_SAMPLER", "always_on"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ];
    chats_and_leaves(&Embedded::start(&settings).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn last_spans_are_exported_at_shutdown() {
    let (collector, server) = super::embedded(&[("OTEL_BSP_SCHEDULE_DELAY", "3600000")]).await.unwrap();
    let api = Api::new(server.url());
    api.signup().await.unwrap();
    assert!(collector.spans().is_empty());
    server.daemon().leave(SHUTDOWN_LIMIT).await.unwrap();
    let names = collector.spans().into_iter().map(|span| (span.service, span.name)).collect::<Vec<_>>();
    assert!(names.contains(&("confab".into(), "POST /api/auth/signup".into())), "{names:?}");
    assert!(names.contains(&("confab".into(), "confab.auth.v1.AuthService/Signup".into())), "{names:?}");
}

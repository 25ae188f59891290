//! What a client may make its gateway hold.

use serde_json::json;

use super::*;
use crate::realtime::testing::{World, connect};
use crate::testing::{bus, eventually};

#[tokio::test]
async fn who_asks_on_and_reads_nothing_is_not_read_from() {
    let world = World::with(bus(), &["--max-events-per-second", "0"], 1).await;
    let mut client = world.client();
    client.emit(&connect(json!({})));
    client.hears("40{").await;
    client.heard.clear();
    let mut asked = 0;
    while !client.session.socket.is_paused() {
        client.emit(&format!("42{asked}[\"leaveRoom\",\"{}\"]", Uuid::now_v7()));
        asked += 1;
        assert!(asked < 50_000, "everything is answered, although nothing is read");
        tokio::task::yield_now().await;
    }
    // Nothing was left out, either.
    eventually(|| {
        client.listen();
        client.heard.len() == asked
    })
    .await;
    assert!(!client.session.socket.is_paused());
}

//! A client that does not read is closed, and no other client waits for it.

use confab_tests::raw::{Client, WebSocket};
use confab_tests::wait::eventually;
use serde_json::{Value, json};

use super::bystanders::Bystanders;
use super::{CLOSE_LIMIT, Scene};
use crate::world;

/// A receive window in bytes, so small that the system buffers little for the client.
const WINDOW: u32 = 4096;

async fn narrow(scene: &Scene) -> anyhow::Result<WebSocket> {
    let mut socket = WebSocket::open_narrow(&scene.url, WINDOW).await?;
    socket.enter(&scene.account.token).await?;
    let ack = socket.emit("joinRoom", json!(scene.room)).await?;
    anyhow::ensure!(ack["ok"] == true, "{ack}");
    Ok(socket)
}

/// Writes `count` large messages, which another client receives.
async fn write(scene: &Scene, listener: &mut WebSocket, count: usize) -> anyhow::Result<()> {
    let message = scene.message("x".repeat(16_384));
    for _ in 0..count {
        let ack = listener.emit("message", message.clone()).await?;
        anyhow::ensure!(ack["ok"] == true, "{ack}");
        anyhow::ensure!(listener.event("message").await? == ack["message"]);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_with_too_much_unread_is_closed_and_may_return() {
    let server = world::embedded().await;
    let bystanders = Bystanders::at(server).await.unwrap();
    let scene = Scene::new().await.unwrap();
    let (mut slow, mut listener) = (narrow(&scene).await.unwrap(), scene.member().await.unwrap());
    write(&scene, &mut listener, 600).await.unwrap();
    slow.closed(CLOSE_LIMIT).await.unwrap();
    let received = slow.taken_events();
    let seqs = received.iter().map(|(_, message)| message["seq"].as_u64().unwrap()).collect::<Vec<_>>();
    // The client did not receive all messages, but those that it received have no gap.
    assert!(seqs.len() < 600 && seqs.iter().copied().eq(1..=seqs.len() as u64), "{seqs:?}");
    let mut back = scene.socket().await.unwrap();
    let ack = back.emit("joinRoom", json!({"roomId": scene.room, "after": seqs.len()})).await.unwrap();
    assert_eq!((&ack["lastSeq"], &ack["messages"][0]["seq"]), (&json!(600), &json!(seqs.len() + 1)));
    bystanders.noticed_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_reads_nothing_for_ten_seconds_is_closed() {
    let server = world::embedded().await;
    let bystanders = Bystanders::at(server).await.unwrap();
    let scene = Scene::new().await.unwrap();
    let (mut slow, mut listener) = (narrow(&scene).await.unwrap(), scene.member().await.unwrap());
    // Until the system accepts no more, but less than the client's queue may hold.
    let mut taken = 0;
    loop {
        write(&scene, &mut listener, 10).await.unwrap();
        let before = std::mem::replace(&mut taken, slow.unread().unwrap());
        if taken == before {
            break;
        }
    }
    let gone = async || slow.unread().is_err().then_some(());
    eventually("the socket is closed", 3 * CLOSE_LIMIT, gone).await.unwrap();
    // The client receives the messages in transit, and then the end, without any further event.
    let late: Value = scene.post("late").await.unwrap();
    slow.closed(CLOSE_LIMIT).await.unwrap();
    assert!(!slow.taken_events().iter().any(|(_, message)| *message == late));
    assert_eq!(listener.event("message").await.unwrap(), late);
    bystanders.noticed_nothing().await;
}

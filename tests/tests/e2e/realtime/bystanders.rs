//! Two clients that chat through the same server during a test, and must not be affected.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use confab_tests::embedded::Embedded;
use confab_tests::raw::{Client, WebSocket};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::Scene;

/// The pause between two messages.
const SEND_INTERVAL: Duration = Duration::from_millis(50);

pub struct Bystanders {
    over: Arc<AtomicBool>,
    chat: JoinHandle<anyhow::Result<()>>,
}

impl Bystanders {
    pub async fn at(server: &Embedded) -> anyhow::Result<Self> {
        let scene = Scene::at(server).await?;
        let (speaker, listener) = (scene.member().await?, scene.member().await?);
        let over = Arc::new(AtomicBool::new(false));
        let chat = tokio::spawn(chat(scene, speaker, listener, over.clone()));
        Ok(Self { over, chat })
    }

    /// Ends the chat after one more message; all messages must have arrived.
    pub async fn noticed_nothing(self) {
        self.over.store(true, Ordering::Relaxed);
        self.chat.await.expect("no panic").expect("nothing noticed");
    }
}

async fn chat(
    scene: Scene,
    mut speaker: WebSocket,
    mut listener: WebSocket,
    over: Arc<AtomicBool>,
) -> anyhow::Result<()> {
    for seq in 1.. {
        let last = over.load(Ordering::Relaxed);
        let line = scene.message(format!("line {seq}"));
        let ack = speaker.emit("message", line).await?;
        anyhow::ensure!(ack["ok"] == true && ack["message"]["seq"] == seq, "line {seq}: {ack}");
        for receives in [&mut speaker, &mut listener] {
            let received: Value = receives.event("message").await?;
            anyhow::ensure!(received == ack["message"], "message {seq} was received as {received}");
        }
        if last {
            break;
        }
        tokio::time::sleep(SEND_INTERVAL).await;
    }
    Ok(())
}

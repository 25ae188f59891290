//! A client that posts to a room without a pause until it is stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use confab_tests::raw::Client;
use confab_tests::wait::eventually;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::Scene;

pub struct Writer {
    over: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    writing: JoinHandle<anyhow::Result<()>>,
}

impl Writer {
    pub async fn start(scene: &Scene) -> anyhow::Result<Self> {
        let (over, written) = <(Arc<AtomicBool>, Arc<AtomicU64>)>::default();
        let mut socket = scene.socket().await?;
        let message = scene.message("and on");
        let (ends, counts) = (over.clone(), written.clone());
        let writing = tokio::spawn(async move {
            while !ends.load(Ordering::Relaxed) {
                let ack = socket.emit("message", message.clone()).await?;
                anyhow::ensure!(ack["ok"] == true, "{ack}");
                counts.store(ack["message"]["seq"].as_u64().unwrap_or_default(), Ordering::Relaxed);
            }
            Ok(())
        });
        Ok(Self { over, written, writing })
    }

    /// Waits until `count` more messages are written.
    pub async fn more(&self, count: u64) -> anyhow::Result<()> {
        let goal = self.written.load(Ordering::Relaxed) + count;
        let reached =
            async || (self.written.load(Ordering::Relaxed) >= goal || self.writing.is_finished()).then_some(());
        eventually("more is written", Duration::from_secs(20), reached).await
    }

    /// Stops, and returns the room's history.
    pub async fn history(self, scene: &Scene) -> anyhow::Result<Vec<Value>> {
        self.over.store(true, Ordering::Relaxed);
        self.writing.await??;
        scene.api.history(&scene.room, &scene.account, 200).await
    }
}

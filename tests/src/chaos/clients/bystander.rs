//! A client at a healthy gateway that must not notice a fault of another gateway.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::super::world::World;
use super::ANSWER_LIMIT;
use crate::plan::Role;
use crate::raw::{Client, WebSocket};

/// How many messages establish the normal latency.
const BASE: usize = 100;
/// The pause between messages.
const SEND_INTERVAL: Duration = Duration::from_millis(10);
/// The latency limit, regardless of the normal latency on a busy machine.
const LATENCY_LIMIT: Duration = Duration::from_secs(1);

/// A client that sends messages to its own room.
pub struct Bystander {
    base: Vec<Duration>,
    over: Arc<AtomicBool>,
    speaking: JoinHandle<anyhow::Result<Vec<Duration>>>,
}

impl Bystander {
    /// Sends messages in its own room, directly at a gateway, until `leave`.
    ///
    /// # Errors
    /// When a request is rejected.
    pub async fn arrive(world: &World, gateway: u16) -> anyhow::Result<Self> {
        let room = world.api.room(&world.owner).await?;
        let mut socket =
            WebSocket::connect(&world.cluster.plan.url((Role::Gateway, gateway)), &world.owner.token).await?;
        let mut base = Vec::new();
        while base.len() < BASE {
            base.push(speak(&mut socket, &room).await?);
        }
        let over = Arc::<AtomicBool>::default();
        let leaving = over.clone();
        let speaking = tokio::spawn(async move {
            let mut times = Vec::new();
            while !leaving.load(Ordering::Relaxed) {
                times.push(speak(&mut socket, &room).await?);
            }
            anyhow::Ok(times)
        });
        Ok(Self { base, over, speaking })
    }

    /// Stops and describes the latency.
    ///
    /// # Errors
    /// When the latency was not normal.
    pub async fn leave(self) -> anyhow::Result<String> {
        self.over.store(true, Ordering::Relaxed);
        let times = self.speaking.await??;
        let (base, since) = (Percentiles::of(self.base), Percentiles::of(times));
        ensure!(
            since.half <= 2 * base.half + SEND_INTERVAL,
            "a client at another gateway waits for {since:?}, before the fault {base:?}"
        );
        ensure!(since.most <= LATENCY_LIMIT, "a client at another gateway waits for {since:?}");
        Ok(format!("elsewhere p99 {:.0?}, before {:.0?}", since.nearly_all, base.nearly_all))
    }
}

/// Returns how long a message takes until it is acknowledged.
async fn speak(socket: &mut WebSocket, room: &str) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let ack = socket.emit("message", json!({"roomId": room, "content": "as usual"}));
    let ack = timeout(ANSWER_LIMIT, ack).await.context("an acknowledgement")??;
    ensure!(ack["ok"] == true, "message: {ack}");
    let took = begun.elapsed();
    sleep(SEND_INTERVAL).await;
    Ok(took)
}

#[derive(Debug)]
struct Percentiles {
    half: Duration,
    nearly_all: Duration,
    most: Duration,
}

impl Percentiles {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let rank = |percent: usize| {
            times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        Self { half: rank(50), nearly_all: rank(99), most: rank(100) }
    }
}

//! Somebody who speaks at a gateway that is whole while another one is not, and is not to notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::super::world::World;
use super::PATIENCE;
use crate::plan::Role;
use crate::raw::{Client, WebSocket};

/// How many messages show what is usual.
const BASE: usize = 100;
/// Between them.
const PACE: Duration = Duration::from_millis(10);
/// Slower than this is not to carry on, whatever is usual on a machine that does everything at once.
const MOST: Duration = Duration::from_secs(1);

/// A conversation with oneself.
pub struct Bystander {
    base: Vec<Duration>,
    over: Arc<AtomicBool>,
    speaking: JoinHandle<anyhow::Result<Vec<Duration>>>,
}

impl Bystander {
    /// Speaks in a room of its own, straight at a gateway, until it is to leave.
    ///
    /// # Errors
    /// When something is refused.
    pub async fn arrive(world: &World, gateway: u16) -> anyhow::Result<Self> {
        let room = world.api.room(&world.owner).await?;
        let mut socket = WebSocket::connect(&world.cluster.plan.url((Role::Gateway, gateway)), &world.owner.token).await?;
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

    /// How it was, in words.
    ///
    /// # Errors
    /// When it was not as usual.
    pub async fn leave(self) -> anyhow::Result<String> {
        self.over.store(true, Ordering::Relaxed);
        let times = self.speaking.await??;
        let (base, since) = (Percentiles::of(self.base), Percentiles::of(times));
        ensure!(since.half <= 2 * base.half + PACE, "who speaks elsewhere waits for {since:?}, before {base:?}");
        ensure!(since.most <= MOST, "who speaks elsewhere waits for {since:?}");
        Ok(format!("elsewhere p99 {:.0?}, before {:.0?}", since.nearly_all, base.nearly_all))
    }
}

/// How long a message takes until it is acknowledged.
async fn speak(socket: &mut WebSocket, room: &str) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let ack = socket.emit("message", json!({"roomId": room, "content": "as usual"}));
    let ack = timeout(PATIENCE, ack).await.context("an acknowledgement")??;
    ensure!(ack["ok"] == true, "message: {ack}");
    let took = begun.elapsed();
    sleep(PACE).await;
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
        let rank =
            |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default();
        Self { half: rank(50), nearly_all: rank(99), most: rank(100) }
    }
}

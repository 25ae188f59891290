//! `load hintless`: kills Redis while clients chat; messages must still arrive within one second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::Timestamp;
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::figures::Figures;
use super::histogram::Histogram;
use super::options::{say, show};
use super::talk::{Pace, Talk};
use crate::api::Api;
use crate::cluster::Cluster;
use crate::plan::Role;
use crate::raw::{Client, WebSocket};

/// The limit of the 99th percentile, in milliseconds.
const P99_LIMIT: f64 = 1000.0;
/// How long a listener waits for a packet before it checks whether the run is over.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Rates and durations
#[derive(Debug, clap::Args)]
pub struct Hintless {
    /// Messages per second in all rooms together
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// Number of rooms, each with a listener
    #[arg(long, default_value_t = 10)]
    rooms: usize,
    /// Duration of each measurement, with Redis and without, in seconds
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Print results as one line of JSON
    #[arg(long)]
    json: bool,
}

/// Runs the scenario: clients send at one gateway and listen at the other.
///
/// # Errors
/// When messages take too long, or a message is rejected.
pub async fn run(hintless: Hintless) -> anyhow::Result<()> {
    let cluster = Cluster::scratch(2, 2, &[]).await?;
    let [first, second] = [1, 2].map(|n| cluster.plan.url((Role::Gateway, n)));
    let api = Api::new(&first);
    let account = api.signup().await?;
    let mut rooms = Vec::<Arc<str>>::new();
    for _ in 0..hintless.rooms {
        rooms.push(api.room(&account).await?.into());
    }
    let pace = Pace { speakers: 10, rate: hintless.rate, bytes: 100 };
    let talk = Talk::begin(&first, &account.token, &rooms, &pace)?;
    let time = Duration::from_secs(hintless.seconds);
    let mut figures = Figures::default();
    let receive = async || received(&second, &account.token, &rooms, time).await;
    let with = receive().await?;
    cluster.kill((Role::Redis, 1)).await?;
    say("Redis was killed.");
    let without = receive().await?;
    for (name, times) in [("with Redis", &with), ("without", &without)] {
        figures.add(format!("{name}: delivery p50"), "ms", times.percentile(50.0));
        figures.add(format!("{name}: delivery p99"), "ms", times.percentile(99.0));
    }
    let said = talk.end()?;
    figures.add("ack p99", "ms", said.ack_time.percentile(99.0));
    show(hintless.json, &format!("hintless: {} messages a second", hintless.rate), &figures);
    ensure!(said.refusals == 0, "{:?}", said.fault);
    ensure!(without.percentile(99.0) <= P99_LIMIT, "without Redis, messages take too long");
    Ok(())
}

/// Returns the times from commit to arrival of messages in all rooms.
async fn received(url: &str, token: &str, rooms: &[Arc<str>], time: Duration) -> anyhow::Result<Histogram> {
    let over = Arc::<AtomicBool>::default();
    let mut listening = Vec::new();
    for room in rooms {
        let mut socket = WebSocket::connect(url, token).await?;
        let ack = socket.emit("joinRoom", json!(**room)).await?;
        ensure!(ack["ok"] == true, "joinRoom: {ack}");
        listening.push(tokio::spawn(listen(socket, over.clone())));
    }
    sleep(time).await;
    over.store(true, Ordering::Relaxed);
    let mut all = Histogram::default();
    for listener in listening {
        all.merge(&listener.await??);
    }
    Ok(all)
}

async fn listen(mut socket: WebSocket, over: Arc<AtomicBool>) -> anyhow::Result<Histogram> {
    let mut times = Histogram::default();
    while !over.load(Ordering::Relaxed) {
        match timeout(POLL_INTERVAL, socket.listen()).await {
            Ok(received) => received?,
            Err(_) => continue,
        }
        for (_, message) in socket.taken_events() {
            let created = message["createdAt"].as_str().context("a time")?.parse::<Timestamp>()?;
            times.record(Timestamp::now().duration_since(created).unsigned_abs());
        }
    }
    Ok(times)
}

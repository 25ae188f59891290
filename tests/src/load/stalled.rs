//! `load stalled`: some clients of a busy room stop reading; its senders must not be affected.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;

use super::crowd::Target;
use super::figures::Figures;
use super::options::{say, show};
use super::process::{Memory, Watched};
use super::talk::{Pace, Said, Talk};
use super::worker::{Crew, Member};
use crate::api::Api;
use crate::cluster::Cluster;
use crate::plan::Role;
use crate::raw::{Client, WebSocket};

/// Receive window of a stalled reader, in bytes: small, so that the system buffers little for it.
const WINDOW: u32 = 4096;
/// How often memory is sampled.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
/// How often closed readers are counted; each count lists all connections of the system.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);
/// Time before the measurement.
const WARM_UP: Duration = Duration::from_secs(2);

/// Numbers and rates
#[derive(Debug, clap::Args)]
pub struct Stalled {
    /// Readers that read nothing; a closed reader reconnects and reads nothing again
    #[arg(long, default_value_t = 20)]
    stalled: usize,
    /// Readers that read normally
    #[arg(long, default_value_t = 50)]
    readers: usize,
    /// Messages per second
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// Length of a message in bytes
    #[arg(long, default_value_t = 1000)]
    bytes: usize,
    /// Duration of each measurement, without and with stalled readers, in seconds
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Print results as one line of JSON
    #[arg(long)]
    json: bool,
}

/// Runs the scenario.
///
/// # Errors
/// When a reader misses a message, a message is rejected, or senders wait too long.
pub async fn run(stalled: Stalled) -> anyhow::Result<()> {
    rlimit::increase_nofile_limit(u64::MAX).context("cannot raise the limit of open files")?;
    let cluster = Cluster::scratch(1, 2, &[]).await?;
    let api = Api::new(cluster.plan.url((Role::Gateway, 1)));
    let account = api.signup().await?;
    let room = Arc::<str>::from(api.room(&account).await?);
    let watched = Watched::directory(&cluster.plan.directory.join("pids"))?;
    let gateway = watched.into_iter().find(|process| process.name == "gateway-1").context("no gateway")?;
    let (target, token) = (Target::new(&api.url)?, Arc::<str>::from(&*account.token));
    let reader = Member { target, source: None, token, room: Some(room.clone()), joins: true, in_flight: 0 };
    let crew = Crew::open(vec![reader; stalled.readers], 1, 64)?;
    crew.ready(stalled.readers)?;
    let pace = Pace { speakers: 10, rate: stalled.rate, bytes: stalled.bytes };
    let talk = Talk::begin(&api.url, &account.token, std::slice::from_ref(&room), &pace)?;
    let mut figures = Figures::default();
    let (time, limit) = (Duration::from_secs(stalled.seconds), |base: f64| 2.0 * base + 10.0);

    let base = measure(&talk, &gateway, "base", time, &mut figures)?;
    let over = Arc::new(AtomicBool::new(false));
    let closes = Arc::<AtomicU64>::default();
    let stall =
        Stall { url: api.url.clone(), token: account.token.clone(), room, over: over.clone(), closes: closes.clone() };
    let count = stalled.stalled;
    let stalling = thread::Builder::new().name("stall".into()).spawn(move || stall.run(count))?;
    say(&format!("Starting {count} stalled readers."));
    let with = measure(&talk, &gateway, "stalled", time, &mut figures)?;
    over.store(true, Ordering::Relaxed);
    stalling.join().ok().context("a stalled reader panicked")??;
    let mut said = talk.end()?;
    said.refusals += base.refusals + with.refusals;

    let (base, with) = (base.ack_time.percentile(99.0), with.ack_time.percentile(99.0));
    figures.add("stalled readers closed", "", closes.load(Ordering::Relaxed) as f64);
    let metrics = format!("http://127.0.0.1:{}/metrics", cluster.plan.admin_port((Role::Gateway, 1)));
    let metrics = reqwest::get(metrics).await?.text().await?;
    for line in metrics.lines().filter_map(|line| line.strip_prefix("confab_outbox_closes_total{reason=\"")) {
        let (reason, count) = line.split_once("\"} ").context("a count")?;
        figures.add(format!("outboxes closed: {reason}"), "", count.parse()?);
    }
    let faults = crew.finish()?.faults();
    show(stalled.json, &format!("stalled: {count} stalled readers at {} messages a second", stalled.rate), &figures);
    ensure!(faults.is_empty() && said.refusals == 0, "{} {:?}", faults.join("; "), said.fault);
    ensure!(with <= limit(base), "the p99 exceeds twice the base plus 10 ms: {with:.1} ms");
    Ok(())
}

fn measure(talk: &Talk, gateway: &Watched, name: &str, time: Duration, figures: &mut Figures) -> anyhow::Result<Said> {
    thread::sleep(WARM_UP);
    talk.take();
    let (begin, mut most) = (Instant::now(), 0);
    while begin.elapsed() < time {
        thread::sleep(SAMPLE_INTERVAL);
        most = most.max(Memory::of(gateway)?.rss);
    }
    let said = talk.take();
    figures.add(format!("{name}: messages acknowledged"), "/s", said.acks as f64 / begin.elapsed().as_secs_f64());
    figures.add(format!("{name}: ack p50"), "ms", said.ack_time.percentile(50.0));
    figures.add(format!("{name}: ack p99"), "ms", said.ack_time.percentile(99.0));
    figures.add(format!("{name}: most memory of the gateway"), "MB", most as f64 / 1e6);
    Ok(said)
}

struct Stall {
    url: String,
    token: String,
    room: Arc<str>,
    over: Arc<AtomicBool>,
    closes: Arc<AtomicU64>,
}

impl Stall {
    fn run(self, count: usize) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut sockets = Vec::new();
            while !self.over.load(Ordering::Relaxed) {
                let before = sockets.len();
                let open = WebSocket::open_connections()?;
                sockets.retain(|socket: &WebSocket| socket.ends().is_ok_and(|ends| open.contains(&ends)));
                self.closes.fetch_add((before - sockets.len()) as u64, Ordering::Relaxed);
                while sockets.len() < count {
                    sockets.push(self.socket().await?);
                }
                tokio::time::sleep(COUNT_INTERVAL).await;
            }
            Ok(())
        })
    }

    async fn socket(&self) -> anyhow::Result<WebSocket> {
        let mut socket = WebSocket::open_narrow(&self.url, WINDOW).await?;
        socket.enter(&self.token).await?;
        let ack = socket.emit("joinRoom", json!(*self.room)).await?;
        ensure!(ack["ok"] == true, "joinRoom: {ack}");
        Ok(socket)
    }
}

//! A scratch cluster whose connections pass proxies, and the state that all its clients share.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use tokio::sync::RwLock;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::access::Opening;
use super::proxy::Proxy;
use super::recorder::Recorder;
use crate::api::{Account, Api, unique};
use crate::cluster::Cluster;
use crate::plan::{Member, Role};
use crate::server_keys;

/// The number of gateways, and of replicas of each service.
const EACH: u16 = 2;
/// The number of public rooms with chat.
const ROOMS: usize = 4;
/// How often a resting client checks whether the run ends.
const REST_CHECK: Duration = Duration::from_millis(50);
/// Settings of the programs in addition to their addresses: vanished clients are detected sooner than by default, and
/// orphans are swept during the run.
const SETTINGS: &[(&str, &str)] = &[
    ("CONFAB_PING_INTERVAL", "4s"),
    ("CONFAB_PING_TIMEOUT", "8s"),
    ("CONFAB_SWEEP_EVERY", "1s"),
    ("CONFAB_ORPHAN_AGE", "6s"),
    ("CONFAB_DRAIN", "8s"),
];

/// The shared state of clients and faults.
pub struct World {
    pub cluster: Cluster,
    /// Between the programs and Redis.
    pub bus: Proxy,
    /// Between the programs and S3.
    pub objects: Proxy,
    /// Between clients and each gateway.
    pub gateways: Vec<Proxy>,
    /// Through the load balancer.
    pub api: Api,
    pub recorder: Recorder,
    /// A user who reads histories and owns the rooms.
    pub owner: Account,
    /// A server key that may suspend users.
    pub key: Account,
    /// The public rooms with chat.
    pub rooms: Vec<Uuid>,
    /// A private room whose members change.
    pub private_room: Uuid,
    /// A room that is public at first, and whose visibility changes.
    pub changing_room: Uuid,
    /// Acts hold it for reading. Held for writing, no act is in progress.
    pub acting: RwLock<()>,
    /// Whether clients must begin no new message.
    pub ending: AtomicBool,
    sockets: AtomicU64,
}

impl World {
    /// Starts the cluster, with programs from a directory.
    ///
    /// # Errors
    /// When a process does not become ready.
    pub async fn start(programs: &Path) -> anyhow::Result<Self> {
        let mut cluster = Cluster::planned(EACH, EACH)?;
        cluster.run_from(programs);
        let plan = cluster.plan.clone();
        let to = async |member: Member| Proxy::to(plan.port(member)).await;
        let (bus, objects) = (to((Role::Redis, 1)).await?, to((Role::S3, 1)).await?);
        let mut gateways = Vec::new();
        for n in 1..=EACH {
            gateways.push(to((Role::Gateway, n)).await?);
        }
        let mut settings =
            SETTINGS.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect::<Vec<_>>();
        settings.push(("CONFAB_BUS".into(), format!("redis://127.0.0.1:{}", bus.port())));
        settings.push(("CONFAB_S3_ENDPOINT".into(), format!("http://127.0.0.1:{}", objects.port())));
        cluster.set(settings);
        cluster.up().await?;
        let api = Api::new(plan.url((Role::Lb, 1)));
        let owner = api.signup().await?;
        let key = server_keys::of_cluster(&cluster, "users").await?;
        let mut rooms = Vec::new();
        for _ in 0..ROOMS {
            rooms.push(Uuid::try_parse(&api.room(&owner).await?)?);
        }
        let recorder = Recorder::new();
        let private_room = room(&api, &owner, true, &recorder).await?;
        let changing_room = room(&api, &owner, false, &recorder).await?;
        Ok(Self {
            cluster,
            bus,
            objects,
            gateways,
            api,
            recorder,
            owner,
            key,
            rooms,
            private_room,
            changing_room,
            acting: RwLock::default(),
            ending: AtomicBool::new(false),
            sockets: AtomicU64::new(0),
        })
    }

    /// Returns every room with chat.
    pub fn all_rooms(&self) -> impl Iterator<Item = Uuid> {
        self.rooms.iter().copied().chain([self.private_room, self.changing_room])
    }

    /// Returns the base URL of a gateway, through its proxy; any number selects one.
    pub fn gateway(&self, n: usize) -> String {
        format!("http://127.0.0.1:{}", self.gateways[n % self.gateways.len()].port())
    }

    /// Returns whether clients must begin no new message.
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// Waits, but not longer than the run lasts.
    pub async fn rest(&self, time: Duration) {
        self.rest_until(time, || false).await;
    }

    /// Waits until a condition holds, but not longer than `time`, nor than the run lasts.
    pub async fn rest_until(&self, time: Duration, condition: impl Fn() -> bool) {
        let end = Instant::now() + time;
        while !self.is_ending() && Instant::now() < end && !condition() {
            sleep(REST_CHECK).await;
        }
    }

    /// Returns a number for a socket.
    pub fn next_socket(&self) -> u64 {
        self.sockets.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns every process of Confab and of the servers.
    pub fn members(&self) -> Vec<Member> {
        self.cluster.plan.members()
    }

    /// Returns a value from a process's metrics, summed over its labels; 0 when it is missing.
    ///
    /// # Errors
    /// When the process does not answer.
    pub async fn metric(&self, member: Member, name: &str) -> anyhow::Result<f64> {
        let text = reqwest::get(self.admin(member, "/metrics")).await?.text().await?;
        let lines = text.lines().filter(|line| line.starts_with(name));
        Ok(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
    }

    /// Arms a failpoint of a process: `on`, `abort` or `off`.
    ///
    /// # Errors
    /// When the process is a build without failpoints.
    pub async fn arm(&self, member: Member, point: &str, action: &'static str) -> anyhow::Result<()> {
        let request = reqwest::Client::new().post(self.admin(member, &format!("/failpoints/{point}"))).body(action);
        let answer = request.send().await?;
        answer
            .error_for_status()
            .map(drop)
            .context("the program has no failpoints; `make chaos` builds the programs that have them")
    }

    fn admin(&self, member: Member, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.cluster.plan.admin_port(member))
    }
}

/// Creates a room whose members and visibility will change.
async fn room(api: &Api, owner: &Account, private: bool, recorder: &Recorder) -> anyhow::Result<Uuid> {
    let visibility = if private { "private" } else { "public" };
    let new = json!({"name": unique("room"), "visibility": visibility});
    let room = api.post("/api/rooms", owner, new).await?.expect(201)?;
    let room = Uuid::try_parse(room["id"].as_str().context("a room has an id")?)?;
    let opening = Opening { private, owner: Uuid::try_parse(&owner.id)? };
    recorder.note(|records| _ = records.openings.insert(room, opening));
    Ok(room)
}

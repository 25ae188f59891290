//! A scratch cluster whose connections lead through proxies, and what all clients of it share.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::Context;
use uuid::Uuid;

use super::history::Recorder;
use super::proxy::Proxy;
use crate::api::{Account, Api};
use crate::cluster::Cluster;
use crate::plan::{Member, Role};

/// How many gateways, and how many replicas of each service.
const EACH: u16 = 2;
/// How many rooms are spoken in.
const ROOMS: usize = 4;
/// What the programs are told besides where everything is: who is gone is noticed sooner than by default, and what breaks off
/// is swept up while somebody looks.
const SETTINGS: &[(&str, &str)] = &[
    ("CONFAB_PING_INTERVAL", "4s"),
    ("CONFAB_PING_TIMEOUT", "8s"),
    ("CONFAB_SWEEP_EVERY", "1s"),
    ("CONFAB_ORPHAN_AGE", "6s"),
    ("CONFAB_DRAIN", "8s"),
];

/// Everything that clients and faults need.
pub struct World {
    /// The cluster.
    pub cluster: Cluster,
    /// Between the programs and Redis.
    pub bus: Proxy,
    /// Between the programs and S3.
    pub objects: Proxy,
    /// Between clients and each gateway.
    pub gateways: Vec<Proxy>,
    /// Through the balancer.
    pub api: Api,
    /// Where it is written down.
    pub recorder: Recorder,
    /// Somebody who reads histories and owns the rooms.
    pub owner: Account,
    /// Where is spoken.
    pub rooms: Vec<Uuid>,
    /// Nobody begins a new message.
    pub ending: AtomicBool,
    sockets: AtomicU64,
}

impl World {
    /// Starts it, of programs in a directory.
    ///
    /// # Errors
    /// When something does not become ready.
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
        let mut settings = SETTINGS.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect::<Vec<_>>();
        settings.push(("CONFAB_BUS".into(), format!("redis://127.0.0.1:{}", bus.port())));
        settings.push(("CONFAB_S3_ENDPOINT".into(), format!("http://127.0.0.1:{}", objects.port())));
        cluster.set(settings);
        cluster.up().await?;
        let api = Api::new(plan.url((Role::Lb, 1)));
        let owner = api.signup().await?;
        let mut rooms = Vec::new();
        for _ in 0..ROOMS {
            rooms.push(Uuid::try_parse(&api.room(&owner).await?)?);
        }
        let (recorder, ending, sockets) = (Recorder::new(), AtomicBool::new(false), AtomicU64::new(0));
        Ok(Self { cluster, bus, objects, gateways, api, recorder, owner, rooms, ending, sockets })
    }

    /// The base URL of a gateway, through its proxy; any number names one.
    pub fn gateway(&self, n: usize) -> String {
        format!("http://127.0.0.1:{}", self.gateways[n % self.gateways.len()].port())
    }

    /// Whether nobody is to begin anything new.
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// A number for a socket.
    pub fn next_socket(&self) -> u64 {
        self.sockets.fetch_add(1, Ordering::Relaxed)
    }

    /// Every process of ours and of the servers, one after another.
    pub fn members(&self) -> Vec<Member> {
        self.cluster.plan.members()
    }

    /// A number in a process's metrics, summed over its labels; 0 when it is not there.
    ///
    /// # Errors
    /// When the process does not answer.
    pub async fn metric(&self, member: Member, name: &str) -> anyhow::Result<f64> {
        let text = reqwest::get(self.admin(member, "/metrics")).await?.text().await?;
        let lines = text.lines().filter(|line| line.starts_with(name));
        Ok(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
    }

    /// Arms a fail point of a process: `on`, `abort` or `off`.
    ///
    /// # Errors
    /// When the process is of a build without fail points.
    pub async fn arm(&self, member: Member, point: &str, action: &'static str) -> anyhow::Result<()> {
        let request = reqwest::Client::new().post(self.admin(member, &format!("/failpoints/{point}"))).body(action);
        let answer = request.send().await?;
        answer.error_for_status().map(drop).context("no fail points; `make chaos` builds the programs that have them")
    }

    fn admin(&self, member: Member, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.cluster.plan.admin_port(member))
    }
}

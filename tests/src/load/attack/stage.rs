//! The attacked server: a real one, with the memory and descriptors of its default container.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;

use super::honest::People;
use super::net::Route;
use crate::api::{Account, Api};
use crate::cgroup::Cgroup;
use crate::cluster::Cluster;
use crate::embedded::Embedded;
use crate::plan::Role;

const MIB: u64 = 1 << 20;
/// Memory of a gateway and of the embedded program, and of a file service, as in docker-compose.yml.
const GATEWAY: u64 = 1024 * MIB;
const FILE: u64 = 512 * MIB;
/// Without a memory cgroup, a process is killed above this multiple of its memory (3/2).
const BEYOND: (u64, u64) = (3, 2);
/// The descriptor limit where descriptors are scarce.
pub const FEW_DESCRIPTORS: u64 = 1024;

/// Honest clients and attackers have separate addresses, unless all must have the same address.
const HONEST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const HOSTILE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// The attacked programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The embedded program.
    Embedded,
    /// The embedded program with few descriptors.
    Narrow,
    /// One gateway and one replica of each service, with Postgres, Redis and an object store.
    Cluster,
}

/// A measured process.
#[derive(Debug)]
pub struct Victim {
    pub name: &'static str,
    pub pid: i32,
    pub admin: u16,
    /// Its memory, in bytes.
    pub given: u64,
    /// The cgroup that limits its memory, if available.
    pub cgroup: Option<Cgroup>,
}

impl Victim {
    fn confined(name: &'static str, pid: i32, admin: u16, given: u64) -> anyhow::Result<Self> {
        let confine = || {
            let cgroup = Cgroup::new(given)?;
            cgroup.add(pid)?;
            anyhow::Ok(cgroup)
        };
        let cgroup = confine().inspect_err(|error| super::say(&format!("{name} is not in a cgroup: {error:#}"))).ok();
        Ok(Self { name, pid, admin, given, cgroup })
    }

    /// The memory in bytes above which the process is killed.
    pub fn limit(&self) -> u64 {
        self.given * BEYOND.0 / BEYOND.1
    }
}

enum Server {
    Embedded(Box<Embedded>),
    Cluster(Box<Cluster>),
}

/// A server with accounts and rooms.
pub struct Stage {
    /// The measured processes; clients connect to the first one.
    // Dropped before the server.
    pub victims: Vec<Victim>,
    /// The honest clients.
    pub people: People,
    /// The attackers' route to the server.
    pub hostile: Route,
    pub attacker: Account,
    /// An API client of the honest clients.
    pub api: Api,
    server: Server,
}

impl Stage {
    /// Starts the server.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn set(kind: Kind, one_address: bool, login_accounts: usize) -> anyhow::Result<Self> {
        let (server, url, victims) = match kind {
            Kind::Embedded | Kind::Narrow => {
                let descriptors = (kind == Kind::Narrow).then_some(FEW_DESCRIPTORS);
                // A few accounts create all rooms, and the attacker uploads for as long as it can.
                let settings = [("CONFAB_MAX_ROOMS_PER_USER", "0"), ("CONFAB_MAX_BYTES_PER_USER", "0")];
                let embedded = Embedded::start_with(descriptors, &settings).await?;
                let (url, admin) = (embedded.url(), embedded.admin_port());
                let pid = embedded.daemon().running().context("the process is not running")?;
                (Server::Embedded(Box::new(embedded)), url, vec![Victim::confined("confab", pid, admin, GATEWAY)?])
            }
            Kind::Cluster => {
                let cluster = Cluster::scratch(1, 1, &[("CONFAB_MAX_BYTES_PER_USER", "0")]).await?;
                let url = cluster.plan.url((Role::Gateway, 1));
                let victim = |name, role, given| {
                    let pid = cluster.daemon((role, 1))?.running().context("the process is not running")?;
                    Victim::confined(name, pid, cluster.plan.admin_port((role, 1)), given)
                };
                let victims = vec![victim("gateway", Role::Gateway, GATEWAY)?, victim("file", Role::File, FILE)?];
                (Server::Cluster(Box::new(cluster)), url, victims)
            }
        };
        let api = Api::new(&url);
        let (mut accounts, mut logging_in) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            accounts.push(api.signup().await?);
        }
        for _ in 0..login_accounts {
            logging_in.push(api.signup().await?);
        }
        let hall = api.room(&accounts[0]).await?;
        let mut rooms = Vec::new();
        for _ in 0..10 {
            rooms.push(api.room(&accounts[0]).await?);
        }
        let to: SocketAddr = url.strip_prefix("http://").context("an http URL")?.parse()?;
        let admin = SocketAddr::from(([127, 0, 0, 1], victims[0].admin));
        let (honest, hostile) =
            if one_address { (Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST) } else { (HONEST, HOSTILE) };
        let people = People {
            route: Route { to, from: honest },
            admin: Route { to: admin, from: Ipv4Addr::LOCALHOST },
            accounts,
            login_accounts: logging_in,
            hall,
            rooms,
        };
        let attacker = api.signup().await?;
        Ok(Self { victims, people, hostile: Route { to, from: hostile }, attacker, api, server })
    }

    /// Returns the logs of the measured processes.
    pub fn logs(&self) -> Vec<String> {
        let daemons = match &self.server {
            Server::Embedded(embedded) => vec![embedded.daemon().clone()],
            Server::Cluster(cluster) => {
                [Role::Gateway, Role::File].iter().filter_map(|role| cluster.daemon((*role, 1)).ok()).collect()
            }
        };
        daemons.iter().filter_map(|daemon| std::fs::read_to_string(&daemon.log).ok()).collect()
    }

    /// Stops the server.
    pub async fn clear(self) {
        let Self { victims, server, .. } = self;
        match &server {
            Server::Embedded(embedded) => _ = embedded.daemon().kill().await,
            Server::Cluster(cluster) => {
                for role in [Role::Gateway, Role::File] {
                    let _ = cluster.kill((role, 1)).await;
                }
            }
        }
        // Their cgroups can be removed after their processes have ended.
        drop(victims);
        drop(server);
    }
}

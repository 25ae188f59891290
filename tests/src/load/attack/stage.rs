//! The server that is attacked: a real one, with as much memory and as many descriptors as it is shipped with.

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
/// What a gateway and the one program that is everything are given, and what a file service is: as in docker-compose.yml.
const GATEWAY: u64 = 1024 * MIB;
const FILE: u64 = 512 * MIB;
/// Where there is no memory cgroup, a process is killed above this times what it is given.
const BEYOND: (u64, u64) = (3, 2);
/// Descriptors where they are to be scarce.
pub const FEW_DESCRIPTORS: u64 = 1024;

/// Honest clients and attackers have addresses of their own unless all are to have the same.
const HONEST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const HOSTILE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// Which programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The one program that is everything.
    Embedded,
    /// The same with few descriptors.
    Narrow,
    /// One gateway and one of each service, with Postgres, Redis and an object store.
    Cluster,
}

/// A process that is measured.
#[derive(Debug)]
pub struct Victim {
    /// Its name.
    pub name: &'static str,
    /// Its process id.
    pub pid: i32,
    /// Its admin port.
    pub admin: u16,
    /// What it is given, in bytes.
    pub given: u64,
    /// The cgroup that sees to that, where there is one.
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

    /// Above this it is killed by whoever watches it.
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
    /// The processes that are measured, the one that clients talk to first.
    // Before the server, whose end they do not outlive.
    pub victims: Vec<Victim>,
    /// The honest.
    pub people: People,
    /// The way of attackers to the server.
    pub hostile: Route,
    /// The account of attackers.
    pub attacker: Account,
    /// As the honest speak to it.
    pub api: Api,
    server: Server,
}

impl Stage {
    /// Starts it.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn set(kind: Kind, one_address: bool) -> anyhow::Result<Self> {
        let (server, url, victims) = match kind {
            Kind::Embedded | Kind::Narrow => {
                let descriptors = (kind == Kind::Narrow).then_some(FEW_DESCRIPTORS);
                let embedded = Embedded::start_with(descriptors, &[]).await?;
                let (url, admin) = (embedded.url(), embedded.admin_port());
                let pid = embedded.daemon().running().context("it does not run")?;
                (Server::Embedded(Box::new(embedded)), url, vec![Victim::confined("confab", pid, admin, GATEWAY)?])
            }
            Kind::Cluster => {
                let cluster = Cluster::scratch(1, 1, &[]).await?;
                let url = cluster.plan.url((Role::Gateway, 1));
                let victim = |name, role, given| {
                    let pid = cluster.daemon((role, 1))?.running().context("it does not run")?;
                    Victim::confined(name, pid, cluster.plan.admin_port((role, 1)), given)
                };
                let victims = vec![victim("gateway", Role::Gateway, GATEWAY)?, victim("file", Role::File, FILE)?];
                (Server::Cluster(Box::new(cluster)), url, victims)
            }
        };
        let api = Api::new(&url);
        let mut accounts = Vec::new();
        for _ in 0..4 {
            accounts.push(api.signup().await?);
        }
        let hall = api.room(&accounts[0]).await?;
        let mut rooms = Vec::new();
        for _ in 0..10 {
            rooms.push(api.room(&accounts[0]).await?);
        }
        let to: SocketAddr = url.strip_prefix("http://").context("an http URL")?.parse()?;
        let admin = SocketAddr::from(([127, 0, 0, 1], victims[0].admin));
        let (honest, hostile) = if one_address { (Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST) } else { (HONEST, HOSTILE) };
        let people =
            People { route: Route { to, from: honest }, admin: Route { to: admin, from: Ipv4Addr::LOCALHOST }, accounts, hall, rooms };
        let attacker = api.signup().await?;
        Ok(Self { victims, people, hostile: Route { to, from: hostile }, attacker, api, server })
    }

    /// The logs of the measured processes.
    pub fn logs(&self) -> Vec<String> {
        let daemons = match &self.server {
            Server::Embedded(embedded) => vec![embedded.daemon().clone()],
            Server::Cluster(cluster) => [Role::Gateway, Role::File].iter().filter_map(|role| cluster.daemon((*role, 1)).ok()).collect(),
        };
        daemons.iter().filter_map(|daemon| std::fs::read_to_string(&daemon.log).ok()).collect()
    }

    /// Ends it.
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
        // Their cgroups can go now that nothing is in them.
        drop(victims);
        drop(server);
    }
}

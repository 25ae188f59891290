//! Runs the real programs as manifests specify containers (arguments, environment, files, ports, probes), without a
//! container engine. Each replica has its own loopback address, so it uses the ports in the manifests. Names of
//! services, which a cluster's name server resolves, are replaced by addresses.

pub mod compose;
pub mod kubernetes;
mod names;
mod probe;
mod servers;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

pub use names::{Name, Names};
pub use probe::Probe;

use crate::daemon::Daemon;
use crate::guard::Guard;
use crate::manifests::root;
use crate::plan::free_ports;
use crate::programs;
use crate::servers::nginx;
use crate::wait::eventually;
use names::Network;

/// Time limit for a container to become ready or, if it runs once, to end.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// The containers to run, and how to reach them.
#[derive(Debug, Clone)]
pub struct Plan {
    pub containers: Vec<Container>,
    /// The names with which containers call each other.
    pub names: Names,
    /// The name and the port that clients connect to.
    pub door: (String, u16),
}

/// One kind of container.
#[derive(Debug, Clone, Default)]
pub struct Container {
    /// Its name in messages.
    pub name: String,
    /// The program: one of Confab's, or a server's.
    pub program: String,
    pub arguments: Vec<String>,
    /// Its environment. `[::]`, `0.0.0.0` and `127.0.0.1` stand for the replica's own address, also in arguments.
    pub environment: BTreeMap<String, String>,
    /// Its files, by path in the container.
    pub files: BTreeMap<String, String>,
    /// Directories that it may write to.
    pub volumes: BTreeSet<String>,
    pub replicas: usize,
    /// The probes that must succeed before it counts as ready.
    pub probes: Vec<Probe>,
    /// Whether it runs once and ends.
    pub ends: bool,
    /// The containers that must be ready before it starts.
    pub after: BTreeSet<String>,
}

/// A running plan.
pub struct Replay {
    network: Network,
    plan: Plan,
    running: Vec<Replica>,
    balancer: SocketAddr,
    /// The number of the next replica outside the plan.
    more: AtomicUsize,
    guard: Guard,
}

struct Replica {
    container: Container,
    address: String,
    daemon: Daemon,
}

impl Plan {
    /// Returns the container with this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn container(&self, name: &str) -> anyhow::Result<&Container> {
        self.containers
            .iter()
            .find(|container| container.name == name)
            .with_context(|| format!("there is no container {name}"))
    }
}

impl Replay {
    /// Starts everything in the plan's order, with a load balancer in front, and waits until all containers are ready.
    ///
    /// # Errors
    /// When a program does not start, does not become ready or ends with a failure.
    pub async fn start(plan: Plan) -> anyhow::Result<Self> {
        let guard = Guard::new("replay")?;
        let network = Network::new(plan.containers.iter().map(|container| container.name.clone()));
        let balancer = SocketAddr::from(([127, 0, 0, 1], free_ports(1)?));
        let mut replay = Self { network, plan, running: vec![], balancer, more: AtomicUsize::new(100), guard };
        let (mut waiting, mut ready) = (replay.plan.containers.clone(), BTreeSet::new());
        while !waiting.is_empty() {
            let (next, rest) =
                waiting.into_iter().partition::<Vec<_>, _>(|container| container.after.is_subset(&ready));
            ensure!(
                !next.is_empty(),
                "containers wait for each other: {:?}",
                rest.iter().map(|container| &container.name).collect::<Vec<_>>()
            );
            // Servers wait for containers that run once, not the other way round.
            for container in next.iter().filter(|container| !container.ends) {
                for n in 1..=container.replicas {
                    let replica = replay.spawn(&replay.plan, container, n).await?;
                    replay.running.push(replica);
                }
            }
            for container in next.iter().filter(|container| container.ends) {
                let job = replay.replica(&replay.plan, container, 1)?;
                eventually(&container.name, READY_LIMIT, async || job.run(READY_LIMIT).await.ok())
                    .await
                    .with_context(|| job.daemon.last_words())?;
            }
            for container in &next {
                for replica in replay.running.iter().filter(|replica| replica.container.name == container.name) {
                    replica.ready(READY_LIMIT).await?;
                }
            }
            ready.extend(next.into_iter().map(|container| container.name));
            waiting = rest;
        }
        replay.open().await?;
        Ok(replay)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.balancer)
    }

    /// Returns the addresses behind a name and a port.
    ///
    /// # Errors
    /// When there are none.
    pub fn addresses(&self, name: &str, port: u16) -> anyhow::Result<Vec<SocketAddr>> {
        self.network.addresses(&self.plan, name, port).with_context(|| format!("{name}:{port} leads nowhere"))
    }

    /// Returns files that Confab's programs have written where a read-only root file system would forbid it.
    pub fn traces(&self) -> Vec<PathBuf> {
        let ours = self.running.iter().filter(|replica| replica.container.is_ours());
        ours.flat_map(|replica| fs::read_dir(&replica.daemon.work).into_iter().flatten().flatten())
            .map(|entry| entry.path())
            .collect()
    }

    /// Starts one more replica of a container, as another plan specifies it, and ends it again.
    ///
    /// # Errors
    /// When it does not become ready within `limit`, or ends with a failure.
    pub async fn one_more(&self, plan: &Plan, name: &str, limit: Duration) -> anyhow::Result<()> {
        let container = plan.container(name)?;
        let n = self.more.fetch_add(1, Ordering::Relaxed);
        if container.ends {
            return self.replica(plan, container, n)?.run(limit).await;
        }
        let replica = self.spawn(plan, container, n).await?;
        let ready = replica.ready(limit).await;
        replica.daemon.kill().await?;
        ready
    }

    /// Starts nginx as in docker-compose.yml, in front of the plan's gateways.
    async fn open(&self) -> anyhow::Result<()> {
        let (name, port) = &self.plan.door;
        let gateways = self.addresses(name, *port)?;
        let file = |name: &str| self.guard.directory().join("balancer").join(name);
        let nginx = nginx::daemon(file("work"), file("pid"), file("log"))?;
        nginx::configure(&nginx, self.balancer, &gateways)?;
        nginx.spawn().await?;
        let url = format!("{}/.well-known/jwks.json", self.url());
        let open = async || reqwest::get(&url).await.is_ok_and(|answer| answer.status().is_success()).then_some(());
        eventually("the load balancer forwards to a gateway", READY_LIMIT, open)
            .await
            .with_context(|| nginx.last_words())
    }

    async fn spawn(&self, plan: &Plan, container: &Container, n: usize) -> anyhow::Result<Replica> {
        let replica = self.replica(plan, container, n)?;
        replica.daemon.spawn().await.with_context(|| container.name.clone())?;
        Ok(replica)
    }

    /// Prepares a replica as a name server and an engine would.
    fn replica(&self, plan: &Plan, container: &Container, n: usize) -> anyhow::Result<Replica> {
        let address = self.network.address(&container.name, n)?;
        let directory = self.guard.directory().join(format!("{}-{n}", container.name.replace('/', "-")));
        let files = directory.join("files");
        for (path, content) in &container.files {
            let file = below(&files, path);
            fs::create_dir_all(file.parent().context("a file is in a directory")?)?;
            fs::write(file, self.network.located(plan, content))?;
        }
        let paths = container.files.keys().chain(&container.volumes).cloned().collect::<Vec<_>>();
        paths
            .iter()
            .filter(|path| container.volumes.contains(*path))
            .try_for_each(|path| fs::create_dir_all(below(&files, path)))?;
        let here = |text: &String| {
            let text = self.network.located(plan, &of_replica(text, &address));
            paths.iter().fold(text, |text, path| placed(&text, path, &below(&files, path)))
        };
        let file = |name: &str| directory.join(name);
        let daemon = Daemon {
            arguments: container.arguments.iter().map(here).collect(),
            environment: container.environment.iter().map(|(name, value)| (name.clone(), here(value))).collect(),
            ..Daemon::new(programs().join(&container.program), file("work"), file("pid"), file("log"))
        };
        let daemon = if container.is_ours() { daemon } else { servers::daemon(container, &address, daemon)? };
        Ok(Replica { container: container.clone(), address, daemon })
    }
}

/// Replaces `[::]`, `0.0.0.0` and `127.0.0.1` in a text by the replica's own address, but not the end of a network such
/// as 10.0.0.0/8.
fn of_replica(text: &str, address: &str) -> String {
    let mut parts = text.split("0.0.0.0");
    let first = parts.next().unwrap_or_default().to_owned();
    let replaced = parts.fold(first, |text, rest| {
        let own = if text.ends_with(|last: char| last.is_ascii_digit()) { "0.0.0.0" } else { address };
        text + own + rest
    });
    replaced.replace("[::]", address).replace("127.0.0.1", address)
}

impl Container {
    /// Returns whether its program is one of this workspace.
    pub fn is_ours(&self) -> bool {
        self.program.starts_with("confab")
    }
}

impl Replica {
    async fn ready(&self, limit: Duration) -> anyhow::Result<()> {
        for probe in &self.container.probes {
            let tried = async || {
                if probe.succeeds(&self.address, &self.daemon).await {
                    Some(Ok(()))
                } else if self.daemon.running().is_none() {
                    Some(Err(anyhow::anyhow!("the process has ended")))
                } else {
                    None
                }
            };
            let what = format!("{}: {probe:?} of {}", self.container.name, self.address);
            eventually(&what, limit, tried)
                .await
                .flatten()
                .with_context(|| format!("{what}: {}", self.daemon.last_words()))?;
        }
        Ok(())
    }

    /// Runs it to its end; it must succeed.
    async fn run(&self, limit: Duration) -> anyhow::Result<()> {
        let pid = self.daemon.spawn().await?;
        self.daemon.ended(pid, limit).await
    }
}

/// Returns the path of a container's file on this machine.
fn below(files: &Path, path: &str) -> PathBuf {
    files.join(path.trim_start_matches('/'))
}

/// Replaces a path of the container, alone or at the end of `name=`, by the path on this machine.
fn placed(text: &str, path: &str, here: &Path) -> String {
    match text.strip_suffix(path) {
        Some(before) if before.is_empty() || before.ends_with('=') => format!("{before}{}", here.display()),
        _ => text.to_owned(),
    }
}

/// Returns the program of an image, which has the same name except for SeaweedFS.
fn program(image: &Value) -> anyhow::Result<String> {
    let image = image.as_str().context("a container has an image")?;
    let name = image.rsplit('/').next().unwrap_or_default().split(':').next().unwrap_or_default();
    Ok(if name == "seaweedfs" { "weed" } else { name }.to_owned())
}

/// Returns the lines of a stage of a Dockerfile, from its `FROM` on.
pub fn stage<'a>(dockerfile: &'a str, name: &str) -> Vec<&'a str> {
    let begin = format!(" AS {name}");
    let lines = dockerfile.lines().skip_while(|line| !(line.starts_with("FROM ") && line.ends_with(&begin)));
    let lines = lines.enumerate().take_while(|(n, line)| *n == 0 || !line.starts_with("FROM ")).map(|(_, line)| line);
    lines.collect()
}

/// Returns the environment of a program's image, and the ports that it exposes.
fn image(target: &str) -> anyhow::Result<(BTreeMap<String, String>, Vec<u16>)> {
    let dockerfile = fs::read_to_string(root().join("deploy/Dockerfile"))?.replace("\\\n", " ");
    let (mut environment, mut ports) = (BTreeMap::new(), Vec::new());
    for line in ["runtime", target].iter().flat_map(|name| stage(&dockerfile, name)) {
        match line.split_once(' ') {
            Some(("ENV", settings)) => {
                let settings = settings.split_whitespace().filter_map(|setting| setting.split_once('='));
                environment.extend(settings.map(|(name, value)| (name.to_owned(), value.to_owned())));
            }
            Some(("EXPOSE", exposed)) => {
                ports.extend(exposed.split_whitespace().filter_map(|port| port.parse::<u16>().ok()))
            }
            _ => {}
        }
    }
    ensure!(!ports.is_empty(), "deploy/Dockerfile has no image {target}");
    Ok((environment, ports))
}

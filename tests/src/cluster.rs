//! A whole cluster on one machine without containers; `make cluster-up` and the end-to-end tests run the same code.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use rustix::process::Signal;
use tokio::net::TcpSocket;

use crate::daemon::Daemon;
use crate::guard::Guard;
use crate::plan::{Member, Plan, Role, file};
use crate::servers::postgres::Postgres;
use crate::servers::{nginx, redis, seaweed};
use crate::wait::eventually;
use crate::{certificates, programs, secrets};

/// All test clients have one address, and some send as much as the server can take.
pub const UNLIMITED: [(&str, &str); 9] = [
    ("CONFAB_LIMIT_SIGNUP", "0"),
    ("CONFAB_LIMIT_LOGIN", "0"),
    ("CONFAB_LIMIT_SEND", "0"),
    ("CONFAB_LIMIT_JOIN_ROOM", "0"),
    ("CONFAB_LIMIT_CREATE_ROOM", "0"),
    ("CONFAB_LIMIT_CHANGE_ROOM", "0"),
    ("CONFAB_LIMIT_USER_DIRECTORY", "0"),
    ("CONFAB_LIMIT_UPLOAD", "0"),
    ("CONFAB_LIMIT_SEARCH", "0"),
];

/// Time limit for a process to become ready.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// Time limit for a graceful shutdown of a process.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);

/// A cluster, running or not.
pub struct Cluster {
    /// The layout.
    pub plan: Plan,
    /// The directory of Confab's programs.
    programs: PathBuf,
    settings: Vec<(String, String)>,
    inherits_settings: bool,
    postgres: Postgres,
    http: reqwest::Client,
    /// Dropped last, so that leftovers are removed after everything else.
    _guard: Option<Guard>,
}

impl Cluster {
    /// Creates a cluster from a plan. Its programs also receive the caller's `CONFAB_` variables.
    ///
    /// # Errors
    /// When Postgres is not installed.
    pub fn new(plan: Plan) -> anyhow::Result<Self> {
        Self::with(plan, true)
    }

    fn with(plan: Plan, durable: bool) -> anyhow::Result<Self> {
        let postgres = (Role::Postgres, 1);
        let postgres = Postgres::new(&plan.work(postgres), plan.port(postgres), durable)?;
        let http = reqwest::Client::builder().timeout(Duration::from_secs(2)).pool_max_idle_per_host(0).build()?;
        Ok(Self { plan, programs: programs(), settings: vec![], inherits_settings: true, postgres, http, _guard: None })
    }

    /// Starts a cluster for tests: on free ports, with these settings, removed when the test run ends.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn scratch(gateways: u16, replicas: u16, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mut cluster = Self::planned(gateways, replicas)?;
        cluster.set(settings.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        cluster.up().await?;
        Ok(cluster)
    }

    /// Starts a scratch cluster for measurements: acknowledged messages are on disk, as in production.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn measured(gateways: u16, replicas: u16) -> anyhow::Result<Self> {
        let cluster = Self::guarded(gateways, replicas, true)?;
        cluster.up().await?;
        Ok(cluster)
    }

    /// Plans a scratch cluster without starting it, so that its settings may depend on the plan.
    ///
    /// # Errors
    /// When no ports or directory are available.
    pub fn planned(gateways: u16, replicas: u16) -> anyhow::Result<Self> {
        // Test machines are busy, and tests must not fail because a commit waits for the disk for seconds.
        Self::guarded(gateways, replicas, false)
    }

    fn guarded(gateways: u16, replicas: u16, durable: bool) -> anyhow::Result<Self> {
        let guard = Guard::new("cluster")?;
        let mut cluster = Self::with(Plan::free(guard.directory(), gateways, replicas)?, durable)?;
        cluster.inherits_settings = false;
        cluster.set(UNLIMITED.map(|(name, value)| (name.to_owned(), value.to_owned())));
        cluster._guard = Some(guard);
        Ok(cluster)
    }

    /// Runs the programs in this directory, perhaps of the previous release, whose gateways send no tokens.
    pub fn run_from(&mut self, directory: &Path) {
        self.programs = directory.to_path_buf();
    }

    /// Adds settings; programs receive them at their next start.
    pub fn set(&mut self, settings: impl IntoIterator<Item = (String, String)>) {
        self.settings.extend(settings);
    }

    /// Starts missing processes, ends those that are not in the plan, and waits until all are ready. Returns the
    /// processes that it started.
    ///
    /// # Errors
    /// When a process does not become ready; the message contains the end of its log.
    pub async fn up(&self) -> anyhow::Result<Vec<Member>> {
        let _lock = self.lock()?;
        secrets::prepare(&self.plan.secrets())?;
        certificates::make(&self.plan.certificates())?;
        for member in self.unplanned() {
            self.stop(member).await?;
        }
        // Checks all processes before the first start, so that an error leaves nothing behind.
        for member in self.plan.members() {
            if !self.is_up(member)? {
                free(self.plan.port(member)).await?;
            }
        }
        let mut started = Vec::new();
        let (servers, programs) =
            self.plan.members().into_iter().partition::<Vec<_>, _>(|member| Role::SERVERS.contains(&member.0));
        for members in [servers, programs] {
            for member in &members {
                if !self.is_up(*member)? {
                    self.spawn(*member)
                        .await
                        .with_context(|| format!("{}-{} does not start", member.0.name(), member.1))?;
                    started.push(*member);
                } else if member.0 == Role::Lb && self.configure_balancer()? {
                    self.daemon(*member)?.signal(Signal::HUP);
                }
            }
            for member in members {
                self.ready(member).await?;
            }
        }
        Ok(started)
    }

    /// Shuts everything down. Data and logs are kept.
    ///
    /// # Errors
    /// When a process remains after it was killed.
    pub async fn down(&self) -> anyhow::Result<()> {
        let _lock = self.lock()?;
        let mut members = self.plan.members();
        members.extend(self.unplanned());
        for role in Role::ALL.into_iter().rev() {
            let daemons = members.iter().filter(|member| member.0 == role).map(|member| self.daemon(*member));
            let daemons = daemons.collect::<anyhow::Result<Vec<_>>>()?;
            // All processes of a role shut down at the same time; the second loop waits for them.
            daemons.iter().for_each(|daemon| _ = daemon.signal(daemon.stop));
            for daemon in daemons {
                let _ = eventually("its end", SHUTDOWN_LIMIT, async || daemon.running().is_none().then_some(())).await;
                daemon.kill().await?;
            }
        }
        Ok(())
    }

    /// Starts one process and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start(&self, member: Member) -> anyhow::Result<()> {
        self.spawn(member).await?;
        self.ready(member).await
    }

    /// Shuts one process down.
    ///
    /// # Errors
    /// When it remains after it was killed.
    pub async fn stop(&self, member: Member) -> anyhow::Result<()> {
        self.daemon(member)?.stop(SHUTDOWN_LIMIT).await
    }

    /// Shuts one process down as an operator does; it must end gracefully.
    ///
    /// # Errors
    /// When it does not.
    pub async fn leave(&self, member: Member) -> anyhow::Result<()> {
        self.daemon(member)?.leave(SHUTDOWN_LIMIT).await.with_context(|| format!("{}-{}", member.0.name(), member.1))
    }

    /// Kills one process and its children with `kill -9`.
    ///
    /// # Errors
    /// When it remains.
    pub async fn kill(&self, member: Member) -> anyhow::Result<()> {
        self.daemon(member)?.kill().await
    }

    /// Waits until a process is ready.
    ///
    /// # Errors
    /// When it has ended or takes too long; the message contains the end of its log.
    pub async fn ready(&self, member: Member) -> anyhow::Result<()> {
        let daemon = self.daemon(member)?;
        let name = format!("{}-{} is ready", member.0.name(), member.1);
        let probe = async || {
            let is_ready = self.is_ready(member).await;
            // Another program may be listening on its port.
            if daemon.running().is_none() {
                Some(Err(anyhow!("the process has ended")))
            } else {
                is_ready.then_some(Ok(()))
            }
        };
        eventually(&name, READY_LIMIT, probe)
            .await
            .flatten()
            .with_context(|| format!("{name}: no; {}", daemon.last_words()))
    }

    /// Describes how to run a process of the cluster.
    ///
    /// # Errors
    /// When its program is not installed.
    pub fn daemon(&self, member: Member) -> anyhow::Result<Daemon> {
        let (pid_file, log) =
            (file(&self.pids(), member, "pid"), file(&self.plan.directory.join("logs"), member, "log"));
        let work = self.plan.work(member);
        match member.0 {
            Role::Postgres => Ok(self.postgres.daemon(pid_file, log)),
            Role::Redis => redis::daemon(work, self.plan.port(member), pid_file, log),
            Role::S3 => seaweed::daemon(work, self.plan.port(member), pid_file, log),
            Role::Lb => nginx::daemon(work, pid_file, log),
            Role::Auth | Role::Room | Role::Message | Role::File | Role::Gateway => Ok(Daemon {
                environment: self.settings(member),
                inherits_settings: self.inherits_settings,
                ..Daemon::new(self.programs.join(format!("confab-{}", member.0.name())), work, pid_file, log)
            }),
        }
    }

    fn settings(&self, member: Member) -> Vec<(String, String)> {
        let secret = |name: &str| self.plan.secrets().join(name).display().to_string();
        let mut settings = vec![
            ("CONFAB_LISTEN".to_string(), format!("127.0.0.1:{}", self.plan.port(member))),
            ("CONFAB_ADMIN_LISTEN".into(), format!("127.0.0.1:{}", self.plan.admin_port(member))),
            ("CONFAB_BUS".into(), format!("redis://127.0.0.1:{}", self.plan.port((Role::Redis, 1)))),
            ("CONFAB_SIGNING_KEY_FILE".into(), secret("signing-key.pem")),
            ("CONFAB_CLUSTER_KEY_FILE".into(), secret("cluster-key")),
            ("CONFAB_OBJECTS".into(), "s3://confab".into()),
            ("CONFAB_S3_ENDPOINT".into(), self.plan.url((Role::S3, 1))),
            ("CONFAB_S3_ACCESS_KEY_ID".into(), seaweed::KEY.into()),
            ("CONFAB_S3_SECRET_ACCESS_KEY_FILE".into(), secret("s3-secret-access-key")),
        ];
        settings.extend((self.programs == programs()).then(|| ("CONFAB_REQUIRE_USER_TOKENS".into(), "true".into())));
        settings.extend(certificates::settings(&self.plan.certificates(), member.0.name()));
        for service in Role::SERVICES {
            let name = service.name().to_uppercase();
            let replicas = (1..=self.plan.replicas).map(|n| self.plan.url((service, n))).collect::<Vec<_>>();
            settings.push((format!("CONFAB_{name}_URL"), replicas.join(",")));
            settings.push((format!("CONFAB_{name}_STORE_FILE"), secret("postgres-url")));
        }
        if let (Role::Gateway, n) = member {
            // The load balancer keeps idle connections for one second.
            let fixed = [("CONFAB_ACCEPT_DRAIN", "2s"), ("CONFAB_TRUSTED_PROXIES", "127.0.0.1")];
            settings.extend(fixed.map(|(name, value)| (name.into(), value.into())));
            settings.push(("CONFAB_FORWARD_LISTEN".into(), format!("127.0.0.1:{}", self.plan.forward_port(n))));
            let urls = (1..=self.plan.gateways).map(|n| format!("http://127.0.0.1:{}", self.plan.forward_port(n)));
            settings.push(("CONFAB_GATEWAY_URL".into(), urls.collect::<Vec<_>>().join(",")));
        }
        settings.extend(self.settings.iter().cloned());
        settings
    }

    /// Returns whether the process runs with its current settings.
    fn is_up(&self, member: Member) -> anyhow::Result<bool> {
        let daemon = self.daemon(member)?;
        let as_planned =
            !member.0.is_ours() || fs::read_to_string(daemon.work.join("settings")).is_ok_and(|s| s == text(&daemon));
        Ok(as_planned && daemon.running().is_some())
    }

    async fn spawn(&self, member: Member) -> anyhow::Result<()> {
        let daemon = self.daemon(member)?;
        daemon.kill().await?;
        let mut ports = vec![self.plan.port(member)];
        match member.0 {
            Role::Postgres => {
                let password = fs::read_to_string(self.plan.secrets().join("postgres-password"))?;
                self.postgres.prepare(Some(&password))?;
                secrets::keep(
                    &self.plan.secrets().join("postgres-url"),
                    &self.postgres.url(Some(&password), "confab"),
                )?;
            }
            Role::Lb => _ = self.configure_balancer()?,
            Role::Redis => {}
            Role::S3 => {
                seaweed::configure(&daemon, &self.s3_secret()?)?;
                ports.extend(seaweed::inner_ports(self.plan.port(member)));
            }
            Role::Auth | Role::Room | Role::Message | Role::File | Role::Gateway => {
                ports.push(self.plan.admin_port(member));
                ports.extend((member.0 == Role::Gateway).then(|| self.plan.forward_port(member.1)));
                fs::create_dir_all(&daemon.work)?;
                fs::write(daemon.work.join("settings"), text(&daemon))?;
            }
        }
        for port in ports {
            free(port).await?;
        }
        daemon.spawn().await.map(drop)
    }

    fn configure_balancer(&self) -> anyhow::Result<bool> {
        let address = |member| SocketAddr::from(([127, 0, 0, 1], self.plan.port(member)));
        let gateways = (1..=self.plan.gateways).map(|n| address((Role::Gateway, n))).collect::<Vec<_>>();
        let member = (Role::Lb, 1);
        nginx::configure(&self.daemon(member)?, address(member), &gateways)
    }

    async fn is_ready(&self, member: Member) -> bool {
        let port = self.plan.port(member);
        let url = match member.0 {
            Role::Postgres => return self.postgres.is_ready(),
            Role::Redis => return redis::is_ready(([127, 0, 0, 1], port).into()),
            Role::S3 => return self.s3_ready(port).await,
            Role::Lb => format!("http://127.0.0.1:{port}/.well-known/jwks.json"),
            _ => format!("http://127.0.0.1:{}/readyz", self.plan.admin_port(member)),
        };
        self.http.get(url).send().await.is_ok_and(|answer| answer.status().is_success())
    }

    async fn s3_ready(&self, port: u16) -> bool {
        match self.s3_secret() {
            Ok(secret) => seaweed::is_ready(&self.http, port, &secret).await,
            Err(_) => false,
        }
    }

    fn s3_secret(&self) -> std::io::Result<String> {
        fs::read_to_string(self.plan.secrets().join("s3-secret-access-key"))
    }

    /// Returns the processes with a pid file that are not in the plan, from an earlier larger cluster.
    fn unplanned(&self) -> Vec<Member> {
        let planned = self.plan.members();
        running(&self.plan.directory).into_iter().filter(|member| !planned.contains(member)).collect()
    }

    fn pids(&self) -> PathBuf {
        self.plan.directory.join("pids")
    }

    /// Makes concurrent commands on one cluster take turns.
    fn lock(&self) -> anyhow::Result<File> {
        fs::create_dir_all(&self.plan.directory)?;
        let file = File::create(self.plan.directory.join("lock"))?;
        file.lock()?;
        Ok(file)
    }
}

/// Returns the processes that have a pid file in a cluster's directory.
pub fn running(directory: &std::path::Path) -> Vec<Member> {
    let files = fs::read_dir(directory.join("pids")).into_iter().flatten().flatten();
    let member = |name: &str| {
        let (role, n) = name.strip_suffix(".pid")?.rsplit_once('-')?;
        Some((Role::ALL.into_iter().find(|known| known.name() == role)?, n.parse().ok()?))
    };
    files.filter_map(|entry| member(entry.file_name().to_str()?)).collect()
}

fn text(daemon: &Daemon) -> String {
    daemon.environment.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
}

/// Waits until a port is free: a dying process may keep it a moment longer than it is visible.
async fn free(port: u16) -> anyhow::Result<()> {
    let free = eventually("the port is free", Duration::from_secs(2), async || is_free(port).ok()).await;
    free.map_err(|_| anyhow!("port {port} is in use by another program, perhaps `cargo run`: stop it first"))
}

/// Returns whether a port is free, without listening: a load balancer would take that for the returning program.
fn is_free(port: u16) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(([127, 0, 0, 1], port).into())
}

//! Programs on a Postgres and a Redis that have certificates of a private authority.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use confab_tests::certificates::Authority;
use confab_tests::cluster::Cluster;
use confab_tests::daemon::Daemon;
use confab_tests::exposition::Exposition;
use confab_tests::guard::Guard;
use confab_tests::plan::{Role, free_ports};
use confab_tests::programs;
use confab_tests::raw::{Client, WebSocket};
use confab_tests::servers::postgres::Postgres;
use confab_tests::servers::redis;
use confab_tests::wait::eventually;
use serde_json::json;

use crate::world;

/// Longer than any step takes.
const STEP_LIMIT: Duration = Duration::from_secs(30);
const CLUSTER_KEY: &str = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
const UNTRUSTED: &str =
    "from an authority that this program does not trust: name the file of the authority in CONFAB_CA_FILE";
const OTHER_HOST: &str = "is for another host";

/// A Postgres and a Redis with certificates for 127.0.0.1, which require certificates of their clients.
struct Servers {
    postgres: Postgres,
    postgres_port: u16,
    redis_port: u16,
    authority: Authority,
    client: (PathBuf, PathBuf),
    guard: Guard,
}

impl Servers {
    async fn start() -> Self {
        let guard = Guard::new("tls").unwrap();
        let directory = guard.directory();
        let authority = Authority::create(&directory.join("authority")).unwrap();
        let certificate = authority.issue("server", "IP:127.0.0.1").unwrap();
        let client = authority.issue("client", "DNS:client").unwrap();
        let port = free_ports(3).unwrap();

        let postgres = Postgres::new(&directory.join("postgres"), port, false).unwrap();
        postgres.prepare(None).unwrap();
        let mut daemon = postgres.daemon(directory.join("postgres.pid"), directory.join("postgres.log"));
        daemon.arguments.extend(postgres.accept_tls(&certificate, &authority.certificate()).unwrap());
        daemon.spawn().await.unwrap();
        let ready = async || postgres.is_ready().then_some(());
        eventually("Postgres is ready", STEP_LIMIT, ready)
            .await
            .unwrap_or_else(|error| panic!("{error:#}: {}", daemon.last_words()));

        let (pid, log) = (directory.join("redis.pid"), directory.join("redis.log"));
        let mut daemon = redis::daemon(directory.join("redis"), port + 1, pid, log).unwrap();
        daemon.arguments.extend(redis::accept_tls(port + 2, &certificate, &authority.certificate()));
        daemon.spawn().await.unwrap();
        let ready = async || redis::is_ready(([127, 0, 0, 1], port + 1).into()).then_some(());
        eventually("Redis is ready", STEP_LIMIT, ready)
            .await
            .unwrap_or_else(|error| panic!("{error:#}: {}", daemon.last_words()));
        Self { postgres, postgres_port: port, redis_port: port + 2, authority, client, guard }
    }

    /// Returns the options that name the client certificate.
    fn client(&self) -> String {
        let (certificate, key) = &self.client;
        format!("sslcert={}&sslkey={}", certificate.display(), key.display())
    }

    fn postgres(&self, options: &str) -> String {
        let (port, client) = (self.postgres_port, self.client());
        format!("postgres://postgres@127.0.0.1:{port}/confab?sslmode=verify-full&{client}{options}")
    }

    fn redis(&self, options: &str) -> String {
        format!("rediss://127.0.0.1:{}?{}{options}", self.redis_port, self.client())
    }

    fn root(&self) -> String {
        format!("&sslrootcert={}", self.authority.certificate().display())
    }

    /// Returns how many connections of Confab have this state.
    fn connections(&self, state: &str) -> u32 {
        let ours = "application_name LIKE 'confab-%'";
        let count =
            format!("SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE {ours} AND {state}");
        self.postgres.ask("postgres", &count).unwrap().parse().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_runs_on_servers_with_private_certificates() {
    let servers = Servers::start().await;
    let mut cluster = Cluster::planned(2, 1).unwrap();
    let url = servers.guard.directory().join("url");
    std::fs::write(&url, servers.postgres("")).unwrap();
    let stores = ["AUTH", "ROOM", "MESSAGE", "FILE"];
    let stores = stores.map(|name| (format!("CONFAB_{name}_STORE_FILE"), url.display().to_string()));
    cluster.set(stores);
    cluster.set([
        ("CONFAB_BUS".into(), servers.redis(&servers.root())),
        ("CONFAB_CA_FILE".into(), servers.authority.certificate().display().to_string()),
    ]);
    cluster.up().await.unwrap();

    let gateways = world::gateways(&cluster);
    let owner = gateways[0].signup().await.unwrap();
    let room = gateways[0].room(&owner).await.unwrap();
    let mut socket = WebSocket::connect(&gateways[1].url, &owner.token).await.unwrap();
    assert_eq!(socket.emit("joinRoom", json!(room)).await.unwrap()["ok"], true);
    let message = json!({"roomId": room, "content": "hello"});
    let sent = gateways[0].post("/api/messages", &owner, message).await.unwrap().expect(201).unwrap();
    assert_eq!(socket.event("message").await.unwrap(), sent);

    let uses_redis = async || {
        let metrics = Exposition::scrape(cluster.plan.admin_port((Role::Gateway, 2))).await.ok()?;
        let has_received = metrics.value("confab_bus_heard_total")? > 0.5;
        (has_received && metrics.value("confab_limits_shared")? > 0.5).then_some(())
    };
    eventually("hints and rate limits use Redis", STEP_LIMIT, uses_redis).await.unwrap();
    assert!(servers.connections("ssl") > 0);
    assert_eq!(servers.connections("NOT ssl"), 0);
    for n in [1, 2] {
        let readyz = format!("http://127.0.0.1:{}/readyz", cluster.plan.admin_port((Role::Gateway, n)));
        assert_eq!(reqwest::get(readyz).await.unwrap().text().await.unwrap(), "ready\n");
    }
    cluster.down().await.unwrap();
}

#[tokio::test]
async fn programs_report_what_is_wrong_with_a_certificate() {
    let servers = Servers::start().await;
    let root = servers.root();
    let elsewhere = servers.postgres(&format!("{root}&hostaddr=127.0.0.1")).replace("@127.0.0.1:", "@elsewhere:");
    for (url, why) in [(servers.postgres(""), UNTRUSTED), (elsewhere, OTHER_HOST)] {
        // Waiting would not help, so the command does not wait.
        let mut command = Command::new(programs().join("confab-message"));
        let output = command
            .env_clear()
            .current_dir(servers.guard.directory())
            .args(["migrate", "--message-store", &url])
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(why), "{error}");
    }

    let store = servers.postgres(&root);
    let waiting = "not ready: waiting for Postgres";
    for (name, store, bus, begins, why) in [
        ("store", servers.postgres(""), servers.redis(&root), waiting, UNTRUSTED),
        (
            "bus",
            store.clone(),
            servers.redis(""),
            "ready; ",
            "bus: the certificate of Redis is from an authority that this program does not trust",
        ),
        ("works", store, servers.redis(&root), "ready", ""),
    ] {
        let directory = servers.guard.directory().join(name);
        let port = free_ports(2).unwrap();
        let settings = [
            ("CONFAB_LISTEN", format!("127.0.0.1:{port}")),
            ("CONFAB_ADMIN_LISTEN", format!("127.0.0.1:{}", port + 1)),
            ("CONFAB_MESSAGE_STORE", store),
            ("CONFAB_BUS", bus),
            ("CONFAB_CLUSTER_KEY", CLUSTER_KEY.into()),
        ];
        let daemon = Daemon {
            environment: settings.into_iter().map(|(name, value)| (name.into(), value)).collect(),
            ..Daemon::new(
                programs().join("confab-message"),
                directory.join("work"),
                directory.join("pid"),
                directory.join("log"),
            )
        };
        daemon.spawn().await.unwrap();
        let readyz =
            async || reqwest::get(format!("http://127.0.0.1:{}/readyz", port + 1)).await.ok()?.text().await.ok();
        let reports = async || readyz().await.filter(|text| text.starts_with(begins) && text.contains(why));
        eventually(name, STEP_LIMIT, reports)
            .await
            .unwrap_or_else(|error| panic!("{error:#}: {}", daemon.last_words()));
        daemon.stop(STEP_LIMIT).await.unwrap();
    }
}

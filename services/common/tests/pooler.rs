//! PgBouncer between the service and Postgres.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use confab_common::pg::{Pool, PostgresConfig};
use confab_common::{Secret, testing};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

/// A PgBouncer in front of a new database.
struct Bouncer {
    url: Secret,
    database: Secret,
    _process: Child,
}

impl Bouncer {
    async fn start(mode: &str, settings: &str) -> Self {
        let database = testing::database().await;
        let (server, name) = database.expose().rsplit_once('/').expect("a URL that names a database");
        let (account, address) =
            server.trim_start_matches("postgres://").rsplit_once('@').expect("a URL with an account");
        let (host, port) = address.split_once(':').expect("a URL with a port");
        let user = account.split(':').next().unwrap_or_default();
        let own = TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("its number");
        let file = testing::directory().join("pgbouncer.ini");
        let ini = format!(
            "[databases]\n* = host={host} port={port} user={user}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = {mode}\n{settings}\n",
            own.port()
        );
        std::fs::write(&file, ini).expect("a file");
        let mut command = Command::new(program());
        // PgBouncer refuses to run as root.
        if std::fs::metadata(&file).is_ok_and(|file| std::os::unix::fs::MetadataExt::uid(&file) == 0) {
            command.args(["-u", "nobody"]);
        }
        let process = command
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("pgbouncer");
        let begun = Instant::now();
        while TcpStream::connect(own).await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "PgBouncer does not listen");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Self { url: format!("postgres://{account}@{own}/{name}").into(), database: database.clone(), _process: process }
    }

    async fn opened(&self) -> Result<Pool, String> {
        let migration =
            refinery::Migration::unapplied("V1__t", "CREATE TABLE t (n integer PRIMARY KEY)").expect("a migration");
        let config = PostgresConfig {
            postgres_connections: 4,
            patience: Some(Duration::from_secs(10)),
            ..PostgresConfig::default()
        };
        let opened = Pool::open(&self.url, "pooled", refinery::Runner::new(&[migration]), &config).await;
        opened.map_err(|error| format!("{error:#}"))
    }

    /// Returns the schemas in the database that have tables.
    async fn schemas(&self) -> Vec<String> {
        let config = PostgresConfig { postgres_connections: 1, ..PostgresConfig::default() };
        let pool =
            Pool::open(&self.database, "looking", refinery::Runner::new(&[]), &config).await.expect("the database");
        let found = "SELECT DISTINCT schemaname::text FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema', 'looking')";
        pool.query(found, &[]).await.expect("an answer").iter().map(|row| row.get(0)).collect()
    }
}

fn program() -> &'static str {
    // Debian installs it outside users' PATH.
    if Path::new("/usr/sbin/pgbouncer").exists() { "/usr/sbin/pgbouncer" } else { "pgbouncer" }
}

#[tokio::test]
async fn session_pooling_works_like_postgres() {
    for settings in ["", "ignore_startup_parameters = options"] {
        let bouncer = Bouncer::start("session", settings).await;
        let pool = bouncer.opened().await.expect("a pool");
        let set = "SELECT current_schema()::text, current_setting('statement_timeout'), current_setting('jit')";
        for _ in 0..3 {
            let rows = pool.query(set, &[]).await.expect("an answer");
            let set: [String; 3] = [0, 1, 2].map(|at| rows[0].get(at));
            assert_eq!(set, ["pooled", "3s", "off"]);
        }
        assert_eq!(bouncer.schemas().await, ["pooled"], "{settings}");
    }
}

#[tokio::test]
async fn transaction_pooling_is_rejected_before_tables_are_created() {
    for mode in ["transaction", "statement"] {
        for settings in ["", "ignore_startup_parameters = options", "server_round_robin = 1", "default_pool_size = 1"] {
            let bouncer = Bouncer::start(mode, settings).await;
            let refused = bouncer.opened().await.err().expect("a refusal");
            assert!(refused.contains("pool_mode = session"), "{mode} {settings}: {refused}");
            assert_eq!(bouncer.schemas().await, [""; 0], "{mode} {settings}");
        }
    }
}

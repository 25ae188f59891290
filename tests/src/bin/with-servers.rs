//! Runs a command beside real servers.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use confab_tests::command::{self, Beside};
use confab_tests::guard::Guard;
use confab_tests::plan::free_ports;
use confab_tests::servers::newer::Newer;
use confab_tests::servers::postgres::Postgres;
use confab_tests::servers::{redis, seaweed};
use confab_tests::wait::eventually;
use tokio::signal::unix::{SignalKind, signal};

/// Runs a command beside a scratch Postgres, Redis and SeaweedFS, and exits with the command's status
///
/// TEST_POSTGRES_URL, TEST_REDIS_URL and TEST_S3_URL give the command their addresses. Afterwards the servers are
/// stopped in every case.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Run Postgres 18, and Valkey 9 in place of Redis; scripts/ensure-newer-servers.sh installs them
    #[arg(long)]
    newer: bool,
    #[command(flatten)]
    command: Beside,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let Arguments { newer, command } = Arguments::parse();
    let guard = Guard::new("servers")?;
    let directory = guard.directory();
    let port = free_ports(2 + seaweed::PORTS)?;
    let (bus_port, s3_port) = (port + 1, port + 2);
    let pid_file = |name: &str| directory.join(format!("{name}.pid"));
    let log = |name: &str| directory.join(format!("{name}.log"));

    // The slowest server starts first.
    let objects = seaweed::daemon(directory.join("s3"), s3_port, pid_file("s3"), log("s3"))?;
    let secret = uuid::Uuid::new_v4().to_string();
    seaweed::configure(&objects, &secret)?;
    objects.spawn().await?;
    let newer = newer.then(|| Newer::find(directory)).transpose()?;
    let (bus_work, bus_pid, bus_log) = (directory.join("redis"), pid_file("redis"), log("redis"));
    let bus = match &newer {
        Some(newer) => redis::of(newer.redis.join("redis-server"), bus_work, bus_port, bus_pid, bus_log),
        None => redis::daemon(bus_work, bus_port, bus_pid, bus_log)?,
    };
    bus.spawn().await?;
    let work = directory.join("postgres");
    let postgres = match &newer {
        Some(newer) => Postgres::of(newer.postgres.clone(), &work, port, false)?,
        None => Postgres::new(&work, port, false)?,
    };
    postgres.prepare(None)?;
    let database = postgres.daemon(pid_file("postgres"), log("postgres"));
    database.spawn().await?;
    let ready = async || (postgres.is_ready() && redis::is_ready(([127, 0, 0, 1], bus_port).into())).then_some(());
    eventually("Postgres and Redis are ready", Duration::from_secs(30), ready)
        .await
        .with_context(|| database.last_words())?;
    let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?;
    let ready = async || seaweed::is_ready(&http, s3_port, &secret).await.then_some(());
    eventually("SeaweedFS is ready", Duration::from_secs(60), ready).await.with_context(|| objects.last_words())?;

    let temporary = directory.join("tmp");
    std::fs::create_dir(&temporary)?;
    // Temporary files of tests are removed together with the directory.
    let path = std::env::var("PATH").unwrap_or_default();
    let mut running = command.spawn(&[
        // Some tests start their own Redis.
        ("PATH", newer.map_or(path.clone(), |newer| format!("{}:{path}", newer.redis.display()))),
        ("TMPDIR", temporary.display().to_string()),
        ("TEST_POSTGRES_URL", postgres.url(None, "postgres")),
        ("TEST_REDIS_URL", format!("redis://127.0.0.1:{bus_port}")),
        ("TEST_S3_URL", format!("http://{}:{secret}@127.0.0.1:{s3_port}", seaweed::KEY)),
    ])?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(tokio::select! {
        ended = running.wait() => command::status(ended?),
        _ = interrupt.recv() => ExitCode::FAILURE,
        _ = terminate.recv() => ExitCode::FAILURE,
    })
}

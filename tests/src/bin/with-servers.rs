//! `with-servers COMMAND…`: runs a command with a scratch Postgres and Redis, which it finds by `TEST_POSTGRES_URL` and
//! `TEST_REDIS_URL`, and ends with its status. The servers are gone afterwards, however it ends.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use confab_tests::guard::Guard;
use confab_tests::plan::free_ports;
use confab_tests::servers::postgres::Postgres;
use confab_tests::servers::redis;
use confab_tests::wait::eventually;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    let program = words.next().context("usage: with-servers COMMAND…")?;
    let guard = Guard::new("servers")?;
    let directory = guard.directory();
    let port = free_ports(2)?;

    let postgres = Postgres::new(&directory.join("postgres"), port, false)?;
    postgres.prepare(None)?;
    let database = postgres.daemon(directory.join("postgres.pid"), directory.join("postgres.log"));
    database.spawn().await?;
    let bus = redis::daemon(directory.join("redis"), port + 1, directory.join("redis.pid"), directory.join("redis.log"))?;
    bus.spawn().await?;
    let ready = async || (postgres.is_ready() && redis::is_ready(port + 1)).then_some(());
    eventually("Postgres and Redis are ready", Duration::from_secs(30), ready).await.with_context(|| database.last_words())?;

    let temporary = directory.join("tmp");
    std::fs::create_dir(&temporary)?;
    let mut command = tokio::process::Command::new(&program);
    // What tests leave in temporary files goes with the rest.
    command.args(words).env("TMPDIR", temporary).env("TEST_POSTGRES_URL", postgres.url(None, "postgres"));
    command.env("TEST_REDIS_URL", format!("redis://127.0.0.1:{}", port + 1)).kill_on_drop(true);
    let mut running = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let status = tokio::select! {
        status = running.wait() => status?.code(),
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
    };
    Ok(status.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

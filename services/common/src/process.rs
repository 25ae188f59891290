//! The life of a process: all start-up work in one function that passes on one context, and a bounded shutdown.

use std::process::ExitCode;

use anyhow::Context;
use clap::FromArgMatches;
use rustix::fs::Mode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{self, CommonConfig};
use crate::readiness::Readiness;
use crate::telemetry::{self, trace};
use crate::trust::Authorities;
use crate::{admin, healthcheck, memory, metrics};

/// The argument of a program's `main`.
#[derive(Clone)]
pub struct Process {
    /// Cancelled on SIGTERM or Ctrl-C: the process still accepts requests, so that none in transit fails.
    pub leaving: CancellationToken,
    /// Cancelled when no further request is accepted.
    pub shutdown: CancellationToken,
    /// The state that `/readyz` reports.
    pub readiness: Readiness,
}

impl Process {
    /// A new context, for tests and for programs that are part of another.
    pub fn new() -> Self {
        Self { leaving: CancellationToken::new(), shutdown: CancellationToken::new(), readiness: Readiness::default() }
    }
}

impl Default for Process {
    fn default() -> Self {
        Self::new()
    }
}

/// Settings that contain those of every program.
pub trait Settings: clap::Parser {
    /// The settings of every program.
    fn common(&self) -> &CommonConfig;

    /// Whether the program serves; a subcommand that only does its work needs no admin port.
    fn serves(&self) -> bool {
        true
    }

    /// Validates the settings without side effects: a program with wrong settings opens no port and creates no file.
    ///
    /// # Errors
    /// When one of them is wrong.
    fn check(&self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Runs a program: settings, logging, descriptor limit, admin port, signals, then `main` until it returns. Every
/// program also has the subcommand `healthcheck`, which only needs the address of the admin port. After a signal `main`
/// has the drain time to return; a second signal or the deadline ends the process. Files that it creates are for its
/// own user only.
pub fn run<C, F>(main: impl FnOnce(C, Process) -> F) -> ExitCode
where
    C: Settings,
    F: Future<Output = anyhow::Result<()>>,
{
    let ended = config::read(C::command().subcommand(healthcheck::command())).and_then(|given| {
        if given.subcommand_name() == Some(healthcheck::NAME) {
            let admin = CommonConfig::from_arg_matches(&given)?.admin_listen;
            return tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(healthcheck::ask(admin));
        }
        let config = C::from_arg_matches(&given)?;
        telemetry::init(config.common())?;
        if let Some(file) = &config.common().ca_file {
            Authorities::add(file).context("CONFAB_CA_FILE")?;
        }
        config.check()?;
        rustix::process::umask(Mode::RWXG | Mode::RWXO);
        raise_descriptor_limit();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let ended = runtime.block_on(live(config, main));
        // Blocking work beyond the deadline must not hold up the process.
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn live<C, F>(config: C, main: impl FnOnce(C, Process) -> F) -> anyhow::Result<()>
where
    C: Settings,
    F: Future<Output = anyhow::Result<()>>,
{
    let common = config.common().clone();
    let process = Process::new();
    if config.serves() {
        metrics::start(C::command().get_name(), process.readiness.clone());
        trace::export::start(C::command().get_name())?;
        admin::spawn(&common, process.readiness.clone()).await?;
        tokio::spawn(memory::give_back());
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut main = std::pin::pin!(main(config, process.clone()));
    tokio::select! {
        ended = &mut main => return ended,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    if !process.readiness.has_started() {
        // No request has been accepted, and start-up may wait for something that never comes.
        return Ok(());
    }
    tracing::info!("shutting down; a second signal ends the process at once");
    process.readiness.drain();
    process.leaving.cancel();
    let deadline = Instant::now() + common.accept_drain + common.drain;
    let finished = async {
        let ended = main.await;
        // The last spans get half of the remaining time, so that exporting never makes the shutdown fail.
        trace::export::finish(deadline.saturating_duration_since(Instant::now()) / 2).await;
        ended
    };
    let accepting = async {
        tokio::time::sleep(common.accept_drain).await;
        process.shutdown.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = finished => ended,
        _ = accepting => Ok(()),
        _ = terminate.recv() => anyhow::bail!("ended by a second signal"),
        _ = interrupt.recv() => anyhow::bail!("ended by a second signal"),
        _ = tokio::time::sleep_until(deadline) => anyhow::bail!("not done within the drain time"),
    }
}

/// A socket needs a descriptor: raises the limit to all that the system grants.
fn raise_descriptor_limit() {
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "cannot raise the descriptor limit");
    }
}

//! The life of a process: all start-up work happens in one function with one context, and the shutdown is bounded.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::FromArgMatches;
use rustix::fs::Mode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{self, CommonConfig};
use crate::grpc::{Role, Security};
use crate::readiness::Readiness;
use crate::standstill::{self, PauseDetector};
use crate::telemetry::{self, trace};
use crate::trust::Authorities;
use crate::{admin, healthcheck, memory, metrics};

/// The context that a program's `main` receives.
#[derive(Clone)]
pub struct Process {
    /// Cancelled on SIGTERM or Ctrl-C. The process still accepts requests, so that no request in transit fails.
    pub leaving: CancellationToken,
    /// Cancelled when no further request is accepted.
    pub shutdown: CancellationToken,
    /// The state that `/readyz` reports.
    pub readiness: Readiness,
    /// How the process authenticates itself and other programs.
    pub security: Security,
    /// Whether requests may be outdated, because they may have arrived while the process stood still. A program rejects
    /// them: their clients may have repeated them elsewhere and done something else since.
    pub pauses: Arc<PauseDetector>,
}

impl Process {
    /// Creates a context, for tests and for programs that are part of another program.
    pub fn new() -> Self {
        Self::with(Security::default())
    }

    /// Creates the context of a process with a certificate.
    pub fn with(security: Security) -> Self {
        let (leaving, shutdown) = (CancellationToken::new(), CancellationToken::new());
        Self { leaving, shutdown, readiness: Readiness::default(), security, pauses: Arc::default() }
    }
}

impl Default for Process {
    fn default() -> Self {
        Self::new()
    }
}

/// Settings that include those of every program.
pub trait Settings: clap::Parser {
    fn common(&self) -> &CommonConfig;

    /// Returns whether the program serves. A subcommand that does its work and exits needs no admin port.
    fn serves(&self) -> bool {
        true
    }

    /// Validates the settings without side effects: a program with wrong settings opens no port and creates no file.
    ///
    /// # Errors
    /// When a setting is wrong.
    fn check(&self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Runs a program: reads the settings, sets up logging, the descriptor limit, the admin port and the signals, and runs
/// `main` until it returns. Every program also has the subcommand `healthcheck`, which needs only the address of the
/// admin port. After a signal, `main` has the drain time to return; a second signal or the deadline ends the process.
/// Files that the process creates are accessible only to its own user.
pub fn run<C, F>(main: impl FnOnce(C, Process) -> F) -> ExitCode
where
    C: Settings,
    F: Future<Output = anyhow::Result<()>>,
{
    let ended = config::read(C::command().subcommand(healthcheck::command())).and_then(|given| {
        if given.subcommand_name() == Some(healthcheck::NAME) {
            let admin = CommonConfig::from_arg_matches(&given)?.admin_listen;
            return tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(healthcheck::check(admin));
        }
        let config = C::from_arg_matches(&given)?;
        telemetry::init(config.common())?;
        if let Some(file) = &config.common().ca_file {
            Authorities::add(file).context("CONFAB_CA_FILE")?;
        }
        config.check()?;
        let security = if config.serves() {
            Security::open(&config.common().calls, Role::of_program(C::command().get_name()))?
        } else {
            Security::default()
        };
        rustix::process::umask(Mode::RWXG | Mode::RWXO);
        raise_descriptor_limit();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let ended = runtime.block_on(live(config, Process::with(security), main));
        // Blocking work that outlasts the deadline must not delay the exit.
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

async fn live<C, F>(config: C, process: Process, main: impl FnOnce(C, Process) -> F) -> anyhow::Result<()>
where
    C: Settings,
    F: Future<Output = anyhow::Result<()>>,
{
    let common = config.common().clone();
    if config.serves() {
        metrics::start(C::command().get_name(), process.readiness.clone());
        trace::export::start(C::command().get_name())?;
        admin::spawn(&common, process.readiness.clone()).await?;
        tokio::spawn(memory::give_back());
        tokio::spawn(standstill::watch(process.pauses.clone(), standstill::requests_read));
        process.security.watch_files();
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
        // No request has been accepted, and the start-up may wait for a condition that never holds.
        return Ok(());
    }
    tracing::info!("shutting down; a second signal ends the process at once");
    process.readiness.drain();
    process.leaving.cancel();
    let deadline = Instant::now() + common.accept_drain + common.drain;
    let finished = async {
        let ended = main.await;
        // The last spans get half of the remaining time, so that an export never makes the shutdown fail.
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
        _ = tokio::time::sleep_until(deadline) => anyhow::bail!("the shutdown exceeded the drain time"),
    }
}

/// Raises the descriptor limit to the hard limit, because each socket needs a descriptor.
fn raise_descriptor_limit() {
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "cannot raise the descriptor limit");
    }
}

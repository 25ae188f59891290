//! The life of a process: all start-up work in one function that passes on one context, and a bounded shutdown.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use clap::FromArgMatches;
use rustix::fs::Mode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{self, CommonConfig};
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
        admin::spawn(&common, &process).await?;
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

/// Whether the process is warm and not draining. Each part that must be warm takes a [`Condition`].
#[derive(Clone, Debug)]
pub struct Readiness(Arc<watch::Sender<bool>>, Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    started: bool,
    draining: bool,
    conditions: BTreeMap<&'static str, bool>,
    /// Known faults, by part.
    notes: BTreeMap<String, String>,
}

impl State {
    fn ready(&self) -> bool {
        self.started && !self.draining && self.conditions.values().all(|met| *met)
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self(Arc::new(watch::channel(false).0), Arc::default())
    }
}

impl Readiness {
    /// Adds a condition that does not hold yet.
    pub fn condition(&self, name: &'static str) -> Condition {
        self.change(|state| _ = state.conditions.insert(name, false));
        Condition(self.clone(), name)
    }

    /// Start-up is complete: no further conditions are added.
    pub fn started(&self) {
        self.change(|state| state.started = true);
    }

    /// Whether start-up is complete.
    pub fn has_started(&self) -> bool {
        self.1.lock().unwrap_or_else(PoisonError::into_inner).started
    }

    /// The process is draining: never ready again.
    pub fn drain(&self) {
        self.change(|state| state.draining = true);
    }

    /// Follows whether [`Readiness::missing`] is `None`.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }

    /// Why the process is not ready; `None` when it is.
    pub fn missing(&self) -> Option<String> {
        let state = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        let unmet = state.conditions.iter().filter(|(_, met)| !**met).map(|(name, _)| *name).collect::<Vec<_>>();
        match state.ready() {
            true => None,
            false if state.draining => Some("leaving".into()),
            false if unmet.is_empty() => Some("starting".into()),
            false => Some(format!("waiting for {}", unmet.join(", "))),
        }
    }

    /// Sets or clears a part's fault, which alone does not change whether the process is ready.
    pub fn note(&self, part: &str, wrong: Option<String>) {
        self.change(|state| match wrong {
            Some(wrong) => _ = state.notes.insert(part.to_owned(), wrong),
            None => _ = state.notes.remove(part),
        });
    }

    /// The faults by part, each after `; `.
    pub fn notes(&self) -> String {
        let state = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        state.notes.iter().map(|(part, wrong)| format!("; {part}: {wrong}")).collect()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        self.0.send_replace(state.ready());
    }
}

/// A condition for the process to be ready.
pub struct Condition(Readiness, &'static str);

impl Condition {
    /// Sets whether the condition holds.
    pub fn set(&self, met: bool) {
        self.0.change(|state| _ = state.conditions.insert(self.1, met));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_started_warm_and_not_leaving() {
        let readiness = Readiness::default();
        let warm = readiness.condition("keys");
        assert_eq!(readiness.missing().unwrap(), "waiting for keys");
        warm.set(true);
        assert_eq!(readiness.missing().unwrap(), "starting");
        readiness.started();
        assert_eq!(readiness.missing(), None);
        assert!(*readiness.watch().borrow());
        warm.set(false);
        assert!(!*readiness.watch().borrow());
        readiness.note("room store", Some("Postgres is read-only".into()));
        assert_eq!(
            (readiness.missing().unwrap().as_str(), &*readiness.notes()),
            ("waiting for keys", "; room store: Postgres is read-only")
        );
        warm.set(true);
        assert_eq!(readiness.missing(), None, "what is wrong elsewhere sends no clients away");
        readiness.note("room store", None);
        assert_eq!(readiness.notes(), "");
        readiness.drain();
        assert_eq!(readiness.missing().unwrap(), "leaving");
    }
}

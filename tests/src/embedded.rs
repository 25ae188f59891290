//! The embedded program, started like `cargo run`.

use std::time::Duration;

use anyhow::Context;

use crate::cluster::UNLIMITED;
use crate::daemon::Daemon;
use crate::guard::Guard;
use crate::plan::free_ports;
use crate::programs;
use crate::wait::eventually;

/// A running `confab` with its own data directory, removed when the test run ends.
pub struct Embedded {
    daemon: Daemon,
    port: u16,
    _guard: Guard,
}

impl Embedded {
    /// Starts the program with these settings in addition to its defaults.
    ///
    /// # Errors
    /// When it does not become ready; the message contains the end of its log.
    pub async fn start(settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start_with(None, settings).await
    }

    /// Like [`start`](Self::start), with a descriptor limit.
    ///
    /// # Errors
    /// When it does not become ready; the message contains the end of its log.
    pub async fn start_with(descriptors: Option<u64>, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let guard = Guard::new("embedded")?;
        let directory = guard.directory();
        let port = free_ports(2)?;
        let own = [
            ("CONFAB_LISTEN", format!("127.0.0.1:{port}")),
            ("CONFAB_ADMIN_LISTEN", format!("127.0.0.1:{}", port + 1)),
        ];
        let unlimited = UNLIMITED.map(|(name, value)| (name, value.to_owned())).into_iter();
        let given = settings.iter().map(|(name, value)| (*name, value.to_string()));
        let (work, pid_file, log) =
            (directory.join("work"), directory.join("confab.pid"), directory.join("confab.log"));
        let daemon = Daemon {
            environment: own
                .into_iter()
                .chain(unlimited)
                .chain(given)
                .map(|(name, value)| (name.to_string(), value))
                .collect(),
            descriptors,
            ..Daemon::new(programs().join("confab"), work, pid_file, log)
        };
        let embedded = Self { daemon, port, _guard: guard };
        embedded.up().await?;
        Ok(embedded)
    }

    /// Restarts it on the same data, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn up(&self) -> anyhow::Result<()> {
        self.daemon.spawn().await?;
        let readyz = format!("http://127.0.0.1:{}/readyz", self.admin_port());
        let ready = async || {
            let is_ready = reqwest::get(&readyz).await.is_ok_and(|answer| answer.status().is_success());
            // Another program may be listening on its port.
            if self.daemon.running().is_none() {
                Some(Err(anyhow::anyhow!("the process has ended")))
            } else {
                is_ready.then_some(Ok(()))
            }
        };
        eventually("confab is ready", Duration::from_secs(30), ready)
            .await
            .flatten()
            .with_context(|| self.daemon.last_words())
    }

    /// The process, to be signalled, stopped or killed.
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// The port of `/readyz` and `/metrics`.
    pub fn admin_port(&self) -> u16 {
        self.port + 1
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

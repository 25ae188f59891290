//! The health probes of a platform.

use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::daemon::Daemon;
use crate::programs;

/// Time limit for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// A probe that succeeds or fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A program listens on the port.
    Tcp(u16),
    /// A path at the port answers with 2xx or 3xx.
    Http(u16, String),
    /// gRPC's health service reports that it serves. Source:
    /// <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>.
    Grpc(u16),
    /// A command in the container succeeds.
    Command(Vec<String>),
}

impl Probe {
    pub(super) async fn succeeds(&self, address: &str, daemon: &Daemon) -> bool {
        let asked = async {
            match self {
                Self::Tcp(port) => TcpStream::connect((address, *port)).await.map(drop)?,
                Self::Http(port, path) => {
                    _ = reqwest::get(format!("http://{address}:{port}{path}")).await?.error_for_status()?
                }
                Self::Grpc(port) => {
                    let channel = Endpoint::from_shared(format!("http://{address}:{port}"))?.connect().await?;
                    let mut client = HealthClient::new(channel);
                    let answer = client.check(HealthCheckRequest::default()).await?.into_inner();
                    anyhow::ensure!(answer.status() == ServingStatus::Serving);
                }
                Self::Command(words) => run(words, address, daemon).await?,
            }
            anyhow::Ok(())
        };
        timeout(ANSWER_LIMIT, asked).await.is_ok_and(|asked| asked.is_ok())
    }
}

async fn run(words: &[String], address: &str, daemon: &Daemon) -> anyhow::Result<()> {
    let (program, arguments) = words.split_first().context("a command has a program")?;
    let ours = programs().join(program);
    let mut command = Command::new(if program.starts_with("confab") { ours.as_os_str() } else { program.as_ref() });
    // Postgres's own programs connect to this address.
    command.args(arguments).envs(daemon.environment.iter().cloned()).env("PGHOST", address).kill_on_drop(true);
    let output = command.output().await?;
    anyhow::ensure!(output.status.success());
    Ok(())
}

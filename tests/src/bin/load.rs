//! `load SCENARIO`: measures a running server. `load --help` says what there is.

use anyhow::ensure;
use clap::{Parser, Subcommand};
use confab_tests::cluster::Cluster;
use confab_tests::embedded::Embedded;
use confab_tests::load::{attack, fanout, files, hintless, idle, send, stalled, start, storm};
use confab_tests::plan::Role;

/// Measures how fast and how small a chat server is, over plain Socket.IO and /proc
#[derive(Parser)]
#[command(
    version,
    after_help = "With the cluster of `make cluster-up` running:\n  \
                  load fanout --url http://127.0.0.1:8081 --pids-dir .run/pids\n\
                  With `cargo run --release` running:\n  \
                  load send --pid confab=$(pidof confab)"
)]
struct Arguments {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand)]
enum Scenario {
    /// Every message goes to many sockets: deliveries a second, latency, processor time for each
    Fanout(fanout::Fanout),
    /// Many sockets that do nothing: connects a second, memory for each
    Idle(idle::Idle),
    /// Messages as fast as they are durable: acknowledged a second, latency, processor time for each
    Send(send::Send),
    /// A large file up and down beside a bare program on the same store, and many small ones while people chat
    Files(files::Files),
    /// All sockets are dropped at once and come back: how long until they have everything
    Storm(storm::Storm),
    /// Some read nothing of a busy room: what that costs those who speak, and the gateway's memory
    Stalled(stalled::Stalled),
    /// Redis is killed while people chat: how soon they are heard without it
    Hintless(hintless::Hintless),
    /// Hostile clients beside honest ones: what that costs the honest, and the server's memory
    Attack(attack::Attack),
    /// The program's start: time until it is ready, memory, size
    Start(start::Start),
    /// All of these, on a scratch cluster with one gateway and on a scratch embedded server
    All {
        /// How long each run measures
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Results as lines of JSON
        #[arg(long)]
        json: bool,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().scenario {
        Scenario::All { seconds, json } => all(seconds, json).await,
        scenario => run(scenario).await,
    }
}

async fn run(scenario: Scenario) -> anyhow::Result<()> {
    match scenario {
        Scenario::Fanout(fanout) => fanout::run(fanout).await,
        Scenario::Idle(idle) => idle::run(idle).await,
        Scenario::Send(send) => send::run(send).await,
        Scenario::Files(files) => files::run(files).await,
        Scenario::Storm(storm) => storm::run(storm).await,
        Scenario::Stalled(stalled) => stalled::run(stalled).await,
        Scenario::Hintless(hintless) => hintless::run(hintless).await,
        Scenario::Attack(attack) => attack::run(attack).await,
        Scenario::Start(start) => start::run(start),
        Scenario::All { .. } => Ok(()),
    }
}

async fn all(seconds: u64, json: bool) -> anyhow::Result<()> {
    let json = if json { " --json" } else { "" };
    let mut well = true;
    let cluster = Cluster::measured(1, 2).await?;
    let server = format!("--url {} --pids-dir {}/pids", cluster.plan.url((Role::Gateway, 1)), cluster.plan.directory.display());
    for scenario in ["fanout --in-flight 2", "fanout --in-flight 16", "send", "idle"] {
        well &= line(&format!("{scenario} {server} --seconds {seconds}{json}")).await;
    }
    drop(cluster);
    let embedded = Embedded::start(&[]).await?;
    let server = format!("--url {} --pid confab={}", embedded.url(), embedded.daemon().running().unwrap_or_default());
    for scenario in ["fanout --in-flight 2", "fanout --in-flight 16", "send", "idle"] {
        well &= line(&format!("{scenario} {server} --seconds {seconds}{json}")).await;
    }
    drop(embedded);
    for scenario in ["storm", "stalled", "hintless", "files"] {
        well &= line(&format!("{scenario}{json}")).await;
    }
    well &= line(&format!("start{json}")).await;
    ensure!(well, "not all went well");
    Ok(())
}

/// Runs a scenario as from the command line; returns whether it succeeded.
async fn line(arguments: &str) -> bool {
    eprintln!("\nload {arguments}");
    let outcome = match Arguments::try_parse_from(std::iter::once("load").chain(arguments.split(' '))) {
        Ok(Arguments { scenario }) => run(scenario).await,
        Err(error) => Err(error.into()),
    };
    outcome.inspect_err(|error| eprintln!("{error:#}")).is_ok()
}

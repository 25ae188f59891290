//! `load SCENARIO`: measures a running server. `load --help` lists the scenarios.

use anyhow::ensure;
use clap::{Parser, Subcommand};
use confab_tests::cluster::Cluster;
use confab_tests::embedded::Embedded;
use confab_tests::load::{access, acts, attack, fanout, files, hintless, idle, send, stalled, start, storm};
use confab_tests::plan::Role;

/// Measures the speed and resource use of a chat server, over plain Socket.IO and /proc
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
    /// Every message goes to many sockets: deliveries per second, latency, processor time per delivery
    Fanout(fanout::Fanout),
    /// Many idle sockets: connections per second, memory per socket
    Idle(idle::Idle),
    /// Durable messages at full speed: acknowledgements per second, latency, processor time per message
    Send(send::Send),
    /// Upload and download of a large file compared with a bare S3 client, and many small files during chat
    Files(files::Files),
    /// All sockets disconnect at once and return: time until each has every message
    Storm(storm::Storm),
    /// Some clients of a busy room stop reading: the effect on the senders, and the gateway's memory
    Stalled(stalled::Stalled),
    /// Redis is killed during chat: time until messages are delivered without it
    Hintless(hintless::Hintless),
    /// The cost of the checks of callers: processor time of a token, delay of an act by its limit
    Access(access::Access),
    /// Reactions, read markers, unread counts and searches: latency, statements, events in the log
    Acts(acts::Acts),
    /// Hostile clients beside honest ones: the effect on the honest clients, and the server's memory
    Attack(attack::Attack),
    /// The start of the program: time until it is ready, memory, binary size
    Start(start::Start),
    /// All scenarios, on a scratch cluster with one gateway and on a scratch embedded server
    All {
        /// Duration of each measurement in seconds
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Print results as lines of JSON
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
        Scenario::Access(access) => access::run(access).await,
        Scenario::Acts(acts) => acts::run(acts).await,
        Scenario::Attack(attack) => attack::run(attack).await,
        Scenario::Start(start) => start::run(start),
        Scenario::All { .. } => Ok(()),
    }
}

async fn all(seconds: u64, json: bool) -> anyhow::Result<()> {
    let json = if json { " --json" } else { "" };
    let mut well = true;
    let cluster = Cluster::measured(1, 2).await?;
    let server =
        format!("--url {} --pids-dir {}/pids", cluster.plan.url((Role::Gateway, 1)), cluster.plan.directory.display());
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
    for scenario in ["storm", "stalled", "hintless", "access", "files"] {
        well &= line(&format!("{scenario}{json}")).await;
    }
    well &= line(&format!("start{json}")).await;
    ensure!(well, "at least one scenario failed");
    Ok(())
}

/// Runs a scenario as from the command line. Returns whether it succeeded.
async fn line(arguments: &str) -> bool {
    eprintln!("\nload {arguments}");
    let outcome = match Arguments::try_parse_from(std::iter::once("load").chain(arguments.split(' '))) {
        Ok(Arguments { scenario }) => run(scenario).await,
        Err(error) => Err(error.into()),
    };
    outcome.inspect_err(|error| eprintln!("{error:#}")).is_ok()
}
